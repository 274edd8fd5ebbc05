"""The source `packed`: scenes of a folder that `prepare-data` has written; see `data.packed`.

Only the shards' lists are read and checked when it is opened, whatever the number of frames:
scenes were checked when they were packed.
"""

import os
from collections.abc import Sequence
from concurrent import futures

import numpy as np
from etils import epath

from lgs_jax.data import images, normalize, packed, places, scan
from lgs_jax.data.example import Example
from lgs_jax.data.report import DataError, Finding, Report

_THREADS = 8


class Folder:
    """A finished folder and the lists of its shards.

    `keys` are those of all scenes that were prepared: those in `entries`, and then those that were
    left out. `findings` says by scene what was left out, and why; `frames_listed` counts the frames
    that were left out because --drop-frames listed them.

    Raises:
      DataError: if there is none, it is not finished, or a file is missing or another one.
    """

    def __init__(self, root: str | os.PathLike, verify: str = "headers"):
        self.root = places.place(root)
        self.name = f"packed at {root}"
        manifest = packed.read_manifest(self.root)
        if manifest is None:
            raise DataError(
                f"{root} holds no packed data (no {packed.MANIFEST}); make them with "
                "python -m lgs_jax prepare-data"
            )
        if not manifest.indices:
            raise DataError(f"{root} is not finished; run python -m lgs_jax prepare-data again")
        self.manifest = manifest
        self.class_names = manifest.class_names
        with futures.ThreadPoolExecutor(_THREADS) as pool:
            shards = list(pool.map(lambda n: self._open(n, verify), range(manifest.num_shards)))
        self.entries: dict[str, tuple[str, packed.Entry]] = {}
        self.findings: dict[str, list[Finding]] = {}
        for number, shard in enumerate(shards):
            self.entries |= {entry.key: (self._file(number), entry) for entry in shard.scenes}
            for finding in shard.findings:
                self.findings.setdefault(finding.scene, []).append(finding)
        self.keys = list(dict.fromkeys([*self.entries, *self.findings]))
        self.frames_listed = sum(shard.frames_listed for shard in shards)

    def _file(self, number: int) -> str:
        return os.fspath(self.root / f"{packed.shard_name(number)}.array_record")

    def _open(self, number: int, verify: str) -> packed.Shard:
        again = "prepare the data again"
        index = self.root / f"{packed.shard_name(number)}.json"
        if not index.exists() or packed.file_sha256(index) != self.manifest.indices.get(index.name):
            raise DataError(f"{index} is missing or not that of {packed.MANIFEST}; {again}")
        shard = packed.read_shard(self.root, number)
        assert shard is not None, index
        path = epath.Path(self._file(number))
        size = path.stat().length if path.exists() else None
        if size != shard.size:
            found = "missing" if size is None else f"{size} bytes long"
            raise DataError(f"{path} is {found}, expected {shard.size} bytes; {again}")
        if verify == "full" and not packed.is_intact(self.root, number, shard):
            raise DataError(f"{path} does not have the SHA-256 that {index} tells; {again}")
        return shard


class PackedSource:
    """Scenes of a folder that have what is asked of them, in the order of `keys`.

    The report has what was left out of these scenes when they were prepared, too. Of a scene that
    was left out as a whole, it counts the frames that are known to be bad.

    Args:
      folder: the data.
      options: `min_frames`, `scale`, `drop_frames` and `on_bad` are looked at.
      keys: the scenes to serve.

    Raises:
      DataError: if nothing is left, or at the first fault where `on_bad` is "error".
    """

    def __init__(self, folder: Folder, options: scan.ScanOptions, keys: Sequence[str]):
        self.class_names = folder.class_names
        self.report = Report(folder.name, scenes_found=len(keys))
        self._drop = options.drop_frames
        self._scenes: list[tuple[str, packed.Entry]] = []
        for key in keys:
            self._add(folder, key, options)
        if not self._scenes:
            raise DataError(
                f"no usable scene is left.\n{self.report.summary()}\n"
                "fix the data, or lower what is asked of a scene"
            )

    def _add(self, folder: Folder, key: str, options: scan.ScanOptions) -> None:
        found, listed, findings, kept = _look_at(folder, key, options)
        if findings and options.on_bad == "error":
            raise DataError(f"{findings[0]} (on_bad='skip' would leave it out)")
        self.report.frames_found += found
        self.report.frames_listed += listed
        self.report.findings += findings
        if kept:
            self._scenes.append(folder.entries[key])
            self.report.scenes_kept += 1
            self.report.frames_kept += kept

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Example:
        path, entry = self._scenes[index]
        example = packed.read_example(path, entry)
        dropped = scan.dropped(entry.key, self._drop)
        return without(example, dropped) if dropped else example


def _look_at(
    folder: Folder, key: str, options: scan.ScanOptions
) -> tuple[int, int, list[Finding], int]:
    """Frames found, frames listed, what was left out, and frames kept (0: none of the scene)."""
    findings = folder.findings.get(key, [])
    bad = [finding.frame for finding in findings if finding.frame]
    if key not in folder.entries:
        return len(bad), 0, findings, 0
    path, entry = folder.entries[key]
    found, kept, has_unit = len(bad) + entry.frames, entry.frames, entry.has_unit(options.scale)
    dropped, listed = scan.dropped(key, options.drop_frames), 0
    if dropped or has_unit is None:
        example = packed.read_example(path, entry)
        scan.check_dropped(key, dropped, [*example.frame_names, *bad])
        centers = without(example, dropped).centers
        kept = len(centers)
        has_unit = kept > 0 and normalize.has_unit(centers, options.scale)
        findings = [finding for finding in findings if finding.frame not in dropped]
        listed = found - kept - len(findings)
    fault = scan.count_fault(found, kept, options.min_frames)
    if not fault and not has_unit:
        fault = normalize.no_unit(options.scale)
    if fault:
        return found, listed, [*findings, Finding(key, fault)], 0
    return found, listed, findings, kept


def without(example: Example, names: frozenset[str]) -> Example:
    """A scene without some of its frames."""
    kept = [i for i, name in enumerate(example.frame_names) if name not in names]
    return Example(
        key=example.key,
        images=images.Frames([example.images.files[i] for i in kept], example.images.options),
        world_from_cam=example.world_from_cam[kept],
        intrinsics=example.intrinsics[kept],
        sizes=example.sizes[kept],
        timestamps=np.asarray(example.timestamps)[kept],
        frame_names=tuple(example.frame_names[i] for i in kept),
        class_label=example.class_label,
        class_name=example.class_name,
    )
