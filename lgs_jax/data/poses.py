"""Poses and intrinsics on the host: conversions and checks. float64 throughout."""

import math

import numpy as np

# A rotation may be off by rounding in a text file, not more: max |R^T R - I|; so may the last row.
MAX_ROTATION_ERROR = 1e-3
_LAST_ROW = (0.0, 0.0, 0.0, 1.0)
# Beyond this a coordinate is no place but a damaged number; it counts as infinite.
MAX_COORDINATE = 1e12

# Turns camera axes of OpenGL (x right, y up, z back) into OpenCV's and back.
CV_FROM_GL = np.diag([1.0, -1.0, -1.0, 1.0])


def invert(b_from_a: np.ndarray) -> np.ndarray:
    """Inverse of rigid maps [..., 4, 4]."""
    rotation = np.swapaxes(b_from_a[..., :3, :3], -1, -2)
    inverse = np.zeros_like(b_from_a)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, b_from_a[..., :3, 3])
    inverse[..., 3, 3] = 1.0
    return inverse


def rotation_from_quat(quat: np.ndarray) -> np.ndarray:
    """Rotation matrix [3, 3] of a wxyz quaternion [4]; NaN if its length is zero or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(quat)
        w, x, y, z = np.asarray(quat, np.float64) / (length if length > 0 else np.nan)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def from_parts(rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """A map [4, 4] from a linear part [3, 3] and a shift [3]."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, shift
    return pose


def pose_faults(maps: np.ndarray) -> list[str]:
    """What is wrong with each of N rigid maps [N, 4, 4]; empty where nothing is."""
    finite = (np.abs(maps) < MAX_COORDINATE).all(axis=(1, 2))  # NaN is not less
    maps = np.where(finite[:, None, None], maps, 0.0)
    rotations = maps[:, :3, :3]
    errors = np.abs(np.swapaxes(rotations, 1, 2) @ rotations - np.eye(3)).max(axis=(1, 2))
    mirrors = np.linalg.det(rotations) < 0
    columns = finite.tolist(), maps[:, 3].tolist(), errors.tolist(), mirrors.tolist()
    return [_pose_fault(*values) for values in zip(*columns, strict=True)]


def _pose_fault(finite: bool, last_row: list[float], error: float, mirrors: bool) -> str:
    if not finite:
        return "the pose holds NaN or infinity; re-export the cameras or drop the frame"
    if np.abs(np.subtract(last_row, _LAST_ROW)).max() > MAX_ROTATION_ERROR:
        found = ", ".join(f"{value:g}" for value in last_row)
        return (
            f"the last row of the pose is {found}, expected 0, 0, 0, 1; re-export the cameras, and "
            "look whether rows and columns were swapped"
        )
    if error > MAX_ROTATION_ERROR:
        return (
            f"the pose is no rigid motion: max |R^T R - I| = {error:.2g}, allowed "
            f"{MAX_ROTATION_ERROR:g}; remove scale and shear from the rotation"
        )
    if mirrors:
        return "the pose mirrors (determinant -1), expected a rotation; one axis is flipped"
    return ""


def nearest_rigid(maps: np.ndarray) -> np.ndarray:
    """Rigid maps [N, 4, 4] with the nearest rotations (Frobenius norm) and the same shifts."""
    left, _, right = np.linalg.svd(maps[:, :3, :3])
    result = maps.copy()
    result[:, :3, :3] = left @ right
    result[:, 3] = _LAST_ROW
    return result


def intrinsics_fault(intrinsics: np.ndarray, size: tuple[int, int]) -> str:
    """What is wrong with fx, fy, cx, cy in pixels of an image of `size` (height, width)."""
    fx, fy, cx, cy = (float(value) for value in intrinsics)
    height, width = size
    if not all(math.isfinite(value) for value in (fx, fy, cx, cy)):
        return f"the intrinsics hold NaN or infinity: {fx=:g}, {fy=:g}, {cx=:g}, {cy=:g}"
    if fx <= 0 or fy <= 0:
        return f"the focal lengths must be positive, found {fx=:g} and {fy=:g} pixels"
    if not (0 <= cx <= width and 0 <= cy <= height):
        return (
            f"the principal point ({cx:g}, {cy:g}) lies outside the {width}x{height} image; "
            "check whether pixels and fractions of the image size were mixed up"
        )
    return ""
