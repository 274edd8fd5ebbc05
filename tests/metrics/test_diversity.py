"""Tests of the diversity of samples against loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.metrics import diversity

SAMPLES = np.random.default_rng(0).uniform(0, 1, (4, 2, 3, 5, 6, 3)).astype(np.float32)


def absolute(a, b):
    return jnp.abs(a - b).mean(axis=(-3, -2, -1))


def test_the_map_is_the_deviation_of_each_pixel():
    expected = SAMPLES.astype(np.float64).std(axis=0).mean(axis=-1)
    np.testing.assert_allclose(diversity.deviation_map(SAMPLES), expected, rtol=1e-4)


def test_pairs_are_all_pairs_once():
    expected = np.mean([absolute(*pair) for pair in itertools.combinations(SAMPLES, 2)], axis=0)
    got = jax.jit(lambda x: diversity.mean_pairwise(absolute, x))(SAMPLES)
    assert got.shape == (2, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_half_the_mean_square_of_pairs_is_the_variance():
    squares = diversity.mean_pairwise(lambda a, b: jnp.square(a - b).mean((-3, -2, -1)), SAMPLES)
    variance = SAMPLES.astype(np.float64).var(axis=0, ddof=1).mean(axis=(-3, -2, -1))
    np.testing.assert_allclose(squares / 2, variance, rtol=1e-5)


def test_equal_samples_have_none():
    same = np.broadcast_to(SAMPLES[:1], (3, *SAMPLES.shape[1:]))
    found = diversity.measure(same, absolute)
    assert found.keys() == {"diversity_deviation", "diversity_lpips"}
    for mean in found.values():
        np.testing.assert_allclose(mean.compute(), 0.0, atol=1e-6)


def test_means_leave_out_padding_and_merge():
    weights = np.array([[1.0], [0.0]], np.float32)
    broken = SAMPLES.copy()
    broken[:, 1] = np.nan
    found = diversity.measure(broken, absolute, weights)
    expected = diversity.measure(SAMPLES[:, :1], absolute)
    for name, mean in found.items():
        np.testing.assert_allclose(mean.compute(), expected[name].compute(), rtol=1e-6)
    assert diversity.measure(SAMPLES).keys() == {"diversity_deviation"}


def test_values_outside_the_displayable_range_are_clipped():
    wild = np.where(SAMPLES > 0.5, 9.0, -9.0).astype(np.float32)
    tame = np.where(SAMPLES > 0.5, 1.0, 0.0).astype(np.float32)
    for name, mean in diversity.measure(wild, absolute).items():
        assert mean.compute() == diversity.measure(tame, absolute)[name].compute()


@pytest.mark.parametrize("shape", [(1, 2, 5, 5, 3), (5, 5, 3)])
def test_one_sample_is_refused(shape):
    with pytest.raises(ValueError, match="2 samples or more"):
        diversity.measure(np.zeros(shape, np.float32))
