"""Gaussian scenes as .ply files in the layout of Kerbl et al. 2023, which most viewers read.

Every value is written in the form that viewers expect: colours as degree-0 spherical harmonics,
opacities as logits, scales as natural logarithms, quaternions wxyz at unit length. Nothing is
moved, turned or rescaled: axes and units are those of the scene.
"""

import dataclasses
import pathlib
import warnings
from typing import BinaryIO

import numpy as np

from lgs_jax import files
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import fields

# The constant spherical harmonic, 1 / (2 sqrt(pi)).
SH_DEGREE_0 = 0.28209479177387814
# Opacities 0 and 1 have infinite logits, which viewers turn into NaN. They move by this much, which
# is far below the 1/255 at which anything becomes visible.
_OPACITY_MARGIN = 1e-6

_NAMES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_REQUIRED = tuple(name for name in _NAMES if name not in ("nx", "ny", "nz"))
_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2"},
    **{"ushort": "<u2", "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4"},
    **{"uint32": "<u4", "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}
_MAX_HEADER_BYTES = 1 << 20


def save_ply(path: str | pathlib.Path, scene: Gaussians) -> pathlib.Path:
    """Writes one scene (N Gaussians, RGB) to a binary little-endian .ply and returns its path.

    Normals are written as zeros, as the format's authors do. Opacities are kept 1e-6 away from 0
    and 1, since their logits are infinite. The file appears only when complete.

    Raises:
      ValueError: if the scene is batched, is not RGB, or holds values that the format cannot.
    """
    means, quats, scales, opacities, colors = host_values(path, scene)
    opacities = np.clip(opacities, _OPACITY_MARGIN, 1 - _OPACITY_MARGIN)
    columns = [
        means,
        np.zeros_like(means),
        (colors - 0.5) / SH_DEGREE_0,
        (np.log(opacities) - np.log1p(-opacities))[:, None],
        np.log(scales),
        quats / np.linalg.norm(quats, axis=-1, keepdims=True),
    ]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(means)}"]
    header += [f"property float {name}" for name in _NAMES] + ["end_header", ""]
    with files.replacing(path) as partial, partial.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(np.concatenate(columns, axis=-1).astype("<f4").tobytes())
    return pathlib.Path(path)


def load_ply(path: str | pathlib.Path) -> Gaussians:
    """Reads a scene of N Gaussians from a .ply in this layout, or compressed, whoever wrote it.

    Properties may come in any order and of any number type; unknown ones are left out. Colours that
    depend on the direction of view (`f_rest_*`) are left out with a warning. Quaternions get unit
    length.

    Raises:
      ValueError: naming the file and what is wrong with it.
    """
    from lgs_jax.inference.export import compressed_ply  # which reads headers with this module

    path = pathlib.Path(path)
    with path.open("rb") as file:
        elements = _read_header(path, file)
        if compressed_ply.is_compressed(elements):
            return compressed_ply.read(path, file, elements)
        vertices = read_element(path, file, _vertices(path, elements))
    names = vertices.dtype.names
    higher = sum(name.startswith("f_rest_") for name in names)
    if higher and any(vertices[n].any() for n in names if n.startswith("f_rest_")):
        warnings.warn(
            f"{path}: {higher} view-dependent colour coefficients per Gaussian (f_rest_*) are left "
            "out: Gaussians hold one colour for all directions",
            stacklevel=2,
        )

    def take(*names: str) -> np.ndarray:
        return np.stack([vertices[name].astype(np.float64) for name in names], axis=-1)

    with np.errstate(all="ignore"):  # of a damaged file; what comes of it is refused
        values = {
            "means": take("x", "y", "z"),
            "quats": take("rot_0", "rot_1", "rot_2", "rot_3"),
            "scales": np.exp(take("scale_0", "scale_1", "scale_2")),
            "opacities": 0.5 * (1 + np.tanh(take("opacity")[:, 0] / 2)),
            "colors": 0.5 + SH_DEGREE_0 * take("f_dc_0", "f_dc_1", "f_dc_2"),
        }
    return fields.from_file(path, **values)


