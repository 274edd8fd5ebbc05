"""Solids: the boxes, ellipsoids and frustums that all furniture and objects are made of.

A solid lives in its own unit frame: a box is [-1, 1]^3, an ellipsoid the unit ball, a frustum has
|z| <= 1 and radius 1 at z = -1 and `taper` at z = 1 (1: cylinder, 0: cone).
Letters: P solids, S = P + 6 surfaces (the solids, then the six faces of the room).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

BOX, ELLIPSOID, FRUSTUM = 0, 1, 2
ROOM_FACES = 6  # x low, x high, y low, y high, floor, ceiling

Color = tuple[float, float, float]
Triple = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Material:
    """What a surface looks like.

    Attributes:
      pattern: number of the pattern in the bank.
      colors: three linear reflectances c0, c1, c2 in [0, 1].
      tile: metres per repetition of the pattern; 0 fits it once over each face.
      emission: share of the light that the surface sends out itself, in [0, 1].
    """

    pattern: int
    colors: tuple[Color, Color, Color]
    tile: float = 0.0
    emission: float = 0.0


@dataclasses.dataclass(frozen=True)
class Solid:
    """One solid: `half` sizes along its own axes, placed at `center`.

    `yaw` turns it about z (radians); `axis` first lays its own z along "x", "y" or "z".
    """

    kind: int
    center: Triple
    half: Triple
    material: Material
    yaw: float = 0.0
    axis: str = "z"
    taper: float = 1.0


def box(center: Triple, half: Triple, material: Material, **options) -> Solid:
    """A box."""
    return Solid(BOX, center, half, material, **options)


def ellipsoid(center: Triple, half: Triple, material: Material, **options) -> Solid:
    """An ellipsoid."""
    return Solid(ELLIPSOID, center, half, material, **options)


def frustum(
    center: Triple, radius: float, half_height: float, material: Material, **options
) -> Solid:
    """A cylinder, truncated cone or cone of bottom radius `radius`."""
    return Solid(FRUSTUM, center, (radius, radius, half_height), material, **options)


def place(
    solids: Sequence[Solid], position: Triple, yaw: float = 0.0, scale: float = 1.0
) -> list[Solid]:
    """The solids of an item, scaled, turned about z and moved."""
    cos, sin = math.cos(yaw) * scale, math.sin(yaw) * scale
    x0, y0, z0 = position
    placed = []
    for solid in solids:
        x, y, z = solid.center
        center = (x0 + cos * x - sin * y, y0 + sin * x + cos * y, z0 + scale * z)
        hx, hy, hz = solid.half
        half = (hx * scale, hy * scale, hz * scale)
        placed.append(dataclasses.replace(solid, center=center, half=half, yaw=solid.yaw + yaw))
    return placed


@dataclasses.dataclass(frozen=True)
class PackedSolids:
    """Solids as float32 arrays, sorted by kind, followed by the surfaces of the room.

    Attributes:
      ends: number of solids whose kind is at most BOX, ELLIPSOID, FRUSTUM (3 ints).
      linear, shift: unit frame = linear @ world + shift, [P, 3, 3] and [P, 3].
      axes: own axes in the world [3, 3 P]; column 3 p + k is axis k of solid p.
      inverse_half: 1 / half sizes [3, P].
      corners: corners of the bounding boxes in the world [P, 8, 3].
      radii: radius a + b * z of a frustum, [2, P] as (a, b).
      uv_scale, uv_shift: pattern units per unit of the own frame, and offset [3, S].
      around: repetitions around the axis of round solids [S].
      density: pattern units per metre; of a thin fitted box, on its large faces [S].
      pattern: [S] int64.
      colors: c0, c1 - c0, c2 of each surface [3, 3, S]: which, RGB, surface.
      emission: [S].
    """

    ends: tuple[int, int, int]
    linear: np.ndarray
    shift: np.ndarray
    axes: np.ndarray
    inverse_half: np.ndarray
    corners: np.ndarray
    radii: np.ndarray
    uv_scale: np.ndarray
    uv_shift: np.ndarray
    around: np.ndarray
    density: np.ndarray
    pattern: np.ndarray
    colors: np.ndarray
    emission: np.ndarray

    @property
    def count(self) -> int:
        """Number of solids P."""
        return self.ends[2]


_UNIT_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
# Columns are the solid's own axes.
_AXES = {
    "x": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "z": np.eye(3),
}


def _rotations(solids: Sequence[Solid]) -> np.ndarray:
    """World-from-own rotations [P, 3, 3]."""
    yaw = np.array([s.yaw for s in solids])
    turn = np.zeros((len(solids), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(yaw)
    turn[:, 1, 0] = np.sin(yaw)
    turn[:, 0, 1] = -turn[:, 1, 0]
    turn[:, 2, 2] = 1.0
    return turn @ np.stack([_AXES[s.axis] for s in solids])


def _corners(
    rotation: np.ndarray, center: np.ndarray, half: np.ndarray, taper: np.ndarray
) -> np.ndarray:
    """Corners of the bounding boxes in the world [P, 8, 3]; a frustum may widen upwards."""
    reach = half.copy()
    reach[:, :2] *= np.maximum(taper, 1.0)[:, None]
    own = _UNIT_CORNERS * reach[:, None]
    return (own @ rotation.transpose(0, 2, 1) + center[:, None]).astype(np.float32)


def pack(solids: Sequence[Solid], room_size: Triple, faces: Sequence[Material]) -> PackedSolids:
    """Turns a scene's solids and the materials of the room's six faces into arrays."""
    solids = sorted(solids, key=lambda s: s.kind)
    kinds = np.array([s.kind for s in solids])
    center = np.array([s.center for s in solids])
    half = np.array([s.half for s in solids])
    rotation = _rotations(solids)
    linear = rotation.transpose(0, 2, 1) / half[:, :, None]
    taper = np.array([s.taper for s in solids])
    materials = [s.material for s in solids] + list(faces)
    reach = np.concatenate([half, np.tile(np.array(room_size) / 2, (ROOM_FACES, 1))])
    tile = np.array([m.tile for m in materials])[:, None]
    fitted = tile == 0.0
    uv_scale = np.where(fitted, 0.5, reach / np.where(fitted, 1.0, tile))
    # A different cut-out of the pattern on every solid, the same for every build of the scene.
    offset = np.modf(np.arange(len(materials))[:, None] * np.array([0.618, 0.382, 0.236]))[0]
    colors = np.array([m.colors for m in materials])
    colors[:, 1] -= colors[:, 0]
    around = np.round(2 * np.pi * reach[:, 0] / np.where(fitted, np.inf, tile)[:, 0])
    linear = linear.astype(np.float32)
    return PackedSolids(
        ends=tuple(int((kinds <= kind).sum()) for kind in (BOX, ELLIPSOID, FRUSTUM)),
        linear=linear,
        shift=-(linear.astype(np.float64) @ center[..., None])[..., 0].astype(np.float32),
        axes=rotation.transpose(1, 0, 2).reshape(3, -1).astype(np.float32),
        inverse_half=(1 / half.T).astype(np.float32),
        corners=_corners(rotation, center, half, taper),
        radii=np.stack([(1 + taper) / 2, (taper - 1) / 2]).astype(np.float32),
        uv_scale=uv_scale.T.astype(np.float32),
        uv_shift=np.where(fitted, 0.5, offset).T.astype(np.float32),
        around=np.maximum(around, 1.0).astype(np.float32),
        density=np.median(uv_scale / reach, axis=1).astype(np.float32),
        pattern=np.array([m.pattern for m in materials]),
        colors=np.ascontiguousarray(colors.transpose(1, 2, 0)).astype(np.float32),
        emission=np.array([m.emission for m in materials], np.float32),
    )
