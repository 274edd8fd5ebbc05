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
# Farther than so many times the radius of three quarters of the opacity lies what was behind the
# subject of a capture; long things, such as a violin, reach 2.4 times as far.
_REACH, _CORE = 3.0, 0.75
_EDGE = 0.005  # share of the opacity at each end that may be floaters


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
    """Middle [3] and radius of a ball around the subject: all there is but background and floaters.

    The subject is what lies around the median of the opacity, as far as it is dense.
    """
    means = np.asarray(scene.means, np.float64)
    weights = np.asarray(scene.opacities, np.float64) + 1e-6
    widths = 2 * np.asarray(scene.scales, np.float64).max(axis=-1)
    median = np.array([_quantile(column, weights, 0.5) for column in means.T])
    distances = np.linalg.norm(means - median, axis=-1)
    near = distances <= _REACH * _quantile(distances, weights, _CORE)
    means, weights, widths = means[near], weights[near], widths[near]
    ends = [[_quantile(column, weights, q) for column in means.T] for q in (_EDGE, 1 - _EDGE)]
    center = np.mean(ends, axis=0)
    reached = np.linalg.norm(means - center, axis=-1) + widths
    return center, max(_quantile(reached, weights, 1 - _EDGE), 1e-6)


def _quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """The least of the values [N] up to which they have this share of the weights [N]."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(sums, share * sums[-1])]])
