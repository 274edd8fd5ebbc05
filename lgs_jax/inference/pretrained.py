"""The small models that come with the package: files of `model_file`, each with a card."""

import difflib
import importlib.resources
import os
import pathlib

from lgs_jax.inference import tensor_file
from lgs_jax.inference.export import formats
from lgs_jax.training import checkpoint, workdir

_FOLDER = pathlib.Path(str(importlib.resources.files("lgs_jax"))) / "pretrained"
# Classes that one recognises in what a model draws from nothing, as the limits in its card say;
# judged by eye, by eight samples of each class. A model that is not named here has no such list.
_RECOGNISED = {
    "objects-small": ("snowman", "tree", "cake", "mushroom", "vase", "house", "car"),
}


def names() -> list[str]:
    """Names that `lgs_jax.load` knows."""
    found = _FOLDER.glob(f"*{tensor_file.COMPRESSED}")
    return sorted(path.name.removesuffix(tensor_file.COMPRESSED) for path in found)


def find(path: str | os.PathLike) -> str | os.PathLike:
    """The file of a name; anything else is a path, and stays as it is.

    Raises:
      lgs_jax.training.checkpoint.CheckpointError: if it is one word that names neither a model of
        the package nor a file or folder, or it is another kind of file, or a folder of runs.
    """
    if is_name(path):
        return _FOLDER / f"{path}{tensor_file.COMPRESSED}"
    word = str(path)
    if pathlib.PurePath(word).name == word and not pathlib.Path(word).exists():
        close = difflib.get_close_matches(word, names(), n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        raise checkpoint.CheckpointError(
            f"{word} is no file or folder here, and no model of the package{guess}, which "
            f"has {', '.join(names())}; give one of these, or the path of a model or run"
        )
    _check(pathlib.Path(word).expanduser())
    return path


def _check(path: pathlib.Path) -> None:
    """Refuses files and folders that are plainly something else than a model."""
    if path.is_file() and not tensor_file.suffix(path):
        reader = "; a file of splats is read by lgs_jax.inference.export.formats.load"
        raise checkpoint.CheckpointError(
            f"{path} is no model: expected a file that pack-model has written, ending in "
            f"{' or '.join(tensor_file.SUFFIXES)}, or the folder of a run"
            + (reader if path.suffix.lower() in formats.FORMATS else "")
        )
    runs = [found.parent for found in sorted(path.glob(f"*/{workdir.CHECKPOINTS}"))]
    if runs and not (path / workdir.CHECKPOINTS).is_dir():
        raise checkpoint.CheckpointError(
            f"{path} is no run but a folder of runs; give one of {', '.join(map(str, runs))}"
        )


def is_name(path: str | os.PathLike) -> bool:
    """Whether it names a model of the package; a file or folder of that name comes first."""
    return str(path) in names() and not pathlib.Path(path).exists()


def recognised_classes(name: str | os.PathLike) -> tuple[str, ...]:
    """Names of the classes that come out well from nothing; empty where that is not known."""
    return _RECOGNISED.get(str(name), ()) if is_name(name) else ()


def card(name: str) -> pathlib.Path:
    """The card of a model: data, licence, training, scores, limits (Markdown)."""
    return _FOLDER / f"{name}.md"
