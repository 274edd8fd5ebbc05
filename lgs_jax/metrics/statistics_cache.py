"""Keeps feature statistics in .npz files, whose names say what they were made of.

The photographs of a data set are the same in every evaluation; only their statistics are needed.

Letters: N images, D features.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable

import numpy as np

from lgs_jax import files
from lgs_jax.metrics.feature_statistics import FeatureStatistics
from lgs_jax.vision.features import FeatureNetwork


@dataclasses.dataclass(frozen=True)
class Origin:
    """What statistics were made of; other statistics may not take their place.

    Attributes:
      network: name of the feature network.
      checksum: of its weights.
      data: a hash or name of the images, such as that of the index of scenes and views.
      height: of the images in pixels.
      width: of the images in pixels.
    """

    network: str
    checksum: str
    data: str
    height: int
    width: int

    @classmethod
    def of(cls, network: FeatureNetwork, data: str, height: int, width: int) -> "Origin":
        """The origin of features that `network` has of the images `data`."""
        return cls(network.name, network.checksum, data, height, width)

    def file_name(self) -> str:
        """The name of the file of such statistics, different for every other origin."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return f"{self.network}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"


def cached(
    folder: str | pathlib.Path,
    origin: Origin,
    compute: Callable[[], FeatureStatistics],
    *,
    keep: bool = False,
) -> FeatureStatistics:
    """The statistics of an origin from their file in a folder; made and saved if it is not there.

    With `keep`, a file without the features is made again with them.

    Raises:
      ValueError: if the file is damaged or holds the statistics of another origin.
    """
    path = pathlib.Path(folder) / origin.file_name()
    if path.is_file():
        statistics = load(path, origin)
        if statistics.batches is not None or not keep:
            return statistics
    statistics = compute()
    save(path, statistics, origin)
    return statistics


def save(path: pathlib.Path, statistics: FeatureStatistics, origin: Origin) -> None:
    """Writes an .npz file, which a reader never sees half of; its folder is made."""
    arrays = {"mean": statistics.mean, "scatter": statistics.scatter}
    if statistics.batches is not None:
        arrays["features"] = statistics.features
    about = json.dumps(dataclasses.asdict(origin))
    with files.replacing(path) as partial:
        np.savez(partial, count=statistics.count, origin=about, **arrays)


def load(path: pathlib.Path, origin: Origin) -> FeatureStatistics:
    """The statistics in a file that `save` wrote.

    Raises:
      ValueError: if the file is damaged or holds the statistics of another origin.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = dict(file)
        found = Origin(**json.loads(str(arrays["origin"])))
        count, mean, scatter = int(arrays["count"]), arrays["mean"], arrays["scatter"]
        batches = (arrays["features"],) if "features" in arrays else None
    except (KeyError, *files.BROKEN) as error:
        raise ValueError(
            f"{path} is not a readable file of feature statistics ({error}); delete it, and it is "
            "made again"
        ) from error
    if found != origin:
        raise ValueError(f"{path} holds the statistics of {found}, expected those of {origin}")
    size = mean.size
    if mean.shape != (size,) or scatter.shape != (size, size):
        raise ValueError(f"{path} holds {mean.shape=} and {scatter.shape=}; delete it")
    if batches is not None and batches[0].shape != (count, size):
        raise ValueError(
            f"{path} holds features {batches[0].shape}, expected {(count, size)}; delete it"
        )
    return FeatureStatistics(count, mean, scatter, batches)
