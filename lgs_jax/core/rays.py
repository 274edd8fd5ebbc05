"""Rays through pixel centres and their Plücker coordinates.

Letters: H, W image height and width in pixels.
"""

import jax
import jax.numpy as jnp

from lgs_jax.core.cameras import Cameras

Array = jax.Array


def pixel_centers(height: int, width: int, dtype: jnp.dtype = jnp.float32) -> Array:
    """Coordinates (u, v) of the pixel centres [H, W, 2], at +0.5."""
    u = jnp.arange(width, dtype=dtype) + 0.5
    v = jnp.arange(height, dtype=dtype) + 0.5
    return jnp.stack(jnp.meshgrid(u, v, indexing="xy"), axis=-1)


def pixel_rays(cameras: Cameras, height: int, width: int) -> tuple[Array, Array]:
    """Ray origins [..., H, W, 3] and directions [..., H, W, 3] in the world.

    The intrinsics must be those of an image of `height` x `width`. A direction has z = 1 in the
    camera's own axes, so `origin + depth * direction` is the point at that z-depth.
    """
    fx, fy, cx, cy = (x[..., None, None] for x in jnp.moveaxis(cameras.intrinsics, -1, 0))
    uv = pixel_centers(height, width, cameras.intrinsics.dtype)
    x = (uv[..., 0] - cx) / fx
    y = (uv[..., 1] - cy) / fy
    in_camera = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)
    directions = jnp.einsum(
        "...ij,...hwj->...hwi",
        cameras.world_from_cam[..., :3, :3],
        in_camera,
        precision=jax.lax.Precision.HIGHEST,
    )
    origins = jnp.broadcast_to(cameras.centers[..., None, None, :], directions.shape)
    return origins, directions


def plucker(cameras: Cameras, height: int, width: int) -> Array:
    """Plücker coordinates (unit direction d, moment o x d) of the pixel rays [..., H, W, 6]."""
    origins, directions = pixel_rays(cameras, height, width)
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    return jnp.concatenate([directions, jnp.cross(origins, directions)], axis=-1)
