"""The product of matrices for small maps is the convolution, gradients included."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from lgs_jax.nn import convolution


@pytest.mark.parametrize(("size", "side"), [((1, 2), 3), ((3, 5), 3), ((4, 4), 3), ((2, 7), 5)])
def test_equals_the_convolution_of_lax(size, side):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 4)).astype(np.float32)
    kernel = rng.normal(size=(side, side, 4, 6)).astype(np.float32)

    def plain(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    got, back = jax.vjp(convolution.convolve, x, kernel)
    wanted, plain_back = jax.vjp(plain, x, kernel)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    for ours, theirs in zip(back(wanted), plain_back(wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("size", [(2, 2), (8, 8)])
def test_the_layer_is_that_of_flax(size):
    x = np.random.default_rng(0).normal(size=(2, 3, *size, 4)).astype(np.float32)
    plain, ours = nn.Conv(5, (3, 3)), convolution.Conv3x3(5)
    variables = plain.init(jax.random.key(0), x)
    np.testing.assert_allclose(ours.apply(variables, x), plain.apply(variables, x), atol=1e-5)


def test_maps_smaller_than_the_kernel_with_a_stride_stay_convolutions():
    x, kernel = np.ones((1, 4, 4, 1), np.float32), np.ones((5, 5, 1, 1), np.float32)
    assert convolution.convolve(x, kernel, (2, 2), [(2, 2)] * 2).shape == (1, 2, 2, 1)
