"""`packed`: scenes in a few large files, made by `python -m lgs_jax prepare-data`.

A folder holds `manifest.json`, and pairs of `shard_<n>.array_record` and `shard_<n>.json`. A shard
is an ArrayRecord file: for each scene one record with the cameras of its F frames, then the F image
files as they are. Its .json lists the scenes and what was left out, and is written last, so that a
shard without one does not count. Nothing but the lists is read when the folder is opened.

Cameras are as in the source: OpenCV axes, camera to world, the world's own frame and unit, float64;
scenes are normalised when a batch is made (`normalize`).

Folders may lie in an object store (gs://, s3://); a shard is then copied to the local cache when it
is first used.
"""

import dataclasses
import functools
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from lgs_jax import files as file_lib
from lgs_jax import settings
from lgs_jax.data import images, normalize, places
from lgs_jax.data.example import Example
from lgs_jax.data.report import DataError, Finding

FORMAT = 1
MANIFEST = "manifest.json"
NORMALISATION = "none: the source's world and unit"

_AGAIN = "run python -m lgs_jax prepare-data again: it keeps what is whole"
_WRITER = "group_size:1,uncompressed"  # random access; images are compressed by themselves
_READER = "readahead_buffer_size:0,max_parallelism:0"
_READER_BUFFER = 32768
_OPEN_SHARDS = 256


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder was made of and how; the same for all of its shards.

    Attributes:
      source: format and place of the data, for the reader alone.
      made_of: what of the source matters beside its keys, such as the frames that are left out.
      keys: SHA-256 of the scenes' keys.
      num_keys: scenes that the source lists.
      options: of the preparation, see `prepare.Options`.
      class_names: by class label.
      scenes_per_shard: of the keys, whether their scenes were left out or not.
      normalisation: of the cameras.
      indices: SHA-256 of every shard's list, by its file name; empty until all is done.
      totals: counts over all shards; empty until all is done.
      format: version of this layout.
    """

    source: str
    made_of: str
    keys: str
    num_keys: int
    options: dict[str, Any]
    class_names: tuple[str, ...]
    scenes_per_shard: int
    normalisation: str = NORMALISATION
    indices: dict[str, str] = dataclasses.field(default_factory=dict)
    totals: dict[str, int] = dataclasses.field(default_factory=dict)
    format: int = FORMAT

    @property
    def num_shards(self) -> int:
        """Of the finished folder."""
        return -(-self.num_keys // self.scenes_per_shard)

    def differences(self, wanted: "Manifest") -> list[str]:
        """One line for everything in which the preparations differ; the source may have moved."""
        ours, theirs = (
            dataclasses.asdict(m) | {f"options.{k}": v for k, v in m.options.items()}
            for m in (self, wanted)
        )
        for name in ("source", "options", "indices", "totals"):
            del ours[name], theirs[name]
        return [
            f"{name}: {ours.get(name)!r} there, {theirs.get(name)!r} here"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One scene in a shard.

    Attributes:
      key: of the scene.
      record: number of the record of its cameras; those of its images follow.
      frames: F.
      moves, most_move: whether its cameras have a unit by the scales "cameras" and
        "cameras_robust" of `normalize`; `most_move` is None where it was not noted yet.
      class_label, class_name: see `Example`.
    """

    key: str
    record: int
    frames: int
    moves: bool
    class_label: int = -1
    class_name: str = ""
    most_move: bool | None = None

    def has_unit(self, scale: str | float) -> bool | None:
        """As `normalize.has_unit`; None if it was not noted."""
        return {"cameras": self.moves, "cameras_robust": self.most_move}.get(scale, True)


@dataclasses.dataclass(frozen=True)
class Shard:
    """The list of a finished shard.

    Attributes:
      size, sha256: of the ArrayRecord file.
      scenes: in it.
      scenes_found, frames_found, frames_listed: see `report.Report`.
      findings: what was left out.
    """

    size: int
    sha256: str
    scenes: tuple[Entry, ...]
    scenes_found: int
    frames_found: int
    frames_listed: int
    findings: tuple[Finding, ...] = ()


def shard_name(number: int) -> str:
    """Name of a shard without suffix."""
    return f"shard_{number:05d}"


def read_manifest(folder: epath.Path) -> Manifest | None:
    """The manifest of a folder; None if there is none.

    Raises:
      DataError: if it cannot be understood.
    """
    path = folder / MANIFEST
    try:
        return settings.read(Manifest, path, FORMAT)
    except ValueError as error:
        raise DataError(
            f"{path} is no manifest of packed data ({error}); prepare them again into another "
            "folder"
        ) from error


def write_manifest(folder: epath.Path, manifest: Manifest) -> None:
    """Writes the manifest of a folder, in the place of the one that is there."""
    file_lib.write_json(folder / MANIFEST, dataclasses.asdict(manifest))


def remove(folder: epath.Path, numbers: Iterable[int]) -> None:
    """Removes the shards of these numbers, and last the manifest that says what they are of."""
    for number in numbers:
        for suffix in (".json", ".array_record"):
            (folder / f"{shard_name(number)}{suffix}").unlink()
    (folder / MANIFEST).unlink()


