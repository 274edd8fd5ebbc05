"""Lens distortion of the OpenCV family, and its removal.

x, y are image coordinates divided by the depth; r^2 = x^2 + y^2. Coefficients are ordered as in
OpenCV: k1 k2 p1 p2 k3 k4 k5 k6; missing ones are 0.
"""

import dataclasses
import functools

import numpy as np
from scipy import ndimage

_BORDER_SAMPLES = 64


@dataclasses.dataclass(frozen=True)
class Lens:
    """A distorting camera.

    Attributes:
      intrinsics: fx, fy, cx, cy in pixels.
      coefficients: up to eight, see the module.
      size: height and width of its images.
    """

    intrinsics: tuple[float, ...]
    coefficients: tuple[float, ...]
    size: tuple[int, int]


def distort(points: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """Where ideal points [..., 2] of the plane z = 1 appear (Brown-Conrady, rational radial)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = (*coefficients, *[0.0] * (8 - len(coefficients)))
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def source_pixels(lens: Lens, pinhole: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Pixels [..., 2] of the distorted image that `pixels` of the pinhole image show."""
    rays = (pixels - pinhole[2:]) / pinhole[:2]
    return distort(rays, lens.coefficients) * lens.intrinsics[:2] + lens.intrinsics[2:]


@functools.lru_cache(maxsize=4096)
def pinhole_intrinsics(lens: Lens) -> np.ndarray:
    """Intrinsics [4] of the undistorted image: same size and centre, and no empty border.

    Both focal lengths are multiplied by the smallest factor for which the border of the new image
    lies inside the old one.

    Raises:
      ValueError: if there is no such factor between 1/2 and 4, or the model folds the image over.
    """
    height, width = lens.size
    t = np.linspace(0.0, 1.0, _BORDER_SAMPLES)
    ends = np.zeros_like(t), np.ones_like(t)
    border = np.concatenate(
        [np.stack([t, e], -1) for e in ends] + [np.stack([e, t], -1) for e in ends]
    ) * (width, height)
    base = np.asarray(lens.intrinsics, np.float64)

    def fits(factor: float) -> bool:
        pixels = source_pixels(lens, base * (factor, factor, 1, 1), border)
        slack = 1e-6  # of a pixel: an undistorted image must fit itself
        return bool(((pixels >= -slack) & (pixels <= np.array([width, height]) + slack)).all())

    low, high = 0.5, 4.0
    possible = fits(high) and not fits(low)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    result = base * (high, high, 1, 1)
    if not possible or _folds(lens, result):
        raise ValueError(
            f"the distortion {lens.coefficients} of a {width}x{height} camera with intrinsics "
            f"{lens.intrinsics} cannot be removed; check the coefficients or undistort the images"
        )
    result.setflags(write=False)
    return result


def _folds(lens: Lens, pinhole: np.ndarray) -> bool:
    """Whether the map of the pinhole image to the distorted one is not one to one."""
    height, width = lens.size
    x, y = np.linspace(0, width, _BORDER_SAMPLES), np.linspace(0, height, _BORDER_SAMPLES)
    pixels = source_pixels(lens, pinhole, np.stack(np.meshgrid(x, y), -1))
    along_x, along_y = np.diff(pixels, axis=1)[:-1], np.diff(pixels, axis=0)[:, :-1]
    areas = along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0]
    return bool((areas <= 0).any())


def undistort(image: np.ndarray, lens: Lens) -> np.ndarray:
    """The image [H, W, 3] uint8 as the pinhole of `pinhole_intrinsics` sees it (bilinear)."""
    height, width = lens.size
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = source_pixels(lens, pinhole_intrinsics(lens), np.stack([columns, rows], -1)) - 0.5
    planes = [
        ndimage.map_coordinates(
            image[..., c].astype(np.float32),
            [pixels[..., 1], pixels[..., 0]],
            order=1,
            mode="nearest",
        )
        for c in range(image.shape[-1])
    ]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)
