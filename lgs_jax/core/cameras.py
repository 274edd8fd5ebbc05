"""Pinhole cameras.

Axes are OpenCV's: x right, y down, z forward. Pixel centres lie at +0.5, so the left edge of the
image is u = 0 and intrinsics scale with the image size.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax.core import indexing, rotations

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras.

    Attributes:
      world_from_cam: camera-to-world maps [..., 4, 4], last row (0, 0, 0, 1).
      intrinsics: fx, fy, cx, cy in pixels [..., 4].
    """

    world_from_cam: Array
    intrinsics: Array

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The leading dimensions."""
        return tuple(self.intrinsics.shape[:-1])

    @property
    def centers(self) -> Array:
        """Camera centres in the world [..., 3]."""
        return self.world_from_cam[..., :3, 3]

    @property
    def cam_from_world(self) -> Array:
        """World-to-camera maps [..., 4, 4]."""
        return rotations.affine_inverse(self.world_from_cam)

    def __getitem__(self, index: Any) -> "Cameras":
        """Indexes the leading dimensions."""
        return indexing.take(self, index, self.batch_shape)

    def __iter__(self) -> Iterator["Cameras"]:
        return indexing.each(self, self.batch_shape)

    def __len__(self) -> int:
        if not self.batch_shape:
            raise TypeError("a single camera has no length; add a leading dimension")
        return self.batch_shape[0]

    def check(self) -> "Cameras":
        """Returns itself if the shapes fit.

        Raises:
          ValueError: if one of them is no array, or a shape is wrong; values are not looked at, so
            it works under `jit`.
        """
        indexing.check_arrays(self)
        poses, intrinsics = jnp.shape(self.world_from_cam), jnp.shape(self.intrinsics)
        if poses[-2:] != (4, 4) or intrinsics[-1:] != (4,) or poses[:-2] != intrinsics[:-1]:
            raise ValueError(
                "Cameras expects world_from_cam [..., 4, 4] and intrinsics [..., 4] "
                f"(fx, fy, cx, cy) with equal leading dimensions, got {poses} and {intrinsics}"
            )
        return self


def resize(cameras: Cameras, *, scale_x: float, scale_y: float) -> Cameras:
    """Cameras of the images resized by the given factors (new size / old size)."""
    factors = jnp.array([scale_x, scale_y, scale_x, scale_y], cameras.intrinsics.dtype)
    return dataclasses.replace(cameras, intrinsics=cameras.intrinsics * factors)


def crop(cameras: Cameras, *, left: float, top: float) -> Cameras:
    """Cameras of the images whose first kept column and row are `left` and `top`."""
    shift = jnp.array([0.0, 0.0, left, top], cameras.intrinsics.dtype)
    return dataclasses.replace(cameras, intrinsics=cameras.intrinsics - shift)


def transform(cameras: Cameras, b_from_a: Array) -> Cameras:
    """Moves cameras given in frame `a` to frame `b` by a similarity [..., 4, 4].

    The scale of the similarity moves the centres only: camera axes keep unit length, so depths seen
    by the moved cameras are in units of `b`.
    """
    linear = b_from_a[..., :3, :3]
    scale = jnp.cbrt(jnp.linalg.det(linear))[..., None, None]
    moved = jnp.matmul(b_from_a, cameras.world_from_cam, precision=jax.lax.Precision.HIGHEST)
    poses = rotations.affine_from_parts(moved[..., :3, :3] / scale, moved[..., :3, 3])
    return dataclasses.replace(cameras, world_from_cam=poses)


def look_at(center: Array, target: Array, up: Array) -> Array:
    """world_from_cam [..., 4, 4] of cameras at `center` [..., 3] that look at `target` [..., 3].

    `up` [..., 3] points to the top of the image. Undefined if `up` is parallel to the view.
    """
    center, target, up = jnp.broadcast_arrays(*map(jnp.asarray, (center, target, up)))
    forward = target - center
    forward = forward / jnp.linalg.norm(forward, axis=-1, keepdims=True)
    right = jnp.cross(forward, up)
    right = right / jnp.linalg.norm(right, axis=-1, keepdims=True)
    down = jnp.cross(forward, right)
    return rotations.affine_from_parts(jnp.stack([right, down, forward], axis=-1), center)
