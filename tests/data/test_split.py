"""Hold-out by hash and by name."""

import pytest

from lgs_jax.data.report import DataError
from lgs_jax.data.split import hash_fraction, split_keys, subset

KEYS = [f"train/{i:04d}" for i in range(2000)] + ["test/0001", "test/0002"]


def test_fraction_splits_without_overlap_and_keeps_order():
    train, held_out = (split_keys(KEYS, 0.1, split) for split in ("train", "eval"))
    assert sorted(train + held_out) == sorted(KEYS)
    assert not set(train) & set(held_out)
    assert train == [key for key in KEYS if key in set(train)]
    assert 150 < len(held_out) < 250  # binomial, sigma 13


def test_a_scene_keeps_its_side_when_others_come():
    few = split_keys(KEYS[::7], 0.1, "eval")
    assert set(few) <= set(split_keys(KEYS, 0.1, "eval"))


def test_hash_is_stable_across_runs():
    assert hash_fraction("scene") == pytest.approx(0.3097071, abs=1e-7)


def test_named_scenes_and_patterns():
    assert split_keys(KEYS, ("test/*", "0003"), "eval") == ["train/0003", *KEYS[-2:]]
    assert len(split_keys(KEYS, ("test/*", "0003"), "train")) == 1999


def test_unknown_scene_gets_a_suggestion():
    with pytest.raises(DataError, match=r"'test/001', which matches none.*did you mean 'test/000"):
        split_keys(KEYS, ("test/001",), "eval")


@pytest.mark.parametrize(("holdout", "split"), [(0.0, "eval"), (("*",), "train")])
def test_nothing_left(holdout, split):
    with pytest.raises(DataError, match=rf"leaves no scene of 2002 for {split}"):
        split_keys(KEYS, holdout, split)


def test_unknown_split():
    with pytest.raises(ValueError, match="split='test' must be one of"):
        split_keys(KEYS, 0.1, "test")


def test_subset_is_mixed_nested_and_independent_of_the_split():
    assert subset(KEYS, None) == KEYS
    small, large = subset(KEYS, 100), subset(KEYS, 300)
    assert set(small) < set(large)
    assert large == [key for key in KEYS if key in set(large)]
    assert 10 < len(split_keys(large, 0.1, "eval")) < 55  # binomial: 30, sigma 5
