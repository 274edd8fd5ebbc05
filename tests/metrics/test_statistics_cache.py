"""Tests of statistics kept in files."""

import dataclasses

import numpy as np
import pytest

from lgs_jax.metrics import statistics_cache
from lgs_jax.metrics.feature_statistics import FeatureStatistics

ORIGIN = statistics_cache.Origin("alex", "ab" * 32, "index-1", 96, 96)
FEATURES = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)


class Maker:
    """Makes statistics and counts how often."""

    def __init__(self, keep=False):
        self.keep, self.calls = keep, 0

    def __call__(self):
        self.calls += 1
        return FeatureStatistics.of(FEATURES, keep=self.keep)


def test_are_made_once_and_come_back_exactly(tmp_path):
    maker = Maker(keep=True)
    folder = tmp_path / "new" / "folder"
    first = statistics_cache.cached(folder, ORIGIN, maker, keep=True)
    again = statistics_cache.cached(folder, ORIGIN, maker, keep=True)
    assert maker.calls == 1
    assert again.count == 7
    for name in ("mean", "scatter", "features"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert [p.name for p in folder.iterdir()] == [ORIGIN.file_name()]


def test_are_made_again_where_the_features_are_wanted_but_were_not_kept(tmp_path):
    statistics_cache.cached(tmp_path, ORIGIN, Maker())
    maker = Maker(keep=True)
    got = statistics_cache.cached(tmp_path, ORIGIN, maker, keep=True)
    assert maker.calls == 1
    np.testing.assert_array_equal(got.features, FEATURES)


@pytest.mark.parametrize(
    "change", [{"network": "vgg16"}, {"checksum": "0"}, {"data": "index-2"}, {"width": 64}]
)
def test_another_origin_has_another_file(tmp_path, change):
    other = dataclasses.replace(ORIGIN, **change)
    assert other.file_name() != ORIGIN.file_name()
    statistics_cache.cached(tmp_path, ORIGIN, Maker())
    (tmp_path / ORIGIN.file_name()).rename(tmp_path / other.file_name())
    with pytest.raises(ValueError, match="holds the statistics of"):
        statistics_cache.cached(tmp_path, other, Maker())


def test_a_damaged_file_is_named(tmp_path):
    statistics_cache.cached(tmp_path, ORIGIN, Maker())
    path = tmp_path / ORIGIN.file_name()
    whole = path.read_bytes()
    for data in (whole[:-40], b"", b"nothing"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{path.name} is not a readable.*delete it"):
            statistics_cache.cached(tmp_path, ORIGIN, Maker())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        statistics_cache.cached(tmp_path, ORIGIN, Maker())
    assert not list(tmp_path.iterdir())
