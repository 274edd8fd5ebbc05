"""Keeps the features of images in .npz files, whose names say what they were made of.

The photographs of a data set are the same in every evaluation; so are their features.

Letters: N images, D features.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable

import numpy as np

from lgs_jax import files
from lgs_jax.vision.features import FeatureNetwork


@dataclasses.dataclass(frozen=True)
class Origin:
    """What features were made of; others may not take their place.

    Attributes:
      network: name of the feature network.
      checksum: of its weights.
      data: a hash or name of the images, such as that of their pixels.
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
        """The name of the file of such features, different for every other origin."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return f"{self.network}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"


def cached(
    folder: str | pathlib.Path, origin: Origin, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """The features [N, D] of an origin from their file in a folder; made and saved without one.

    Raises:
      ValueError: if the file is damaged or holds the features of another origin.
    """
    path = pathlib.Path(folder) / origin.file_name()
    if path.is_file():
        return load(path, origin)
    features = compute()
    save(path, features, origin)
    return features


def save(path: pathlib.Path, features: np.ndarray, origin: Origin) -> None:
    """Writes an .npz file, which a reader never sees half of; its folder is made."""
    about = json.dumps(dataclasses.asdict(origin))
    with files.replacing(path) as partial:
        np.savez(partial, origin=about, features=features)


def load(path: pathlib.Path, origin: Origin) -> np.ndarray:
    """The features [N, D] in a file that `save` wrote.

    Raises:
      ValueError: if the file is damaged or holds the features of another origin.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found, features = Origin(**json.loads(str(file["origin"]))), file["features"]
    except (KeyError, *files.BROKEN) as error:
        raise ValueError(
            f"{path} is not a readable file of features ({error}); delete it, and it is made again"
        ) from error
    if found != origin:
        raise ValueError(f"{path} holds the features of {found}, expected those of {origin}")
    if features.ndim != 2:
        raise ValueError(f"{path} holds {features.shape=}, expected [N, D]; delete it")
    return features
