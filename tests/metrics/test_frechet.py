"""Tests of the Fréchet distance against scipy's matrix root and closed forms."""

import numpy as np
import pytest
from scipy import linalg

from lgs_jax.metrics import frechet
from lgs_jax.metrics.feature_statistics import FeatureStatistics


def random_covariance(rng, size, rank=None):
    root = rng.normal(size=(size, rank or 2 * size))
    return root @ root.T / size


def by_scipy(mean_a, cov_a, mean_b, cov_b):
    root = linalg.sqrtm(cov_a @ cov_b)
    return np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root.real)


@pytest.mark.parametrize("size", [1, 2, 17, 64])
def test_equals_the_root_of_the_product(size):
    rng = np.random.default_rng(size)
    moments = [
        f()
        for _ in "ab"
        for f in (lambda: rng.normal(size=size), lambda: random_covariance(rng, size))
    ]
    np.testing.assert_allclose(
        frechet.gaussian_distance(*moments), by_scipy(*moments), rtol=1e-9, atol=1e-9
    )


def test_equals_the_closed_form_of_covariances_that_commute():
    rng = np.random.default_rng(0)
    axes = linalg.qr(rng.normal(size=(6, 6)))[0]
    mean_a, mean_b = rng.normal(size=(2, 6))
    a, b = rng.uniform(0, 3, size=(2, 6))
    expected = np.sum((mean_a - mean_b) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    got = frechet.gaussian_distance(mean_a, (axes * a) @ axes.T, mean_b, (axes * b) @ axes.T)
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_singular_covariances_of_orthogonal_planes_need_no_care():
    a, b = np.diag([4.0, 1.0, 0, 0]), np.diag([0, 0, 9.0, 1.0])
    zero = np.zeros(4)
    np.testing.assert_allclose(frechet.gaussian_distance(zero, a, zero, b), 15.0, rtol=1e-12)


def test_a_set_and_itself_have_no_distance_even_with_fewer_images_than_features():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(20, 50)) @ random_covariance(rng, 50)
    a = FeatureStatistics.of(features)
    assert abs(frechet.distance(a, a)) < 1e-11 * np.trace(a.covariance)
    b = FeatureStatistics.of(features[::-1] + 0.5)
    np.testing.assert_allclose(frechet.distance(a, b), 50 * 0.25, rtol=1e-8)


def test_is_symmetric_and_split_in_any_parts():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 6)), 2 * rng.normal(size=(33, 6)) + 1
    a, b = FeatureStatistics.of(x), FeatureStatistics.of(y)
    whole = frechet.distance(a, b)
    np.testing.assert_allclose(frechet.distance(b, a), whole, rtol=1e-10)
    parts = FeatureStatistics.of(x[:7]).merge(FeatureStatistics.of(x[7:]))
    np.testing.assert_allclose(frechet.distance(parts, b), whole, rtol=1e-10)


def test_samples_of_one_distribution_come_together():
    rng = np.random.default_rng(3)
    few, many = (
        frechet.distance(*(FeatureStatistics.of(rng.normal(size=(n, 8))) for _ in "ab"))
        for n in (50, 20000)
    )
    assert 0 < many < 0.01 < few


def test_bad_moments_are_refused():
    eye, zero = np.eye(3), np.zeros(3)
    with pytest.raises(ValueError, match="of one D"):
        frechet.gaussian_distance(zero, eye, np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="of one D"):
        frechet.gaussian_distance(zero, eye, zero, zero)
    with pytest.raises(ValueError, match="not finite"):
        frechet.gaussian_distance(zero, eye * np.nan, zero, eye)
