"""MVImgNet: <class>/<instance>/{images, sparse/0}, cameras as COLMAP binaries.

As folders, or inside the zip archives that are published, which need not be unpacked.

Some instances come with an empty sparse folder or without images; a second reconstruction
(sparse/1, ...) is in another frame of reference and is never used.
"""

import os
from collections.abc import Iterator

from etils import epath

from lgs_jax.data import archives, places
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import RawScene
from lgs_jax.data.sources import colmap, folders

_EXPECTED = (
    "<root>/<class>/<instance>/images/* and sparse/0/{cameras,images}.bin, or zip archives of that"
)
# What macOS adds to archives beside the files.
_FINDERS_NOTES = "__MACOSX"
_PARTS = ("images", "sparse")


class MVImgNet:
    """Parses a folder of MVImgNet classes, or of zip archives. Keys are `<class>/<instance>`.

    `classes.txt` ("<number> <name>" lines, or "<number>,<name>") names the classes; without it the
    folders' names serve. Labels are the places of the class in the sorted list of all classes
    (of `classes.txt`, if there is one), so they do not change with the scenes that are present.

    Every folder in a class is an instance, and a class is what has an instance with images or
    cameras, or is named in `classes.txt`.

    Args:
      root: the folder, or one archive.

    Raises:
      DataError: if the root or the instances are not there, or archives hold one twice.
    """

    def __init__(self, root: str | os.PathLike):
        self._root = places.place(root)
        self.name = f"mvimgnet at {root}"
        if not self._root.exists():
            raise DataError(f"there is no folder {root}; expected {_EXPECTED}")
        names = self._class_names()
        self._folders = _instances(self._root, set(names))
        if not self._folders:
            raise DataError(f"{root} holds no instance; expected {_EXPECTED}")
        self.keys = sorted(self._folders, key=colmap.natural_order)
        classes = {key.split("/")[0] for key in self.keys} | set(names)
        ordered = sorted(classes, key=colmap.natural_order)
        self._labels = {folder: label for label, folder in enumerate(ordered)}
        self.class_names = tuple(names.get(folder, folder) for folder in ordered)

    def _class_names(self) -> dict[str, str]:
        path = self._root / "classes.txt"
        if not path.is_file():
            return {}
        names = {}
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            folder, _, name = line.strip().replace(",", " ", 1).partition(" ")
            if folder and not name.strip():
                raise DataError(
                    f"{path}:{number}: found {line!r}, expected '<number> <name>'; repair the line"
                )
            if folder:
                names[folder] = name.strip()
        return names

    def read(self, key: str) -> RawScene:
        """Parses one instance."""
        folder = self._folders[key]
        model = folder / "sparse" / "0"
        if not model.is_dir():
            sparse = folder / "sparse"
            found = sorted(path.name for path in sparse.iterdir()) if sparse.is_dir() else []
            raise DataError(
                f"{model} is missing (sparse holds {found or 'nothing'}); the instance has no "
                "usable reconstruction"
            )
        scene = colmap.read_scene(model, folder / "images")
        label = self._labels[key.split("/")[0]]
        return RawScene(
            scene.frames,
            scene.faults,
            cam_from_world=True,
            class_label=label,
            class_name=self.class_names[label],
        )


def _instances(root: epath.Path, classes: set[str]) -> dict[str, archives.AnyPath]:
    """The folder of every instance, on disk or in an archive; nothing if all are empty.

    `classes` are the folders that are known to be classes.
    """
    found: dict[str, archives.AnyPath] = {}
    others: dict[str, archives.AnyPath] = {}
    for key, place in _inner_folders(root):
        if not any((place / part).is_dir() for part in _PARTS):
            others.setdefault(key, place)
        elif key in found:
            raise DataError(f"instance {key} is in {found[key]} and in {place}; remove one")
        else:
            found[key] = place
    classes = classes | {key.split("/")[0] for key in found}
    empty = {
        key: place
        for key, place in others.items()
        if key.split("/")[0] in classes and not folders.is_companion(place.name) and place.is_dir()
    }
    return empty | found if found else {}


def _inner_folders(root: epath.Path) -> Iterator[tuple[str, archives.AnyPath]]:
    """What may be an instance: `<class>/<instance>` and its place; on a disk also files."""
    for path in root.glob("*/*"):
        yield path.relative_to(root).as_posix(), path
    for archive in [root] if root.is_file() else sorted(root.glob("*.zip")):
        for inner in sorted(archives.folders(str(archive))):
            parts = inner.split("/")
            if len(parts) > 1 and _FINDERS_NOTES not in parts:
                yield "/".join(parts[-2:]), archives.ZipPath(str(archive), inner)
