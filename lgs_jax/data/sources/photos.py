"""Photographs without poses: a video, a folder of images, or a folder of several of these.

Poses are computed once (`structure_from_motion`) and kept in the cache, under a name made of what
was photographed: names, sizes and times of the files. There lie, for each scene, the COLMAP model
`sparse/0`, images that had to be made (frames of a video; upright copies of images that are turned,
transparent, or neither JPEG nor PNG), and `outcome.json`.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from etils import epath
from PIL import ExifTags, Image

from lgs_jax import files, settings
from lgs_jax.data import clips, images, places, structure_from_motion
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import RawScene
from lgs_jax.data.sources import colmap

FRAMES_PER_S = 2.0  # taken out of a video, so that neighbours see nearly the same
LEAST_FRAMES = 20  # of shorter videos more per second are taken
MOST_FRAMES = 100  # of longer ones fewer

_VERSION = 1  # to be raised when other poses or images come out
_OUTCOME = "outcome.json"
_UPRIGHT = images.ReadOptions(exif="apply")
_EXPECTED = "a video, a folder of images, or a folder of videos and of such folders"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of the computation.

    Attributes:
      fault: why there are no poses at all; empty if there are.
      left_out: image -> why it has no pose.
    """

    fault: str = ""
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)


class Photos:
    """Computes the poses of photographs. Keys are the names of the videos and folders.

    Args:
      root: where they lie, on a disk.
      say: told of the progress.

    Raises:
      DataError: if there are none, or if poses are yet to be computed and pycolmap is missing.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike, say: Callable[[str], None] = print):
        self.name = f"photos at {root}"
        if places.is_remote(os.fspath(root)):
            raise DataError(f"{root}: photos are read from disks only; copy them to one")
        folder = Path(root).expanduser()
        if not folder.exists():
            raise DataError(f"there is no {root}; expected {_EXPECTED}")
        self._scenes = find_scenes(folder)
        if not self._scenes:
            raise DataError(f"{root} holds no photographs; expected {_EXPECTED}")
        if videos := [path.name for path in _videos_beside_images(folder)]:
            raise DataError(
                f"{root} holds images and videos ({videos[0]}) side by side; give each video and "
                "each group of images that belong together a folder of its own"
            )
        self.keys = list(self._scenes)
        self._say = say
        if not structure_from_motion.available() and not all(map(_is_made, self._scenes.values())):
            raise DataError(
                f"{root} has no poses; they are computed by pycolmap, which is not installed: "
                f"{structure_from_motion.INSTALL}"
            )

    def read(self, key: str) -> RawScene:
        """Parses one scene, after its poses were computed if they were not yet."""
        scene = self._scenes[key]
        place = _place(scene)
        if not place.is_dir():
            _make(scene, place, lambda text: self._say(f"{key}: {text}"))
        outcome = _read_outcome(place / _OUTCOME)
        if outcome.fault:
            raise DataError(f"{scene}: {outcome.fault} (to try again, delete {place})")
        found = colmap.read_scene(epath.Path(place) / "sparse" / "0", epath.Path(place) / "images")
        originals = {file.name: str(file) for file in find_images(scene)}
        frames = [
            frame
            if images.exists(frame.path)
            else dataclasses.replace(frame, path=originals[frame.name])
            for frame in found.frames
        ]
        faults = [*found.faults, *outcome.left_out.items()]
        return dataclasses.replace(found, frames=frames, faults=faults)


def find_scenes(root: Path) -> dict[str, Path]:
    """Videos and folders of photographs by their names; nothing is opened.

    Images that lie in `root` itself, or in its folder `images`, are one scene; where there are none
    every video and every such folder in it is one.
    """
    if _is_scene(root):
        return {root.resolve().name: root}
    return {path.name: path for path in _listed(root) if _is_scene(path)}


def _is_scene(path: Path) -> bool:
    return bool(find_images(path)) if path.is_dir() else _is_video(path)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in clips.SUFFIXES


def find_images(folder: Path) -> list[Path]:
    """The images of a scene in the order of their names, numbers by value; none of a video."""
    for place in (folder, folder / "images"):
        found = [file for file in _listed(place) if file.suffix.lower() in images.SUFFIXES]
        if found:
            return found
    return []


def _videos_beside_images(root: Path) -> list[Path]:
    listed = _listed(root)
    pictures = any(file.suffix.lower() in images.SUFFIXES for file in listed)
    return [file for file in listed if _is_video(file)] if pictures else []


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, without hidden files; nothing if it is none."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return sorted(found, key=lambda path: colmap.natural_order(path.name))


def _place(scene: Path) -> Path:
    """Where its poses are kept."""
    listed = []
    for file in find_images(scene) or [scene]:
        stat = file.stat()
        listed.append((file.name, stat.st_size, stat.st_mtime_ns))
    digest = hashlib.sha256(repr((_VERSION, listed)).encode()).hexdigest()
    return places.cache() / "photos" / digest[:32]


def _is_made(scene: Path) -> bool:
    return _place(scene).is_dir()


def _read_outcome(path: Path) -> Outcome:
    try:
        return settings.build(Outcome, files.read_json(path), str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete {path.parent}") from error


def _make(scene: Path, place: Path, say: Callable[[str], None]) -> None:
    """Computes the poses; `place` appears when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with _alone(place.parent / "lock"):
        if place.is_dir():  # another process was faster
            return
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".") as scratch:
            made = Path(scratch) / "scene"
            (made / "images").mkdir(parents=True)
            outcome = _compute(scene, made, say)
            files.write_json(made / _OUTCOME, dataclasses.asdict(outcome))
            made.replace(place)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One scene at a time on this machine, as each takes all cores."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compute(scene: Path, output: Path, say: Callable[[str], None]) -> Outcome:
    left_out: dict[str, str] = {}
    video = not scene.is_dir()
    try:
        if video:
            found = _extract_frames(scene, output / "images")
        else:
            found = _check_images(find_images(scene), output / "images", left_out)
        left_out |= structure_from_motion.compute_poses(found, output, video=video, say=say)
    except DataError as error:
        broken = f"; {next(iter(left_out.values()))}" if left_out else ""
        return Outcome(f"{error}{broken}")
    return Outcome("", left_out)


