"""Frames of RealEstate10K clips out of the videos that one could get.

The data set is text files that name a video and the timestamps of a clip in it. The videos are on
YouTube, and many are gone or have changed since; what is missing is written down, not passed over.

Letters: n frame of a stretch of video.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable
from concurrent import futures
from pathlib import Path

import imageio_ffmpeg
import numpy as np

from lgs_jax import files, settings
from lgs_jax.data import progress
from lgs_jax.data.report import DataError

MANIFEST = "videos.json"
OPTIONS = "frames_options.json"
SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".m4v", ".avi")
_MARGIN_S = 1.0  # decoded before and after a clip
_NEAR = 0.75  # of a frame's duration, that a frame may be away from its timestamp


@dataclasses.dataclass(frozen=True)
class Options:
    """How frames are written; kept as JSON beside them, so that no others are added to them.

    Attributes:
      short_side: frames whose shorter side is longer are reduced to about this; None: none are.
    """

    short_side: int | None = None


@dataclasses.dataclass
class Outcome:
    """What became of the clips; kept as JSON beside the frames.

    Attributes:
      clips: in the text files.
      complete: clips with all of their frames.
      missing_videos: video -> clips of it that could not be made.
      shortened: clip -> [frames found, frames wanted].
      failed: clip -> what FFmpeg said.
    """

    clips: int = 0
    complete: int = 0
    missing_videos: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    shortened: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def summary(self) -> str:
        """Totals, one line each."""
        missing = sum(map(len, self.missing_videos.values()))
        lines = [f"{self.complete} of {self.clips} clips are complete"]
        if missing:
            lines.append(f"{missing} lack their video ({len(self.missing_videos)} videos)")
        if self.shortened:
            lines.append(f"{len(self.shortened)} reach beyond their video")
        if self.failed:
            first = next(iter(self.failed.items()))
            lines.append(f"{len(self.failed)} failed, e.g. {first[0]}: {first[1]}")
        return "\n".join(lines)


def extract(
    texts: Path,
    videos: Path,
    output: Path,
    *,
    short_side: int | None = None,
    num_workers: int = 1,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Writes `<output>/<split>/<id>.txt` and `frames/<split>/<id>/<timestamp>.jpg`.

    Clips that are there already are kept, so the same call continues after a stop, and looks again
    for videos that were missing.

    Args:
      texts: folder of `<split>/<id>.txt`.
      videos: folder of `<video id>.mp4` (or another container), the id of its YouTube address.
      output: where to write; may be `texts`.
      short_side: see `Options`.
      num_workers: clips at a time.
      say: told of the progress.

    Raises:
      DataError: if there are no text files or no folder of videos, or the frames that are there
        were written with another `short_side`.
    """
    lists = sorted(texts.glob("*/*.txt"))
    if not lists:
        raise DataError(f"{texts} holds no <split>/<id>.txt; give the folder of RealEstate10K")
    if not videos.is_dir():
        raise DataError(f"there is no folder {videos}; give the folder of the videos")
    _note_options(output, Options(short_side), say)
    found = {path.stem: path for path in videos.iterdir() if path.suffix.lower() in SUFFIXES}
    outcome = Outcome(clips=len(lists))
    counter = progress.Progress(len(lists), "clips", say, every_s=5.0)

    def one(file: Path) -> tuple[str, str, list[int] | str | None]:
        key = file.relative_to(texts).with_suffix("").as_posix()
        video = ""
        try:
            video, stamps = _read_text(file)
            if video not in found:
                return key, video, None
            return key, video, _extract_clip(file, found[video], stamps, key, output, short_side)
        except (DataError, OSError) as error:
            return key, video, str(error)

    with futures.ThreadPoolExecutor(max(1, num_workers)) as pool:  # FFmpeg does the work
        for key, video, result in pool.map(one, lists):
            counter.add()
            if result is None:
                outcome.missing_videos.setdefault(video, []).append(key)
            elif isinstance(result, str):
                outcome.failed[key] = result
            elif result[0] < result[1]:
                outcome.shortened[key] = result
            else:
                outcome.complete += 1
    files.write_json(output / MANIFEST, dataclasses.asdict(outcome))
    return outcome


