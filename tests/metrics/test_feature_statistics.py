"""Tests of merged statistics of features against NumPy on all of them."""

import functools
import types

import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.metrics import frechet, kernel_distance
from lgs_jax.metrics.feature_statistics import FeatureStatistics

# Far from 0, where sums of squares would cancel.
FEATURES = (100 + np.random.default_rng(0).normal(size=(23, 5))).astype(np.float32)


def merged(parts):
    return functools.reduce(FeatureStatistics.merge, map(FeatureStatistics.of, parts))


@pytest.mark.parametrize("cuts", [[], [1], [2, 3, 17], [0, 0, 22, 23]])
def test_uneven_parts_give_the_statistics_of_the_whole(cuts):
    got = merged(np.split(FEATURES, cuts))
    wide = FEATURES.astype(np.float64)
    assert got.count == 23
    np.testing.assert_allclose(got.mean, wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(got.covariance, np.cov(wide, rowvar=False), rtol=1e-10, atol=1e-10)


def test_padding_is_left_out():
    padded = np.concatenate([FEATURES, np.full((3, 5), np.nan, np.float32)]).reshape(2, 13, 5)
    valid = np.r_[np.ones(23), np.zeros(3)].reshape(2, 13)
    got = FeatureStatistics.of(jnp.asarray(padded), valid)
    np.testing.assert_allclose(got.covariance, merged([FEATURES]).covariance, rtol=1e-12)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        FeatureStatistics.of(np.array([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="must be that of the features"):
        FeatureStatistics.of(FEATURES, np.ones(5))
    with pytest.raises(ValueError, match="needs 2 images or more, got 1"):
        _ = merged([FEATURES[:1]]).covariance
    with pytest.raises(ValueError, match="5 and 4 features"):
        merged([FEATURES, FEATURES[:, :4]])


@pytest.mark.parametrize(
    ("network", "published", "names"),
    [
        ("inception", True, ("fid", "kid")),
        ("inception", False, ("fid_other_weights", "kid_other_weights")),
        ("vgg16", True, ("fd_vgg16", "kd_vgg16")),
        ("alex", False, ("fd_alex_other_weights", "kd_alex_other_weights")),
    ],
)
def test_only_the_published_inception_is_called_fid(network, published, names):
    network = types.SimpleNamespace(name=network, published=published)
    assert (frechet.metric_name(network), kernel_distance.metric_name(network)) == names
