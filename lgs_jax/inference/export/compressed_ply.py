"""Reads the compressed .ply of SuperSplat and PlayCanvas: 16 bytes a Gaussian.

Gaussians come in chunks of 256 with the bounds of their positions, logarithmic scales and (in newer
files) colours; each is four 32-bit words: position and scale with 11, 10 and 11 bits between the
bounds, the three smaller parts of the quaternion with 10 bits each and 2 bits for which is left
out, and RGB with opacity as bytes. https://github.com/playcanvas/splat-transform.
"""

import math
import pathlib
import warnings
from typing import BinaryIO

import numpy as np

from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import fields, ply

_CHUNK = 256
_WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_WORD = "<u4"
_AXES = "xyz"
_BOUNDS = tuple(
    f"{end}_{prefix}{axis}" for prefix in ("", "scale_") for end in ("min", "max") for axis in _AXES
)
_COLOR_BOUNDS = tuple(f"{end}_{channel}" for end in ("min", "max") for channel in "rgb")


def is_compressed(elements: list[ply.Element]) -> bool:
    """Whether a header's elements are those of this format."""
    names = [name for element in elements for name, _ in element.fields]
    return set(_WORDS) <= set(names)


def read(path: pathlib.Path, file: BinaryIO, elements: list[ply.Element]) -> Gaussians:
    """The Gaussians that follow a header with these elements.

    Raises:
      ValueError: naming the file, if the elements do not fit together, the file is cut short, or
        its values are none of Gaussians.
    """
    types = {element.name: dict(element.fields) for element in elements}
    lacking = [name for name in _BOUNDS if name not in types.get("chunk", {})]
    lacking += [name for name in _WORDS if types.get("vertex", {}).get(name) != _WORD]
    if lacking:
        raise ValueError(
            f"{path}: expected the bounds of chunks and 32-bit words of vertices, but "
            f"{', '.join(lacking)} are missing or of another type; the file is damaged"
        )
    tables = {element.name: ply.read_element(path, file, element) for element in elements}
    chunks, packed = tables["chunk"], tables["vertex"]
    if len(chunks) != -(-len(packed) // _CHUNK):
        counts = {name: len(table) for name, table in tables.items()}
        raise ValueError(
            f"{path}: expected one chunk for every {_CHUNK} vertices, found {counts}; the file is "
            "damaged"
        )
    if "sh" in tables:
        warnings.warn(
            f"{path}: view-dependent colours are left out: Gaussians hold one colour for all "
            "directions",
            stacklevel=2,
        )
    of_vertex = np.repeat(np.arange(len(chunks)), _CHUNK)[: len(packed)]
    bounds = chunks[of_vertex]

    def between(share: np.ndarray, prefix: str, names: str) -> np.ndarray:
        low = np.stack([bounds[f"min_{prefix}{name}"] for name in names], -1).astype(np.float64)
        high = np.stack([bounds[f"max_{prefix}{name}"] for name in names], -1)
        return low + share * (high - low)

    color = _bits(packed["packed_color"], (8, 8, 8, 8))
    rgb = color[:, :3]
    with np.errstate(all="ignore"):  # of a damaged file; what comes of it is refused
        if set(_COLOR_BOUNDS) <= set(types["chunk"]):
            rgb = between(rgb, "", "rgb")
        means = between(_bits(packed["packed_position"], (11, 10, 11)), "", _AXES)
        log_scales = between(_bits(packed["packed_scale"], (11, 10, 11)), "scale_", _AXES)
        scales = np.exp(log_scales)
    return fields.from_file(
        path,
        means=means,
        quats=_quats(packed["packed_rotation"]),
        scales=scales,
        opacities=color[:, 3],
        colors=rgb,
    )


def _bits(words: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    """Numbers in [0, 1] from the bits of words [N], highest bits first, [N, len(counts)]."""
    parts, shift = [], sum(counts)
    for count in counts:
        shift -= count
        largest = 2**count - 1
        parts.append(((words >> np.uint32(shift)) & np.uint32(largest)) / largest)
    return np.stack(parts, axis=-1)


def _quats(words: np.ndarray) -> np.ndarray:
    """Quaternions wxyz [N, 4]; the largest part is not stored and positive."""
    smaller = (_bits(words, (10, 10, 10)) - 0.5) * math.sqrt(2)
    largest = np.sqrt(np.maximum(0.0, 1.0 - np.sum(smaller**2, axis=-1)))
    left_out = (words >> np.uint32(30)).astype(int)
    quats = np.zeros((len(words), 4))
    for part in range(4):
        rows = left_out == part
        others = [other for other in range(4) if other != part]
        quats[np.ix_(rows, others)] = smaller[rows]
        quats[rows, part] = largest[rows]
    return quats
