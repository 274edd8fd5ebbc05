"""The decoder: one latent map per view to a 3D scene.

Letters: B scenes, V views, H, W image height and width, f compression, c latent channels.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.models.scene_heads import gaussians as gaussian_head
from lgs_jax.nn import blocks, multiview_unet

Array = jax.Array

SCENE_HEADS = {"gaussians": gaussian_head.GaussianHead}


class Decoder(nn.Module):
    """Multi-view U-Net from latents to full-resolution maps, and a scene head on top.

    Attributes:
      in_level: level of the U-Net at which the latents enter; f = patch_size * 2**in_level.
      patch_size: side of the square of pixels that each pixel of level 0 becomes (depth to space).
      scene: a name in `SCENE_HEADS`.
      head: arguments of the scene head.
      unet: further arguments of `MultiViewUNet`.
    """

    in_level: int
    patch_size: int
    scene: str
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
        scene_head = SCENE_HEADS[self.scene](**self.head)
        maps = multiview_unet.MultiViewUNet(
            out_channels=scene_head.channels * self.patch_size**2,
            in_level=self.in_level,
            out_level=0,
            name="unet_trunk",
            **self.unet,
        )(latents, cameras, image_size, view_mask)
        return scene_head(blocks.depth_to_space(maps, self.patch_size), cameras, view_mask)
