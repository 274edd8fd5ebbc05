"""COLMAP reconstructions: cameras and images, binary or text.

Poses are world-to-camera with OpenCV axes, quaternions wxyz, pixel centres at +0.5. The files of
points, rigs and frames are not needed.
"""

import dataclasses
import os
import re
import struct

import numpy as np
from etils import epath

from lgs_jax.data import archives, places, poses
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import RawFrame, RawScene
from lgs_jax.data.sources import folders


@dataclasses.dataclass(frozen=True)
class _Model:
    """A camera model. Its parameters are focals, cx, cy, then OpenCV's coefficients in their order.

    Attributes:
      name: COLMAP's.
      count: parameters in the file.
      focals: 1 if fx = fy, else 2.
      supported: whether it is a pinhole with OpenCV distortion at all.
    """

    name: str
    count: int
    focals: int
    supported: bool = True


_MODELS = {
    0: _Model("SIMPLE_PINHOLE", 3, 1),
    1: _Model("PINHOLE", 4, 2),
    2: _Model("SIMPLE_RADIAL", 4, 1),
    3: _Model("RADIAL", 5, 1),
    4: _Model("OPENCV", 8, 2),
    5: _Model("OPENCV_FISHEYE", 8, 2, supported=False),
    6: _Model("FULL_OPENCV", 12, 2),
    7: _Model("FOV", 5, 2, supported=False),
    8: _Model("SIMPLE_RADIAL_FISHEYE", 4, 1, supported=False),
    9: _Model("RADIAL_FISHEYE", 5, 1, supported=False),
    10: _Model("THIN_PRISM_FISHEYE", 12, 2, supported=False),
}
_BY_NAME = {model.name: model for model in _MODELS.values()}
_EXPECTED = "<folder>/images/* and <folder>/sparse/0/{cameras,images}.{bin,txt}"


@dataclasses.dataclass(frozen=True)
class Camera:
    """Intrinsics fx fy cx cy [4] in pixels, size (height, width), OpenCV distortion.

    `fault` says why the camera cannot be used; it is empty otherwise.
    """

    intrinsics: np.ndarray
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Image:
    """A registered image: its name, camera number and cam_from_world [4, 4]."""

    name: str
    camera: int
    cam_from_world: np.ndarray


