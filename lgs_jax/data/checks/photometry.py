"""What the pictures of a scene tell by themselves: repeats, exposure, blur.

F frames, images uint8 [H, W, 3].
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lgs_jax.data.checks.features import Matches

_SMALL = 64  # pixels of the longer side, to compare whole pictures
_SHARP = 256  # the same, to measure sharpness
_SAME_LEVELS = 0.6  # mean difference of pictures that are one picture stored twice
_STOPS = 0.5
_BLUR = 0.2  # of the sharpness of the frames around
_AROUND = 4
_GAMMA = 2.2


def repeated(images: Sequence[np.ndarray]) -> list[int]:
    """Frames that show the same picture as the frame before."""
    small = [_grey(image, _SMALL) for image in images]
    return [
        i
        for i in range(1, len(small))
        if small[i].shape == small[i - 1].shape
        and np.abs(small[i] - small[i - 1]).mean() < _SAME_LEVELS
    ]


def exposure_steps(
    images: Sequence[np.ndarray], matches: Sequence[Matches]
) -> dict[tuple[int, int], float]:
    """Stops by which points are brighter in the second frame, for neighbours that differ."""
    steps = {}
    for m in matches:
        if m.second - m.first != 1:
            continue
        first, second = (
            _levels(images[frame], points)
            for frame, points in ((m.first, m.points_first), (m.second, m.points_second))
        )
        usable = (np.minimum(first, second) > 8) & (np.maximum(first, second) < 247)
        if usable.sum() < 10:
            continue
        stops = _GAMMA * np.median(np.log2(second[usable] / first[usable]))
        if abs(stops) > _STOPS:
            steps[m.first, m.second] = float(stops)
    return steps


def blurred(images: Sequence[np.ndarray]) -> list[int]:
    """Frames that are much less sharp than the frames around them."""
    sharpness = np.array([_sharpness(_grey(image, _SHARP)) for image in images])
    found = []
    for i in range(len(sharpness)):
        around = [j for j in range(max(0, i - _AROUND), i + _AROUND + 1) if j != i]
        around = [j for j in around if j < len(sharpness)]
        if around and sharpness[i] < _BLUR * np.median(sharpness[around]):
            found.append(i)
    return found


def _grey(image: np.ndarray, long_side: int) -> np.ndarray:
    picture = Image.fromarray(image).convert("L")
    picture.thumbnail((long_side, long_side), Image.Resampling.BOX)
    return np.asarray(picture, np.float64)


def _levels(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Grey levels [M] around pixels [M, 2]."""
    height, width = image.shape[:2]
    column = np.clip(points[:, 0].astype(int), 1, width - 2)
    row = np.clip(points[:, 1].astype(int), 1, height - 2)
    around = [
        image[row + dy, column + dx].astype(np.float64) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    ]
    return np.mean(around, axis=(0, 2))


def _sharpness(grey: np.ndarray) -> float:
    """Mean square of the discrete Laplacian."""
    inner = grey[1:-1, 1:-1]
    laplacian = grey[2:, 1:-1] + grey[:-2, 1:-1] + grey[1:-1, 2:] + grey[1:-1, :-2] - 4 * inner
    return float(np.mean(laplacian**2))
