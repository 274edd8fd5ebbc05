"""Rough depths of posed views by a plane sweep: where do the colours of all views agree?

Letters: V views, H W image, D depth planes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import rays, rotations
from lgs_jax.core.cameras import Cameras
from lgs_jax.rendering.volume import interpolate

Array = jax.Array

# Cost of a point that another view does not see: worse than a fair match, better than a bad one.
_UNSEEN = 0.15
# Half widths of the windows over which costs are averaged: the small one keeps edges, the large
# ones bridge surfaces without texture.
_RADII = (1, 3, 6)


def disparities(images: Array, cameras: Cameras, planes: Array) -> Array:
    """Inverse z-depths [V, H, W] at which each view agrees best with the others.

    Every pixel is put on each of the planes, projected into the other views and compared with the
    colours there; the better half of the other views counts, since the rest may be occluded. Costs
    are averaged over windows (Collins 1996, as in multi-plane stereo) and the best plane is refined
    by a parabola.

    Args:
      images: views [V, H, W, 3] in [0, 1]; at least 2.
      cameras: their cameras [V].
      planes: inverse depths [D], evenly spaced.

    Raises:
      ValueError: if there is only one view.
    """
    num_views, height, width = images.shape[:3]
    if num_views < 2:
        raise ValueError("a plane sweep compares views, but got only one; use random depths")
    origins, directions = rays.pixel_rays(cameras, height, width)

    def cost_of_plane(disparity: Array) -> Array:
        points = origins + directions / disparity
        seen = jax.vmap(_look_up, in_axes=(0, 0, None))(images, cameras, points)
        colors, inside = seen  # [source, reference, H, W, 3], [source, reference, H, W]
        cost = jnp.mean(jnp.abs(colors - images), axis=-1)
        cost = jnp.where(inside, jnp.minimum(cost, 2 * _UNSEEN), _UNSEEN)
        cost = sum(_box_mean(cost, radius) for radius in _RADII)
        is_self = jnp.eye(num_views, dtype=bool)[:, :, None, None]
        ordered = jnp.sort(jnp.where(is_self, jnp.inf, cost), axis=0)
        return jnp.mean(ordered[: num_views // 2], axis=0)

    costs = jax.lax.map(cost_of_plane, planes)  # [D, V, H, W]
    best = jnp.clip(jnp.argmin(costs, axis=0), 1, len(planes) - 2)
    below, at, above = (jnp.take_along_axis(costs, (best + k)[None], 0)[0] for k in (-1, 0, 1))
    bend = below - 2 * at + above
    shift = jnp.where(bend > 0, 0.5 * (below - above) / jnp.where(bend > 0, bend, 1.0), 0.0)
    return planes[best] + jnp.clip(shift, -1, 1) * (planes[1] - planes[0])


def _look_up(image: Array, camera: Cameras, points: Array) -> tuple[Array, Array]:
    """Colours [..., 3] of an image [H, W, 3] at points [..., 3], and whether it sees them [...]."""
    height, width = image.shape[:2]
    local = rotations.apply_affine(camera.cam_from_world, points.reshape(-1, 3))
    local = local.reshape(points.shape)
    z = jnp.maximum(local[..., 2], 1e-3)
    fx, fy, cx, cy = camera.intrinsics
    u, v = fx * local[..., 0] / z + cx, fy * local[..., 1] / z + cy
    inside = (local[..., 2] > 1e-3) & (u >= 0) & (u <= width) & (v >= 0) & (v <= height)
    return interpolate.interpolate(image, jnp.stack([v, u], axis=-1)), inside


def _box_mean(values: Array, radius: int) -> Array:
    """Means over windows of the last two dimensions, cut off at the borders."""
    for axis in (-2, -1):
        size = values.shape[axis]
        first = np.maximum(np.arange(size) - radius, 0)
        stop = np.minimum(np.arange(size) + radius + 1, size)
        pad = [(0, 0)] * values.ndim
        pad[axis] = (1, 0)
        totals = jnp.pad(jnp.cumsum(values, axis=axis), pad)
        sums = jnp.take(totals, stop, axis=axis) - jnp.take(totals, first, axis=axis)
        counts = (stop - first)[:, None] if axis == -2 else stop - first
        values = sums / counts
    return values
