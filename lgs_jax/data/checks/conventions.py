"""Under which reading of the poses do the matches of a scene fit?

Poses are wrong in few ways: world-to-camera for camera-to-world, the axes of another program, one
axis flipped, the order of a quaternion. Every such reading is tried on the same matches, and the
one that fits is named.

Letters: F frames, M matches, H hypotheses.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from lgs_jax.data import poses
from lgs_jax.data.checks.features import Matches

_TOLERANCE_PIXELS = 1.5
_WORST = 3.0  # errors count as so many tolerances at most
_CHUNK = 32


@dataclasses.dataclass(frozen=True)
class Bundle:
    """All matches of a scene as rays.

    Attributes:
      first, second: frames [M].
      rays_first, rays_second: unit directions in the cameras [M, 3].
      tolerance: angle that counts as a fit [M], radians.
    """

    first: np.ndarray
    second: np.ndarray
    rays_first: np.ndarray
    rays_second: np.ndarray
    tolerance: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def bundle(matches: Sequence[Matches], intrinsics: np.ndarray) -> Bundle:
    """Matches as rays of cameras with these intrinsics [F, 4]; at least one match."""
    first = np.concatenate([np.full(len(m), m.first) for m in matches])
    second = np.concatenate([np.full(len(m), m.second) for m in matches])
    x = np.concatenate([m.points_first for m in matches])
    y = np.concatenate([m.points_second for m in matches])
    seen = _rays(y, intrinsics[second])
    # A pixel at the angle a from the axis spans cos^2 a / f outwards and cos a / f across.
    pixel = np.clip(seen[:, 2], 1e-6, 1) ** 1.5 / np.abs(intrinsics[second, 0])
    return Bundle(first, second, _rays(x, intrinsics[first]), seen, _TOLERANCE_PIXELS * pixel)


def _rays(pixels: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    plane = (pixels - intrinsics[:, 2:]) / intrinsics[:, :2]
    rays = np.concatenate([plane, np.ones_like(plane[:, :1])], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def errors(found: Bundle, rotations: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Angles [..., M] by which the ray of the second frame misses the ray of the first.

    What the first ray passes in front of the first camera appears to the second one on an arc,
    from the first camera (depth 0) to the ray's direction (infinitely far). The error is the angle
    from the second ray to that arc, so that points behind a camera do not fit, and cameras that
    only turn are no special case.

    Args:
      found: the matches.
      rotations: camera-to-world [..., F, 3, 3]; may mirror.
      centers: of the cameras [..., F, 3].
    """
    far = _turn(rotations, found.first, found.rays_first)
    seen = _turn(rotations, found.second, found.rays_second)
    near = centers[..., found.first, :] - centers[..., found.second, :]
    distance = np.linalg.norm(near, axis=-1, keepdims=True)
    near = near / np.where(distance > 0, distance, 1.0)
    normal = np.cross(far, near)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = normal / np.where(length > 1e-9, length, 1.0)
    beside = np.sum(seen * normal, axis=-1)
    flat = seen - beside[..., None] * normal
    on_arc = (np.sum(np.cross(far, flat) * normal, axis=-1) >= 0) & (
        np.sum(np.cross(flat, near) * normal, axis=-1) >= 0
    )
    on_arc &= length[..., 0] > 1e-9
    to_arc = np.arcsin(np.clip(np.abs(beside), 0, 1))
    to_ends = np.minimum(_angle(seen, far), np.where(distance[..., 0] > 0, _angle(seen, near), 9.0))
    return np.where(on_arc, to_arc, to_ends)


