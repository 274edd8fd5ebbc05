"""Distances between the set of all photographs and that of all renderings.

Letters: S scenes, V views of the latents, T held-out views, D features.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lgs_jax.inference.evaluation import records, summary
from lgs_jax.metrics import frechet, kernel_distance
from lgs_jax.metrics.feature_statistics import FeatureStatistics
from lgs_jax.vision.features import FeatureNetwork


def measure(
    kept: records.Records,
    num_parts: int,
    network: FeatureNetwork | None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fréchet and kernel distance of the features of all true and all rendered images.

    The kernel distance also over pairs of different scenes alone, with an interval by bootstrap
    over scenes. The Fréchet distance has none: its bias grows as images become fewer, and a
    resampled set has fewer different ones, so its values lie above that of the whole set.
    """
    if network is None:
        return {}
    parts = [kept.features(number) for number in range(num_parts)]
    true, rendered = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    images = true.shape[0] * true.shape[1]
    size = min(kernel_distance.SUBSET_SIZE, images)
    mean, deviation = kernel_distance.subset_distance(
        true.reshape(images, -1), rendered.reshape(images, -1), subset_size=size
    )
    kernel = kernel_distance.metric_name(network)
    found = {
        frechet.metric_name(network): frechet.distance(*(_statistics(parts, i) for i in (0, 1))),
        kernel: mean,
        f"{kernel}_deviation": deviation,
        "images": images,
        "subset_size": size,
    }
    if len(true) > 1:
        value, draws = kernel_distance.scene_bootstrap(true, rendered, say=say)
        low, high = summary.ends(draws)
        found[f"{kernel}_by_scenes"] = {"mean": value, "low": low, "high": high}
    return found


def _statistics(parts: Sequence[tuple[np.ndarray, np.ndarray]], side: int) -> FeatureStatistics:
    """Of the features of one side, batch by batch: in float64, all at once would be too many."""
    each = (FeatureStatistics.of(part[side]) for part in parts)
    return functools.reduce(FeatureStatistics.merge, each)


def at_view(kept: records.Records, num_parts: int, view: int) -> list[np.ndarray]:
    """Features [S, D] of the photographs and of the samples at one view."""
    parts = [kept.features(number) for number in range(num_parts)]
    return [np.concatenate([part[side][:, view] for part in parts]) for side in (0, 1)]
