"""Latents encoded beforehand: shards on disk, served as batch entries.

A folder holds `manifest.json` and shards of whole scenes. A shard is one NumPy file: an array of
records of one fixed size, K a scene (its draws, see `DataSettings.view_draws`), so that any record
is read from a memory map without a format of our own. Latents are float32 and as the encoder gives
them, not normalised: statistics may be computed again without encoding again.

Letters: V views, h, w latent map, c latent channels, K draws of a scene, R size of a
representation.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from lgs_jax import files, settings
from lgs_jax.data.report import DataError
from lgs_jax.data.settings import DataSettings

FORMAT = 1
MANIFEST = "manifest.json"
# Settings that change where or how fast data are read, and nothing of what is read. (`on_bad` and
# `verify` change which scenes are served, which the counts of scenes and frames tell.)
_FREE = ("root", "num_workers", "num_threads", "cache_mb", "on_bad", "verify")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished file.

    Attributes:
      file: its name in the folder.
      size: in bytes.
      sha256: of its bytes, in hexadecimal.
    """

    file: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What the latents are of; two runs may share them only if all of it agrees.

    Attributes:
      autoencoder: workdir, for the reader alone.
      step: of its checkpoint.
      parameters: SHA-256 of its parameters.
      data: `data_identity` of the settings, the number of draws among them.
      num_scenes, num_frames: that the source served.
      max_known: most known views; see `DiffusionSettings.max_known`.
      latent_shape: V, h, w, c.
      representation: what has looked at the pictures (`vision.representation.Looker.name`), or "".
      representation_size: R; 0: there are none.
      scenes_per_shard: of all shards but the last.
      shards: those that are finished, in order.
      format: version of this layout.
    """

    autoencoder: str
    step: int
    parameters: str
    data: dict[str, Any]
    num_scenes: int
    num_frames: int
    max_known: int
    latent_shape: tuple[int, ...]
    scenes_per_shard: int
    representation: str = ""
    representation_size: int = 0
    shards: tuple[Shard, ...] = ()
    format: int = FORMAT

    @property
    def num_shards(self) -> int:
        """Of the finished folder."""
        return -(-self.num_scenes // self.scenes_per_shard)

    @property
    def draws(self) -> int:
        """K."""
        return self.data["view_draws"]

    def scenes_of(self, shard: int) -> range:
        """The scenes of a shard."""
        first = shard * self.scenes_per_shard
        return range(first, min(first + self.scenes_per_shard, self.num_scenes))

    def write(self, folder: pathlib.Path) -> None:
        """Replaces the folder's manifest in one stroke."""
        files.write_json(folder / MANIFEST, dataclasses.asdict(self))

    def differences(self, wanted: "Manifest") -> list[str]:
        """One line for everything in which the latents differ from what is wanted."""
        ours, theirs = self._identity(), wanted._identity()
        return [
            f"{name}: {ours.get(name)!r} there, {theirs.get(name)!r} here"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]

    def _identity(self) -> dict[str, Any]:
        names = ("format", "step", "parameters", "num_scenes", "num_frames", "max_known")
        names += ("latent_shape", "representation", "representation_size")
        named = {name: getattr(self, name) for name in names}
        # Settings that were added since these latents were encoded had their defaults then.
        data = data_identity(DataSettings(num_scenes=1)) | self.data
        return named | {f"data.{name}": value for name, value in data.items()}


def data_identity(data: DataSettings) -> dict[str, Any]:
    """The settings that say which views a scene's draws have, as JSON types."""

    def without_free(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in _FREE}

    values = without_free(dataclasses.asdict(data))
    values["mix"] = [without_free(part) for part in data.mix]
    return json.loads(json.dumps(values))


def read_manifest(folder: pathlib.Path) -> Manifest | None:
    """The manifest of a folder; None if there is none.

    Raises:
      DataError: if it cannot be understood.
    """
    path = folder / MANIFEST
    try:
        return settings.read(Manifest, path, FORMAT)
    except ValueError as error:
        raise DataError(
            f"{path} is no manifest of encoded latents ({error}); encode them again into another "
            "folder"
        ) from error


