"""Multi-head self-attention over sets of tokens.

Letters: T tokens, C channels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class SelfAttention(nn.Module):
    """Pre-normalised residual self-attention; starts as the identity.

    There is no positional code: where the place of a token matters, its features must tell.

    Attributes:
      num_heads: must divide the channels.
      dtype: of the computation; the softmax is float32 and parameters are float32.
    """

    num_heads: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array, mask: Array | None = None) -> Array:
        """Attends among tokens [..., T, C] with keys and values where `mask` [..., T] is true.

        `mask` has the leading dimensions of `tokens`.
        """
        *lead, count, channels = tokens.shape
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(tokens)
        x = nn.Dense(3 * channels, dtype=self.dtype, name="query_key_value")(x)
        x = x.reshape(-1, count, 3, self.num_heads, channels // self.num_heads)
        if mask is not None:
            mask = mask.reshape(-1, 1, 1, count)
        x = jax.nn.dot_product_attention(x[:, :, 0], x[:, :, 1], x[:, :, 2], mask=mask)
        x = nn.Dense(channels, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="project")(
            x.reshape(*lead, count, channels)
        )
        return tokens + x
