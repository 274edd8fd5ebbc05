"""The Gaussian head: one splat per pixel of every view, from 12 channels.

Channels: depth 1, opacity 1, RGB 3, scale 3, quaternion 4. A splat lies on its pixel's ray at a
z-depth between `near` and `far`; its size is in units of the pixel's footprint at that depth; its
orientation is relative to the camera. With all channels at zero the head gives a fronto-parallel
shell of opaque grey splats about one pixel wide, where training starts.

Letters: B scenes, V views, H, W image height and width.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import gaussians, rays, rotations
from lgs_jax.models.scene_heads import ranges

Array = jax.Array

DEPTH_ACTIVATIONS = ("disparity", "linear", "log")
_SECTIONS = (1, 2, 5, 8)  # ends of depth, opacity, RGB and scale; the quaternion is the rest


@dataclasses.dataclass(frozen=True)
class GaussianHead:
    """Turns maps of 12 channels into Gaussians; has no parameters.

    Attributes:
      near: smallest z-depth, in units of the scene, > 0.
      far: largest z-depth.
      depth_activation: the quantity in which a sigmoid runs evenly from near to far: "disparity"
        (1 / depth), "linear" (depth) or "log" (its logarithm).
      initial_depth: depth where the channel is zero; None takes the activation's middle.
      initial_opacity: opacity where the channel is zero.
      min_scale: smallest standard deviation, in pixel footprints.
      max_scale: largest standard deviation, in pixel footprints.
      initial_scale: standard deviation where the channel is zero, in pixel footprints.
    """

    near: float = 0.5
    far: float = 100.0
    depth_activation: str = "disparity"
    initial_depth: float | None = None
    initial_opacity: float = 0.8
    min_scale: float = 0.1
    max_scale: float = 10.0
    initial_scale: float = 0.8

    # Not fields: what the decoder must deliver per pixel, and where the colours are in it.
    channels = 12
    color_channels = slice(2, 5)

    def __post_init__(self) -> None:
        if self.depth_activation not in DEPTH_ACTIVATIONS:
            raise ValueError(
                f"depth_activation={self.depth_activation!r} must be one of {DEPTH_ACTIVATIONS}"
            )
        ranges.check_depths(self.near, self.far, self.initial_depth)
        ranges.check_positive(min_scale=self.min_scale)
        ranges.check_between("initial_opacity", self.initial_opacity, "0", 0.0, "1", 1.0)
        low, high = f"min_scale={self.min_scale}", f"max_scale={self.max_scale}"
        ranges.check_between(
            "initial_scale", self.initial_scale, low, self.min_scale, high, self.max_scale
        )

    def __call__(
        self, maps: Array, cameras: cameras_lib.Cameras, view_mask: Array | None = None
    ) -> gaussians.Gaussians:
        """Gaussians [B, V * H * W], ordered by view, row, column.

        Args:
          maps: [B, V, H, W, 12], of any float type; the computation is float32.
          cameras: of the views [B, V], for H x W images; the Gaussians come out in their world.
          view_mask: [B, V] bool; Gaussians of views left out get opacity 0.
        """
        height, width = maps.shape[2:4]
        channels = jnp.split(maps.astype(jnp.float32), _SECTIONS, axis=-1)
        depth, opacity, color, scale, quat = channels
        depth = self.depths(depth)
        origins, directions = rays.pixel_rays(cameras, height, width)
        opacity = jax.nn.sigmoid(opacity[..., 0] + _logit(self.initial_opacity))
        if view_mask is not None:
            opacity = jnp.where(view_mask[:, :, None, None], opacity, 0.0)
        identity = jnp.array([1.0, 0.0, 0.0, 0.0])
        world_from_cam = rotations.quats_from_matrix(cameras.world_from_cam[..., :3, :3])
        world_from_cam = world_from_cam[:, :, None, None, :]
        scene = gaussians.Gaussians(
            means=origins + depth * directions,
            quats=rotations.multiply_quats(
                world_from_cam, rotations.normalize_quats(quat + identity)
            ),
            scales=self.pixel_scales(scale) * _footprints(depth, cameras),
            opacities=opacity,
            colors=jax.nn.sigmoid(color),
        )
        return jax.tree.map(lambda x: x.reshape(x.shape[0], -1, *x.shape[4:]), scene)

    def depths(self, x: Array) -> Array:
        """z-depths between `near` and `far` of channel values of any shape."""
        near, far = self._warp(self.near), self._warp(self.far)
        offset = 0.0
        if self.initial_depth is not None:
            offset = _logit((self._warp(self.initial_depth) - far) / (near - far))
        x = far + (near - far) * jax.nn.sigmoid(x + offset)
        if self.depth_activation == "disparity":
            return 1.0 / x
        return jnp.exp(x) if self.depth_activation == "log" else x

    def pixel_scales(self, x: Array) -> Array:
        """Standard deviations in pixel footprints, evenly bounded in their logarithm."""
        low, high = math.log(self.min_scale), math.log(self.max_scale)
        offset = _logit((math.log(self.initial_scale) - low) / (high - low))
        return jnp.exp(low + (high - low) * jax.nn.sigmoid(x + offset))

    def _warp(self, depth: float) -> float:
        """The quantity that the sigmoid interpolates, at a depth."""
        if self.depth_activation == "disparity":
            return 1.0 / depth
        return math.log(depth) if self.depth_activation == "log" else depth


def _footprints(depth: Array, cameras: cameras_lib.Cameras) -> Array:
    """Widths in the world of a pixel at z-depths [B, V, H, W, 1]; oblong pixels: of equal area."""
    focal = jnp.sqrt(cameras.intrinsics[..., 0] * cameras.intrinsics[..., 1])
    return depth / focal[:, :, None, None, None]


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))
