"""Converts any source to `packed`: once, in parallel, and to be continued after a stop.

Shards are independent of each other. Each is written by one process, which holds one scene at a
time, to a temporary file that gets its name when it is whole; the same preparation started again
keeps what is there.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from lgs_jax import files
from lgs_jax.data import crops, images, packed, places, progress, scan, workers
from lgs_jax.data.example import Example, Source
from lgs_jax.data.report import POLICIES, DataError, Finding, Report
from lgs_jax.data.split import subset

CODECS = ("jpeg", "png")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is kept of a source.

    Attributes:
      short_side: images whose shorter side is longer are reduced to it (Lanczos); None: none are.
      codec: of images that cannot be kept as they are stored: "jpeg" or "png".
      quality: of "jpeg", 1 to 100; its colours are not subsampled.
      min_frames: scenes with fewer good frames are left out.
      num_scenes: prepare only so many scenes, picked by a hash of their keys; None: all.
      background, masks, exif: see `images.ReadOptions`; they are applied for good.
      on_bad: "skip" leaves bad frames and scenes out and reports them, "error" stops at the first.
    """

    short_side: int | None = None
    codec: str = "jpeg"
    quality: int = 95
    min_frames: int = 2
    num_scenes: int | None = None
    background: str = "black"
    masks: str = "ignore"
    exif: str = "auto"
    on_bad: str = "skip"

    def __post_init__(self) -> None:
        choices = {
            "codec": CODECS,
            "background": tuple(images.BACKGROUNDS),
            "masks": images.MASKS,
            "exif": images.EXIF,
            "on_bad": POLICIES,
        }
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={value!r} must be one of {allowed}")
        least = {"short_side": 8, "quality": 1, "min_frames": 1, "num_scenes": 1}
        for name, bound in least.items():
            if (value := getattr(self, name)) is not None and value < bound:
                raise ValueError(f"{name}={value} must be at least {bound}")
        if self.quality > 100:
            raise ValueError(f"quality={self.quality} must be at most 100")


class FromReader:
    """Scenes of a format of files, checked one by one; can be sent to another process."""

    def __init__(
        self,
        reader: scan.Reader,
        options: Options,
        drop_frames: Mapping[str, frozenset[str]] | None = None,
    ):
        self.name = reader.name
        listed = sorted((key, *sorted(names)) for key, names in (drop_frames or {}).items())
        digest = hashlib.sha256(repr(listed).encode()).hexdigest()[:16] if listed else "none"
        self.made_of = f"{type(reader).__name__}, drop_frames {digest}"
        self.keys = subset(reader.keys, options.num_scenes)
        self.class_names = tuple(reader.class_names)
        self._reader = reader
        self._options = scan.ScanOptions(
            min_frames=options.min_frames,
            drop_frames=drop_frames or {},
            read=images.ReadOptions(options.background, options.masks, options.exif),
        )

    def examine(self, key: str) -> scan.Examined:
        """One scene, or what is wrong with it."""
        return scan.examine(self._reader, key, self._options)


class FromSource:
    """Scenes that are already checked, such as procedural ones; can be sent to another process.

    Args:
      source: the scenes; what its report says of others goes into the shards' lists.
      made_of: all that they depend on beside their keys, in words.
      name: for the reader; None: `made_of`.
    """

    def __init__(self, source: Source, made_of: str, name: str | None = None):
        self.name = made_of if name is None else name
        self.made_of = made_of
        self.class_names = tuple(source.class_names)
        self._source = source
        self._index = {source[index].key: index for index in range(len(source))}
        self._left_out = {finding.scene: finding for finding in source.report.bad_scenes}
        self.keys = [*self._index, *self._left_out]

    def examine(self, key: str) -> scan.Examined:
        """One scene, or why the source left it out."""
        if key in self._left_out:
            return scan.Examined(0, 0, [self._left_out[key]], None)
        example = self._source[self._index[key]]
        if hasattr(example.images, "prefetch"):
            example.images.prefetch(range(len(example)))
        return scan.Examined(len(example), 0, [], example)


Supplier = FromReader | FromSource


