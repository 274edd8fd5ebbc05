"""Gaussian scenes as .glb files: binary glTF 2.0 with KHR_gaussian_splatting.

After the extension's release candidate (github.com/KhronosGroup/glTF): a primitive of points whose
attributes are float32: rotations xyzw, linear scales and opacities, colours as degree-0 spherical
harmonics in sRGB. COLOR_0 is for programs that know only points. Axes of glTF are left-up-front;
scenes come and go in those of the cameras' world, as they do with PlayCanvas' splat-transform.

Letters: N Gaussians.
"""

import dataclasses
import json
import pathlib
import struct
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from lgs_jax import files
from lgs_jax.core import gaussians
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import fields, ply

_EXTENSION = "KHR_gaussian_splatting"
_READABLE = frozenset({_EXTENSION, "KHR_mesh_quantization"})
_COLOR_SPACE = "srgb_rec709_display"

_HEADER = struct.Struct("<4sII")  # magic, version, bytes of the file
_CHUNK = struct.Struct("<I4s")  # bytes, kind
_JSON, _BINARY = b"JSON", b"BIN\0"
_POINTS, _ARRAY_BUFFER = 0, 34962
_COMPONENTS = {
    **{5120: np.dtype("i1"), 5121: np.dtype("u1"), 5122: np.dtype("<i2"), 5123: np.dtype("<u2")},
    **{5125: np.dtype("<u4"), 5126: np.dtype("<f4")},
}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def save_glb(path: str | pathlib.Path, scene: Gaussians) -> pathlib.Path:
    """Writes one scene (N Gaussians, RGB) and returns the path; nothing is rounded but to float32.

    The file appears only when complete.

    Raises:
      ValueError: if the scene is batched, is not RGB, or holds values that the format cannot.
    """
    means, quats, scales, opacities, colors = ply.host_values(path, scene)
    means, quats = fields.half_turn(means, quats, fields.ABOUT_Z)
    unit = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    attributes = {
        "POSITION": means.astype("<f4"),
        "COLOR_0": _fallback(colors, opacities),
        f"{_EXTENSION}:ROTATION": np.roll(unit, -1, axis=-1).astype("<f4"),
        f"{_EXTENSION}:SCALE": scales.astype("<f4"),
        f"{_EXTENSION}:OPACITY": opacities[:, None].astype("<f4"),
        f"{_EXTENSION}:SH_DEGREE_0_COEF_0": ((colors - 0.5) / ply.SH_DEGREE_0).astype("<f4"),
    }
    text = json.dumps(_document(attributes), separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    body = b"".join(values.tobytes() for values in attributes.values())
    size = _HEADER.size + 2 * _CHUNK.size + len(text) + len(body)
    if size >= 2**32:
        raise ValueError(f"{path}: {size} bytes are more than a .glb can hold; write .ply or .spz")
    with files.replacing(path) as partial, partial.open("wb") as file:
        file.write(_HEADER.pack(b"glTF", 2, size))
        file.write(_CHUNK.pack(len(text), _JSON) + text)
        file.write(_CHUNK.pack(len(body), _BINARY) + body)
    return pathlib.Path(path)


def load_glb(path: str | pathlib.Path) -> Gaussians:
    """Reads the Gaussians of the scene that a .glb file shows, placed as its nodes say.

    Colours that depend on the direction of view are left out with a warning.

    Raises:
      ValueError: naming the file and what is wrong with it, or cannot be read.
    """
    path = pathlib.Path(path)
    content = _Content(path, *_read_chunks(path, path.read_bytes()))
    try:
        parts = list(_splats(content))
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{path}: its JSON breaks the rules of glTF 2.0 ({type(error).__name__}: {error}); the "
            "file is damaged"
        ) from error
    if not parts:
        raise ValueError(
            f"{path}: nothing in its scene has {_EXTENSION}, so there are no Gaussians"
        )
    return gaussians.concatenate(parts)


