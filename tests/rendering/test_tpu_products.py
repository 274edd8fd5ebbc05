"""Matrix products of the TPU kernels: as exact as float32, from bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.rendering.splat import tpu_products as products


def normal(seed, *shape):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=shape) * np.exp(5 * rng.normal(size=shape)), jnp.float32)


def test_parts_add_up_to_the_last_bit():
    array = normal(0, 1000)
    parts = products.split(array)
    assert [part.dtype for part in parts] == [jnp.bfloat16] * 3
    np.testing.assert_array_equal(sum(np.float64(part) for part in parts), np.float64(array))


def ones(a, n):
    return jnp.tri(a, n).astype(jnp.bfloat16)


PRODUCTS = {
    "exact_dot": (products.exact_dot, ones(24, 40), normal(1, 40, 33), "an,nb->ab"),
    "stacked_dot": (
        lambda a, b: products.stacked_dot(products.stack(a), b),
        normal(2, 8, 40),
        normal(3, 40, 33),
        "an,nb->ab",
    ),
    "stacked_dot_over_columns": (
        lambda a, b: products.stacked_dot(products.stack(a), b, over=1),
        normal(4, 8, 40),
        normal(5, 33, 40),
        "an,bn->ab",
    ),
    "inner_dot": (
        lambda a, b: products.inner_dot(a, products.stack(b)),
        normal(6, 8, 24),
        normal(7, 8, 33),
        "na,nb->ab",
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_exact_but_for_the_rounding_of_sums(name):
    function, left, right, indices = PRODUCTS[name]
    got = jax.jit(function)(left, right)
    left, right = np.float64(left), np.float64(right)
    error = np.abs(got - np.einsum(indices, left, right))
    # Of the sum of the absolute values; bfloat16 alone would be wrong by 4e-3 of it.
    assert np.max(error / np.einsum(indices, np.abs(left), np.abs(right))) < 1e-6


def test_rows_are_copied_along_to_the_last_bit():
    rows = normal(8, 5, 12)
    copies = products.copy_along(rows, products.copier(5, 16))
    assert len(copies) == 5
    for row, copy in zip(rows, copies):
        np.testing.assert_array_equal(copy, np.tile(np.asarray(row)[:, None], (1, 16)))
