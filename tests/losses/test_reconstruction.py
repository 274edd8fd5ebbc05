"""Tests of the pixel-wise losses."""

import numpy as np
import pytest

from lgs_jax.losses import reconstruction

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(2, 3, 5, 4, 3)).astype(np.float32)
TRUTH = RNG.uniform(size=(2, 3, 5, 4, 3)).astype(np.float32)

LOSSES = [(reconstruction.l1, np.abs), (reconstruction.l2, np.square)]


@pytest.mark.parametrize(("loss", "power"), LOSSES)
def test_is_the_mean_per_image(loss, power):
    expected = power(IMAGES.astype(np.float64) - TRUTH).mean((2, 3, 4))
    np.testing.assert_allclose(loss(IMAGES, TRUTH), expected, rtol=1e-5)


@pytest.mark.parametrize(("loss", "power"), LOSSES)
def test_shapes_that_would_broadcast_are_refused(loss, power):
    with pytest.raises(ValueError, match="must have one shape"):
        loss(IMAGES, TRUTH[:1])
