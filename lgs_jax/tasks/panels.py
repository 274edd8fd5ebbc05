"""Pictures for looking at results: grids of images, depth maps in colour. NumPy on the host."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Turbo (Mikhailov 2019) as its author's degree-5 polynomial; rows are powers, columns RGB.
_TURBO = np.array(
    [
        [0.13572138, 0.09140261, 0.10667330],
        [4.61539260, 2.19418839, 12.64194608],
        [-42.66032258, 4.84296658, -60.58204836],
        [132.13108234, -14.18503333, 110.36276771],
        [-152.94239396, 4.27729857, -89.90310912],
        [59.28637943, 2.82956604, 27.34824973],
    ]
)
# Share of the valid depths left beyond each end of an automatic range: a few stray splats would
# otherwise take most of the colours.
_RANGE_PERCENTILE = 2.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Float images in [0, 1] of any shape as uint8, clipped and rounded; NaN becomes 0."""
    finite = np.nan_to_num(np.asarray(images, np.float32), nan=0.0)
    return np.rint(np.clip(finite, 0.0, 1.0) * 255.0).astype(np.uint8)


def grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    column_titles: Sequence[str] | None = None,
    row_titles: Sequence[str] | None = None,
    *,
    padding: int = 2,
    background: int = 255,
) -> np.ndarray:
    """One picture of images in rows and columns, uint8 [H, W, 3].

    Args:
      rows: uint8 images [h, w, 3] of any sizes, or None for an empty cell; short rows are filled
        with empty cells. A column is as wide as its widest image or title.
      column_titles: one text per column, written above it.
      row_titles: one text per row, written to its left.
      padding: pixels around every cell.
      background: grey level between cells; texts are black on light and white on dark.

    Raises:
      ValueError: if there is no image, an image is not uint8 [h, w, 3], or titles do not match.
    """
    num_columns = max((len(row) for row in rows), default=0)
    table = [list(row) + [None] * (num_columns - len(row)) for row in rows]
    for i, row in enumerate(table):
        for j, image in enumerate(row):
            if image is not None:
                _check_image(image, f"row {i}, column {j}")
    if all(image is None for row in table for image in row):
        raise ValueError("grid needs at least one image, got none")
    for name, titles, count in (
        ("column_titles", column_titles, num_columns),
        ("row_titles", row_titles, len(table)),
    ):
        if titles is not None and len(titles) != count:
            raise ValueError(f"{name} has {len(titles)} texts for {count}: {list(titles)}")

    above = [_text(title, background) for title in column_titles or []]
    beside = [_text(title, background) for title in row_titles or []]
    head = [[None] * bool(beside) + above] if above else []
    cells = head + [([beside[i]] if beside else []) + row for i, row in enumerate(table)]
    return _assemble(cells, padding, background)


def colorize_depth(
    depth: np.ndarray,
    valid: np.ndarray | None = None,
    near: float | None = None,
    far: float | None = None,
) -> tuple[np.ndarray, float, float]:
    """Depths [..., H, W] in the Turbo colours, linear in inverse depth: near is red, far is blue.

    Args:
      depth: z-depths in any unit.
      valid: mask [..., H, W] of the pixels that have a depth; the others become black. Pixels whose
        depth is not finite or not positive are left out in any case.
      near: depth of the red end; by default the 2nd percentile of the valid depths.
      far: depth of the blue end; by default the 98th percentile.

    Returns:
      uint8 pictures [..., H, W, 3], and the near and far that were used, so that other pictures
      can be made comparable (NaN where no valid pixel could fix one).

    Raises:
      ValueError: if shapes differ, or unless 0 < near <= far.
    """
    depth = np.asarray(depth, np.float64)
    usable = np.isfinite(depth) & (depth > 0)
    if valid is not None:
        if np.shape(valid) != depth.shape:
            raise ValueError(f"valid has shape {np.shape(valid)}, but depth {depth.shape}")
        usable &= np.asarray(valid, bool)
    ends = (np.nan, np.nan)
    if usable.any():
        ends = np.percentile(depth[usable], [_RANGE_PERCENTILE, 100 - _RANGE_PERCENTILE])
    near = float(ends[0] if near is None else near)
    far = float(ends[1] if far is None else far)
    if not usable.any():
        return np.zeros((*depth.shape, 3), np.uint8), near, far
    if not 0 < near <= far:
        raise ValueError(f"expected 0 < near <= far, got {near=} {far=}; give both or neither")
    width = 1 / near - 1 / far
    position = (1 / np.where(usable, depth, far) - 1 / far) / (width if width > 0 else 1.0)
    colors = np.where(usable[..., None], to_uint8(turbo(position)), 0).astype(np.uint8)
    return colors, near, far


def turbo(position: np.ndarray) -> np.ndarray:
    """The Turbo colour map: positions [...], clipped to [0, 1], to RGB [..., 3] in [0, 1]."""
    position = np.clip(np.asarray(position, np.float64), 0.0, 1.0)
    powers = position[..., None] ** np.arange(len(_TURBO))
    return np.clip(powers @ _TURBO, 0.0, 1.0)


def color_scale(low: str, high: str, *, width: int = 96, height: int = 8) -> np.ndarray:
    """The Turbo colours as a bar [height, width] between what its ends mean, uint8 [h, w, 3]."""
    bar = np.tile(to_uint8(turbo(np.linspace(0, 1, width))), (height, 1, 1))
    return _assemble([[_text(low, 255), bar, _text(high, 255)]], 2, 255)


def _check_image(image: np.ndarray, where: str) -> None:
    shape, dtype = np.shape(image), getattr(image, "dtype", type(image))
    if len(shape) != 3 or shape[-1] != 3 or dtype != np.uint8:
        raise ValueError(
            f"grid: the image at {where} is {dtype} {shape}, expected uint8 [h, w, 3]; "
            "float images in [0, 1] go through to_uint8"
        )


def _text(text: str, background: int) -> np.ndarray | None:
    """A line of text as a picture in Pillow's built-in font; None for an empty text."""
    if not text:
        return None
    font = ImageFont.load_default()
    left, top, right, bottom = font.getbbox(text)
    picture = Image.new("RGB", (int(right - left) + 2, int(bottom - top) + 2), (background,) * 3)
    ink = (0, 0, 0) if background > 127 else (255, 255, 255)
    ImageDraw.Draw(picture).text((1 - left, 1 - top), text, fill=ink, font=font)
    return np.asarray(picture)


def _assemble(cells: list[list[np.ndarray | None]], padding: int, background: int) -> np.ndarray:
    """Puts a full table of cells on one canvas, each in the middle of its place."""
    sizes = np.array([[(0, 0) if c is None else c.shape[:2] for c in row] for row in cells])
    heights, widths = sizes[..., 0].max(axis=1), sizes[..., 1].max(axis=0)
    tops = padding + np.concatenate([[0], np.cumsum(heights + padding)])
    lefts = padding + np.concatenate([[0], np.cumsum(widths + padding)])
    canvas = np.full((tops[-1], lefts[-1], 3), background, np.uint8)
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if cell is not None:
                height, width = cell.shape[:2]
                top = tops[i] + (heights[i] - height) // 2
                left = lefts[j] + (widths[j] - width) // 2
                canvas[top : top + height, left : left + width] = cell
    return canvas
