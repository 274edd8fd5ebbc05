"""Cameras for scenes that come without any: a ring around what is in them. Letters: N Gaussians."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians

UP = (0.0, -1.0, 0.0)

_COUNT = 4
_IMAGE_SIZE = (720, 960)
_FOV_DEG = 50.0  # vertical
_ELEVATION_DEG = 15.0
_BODY = 0.9  # share of the opacity that counts as the subject


def around(scene: Gaussians, up: Sequence[float] = UP) -> tuple[Cameras, tuple[int, int]]:
    """Cameras [4] that look at the middle of a scene from four sides, and the size H, W."""
    center, radius = extent(scene)
    up = np.asarray(up, np.float64) / np.linalg.norm(up)
    # The first looks along the axis that is forward where up is -y, as in worlds of cameras.
    forward = np.eye(3)[np.argmin(np.abs(up) + [0.0, 0.0, -1e-6])]
    forward -= (forward @ up) * up
    forward /= np.linalg.norm(forward)
    side = np.cross(forward, up)
    angles = np.arange(_COUNT) * (2 * np.pi / _COUNT)
    flat = -np.cos(angles)[:, None] * forward + np.sin(angles)[:, None] * side
    rise = np.deg2rad(_ELEVATION_DEG)
    distance = radius / np.sin(np.deg2rad(_FOV_DEG / 2))
    centers = center + distance * (np.cos(rise) * flat + np.sin(rise) * up)
    poses = camera_lib.look_at(*(jnp.asarray(x, jnp.float32) for x in (centers, center, up)))
    height, width = _IMAGE_SIZE
    focal = 0.5 * height / np.tan(np.deg2rad(_FOV_DEG / 2))
    intrinsics = np.tile([focal, focal, width / 2, height / 2], (_COUNT, 1))
    return Cameras(poses, jnp.asarray(intrinsics, jnp.float32)), _IMAGE_SIZE


def mean_up(world_from_cam: np.ndarray) -> np.ndarray:
    """The mean direction [3] to the top of the images of cameras [V, 4, 4]; -y if they cancel."""
    upward = -world_from_cam[:, :3, 1].mean(axis=0)
    size = np.linalg.norm(upward)
    return upward / size if size > 1e-3 else np.array(UP)


def extent(scene: Gaussians) -> tuple[np.ndarray, float]:
    """Middle [3] and radius of the ball that holds most of the opacity."""
    means = np.asarray(scene.means, np.float64)
    weights = np.asarray(scene.opacities, np.float64) + 1e-6
    order = np.argsort(means, axis=0)
    halves = np.cumsum(weights[order], axis=0) >= 0.5 * weights.sum()
    center = means[order[np.argmax(halves, axis=0), range(3)], range(3)]
    distances = np.linalg.norm(means - center, axis=-1)
    outwards = np.argsort(distances)
    reached = np.cumsum(weights[outwards]) >= _BODY * weights.sum()
    radius = distances[outwards[np.argmax(reached)]]
    width = 3 * np.median(np.max(np.asarray(scene.scales), axis=-1))
    return center, max(float(radius), float(width), 1e-6)
