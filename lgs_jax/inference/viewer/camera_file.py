"""Cameras to look from, as a NeRF transforms.json whose pictures may be missing.

Unlike the data source of that name, this reads cameras without photographs, such as those of a
made-up path. Axes in the file are OpenGL's (x right, y up, z back). Letters: V cameras.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from lgs_jax import files
from lgs_jax.core.cameras import Cameras
from lgs_jax.data import images as image_lib
from lgs_jax.data import places, poses
from lgs_jax.data.sources import transforms

NAME = "transforms.json"
MADE_UP = (
    f"the cameras are made up, as there is no {NAME} beside the scene; --transforms names another "
    "place"
)

_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


@dataclasses.dataclass(frozen=True)
class Viewpoints:
    """Cameras, and what is known of their pictures.

    Attributes:
      cameras: [V].
      sizes: height and width of their pictures [V, 2].
      images: the photographs uint8 [H, W, 3], None where there is none.
    """

    cameras: Cameras
    sizes: np.ndarray
    images: tuple[np.ndarray | None, ...]


def image_name(index: int) -> str:
    """The file beside the cameras that holds the photograph of one of them."""
    return f"input_{index}.png"


def save(
    path: str | pathlib.Path,
    cameras: Cameras,
    image_size: tuple[int, int],
    images: Sequence[np.ndarray | None] = (),
) -> pathlib.Path:
    """Writes cameras, and beside them their photographs, which the file names; returns its path.

    Args:
      path: of the file.
      cameras: [V].
      image_size: H, W of their pictures.
      images: photographs uint8 [h, w, 3] of the cameras, None where there is none.

    Raises:
      ValueError: if there are photographs, but not as many as cameras.
    """
    path, (height, width) = pathlib.Path(path), image_size
    if len(images) not in (0, len(cameras)):
        raise ValueError(
            f"{path}: {len(images)} images for {len(cameras)} cameras; give None for gaps"
        )
    frames = []
    for pose, intrinsics in zip(
        np.asarray(cameras.world_from_cam, np.float64) @ poses.CV_FROM_GL,
        np.asarray(cameras.intrinsics, np.float64),
        strict=True,
    ):
        lens = dict(zip(("fl_x", "fl_y", "cx", "cy"), intrinsics.tolist(), strict=True))
        frames.append({**lens, "transform_matrix": pose.tolist()})
    for i, image in enumerate(images):
        if image is not None:
            frames[i]["file_path"] = image_name(i)
            with files.replacing(path.with_name(image_name(i))) as partial:
                Image.fromarray(image).save(partial)
    with files.replacing(path) as partial:
        partial.write_text(json.dumps({"w": width, "h": height, "frames": frames}, indent=1))
    return path


def find(named: str | pathlib.Path | None, folder: pathlib.Path | None) -> Viewpoints | None:
    """The cameras of a file (or its folder) that is named, else those in `folder`, else None."""
    if named is not None:
        path = pathlib.Path(named).expanduser()
        return load(path / NAME if path.is_dir() else path)
    beside = folder and folder / NAME
    if not (beside and beside.is_file()):
        return None
    print(f"cameras from {beside}")
    return load(beside)


def load(path: str | pathlib.Path) -> Viewpoints:
    """Reads cameras in the order of the file, and the photographs that lie where it says.

    Photographs with lens distortion are left out: the scene is drawn without. So are those that lie
    neither in the folder of the file nor in the one around it.

    Raises:
      ValueError: naming the file and what is wrong with it, a broken photograph included.
    """
    path = pathlib.Path(path)
    try:
        content = files.read_json(path)
        entries = [transforms.with_top(entry, content) for entry in content["frames"]]
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}; expected cameras to look from") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a JSON object with a list 'frames', as in a NeRF transforms.json "
            f"({error!r})"
        ) from error
    if not entries:
        raise ValueError(f"{path}: 'frames' is empty; there is no camera to look from")
    views = [_frame(f"{path}: frame {i}", path.parent, entry) for i, entry in enumerate(entries)]
    maps, intrinsics, sizes, images = zip(*views, strict=True)
    for i, fault in enumerate(poses.pose_faults(np.stack(maps))):
        fault = fault or poses.intrinsics_fault(intrinsics[i], sizes[i])
        if fault:
            raise ValueError(f"{path}: frame {i}: {fault}")
    cameras = Cameras(
        jnp.asarray(np.stack(maps), jnp.float32), jnp.asarray(np.stack(intrinsics), jnp.float32)
    )
    return Viewpoints(cameras, np.array(sizes), images)


def _frame(
    where: str, folder: pathlib.Path, entry: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, tuple[int, int], np.ndarray | None]:
    """Pose, intrinsics, size and photograph of a frame."""

    def number(name: str, default: float | None = None) -> float:
        value = entry.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}: {name!r} is {value!r}, expected a number; add it")
        return float(value)

    try:
        matrix = np.asarray(entry["transform_matrix"], np.float64)
    except (KeyError, TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"{where}: 'transform_matrix' must be 4x4 numbers; export it again")
    distorted = bool(entry.get("is_fisheye")) or any(number(name, 0.0) for name in _DISTORTION)
    image = None if distorted else _photograph(folder, entry.get("file_path"))
    default_height, default_width = (None, None) if image is None else image.shape[:2]
    height, width = number("h", default_height), number("w", default_width)
    if not (1 <= height < 1e6 and 1 <= width < 1e6):
        raise ValueError(f"{where}: 'w' and 'h' are {width:g} and {height:g}; expected pixels")
    if "camera_angle_x" in entry and "fl_x" not in entry:
        focal = 0.5 * width / math.tan(0.5 * number("camera_angle_x"))
    else:
        focal = number("fl_x")
    centre = number("cx", width / 2), number("cy", height / 2)
    pose = np.vstack([matrix, np.eye(4)[len(matrix) :]])
    pose[:3] *= poses.CV_FROM_GL.diagonal()
    intrinsics = np.array([focal, number("fl_y", focal), *centre])
    return pose, intrinsics, (round(height), round(width)), image


def _photograph(folder: pathlib.Path, name: str | None) -> np.ndarray | None:
    """The picture of a frame, also where the file leaves its suffix out; None if there is none."""
    if not isinstance(name, str) or not places.is_inside(folder, name, or_beside=True):
        return None
    for suffix in ("", *image_lib.SUFFIXES):
        candidate = folder / f"{name}{suffix}"
        if candidate.is_file():
            return image_lib.read_photograph(str(candidate))
    return None