def prepare(
    folder: str | os.PathLike,
    supplier: Supplier,
    options: Options,
    *,
    scenes_per_shard: int = 64,
    num_workers: int = 1,
    retry: bool = False,
    say: Callable[[str], None] = print,
) -> Report:
    """Writes everything that the folder lacks; whole shards of an earlier attempt are kept.

    Where no scene can be used, nothing stays.

    Args:
      folder: where to write; may be in an object store.
      supplier: of the scenes.
      options: what is kept of them.
      scenes_per_shard: scenes of the source to a file.
      num_workers: processes; 0: this one.
      retry: write those shards anew that left something out.
      say: told of the progress.

    Returns:
      what was kept and what was left out, of the whole folder.

    Raises:
      DataError: if the folder holds something else, another preparation writes to it, no scene is
        left, or at the first fault where `on_bad` is "error".
    """
    if scenes_per_shard < 1 or num_workers < 0:
        raise ValueError(f"{scenes_per_shard=} must be at least 1 and {num_workers=} at least 0")
    place = places.place(folder)
    _make_folder(place)
    with places.locked(place):
        manifest = _begin(place, _describe(supplier, options, scenes_per_shard))
        kept = _finished(place, manifest)
        if retry:
            kept = {number: shard for number, shard in kept.items() if not shard.findings}
        source = _sources(manifest, supplier.name, len(kept))
        if kept:
            say(_about(place, manifest, supplier.name, kept))
        done = dict(kept)
        missing = [number for number in range(manifest.num_shards) if number not in done]
        before = sum(shard.scenes_found for shard in done.values())
        counter = progress.Progress(manifest.num_keys, "scenes", say, done=before)
        write = functools.partial(
            _write_shard, os.fspath(place), supplier, options, scenes_per_shard
        )
        for number, shard in workers.run(write, missing, num_workers):
            done[number] = shard
            counter.add(shard.scenes_found)
        return _finish(place, manifest, source, done)


def _about(
    place: epath.Path, manifest: packed.Manifest, today: str, kept: dict[int, packed.Shard]
) -> str:
    """What is kept of an earlier preparation, and how to have it looked at again."""
    source = "" if manifest.source == today else f", from {manifest.source},"
    text = (
        f"{place}: {len(kept)} of {manifest.num_shards} shards were prepared before{source} and "
        "are kept; their scenes are not looked at again"
    )
    if any(shard.findings for shard in kept.values()):
        text += ". What they left out stays left out; once it is repaired, add --retry"
    return text


def _describe(supplier: Supplier, options: Options, scenes_per_shard: int) -> packed.Manifest:
    kept = dataclasses.asdict(options)
    del kept["on_bad"]  # changes nothing of what is written
    return packed.Manifest(
        source=supplier.name,
        made_of=supplier.made_of,
        keys=hashlib.sha256("\n".join(supplier.keys).encode()).hexdigest(),
        num_keys=len(supplier.keys),
        options=kept,
        class_names=supplier.class_names,
        scenes_per_shard=scenes_per_shard,
    )


def _make_folder(folder: epath.Path) -> None:
    """Makes sure that the folder is there and holds packed data or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if packed.MANIFEST not in names and (strangers := names - {places.LOCK}):
        raise DataError(
            f"{folder} is not empty (it holds {min(strangers)!r}) and has no manifest; choose "
            "another folder"
        )


def _begin(folder: epath.Path, wanted: packed.Manifest) -> packed.Manifest:
    """The folder's manifest, written if there is none yet."""
    found = packed.read_manifest(folder)
    if found is None:
        packed.write_manifest(folder, wanted)
        return wanted
    if different := found.differences(wanted):
        raise DataError(
            f"{folder} holds data prepared otherwise:\n  "
            + "\n  ".join(different)
            + "\nChoose another folder, or delete this one"
        )
    return found


def _finished(folder: epath.Path, manifest: packed.Manifest) -> dict[int, packed.Shard]:
    """Whole shards of an earlier attempt by their number."""
    shards = {number: packed.read_shard(folder, number) for number in range(manifest.num_shards)}
    return {n: s for n, s in shards.items() if s is not None and packed.is_intact(folder, n, s)}


def _sources(manifest: packed.Manifest, today: str, kept: int) -> str:
    """What the scenes of a folder are of, in words, if `kept` shards are not of today's source."""
    if not kept or manifest.source == today:
        return today
    rest = f", and {today} in other shards" if kept < manifest.num_shards else ""
    return manifest.source + rest