def read_shard(folder: epath.Path, number: int) -> Shard | None:
    """The list of a shard; None if it is not finished.

    Raises:
      DataError: if it cannot be understood.
    """
    path = folder / f"{shard_name(number)}.json"
    try:
        return settings.read(Shard, path)
    except ValueError as error:
        raise DataError(f"{path} is no list of a shard ({error}); {_AGAIN}") from error


def file_sha256(path: epath.Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def is_intact(folder: epath.Path, number: int, shard: Shard) -> bool:
    """Whether a shard's file is there with the bytes that were written.

    In an object store, where a file is there whole or not at all, its length decides: nothing is
    downloaded.
    """
    path = folder / f"{shard_name(number)}.array_record"
    if not path.exists() or path.stat().length != shard.size:
        return False
    return places.is_remote(str(path)) or file_sha256(path) == shard.sha256


class ShardWriter:
    """Writes the records of a shard to a local file; to be closed."""

    def __init__(self, path: str | os.PathLike):
        from array_record.python import array_record_module

        self._writer = array_record_module.ArrayRecordWriter(os.fspath(path), _WRITER)
        self._count = 0

    def add(self, example: Example, files: Sequence[bytes]) -> Entry:
        """Adds one scene, whose frames are the images of `files`."""
        entry = Entry(
            key=example.key,
            record=self._count,
            frames=len(example),
            moves=normalize.has_unit(example.centers, "cameras"),
            most_move=normalize.has_unit(example.centers, "cameras_robust"),
            class_label=example.class_label,
            class_name=example.class_name,
        )
        for record in (_cameras_record(example), *files):
            self._writer.write(record)
        self._count += 1 + len(files)
        return entry

    def close(self) -> None:
        """Finishes the file."""
        self._writer.close()


_FRAME = [
    ("world_from_cam", "<f8", (4, 4)),
    ("intrinsics", "<f8", (4,)),
    ("size", "<i4", (2,)),
    ("timestamp", "<f8"),
]


def _cameras_record(example: Example) -> bytes:
    longest = max(len(name) for name in example.frame_names)
    rows = np.zeros(len(example), np.dtype([*_FRAME, ("name", f"<U{max(1, longest)}")]))
    rows["world_from_cam"] = example.world_from_cam
    rows["intrinsics"] = example.intrinsics
    rows["size"] = example.sizes
    rows["timestamp"] = example.timestamps
    rows["name"] = example.frame_names
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    return buffer.getvalue()


def _cameras(record: bytes, frames: int) -> np.ndarray:
    """The rows [F] of a record of cameras.

    Raises:
      ValueError: if it is something else.
    """
    rows = np.load(io.BytesIO(record), allow_pickle=False)
    names = [name for name, *_ in _FRAME] + ["name"]
    if rows.dtype.names != tuple(names) or rows.shape != (frames,):
        raise ValueError(f"fields {rows.dtype.names} of shape {rows.shape}")
    return rows


@dataclasses.dataclass(frozen=True)
class Record:
    """An image file in a shard; see `images.Embedded`."""

    path: str
    number: int

    def __str__(self) -> str:
        return f"{self.path}, record {self.number},"

    def exists(self) -> bool:
        """Whether the shard is there."""
        return epath.Path(self.path).exists()

    def read(self) -> bytes:
        """The bytes.

        Raises:
          DataError: if the shard is damaged.
        """
        try:
            return _reader(self.path).read([self.number])[0]
        except (RuntimeError, OSError) as error:
            raise DataError(f"{self} cannot be read ({error}); {_AGAIN}") from error


@functools.lru_cache(_OPEN_SHARDS)
def _reader(path: str) -> Any:
    from array_record.python import array_record_module

    return array_record_module.ArrayRecordReader(
        os.fspath(_local(epath.Path(path))), _READER, file_reader_buffer_size=_READER_BUFFER
    )


def _local(path: epath.Path) -> Path:
    """The file itself, or its copy in the cache if it is not on this machine."""
    if not places.is_remote(str(path)):
        return Path(path)
    cache = places.cache()
    stat = path.stat()
    name = hashlib.sha256(f"{path} {stat.length} {stat.mtime}".encode()).hexdigest()
    copy = cache / f"{name}.array_record"
    if not copy.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            part = epath.Path(scratch) / "part"
            path.copy(part)
            Path(part).replace(copy)
    return copy


def read_example(path: str, entry: Entry) -> Example:
    """One scene of the shard at `path`; images are read when they are used.

    Raises:
      DataError: if the shard is damaged.
    """
    try:
        rows = _cameras(Record(path, entry.record).read(), entry.frames)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(
            f"{path}: the cameras of {entry.key} are damaged ({error}); {_AGAIN}"
        ) from error
    files = [
        images.FrameFile(Record(path, entry.record + 1 + i), tuple(size))
        for i, size in enumerate(rows["size"].tolist())
    ]
    return Example(
        key=entry.key,
        images=images.Frames(files, images.ReadOptions(exif="ignore")),
        world_from_cam=rows["world_from_cam"],
        intrinsics=rows["intrinsics"],
        sizes=rows["size"].astype(np.int64),
        timestamps=rows["timestamp"],
        frame_names=tuple(rows["name"].tolist()),
        class_label=entry.class_label,
        class_name=entry.class_name,
    )