def _extract_frames(video: Path, folder: Path) -> list[Path]:
    """Frames that are spread evenly over a video."""
    source = ["-i", str(video), "-map", "0:v:0"]
    log = clips.ffmpeg([*source, "-c", "copy", "-f", "null", "-"], video)
    times = re.findall(r"time=(\d+):(\d+):([\d.]+)", log)  # the last one is the end
    hours, minutes, seconds = map(float, times[-1]) if times else (0.0, 0.0, 0.0)
    duration = 3600 * hours + 60 * minutes + seconds
    if not duration:
        raise DataError(f"{video} holds no moving pictures; give another video")
    rate = min(max(FRAMES_PER_S, LEAST_FRAMES / duration), MOST_FRAMES / duration)
    filters = ["-vf", f"fps={rate:.6f}", "-frames:v", str(MOST_FRAMES), "-q:v", "2"]
    clips.ffmpeg([*source, *filters, str(folder / "%06d.jpg")], video)
    return sorted(folder.iterdir())


def _check_images(files: list[Path], folder: Path, left_out: dict[str, str]) -> list[Path]:
    """The images that can be decoded, or copies in `folder` that are as the reader shows them."""
    good = []
    for file in files:
        try:
            size = images.stored_size(str(file), _UPRIGHT)
            frame = images.FrameFile(str(file), size)
            if images.read_original(frame, _UPRIGHT) is not None:
                good.append(file)
            else:
                good.append(_copy(frame, folder / file.name))
        except DataError as error:
            left_out[file.name] = str(error)
    return good


def _copy(frame: images.FrameFile, target: Path) -> Path:
    """An upright JPEG copy, whatever its name says, that keeps what EXIF says of the lens."""
    with Image.open(frame.path) as image:
        exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 1
    pixels = Image.fromarray(images.read_frame(frame, _UPRIGHT))
    pixels.save(target, "JPEG", quality=95, subsampling=0, exif=exif)
    return target
