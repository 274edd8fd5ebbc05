"""Tests of the pixel-wise losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.losses import reconstruction

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(2, 3, 5, 4, 3)).astype(np.float32)
TRUTH = RNG.uniform(size=(2, 3, 5, 4, 3)).astype(np.float32)
MASK = (RNG.uniform(size=(2, 3, 5, 4, 1)) * RNG.integers(0, 2, (2, 3, 5, 4, 1))).astype(np.float32)

LOSSES = [(reconstruction.l1, np.abs), (reconstruction.l2, np.square)]


@pytest.mark.parametrize(("loss", "power"), LOSSES)
def test_is_the_mean_per_image(loss, power):
    expected = power(IMAGES.astype(np.float64) - TRUTH).mean((2, 3, 4))
    np.testing.assert_allclose(loss(IMAGES, TRUTH), expected, rtol=1e-5)


@pytest.mark.parametrize(("loss", "power"), LOSSES)
def test_a_mask_weighs_the_pixels(loss, power):
    errors = power(IMAGES.astype(np.float64) - TRUTH)
    got = loss(IMAGES, TRUTH, MASK)
    for i, j in np.ndindex(2, 3):
        weights = np.broadcast_to(MASK[i, j], errors[i, j].shape)
        np.testing.assert_allclose(got[i, j], np.average(errors[i, j], weights=weights), rtol=1e-5)
    np.testing.assert_allclose(
        loss(IMAGES, TRUTH, np.full_like(MASK, 0.3)), loss(IMAGES, TRUTH), rtol=1e-5
    )


@pytest.mark.parametrize(("loss", "power"), LOSSES)
def test_an_image_without_weight_adds_nothing(loss, power):
    mask = jnp.asarray(MASK).at[0, 1].set(0.0)
    value, gradient = jax.value_and_grad(lambda x: loss(x, TRUTH, mask)[0, 1])(IMAGES)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize(("loss", "power"), LOSSES)
def test_shapes_that_would_broadcast_are_refused(loss, power):
    with pytest.raises(ValueError, match="must have one shape"):
        loss(IMAGES, TRUTH[:1])
    with pytest.raises(ValueError, match=r"ask for \(2, 3, 5, 4, 1\)"):
        loss(IMAGES, TRUTH, MASK[..., 0])