def _fallback(colors: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    """COLOR_0: linear RGB with opacity, uint8 [N, 4]."""
    srgb = np.clip(colors, 0, 1)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.rint(255 * np.column_stack([linear, opacities])).astype(np.uint8)


def _document(attributes: dict[str, np.ndarray]) -> dict[str, Any]:
    """The JSON for these attributes, which follow each other in the buffer."""
    views, accessors, place = [], [], 0
    kinds = {width: kind for kind, width in _WIDTHS.items()}
    components = {dtype: code for code, dtype in _COMPONENTS.items()}
    for name, values in attributes.items():
        accessor = {
            "bufferView": len(views),
            "componentType": components[values.dtype],
            "count": len(values),
            "type": kinds[values.shape[1]],
        }
        if name == "POSITION":  # the bounds are required
            accessor["min"] = values.min(axis=0).astype(float).tolist()
            accessor["max"] = values.max(axis=0).astype(float).tolist()
        if name == "COLOR_0":
            accessor["normalized"] = True
        accessors.append(accessor)
        views.append(
            {
                "buffer": 0,
                "byteOffset": place,
                "byteLength": values.nbytes,
                "target": _ARRAY_BUFFER,
            }
        )
        place += values.nbytes
    splats = {
        "kernel": "ellipse",
        "colorSpace": _COLOR_SPACE,
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    primitive = {
        "attributes": {name: index for index, name in enumerate(attributes)},
        "mode": _POINTS,
        "extensions": {_EXTENSION: splats},
    }
    return {
        "asset": {"version": "2.0", "generator": "lgs_jax"},
        "extensionsUsed": [_EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "splats", "mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": place}],
    }


@dataclasses.dataclass(frozen=True)
class _Content:
    """A file's JSON and binary chunk."""

    path: pathlib.Path
    document: dict[str, Any]
    body: bytes

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """Entry `index` of the list `kind`; an error that `load_glb` explains if there is none."""
        entries = self.document[kind]
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(entries):
            raise IndexError(f"{kind} have no {index!r}")
        if not isinstance(entries[index], dict):
            raise TypeError(f"{kind}[{index}] is no object")
        return entries[index]


def _read_chunks(path: pathlib.Path, data: bytes) -> tuple[dict[str, Any], bytes]:
    """JSON and binary chunk of a file."""
    if len(data) < _HEADER.size or not data.startswith(b"glTF"):
        raise ValueError(f"{path}: not a .glb file (it does not start with 'glTF')")
    _, version, size = _HEADER.unpack_from(data)
    if version != 2 or size > len(data):
        raise ValueError(
            f"{path}: expected glTF 2 of {len(data)} bytes, found glTF {version} of {size}; the "
            "file is cut short or of another version"
        )
    chunks: dict[bytes, bytes] = {}
    place = _HEADER.size
    while place + _CHUNK.size <= size:
        length, kind = _CHUNK.unpack_from(data, place)
        place += _CHUNK.size
        if length > size - place:
            raise ValueError(
                f"{path}: its chunk {kind!r} has {length} bytes, but {size - place} are left; the "
                "file is damaged"
            )
        chunks.setdefault(kind, data[place : place + length])
        place += length
    try:
        document = json.loads(chunks.get(_JSON, b""))
    except (ValueError, RecursionError) as error:  # of the decoder and of its text's encoding
        raise ValueError(f"{path}: its JSON chunk cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: its JSON chunk holds no object; the file is damaged")
    return document, chunks.get(_BINARY, b"")


def _splats(content: _Content) -> Iterator[Gaussians]:
    """The Gaussians of every primitive that the scene shows."""
    path, document = content.path, content.document
    if foreign := sorted(set(document.get("extensionsRequired", [])) - _READABLE):
        raise ValueError(
            f"{path}: needs {', '.join(foreign)}, which cannot be read; save it without compression"
        )
    total = 0
    for node, world_from_node in _nodes(content):
        if "mesh" not in node:
            continue
        for primitive in content.item("meshes", node["mesh"])["primitives"]:
            splats = primitive.get("extensions", {}).get(_EXTENSION)
            if splats is None:
                continue
            _check_kind(path, primitive, splats)
            part = _primitive(content, primitive["attributes"], world_from_node)
            total += part.num_gaussians
            if total > len(content.body):
                raise ValueError(
                    f"{path}: its nodes show {total} Gaussians or more, which is more than the "
                    f"{len(content.body)} bytes of its buffer; the file is damaged"
                )
            yield part


def _nodes(content: _Content) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Every node of the scene with its world_from_node [4, 4]."""
    scene = content.item("scenes", content.document.get("scene", 0))
    waiting = [(index, np.eye(4)) for index in scene.get("nodes", [])]
    seen = set()
    while waiting:
        index, world_from_parent = waiting.pop()
        node = content.item("nodes", index)
        if index in seen:
            raise ValueError(f"{content.path}: node {index} hangs on two others; it is damaged")
        seen.add(index)
        with np.errstate(over="ignore", invalid="ignore"):  # looked at where it is used
            world_from_node = world_from_parent @ _matrix(node)
        yield node, world_from_node
        waiting += [(child, world_from_node) for child in node.get("children", [])]


def _matrix(node: dict[str, Any]) -> np.ndarray:
    """parent_from_node [4, 4]."""
    if "matrix" in node:
        return _numbers(node["matrix"], 16).reshape(4, 4).T
    matrix = np.eye(4)
    x, y, z, w = _numbers(node.get("rotation", [0, 0, 0, 1]), 4)
    turn = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] = np.array(turn) * _numbers(node.get("scale", [1, 1, 1]), 3)
    matrix[:3, 3] = _numbers(node.get("translation", [0, 0, 0]), 3)
    return matrix


def _numbers(values: Any, count: int) -> np.ndarray:
    """A list of so many numbers in float64; an error that `load_glb` explains if it is none."""
    if len(values) != count or not all(isinstance(value, int | float) for value in values):
        raise TypeError(f"expected {count} numbers, found {values!r}")
    return np.array([float(value) for value in values])


def _check_kind(path: pathlib.Path, primitive: dict[str, Any], splats: dict[str, Any]) -> None:
    """Refuses kernels and colours that are not ours."""
    found = (primitive.get("mode"), splats.get("kernel"), splats.get("colorSpace"))
    if found != (_POINTS, "ellipse", _COLOR_SPACE):
        raise ValueError(
            f"{path}: splats with mode, kernel and colour space {found}, expected "
            f"{(_POINTS, 'ellipse', _COLOR_SPACE)}; convert them with the program that made them"
        )


def _primitive(
    content: _Content, attributes: dict[str, Any], world_from_node: np.ndarray
) -> Gaussians:
    """The Gaussians of one primitive, in the axes of the cameras' world."""
    path = content.path

    def read(name: str, width: int, count: int | None = None) -> np.ndarray:
        if name not in attributes:
            raise ValueError(f"{path}: the splats lack {name}; the file is damaged")
        values = _accessor(content, attributes[name])
        if values.shape != (len(values) if count is None else count, width):
            raise ValueError(
                f"{path}: {name} has {values.shape[0]} rows of {values.shape[1]} numbers, expected "
                f"{count or 'as many'} of {width}; the file is damaged"
            )
        return values

    means = read("POSITION", 3)
    count = len(means)
    quats = np.roll(read(f"{_EXTENSION}:ROTATION", 4, count), 1, axis=-1)
    scales = read(f"{_EXTENSION}:SCALE", 3, count)
    f_dc = read(f"{_EXTENSION}:SH_DEGREE_0_COEF_0", 3, count)
    if higher := sum(name.startswith(f"{_EXTENSION}:SH_DEGREE_") for name in attributes) - 1:
        warnings.warn(
            f"{path}: {3 * higher} view-dependent colour coefficients per Gaussian are left out: "
            "Gaussians hold one colour for all directions",
            stacklevel=4,
        )
    scene = fields.from_file(
        path,
        means=means,
        quats=quats,
        scales=np.where(scales == 0, fields.THINNEST, scales),
        opacities=read(f"{_EXTENSION}:OPACITY", 1, count)[:, 0],
        colors=0.5 + ply.SH_DEGREE_0 * f_dc,
    )
    with np.errstate(over="ignore", invalid="ignore"):
        return fields.placed(path, scene, np.diag([*fields.ABOUT_Z, 1.0]) @ world_from_node)


def _accessor(content: _Content, index: Any) -> np.ndarray:
    """The values of an accessor in float64 [count, width]."""
    path, accessor = content.path, content.item("accessors", index)
    if "sparse" in accessor or "bufferView" not in accessor:
        raise ValueError(f"{path}: accessor {index} is sparse or empty, which cannot be read")
    view = content.item("bufferViews", accessor["bufferView"])
    if view["buffer"] != 0 or "uri" in content.item("buffers", 0):
        raise ValueError(f"{path}: its data lie outside of the file; pack them into the .glb")
    dtype, width = _COMPONENTS[accessor["componentType"]], _WIDTHS[accessor["type"]]
    size, count = dtype.itemsize * width, accessor["count"]
    stride, start = view.get("byteStride", size), view.get("byteOffset", 0)
    end = min(start + view["byteLength"], len(content.body))
    start += accessor.get("byteOffset", 0)
    if (
        not (count >= 1 and start >= 0 and stride >= size)
        or start + stride * (count - 1) + size > end
    ):
        raise ValueError(
            f"{path}: accessor {index} asks for {count} rows every {stride} bytes from byte {start}"
            f" on, but its part of the buffer ends at {end}; the file is damaged or cut short"
        )
    rows = np.ndarray((count, width), dtype, content.body, start, (stride, dtype.itemsize))
    with np.errstate(invalid="ignore"):  # NaN of a damaged file, which are refused later
        values = rows.astype(np.float64)
    if accessor.get("normalized") and dtype.kind != "f":
        values = np.maximum(values / np.iinfo(dtype).max, -1.0)
    return values
