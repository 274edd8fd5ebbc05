"""The picture of a checked scene: frames, cameras, and rays of one frame in another."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from lgs_jax.data.checks.conventions import Hypothesis
from lgs_jax.data.checks.features import Matches
from lgs_jax.data.checks.scene import Checked

_WIDTH = 1200
_COLUMNS = 6
_BACK, _INK, _BAD = (250, 250, 250), (40, 40, 40), (215, 40, 40)
_PATH = (40, 90, 200)
_TALLEST = 480  # pixels of an epipolar picture
_SHOWN_MATCHES = 14
_DEPTHS = 64


def draw(checked: Checked, title: str) -> Image.Image:
    """Contact sheet, cameras from above and from the side, and epipolar lines of one pair."""
    parts = [_text([title, *map(str, checked.faults)] if checked.faults else [title, "no faults"])]
    parts.append(_contact_sheet(checked))
    parts.append(_cameras(checked.example.world_from_cam))
    pair = _best_pair(checked.matches)
    if pair is not None:
        given = checked.example.world_from_cam
        parts.append(_text(["rays of points on the left, as the poses put them on the right"]))
        parts.append(_epipolar(checked, pair, given[:, :3, :3], given[:, :3, 3]))
        if checked.reading is not None:
            parts.append(_text([f"the same with the poses read as {checked.reading.says}"]))
            parts.append(_epipolar(checked, pair, *_of(checked.reading)))
    height = sum(part.height for part in parts)
    sheet = Image.new("RGB", (_WIDTH, height), _BACK)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _of(reading: Hypothesis) -> tuple[np.ndarray, np.ndarray]:
    return reading.rotations, reading.centers


def _text(lines: Sequence[str]) -> Image.Image:
    wrapped = [
        line[start : start + 190] for line in lines for start in range(0, max(1, len(line)), 190)
    ]
    image = Image.new("RGB", (_WIDTH, 14 * len(wrapped) + 10), _BACK)
    pen = ImageDraw.Draw(image)
    for i, line in enumerate(wrapped):
        pen.text((8, 5 + 14 * i), line, fill=_BAD if line.startswith("fault") else _INK)
    return image


def _contact_sheet(checked: Checked) -> Image.Image:
    """Up to 18 frames; those that a fault names have a red border."""
    bad = {name for fault in checked.faults for name in fault.frames}
    count = len(checked.images)
    shown = np.unique(np.linspace(0, count - 1, min(count, 3 * _COLUMNS)).round().astype(int))
    names = checked.example.frame_names
    shown = sorted({*shown.tolist(), *(i for i in range(count) if names[i] in bad)})[:36]
    side = _WIDTH // _COLUMNS
    height, width = checked.images[0].shape[:2]
    tall = max(1, round((side - 8) * height / width))
    rows = -(-len(shown) // _COLUMNS)
    sheet = Image.new("RGB", (_WIDTH, rows * (tall + 22)), _BACK)
    pen = ImageDraw.Draw(sheet)
    for place, frame in enumerate(shown):
        left, top = place % _COLUMNS * side + 4, place // _COLUMNS * (tall + 22)
        picture = Image.fromarray(checked.images[frame])
        picture.thumbnail((side - 8, tall))
        sheet.paste(picture, (left, top + 16))
        color = _BAD if names[frame] in bad else _INK
        pen.text((left, top + 2), names[frame][-28:], fill=color)
        if names[frame] in bad:
            box = (left, top + 16, left + picture.width - 1, top + 15 + picture.height)
            pen.rectangle(box, outline=_BAD, width=3)
    return sheet


def _cameras(world_from_cam: np.ndarray) -> Image.Image:
    """Cameras from above and from the side, of the mean camera, joined in their order."""
    height, half = 360, _WIDTH // 2
    image = Image.new("RGB", (_WIDTH, height), _BACK)
    pen = ImageDraw.Draw(image)
    middle = world_from_cam[len(world_from_cam) // 2]
    local = (world_from_cam[:, :3, 3] - world_from_cam[:, :3, 3].mean(axis=0)) @ middle[:3, :3]
    turns = np.einsum("ji,njk->nik", middle[:3, :3], world_from_cam[:, :3, :3])
    size = max(np.abs(local).max(), 1e-12)
    scale = 0.36 * height / size
    for left, (across, along), label in (
        (0, (0, 2), "from above (right, forward)"),
        (half, (2, 1), "from the side (forward, down)"),
    ):
        flip = np.array([1.0, -1.0 if along == 2 else 1.0])
        origin = np.array([left + half / 2, height / 2])

        def place(points: np.ndarray, a=across, b=along, f=flip, o=origin) -> np.ndarray:
            return o + points[..., [a, b]] * f * scale

        centers = place(local)
        pen.line([tuple(p) for p in centers], fill=_PATH, width=1)
        length = 0.18 * size
        for i, center in enumerate(centers):
            corners = np.array([[0.4, 0.3, 1], [-0.4, 0.3, 1], [-0.4, -0.3, 1], [0.4, -0.3, 1]])
            ends = place(local[i] + length * corners @ turns[i].T)
            color = _BAD if i == 0 else _INK
            for end in ends:
                pen.line([tuple(center), tuple(end)], fill=color)
            pen.polygon([tuple(end) for end in ends], outline=color)
        pen.text(
            (left + 8, 6), label + ("; the first camera is red" if not left else ""), fill=_INK
        )
    return image


def _best_pair(matches: Sequence[Matches]) -> Matches | None:
    """Frames far enough apart to show something, with many points in common."""
    return max(matches, key=lambda m: len(m) * min(m.second - m.first, 4), default=None)


def _epipolar(
    checked: Checked, pair: Matches, rotations: np.ndarray, centers: np.ndarray
) -> Image.Image:
    """The two frames of a pair side by side, points, and the rays of the left ones on the right."""
    half = _WIDTH // 2
    first, second = (checked.images[frame] for frame in (pair.first, pair.second))
    factor = [min((half - 4) / i.shape[1], _TALLEST / i.shape[0]) for i in (first, second)]
    sizes = [
        (round(image.shape[1] * f), round(image.shape[0] * f))
        for image, f in zip((first, second), factor, strict=True)
    ]
    sheet = Image.new("RGB", (_WIDTH, max(size[1] for size in sizes) + 4), _BACK)
    for left, image, size in zip((0, half), (first, second), sizes, strict=True):
        sheet.paste(Image.fromarray(image).resize(size), (left, 0))
    right = Image.new("RGBA", sizes[1])
    pen, ray_pen = ImageDraw.Draw(sheet), ImageDraw.Draw(right)
    order = np.argsort(pair.points_first[:, 0] * 7919 % 1.0)  # any, but not all in one corner
    for number, m in enumerate(order[:_SHOWN_MATCHES]):
        color = _color(number)
        a, b = pair.points_first[m] * factor[0], pair.points_second[m] * factor[1]
        for x, y in (tuple(a), (b[0] + half, b[1])):
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), outline=color, width=2)
        for piece in _ray(checked, pair, rotations, centers, pair.points_first[m]):
            ray_pen.line([tuple(p * factor[1]) for p in piece], fill=color, width=2)
    sheet.paste(right, (half, 0), right)
    return sheet


def _ray(checked, pair, rotations, centers, point) -> list[np.ndarray]:
    """Pieces of the image [n, 2], in the second frame, of a ray of the first."""
    k_first, k_second = (checked.example.intrinsics[frame] for frame in (pair.first, pair.second))
    direction = np.array([*(point - k_first[2:]) / k_first[:2], 1.0])
    world = rotations[pair.first] @ direction
    shift = centers[pair.first] - centers[pair.second]
    distance = np.linalg.norm(shift)
    # From infinity to a tenth of the distance of the cameras.
    inverse = np.linspace(0.0, 1.0, _DEPTHS) ** 2 * (10 / distance if distance > 0 else 0.0)
    local = (world + inverse[:, None] * shift) @ rotations[pair.second]
    pixels = local[:, :2] / np.where(local[:, 2:] > 1e-6, local[:, 2:], 1.0)
    pixels = pixels * k_second[:2] + k_second[2:]
    size = checked.images[pair.second].shape[1]
    visible = (local[:, 2] > 1e-6) & (np.abs(pixels).max(axis=1) < 4 * size)
    pieces = np.split(pixels, np.flatnonzero(np.diff(visible)) + 1)
    kept = visible[np.concatenate([[0], np.flatnonzero(np.diff(visible)) + 1])]
    return [piece for piece, shown in zip(pieces, kept, strict=True) if shown and len(piece) > 1]


def _color(number: int) -> tuple[int, int, int]:
    angle = 2.4 * number
    return tuple(int(140 + 110 * np.cos(angle + shift)) for shift in (0, 2.1, 4.2))
