"""What a person gets of samples: splats, videos, grids of pictures and depth, what is unsure.

Letters: S samples, V views of the latents, K frames of a video.
"""

import contextlib
import functools
import pathlib
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference import scene_video
from lgs_jax.metrics.image import psnr
from lgs_jax.rendering.api import render
from lgs_jax.tasks import panels

VIDEO_FRAMES = 48
# Pixels of the shorter side of a video, of a model with smaller images.
VIDEO_SIDE = 192
# Files that come and go with the number of samples, and of photographs that they were given.
_OF_SAMPLES = re.compile(r"sample_\d+\.ply|turntable_\d+\.mp4|spread\.png|input_\d+\.png")
# Lies in a folder while samples are written to it.
_LOCK = ".writing"
# The standard deviation that has the last colour of `spread`, of colours in [0, 1].
_MOST_SPREAD = 0.25


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


@contextlib.contextmanager
def claimed(folder: pathlib.Path, *, overwrite: bool) -> Iterator[None]:
    """Makes a folder, to which no other command writes samples during the block.

    Raises:
      FileExistsError: if another one does, or has since `check_folder`.
    """
    again = "nothing was written; with another --output the same seed draws the same samples"
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / _LOCK
    try:
        lock.touch(exist_ok=False)
    except FileExistsError as error:
        raise FileExistsError(
            f"another command writes to {folder} (if none does, remove {lock}); {again}"
        ) from error
    try:
        if not overwrite and list(folder.iterdir()) != [lock]:
            raise FileExistsError(
                f"{folder} is not empty any more, another command has written to it; {again}"
            )
        yield
    finally:
        lock.unlink()


def remove_others(
    folder: pathlib.Path, shown: Collection[str], inputs: Collection[str] = ()
) -> list[pathlib.Path]:
    """Removes files of other samples and photographs from a folder; returns their paths.

    Args:
      folder: where they lie.
      shown: names of the visuals that are about to be written.
      inputs: file names of the photographs that are.
    """
    others = [
        path
        for path in sorted(folder.glob("*"))
        if _OF_SAMPLES.fullmatch(path.name) and path.stem not in shown and path.name not in inputs
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
    titles: Sequence[str] | None = None,
    video_frames: int = VIDEO_FRAMES,
) -> tuple[dict[str, Any], np.ndarray]:
    """Pictures and videos of samples [S], by file name; see `visuals.write_visuals`.

    Args:
      scenes: the samples, in the frame of the cameras.
      cameras: of the latents [V], for images of `image_size`.
      image_size: H, W.
      known: photographs uint8 [H, W, 3] that the samples were given, shown above them.
      titles: of the samples, in the pictures; None: their numbers. See `titles_of`.
      video_frames: K.

    Returns:
      What to write: `sample_<i>` (the splats), `turntable_<i>` (around what the cameras look at,
      smooth, at least `VIDEO_SIDE` pixels a side), `grid` and `depth` (a row per sample, a column
      per view), `contact_sheet` (one picture of each sample, titled) and, for two samples or more,
      `spread` (per pixel of each view, the standard deviation over the samples: dark is
      sure). And the samples as seen from the cameras, float [S, V, H, W, 3].
    """
    draw = jax.jit(functools.partial(render, height=image_size[0], width=image_size[1]))
    pictures, depths, seen, visuals = [], [], [], {}
    for i in range(scenes.batch_shape[0]):
        rendering = draw(scenes[i], cameras)
        pictures.append(np.asarray(rendering.rgb))
        depths.append(np.asarray(rendering.depth[..., 0]))
        seen.append(np.asarray(rendering.alpha[..., 0]) > 0.5)
        visuals[f"sample_{i}"] = scenes[i]
        visuals[f"turntable_{i}"] = _turntable(scenes[i], cameras, image_size, video_frames)
    shown = np.stack(pictures)
    rows = [list(known)] if len(known) else []
    titles = titles_of([""] * len(shown)) if titles is None else list(titles)
    row_titles = (["given"] if rows else []) + titles
    rows += [list(panels.to_uint8(row)) for row in shown]
    visuals["grid"] = panels.grid(rows, row_titles=row_titles)
    visuals["depth"] = _depth_sheet(np.stack(depths), np.stack(seen), titles)
    visuals["contact_sheet"] = contact_sheet(list(panels.to_uint8(shown[:, 0])), titles)
    if len(shown) > 1:
        visuals["spread"] = _spread_sheet(shown)
    return visuals, shown


def _turntable(
    scene: Gaussians, cameras: Cameras, image_size: tuple[int, int], num_frames: int
) -> np.ndarray:
    """A video uint8 [K, H', W', 3] that looks like the small pictures, enlarged smoothly."""
    path = scene_video.make_path("turntable", cameras, num_frames)
    height = round(image_size[0] * max(VIDEO_SIDE / min(image_size), 1.0))
    path, size, factor = scene_video.enlarged(path, image_size, height)
    return scene_video.draw(scene, path, size, blur=factor, say=lambda _: None)


def _depth_sheet(depths: np.ndarray, seen: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """Depths [S, V, H, W] in the colours of one range; black where little is `seen`."""
    colours, _, _ = panels.colorize_depth(depths, seen)
    rows = panels.grid(list(map(list, colours)), row_titles=titles)
    return panels.grid([[rows], [panels.color_scale("far", "near")]])


def _spread_sheet(shown: np.ndarray) -> np.ndarray:
    """The spread over samples [S, V, H, W, 3], with what its colours mean."""
    spread = shown.std(axis=0).mean(axis=-1)
    views = panels.grid([list(panels.to_uint8(panels.turbo(spread / _MOST_SPREAD)))])
    scale = panels.color_scale("0: all agree", f"{_MOST_SPREAD:g} or more")
    title = f"standard deviation over {len(shown)} samples"
    return panels.grid([[views], [scale]], column_titles=[title])


def titles_of(classes: Sequence[str]) -> list[str]:
    """Titles of samples, with the name of the class of each where that is not empty."""
    return [f"sample {i}" + (name and f": {name}") for i, name in enumerate(classes)]


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


def contact_sheet(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> np.ndarray:
    """Pictures uint8 [h, w, 3] below their titles, in a block about as wide as high."""
    short = [title.removeprefix("sample ") for title in titles]
    cells = [panels.grid([[p]], [title], padding=0) for p, title in zip(pictures, short)]
    columns = int(np.ceil(np.sqrt(len(cells))))
    return panels.grid([cells[i : i + columns] for i in range(0, len(cells), columns)])
