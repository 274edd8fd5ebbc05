"""Tests of the kernel distance against loops over pairs."""

import numpy as np
import pytest

from lgs_jax.metrics import kernel_distance

RNG = np.random.default_rng(0)
A = RNG.normal(size=(13, 4)).astype(np.float32)
B = (1.5 * RNG.normal(size=(9, 4)) + 0.3).astype(np.float32)


def by_loops(a, b):
    def kernel(x, y):
        return (float(np.dot(x.astype(float), y.astype(float))) / len(x) + 1) ** 3

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(z) for j, y in enumerate(z) if i != j])
        for z in (a, b)
    ]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])


@pytest.mark.parametrize("block", [1, 4, 9, 1024])
def test_all_pairs_by_blocks_equal_the_loops(block):
    got = kernel_distance.distance(A, B, block=block)
    np.testing.assert_allclose(got, by_loops(A, B), rtol=1e-12)


def test_is_unbiased_on_one_distribution():
    rng = np.random.default_rng(1)
    values = [kernel_distance.distance(*rng.normal(size=(2, 20, 3))) for _ in range(400)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0
    shifted = kernel_distance.distance(rng.normal(size=(400, 3)), rng.normal(size=(400, 3)) + 0.5)
    assert shifted > 20 * error


def test_subsets_are_those_of_the_seed():
    mean, deviation = kernel_distance.subset_distance(A, B, num_subsets=5, subset_size=6, seed=3)
    generator = np.random.default_rng(3)
    draws = []
    for _ in range(5):
        x = A[generator.choice(13, 6, replace=False)]
        y = B[generator.choice(9, 6, replace=False)]
        draws.append(by_loops(x, y))
    np.testing.assert_allclose((mean, deviation), (np.mean(draws), np.std(draws)), rtol=1e-10)


def test_subsets_scatter_around_all_pairs():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(200, 3)), rng.normal(size=(200, 3)) + 0.4
    mean, deviation = kernel_distance.subset_distance(a, b, num_subsets=200, subset_size=50)
    assert abs(mean - kernel_distance.distance(a, b)) < 4 * deviation / np.sqrt(200)


def test_bad_sets_are_refused():
    with pytest.raises(ValueError, match="13 and 9; take smaller subsets"):
        kernel_distance.subset_distance(A, B)
    with pytest.raises(ValueError, match="num_subsets"):
        kernel_distance.subset_distance(A, B, num_subsets=0, subset_size=3)
    with pytest.raises(ValueError, match="2 images or more, got 1 and 9"):
        kernel_distance.distance(A[:1], B)
    with pytest.raises(ValueError, match="got \\(13, 4\\) and \\(9, 3\\)"):
        kernel_distance.distance(A, B[:, :3])
    with pytest.raises(ValueError, match="not finite"):
        kernel_distance.distance(A, np.where(B > 1, np.inf, B))
