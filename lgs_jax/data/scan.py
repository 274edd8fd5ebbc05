"""Checks every scene of a folder before any time is spent on it.

A reader only parses one format into `RawScene`; everything that can be wrong with the cameras and
files of any format is checked here, once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Protocol

import numpy as np

from lgs_jax.data import images, lens, normalize, poses
from lgs_jax.data.example import Example
from lgs_jax.data.report import DataError, Finding, Report

VERIFY = ("quick", "headers", "full")

_SCAN_THREADS = 8


@dataclasses.dataclass(frozen=True)
class RawFrame:
    """One frame as a reader found it, unchecked.

    Attributes:
      name: for the report; of several frames with one name, all but the first are bad.
      path: the image file, which may be missing, or its place inside another file.
      pose: [4, 4], OpenCV axes; its direction is the scene's `cam_from_world`.
      intrinsics: fx, fy, cx, cy [4] in pixels, or in fractions of width and height.
      timestamp: seconds, or the frame's number.
      size: height and width that the camera declares; None: the file decides.
      fractions: whether the intrinsics are fractions.
      distortion: OpenCV coefficients, see `lens`.
      mask: an image file, or None.
    """

    name: str
    path: str | images.Embedded
    pose: np.ndarray
    intrinsics: np.ndarray
    timestamp: float
    size: tuple[int, int] | None = None
    fractions: bool = False
    distortion: tuple[float, ...] = ()
    mask: str | None = None


@dataclasses.dataclass(frozen=True)
class RawScene:
    """One scene as a reader found it.

    Attributes:
      frames: in the order of the camera path.
      faults: (frame name, reason) of frames that could not even be parsed.
      cam_from_world: whether poses map from the world to the camera, or back.
      same_size: whether frames of several sizes mean that something is wrong.
    """

    frames: Sequence[RawFrame]
    faults: Sequence[tuple[str, str]] = ()
    cam_from_world: bool = False
    same_size: bool = False
    class_label: int = -1
    class_name: str = ""


class Reader(Protocol):
    """Parses one format. `read` raises DataError if a scene cannot be parsed at all."""

    name: str
    keys: Sequence[str]
    class_names: tuple[str, ...]

    def read(self, key: str) -> RawScene: ...


@dataclasses.dataclass(frozen=True)
class ScanOptions:
    """What a scene must offer, and what happens if it does not.

    Attributes:
      min_frames: frames needed after bad ones were left out.
      on_bad: "skip" leaves out and reports, "error" raises at the first.
      verify: "quick" looks at the first image of a scene and at the others only when they are
        used, "headers" at every file's header and end, "full" decodes every image.
      drop_frames: scene (key or last part of it) -> names of frames to leave out.
      scale: see `normalize.scene_unit`; cameras that give it no length are a fault.
      read: how files become RGB.
    """

    min_frames: int = 1
    on_bad: str = "skip"
    verify: str = "headers"
    drop_frames: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    scale: str | float = 1.0
    read: images.ReadOptions = dataclasses.field(default_factory=images.ReadOptions)


class ScannedSource:
    """The good scenes of a reader, in the order of its keys.

    Args:
      reader: parses the format.
      options: what to check.
      keys: the scenes to serve, all by default.

    Raises:
      DataError: if nothing is left, or at the first fault where `on_bad` is "error".
    """

    def __init__(
        self, reader: Reader, options: ScanOptions, keys: Sequence[str] | None = None
    ) -> None:
        keys = list(reader.keys if keys is None else keys)
        self.class_names = tuple(reader.class_names)
        self.report = Report(reader.name, scenes_found=len(keys))
        self._examples: list[Example] = []
        with futures.ThreadPoolExecutor(_SCAN_THREADS) as pool:
            for result in pool.map(lambda key: examine(reader, key, options), keys):
                self._add(result, options.on_bad)
        if not self._examples:
            raise DataError(
                f"no usable scene is left.\n{self.report.summary()}\n"
                "fix the data, or lower what is asked of a scene"
            )

    def _add(self, result: "Examined", on_bad: str) -> None:
        if result.findings and on_bad == "error":
            raise DataError(f"{result.findings[0]} (on_bad='skip' would leave it out)")
        self.report.frames_found += result.found
        self.report.frames_listed += result.listed
        self.report.findings += result.findings
        if result.example is not None:
            self._examples.append(result.example)
            self.report.scenes_kept += 1
            self.report.frames_kept += len(result.example)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


@dataclasses.dataclass(frozen=True)
class Examined:
    """One scene after the checks; `example` is None if it cannot be used.

    Attributes:
      found: frames that the cameras list.
      listed: frames left out because the user listed them.
      findings: frames left out because they are bad, and the scene itself if it is.
      example: what is left.
    """

    found: int
    listed: int
    findings: list[Finding]
    example: Example | None


def examine(reader: Reader, key: str, options: ScanOptions) -> Examined:
    """Parses and checks one scene."""
    try:
        scene = reader.read(key)
    except DataError as error:
        return Examined(0, 0, [Finding(key, str(error))], None)
    found = len(scene.frames) + len(scene.faults)
    left_out = dropped(key, options.drop_frames)
    check_dropped(key, left_out, [f.name for f in scene.frames] + [n for n, _ in scene.faults])
    findings = [Finding(key, reason, name) for name, reason in scene.faults if name not in left_out]
    frames = [frame for frame in scene.frames if frame.name not in left_out]
    listed = found - len(frames) - len(findings)
    kept, files = [], []
    names: set[str] = set()
    for frame, pose_fault in zip(frames, _pose_faults(frames), strict=True):
        try:
            if frame.name in names:
                raise DataError(
                    "the cameras list this frame more than once, and only the first of them "
                    "counts; remove the others"
                )
            names.add(frame.name)
            if pose_fault:
                raise DataError(pose_fault)
            assumed = files[0].size if files and options.verify == "quick" else None
            file = _check_frame(frame, options, assumed)
        except DataError as error:
            findings.append(Finding(key, str(error), frame.name))
            continue
        kept.append(frame)
        files.append(file)
    example = None
    fault = count_fault(found, len(kept), options.min_frames)
    if not fault:
        example = _example(key, scene, kept, files, options.read)
        fault = _scene_fault(scene, example, options)
    if fault:
        findings.append(Finding(key, fault))
        example = None
    return Examined(found, listed, findings, example)


def _pose_faults(frames: Sequence[RawFrame]) -> list[str]:
    return poses.pose_faults(np.stack([frame.pose for frame in frames])) if frames else []


def dropped(key: str, drop_frames: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The frames of scene `key` that are listed, under its key or the last part of it."""
    nothing: frozenset[str] = frozenset()
    return drop_frames.get(key, nothing) | drop_frames.get(key.split("/")[-1], nothing)


