"""NeRF transforms.json: camera-to-world poses with OpenGL axes.

Intrinsics (`fl_x fl_y cx cy w h`, or `camera_angle_x`) and OpenCV distortion (`k1 k2 p1 p2 k3`)
stand at the top or in a frame; the frame wins, whichever of the two spellings it uses.
"""

import math
import os
from typing import Any

import numpy as np
from etils import epath

from lgs_jax import files
from lgs_jax.data import images, places, poses
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import RawFrame, RawScene
from lgs_jax.data.sources import folders
from lgs_jax.data.sources.colmap import natural_order

_FILES = ("transforms.json", "transforms_train.json")
_DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
_PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
# A focal length may be told as an angle; a frame's replaces both at the top.
_OTHER_SPELLING = {"fl_x": "camera_angle_x", "fl_y": "camera_angle_y"}
_OTHER_SPELLING |= {angle: focal for focal, angle in _OTHER_SPELLING.items()}
_EXPECTED = "a transforms.json, a folder with one, or a folder of such folders"


class Transforms:
    """Parses one transforms.json or many. Keys are the names of the folders that hold them.

    Folders beside them that have images but no such file are scenes that cannot be read.

    Raises:
      DataError: if there is none.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike):
        root = places.place(root)
        self.name = f"transforms at {root}"
        if not root.exists():
            raise DataError(f"there is no {root}; expected {_EXPECTED}")
        if root.is_file():
            self._places = {root.resolve().parent.name: root}
        else:
            self._places = folders.scenes(root, lambda folder: _find(folder) is not None)
        if not self._places:
            raise DataError(f"{root} holds no transforms.json; expected {_EXPECTED}")
        self.keys = list(self._places)

    def read(self, key: str) -> RawScene:
        """Parses one file; frames are ordered by file name, numbers by value."""
        place = self._places[key]
        path = place if place.is_file() else _find(place) or place / _FILES[0]
        try:
            content = files.read_json(path)
            entries = content["frames"]
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing; restore it or remove the folder") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no JSON object with a list 'frames' ({error!r}); export it again"
            ) from error
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise DataError(f"{path}: 'frames' is no list of objects; export it again")
        entries = sorted(entries, key=lambda e: natural_order(str(e.get("file_path", ""))))
        frames, faults = [], []
        for number, entry in enumerate(entries):
            try:
                frames.append(_frame(number, entry, content, path.parent))
            except DataError as error:
                name = str(entry.get("file_path") or f"number {number}")
                faults.append((name, f"{path}: {error}"))
        return RawScene(frames, faults)


def _find(folder: epath.Path) -> epath.Path | None:
    """The file of a folder."""
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)


def with_top(entry: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """The values of a frame: its own, and those at the top of the file that it does not replace."""
    return {k: v for k, v in top.items() if _OTHER_SPELLING.get(k) not in entry} | entry


def _frame(number: int, entry: dict[str, Any], top: dict[str, Any], folder: epath.Path) -> RawFrame:
    values = with_top(entry, top)
    if "file_path" not in entry:
        raise DataError("a frame has no 'file_path'; add it")
    path = _image_path(_place(folder, entry, "file_path"))
    try:
        matrix = np.asarray(entry.get("transform_matrix"), np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape not in ((4, 4), (3, 4)):
        raise DataError(
            f"'transform_matrix' has shape {matrix.shape}, expected 4x4 numbers; export it again"
        )
    # Column by column: a product of matrices would spread an infinite entry with a warning.
    matrix[:3] *= poses.CV_FROM_GL.diagonal()
    size = _size(values, path)
    masked = values.get("mask_path") is not None
    return RawFrame(
        name=entry["file_path"],
        path=str(path),
        pose=np.vstack([matrix, np.eye(4)[len(matrix) :]]),
        intrinsics=_intrinsics(values, size),
        timestamp=float(number),
        size=size,
        distortion=_distortion(values),
        mask=str(_place(folder, values, "mask_path")) if masked else None,
    )


def _image_path(path: epath.Path) -> epath.Path:
    """The file, also where the JSON leaves the suffix out."""
    if path.is_file():
        return path
    for suffix in images.SUFFIXES:
        candidate = path.with_name(path.name + suffix)
        if candidate.is_file():
            return candidate
    raise DataError(f"image {path} is missing (with or without a suffix); restore it")


def _number(values: dict[str, Any], name: str, default: float | None = None) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{name!r} is {value!r}, expected a number; repair the file")
    if not abs(value) < poses.MAX_COORDINATE:  # NaN is not less
        raise DataError(
            f"{name!r} is not finite or beyond {poses.MAX_COORDINATE:g}; repair the file"
        )
    return float(value)


def _focal_length(values: dict[str, Any], angle: str, length: int) -> float:
    """In pixels, of images that are `length` pixels long where the angle is measured."""
    radians = _number(values, angle)
    if not 0 < radians < math.pi:
        raise DataError(f"{angle!r} is {radians}, expected radians between 0 and pi; repair it")
    return 0.5 * length / math.tan(0.5 * radians)


def _place(folder: epath.Path, values: dict[str, Any], name: str) -> epath.Path:
    """The file that a frame names, in the capture's folder or beside that."""
    value = values[name]
    if not isinstance(value, str) or not value:
        raise DataError(f"{name!r} is {value!r}, expected the path of a file; repair it")
    if not places.is_inside(folder, value, or_beside=True):
        raise DataError(
            f"{name!r} is {value!r}, expected a path inside {folder} or the folder around it; put "
            "the file there and correct the path"
        )
    return places.child(folder, value)


def _size(values: dict[str, Any], path: epath.Path) -> tuple[int, int]:
    """Height and width: declared, or else the file's."""
    if "w" in values and "h" in values:
        return round(_number(values, "h")), round(_number(values, "w"))
    size, orientation = images.header(str(path))
    if orientation != 1:
        raise DataError(
            f"image {path} carries EXIF orientation {orientation} and the file declares no w and "
            "h, so it is open which image the cameras mean; add them"
        )
    return size


def _intrinsics(values: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if "fl_x" in values:
        fx = _number(values, "fl_x")
    elif "camera_angle_x" in values:
        fx = _focal_length(values, "camera_angle_x", width)
    else:
        raise DataError("neither 'fl_x' nor 'camera_angle_x' is given; add one of them")
    if "fl_y" in values:
        fy = _number(values, "fl_y")
    elif "camera_angle_y" in values:
        fy = _focal_length(values, "camera_angle_y", height)
    else:
        fy = fx
    centre = _number(values, "cx", width / 2), _number(values, "cy", height / 2)
    return np.array([fx, fy, *centre])


def _distortion(values: dict[str, Any]) -> tuple[float, ...]:
    model = values.get("camera_model", "OPENCV")
    if model not in _PINHOLE_MODELS or values.get("is_fisheye"):
        kind = "a fisheye" if values.get("is_fisheye") else f"camera model {model}"
        raise DataError(
            f"{kind} is not a pinhole with OpenCV distortion; undistort the images first"
        )
    coefficients = tuple(_number(values, name, 0.0) for name in _DISTORTION)
    if any(coefficients[5:]) and model != "FULL_OPENCV":
        raise DataError(
            f"k4 to k6 are {coefficients[5:]}, which camera model {model} does not have; set "
            "camera_model to FULL_OPENCV if they are OpenCV's, or undistort the images first"
        )
    return coefficients
