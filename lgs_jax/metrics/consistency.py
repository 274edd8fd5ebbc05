"""Whether two rendered views show the same surfaces: one is warped into the other and compared.

No truth is needed, so it measures samples too. A scene of 3D Gaussians is consistent up to what its
depth cannot say (soft edges, haze, reflections); images of a model without a scene need not be.

Letters: H, W image, C channels.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax.core import rays, rotations
from lgs_jax.core.cameras import Cameras
from lgs_jax.metrics.image import MAX_PSNR
from lgs_jax.rendering.output import Rendering
from lgs_jax.rendering.volume import interpolate

Array = jax.Array

_MIN_DEPTH = 1e-6


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Consistency:
    """How well pairs of views [...] agree where both see the same surface.

    Attributes:
      psnr: of the valid pixels in dB, at most `image.MAX_PSNR`; NaN where there are none [...].
      l1: their mean absolute difference of colours in [0, 1]; NaN where there are none [...].
      valid: the share of the first view's pixels that are valid [...].
    """

    psnr: Array
    l1: Array
    valid: Array


def between(
    a: Rendering,
    cameras_a: Cameras,
    b: Rendering,
    cameras_b: Cameras,
    *,
    depth_tolerance: float = 0.05,
    min_alpha: float = 0.5,
) -> Consistency:
    """Compares views [...] `a` with views `b` of the same scenes, warped by the depth of `a`.

    A pixel is valid if its surface lies inside view b, both views are opaque there, and the depth
    that b has agrees: otherwise b sees something in front of it.

    Args:
      a: renderings [...] with the expected depth.
      cameras_a: their cameras [...].
      b: renderings [...].
      cameras_b: their cameras [...].
      depth_tolerance: how much the depths may differ, relative to that of the surface.
      min_alpha: the opacity from which a depth is believed, above 0.

    Raises:
      ValueError: if the shapes do not fit or a rendering has no depth.
    """
    _check(a, cameras_a, b, cameras_b)
    warped, valid = jax.vmap(
        lambda *view: _warp(*view, depth_tolerance=depth_tolerance, min_alpha=min_alpha)
    )(*(_one_axis(x, cameras_a) for x in (a.depth, a.alpha, cameras_a, b, cameras_b)))
    error = jnp.clip(warped, 0.0, 1.0) - jnp.clip(_one_axis(a.rgb, cameras_a), 0.0, 1.0)
    # 0 / 0 where nothing is valid: NaN.
    count = valid.sum(axis=(-2, -1))
    mse, l1 = (
        jnp.where(valid, x.mean(axis=-1), 0.0).sum(axis=(-2, -1)) / count
        for x in (jnp.square(error), jnp.abs(error))
    )
    psnr = -10.0 * jnp.log10(jnp.maximum(mse, 10.0 ** (-MAX_PSNR / 10.0)))
    share = valid.mean(axis=(-2, -1))
    return Consistency(*(x.reshape(cameras_a.batch_shape) for x in (psnr, l1, share)))


def _warp(
    depth: Array,
    alpha: Array,
    camera_a: Cameras,
    b: Rendering,
    camera_b: Cameras,
    *,
    depth_tolerance: float,
    min_alpha: float,
) -> tuple[Array, Array]:
    """View b as camera a sees it [H, W, C], and where that is valid [H, W]."""
    height, width = depth.shape[:2]
    origins, directions = rays.pixel_rays(camera_a, height, width)
    points = origins + depth * directions
    local = rotations.apply_affine(camera_b.cam_from_world, points.reshape(-1, 3))
    x, y, z = jnp.moveaxis(local.reshape(points.shape), -1, 0)
    in_front = z > _MIN_DEPTH
    safe = jnp.where(in_front, z, 1.0)
    fx, fy, cx, cy = camera_b.intrinsics
    u, v = fx * x / safe + cx, fy * y / safe + cy
    rows, columns = b.rgb.shape[:2]
    # Half a pixel from the border on, all four neighbours of a place lie inside.
    inside = (u >= 0.5) & (u <= columns - 0.5) & (v >= 0.5) & (v <= rows - 0.5)
    table = jnp.concatenate([b.rgb, b.depth, b.alpha], axis=-1)
    seen = interpolate.interpolate(table, jnp.stack([v, u], axis=-1))
    rgb, seen_depth, seen_alpha = seen[..., :-2], seen[..., -2], seen[..., -1]
    opaque = (alpha[..., 0] >= min_alpha) & (seen_alpha >= min_alpha)
    agrees = jnp.abs(seen_depth - z) <= depth_tolerance * z
    return rgb, in_front & inside & opaque & agrees


def _one_axis(tree: Any, cameras: Cameras) -> Any:
    """Joins the leading dimensions [...] of the cameras into one."""
    lead = len(cameras.batch_shape)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[lead:]), tree)


def _check(a: Rendering, cameras_a: Cameras, b: Rendering, cameras_b: Cameras) -> None:
    cameras_a.check()
    cameras_b.check()
    for name, view, cameras in (("a", a, cameras_a), ("b", b, cameras_b)):
        if view.depth is None:
            raise ValueError(f"rendering {name} has no depth; render with depth_mode='expected'")
        if view.rgb.shape[:-3] != cameras.batch_shape:
            raise ValueError(
                f"rendering {name} {view.rgb.shape} needs cameras {view.rgb.shape[:-3]}, "
                f"got {cameras.batch_shape}"
            )
    if a.rgb.shape[:-3] != b.rgb.shape[:-3] or a.rgb.shape[-1] != b.rgb.shape[-1]:
        raise ValueError(
            f"expected as many views b as a with as many channels, got {a.rgb.shape} and "
            f"{b.rgb.shape}"
        )
