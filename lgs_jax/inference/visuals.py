"""Writes what a task shows: pictures, videos and scenes, each to the format that fits it."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from lgs_jax import files
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference import video
from lgs_jax.inference.export import ply


def write_visuals(
    directory: str | pathlib.Path,
    visuals: Mapping[str, Any],
    *,
    upscale: int = 1,
    fps: float = 24,
    min_video_side: int = video.MIN_SIDE,
) -> list[pathlib.Path]:
    """Writes every entry to `directory/<name>.<suffix>` and returns the paths in order.

    Args:
      directory: created if absent.
      visuals: by name (which may hold folders, "eval/kitchen"): uint8 [H, W, 3] becomes a PNG,
        uint8 [T, H, W, 3] an mp4, `Gaussians` of one scene a .ply.
      upscale: whole number by which pictures are enlarged without smoothing; videos are enlarged
        on their own, see `save_video`.
      fps: frames per second of the videos.
      min_video_side: pixels of their shorter side from which on they are not enlarged.

    Raises:
      ValueError: if an entry is none of these or a name leads out of the directory; nothing has
        been written then.
    """
    directory = pathlib.Path(directory)
    suffixes = {name: _suffix(name, value) for name, value in visuals.items()}
    written = []
    for name, value in visuals.items():
        path = directory / f"{name}{suffixes[name]}"
        if suffixes[name] == ".png":
            with files.replacing(path) as partial:
                Image.fromarray(video.enlarge(np.asarray(value), upscale)).save(partial)
        elif suffixes[name] == ".mp4":
            video.save_video(path, value, fps, min_side=min_video_side)
        else:
            ply.save_ply(path, value)
        written.append(path)
    return written


def _suffix(name: str, value: Any) -> str:
    """The suffix of the format for a value, or an error that says what is wrong with it."""
    pure = pathlib.PurePath(name)
    if not name or pure.is_absolute() or ".." in pure.parts:
        raise ValueError(f"visual {name!r}: expected a relative name inside the directory")
    if isinstance(value, Gaussians):
        return ".ply"
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    if dtype == np.uint8 and shape[-1:] == (3,) and len(shape) in (3, 4) and 0 not in shape:
        return ".png" if len(shape) == 3 else ".mp4"
    found = f"{dtype} {tuple(shape)}" if dtype is not None else type(value).__name__
    raise ValueError(
        f"visual {name!r} is {found}; expected a picture uint8 [H, W, 3], a video uint8 "
        "[T, H, W, 3] or Gaussians. Float images in [0, 1] go through panels.to_uint8 first"
    )