def record_type(shape: tuple[int, ...], representation_size: int = 0) -> np.dtype:
    """One record of latents of shape V, h, w, c."""
    views = shape[0]
    seen = [("representation", "<f4", (representation_size,))] if representation_size else []
    return np.dtype(
        [
            ("mean", "<f4", tuple(shape)),
            ("log_var", "<f4", tuple(shape)),
            ("known", "<f4", tuple(shape)),
            ("known_mask", "?", (views,)),
            ("world_from_cam", "<f4", (views, 4, 4)),
            ("intrinsics", "<f4", (views, 4)),
            ("class_label", "<i4"),
            ("scene_index", "<i4"),
            ("draw", "<i4"),
            *seen,
        ]
    )


def entry_of(record: np.ndarray) -> dict[str, Any]:
    """A record, copied, as an entry of a batch.

    Returns:
      latents {mean, log_var, known f32 [V, h, w, c], known_mask bool [V]}, context
      {world_from_cam f32 [V, 4, 4], intrinsics f32 [V, 4]}, class_label i32, scene_index i32,
      draw i32, weight f32; and representation f32 [R] where there are such.
    """

    def copy(*names: str) -> dict[str, np.ndarray]:
        return {name: np.array(record[name]) for name in names if name in record.dtype.names}

    return {
        "latents": copy("mean", "log_var", "known", "known_mask"),
        "context": copy("world_from_cam", "intrinsics"),
        **copy("class_label", "scene_index", "draw", "representation"),
        "weight": np.float32(1.0),
    }


def write_shard(folder: pathlib.Path, name: str, records: np.ndarray) -> Shard:
    """Writes records under a name; a reader never sees a part of them."""
    with files.replacing(folder / name) as partial:
        with partial.open("wb") as file:
            np.save(file, records, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        return Shard(file=name, size=partial.stat().st_size, sha256=_sha256(partial))


def is_intact(folder: pathlib.Path, shard: Shard) -> bool:
    """Whether a shard's file is there with the bytes that were written."""
    path = folder / shard.file
    return path.exists() and path.stat().st_size == shard.size and _sha256(path) == shard.sha256


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class EncodedLatents:
    """Random access to the records of a finished folder; survives pickling.

    Args:
      folder: what `python -m lgs_jax encode-latents` has written.

    Raises:
      DataError: if it holds no latents, is not finished, or a file is missing or of another size.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder).expanduser()
        again = "run python -m lgs_jax encode-latents again: it keeps what is whole"
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise DataError(
                f"{self.folder} holds no encoded latents (no {MANIFEST}); make them with "
                "python -m lgs_jax encode-latents"
            )
        if len(manifest.shards) < manifest.num_shards:
            raise DataError(
                f"{self.folder} holds {len(manifest.shards)} of {manifest.num_shards} shards; "
                f"{again}"
            )
        for shard in manifest.shards:
            path = self.folder / shard.file
            size = path.stat().st_size if path.exists() else None
            if size != shard.size:
                found = "missing" if size is None else f"{size} bytes long"
                raise DataError(f"{path} is {found}, expected {shard.size} bytes; {again}")
        self.manifest = manifest
        self._open()

    def _open(self) -> None:
        self._maps: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "manifest": self.manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def check(self, wanted: Manifest) -> None:
        """Refuses to serve anything but what is wanted.

        Raises:
          SettingsError: that names everything that differs, with both values.
        """
        if different := self.manifest.differences(wanted):
            raise settings.SettingsError(
                f"config.latents={str(self.folder)!r} holds other latents than this run would "
                "encode:\n  "
                + "\n  ".join(different)
                + f"\nChange the run, or encode again (these are of {self.manifest.autoencoder})"
            )

    def entry(self, index: int, draw: int) -> dict[str, Any]:
        """One entry of a batch, as `entry_of` says: draw `draw` of scene `index`.

        Raises:
          DataError: if the record is another one.
        """
        shard, scene = divmod(index, self.manifest.scenes_per_shard)
        record = self._map(shard)[scene * self.manifest.draws + draw]
        if (record["scene_index"], record["draw"]) != (index, draw):
            raise DataError(
                f"{self.folder / self.manifest.shards[shard].file} is damaged: it holds scene "
                f"{record['scene_index']} where scene {index} belongs; encode the latents again"
            )

        return entry_of(record)

    def _map(self, shard: int) -> np.ndarray:
        with self._lock:
            if shard not in self._maps:
                path = self.folder / self.manifest.shards[shard].file
                self._maps[shard] = np.load(path, mmap_mode="r", allow_pickle=False)
            return self._maps[shard]
