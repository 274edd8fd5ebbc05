"""Points that frames of a scene have in common: SIFT through OpenCV (extra `check`).

No pose is looked at: matches are kept if they fit some epipolar geometry of the two pictures.
"""

import dataclasses
import importlib.util
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

# Pictures are enlarged or reduced to about this many pixels on the longer side.
_LONG_SIDE = 640
_FEATURES = 1200
_RATIO = 0.8  # of the best to the second best match (Lowe 2004)
_EPIPOLAR_PIXELS = 1.0
_MIN_MATCHES = 15
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Matches:
    """M points seen in two frames.

    Attributes:
      first, second: numbers of the frames.
      points_first, points_second: pixels of the frames [M, 2], pixel centres at +0.5.
    """

    first: int
    second: int
    points_first: np.ndarray
    points_second: np.ndarray

    def __len__(self) -> int:
        return len(self.points_first)


Matcher = Callable[[Sequence[np.ndarray], Iterable[tuple[int, int]]], list[Matches]]


def available() -> bool:
    """Whether OpenCV is installed."""
    return importlib.util.find_spec("cv2") is not None


def match(images: Sequence[np.ndarray], pairs: Iterable[tuple[int, int]]) -> list[Matches]:
    """Matches of pairs of frames uint8 [H, W, 3]; pairs with too few are left out."""
    import cv2

    sift = cv2.SIFT_create(nfeatures=_FEATURES)
    found = {}

    def features(frame: int) -> tuple[np.ndarray, np.ndarray | None]:
        if frame not in found:
            grey, scale = _grey(images[frame])
            keypoints, descriptors = sift.detectAndCompute(grey, None)
            # OpenCV puts the centre of the first pixel at 0.
            points = np.array([k.pt for k in keypoints], np.float64).reshape(-1, 2) + 0.5
            found[frame] = points / scale, descriptors
        return found[frame]

    result = []
    for first, second in pairs:
        matches = _match_pair(first, second, features(first), features(second))
        if matches is not None:
            result.append(matches)
    return result


def _grey(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture in grey at the working size, and how much larger it is in x and y [2]."""
    height, width = image.shape[:2]
    factor = _LONG_SIDE / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    grey = Image.fromarray(image).convert("L").resize(size, Image.Resampling.BICUBIC)
    return np.asarray(grey), np.array(size) / (width, height)


def _match_pair(first, second, features_first, features_second) -> Matches | None:
    import cv2

    (points_first, a), (points_second, b) = features_first, features_second
    if a is None or b is None or min(len(a), len(b)) < _MIN_MATCHES:
        return None
    forward = cv2.BFMatcher().knnMatch(a, b, k=2)
    backward = cv2.BFMatcher().match(b, a)
    back = {m.queryIdx: m.trainIdx for m in backward}
    chosen = [
        (m.queryIdx, m.trainIdx)
        for m, n in (pair for pair in forward if len(pair) == 2)
        if m.distance < _RATIO * n.distance and back[m.trainIdx] == m.queryIdx
    ]
    if len(chosen) < _MIN_MATCHES:
        return None
    index = np.array(chosen)
    x, y = points_first[index[:, 0]], points_second[index[:, 1]]
    cv2.setRNGSeed(_SEED)
    _, inside = cv2.findFundamentalMat(x, y, cv2.FM_RANSAC, _EPIPOLAR_PIXELS, 0.999, 2000)
    if inside is None or inside.sum() < _MIN_MATCHES:
        return None
    kept = inside.ravel().astype(bool)
    return Matches(first, second, x[kept], y[kept])