class Colmap:
    """Parses a COLMAP folder, or a folder of such folders. Keys are the folders' names.

    Folders beside them that have images but no cameras are scenes that cannot be read.

    Raises:
      DataError: if no reconstruction is there.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike):
        root = places.place(root)
        self.name = f"colmap at {root}"
        if not root.is_dir():
            raise DataError(f"there is no folder {root}; expected {_EXPECTED}")
        self._folders = folders.scenes(root, lambda folder: find_model(folder) is not None)
        if not self._folders:
            raise DataError(f"{root} holds no reconstruction; expected {_EXPECTED}")
        self.keys = list(self._folders)

    def read(self, key: str) -> RawScene:
        """Parses one reconstruction."""
        folder = self._folders[key]
        model = find_model(folder)
        if model is None:
            raise DataError(
                f"{folder} holds no reconstruction, expected {_EXPECTED}; restore it or remove the "
                "folder"
            )
        return read_scene(model, folder / "images")


def find_model(folder: epath.Path) -> epath.Path | None:
    """The folder that holds the cameras: sparse/0, sparse or the folder itself."""
    for place in (folder / "sparse" / "0", folder / "sparse", folder):
        if any((place / f"cameras.{suffix}").is_file() for suffix in ("bin", "txt")):
            return place
    return None


def read_scene(model: archives.AnyPath, image_folder: archives.AnyPath) -> RawScene:
    """A reconstruction as a scene; frames are ordered by name, numbers by value.

    Frames whose name leads out of the folder of images are left out.

    Raises:
      DataError: if a file is missing or broken.
    """
    cameras, images = read_model(model)
    images = sorted(images, key=lambda image: natural_order(image.name))
    frames, faults = [], []
    for number, image in enumerate(images):
        camera = cameras.get(image.camera)
        if camera is None:
            faults.append((image.name, f"{model} has no camera {image.camera}; export it again"))
        elif camera.fault:
            faults.append((image.name, camera.fault))
        elif image.name.startswith("/") or ".." in image.name.split("/"):
            fault = (
                f"{model} names the image {image.name!r}, expected a path inside {image_folder}; "
                "put the image there and export the model again"
            )
            faults.append((image.name, fault))
        else:
            frames.append(
                RawFrame(
                    name=image.name,
                    path=_location(image_folder / image.name),
                    pose=image.cam_from_world,
                    intrinsics=camera.intrinsics,
                    timestamp=float(number),
                    size=camera.size,
                    distortion=camera.distortion,
                )
            )
    return RawScene(frames, faults, cam_from_world=True)


def _location(path: archives.AnyPath) -> str | archives.ZipPath:
    return str(path) if isinstance(path, epath.Path) else path


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Sorts img_2 before img_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def read_model(folder: archives.AnyPath) -> tuple[dict[int, Camera], list[Image]]:
    """Cameras by number and images of a model, binary if there is both.

    Raises:
      DataError: naming the file that is missing, cut off or of an unknown kind.
    """
    suffixes = [suffix for suffix in _PARSERS if (folder / f"cameras.{suffix}").is_file()]
    if not suffixes:
        raise DataError(f"{folder} has no cameras.bin or cameras.txt; expected {_EXPECTED}")
    parsed = []
    for name, parse in zip(("cameras", "images"), _PARSERS[suffixes[0]], strict=True):
        path = folder / f"{name}.{suffixes[0]}"
        if not path.is_file():
            raise DataError(f"{path} is missing; expected {_EXPECTED}")
        try:
            parsed.append(parse(path.read_bytes()))
        except (struct.error, ValueError, IndexError) as error:
            raise DataError(
                f"{path} cannot be parsed, it is cut off or no COLMAP file ({error}); export the "
                "model again"
            ) from error
    return parsed[0], parsed[1]


def _camera(model: _Model, width: int, height: int, values: list[float]) -> Camera:
    if len(values) != model.count:
        raise ValueError(f"{model.name} has {len(values)} parameters, expected {model.count}")
    focals, centre = values[: model.focals], values[model.focals : model.focals + 2]
    intrinsics = np.array([focals[0], focals[-1], *centre])
    if not model.supported:
        fault = (
            f"camera model {model.name} is not a pinhole with OpenCV distortion; undistort the "
            "images first (colmap image_undistorter)"
        )
        return Camera(intrinsics, (height, width), fault=fault)
    distortion = tuple(values[model.focals + 2 :])
    return Camera(intrinsics, (height, width), distortion)


def _image(name: str, camera: int, pose: list[float]) -> Image:
    rotation = poses.rotation_from_quat(np.array(pose[:4]))
    return Image(name, camera, poses.from_parts(rotation, np.array(pose[4:])))


def _cameras_from_bytes(data: bytes) -> dict[int, Camera]:
    (count,) = struct.unpack_from("<Q", data)
    offset, cameras = 8, {}
    for _ in range(count):
        number, model_id, width, height = struct.unpack_from("<IiQQ", data, offset)
        offset += struct.calcsize("<IiQQ")
        if model_id not in _MODELS:
            raise ValueError(f"unknown camera model number {model_id}")
        model = _MODELS[model_id]
        values = list(struct.unpack_from(f"<{model.count}d", data, offset))
        offset += 8 * model.count
        cameras[number] = _camera(model, width, height, values)
    return cameras


def _images_from_bytes(data: bytes) -> list[Image]:
    (count,) = struct.unpack_from("<Q", data)
    offset, images = 8, []
    for _ in range(count):
        _, *pose, camera = struct.unpack_from("<I7dI", data, offset)
        offset += struct.calcsize("<I7dI")
        end = data.index(b"\0", offset)
        name = data[offset:end].decode()
        if not name:
            raise ValueError(f"image {len(images)} has no name")
        (points,) = struct.unpack_from("<Q", data, end + 1)
        offset = end + 9 + 24 * points
        if offset > len(data):
            raise ValueError(f"it ends within the points of {name}")
        images.append(_image(name, camera, pose))
    return images


def _cameras_from_text(data: bytes) -> dict[int, Camera]:
    cameras = {}
    for line in data.decode().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        number, name, width, height, *values = line.split()
        if name not in _BY_NAME:
            raise ValueError(f"unknown camera model {name}")
        cameras[int(number)] = _camera(
            _BY_NAME[name], int(width), int(height), [float(value) for value in values]
        )
    return cameras


def _images_from_text(data: bytes) -> list[Image]:
    # Two lines an image; the second, of 2D points, may be empty and is not needed.
    lines = [line for line in data.decode().splitlines() if not line.startswith("#")]
    while lines and not lines[0].strip():
        lines.pop(0)
    images = []
    for line in lines[::2]:
        if not line.strip():
            continue
        _, *pose, camera, name = line.split(maxsplit=9)
        images.append(_image(name.strip(), int(camera), [float(value) for value in pose]))
    return images


_PARSERS = {
    "bin": (_cameras_from_bytes, _images_from_bytes),
    "txt": (_cameras_from_text, _images_from_text),
}
