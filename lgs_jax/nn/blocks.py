"""Two-dimensional blocks of a diffusion U-Net (ADM, Dhariwal & Nichol 2021), one map per view.

Letters: h, w height and width of a map, C channels, D size of the conditioning vector. Leading
dimensions are batch dimensions; `Conv3x3` folds them into one.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.nn import convolution

Array = jax.Array

MAX_GROUPS = 32
MIN_CHANNELS_PER_GROUP = 4  # fewer turn group into instance normalisation, which forgets contrast


def group_norm(channels: int, *, dtype: jnp.dtype, name: str) -> nn.GroupNorm:
    """Group normalisation of maps [..., h, w, C] over each map on its own.

    `channels` must be a multiple of `MIN_CHANNELS_PER_GROUP`.
    """
    groups = math.gcd(MAX_GROUPS, channels // MIN_CHANNELS_PER_GROUP)
    return nn.GroupNorm(groups, reduction_axes=(-3, -2, -1), dtype=dtype, name=name)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3x3 convolution, twice, beside a shortcut; starts as the shortcut alone.

    Attributes:
      features: output channels.
      dtype: of the computation; parameters are float32.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None = None) -> Array:
        """Maps [..., h, w, C] to [..., h, w, features].

        `embedding` [..., D], with the leading dimensions of `x`, scales and shifts the channels
        after the second normalisation (FiLM).
        """
        shortcut = x
        if x.shape[-1] != self.features:
            shortcut = nn.Dense(self.features, dtype=self.dtype, name="shortcut")(x)
        x = nn.silu(group_norm(x.shape[-1], dtype=self.dtype, name="norm_in")(x))
        x = convolution.Conv3x3(self.features, dtype=self.dtype, name="conv_in")(x)
        x = group_norm(self.features, dtype=self.dtype, name="norm_out")(x)
        if embedding is not None:
            film = nn.Dense(2 * self.features, dtype=self.dtype, name="film")(nn.silu(embedding))
            scale, shift = jnp.split(film[..., None, None, :], 2, axis=-1)
            x = x * (1 + scale) + shift
        x = convolution.Conv3x3(
            self.features,
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros,
            name="conv_out",
        )(nn.silu(x))
        return shortcut + x


class Downsample(nn.Module):
    """Halves the resolution: 2x2 average, then a 3x3 convolution at the lower resolution."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., h, w, C] to [..., h/2, w/2, features]."""
        *lead, height, width, channels = x.shape
        x = x.reshape(*lead, height // 2, 2, width // 2, 2, channels)
        x = jnp.mean(x, axis=(-4, -2))
        return convolution.Conv3x3(self.features, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Doubles the resolution: a 3x3 convolution at the lower resolution, then nearest neighbour.

    The convolution comes first because it costs a quarter of what it would cost after; the residual
    block that follows smooths at the higher resolution.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., h, w, C] to [..., 2h, 2w, features]."""
        x = convolution.Conv3x3(self.features, dtype=self.dtype, name="conv")(x)
        return jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2)


def space_to_depth(x: Array, factor: int) -> Array:
    """Moves blocks of `factor` x `factor` pixels to channels, row-major in the block.

    [..., h, w, C] -> [..., h / factor, w / factor, factor * factor * C].
    """
    *lead, height, width, channels = x.shape
    x = x.reshape(*lead, height // factor, factor, width // factor, factor, channels)
    x = jnp.moveaxis(x, -4, -3)
    return x.reshape(*lead, height // factor, width // factor, factor * factor * channels)


def depth_to_space(x: Array, factor: int) -> Array:
    """The inverse of `space_to_depth`: [..., h, w, factor² C] -> [..., factor h, factor w, C]."""
    *lead, height, width, channels = x.shape
    x = x.reshape(*lead, height, width, factor, factor, channels // factor**2)
    x = jnp.moveaxis(x, -4, -3)
    return x.reshape(*lead, height * factor, width * factor, channels // factor**2)
