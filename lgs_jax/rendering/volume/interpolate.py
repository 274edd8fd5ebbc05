"""Linear interpolation in tables of values.

Letters: D dimensions, C channels.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def interpolate(table: Array, positions: Array) -> Array:
    """Values [..., C] between the entries of a table, D-linear; constant beyond the outer ones.

    Args:
      table: [n_1, ..., n_D, C]; entry i lies at i + 0.5, as pixel centres do.
      positions: [..., D], from 0 to n_d along dimension d; others count as the nearest of these.
    """
    *sizes, channels = table.shape
    rows = table.reshape(math.prod(sizes), channels)
    inner = jnp.clip(positions - 0.5, 0.0, jnp.asarray(sizes, positions.dtype) - 1.0)
    low = jnp.floor(jax.lax.stop_gradient(inner)).astype(jnp.int32)
    high = jnp.minimum(low + 1, jnp.asarray(sizes, jnp.int32) - 1)
    share = inner - low
    strides = np.cumprod([1, *sizes[:0:-1]])[::-1]
    total = 0.0
    for corner in itertools.product((False, True), repeat=len(sizes)):
        index, weight = 0, 1.0
        for d, upper in enumerate(corner):
            index = index + (high if upper else low)[..., d] * int(strides[d])
            weight = weight * (share[..., d] if upper else 1.0 - share[..., d])
        total = total + weight[..., None] * rows.at[index].get(mode="clip")
    return total
