"""The decoder: one latent map per view to a 3D scene.

Letters: B scenes, V views, H, W image height and width, f compression, c latent channels.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models.scene_heads import kinds
from lgs_jax.nn import blocks, convolution, multiview_unet, patch_basis

Array = jax.Array


class Decoder(nn.Module):
    """Multi-view U-Net from latents to full-resolution maps, and a scene head on top.

    Attributes:
      in_level: level of the U-Net at which the latents enter; f = patch_size * 2**in_level.
      patch_size: side of the square of pixels that each pixel of level 0 becomes (depth to space).
      shortcut: add a linear function of each pixel's own latent to the maps; it starts as the
        inverse of the encoder's cosine transform, in the colours alone.
      refine: channels between two 3x3 convolutions over the maps at full resolution, which start
        as the identity; 0: none. Otherwise the pixels of a patch are set without sight of the
        pixels of the next patch.
      head: kind of scene and arguments of its head; see `scene_heads.kinds.build`.
      unet: further arguments of `MultiViewUNet`.
    """

    in_level: int
    patch_size: int
    shortcut: bool
    refine: int
    head: Mapping[str, Any]
    unet: Mapping[str, Any]

    @nn.compact
    def __call__(
        self,
        latents: Array,
        cameras: cameras_lib.Cameras,
        image_size: tuple[int, int],
        view_mask: Array | None = None,
    ) -> Any:
        """The scene of latents [B, V, H/f, W/f, c]; `view_mask` [B, V] bool leaves views out."""
        scene_head = kinds.build(self.head)
        maps = multiview_unet.MultiViewUNet(
            out_channels=scene_head.channels * self.patch_size**2,
            in_level=self.in_level,
            out_level=0,
            name="unet_trunk",
            **self.unet,
        )(latents, cameras, image_size, view_mask)
        maps = blocks.depth_to_space(maps, self.patch_size)
        if self.shortcut:
            factor = self.patch_size * 2**self.in_level
            kernel = _color_kernel(factor, latents.shape[-1], scene_head)
            dense = nn.Dense(
                kernel.shape[-1], False, kernel_init=lambda *_: kernel, name="shortcut"
            )
            maps = maps + blocks.depth_to_space(dense(latents), factor)
        if self.refine:
            maps = _refined(maps, self.refine, jnp.dtype(self.unet["dtype"]))
        return scene_head(maps, cameras, view_mask)


def _refined(maps: Array, channels: int, dtype: jnp.dtype) -> Array:
    """Maps [B, V, H, W, C] plus a small function of their surroundings (in a Linen scope)."""
    hidden = nn.silu(convolution.Conv3x3(channels, dtype=dtype, name="refine_in")(maps))
    zeros = nn.initializers.zeros
    return maps + convolution.Conv3x3(maps.shape[-1], kernel_init=zeros, name="refine_out")(hidden)


def _color_kernel(factor: int, channels: int, scene_head: Any) -> Array:
    """Weights [c, f * f * head channels] that undo `nn.patch_basis` in the colours alone."""
    basis = patch_basis.patch_basis(factor, channels)
    inverse = np.linalg.pinv(basis).reshape(channels, factor**2, 3)
    kernel = np.zeros((channels, factor**2, scene_head.channels), np.float32)
    # Colours are sigmoids, of slope 1/4 where they are grey, and patches span [-1, 1].
    kernel[..., scene_head.color_channels] = 2.0 * inverse
    return jnp.asarray(kernel.reshape(channels, -1))
