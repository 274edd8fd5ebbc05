"""LLFF: `poses_bounds.npy` beside a folder of images.

One row of 17 numbers an image, in the order of the images' names: a 3x5 matrix row by row, then the
nearest and the farthest depth. The matrix is camera-to-world [R | t] whose camera axes are down,
right, back, and a last column of height, width and focal length in pixels of the original images.
Mildenhall et al., "Local light field fusion", https://github.com/Fyusion/LLFF.
"""

import io
import os

import numpy as np
from etils import epath

from lgs_jax import files
from lgs_jax.data import images, places, poses
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import RawFrame, RawScene
from lgs_jax.data.sources import folders
from lgs_jax.data.sources.colmap import natural_order

_FILE = "poses_bounds.npy"
_EXPECTED = f"<scene>/{_FILE} and <scene>/images/*, or a folder of such folders"


class Llff:
    """Parses one LLFF scene or a folder of them. Keys are the names of the scenes' folders.

    Images are those of `images`, or else of the least reduced `images_<n>`. Folders beside the
    scenes that have images but no poses are scenes that cannot be read.

    Raises:
      DataError: if there is none.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike):
        root = places.place(root)
        self.name = f"llff at {root}"
        if not root.is_dir():
            raise DataError(f"there is no folder {root}; expected {_EXPECTED}")
        self._folders = folders.scenes(root, lambda folder: (folder / _FILE).is_file())
        if not self._folders:
            raise DataError(f"{root} holds no {_FILE}; expected {_EXPECTED}")
        self.keys = list(self._folders)

    def read(self, key: str) -> RawScene:
        """Parses one scene."""
        folder = self._folders[key]
        rows = _read_rows(folder / _FILE)
        pictures = _image_files(folder)
        if len(pictures) != len(rows):
            raise DataError(
                f"{folder / _FILE} has {len(rows)} rows, {pictures[0].parent} has {len(pictures)} "
                "images; they belong together by order, so restore or remove images until both "
                "agree"
            )
        return RawScene(
            [
                _frame(number, row, file)
                for number, (row, file) in enumerate(zip(rows, pictures, strict=True))
            ],
            same_size=True,
        )


def _read_rows(path: epath.Path) -> np.ndarray:
    """The numbers [N, 17], float64."""
    try:
        rows = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; restore it or remove the folder") from error
    except files.BROKEN as error:
        raise DataError(f"{path} is no readable .npy file ({error}); restore it") from error
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu":
        raise DataError(f"{path} holds no plain array of numbers; export it again")
    if rows.ndim != 2 or rows.shape[1] != 17:
        raise DataError(
            f"{path} has the shape {rows.shape}, expected [N, 17] (3x5 matrix, near, far); "
            "export it again"
        )
    return np.where(np.abs(rows) < poses.MAX_COORDINATE, rows, np.nan).astype(np.float64)


def _image_files(folder: epath.Path) -> list[epath.Path]:
    reduced = sorted(folder.glob("images_*"), key=lambda path: natural_order(path.name))
    for place in (folder / "images", *reduced):
        if place.is_dir():
            found = [file for file in place.iterdir() if file.suffix in images.SUFFIXES]
            if found:
                return sorted(found)
    raise DataError(f"{folder} holds no images in images/ or images_<n>/; expected {_EXPECTED}")


def _frame(number: int, row: np.ndarray, file: epath.Path) -> RawFrame:
    matrix = row[:15].reshape(3, 5)
    down, right, back = matrix[:, :3].T
    height, width, focal = matrix[:, 4]
    if not (height >= 1 and width >= 1):
        raise DataError(
            f"row {number} declares images of {width:g}x{height:g} pixels; export {_FILE} again"
        )
    return RawFrame(
        name=file.name,
        path=str(file),
        pose=poses.from_parts(np.stack([right, down, -back], axis=1), matrix[:, 3]),
        # Fractions, so that reduced images have the right ones too.
        intrinsics=np.array([focal / width, focal / height, 0.5, 0.5]),
        timestamp=float(number),
        fractions=True,
    )