def check_dropped(key: str, listed: frozenset[str], names: Sequence[str]) -> None:
    """Refuses frames listed for scene `key` that are not among the names of its frames.

    Raises:
      DataError: naming one of them, and one that the scene has.
    """
    if unknown := sorted(listed - set(names)):
        known = f"named like {names[0]!r}" if names else "none"
        raise DataError(
            f"data.drop_frames: scene {key} has no frame {unknown[0]!r} (one of {len(unknown)} "
            f"that are listed in vain), its frames are {known}; correct the list"
        )


def _check_frame(
    frame: RawFrame, options: ScanOptions, assumed: tuple[int, int] | None
) -> images.FrameFile:
    """Checks the camera and the file of one frame; an `assumed` size spares reading the header."""
    if options.read.masks != "ignore" and frame.mask is None:
        raise DataError(
            f"there is no mask for {frame.path}, expected one as masks={options.read.masks!r}; "
            "add mask_path or set masks='ignore'"
        )
    if assumed is not None:
        size = frame.size or assumed
        if not images.exists(frame.path):
            raise DataError(f"image {frame.path} is missing; restore it or drop the frame")
    else:
        size = images.stored_size(frame.path, options.read, frame.size)
        if frame.size is not None and tuple(frame.size) != size:
            raise DataError(
                f"{frame.path} has {size[1]}x{size[0]} pixels, its camera declares "
                f"{frame.size[1]}x{frame.size[0]}; resize the images or rescale the cameras"
            )
    intrinsics = pixel_intrinsics(frame, size)
    fault = poses.intrinsics_fault(intrinsics, size)
    if fault:
        raise DataError(fault)
    file = images.FrameFile(frame.path, size, frame.mask, _lens(frame, intrinsics, size))
    if options.verify == "full":
        images.read_frame(file, options.read)
    return file


def pixel_intrinsics(frame: RawFrame, size: tuple[int, int]) -> np.ndarray:
    """fx, fy, cx, cy [4] in pixels."""
    height, width = size
    scale = np.array([width, height, width, height]) if frame.fractions else np.ones(4)
    return np.asarray(frame.intrinsics, np.float64) * scale


def _lens(frame: RawFrame, intrinsics: np.ndarray, size: tuple[int, int]) -> lens.Lens | None:
    if not np.any(frame.distortion):
        return None
    found = lens.Lens(tuple(intrinsics.tolist()), frame.distortion, size)
    try:
        lens.pinhole_intrinsics(found)
    except ValueError as error:
        raise DataError(str(error)) from error
    return found


def count_fault(found: int, kept: int, needed: int) -> str:
    """Whether there are too few frames; empty if not."""
    if not found:
        return "it has no frames; the camera file lists none"
    if kept < max(needed, 1):
        return (
            f"{kept} usable frames of {found}, needed {max(needed, 1)} for the asked context and "
            "target views; ask for fewer views or a smaller gap"
        )
    return ""


def _scene_fault(scene: RawScene, example: Example, options: ScanOptions) -> str:
    """What is wrong with the scene as a whole; empty if nothing is."""
    sizes = sorted({tuple(size) for size in example.sizes.tolist()})
    if scene.same_size and len(sizes) > 1:
        listed = ", ".join(f"{width}x{height}" for height, width in sizes)
        return f"its frames have several sizes ({listed}), expected one; re-extract the frames"
    if not normalize.has_unit(example.centers, options.scale):
        return normalize.no_unit(options.scale)
    return ""


def _example(
    key: str,
    scene: RawScene,
    kept: list[RawFrame],
    files: list[images.FrameFile],
    read: images.ReadOptions,
) -> Example:
    intrinsics = [
        lens.pinhole_intrinsics(file.lens) if file.lens else pixel_intrinsics(frame, file.size)
        for frame, file in zip(kept, files, strict=True)
    ]
    maps = poses.nearest_rigid(np.stack([frame.pose for frame in kept]))
    return Example(
        key=key,
        images=images.Frames(files, read),
        world_from_cam=poses.invert(maps) if scene.cam_from_world else maps,
        intrinsics=np.stack(intrinsics),
        sizes=np.array([file.size for file in files]),
        timestamps=np.array([frame.timestamp for frame in kept], np.float64),
        frame_names=tuple(frame.name for frame in kept),
        class_label=scene.class_label,
        class_name=scene.class_name,
    ).check()
