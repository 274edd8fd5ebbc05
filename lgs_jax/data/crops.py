"""Crops, sizes and colours of pictures, and what becomes of their intrinsics.

A box is (left, top, right, bottom) in pixels of the frame, edges at integers, so the pixel centres
lie at +0.5 and intrinsics follow a crop and resize exactly.
"""

import numpy as np
from PIL import Image


def centre_box(size: tuple[int, int], aspect: float) -> tuple[float, float, float, float]:
    """The largest centred box of the given width / height inside a frame (height, width)."""
    height, width = size
    box_height = min(height, width / aspect)
    box_width = min(width, box_height * aspect)  # which rounding may make too wide
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def random_box(
    size: tuple[int, int], aspect: float, position: tuple[float, float], zoom: float
) -> tuple[float, float, float, float]:
    """A box `zoom` times smaller than the largest one; `position` in [0, 1] from left and top."""
    height, width = size
    box_height = min(height, width / aspect) / zoom
    box_width = min(width, box_height * aspect)
    left, top = (width - box_width) * position[0], (height - box_height) * position[1]
    return left, top, left + box_width, top + box_height


def reduced_size(size: tuple[int, int], short_side: int | None) -> tuple[int, int]:
    """Height and width after the shorter of them was reduced to `short_side` at most."""
    shorter = min(size)
    if short_side is None or shorter <= short_side:
        return size
    height, width = (max(1, round(length * short_side / shorter)) for length in size)
    return height, width


def crop_resize(
    image: np.ndarray, box: tuple[float, float, float, float], height: int, width: int
) -> np.ndarray:
    """The box of an image uint8 [H, W, 3], antialiased (Lanczos), as [height, width, 3]."""
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resized)


def recolour(image: np.ndarray, exposure: float, contrast: float, saturation: float) -> np.ndarray:
    """An image uint8 [H, W, 3] with other exposure, contrast and saturation.

    `exposure` scales all values, `contrast` their distance from the middle (127.5), `saturation`
    that from the pixel's luma (Rec. 601); 1 leaves them.
    """
    colours = image.astype(np.float32) * exposure
    colours = 127.5 + (colours - 127.5) * contrast
    luma = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    colours = luma[..., None] + (colours - luma[..., None]) * saturation
    return np.rint(np.clip(colours, 0, 255)).astype(np.uint8)


def crop_resize_intrinsics(
    intrinsics: np.ndarray, box: tuple[float, float, float, float], height: int, width: int
) -> np.ndarray:
    """fx, fy, cx, cy [..., 4] of the image that `crop_resize` makes."""
    left, top, right, bottom = box
    scale_x, scale_y = width / (right - left), height / (bottom - top)
    shifted = intrinsics - np.array([0.0, 0.0, left, top])
    return shifted * np.array([scale_x, scale_y, scale_x, scale_y])
