"""Which format is this? Looks at names only, nothing is opened."""

import dataclasses
import os

from etils import epath

from lgs_jax.data import clips, images, packed, places
from lgs_jax.data.report import DataError
from lgs_jax.data.sources import colmap, photos

_SPLATS = (".ply", ".splat", ".spz", ".ksplat", ".sog")


@dataclasses.dataclass(frozen=True)
class Detected:
    """A format and its root, as `config.data.source` and `config.data.root` take them."""

    source: str
    root: str


def detect(path: str | os.PathLike) -> Detected:
    """The format of a folder or file of photographs.

    Raises:
      DataError: if there is nothing, or nothing that is known; it says what was found and what to
        do.
    """
    path = places.place(path)
    if path.is_file():
        return _detect_file(path)
    if not path.is_dir():
        raise DataError(f"there is no {path}; give a folder of photographs")
    for source, fits in _FOLDERS.items():
        if fits(path):
            return Detected(source, str(path))
    raise DataError(f"{path} is of no known format: {_describe(path)}")


def _detect_file(path: epath.Path) -> Detected:
    if path.suffix == ".json":
        return Detected("transforms", str(path))
    if path.suffix == ".torch":
        return Detected("pixelsplat", str(path.parent))
    if path.suffix == ".zip":
        return Detected("mvimgnet", str(path))
    if path.name == "poses_bounds.npy":
        return Detected("llff", str(path.parent))
    if path.suffix.lower() in clips.SUFFIXES:
        return Detected("photos", str(path))
    if path.suffix.lower() in _SPLATS:
        raise DataError(f"{path} is a splat file, no photographs; render views of it first")
    raise DataError(f"{path} is a file of no known kind; give a folder of photographs")


def _any(folder: epath.Path, *patterns: str) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)


def _is_realestate10k(folder: epath.Path) -> bool:
    """Text files whose second line has 19 numbers."""
    for pattern in ("*/*.txt", "*.txt"):
        for file in sorted(folder.glob(pattern))[:3]:
            lines = file.read_bytes().decode(errors="replace").splitlines()[1:2]
            if lines and len(lines[0].split()) == 19:
                return True
    return False


def _is_mvimgnet(folder: epath.Path) -> bool:
    return _any(folder, "*/*/sparse/0/cameras.*", "*.zip")


def _is_colmap(folder: epath.Path) -> bool:
    return any(
        colmap.find_model(place) is not None
        for place in (folder, *(child for child in sorted(folder.iterdir()) if child.is_dir()))
    )


_FOLDERS = {
    "packed": lambda folder: (folder / packed.MANIFEST).is_file(),
    "pixelsplat": lambda folder: _any(folder, "*.torch", "*/*.torch"),
    "transforms": lambda folder: _any(
        folder, *(f"{deep}transforms{end}.json" for deep in ("", "*/") for end in ("", "_train"))
    ),
    "llff": lambda folder: _any(folder, "poses_bounds.npy", "*/poses_bounds.npy"),
    "mvimgnet": _is_mvimgnet,
    "colmap": _is_colmap,
    "realestate10k": _is_realestate10k,
    "photos": lambda folder: bool(photos.find_scenes(folder)),
}


def _describe(folder: epath.Path) -> str:
    """What is in a folder that is no data set, and what to do about it."""
    files = [place / name for place, _, names in folder.walk() for name in names]
    pictures = sum(file.suffix in images.SUFFIXES for file in files)
    videos = sum(file.suffix.lower() in clips.SUFFIXES for file in files)
    splats = sum(file.suffix.lower() in _SPLATS for file in files)
    if pictures or videos:
        return (
            f"{pictures} images and {videos} videos without poses, deeper in it than photos may "
            "lie; give a folder of images, a video, or a folder of these"
        )
    if splats:
        return f"{splats} splat files, no photographs"
    if not files:
        return "it is empty"
    return f"{len(files)} files, e.g. {files[0].name}; known formats: {', '.join(_FOLDERS)}"
