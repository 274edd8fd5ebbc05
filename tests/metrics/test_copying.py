"""Nearest training images are the nearest, and copies are told from new images."""

import numpy as np
import pytest
from scipy import stats

from lgs_jax.metrics import copying


def test_nearest_is_that_of_all_pairs(monkeypatch):
    monkeypatch.setattr(copying, "_ROWS", 7)
    rng = np.random.default_rng(0)
    images, training = rng.normal(size=(20, 5)), rng.normal(size=(50, 5))
    images[3] = training[17]
    distances, positions = copying.nearest(images.astype(np.float32), training.astype(np.float32))
    pairs = np.linalg.norm(images[:, None] - training[None], axis=-1)
    np.testing.assert_array_equal(positions, pairs.argmin(axis=1))
    np.testing.assert_allclose(distances, pairs.min(axis=1), atol=1e-6)
    assert distances[3] == 0.0


def test_z_is_that_of_the_test_of_mann_and_whitney():
    rng = np.random.default_rng(1)
    sampled, held_out = rng.integers(0, 9, 40), rng.integers(1, 10, 30)
    found = copying.copying_z(sampled, held_out)
    test = stats.mannwhitneyu(
        sampled, held_out, alternative="less", use_continuity=False, method="asymptotic"
    )
    assert stats.norm.cdf(found) == pytest.approx(test.pvalue, rel=1e-9)


def test_copies_are_below_and_strangers_above():
    rng = np.random.default_rng(2)
    training, new, sampled = (rng.normal(size=(200, 4)) for _ in range(3))
    known = copying.nearest(new, training)[0]

    def z(samples):
        return copying.copying_z(copying.nearest(samples, training)[0], known)

    assert abs(z(sampled)) < 3
    assert z(training[::2] + 0.01) < -3
    assert z(sampled + 2.0) > 3
    assert copying.copying_z(np.ones(3), np.ones(4)) == 0.0


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(4, 5\)"):
        copying.nearest(np.zeros((2, 3)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="at least one training image"):
        copying.nearest(np.zeros((2, 3)), np.zeros((0, 3)))