def _turn(rotations: np.ndarray, frames: np.ndarray, rays: np.ndarray) -> np.ndarray:
    return np.einsum("...mij,mj->...mi", rotations[..., frames, :, :], rays)


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1))


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well matches fit: share of matches within the tolerance, and mean capped error."""

    share: float
    cost: float


def fits(found: Bundle, rotations: np.ndarray, centers: np.ndarray) -> list[Fit]:
    """The fits of H readings of the poses [H, F, 3, 3] and [H, F, 3]."""
    result = []
    for start in range(0, len(rotations), _CHUNK):
        part = slice(start, start + _CHUNK)
        relative = errors(found, rotations[part], centers[part]) / found.tolerance
        shares = np.mean(relative < 1, axis=-1)
        costs = np.mean(np.minimum(relative, _WORST), axis=-1) / _WORST
        result += [Fit(float(s), float(c)) for s, c in zip(shares, costs, strict=True)]
    return result


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """A reading of the poses.

    Attributes:
      kind: a short name; "as_given" for the first.
      says: what the poses look like, completing "the poses look like ...".
      changes: how many things would be wrong at once.
      rotations, centers: what the poses are then, [F, 3, 3] and [F, 3].
    """

    kind: str
    says: str
    changes: int
    rotations: np.ndarray
    centers: np.ndarray


_IDENTITY = np.eye(3)
_GL = np.diag([1.0, -1.0, -1.0])
_DIRECTIONS = (("right", "left"), ("down", "up"), ("forward", "back"))


def signed_permutations() -> list[np.ndarray]:
    """The 48 matrices that permute and flip axes, the identity first."""
    matrices = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(order), range(3)] = signs
            matrices.append(matrix)
    return matrices


@dataclasses.dataclass(frozen=True)
class FileConvention:
    """How a format stores poses.

    Attributes:
      cam_from_world: whether matrices map from the world to the camera.
      axes: OpenCV's camera axes in those of the format [3, 3], such as diag(1, -1, -1) for
        OpenGL's; identity where `cam_from_world`.
    """

    cam_from_world: bool
    axes: np.ndarray = dataclasses.field(default_factory=lambda: _IDENTITY)


def readings(world_from_cam: np.ndarray, convention: FileConvention) -> list[Hypothesis]:
    """All readings of poses [F, 4, 4] that are tried, the one as given first.

    `world_from_cam` is what the reader made of the file (OpenCV axes); the readings are of the
    matrices as they stand in the file.
    """
    given = np.array(world_from_cam)
    given[:, :3, :3] = given[:, :3, :3] @ convention.axes.T
    stored = poses.invert(given) if convention.cam_from_world else given
    result = []
    for kind, says, turn, centers in _bases(stored, convention.cam_from_world):
        for axes in signed_permutations():
            if np.array_equal(axes, -_IDENTITY):
                continue  # the same as negated translations
            axes_kind, axes_says = _describe_axes(axes, convention.axes)
            wrong = [name for name in (kind, axes_kind) if name != "as_given"]
            result.append(
                Hypothesis(
                    kind="+".join(wrong) or "as_given",
                    says=" with ".join(filter(None, (says, axes_says))),
                    changes=len(wrong),
                    rotations=turn @ axes @ convention.axes,
                    centers=centers,
                )
            )
    for axes in signed_permutations()[1:]:
        says = "positions whose world axes are swapped or flipped, unlike the rotations"
        turn, centers = world_from_cam[:, :3, :3], world_from_cam[:, :3, 3] @ axes.T
        result.append(Hypothesis("position_axes", says, 2, turn, centers))
    return result


def _bases(
    stored: np.ndarray, cam_from_world: bool
) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """Kind, words, rotations (camera to world) and centres of readings with the format's axes."""

    def read(matrices: np.ndarray, rotation_to_camera: bool, shift_to_camera: bool):
        turn, shift = matrices[:, :3, :3], matrices[:, :3, 3]
        if rotation_to_camera:
            turn = np.swapaxes(turn, 1, 2)
        return turn, -_apply(turn, shift) if shift_to_camera else shift

    def with_rotations(rotations: np.ndarray) -> np.ndarray:
        changed = stored.copy()
        changed[:, :3, :3] = rotations
        return changed

    here, other = ("world-to-camera", "camera-to-world")[:: 1 if cam_from_world else -1]
    negated = stored * np.array([1.0, 1.0, 1.0, -1.0])
    result = [
        ("as_given", "", *read(stored, cam_from_world, cam_from_world)),
        (
            "inverted",
            f"{other} matrices where the format has {here} ones",
            *read(stored, not cam_from_world, not cam_from_world),
        ),
        (
            "mixed_translation",
            f"{here} rotations beside {other} translations",
            *read(stored, cam_from_world, not cam_from_world),
        ),
        (
            "mixed_rotation",
            f"{other} rotations beside {here} translations",
            *read(stored, not cam_from_world, cam_from_world),
        ),
        ("negated_translation", "negated translations", *read(negated, *[cam_from_world] * 2)),
    ]
    for order, name, wrong in (((3, 0, 1, 2), "xyzw", "wxyz"), ((1, 2, 3, 0), "wxyz", "xyzw")):
        changed = with_rotations(_reordered(stored[:, :3, :3], order))
        says = f"quaternions in the order {name} that were read as {wrong}"
        result.append(("quaternion_order", says, *read(changed, *[cam_from_world] * 2)))
    return result


def _apply(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    return np.einsum("fij,fj->fi", matrices, vectors)


def _reordered(rotations: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Rotations [F, 3, 3] of the quaternions with their parts in another order."""
    from scipy.spatial.transform import Rotation

    quats = Rotation.from_matrix(rotations).as_quat(scalar_first=True)
    return np.stack([poses.rotation_from_quat(quat) for quat in quats[:, list(order)]])


def _describe_axes(axes: np.ndarray, format_axes: np.ndarray) -> tuple[str, str]:
    """Kind and words of camera axes: the format's true axes in those of the file."""
    if np.array_equal(axes, _IDENTITY):
        return "as_given", ""
    # Column k of `axes @ format_axes` is OpenCV's axis k (right, down, forward) in the file's axes.
    opencv = axes @ format_axes
    words = []
    for axis, row in zip("xyz", opencv, strict=True):
        k = int(np.argmax(np.abs(row)))
        words.append(f"{axis} {_DIRECTIONS[k][0 if row[k] > 0 else 1]}")
    text = ", ".join(words)
    if np.linalg.det(axes) < 0:
        return "mirrored", f"mirrored poses or images (camera axes {text})"
    if np.array_equal(opencv, _IDENTITY):
        return "opencv_axes", f"OpenCV's camera axes ({text})"
    if np.array_equal(opencv, _GL):
        return "opengl_axes", f"OpenGL's camera axes ({text})"
    if axes[2, 2] > 0:
        return "turned_images", f"images turned against their poses (camera axes {text})"
    return "other_axes", f"camera axes {text}"


def best(
    found: Bundle, hypotheses: Sequence[Hypothesis], per_change: float = 0.02
) -> tuple[Hypothesis, Fit, Fit]:
    """The reading that fits best, its fit, and the fit of the first; ties go to fewer changes."""
    rotations = np.stack([h.rotations for h in hypotheses])
    centers = np.stack([h.centers for h in hypotheses])
    found_fits = fits(found, rotations, centers)
    ranks = [
        fit.cost + per_change * h.changes for h, fit in zip(hypotheses, found_fits, strict=True)
    ]
    winner = int(np.argmin(ranks))
    return hypotheses[winner], found_fits[winner], found_fits[0]