def _note_options(output: Path, options: Options, say: Callable[[str], None]) -> None:
    """Writes the options beside the frames; refuses others than those that are there."""
    path, frames = output / OPTIONS, output / "frames"
    there = settings.read(Options, path) if frames.is_dir() else options
    if there is None:
        say(f"{frames} does not tell with which options it was written; what is there is kept")
    elif there != options:
        raise DataError(
            f"{path} says that the frames there were written with short_side={there.short_side}, "
            f"now it is {options.short_side}; give the same --short-side, or another --output"
        )
    files.write_json(path, dataclasses.asdict(options))


def _read_text(file: Path) -> tuple[str, list[str]]:
    """The video's id and the timestamps of a clip, in microseconds."""
    lines = file.read_text(errors="replace").splitlines()
    try:
        address = urllib.parse.urlparse(lines[0].strip() if lines else "")
    except ValueError as error:
        raise DataError(
            f"{file} begins with {lines[0]!r}, which is no address of a video ({error}); download "
            "it again"
        ) from error
    query = urllib.parse.parse_qs(address.query)
    video = query["v"][0] if "v" in query else address.path.rstrip("/").rpartition("/")[2]
    stamps = [line.split()[0] for line in lines[1:] if line.strip()]
    return video, [stamp for stamp in stamps if stamp.isascii() and stamp.isdigit()]


def _extract_clip(
    file: Path, video: Path, stamps: list[str], key: str, output: Path, short_side: int | None
) -> list[int]:
    """Number of frames that the clip has now, and that it should have."""
    folder = output / "frames" / key
    text = output / f"{key}.txt"
    if not folder.is_dir():
        if not stamps:
            raise DataError(f"{file} lists no timestamps; download it again")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            made = Path(scratch) / "frames"
            made.mkdir()
            _write_frames(video, stamps, made, short_side)
            made.replace(folder)
    text.parent.mkdir(parents=True, exist_ok=True)
    if text.resolve() != file.resolve():
        shutil.copyfile(file, text)
    return [len(list(folder.iterdir())), len(set(stamps))]


def _write_frames(video: Path, stamps: list[str], folder: Path, short_side: int | None) -> None:
    """Writes the frames nearest to the timestamps as `<timestamp>.jpg`."""
    wanted = np.array([int(stamp) * 1e-6 for stamp in stamps])
    begin, end = max(0.0, wanted.min() - _MARGIN_S), wanted.max() + _MARGIN_S
    # Timestamps stay those of the whole video, so both passes count the same frames.
    source = ["-ss", f"{begin:.6f}", "-copyts", "-i", str(video), "-to", f"{end:.6f}", "-an", "-sn"]
    log = ffmpeg([*source, "-vf", "showinfo", "-fps_mode", "passthrough", "-f", "null", "-"], video)
    times = np.array([float(t) for t in re.findall(r"showinfo.* pts_time: *([\d.]+)", log)])
    if not len(times):
        return  # the video ends before the clip begins
    duration = np.median(np.diff(times)) if len(times) > 1 else 1 / 30
    nearest = np.abs(times[:, None] - wanted).argmin(axis=0)
    near = np.abs(times[nearest] - wanted) <= _NEAR * duration
    frames = sorted(set(nearest[near].tolist()))
    if not frames:
        return
    filters = "select='" + "+".join(f"eq(n,{n})" for n in frames) + "'"
    if short_side is not None:
        filters += (
            f",scale=w='if(lt(iw,ih),min(iw,{short_side}),-2)'"
            f":h='if(lt(iw,ih),-2,min(ih,{short_side}))':flags=lanczos"
        )
    target = ["-fps_mode", "passthrough", "-q:v", "2", "-start_number", "0"]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        pattern = str(Path(scratch) / "%06d.jpg")
        ffmpeg([*source, "-vf", filters, *target, pattern], video)
        for stamp, n, fits in zip(stamps, nearest.tolist(), near.tolist(), strict=True):
            if fits:
                shutil.copyfile(
                    Path(scratch) / f"{frames.index(n):06d}.jpg", folder / f"{stamp}.jpg"
                )


def ffmpeg(arguments: list[str], video: Path) -> str:
    """Runs FFmpeg's own program on a video; its log.

    Raises:
      DataError: naming the video, if it fails.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-threads", "1"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, env=os.environ | {"AV_LOG_FORCE_NOCOLOR": "1"}
    )
    log = done.stderr.decode(errors="replace")
    if done.returncode:
        reason = log.strip().splitlines()[-1] if log.strip() else f"status {done.returncode}"
        raise DataError(f"{video} cannot be decoded ({reason}); restore the file")
    return log
