"""MVImgNet: <class>/<instance>/{images, sparse/0}, cameras as COLMAP binaries.

Some instances come with an empty sparse folder or without images; a second reconstruction
(sparse/1, ...) is in another frame of reference and is never used.
"""

from pathlib import Path

from lgs_jax.data.report import DataError
from lgs_jax.data.scan import RawScene
from lgs_jax.data.sources import colmap

_EXPECTED = "<root>/<class>/<instance>/images/* and sparse/0/{cameras,images}.bin"


class MVImgNet:
    """Parses a folder of MVImgNet classes. Keys are `<class>/<instance>`.

    `classes.txt` ("<number> <name>" lines, or "<number>,<name>") names the classes; without it the
    folders' names serve. Labels are the places of the class in the sorted list of all classes
    (of `classes.txt`, if there is one), so they do not change with the scenes that are present.

    Raises:
      DataError: if the root or the instances are not there.
    """

    def __init__(self, root: str | Path):
        self._root = Path(root)
        self.name = f"mvimgnet at {root}"
        if not self._root.is_dir():
            raise DataError(f"there is no folder {root}; expected {_EXPECTED}")
        instances = [
            path
            for path in self._root.glob("*/*")
            if (path / "images").is_dir() or (path / "sparse").is_dir()
        ]
        if not instances:
            raise DataError(f"{root} holds no instance; expected {_EXPECTED}")
        keys = [path.relative_to(self._root).as_posix() for path in instances]
        self.keys = sorted(keys, key=colmap.natural_order)
        names = self._class_names()
        folders = sorted({key.split("/")[0] for key in keys} | set(names), key=colmap.natural_order)
        self._labels = {folder: label for label, folder in enumerate(folders)}
        self.class_names = tuple(names.get(folder, folder) for folder in folders)

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
        folder = self._root / key
        model = folder / "sparse" / "0"
        if not model.is_dir():
            found = sorted(path.name for path in (folder / "sparse").glob("*"))
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
