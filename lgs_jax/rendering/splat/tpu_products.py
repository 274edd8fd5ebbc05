"""Matrix products of float32 arrays at full precision inside a TPU kernel.

A TPU multiplies bfloat16 and adds up float32. A float32 number is the sum of three bfloat16 ones,
eight bits each, so that its products are sums of products of parts. `Precision.HIGHEST` multiplies
six pairs of parts, one after another, each packed as float32. Where one factor is exact in bfloat16
three products do; the parts of a factor of few rows are stacked and go through in one.

Letters: A, B, n sizes; a factor with parts is stacked along its first dimension, [3 A, n].
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array

_PARTS = 3
# Sign, exponent and the first bits of the fraction.
_UPPER_HALF = np.int32(-(2**16))


def split(array: Array) -> list[Array]:
    """Three bfloat16 arrays whose sum is the float32 array, to the last bit of normal numbers."""
    parts = []
    for _ in range(_PARTS - 1):
        bits = lax.bitcast_convert_type(array, jnp.int32) & _UPPER_HALF
        part = lax.bitcast_convert_type(bits, jnp.float32)
        parts.append(part.astype(jnp.bfloat16))
        array = array - part
    return [*parts, array.astype(jnp.bfloat16)]


def stack(array: Array) -> Array:
    """The parts of an array below each other, [A, n] to [3 A, n]."""
    return jnp.concatenate(split(array), axis=0)


def exact_dot(left: Array, right: Array, *, over: int = 0) -> Array:
    """Product of bfloat16 [A, n] and float32 [n, B], or [B, n] for over=1, to [A, B]."""
    return functools.reduce(operator.add, (_dot(left, part, 1, over) for part in split(right)))


def stacked_dot(left: Array, right: Array, *, over: int = 0) -> Array:
    """Product of a stack [3 A, n] and float32 [n, B], or [B, n] for over=1, to [A, B]."""
    products = exact_dot(left, right, over=over)
    return functools.reduce(operator.add, jnp.split(products, _PARTS))


def inner_dot(left: Array, right: Array) -> Array:
    """Product of float32 [n, A], transposed, and a stack [3 n, B], to [A, B]; n is small."""
    left = jnp.concatenate([part for part in split(left) for _ in range(_PARTS)], axis=0)
    return _dot(left, jnp.concatenate([right] * _PARTS, axis=0), 0, 0)


def copier(rows: int, copies: int) -> Array:
    """For `copy_along`: takes a stack of rows to so many columns for each [3 rows, rows copies]."""
    row, column = (
        lax.broadcasted_iota(jnp.int32, (_PARTS * rows, rows * copies), i) for i in (0, 1)
    )
    chosen = lax.rem(row, np.int32(rows)) == lax.div(column, np.int32(copies))
    return chosen.astype(jnp.float32).astype(jnp.bfloat16)


def copy_along(array: Array, copier: Array) -> list[Array]:
    """Every row of an array [A, n] as [n, copies]: a product with ones is faster than lanes moved.

    The sums have one term that is not 0 for each part, so nothing is rounded.
    """
    return jnp.split(_dot(stack(array), copier, 0, 0), len(array), axis=1)


def _dot(left: Array, right: Array, left_over: int, right_over: int) -> Array:
    dimensions = (((left_over,), (right_over,)), ((), ()))
    return lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)
