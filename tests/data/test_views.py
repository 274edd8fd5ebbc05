"""View selection: bounds, randomness, evaluation's fixed choice, few and many frames."""

import numpy as np
import pytest

from lgs_jax.data.views import ViewPlan, choose_views


def line(count: int) -> np.ndarray:
    return np.stack([np.arange(count), np.zeros(count), np.zeros(count)], -1).astype(float)


@pytest.mark.parametrize("selection", ["gap", "distance"])
@pytest.mark.parametrize(
    ("frames", "context", "target"), [(12, 4, 2), (12, 4, 4), (6, 4, 2), (300, 6, 6), (5, 1, 4)]
)
@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_views_are_distinct_sorted_and_between(frames, context, target, selection, seed):
    plan = ViewPlan(context, target, selection)
    centers = line(frames) ** 1.5
    rng = None if seed is None else np.random.default_rng(seed)
    c, t = choose_views(centers, plan, rng)
    assert len(c) == context
    assert len(t) == target
    assert len({*c, *t}) == context + target
    assert (np.diff(c) > 0).all()
    assert (np.diff(t) > 0).all()
    assert min(*c, *t) >= 0
    assert max(*c, *t) < frames
    if context > 1:
        assert c[0] < t[0]
        assert t[-1] < c[-1]


def test_gaps_stay_in_bounds_and_reach_both_ends():
    plan = ViewPlan(4, 3, gap_min=3, gap_max=7)
    rng = np.random.default_rng(0)
    gaps = np.concatenate([np.diff(choose_views(line(100), plan, rng)[0]) for _ in range(300)])
    assert gaps.min() == 3
    assert gaps.max() == 7


def test_windows_move_over_the_whole_scene():
    rng = np.random.default_rng(1)
    plan = ViewPlan(3, 1, gap_min=2, gap_max=2)
    starts = {int(choose_views(line(12), plan, rng)[0][0]) for _ in range(200)}
    assert starts == set(range(8))


def test_training_is_a_function_of_the_generator():
    plan = ViewPlan(4, 4)
    a = choose_views(line(50), plan, np.random.default_rng(5))
    b = choose_views(line(50), plan, np.random.default_rng(5))
    c = choose_views(line(50), plan, np.random.default_rng(6))
    np.testing.assert_array_equal(np.concatenate(a), np.concatenate(b))
    assert not np.array_equal(np.concatenate(a), np.concatenate(c))


def test_evaluation_takes_targets_half_way():
    context, target = choose_views(line(13), ViewPlan(4, 3), None)
    np.testing.assert_array_equal(context, [0, 4, 8, 12])
    np.testing.assert_array_equal(target, [2, 6, 10])


def test_evaluation_of_few_targets_takes_the_middle_gap():
    np.testing.assert_array_equal(choose_views(line(13), ViewPlan(4, 1), None)[1], [6])


def test_evaluation_of_many_targets_divides_the_gaps():
    context, target = choose_views(line(25), ViewPlan(3, 4), None)
    np.testing.assert_array_equal(context, [0, 12, 24])
    np.testing.assert_array_equal(target, [4, 8, 16, 20])


def test_evaluation_window_is_centred():
    context, _ = choose_views(line(101), ViewPlan(3, 2, gap_max=10), None)
    np.testing.assert_array_equal(context, [40, 50, 60])


def test_distance_spreads_along_the_path():
    # Ten frames in the first tenth of the way, then ten long steps.
    x = np.concatenate([np.linspace(0, 1, 11), np.linspace(2, 10, 9)])
    centers = np.stack([x, 0 * x, 0 * x], -1)
    context, _ = choose_views(centers, ViewPlan(3, 2, "distance"), None)
    np.testing.assert_allclose(x[context], [0, 5, 10])
    by_number, _ = choose_views(centers, ViewPlan(3, 2, "gap"), None)
    assert x[by_number[1]] < 2


def test_distance_of_cameras_that_rest_falls_back_to_numbers():
    context, _ = choose_views(np.zeros((9, 3)), ViewPlan(3, 2, "distance"), None)
    np.testing.assert_array_equal(context, [0, 4, 8])


def test_beyond_reaches_outside_the_window():
    rng = np.random.default_rng(0)
    plan = ViewPlan(3, 2, gap_min=5, gap_max=5, beyond=0.3)
    reach = []
    for _ in range(200):
        context, target = choose_views(line(60), plan, rng)
        reach += [context[0] - target[0], target[-1] - context[-1]]
    assert max(reach) == 3  # 0.3 of 10 frames


def test_targets_of_a_short_window_come_from_beside_it():
    plan = ViewPlan(3, 4, gap_max=1)
    context, target = choose_views(line(20), plan, np.random.default_rng(0))
    np.testing.assert_array_equal(np.diff(context), [1, 1])
    assert target[0] >= context[0] - 4
    assert target[-1] <= context[-1] + 4


def test_single_view_targets_stay_within_gap_max():
    rng = np.random.default_rng(0)
    for _ in range(50):
        context, target = choose_views(line(40), ViewPlan(1, 2, gap_max=3), rng)
        assert np.abs(target - context[0]).max() <= 3


def test_too_few_frames():
    assert ViewPlan(4, 2, gap_min=5).frames_needed == 16
    with pytest.raises(ValueError, match=r"15 frames are too few.*needs 16; ask for fewer views"):
        choose_views(line(15), ViewPlan(4, 2, gap_min=5), None)
