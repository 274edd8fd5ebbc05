"""Reading and checking images with Pillow."""

import dataclasses
import functools
import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from etils import epath
from PIL import Image

from lgs_jax.data import lens as lens_lib
from lgs_jax.data import places
from lgs_jax.data.report import DataError

BACKGROUNDS = {"black": 0, "white": 255}
MASKS = ("ignore", "black", "white")
EXIF = ("auto", "apply", "ignore")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".JPG", ".JPEG", ".PNG")

_ORIENTATION_TAG = 274
_EXIF_BLOCK = 0x8769
_FOCAL_LENGTH_35MM_TAG = 0xA405
# Of a 36 x 24 mm frame, by which the equivalent focal length is defined (CIPA DCG-001).
_DIAGONAL_35MM = 43.27
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REDUCTIONS = (8, 4, 2)  # that the JPEG decoder has
# What Pillow raises on broken files, by format.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How stored files become RGB.

    Attributes:
      background: colour behind transparent pixels, "black" or "white".
      masks: what to do with masks beside the images: "ignore" them, or paint everything outside
        "black" or "white".
      exif: turn images by their EXIF orientation: "apply", "ignore", or "auto": whichever gives the
        size that the camera declares, and an error where that does not decide.
    """

    background: str = "black"
    masks: str = "ignore"
    exif: str = "auto"


class Embedded(Protocol):
    """An image file inside another file; its text says where, for messages."""

    def exists(self) -> bool: ...

    def read(self) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Span:
    """`length` bytes of a file from `offset` on; see `Embedded`."""

    path: str
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.path}, bytes {self.offset} to {self.offset + self.length},"

    def exists(self) -> bool:
        """Whether the file that holds it is there."""
        return epath.Path(self.path).is_file()

    def read(self) -> bytes:
        """The bytes; fewer where the file ends before."""
        return places.read_span(self.path, self.offset, self.length)


@dataclasses.dataclass(frozen=True)
class FrameFile:
    """Where a frame is stored and how to read it; `size` is height and width as served."""

    path: str | Embedded
    size: tuple[int, int]
    mask: str | None = None
    lens: lens_lib.Lens | None = None


class Frames(Sequence):
    """Frames of a scene, decoded on access: `frames[i]` is uint8 [H_i, W_i, 3]."""

    def __init__(self, files: Sequence[FrameFile], options: ReadOptions):
        self.files = tuple(files)
        self.options = options

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_frame(self.files[index], self.options)

    def reduced(self, index: int, factor: float) -> np.ndarray:
        """Frame `index`, up to `factor` times smaller; see `read_reduced`."""
        return read_reduced(self.files[index], self.options, factor)


def exists(path: str | Embedded) -> bool:
    """Whether there is a file at all."""
    return epath.Path(path).is_file() if isinstance(path, str) else path.exists()


def stored_size(
    path: str | Embedded, options: ReadOptions, declared: tuple[int, int] | None = None
):
    """Height and width of an image as it will be served, from its header.

    Cheap: nothing is decoded, unless the end of a JPEG or PNG file is not where it should be.

    Raises:
      DataError: if the file is missing, empty, broken, cut off, or turned in an unclear way.
    """
    try:
        with opened(path) as image:
            size = _turned_size(image, _orientation(image, path, options.exif, declared))
            if not _has_end(path, image.format):
                image.load()
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    return size


def header(path: str) -> tuple[tuple[int, int], int]:
    """Height and width that an image file is stored with, and its EXIF orientation, 1 to 8.

    Raises:
      DataError: naming the file, if it is missing or broken.
    """
    try:
        with opened(path) as image:
            return (image.height, image.width), _stored_orientation(image)
    except _BROKEN as error:
        raise _unreadable(path, error) from error


def read_frame(file: FrameFile, options: ReadOptions) -> np.ndarray:
    """Decodes one frame to uint8 [H, W, 3]: turned, on its background, masked, undistorted.

    Raises:
      DataError: naming the file, if it cannot be decoded or has another size than at the scan.
    """
    try:
        with opened(file.path) as image:
            declared = file.lens.size if file.lens else file.size
            orientation = _orientation(image, file.path, options.exif, declared)
            pixels = to_rgb(_turn(image, orientation), BACKGROUNDS[options.background])
    except _BROKEN as error:
        raise _unreadable(file.path, error) from error
    if pixels.shape[:2] != tuple(file.size):
        raise DataError(
            f"{file.path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, expected "
            f"{file.size[1]}x{file.size[0]} as at the start; do not change files during a run"
        )
    if file.mask is not None and options.masks != "ignore":
        pixels = _masked(pixels, file.mask, BACKGROUNDS[options.masks])
    return lens_lib.undistort(pixels, file.lens) if file.lens else pixels


def read_reduced(file: FrameFile, options: ReadOptions, factor: float) -> np.ndarray:
    """Decodes one frame at 1/n of its size, and n: 8, 4, 2 or 1, and at most `factor`.

    Only plain JPEG files can be reduced while they are decoded, which saves most of the time; pixel
    (x, y) then covers the square of n pixels from (n x, n y) on. All others come whole, n = 1.

    Raises:
      DataError: as `read_frame` does.
    """
    masked = file.mask is not None and options.masks != "ignore"
    if factor < _REDUCTIONS[-1] or masked or file.lens:
        return read_frame(file, options)
    try:
        with opened(file.path) as image:
            if image.size != (file.size[1], file.size[0]) or (
                _orientation(image, file.path, options.exif, file.size) != 1
            ):
                return read_frame(file, options)
            _reduce(image, factor)
            return to_rgb(image, BACKGROUNDS[options.background])
    except _BROKEN as error:
        raise _unreadable(file.path, error) from error


def _reduce(image: Image.Image, factor: float) -> None:
    """Lets a JPEG file be decoded at 1/n of its size, with the largest n."""
    width, height = image.size
    fitting = [n for n in _REDUCTIONS if n <= min(factor, width, height)]
    if image.format == "JPEG" and fitting:
        image.draft(None, (width // fitting[0], height // fitting[0]))


def reduction(size: tuple[int, int], pixels: np.ndarray) -> int:
    """n of a frame of `size` that `read_reduced` gave."""
    for n in _REDUCTIONS:
        if pixels.shape[:2] == tuple(-(-length // n) for length in size):
            return n
    return 1


def read_original(file: FrameFile, options: ReadOptions) -> bytes | None:
    """The bytes of an image file, if decoding them yields the frame and nothing is to be done.

    None for turned, masked, distorted or transparent images and others than 8-bit JPEG and PNG.
    The image is decoded, to find out whether it can be.

    Raises:
      DataError: as `read_frame` does.
    """
    if file.lens or (file.mask is not None and options.masks != "ignore"):
        return None
    try:
        stored = _read(file.path)
        with Image.open(io.BytesIO(stored)) as image:
            plain = (
                image.format in ("JPEG", "PNG")
                and image.mode in ("RGB", "L")
                and "transparency" not in image.info
                and image.size == (file.size[1], file.size[0])
                and _orientation(image, file.path, options.exif, file.size) == 1
            )
            if plain:
                image.load()
            return stored if plain else None
    except _BROKEN as error:
        raise _unreadable(file.path, error) from error


def read_photograph(path: str) -> np.ndarray:
    """A single image file, turned upright by its EXIF orientation, as uint8 [H, W, 3].

    Raises:
      DataError: naming the file, if it is missing or broken.
    """
    options = ReadOptions(exif="apply")
    if not Path(path).is_file():
        found = "is a folder" if Path(path).is_dir() else "is not there"
        raise DataError(f"the photograph {path} {found}; give the path of one image file")
    try:
        with Image.open(path) as image:
            orientation = _orientation(image, path, options.exif, None)
            return to_rgb(_turn(image, orientation), BACKGROUNDS[options.background])
    except (*_BROKEN, DataError) as error:
        raise _unreadable(path, error) from error


def exif_focal_length(path: str) -> float | None:
    """The focal length in pixels that the EXIF data tell; None where they do not."""
    try:
        with Image.open(path) as image:
            value = image.getexif().get_ifd(_EXIF_BLOCK).get(_FOCAL_LENGTH_35MM_TAG)
            diagonal = float(np.hypot(*image.size))
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    return float(value) * diagonal / _DIAGONAL_35MM if value else None


def to_rgb(image: Image.Image, background: int) -> np.ndarray:
    """Any Pillow image as uint8 RGB [H, W, 3]; transparent pixels show the grey `background`.

    16-bit grey is divided by 257; palette, CMYK and other colour modes go through Pillow.

    Raises:
      DataError: for float images and integers above 65535, whose range is unknown.
    """
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise DataError(
                f"grey values span {grey.min()}..{grey.max()}, expected 0..65535; store the image "
                "with 8 or 16 bits"
            )
        return np.repeat(np.rint(grey / 257.0).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise DataError("the image holds floats of unknown range; store it with 8 or 16 bits")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), np.float32)
        alpha = rgba[..., 3:] / 255.0
        return np.rint(rgba[..., :3] * alpha + background * (1.0 - alpha)).astype(np.uint8)
    return np.asarray(image.convert("RGB"))


def _masked(pixels: np.ndarray, path: str, outside: int) -> np.ndarray:
    """Paints what lies outside the mask (0) grey `outside`; soft masks blend."""
    try:
        with opened(path) as image:
            mask = np.asarray(image.convert("L"), np.float32)[..., None] / 255.0
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    if mask.shape[:2] != pixels.shape[:2]:
        raise DataError(
            f"mask {path} has {mask.shape[1]}x{mask.shape[0]} pixels, its image "
            f"{pixels.shape[1]}x{pixels.shape[0]}; resize the mask or set masks='ignore'"
        )
    return np.rint(pixels * mask + outside * (1.0 - mask)).astype(np.uint8)


def opened(path: str | Embedded) -> Image.Image:
    """The image, of which Pillow decodes nothing yet."""
    on_disk = isinstance(path, str) and not places.is_remote(path)
    return Image.open(path if on_disk else io.BytesIO(_read(path)))


def _read(path: str | Embedded) -> bytes:
    if not isinstance(path, str):
        return path.read()
    return _fetched(path) if places.is_remote(path) else Path(path).read_bytes()


# A file in a store is looked at several times in a row when it is checked, and fetched once.
@functools.lru_cache(maxsize=16)
def _fetched(path: str) -> bytes:
    return epath.Path(path).read_bytes()


def _orientation(
    image: Image.Image, path: str | Embedded, exif: str, declared: tuple[int, int] | None
) -> int:
    """The EXIF orientation (1 to 8) to undo; 1 is upright."""
    orientation = _stored_orientation(image)
    if orientation != 1 and image.format == "TIFF":  # Pillow turns it by itself
        if exif == "ignore":
            raise DataError(
                f"{path} is a TIFF file of EXIF orientation {orientation}, which can only be read "
                "upright, so exif='ignore' cannot be met; store it as PNG or JPEG"
            )
        return 1
    if exif == "ignore" or orientation == 1:
        return 1
    if exif == "apply":
        return orientation
    as_stored, turned = (image.height, image.width), _turned_size(image, orientation)
    if declared is not None and as_stored != turned:
        if tuple(declared) == turned:
            return orientation
        return 1
    raise DataError(
        f"{path} carries EXIF orientation {orientation} and its size does not tell whether the "
        "camera means the stored or the turned image; set exif='apply' or exif='ignore'"
    )


def _stored_orientation(image: Image.Image) -> int:
    """The EXIF orientation that a file carries; 1 where there is none that is known."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole file to look behind the pixels
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    return orientation if orientation in _TRANSPOSE else 1


def _turned_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    size = (image.height, image.width)
    return size[::-1] if orientation >= 5 else size


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TRANSPOSE[orientation]) if orientation != 1 else image


def _has_end(path: str | Embedded, image_format: str | None) -> bool:
    """Whether a JPEG or PNG file ends as it should; other formats always pass."""
    ends = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    if image_format not in ends:
        return True
    if not isinstance(path, str) or places.is_remote(path):
        return _read(path).endswith(ends[image_format])
    with Path(path).open("rb") as file:
        file.seek(-len(ends[image_format]), 2)
        return file.read() == ends[image_format]


def _unreadable(path: str | Embedded, error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error if str(path) in str(error) else DataError(f"{path}: {error}")
    if isinstance(error, FileNotFoundError):
        return DataError(f"image {path} is missing; restore it or drop the frame")
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # up to here Pillow only warns
        return DataError(
            f"image {path} is larger than Pillow's limit of {limit} pixels; reduce its size"
        )
    return DataError(
        f"image {path} cannot be decoded, it is cut off or broken ({error}); restore the file"
    )
