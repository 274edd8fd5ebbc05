"""Statistics of latents: exact in any batches, kept without loss, nonsense refused."""

import json

import numpy as np
import pytest

from lgs_jax import settings
from lgs_jax.models.latent_stats import LatentStats, Moments


def make_stream(count=1000, offset=0.0):
    rng = np.random.default_rng(0)
    mean = offset + rng.normal(size=(count, 3)) * [1.0, 0.1, 5.0]
    return mean, rng.normal(size=(count, 3)) - 2.0


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_equals_the_two_pass_formula_whatever_the_batches(offset):
    mean, log_var = make_stream(offset=offset)
    moments = Moments()
    for start, end in [(0, 1), (1, 250), (250, 252), (252, 1000)]:
        moments.add(mean[start:end].reshape(1, -1, 1, 3), log_var[start:end].reshape(1, -1, 1, 3))
    got_mean, got_std = moments.result()
    assert moments.count == 1000
    np.testing.assert_allclose(got_mean, mean.mean(0), rtol=1e-12, atol=1e-12)
    # Deviations from a mean of 1e6 carry its rounding, 1e-10.
    expected = np.sqrt(mean.var(0) + np.exp(log_var).mean(0))
    np.testing.assert_allclose(got_std, expected, rtol=1e-12 if not offset else 1e-8)


def test_is_the_spread_of_drawn_latents():
    mean, log_var = make_stream()
    rng = np.random.default_rng(1)
    draws = mean + np.exp(log_var / 2) * rng.normal(size=(500, 1000, 3))
    moments = Moments()
    moments.add(mean, log_var)
    # 500,000 draws, of which the 1000 means are shared: noise in the drawn part only, < 0.5 %.
    np.testing.assert_allclose(moments.result()[1], draws.std(axis=(0, 1)), rtol=5e-3)


def test_round_trip_through_json():
    moments = Moments()
    moments.add(*make_stream(7))
    stats = LatentStats(12, 7, *moments.result())
    again = LatentStats.from_json(json.loads(json.dumps(stats.to_json())), "a file")
    assert again == stats


def test_nonsense_is_named():
    with pytest.raises(ValueError, match="at least one batch"):
        Moments().result()
    good = LatentStats(1, 2, (0.0,), (1.0,)).to_json()
    for bad, message in [
        (good | {"std": [0.0]}, r"std=\(0.0,\) must be finite and positive"),
        (good | {"mean": [float("nan")]}, "must be finite"),
        (good | {"mean": [0.0, 0.0]}, "2 means and 1 standard"),
        ({"step": 1}, "a file lacks num_scenes, mean, std"),
    ]:
        with pytest.raises(settings.SettingsError, match=message):
            LatentStats.from_json(bad, "a file")
