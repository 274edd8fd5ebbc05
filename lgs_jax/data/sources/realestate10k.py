"""RealEstate10K: one text file a scene, and its frames as images.

Line 1 is a URL; every other line is `timestamp_us fx fy cx cy 0 0` and the 3x4 world-to-camera map
row by row (OpenCV axes), intrinsics as fractions of width and height.
"""

import functools
import os
from collections.abc import Callable

import numpy as np
from etils import epath

from lgs_jax.data import images, places
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import RawFrame, RawScene
from lgs_jax.data.sources import folders

_FIELDS = 19
_LAYOUTS = (
    "frames/{split}/{id}",
    "images/{split}/{id}",
    "frames/{id}",
    "images/{id}",
    "{split}/{id}",
    "../frames/{id}",
    "../images/{id}",
)
_EXPECTED = (
    "<root>/<split>/<id>.txt with frames/<split>/<id>/<timestamp>.jpg (or .png), or "
    "<root>/<id>.txt with frames/<id>/<timestamp>.jpg"
)


class RealEstate10K:
    """Parses a folder of RealEstate10K scenes.

    Keys are `<split>/<id>`, or `<id>` where the text files lie directly in the root. Folders of
    frames without a text file are scenes that cannot be read.

    Raises:
      DataError: if the root, the text files or the folders of frames are not there.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike):
        self._root = places.place(root)
        self.name = f"realestate10k at {root}"
        if not self._root.is_dir():
            raise DataError(f"there is no folder {root}; expected {_EXPECTED}")
        files = sorted(self._root.glob("*/*.txt")) or sorted(self._root.glob("*.txt"))
        if not files:
            raise DataError(f"{root} holds no scene; expected {_EXPECTED}")
        self.keys = [file.relative_to(self._root).with_suffix("").as_posix() for file in files]
        self._layout = self._find_layout()
        # Where they were if their text files were there.
        self.keys = sorted(
            [*self.keys, *self._without_text()], key=lambda key: f"{key}.txt".split("/")
        )

    def _find_layout(self) -> str:
        for layout in _LAYOUTS:
            if any(self._folder(layout, key).is_dir() for key in self.keys):
                return layout
        raise DataError(
            f"{self._root} holds {len(self.keys)} text files but no folder of frames, e.g. "
            f"{self._folder(_LAYOUTS[0], self.keys[0])}; expected {_EXPECTED}"
        )

    def _folder(self, layout: str, key: str) -> epath.Path:
        split, _, scene = key.rpartition("/")
        return places.child(self._root, layout.format(split=split or ".", id=scene))

    def _without_text(self) -> list[str]:
        """Keys of folders of frames, beside those that the text files name."""
        if self._layout.startswith(".."):  # may hold the frames of other roots, too
            return []
        known: dict[str, dict[str, epath.Path]] = {}
        for key in self.keys:
            split = key.rpartition("/")[0] if "{split}" in self._layout else ""
            folder = self._folder(self._layout, key)
            known.setdefault(split, {})[folder.name] = folder
        return [
            f"{split}/{name}" if split else name
            for split, scenes in known.items()
            for name in folders.without_cameras(next(iter(scenes.values())).parent, scenes)
        ]

    def read(self, key: str) -> RawScene:
        """Parses one scene."""
        text = self._root / f"{key}.txt"
        folder = self._folder(self._layout, key)
        if not text.is_file():
            raise DataError(
                f"its text file {text} is missing, while its frames are in {folder}; download the "
                "file or remove the folder"
            )
        if not folder.is_dir():
            raise DataError(f"its folder of frames {folder} is missing; download the frames")
        lines = text.read_bytes().decode(errors="replace").splitlines()[1:]
        names = {path.stem: path.name for path in folder.iterdir()}
        frames, faults = [], []
        for number, line in enumerate(lines, start=2):
            if not line.strip():
                continue
            try:
                frames.append(_parse(line, functools.partial(_locate, folder, names)))
            except DataError as error:
                faults.append((f"line {number}", f"{text}:{number}: {error}"))
        frames.sort(key=lambda frame: frame.timestamp)
        return RawScene(frames, faults, cam_from_world=True, same_size=True)


def _locate(folder: epath.Path, names: dict[str, str], timestamp: str) -> str:
    return str(folder / names.get(timestamp, f"{timestamp}{images.SUFFIXES[0]}"))


def _parse(line: str, locate: Callable[[str], str]) -> RawFrame:
    """One line of cameras; `locate` finds the image of a timestamp."""
    fields = line.split()
    if len(fields) != _FIELDS:
        raise DataError(
            f"{len(fields)} values, expected {_FIELDS} (timestamp, fx fy cx cy 0 0, 3x4 pose); "
            "download the text file again"
        )
    try:
        values = np.array([float(field) for field in fields])
    except ValueError as error:
        raise DataError(f"{error}, expected {_FIELDS} numbers; repair the line") from error
    cam_from_world = np.eye(4)
    cam_from_world[:3] = values[7:].reshape(3, 4)
    return RawFrame(
        name=fields[0],
        path=locate(fields[0]),
        pose=cam_from_world,
        intrinsics=values[1:5],
        timestamp=values[0] * 1e-6,
        fractions=True,
    )
