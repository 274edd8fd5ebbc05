"""The encoder: posed images to one latent distribution map per view.

Letters: B scenes, V views, H, W image height and width, f compression, c latent channels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.nn import blocks, multiview_unet, patch_basis

Array = jax.Array

INITIAL_LOG_VAR = -6.0  # much more noise than this at the start, and training does not get going
LOG_VAR_REACH = 10.0  # log-variances stay within this distance of the initial one: (-16, 4)
SHORTCUT_OUTPUT_SCALE = 0.01  # of the U-Net's last layer: training starts near the shortcut alone


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Posterior:
    """Independent normal distributions of latents.

    Attributes:
      mean: [B, V, H/f, W/f, c].
      log_var: logarithm of the variances, of the same shape.
    """

    mean: Array
    log_var: Array


class Encoder(nn.Module):
    """Multi-view U-Net from images to latent distributions.

    Attributes:
      latent_channels: c.
      out_level: level of the U-Net at which the latents leave; f = patch_size * 2**out_level.
      patch_size: side of the square of pixels that becomes one pixel of level 0 (space to depth).
        1 as in standard diffusion U-Nets; 2 or 4 is our choice for small models, which then never
        run a convolution at full resolution.
      shortcut: add a linear function of each latent's own pixels to its mean; it starts as a cosine
        transform (`nn.patch_basis`) and the U-Net adds to it.
      unet: further arguments of `MultiViewUNet`.
    """

    latent_channels: int
    out_level: int
    patch_size: int
    shortcut: bool
    unet: Mapping[str, Any]

    @nn.compact
    def __call__(
        self, images: Array, cameras: cameras_lib.Cameras, view_mask: Array | None = None
    ) -> Posterior:
        """Encodes images [B, V, H, W, 3] in [0, 1]; `view_mask` [B, V] bool leaves views out.

        Moments are float32. The log-variance is clamped softly: it starts near `INITIAL_LOG_VAR`
        and stays within `LOG_VAR_REACH` of it.
        """
        images = images * 2.0 - 1.0
        moments = multiview_unet.MultiViewUNet(
            out_channels=2 * self.latent_channels,
            in_level=0,
            out_level=self.out_level,
            name="unet_trunk",
            **{"output_scale": SHORTCUT_OUTPUT_SCALE if self.shortcut else 1.0, **self.unet},
        )(blocks.space_to_depth(images, self.patch_size), cameras, images.shape[2:4], view_mask)
        mean, log_var = jnp.split(moments, 2, axis=-1)
        if self.shortcut:
            pixels = blocks.space_to_depth(images, self.patch_size * 2**self.out_level)
            basis = patch_basis.patch_basis(self.patch_size * 2**self.out_level, mean.shape[-1])
            mean = mean + nn.Dense(
                mean.shape[-1], False, kernel_init=lambda *_: jnp.asarray(basis), name="shortcut"
            )(pixels)
        # An offset, so that the last layer starts near zero, with its bias.
        log_var = INITIAL_LOG_VAR + LOG_VAR_REACH * jnp.tanh(log_var / LOG_VAR_REACH)
        return Posterior(mean=mean, log_var=log_var)


def sample(posterior: Posterior, key: Array) -> Array:
    """Latents drawn from the posterior, with the shape of its mean."""
    noise = jax.random.normal(key, posterior.mean.shape, posterior.mean.dtype)
    return posterior.mean + jnp.exp(0.5 * posterior.log_var) * noise