def _write_shard(
    folder: str, supplier: Supplier, options: Options, scenes_per_shard: int, number: int
) -> packed.Shard:
    """Writes one shard and then its list."""
    first = number * scenes_per_shard
    keys = supplier.keys[first : first + scenes_per_shard]
    place, name = epath.Path(folder), packed.shard_name(number)
    report = Report(supplier.name, scenes_found=len(keys))
    entries = []
    with contextlib.ExitStack() as stack:
        part = place / f"{name}.part"
        if places.is_remote(os.fspath(folder)):  # the writer wants a local file
            part = epath.Path(stack.enter_context(tempfile.TemporaryDirectory())) / part.name
        stack.callback(part.unlink, missing_ok=True)
        writer = packed.ShardWriter(part)
        for key in keys:
            kept = _scene(supplier.examine(key), key, options, report)
            if kept is not None:
                entries.append(writer.add(*kept))
        writer.close()
        shard = packed.Shard(
            size=part.stat().length,
            sha256=packed.file_sha256(part),
            scenes=tuple(entries),
            scenes_found=report.scenes_found,
            frames_found=report.frames_found,
            frames_listed=report.frames_listed,
            findings=tuple(report.findings),
        )
        target = place / f"{name}.array_record"
        if part.parent == place:
            part.replace(target)
        else:
            part.copy(target, overwrite=True)
    files.write_json(place / f"{name}.json", dataclasses.asdict(shard))
    return shard


def _scene(
    examined: scan.Examined, key: str, options: Options, report: Report
) -> tuple[Example, list[bytes]] | None:
    """A scene as it is written, with its image files; None if it is left out."""
    report.frames_found += examined.found
    report.frames_listed += examined.listed
    findings, kept = list(examined.findings), None
    if examined.example is not None:
        example = examined.example
        frames = []
        for index, frame in enumerate(example.frame_names):
            try:
                frames.append((index, *_frame(example, index, options)))
            except DataError as error:
                findings.append(Finding(key, str(error), frame))
        fault = scan.count_fault(examined.found, len(frames), options.min_frames)
        if fault:
            findings.append(Finding(key, fault))
        else:
            kept = _selected(example, frames)
    if findings and options.on_bad == "error":
        raise DataError(f"{findings[0]} (--on-bad=skip would leave it out)")
    report.findings += findings
    return kept


def _selected(
    example: Example, frames: list[tuple[int, bytes, np.ndarray, tuple[int, int]]]
) -> tuple[Example, list[bytes]]:
    kept, encoded, intrinsics, sizes = (list(column) for column in zip(*frames, strict=True))
    return dataclasses.replace(
        example,
        images=[None] * len(kept),
        world_from_cam=example.world_from_cam[kept],
        intrinsics=np.stack(intrinsics),
        sizes=np.array(sizes),
        timestamps=np.asarray(example.timestamps)[kept],
        frame_names=tuple(example.frame_names[i] for i in kept),
    ), encoded


def _frame(
    example: Example, index: int, options: Options
) -> tuple[bytes, np.ndarray, tuple[int, int]]:
    """The image file of a frame, its intrinsics and its size."""
    height, width = example.sizes[index].tolist()
    size = crops.reduced_size((height, width), options.short_side)
    frames = example.images
    if isinstance(frames, images.Frames) and size == (height, width):
        stored = images.read_original(frames.files[index], frames.options)
        if stored is not None:
            return stored, example.intrinsics[index], size
    pixels = np.asarray(frames[index])
    box = (0.0, 0.0, float(width), float(height))
    if size != (height, width):
        pixels = crops.crop_resize(pixels, box, *size)
    intrinsics = crops.crop_resize_intrinsics(example.intrinsics[index], box, *size)
    return _encode(pixels, options), intrinsics, size


def _encode(pixels: np.ndarray, options: Options) -> bytes:
    buffer = io.BytesIO()
    if options.codec == "png":
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=options.quality, subsampling=0)
    return buffer.getvalue()


def _finish(
    folder: epath.Path,
    manifest: packed.Manifest,
    source: str,
    shards: Mapping[int, packed.Shard],
) -> Report:
    """Adds up, and writes the manifest that makes the folder a finished one."""
    report = Report(source)
    for number in sorted(shards):
        shard = shards[number]
        report.scenes_found += shard.scenes_found
        report.frames_found += shard.frames_found
        report.frames_listed += shard.frames_listed
        report.scenes_kept += len(shard.scenes)
        report.frames_kept += sum(entry.frames for entry in shard.scenes)
        report.findings += shard.findings
    if not report.scenes_kept:
        packed.remove(folder, shards)
        raise DataError(
            f"no usable scene is left.\n{report.summary()}\nFix the data and run it again; nothing "
            f"was kept in {folder}"
        )
    totals: dict[str, Any] = dataclasses.asdict(report)
    del totals["source"], totals["findings"]
    totals |= {"bad_scenes": len(report.bad_scenes), "bad_frames": len(report.bad_frames)}
    lists = (folder / f"{packed.shard_name(number)}.json" for number in sorted(shards))
    finished = dataclasses.replace(
        manifest,
        source=source,
        indices={path.name: packed.file_sha256(path) for path in lists},
        totals=totals,
    )
    if finished != manifest:
        packed.write_manifest(folder, finished)
    return report