def host_values(path: str | pathlib.Path, scene: Gaussians) -> list[np.ndarray]:
    """The fields in float64, checked for what splat files cannot hold."""
    scene.check()
    if scene.batch_shape != () or scene.num_channels != 3:
        raise ValueError(
            f"{path}: a file holds one RGB scene, got leading dimensions {scene.batch_shape} and "
            f"{scene.num_channels} channels; index one scene and keep its RGB"
        )
    if not scene.num_gaussians:
        raise ValueError(f"{path}: the scene has no Gaussians")
    names = ("means", "quats", "scales", "opacities", "colors")
    values = {name: np.asarray(getattr(scene, name), np.float64) for name in names}
    for name, value in values.items():
        if bad := int(np.sum(~np.isfinite(value))):
            raise ValueError(f"{path}: {bad} values of {name} are NaN or infinite")
    if bad := int(np.sum(values["scales"] <= 0)):
        raise ValueError(f"{path}: {bad} scales are not positive, so have no logarithm")
    opacities = values["opacities"]
    if bad := int(np.sum((opacities < 0) | (opacities > 1))):
        raise ValueError(f"{path}: {bad} opacities are outside [0, 1], so have no logit")
    if bad := int(np.sum(~values["quats"].any(axis=-1))):
        raise ValueError(f"{path}: {bad} quaternions are zero, so name no rotation")
    return [values[name] for name in names]


@dataclasses.dataclass(frozen=True)
class Element:
    """A table of a .ply file: its name, number of rows, and (name, NumPy type) of its columns."""

    name: str
    count: int
    fields: tuple[tuple[str, str], ...]


def read_element(path: pathlib.Path, file: BinaryIO, element: Element) -> np.ndarray:
    """The rows of an element, from where the file stands.

    Raises:
      ValueError: if the file ends before.
    """
    layout = np.dtype(list(element.fields))
    # Not `read(expected)` at once: a damaged header may promise more than there is memory.
    left = path.stat().st_size - file.tell()
    expected = layout.itemsize * element.count
    if left < expected:
        what = "vertices" if element.name == "vertex" else f"{element.name}s"
        raise ValueError(
            f"{path}: the header promises {element.count} {what} of {layout.itemsize} bytes, but "
            f"only {left} bytes follow; the file is cut short"
        )
    return np.frombuffer(file.read(expected), layout)


def _read_header(path: pathlib.Path, file: BinaryIO) -> list[Element]:
    """The elements of a file in their order; leaves it behind the header."""
    lines = []
    while not lines or lines[-1] != ["end_header"]:
        line = file.readline(_MAX_HEADER_BYTES)
        if not line.endswith(b"\n") or (not lines and line.split() != [b"ply"]):
            raise ValueError(f"{path}: not a .ply file (no header from 'ply' to 'end_header')")
        lines.append(line.decode("latin-1").split())
    lines = [line for line in lines if line and line[0] in ("format", "element", "property")]
    found = " ".join(lines[0]) if lines else "nothing"
    if not found.startswith("format binary_little_endian"):
        raise ValueError(
            f"{path}: expected 'format binary_little_endian', found {found!r}; "
            "convert the file to binary little endian"
        )
    elements: list[Element] = []
    for line in lines[1:]:
        if line[0] == "element" and len(line) == 3 and line[2].isascii() and line[2].isdigit():
            elements.append(Element(line[1], int(line[2]), ()))
        elif line[0] == "property" and elements and len(line) == 3 and line[1] in _TYPES:
            last = elements[-1]
            fields = (*last.fields, (line[2], _TYPES[line[1]]))
            elements[-1] = dataclasses.replace(last, fields=fields)
        elif (
            line[0] == "property" and elements and elements[0].name == "vertex" != elements[-1].name
        ):
            continue  # of elements behind the vertices, which are not read
        else:
            what = f"{elements[-1].name} " if elements and line[0] == "property" else ""
            raise ValueError(f"{path}: cannot read the {what}{line[0]} {' '.join(line)!r}")
    for element in elements:
        names = [name for name, _ in element.fields]
        if len(set(names)) < len(names):
            raise ValueError(f"{path}: the element {element.name} has two properties of one name")
    return elements


def _vertices(path: pathlib.Path, elements: list[Element]) -> Element:
    """The first element, if it holds Gaussians."""
    if not elements or elements[0].name != "vertex":
        found = f"element {elements[0].name}" if elements else "nothing"
        raise ValueError(f"{path}: expected 'element vertex' first, found {found!r}")
    names = [name for name, _ in elements[0].fields]
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        raise ValueError(
            f"{path}: the vertices lack {', '.join(missing)}; this is not a file of Gaussian "
            f"splats (found {', '.join(names) or 'no property'})"
        )
    return elements[0]
