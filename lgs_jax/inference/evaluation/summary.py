"""Figures of many scenes: means with confidence intervals, best of K samples, distances of sets.

A record of a scene holds, for each of K samples and each measure, one value per view, and the same
of the nearest given photograph in place of every view.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lgs_jax.inference.evaluation.protocols import GROUPS

# Larger is better of all but these.
LOWER_IS_BETTER = ("lpips",)
# Groups without given views.
NOT_GIVEN = ("context", "target")
CONFIDENCE = 0.95
RESAMPLINGS = 1000


def view_groups(given: np.ndarray, num_targets: int) -> dict[str, np.ndarray]:
    """Positions of the views of each group that has any, of V views of the latents and T others."""
    places = np.arange(given.size + num_targets)
    found = {
        "all": places,
        "given": np.flatnonzero(given),
        "context": np.flatnonzero(~given),
        "target": places[given.size :],
    }
    return {name: found[name] for name in GROUPS if found[name].size}


def scores(
    records: Sequence[Mapping[str, Any]], groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, dict[str, Any]]]:
    """For each measure and group of views: `first` sample and, of several, `best` of each scene.

    Where no view of the group is given, also `photograph`, of the nearest given one in its place.

    The best sample is taken for every measure on its own, by its mean over all views of the scene,
    as the paper very probably does. Every figure is {mean, low, high}, a mean over scenes.
    """
    if not records[0]["samples"]:
        return {}
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    for measure in records[0]["samples"][0]:
        # [scenes, K, V + T]
        values = np.array([[s[measure] for s in record["samples"]] for record in records])
        overall = values.mean(axis=2)
        worse = -1 if measure in LOWER_IS_BETTER else 1
        best = np.argmax(worse * overall, axis=1)
        for group, places in groups.items():
            means = values[:, :, places].mean(axis=2)
            figures.setdefault(measure, {})[group] = {"first": interval(means[:, 0])}
            if values.shape[1] > 1:
                chosen = means[np.arange(len(records)), best]
                figures[measure][group]["best"] = interval(chosen)
            if group in NOT_GIVEN:
                shown = np.array([record["photograph"][measure] for record in records])
                figures[measure][group]["photograph"] = interval(shown[:, places].mean(axis=1))
    return figures


def scene_means(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over scenes of the measures of scenes as a whole."""
    return {
        name: interval(np.array([record["scene"][name] for record in records], np.float64))
        for name in records[0]["scene"]
    }


def interval(values: np.ndarray, *, seed: int = 0) -> dict[str, float]:
    """Mean of values [N] of scenes, and the ends of its 95 % interval by bootstrap over scenes.

    Efron and Tibshirani, "An introduction to the bootstrap", 1993: percentiles of the means of
    resampled sets. Values that are NaN (nothing to measure) are left out; `count` says how many
    were not.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return {"mean": float("nan"), "low": float("nan"), "high": float("nan"), "count": 0}
    generator = np.random.default_rng(seed)
    means = [
        values[generator.integers(values.size, size=values.size)].mean() for _ in range(RESAMPLINGS)
    ]
    low, high = ends(means)
    return {
        "mean": float(values.mean()),
        "low": low,
        "high": high,
        "count": int(values.size),
    }


def ends(resampled: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The ends of the 95 % interval that values over resampled sets give."""
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
