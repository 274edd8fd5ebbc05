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


@pytest.mark.parametrize("block", [4, 1024])
def test_pairs_of_different_scenes_by_loops(block):
    a, b = RNG.normal(size=(2, 5, 3, 4))

    def kernel(x, y):
        return (float(np.dot(x, y)) / 4 + 1) ** 3

    def mean(order):
        pairs = [(a[s], b[s], a[t], b[t]) for s in order for t in order if s != t]
        values = [
            np.mean([[kernel(p, r) for r in zs] for p in xs])
            + np.mean([[kernel(q, t) for t in ws] for q in ys])
            - np.mean([[kernel(p, t) for t in ws] for p in xs])
            - np.mean([[kernel(q, r) for r in zs] for q in ys])
            for xs, ys, zs, ws in pairs
        ]
        return np.mean(values)

    value, draws = kernel_distance.scene_bootstrap(a, b, resamplings=3, seed=1, block=block)
    np.testing.assert_allclose(value, mean(range(5)), rtol=1e-10)
    counts = np.random.default_rng(1).multinomial(5, np.full(5, 0.2), size=3)
    wanted = [mean(np.repeat(np.arange(5), count)) for count in counts]
    np.testing.assert_allclose(draws, wanted, rtol=1e-10)


def test_scenes_that_are_drawn_again_spread_as_new_scenes_do():
    """The bootstrap's deviation is that of the distance over sets of scenes, and so is its mean."""
    rng = np.random.default_rng(2)

    def sets():
        place = rng.normal(size=(40, 1, 3))  # images of a scene are alike
        return place + 0.3 * rng.normal(size=(40, 2, 3)), 1.4 * place + 0.4

    found = []
    for _ in range(100):
        a, b = sets()
        value, draws = kernel_distance.scene_bootstrap(a, np.repeat(b, 2, axis=1), resamplings=100)
        found.append((value, draws.std(), draws.mean()))
    values, deviations, means = np.array(found).T
    # 100 values give their deviation to about 7 %.
    assert np.mean(deviations) == pytest.approx(values.std(), rel=0.3)
    assert abs(np.mean(means - values)) < 0.2 * values.std()
    with pytest.raises(ValueError, match="2 scenes or more"):
        kernel_distance.scene_bootstrap(a[:1], a[:1])


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
