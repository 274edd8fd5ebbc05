"""Tests of features kept in files."""

import dataclasses

import numpy as np
import pytest

from lgs_jax.metrics import feature_cache

ORIGIN = feature_cache.Origin("alex", "ab" * 32, "index-1", 96, 96)
FEATURES = np.random.default_rng(0).normal(size=(7, 300)).astype(np.float32)


class Maker:
    """Makes features and counts how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return FEATURES


def test_are_made_once_and_come_back_exactly(tmp_path):
    maker = Maker()
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        got = feature_cache.cached(folder, ORIGIN, maker)
        np.testing.assert_array_equal(got, FEATURES)
        assert got.dtype == np.float32
    assert maker.calls == 1
    assert [p.name for p in folder.iterdir()] == [ORIGIN.file_name()]


def test_a_file_is_as_large_as_its_features(tmp_path):
    """No D x D numbers, which would be 43 times as many here."""
    feature_cache.cached(tmp_path, ORIGIN, Maker())
    assert (tmp_path / ORIGIN.file_name()).stat().st_size < FEATURES.nbytes + 2000


@pytest.mark.parametrize(
    "change", [{"network": "vgg16"}, {"checksum": "0"}, {"data": "index-2"}, {"width": 64}]
)
def test_another_origin_has_another_file(tmp_path, change):
    other = dataclasses.replace(ORIGIN, **change)
    assert other.file_name() != ORIGIN.file_name()
    feature_cache.cached(tmp_path, ORIGIN, Maker())
    (tmp_path / ORIGIN.file_name()).rename(tmp_path / other.file_name())
    with pytest.raises(ValueError, match="holds the features of"):
        feature_cache.cached(tmp_path, other, Maker())


def test_a_damaged_file_is_named(tmp_path):
    feature_cache.cached(tmp_path, ORIGIN, Maker())
    path = tmp_path / ORIGIN.file_name()
    whole = path.read_bytes()
    for data in (whole[:-40], b"", b"nothing"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{path.name} is not a readable.*delete it"):
            feature_cache.cached(tmp_path, ORIGIN, Maker())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        feature_cache.cached(tmp_path, ORIGIN, Maker())
    assert not list(tmp_path.iterdir())
