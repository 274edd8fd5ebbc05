"""A scene as seen along a path of cameras: pictures for a video. Letters: V cameras, K frames."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lgs_jax.core import cameras as camera_lib
from lgs_jax.core import trajectories
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data import crops, progress
from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import constants
from lgs_jax.tasks import panels

PATHS = ("fly", "turntable", "wobble")
BESIDE = ("input", "depth")
MAX_SIDE = 8192  # pixels, which is also what players of H.264 show

# Of the distance to what the cameras look at, for a path around one camera.
_WOBBLE = 0.03


def make_path(name: str, cameras: Cameras, num_frames: int, number: int = 0) -> Cameras:
    """A closed path [K]: through the cameras [V], around what they look at, or around one."""
    if name == "fly":
        return trajectories.interpolate(cameras, num_frames, loop=True)
    if name == "turntable":
        return trajectories.orbit(cameras, num_frames)
    if name == "wobble":
        focus = trajectories.focus_point(cameras)
        distance = float(np.linalg.norm(np.asarray(cameras.centers[number] - focus)))
        return trajectories.wobble(cameras[number], num_frames, _WOBBLE * distance, distance)
    raise ValueError(f"{name=} must be one of {', '.join(PATHS)}")


def turntable_note(cameras: Cameras) -> str:
    """How far a turntable of cameras [V] turns, in words; empty where it goes all the way round."""
    degrees = trajectories.orbit_degrees(cameras)
    if degrees == 360:
        return ""
    return (
        f"the turntable sways over {degrees:.0f} degrees instead of turning round, as no camera "
        "looks from farther around"
    )


def enlarged(
    cameras: Cameras, image_size: tuple[int, int], height: int
) -> tuple[Cameras, tuple[int, int], float]:
    """Cameras for images of another height and the same shape, their size H, W, and the factor.

    Raises:
      ValueError: if a side of the images would exceed `MAX_SIDE` pixels.
    """
    factor = height / image_size[0]
    width = max(round(image_size[1] * factor), 1)
    if max(height, width) > MAX_SIDE:
        raise ValueError(
            f"pictures of {height=} would be {width} x {height} pixels large; at most {MAX_SIDE} "
            "a side can be drawn, choose a smaller height"
        )
    resized = camera_lib.resize(cameras, scale_x=width / image_size[1], scale_y=factor)
    return resized, (height, width), factor


# One for all scenes, so that those of one size are compiled once.
_render = jax.jit(render, static_argnames=("height", "width", "background", "depth_mode", "eps2d"))


def draw(
    scene: Gaussians,
    path: Cameras,
    image_size: tuple[int, int],
    *,
    background: float = 0.0,
    blur: float = 1.0,
    beside: Sequence[str] = (),
    cameras: Cameras | None = None,
    images: Sequence[np.ndarray | None] = (),
    say: Callable[[str], None] = print,
) -> np.ndarray:
    """Pictures uint8 [K, H, W', 3] along a path.

    Args:
      scene: one RGB scene.
      path: cameras [K] for images of `image_size`.
      image_size: H, W.
      background: grey behind the splats, 0 to 1.
      blur: standard deviation of the pixel blur relative to that of `render`; the factor of an
        enlargement shows the scene as its small images, enlarged.
      beside: what stands to the right of each picture: `depth`, or to its left: `input`, the
        photograph of the nearest camera.
      cameras: [V], of the photographs.
      images: photographs uint8 [h, w, 3] of the cameras, None where there is none.
      say: told of the progress.

    Raises:
      ValueError: if there is no photograph to show.
    """
    height, width = image_size
    one = functools.partial(
        _render,
        height=height,
        width=width,
        background=background,
        depth_mode="expected" if "depth" in beside else None,
        eps2d=constants.EPS2D * blur**2,
    )
    inputs = _inputs(path, cameras, images, image_size) if "input" in beside else None
    counter = progress.Progress(len(path), "frames", say, every_s=2.0)
    pictures, depths, seen = [], [], []
    for camera in (path[k] for k in range(len(path))):
        rendering = one(scene, camera)
        pictures.append(panels.to_uint8(rendering.rgb))
        if rendering.depth is not None:
            depths.append(np.asarray(rendering.depth[..., 0]))
            seen.append(np.asarray(rendering.alpha[..., 0]) > 0.5)
        counter.add()
    frames = np.stack(pictures)
    if inputs is not None:
        frames = np.concatenate([inputs, frames], axis=2)
    if depths:  # in the colours of one range, so that they do not flicker
        colours, _, _ = panels.colorize_depth(np.stack(depths), np.stack(seen))
        frames = np.concatenate([frames, colours], axis=2)
    return frames


def _inputs(
    path: Cameras,
    cameras: Cameras | None,
    images: Sequence[np.ndarray | None],
    image_size: tuple[int, int],
) -> np.ndarray:
    """The photograph of the nearest camera that has one, for each frame."""
    known = [i for i, image in enumerate(images) if image is not None]
    if cameras is None or not known:
        raise ValueError("there is no photograph to show beside the scene; leave out 'input'")
    height, width = image_size
    fitted = {}
    for i in known:
        box = crops.centre_box(images[i].shape[:2], width / height)
        fitted[i] = crops.crop_resize(images[i], box, height, width)
    centers = np.asarray(cameras.centers)[known]
    offsets = np.asarray(path.centers)[:, None] - centers
    nearest = np.argmin(np.linalg.norm(offsets, axis=-1), axis=1)
    return np.stack([fitted[known[i]] for i in nearest])
