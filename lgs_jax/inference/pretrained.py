"""The small models that come with the package: files of `model_file`, each with a card."""

import importlib.resources
import os
import pathlib

from lgs_jax.inference import model_file

_FOLDER = pathlib.Path(str(importlib.resources.files("lgs_jax"))) / "pretrained"


def names() -> list[str]:
    """Names that `lgs_jax.load` knows."""
    return sorted(path.stem for path in _FOLDER.glob(f"*{model_file.SUFFIX}"))


def find(path: str | os.PathLike) -> str | os.PathLike:
    """The file of a name; anything else is a path, and stays as it is."""
    if str(path) in names() and not pathlib.Path(path).exists():
        return _FOLDER / f"{path}{model_file.SUFFIX}"
    return path


def card(name: str) -> pathlib.Path:
    """The card of a model: data, licence, training, scores, limits (Markdown)."""
    return _FOLDER / f"{name}.md"
