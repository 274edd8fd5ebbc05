"""All formats of splat files, by suffix."""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import gltf, ply, splat, spz, usd


@dataclasses.dataclass(frozen=True)
class Format:
    """How one kind of file is written and read.

    Attributes:
      save: (path, scene, **options) -> path.
      load: path -> scene.
      is_lossless: whether all that is lost is the rounding to float32 of what is stored.
    """

    save: Callable[..., pathlib.Path]
    load: Callable[[str | pathlib.Path], Gaussians]
    is_lossless: bool


FORMATS = {
    ".ply": Format(ply.save_ply, ply.load_ply, is_lossless=True),
    ".splat": Format(splat.save_splat, splat.load_splat, is_lossless=False),
    ".spz": Format(spz.save_spz, spz.load_spz, is_lossless=False),
    ".glb": Format(gltf.save_glb, gltf.load_glb, is_lossless=True),
    **{s: Format(usd.save_usd, usd.load_usd, is_lossless=True) for s in usd.SUFFIXES},
}


def save(path: str | pathlib.Path, scene: Gaussians, **options: Any) -> pathlib.Path:
    """Writes one scene (N Gaussians, RGB) in the format that the suffix names; returns the path.

    Args:
      path: of the file.
      scene: what to write.
      **options: of the format, such as `version` of .spz.

    Raises:
      ValueError: if the suffix or an option is unknown, or the format cannot hold the scene.
      OSError: if the file cannot be written.
    """
    check_options(path, options)
    try:
        return of(path).save(path, scene, **options)
    except OSError as error:  # which names a file that is renamed when it is whole
        raise OSError(f"{path} cannot be written ({error.strerror or error})") from error


def load(path: str | pathlib.Path) -> Gaussians:
    """Reads the scene of N Gaussians in a file.

    Raises:
      ValueError: naming the file, if its suffix is unknown or something is wrong with it.
      OSError: if it is a folder, is not there or cannot be read.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give one of the splat files in it")
    form = of(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    return form.load(path)


def of(path: str | pathlib.Path) -> Format:
    """The format of a file, by its suffix.

    Raises:
      ValueError: if there is none.
    """
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(
            f"{path}: {suffix!r} is no format of splat files; known: {', '.join(FORMATS)}"
        )
    return FORMATS[suffix]


def check_options(path: str | pathlib.Path, options: Iterable[str]) -> None:
    """Refuses options that the format of a file does not have.

    Raises:
      ValueError: naming them and those that there are, or if the suffix is unknown.
    """
    parameters = inspect.signature(of(path).save).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"{path}: this format has no option {', '.join(unknown)}; it has "
            f"{', '.join(known) or 'none'}"
        )
