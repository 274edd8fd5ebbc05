"""A folder that is a scene, or a folder of such folders.

A folder among scenes that looks like one, but has lost the file of its cameras, counts as a scene:
reading it fails, so that it is reported as left out and not passed over.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import PurePath

from etils import epath

from lgs_jax.data import images

_PARTS = re.compile(r"images(_\d+)?|sparse")
# Where else a scene may hold its images: in itself, or in a part of its own.
_IMAGE_PLACES = ("", "train")
_COMPANIONS = re.compile(
    r"\..*|(images|masks?|depths?|normals?|renders?|outputs?|cache)(_.*)?", re.IGNORECASE
)


def scenes(root: epath.Path, has_cameras: Callable[[epath.Path], bool]) -> dict[str, epath.Path]:
    """Folders of scenes by their names, in this order: `root` itself, or else those in it.

    Nothing if no folder has cameras.

    Args:
      root: a folder.
      has_cameras: whether the file of cameras is in a folder.
    """
    if has_cameras(root):
        return {root.resolve().name: root}
    found = {path.name: path for path in root.iterdir() if has_cameras(path)}
    return dict(sorted((found | without_cameras(root, found)).items())) if found else {}


def without_cameras(root: epath.Path, known: Mapping[str, epath.Path]) -> dict[str, epath.Path]:
    """Other folders in `root` that look like the `known` scenes there, by their names.

    They hold `images`, `images_<n>` or `sparse`, or else images in a place where a known scene has
    its own. Only folders that are not known are looked into.
    """
    found, by_images = {}, {}
    for folder in root.iterdir():
        if folder.name in known or is_companion(folder.name) or not folder.is_dir():
            continue
        if any(_PARTS.fullmatch(path.name) for path in folder.iterdir()):
            found[folder.name] = folder
        else:
            by_images[folder.name] = folder
    for place in _IMAGE_PLACES:
        alike = {name: path for name, path in by_images.items() if _has_images(path / place)}
        if alike and any(_has_images(scene / place) for scene in known.values()):
            found |= alike
    return found


def is_companion(name: str) -> bool:
    """Whether a folder of this name lies beside scenes and is none: hidden, masks, a cache, ..."""
    return bool(_COMPANIONS.fullmatch(name))


def _has_images(folder: epath.Path) -> bool:
    return folder.is_dir() and any(
        PurePath(path.name).suffix in images.SUFFIXES for path in folder.iterdir()
    )
