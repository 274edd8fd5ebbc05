"""A bank of small tileable patterns with mip levels: every texture of the procedural scenes.

A pattern is two weight maps (v1, v2) over (u, v) in [0, 1)^2, v up. A surface gives it three
colours: c = lerp(lerp(c0, c1, v1), c2, v2). Looking up the mip level that fits a pixel's footprint
keeps pictures of any size free of aliasing, at one cost for all families.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

SIZE = 64  # texels per side of the finest level
LEVELS = 7  # 64, 32, ..., 1
_SIDES = SIZE >> np.arange(LEVELS)
_FINE = 256  # patterns are drawn here and averaged down
_SEED = 20240517

Maps = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Bank:
    """All patterns.

    Attributes:
      quads: weights of the four texels that surround each corner between texels, of all levels of
        all patterns [T, 8] float32: (v1, v2) of low left, low right, high left, high right.
      offsets: first texel of each level [LEVELS] int64; pattern k starts k * side^2 further.
      names: pattern numbers by family name.
    """

    quads: np.ndarray
    offsets: np.ndarray
    names: dict[str, tuple[int, ...]]

    def lookup(
        self, pattern: np.ndarray, u: np.ndarray, v: np.ndarray, footprint: np.ndarray
    ) -> np.ndarray:
        """Weights (v1, v2) [2, N] of `pattern` [N] at (u, v) [N], averaged over about `footprint`.

        The footprint [N] is in units of the pattern (1 = all of it); trilinear between mip levels.
        """
        lod = np.log2(np.maximum(footprint * np.float32(SIZE), 1.0)).clip(max=LEVELS - 1.001)
        level = lod.astype(np.intp)
        fine = self._bilinear(pattern, u, v, level)
        coarse = self._bilinear(pattern, u, v, level + 1)
        coarse -= fine
        coarse *= lod - level.astype(np.float32)
        fine += coarse
        return fine

    def _bilinear(
        self, pattern: np.ndarray, u: np.ndarray, v: np.ndarray, level: np.ndarray
    ) -> np.ndarray:
        side = _SIDES.take(level)
        scale = side.astype(np.float32)
        x, y = u * scale - np.float32(0.5), v * scale - np.float32(0.5)
        x0, y0 = np.floor(x), np.floor(y)
        wrap = side - 1
        texel = (y0.astype(np.intp) & wrap) * side + (x0.astype(np.intp) & wrap)
        texel += self.offsets.take(level) + pattern * (side * side)
        quads = np.ascontiguousarray(self.quads.take(texel, axis=0).T)
        x -= x0
        y -= y0
        rows = quads[:4] + y * (quads[4:] - quads[:4])
        return rows[:2] + x * (rows[2:] - rows[:2])


def _waves(rng: np.random.Generator, u, v, max_u: int, max_v: int, count: int = 8) -> np.ndarray:
    """Smooth tileable noise in [0, 1]: a sum of plane waves of integer frequency."""
    total = np.zeros_like(u)
    for _ in range(count):
        fu, fv = rng.integers(-max_u, max_u + 1), rng.integers(-max_v, max_v + 1)
        if fu == fv == 0:
            fv = max_v
        weight = rng.uniform(0.5, 1.0) / (1.0 + 0.4 * np.hypot(fu, fv))
        total += weight * np.cos(2 * np.pi * (fu * u + fv * v + rng.uniform()))
    return np.clip(0.5 + 0.22 * total / total.std(), 0.0, 1.0)


def _plain(rng, u, v) -> Maps:
    return 0.35 * _waves(rng, u, v, 2, 2), np.zeros_like(u)


def _mottle(rng, u, v) -> Maps:
    return _waves(rng, u, v, 3, 3), 0.3 * _waves(rng, u, v, 2, 2)


def _marble(rng, u, v) -> Maps:
    phase = u * rng.integers(1, 3) + v * rng.integers(1, 3) + 0.5 * _waves(rng, u, v, 2, 2)
    vein = 1.0 - np.abs(np.sin(np.pi * phase * 2))
    return _waves(rng, u, v, 2, 2), 0.8 * vein**4


def _stripes(rng, u, v) -> Maps:
    count, duty = rng.integers(2, 5), rng.uniform(0.3, 0.6)
    part = (u * count) % 1.0
    accent = rng.integers(2) * (np.abs(part - duty - 0.15) < 0.05)
    return (part < duty).astype(float), accent.astype(float)


def _plaid(rng, u, v) -> Maps:
    count, duty = rng.integers(1, 3), rng.uniform(0.35, 0.55)
    across, along = (u * count) % 1.0, (v * count) % 1.0
    lines = (np.abs(across - 0.75) < 0.05) | (np.abs(along - 0.75) < 0.05)
    return 0.5 * (across < duty) + 0.5 * (along < duty), 0.7 * lines


def _checker(rng, u, v) -> Maps:
    tint = rng.uniform(0.0, 0.4) * _waves(rng, u, v, 2, 2)
    return (((u * 2).astype(int) + (v * 2).astype(int)) % 2).astype(float), tint


def _planks(rng, u, v) -> Maps:
    rows = int(rng.integers(4, 7))
    row = (v * rows).astype(int)
    shifted = u + rng.uniform(size=rows)[row]
    half = (shifted * 2).astype(int) % 2
    tone = rng.uniform(0.0, 0.8, size=(rows, 2))[row, half]
    grain = _waves(rng, u, v, 2, 14, 12)
    gap = (np.abs((v * rows) % 1.0 - 0.5) > 0.46) | (np.abs((shifted * 2) % 1.0 - 0.5) > 0.49)
    return np.clip(tone + 0.3 * grain, 0, 1), 0.6 * gap


def _wood(rng, u, v) -> Maps:
    rings = v * rng.integers(2, 5) + 0.5 * _waves(rng, u, v, 1, 2)
    return 0.5 + 0.35 * np.sin(2 * np.pi * rings), 0.4 * _waves(rng, u, v, 1, 10, 10)


def _bricks(rng, u, v) -> Maps:
    rows, columns = 6, 3
    row = (v * rows).astype(int)
    x = u * columns + 0.5 * (row % 2)
    tone = rng.uniform(size=(rows, columns))[row, x.astype(int) % columns]
    mortar = (np.abs(x % 1.0 - 0.5) > 0.46) | (np.abs((v * rows) % 1.0 - 0.5) > 0.42)
    return tone, mortar.astype(float)


def _tiles(rng, u, v) -> Maps:
    count = int(rng.integers(2, 5))
    x, y = u * count, v * count
    tone = rng.uniform(size=(count, count))[y.astype(int), x.astype(int)]
    grout = np.maximum(np.abs(x % 1.0 - 0.5), np.abs(y % 1.0 - 0.5)) > 0.465
    return tone, grout.astype(float)


def _dots(rng, u, v) -> Maps:
    radius = rng.uniform(0.22, 0.36)
    x, y = (2 * u) % 1.0 - 0.5, (2 * v) % 1.0 - 0.5
    return (np.hypot(x, y) < radius).astype(float), (np.hypot(x, y) < 0.45 * radius).astype(float)


def _diamonds(rng, u, v) -> Maps:
    reach = np.abs((2 * u) % 1.0 - 0.5) + np.abs((2 * v) % 1.0 - 0.5)
    return (reach < rng.uniform(0.36, 0.44)).astype(float), (
        np.abs(reach - 0.5) < rng.uniform(0.03, 0.06)
    ) * 0.8


def _books(rng, u, v) -> Maps:
    shelves = int(rng.integers(3, 5))
    first, second = np.zeros_like(u), np.zeros_like(u)
    for shelf in range(shelves):
        left = 0.06
        while left < 0.9:
            right = left + rng.uniform(0.07, 0.16)
            top = rng.uniform(0.62, 0.88)
            y = v * shelves - shelf
            spine = (u > left) & (u < min(right, 0.94)) & (y > 0.1) & (y < top)
            first[spine], second[spine] = rng.uniform(0.2, 1), rng.choice([0.0, 0.3, 1.0])
            left = right + rng.choice([0.0, 0.0, 0.12])
    return first, second


def _panels(rng, u, v) -> Maps:
    columns, rows = int(rng.integers(1, 3)), int(rng.integers(1, 4))
    x, y = (u * columns) % 1.0, (v * rows) % 1.0
    wide, edge = rng.uniform(0.3, 0.38), rng.uniform(0.07, 0.1)
    inside = (np.abs(x - 0.5) < wide) & (np.abs(y - 0.5) < 0.5 - edge * rows)
    knob = np.hypot(u - 0.5 - 0.38 / columns, v - 0.48) < 0.05
    return inside.astype(float), knob.astype(float)


def _drawers(rng, u, v) -> Maps:
    rows = int(rng.integers(2, 5))
    y = (v * rows) % 1.0
    inside = (np.abs(u - 0.5) < 0.45) & (np.abs(y - 0.5) < 0.42)
    handle = (np.abs(u - 0.5) < rng.uniform(0.06, 0.2)) & (np.abs(y - 0.55) < 0.1)
    return inside.astype(float), handle.astype(float)


def _abstract(rng, u, v) -> Maps:
    def blobs(count: int) -> np.ndarray:
        total = np.zeros_like(u)
        for _ in range(count):
            x, y = rng.uniform(0.15, 0.85, 2)
            radii = rng.uniform(0.12, 0.3, 2)
            reach = np.hypot((u - x) / radii[0], (v - y) / radii[1])
            total = np.maximum(total, np.clip((1.1 - reach) * 5, 0, 1))
        return total

    return blobs(3), blobs(2)


def _landscape(rng, u, v) -> Maps:
    horizon = rng.uniform(0.3, 0.5)
    hills = horizon + 0.12 * (_waves(rng, u, np.zeros_like(v), 3, 0, 4) - 0.5)
    sky = np.clip((v - horizon) / (1 - horizon), 0, 1)
    land = np.clip((hills - v) * 20, 0, 1)
    return sky, land * (0.75 + 0.25 * _waves(rng, u, v, 3, 3))


def _rug(rng, u, v) -> Maps:
    edge = np.maximum(np.abs(u - 0.5), np.abs(v - 0.5))
    reach = (np.abs(u - 0.5) + np.abs(v - 0.5)) if rng.integers(2) else np.hypot(u - 0.5, v - 0.5)
    outer = rng.uniform(0.22, 0.32)
    motif = (reach < outer) & ~((reach < 0.65 * outer) & bool(rng.integers(2)))
    return ((edge > 0.38) & (edge < 0.45)) | motif, 0.9 * (edge >= 0.45)


# Family -> (how to draw it, how many variants the bank holds).
FAMILIES: dict[str, tuple[Callable[..., Maps], int]] = {
    "plain": (_plain, 3),
    "mottle": (_mottle, 5),
    "marble": (_marble, 4),
    "stripes": (_stripes, 6),
    "plaid": (_plaid, 4),
    "checker": (_checker, 2),
    "planks": (_planks, 6),
    "wood": (_wood, 5),
    "bricks": (_bricks, 3),
    "tiles": (_tiles, 5),
    "dots": (_dots, 3),
    "diamonds": (_diamonds, 3),
    "books": (_books, 6),
    "panels": (_panels, 6),
    "drawers": (_drawers, 4),
    "abstract": (_abstract, 12),
    "landscape": (_landscape, 8),
    "rug": (_rug, 6),
}


def _halve(maps: np.ndarray) -> np.ndarray:
    k, side, _, channels = maps.shape
    return maps.reshape(k, side // 2, 2, side // 2, 2, channels).mean(axis=(2, 4))


def _quads(maps: np.ndarray) -> np.ndarray:
    """Each texel of [K, S, S, 2] with its right, upper and upper right neighbour [K, S, S, 8]."""
    right, up = np.roll(maps, -1, axis=2), np.roll(maps, -1, axis=1)
    return np.concatenate([maps, right, up, np.roll(up, -1, axis=2)], axis=-1)


@functools.cache
def bank() -> Bank:
    """The bank, drawn once per process from a fixed seed."""
    axis = (np.arange(_FINE) + 0.5) / _FINE
    u, v = np.meshgrid(axis, axis, indexing="xy")
    maps, names = [], {}
    for family, (draw, count) in FAMILIES.items():
        names[family] = tuple(range(len(maps), len(maps) + count))
        for variant in range(count):
            rng = np.random.default_rng([_SEED, len(names), variant])
            maps.append(np.stack(draw(rng, u, v), axis=-1).astype(np.float32))
    level = np.stack(maps)
    while level.shape[1] > SIZE:
        level = _halve(level)
    levels = [level]
    while len(levels) < LEVELS:
        levels.append(_halve(levels[-1]))
    sizes = [x.size // 2 for x in levels]
    return Bank(
        quads=np.concatenate([_quads(x).reshape(-1, 8) for x in levels]),
        offsets=np.cumsum([0, *sizes[:-1]]),
        names=names,
    )
