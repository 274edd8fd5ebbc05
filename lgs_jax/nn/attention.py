"""Multi-head self-attention over sets of tokens.

Letters: T tokens, C channels.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from lgs_jax.core import sharding

Array = jax.Array


class SelfAttention(nn.Module):
    """Pre-normalised residual self-attention; starts as the identity.

    There is no positional code: where the place of a token matters, its features must tell.

    Attributes:
      num_heads: must divide the channels.
      axes: logical names (`core.sharding`) of all dimensions of the tokens but the last: a device
        asks for its own tokens, and gathers keys and values of all.
      dtype: of the computation; the softmax is float32 and parameters are float32.
    """

    num_heads: int
    axes: Sequence[str | None] = ()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array, mask: Array | None = None) -> Array:
        """Attends among tokens [..., T, C] with keys and values where `mask` [..., T] is true.

        `mask` has the leading dimensions of `tokens`.
        """
        channels = tokens.shape[-1]
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(tokens)
        x = nn.Dense(3 * channels, dtype=self.dtype, name="query_key_value")(x)
        x = x.reshape(*tokens.shape[:-1], 3, self.num_heads, channels // self.num_heads)
        query, key, value = (x[..., i, :, :] for i in range(3))
        if self.axes:
            query = sharding.constrain(query, *self.axes)
            key, value = (sharding.constrain(y, *self.axes[:-1], None) for y in (key, value))
        x = attend(query, key, value, mask)
        x = nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="project")(
            x.reshape(tokens.shape)
        )
        return tokens + x


def attend(query: Array, key: Array, value: Array, mask: Array | None) -> Array:
    """Attention [..., T, heads, C / heads] of like arrays, to keys where `mask` [..., T] is true.

    Leading dimensions stay apart: one made of several could not stay split over the devices.
    """
    if query.ndim > 4:
        axes = (0, 0, 0, None if mask is None else 0)
        return jax.vmap(attend, in_axes=axes)(query, key, value, mask)
    mask = None if mask is None else mask[..., None, None, :]
    return jax.nn.dot_product_attention(query, key, value, mask=mask)
