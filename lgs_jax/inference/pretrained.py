"""The small models that come with the package: files of `model_file`, each with a card."""

import importlib.resources
import os
import pathlib

from lgs_jax.inference import model_file

_FOLDER = pathlib.Path(str(importlib.resources.files("lgs_jax"))) / "pretrained"


def names() -> list[str]:
    """Names that `lgs_jax.load` knows."""
    return sorted(path.stem for path in _FOLDER.glob(f"*{model_file.SUFFIX}"))


def find(path: str | os.PathLike) -> pathlib.Path:
    """The file of a name; anything else is a path, and stays one."""
    known = pathlib.Path(path)
    if str(path) in names() and not known.exists():
        return _FOLDER / f"{path}{model_file.SUFFIX}"
    return known.expanduser()


def card(name: str) -> pathlib.Path:
    """The card of a model: data, licence, training, scores, limits (Markdown)."""
    return _FOLDER / f"{name}.md"
