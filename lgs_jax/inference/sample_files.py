"""What a person gets of samples: splats, videos, a grid, a contact sheet, a map of what is unsure.

Letters: S samples, V views of the latents, K frames of a video.
"""

import functools
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import trajectories
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.metrics.image import psnr
from lgs_jax.rendering.api import render
from lgs_jax.tasks import panels

VIDEO_FRAMES = 48
# Files of what `make` returns, which come and go with the number of samples.
_OF_SAMPLES = re.compile(r"sample_\d+\.ply|turntable_\d+\.mp4|spread\.png")


def check_folder(folder: pathlib.Path, *, overwrite: bool) -> None:
    """Makes sure that samples can be written to a folder, before they are drawn; leaves no trace.

    Raises:
      OSError: if it is a file, is not empty though nothing may be overwritten, or cannot be made or
        written.
    """
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(f"{folder} is not empty; choose another --output, or --overwrite")
    absent = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        for each in absent:
            each.rmdir()
    except OSError as error:
        raise OSError(
            f"the folder {folder} cannot be written ({error.strerror}); choose another --output"
        ) from error


def remove_others(folder: pathlib.Path, shown: Mapping[str, Any]) -> list[pathlib.Path]:
    """Removes files of other samples than those to be shown from a folder; returns their paths."""
    others = [
        path
        for path in sorted(folder.glob("*"))
        if _OF_SAMPLES.fullmatch(path.name) and path.stem not in shown
    ]
    for path in others:
        path.unlink()
    return others


def make(
    scenes: Gaussians,
    cameras: Cameras,
    *,
    image_size: tuple[int, int],
    known: Sequence[np.ndarray] = (),
    video_frames: int = VIDEO_FRAMES,
) -> tuple[dict[str, Any], np.ndarray]:
    """Pictures and videos of samples [S], by file name; see `visuals.write_visuals`.

    Args:
      scenes: the samples, in the frame of the cameras.
      cameras: of the latents [V], for images of `image_size`.
      image_size: H, W.
      known: photographs uint8 [H, W, 3] that the samples were given, shown above them.
      video_frames: K.

    Returns:
      What to write: `sample_<i>` (the splats), `turntable_<i>` (along the cameras and back), `grid`
      (a row per sample, a column per view), `contact_sheet` (one picture of each sample) and, for
      two samples or more, `spread` (per pixel of each view, the standard deviation over the
      samples: dark is sure). And the samples as seen from the cameras, float [S, V, H, W, 3].
    """
    draw = jax.jit(
        functools.partial(render, height=image_size[0], width=image_size[1], depth_mode=None)
    )
    path = trajectories.interpolate(cameras, video_frames, loop=True)
    everywhere = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), cameras, path)
    pictures, visuals = [], {}
    for i in range(scenes.batch_shape[0]):
        rgb = np.asarray(draw(scenes[i], everywhere).rgb)
        pictures.append(rgb[: len(cameras)])
        visuals[f"sample_{i}"] = scenes[i]
        visuals[f"turntable_{i}"] = panels.to_uint8(rgb[len(cameras) :])
    shown = np.stack(pictures)
    rows = [list(known)] if len(known) else []
    titles = (["given"] if rows else []) + [f"sample {i}" for i in range(len(shown))]
    rows += [list(panels.to_uint8(row)) for row in shown]
    visuals["grid"] = panels.grid(rows, row_titles=titles)
    visuals["contact_sheet"] = contact_sheet(list(panels.to_uint8(shown[:, 0])))
    if len(shown) > 1:
        spread = shown.std(axis=0).mean(axis=-1)
        visuals["spread"] = panels.grid([list(panels.to_uint8(panels.turbo(4.0 * spread)))])
    return visuals, shown


def scores(
    shown: np.ndarray, photographs: Mapping[int, np.ndarray], known: Sequence[int]
) -> dict[str, float]:
    """Mean PSNR (dB) of samples [S, V, H, W, 3] against the photographs of their views.

    Args:
      shown: the samples as seen from the cameras.
      photographs: uint8 [H, W, 3] by view, as many as there are.
      known: the views that the samples were given.

    Returns:
      "given" and "other", where there are such views: over all samples and views.
    """
    kinds = {
        "given": [i for i in photographs if i in known],
        "other": [i for i in photographs if i not in known],
    }
    result = {}
    for kind, views in kinds.items():
        if views:
            truth = np.stack([np.float32(photographs[i]) / 255 for i in views])
            pictures = shown[:, np.array(views)]
            result[kind] = float(np.mean(psnr(pictures, np.broadcast_to(truth, pictures.shape))))
    return result


def contact_sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures uint8 [h, w, 3] in a block about as wide as high."""
    columns = int(np.ceil(np.sqrt(len(pictures))))
    return panels.grid([pictures[i : i + columns] for i in range(0, len(pictures), columns)])
