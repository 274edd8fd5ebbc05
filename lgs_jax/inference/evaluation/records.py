"""What an evaluation has done so far, on disk, so that it can go on after an interruption.

<folder>/request.json         what is evaluated and how; another request is refused
<folder>/parts/000000.json    the records of a batch of scenes
<folder>/parts/000000.npz     features of its true and rendered images, with a network
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgs_jax import files

REQUEST = "request.json"


class Records:
    """The records of one evaluation.

    Args:
      folder: made if it is not there.
      request: JSON of what is evaluated; a folder serves one request.

    Raises:
      ValueError: if the folder holds something else.
    """

    def __init__(self, folder: pathlib.Path, request: Mapping[str, Any]):
        self.folder = folder
        self._parts = folder / "parts"
        path = folder / REQUEST
        request = json.loads(json.dumps(request))
        if path.exists():
            found = json.loads(path.read_text())
            differs = sorted(k for k in found | request if found.get(k) != request.get(k))
            if differs:
                first = differs[0]
                raise ValueError(
                    f"{folder} holds another evaluation: {first} is {found.get(first)!r} there and "
                    f"{request.get(first)!r} here ({len(differs)} such); choose another --output"
                )
        elif folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and no evaluation; choose another --output")
        else:
            write_json(path, request)

    def done(self, number: int) -> bool:
        """Whether a batch has been kept."""
        return self._path(number, ".json").exists()

    def keep(
        self,
        number: int,
        records: list[dict[str, Any]],
        features: tuple[np.ndarray, np.ndarray] | None,
    ) -> None:
        """Keeps the records of a batch, and features [B, V + T, D] of true and rendered images."""
        if features is not None:
            with files.replacing(self._path(number, ".npz")) as partial:
                np.savez(partial, true=features[0], rendered=features[1])
        write_json(self._path(number, ".json"), records)  # the last: it says that all is there

    def read(self, count: int) -> list[dict[str, Any]]:
        """The records of the first `count` batches, scene by scene."""
        parts = (json.loads(self._path(i, ".json").read_text()) for i in range(count))
        return [record for part in parts for record in part]

    def features(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Features of the true and rendered images of a batch."""
        with np.load(self._path(number, ".npz")) as arrays:
            return arrays["true"], arrays["rendered"]

    def _path(self, number: int, suffix: str) -> pathlib.Path:
        return self._parts / f"{number:06d}{suffix}"


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes JSON; NaN becomes null, as JSON has none."""
    files.write_json(path, _without_nan(value))


def scene_hash(entry: Mapping[str, Any], index: int, key: str) -> str:
    """SHA-256 of a scene's key and of the photographs that a batch shows of it, in their order."""
    digest = hashlib.sha256(key.encode())
    for group in ("context", "target"):
        digest.update(np.ascontiguousarray(entry[group]["images"][index]).tobytes())
    return digest.hexdigest()


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return None if np.isnan(value) else value
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
