"""Blocks that let the views of a scene see each other, permutation-equivariant over views.

Modes:
  none       views stay apart;
  resnet     per pixel: own features and the mean over the views, through a small MLP;
  attention  per pixel: attention among the views;
  full       attention among all pixels of all views, for small maps only.
All start as the identity (zero-initialised last layer) and take any number of views. Views that
`view_mask` leaves out contribute nothing to the others.

Letters: B scenes, V views, h, w height and width of a map, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.core import sharding
from lgs_jax.nn import attention

Array = jax.Array

MODES = ("none", "resnet", "attention", "full")
MAX_FULL_PIXELS = 12 * 12  # per view; the cost of `full` grows with the square of this


class CrossViewResNet(nn.Module):
    """Adds MLP(own features, mean over views) to every pixel, for each pixel independently."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, view_mask: Array | None = None) -> Array:
        """Maps [B, V, h, w, C] to the same shape; `view_mask` is [B, V] bool."""
        channels = x.shape[-1]
        # Layer, not group normalisation: its statistics do not mix the pixels.
        y = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        mean = mean_over_views(y, view_mask)
        # A dense layer on the concatenation (own, mean), written as a sum: the mean's part is then
        # computed once for all views.
        own = nn.Dense(channels, dtype=self.dtype, name="own")(y)
        others = nn.Dense(channels, dtype=self.dtype, use_bias=False, name="mean")(mean)
        return x + nn.Dense(
            channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="project"
        )(nn.silu(own + others))


def mean_over_views(x: Array, view_mask: Array | None) -> Array:
    """Mean of [B, V, ...] over the views that `view_mask` [B, V] keeps, [B, 1, ...], as `x.dtype`.

    The sum is float32; zero where no view is kept.
    """
    if view_mask is None:
        return jnp.mean(x, axis=1, keepdims=True, dtype=jnp.float32).astype(x.dtype)
    kept = jnp.expand_dims(view_mask, range(2, x.ndim))
    total = jnp.sum(jnp.where(kept, x, 0), axis=1, keepdims=True, dtype=jnp.float32)
    count = jnp.sum(kept, axis=1, keepdims=True, dtype=jnp.float32)
    return (total / jnp.maximum(count, 1.0)).astype(x.dtype)


class CrossView(nn.Module):
    """A cross-view block of one of the `MODES`."""

    mode: str
    num_heads: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, view_mask: Array | None = None) -> Array:
        """Maps [B, V, h, w, C] to the same shape; `view_mask` is [B, V] bool.

        Raises:
          ValueError: if the mode is unknown, or `full` and the maps exceed `MAX_FULL_PIXELS`.
        """
        if self.mode == "none":
            return x
        if self.mode == "resnet":
            return CrossViewResNet(dtype=self.dtype, name="resnet")(x, view_mask)
        if self.mode not in _ATTENTION:
            raise ValueError(f"cross_view={self.mode!r} is not one of {MODES}")
        apply, axes = _ATTENTION[self.mode]
        attend = attention.SelfAttention(
            self.num_heads, axes=axes, dtype=self.dtype, name=self.mode
        )
        return sharding.constrain(apply(attend, x, view_mask), *sharding.MAPS)


def _attend_per_pixel(attend: nn.Module, x: Array, view_mask: Array | None) -> Array:
    tokens = jnp.moveaxis(x, 1, 3)
    if view_mask is not None:
        view_mask = jnp.broadcast_to(view_mask[:, None, None, :], tokens.shape[:-1])
    return jnp.moveaxis(attend(tokens, view_mask), 3, 1)


def _attend_jointly(attend: nn.Module, x: Array, view_mask: Array | None) -> Array:
    batch, views, height, width, channels = x.shape
    if height * width > MAX_FULL_PIXELS:
        raise ValueError(
            f"cross_view='full' on maps of {height} x {width} pixels exceeds the "
            f"{MAX_FULL_PIXELS} pixels that it is meant for; give one mode per level, such as "
            "('resnet', 'resnet', 'full')"
        )
    if view_mask is not None:
        view_mask = jnp.repeat(view_mask, height * width, axis=1)
    # The maps are small: rows are gathered, and the devices of a view ask for all of its tokens.
    x = sharding.constrain(x, *sharding.MAPS[:2])
    tokens = x.reshape(batch, views * height * width, channels)
    return attend(tokens, view_mask).reshape(x.shape)


# How the tokens are made, and the logical names of their dimensions.
_ATTENTION = {
    "attention": (_attend_per_pixel, ("scene", "height", None, "view")),
    "full": (_attend_jointly, ("scene", "view")),
}
