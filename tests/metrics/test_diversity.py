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
    np.testing.assert_allclose(diversity.deviation_map(same), 0.0, atol=1e-6)
    np.testing.assert_allclose(diversity.mean_pairwise(absolute, same), 0.0, atol=1e-6)


def test_values_outside_the_displayable_range_are_clipped():
    wild = np.where(SAMPLES > 0.5, 9.0, -9.0).astype(np.float32)
    tame = np.where(SAMPLES > 0.5, 1.0, 0.0).astype(np.float32)
    np.testing.assert_array_equal(diversity.deviation_map(wild), diversity.deviation_map(tame))


@pytest.mark.parametrize("shape", [(1, 2, 5, 5, 3), (5, 5, 3)])
def test_one_sample_is_refused(shape):
    with pytest.raises(ValueError, match="2 samples or more"):
        diversity.deviation_map(np.zeros(shape, np.float32))
