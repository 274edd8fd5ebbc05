"""Materials drawn at random: woods, fabrics, paints, walls, floors, pictures and the like."""

import colorsys
import random
from collections.abc import Sequence

from lgs_jax.data.sources.procedural import patterns
from lgs_jax.data.sources.procedural.solids import Color, Material


def tone(hue: float, saturation: float, value: float) -> Color:
    """Linear reflectance of a display colour given as HSV; the display gamma is 2."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, min(saturation, 1), min(value, 1))
    return red * red, green * green, blue * blue


# Stretches of the hue circle with how often they occur: warm tones and blues lead indoors.
_HUES = ((0.0, 0.15, 0.46), (0.2, 0.45, 0.2), (0.5, 0.66, 0.24), (0.7, 1.0, 0.1))


def _any_hue(rng: random.Random) -> float:
    low, high, _ = rng.choices(_HUES, weights=[share for *_, share in _HUES])[0]
    return rng.uniform(low, high)


def _between(rng: random.Random, hue, saturation, value) -> tuple[float, float, float]:
    """A base colour (HSV) between the given pairs; hue None takes any."""
    chosen = _any_hue(rng) if hue is None else rng.uniform(*hue)
    return chosen, rng.uniform(*saturation), rng.uniform(*value)


def _variant(rng: random.Random, family: str) -> int:
    return rng.choice(patterns.bank().names[family])


def make(
    rng: random.Random,
    families: Sequence[str],
    base: tuple[float, float, float],
    *,
    contrast: float = 0.2,
    tile: float = 1.0,
    emission: float = 0.0,
) -> Material:
    """A material of one of the families around a base colour (HSV).

    `contrast` is how far the second colour's value lies from the first's.
    """
    hue, saturation, value = base
    sign = -1 if value > 0.6 or (value > 0.4 and rng.random() < 0.5) else 1
    second = (hue + rng.uniform(-0.04, 0.04), saturation * rng.uniform(0.6, 1.2))
    third = (hue + rng.uniform(-0.08, 0.08), saturation * rng.uniform(0.5, 1.1))
    colors = (
        tone(hue, saturation, value),
        tone(*second, value + sign * contrast),
        tone(*third, value + sign * contrast * rng.uniform(0.6, 1.4)),
    )
    return Material(_variant(rng, rng.choice(families)), colors, tile, emission)


def paint(rng: random.Random) -> Material:
    """A plain paint of any hue."""
    base = _between(rng, None, (0.15, 0.7), (0.45, 0.9))
    return make(rng, ["plain"], base, contrast=0.12, tile=0.8)


def vivid(rng: random.Random) -> Material:
    """A saturated paint or a bold pattern, for toys and objects."""
    base = _between(rng, None, (0.45, 0.8), (0.55, 0.9))
    families = ["plain", "plain", "stripes", "checker", "dots", "mottle", "diamonds"]
    return make(rng, families, base, contrast=0.3, tile=rng.uniform(0.4, 0.8))


def wood(rng: random.Random) -> Material:
    """Light to dark wood, now and then painted white."""
    if rng.random() < 0.2:
        return make(rng, ["plain"], (0.1, 0.08, rng.uniform(0.8, 0.95)), contrast=0.1)
    base = _between(rng, (0.05, 0.1), (0.35, 0.65), (0.25, 0.8))
    return make(rng, ["wood", "wood", "plain"], base, contrast=0.16, tile=0.7)


def fabric(rng: random.Random) -> Material:
    """Upholstery, blankets and curtains."""
    base = _between(rng, None, (0.15, 0.65), (0.3, 0.9))
    families = ["plain", "plain", "mottle", "stripes", "plaid", "checker", "dots", "diamonds"]
    return make(rng, families, base, contrast=0.22, tile=rng.uniform(0.5, 0.9))


def white(rng: random.Random) -> Material:
    """Linen, enamel and window frames."""
    return make(rng, ["plain"], (rng.uniform(0.08, 0.6), 0.05, rng.uniform(0.85, 0.97)))


def dark(rng: random.Random) -> Material:
    """Metal, rubber and screens."""
    base = _between(rng, None, (0.05, 0.25), (0.15, 0.35))
    return make(rng, ["plain", "mottle"], base, contrast=0.1, tile=0.6)


def leaves(rng: random.Random) -> Material:
    """Foliage."""
    base = _between(rng, (0.22, 0.38), (0.4, 0.7), (0.35, 0.65))
    return make(rng, ["mottle"], base, contrast=0.3, tile=rng.uniform(0.3, 0.6))


def pot(rng: random.Random) -> Material:
    """Glazed or plain pottery."""
    base = _between(rng, None, (0.2, 0.6), (0.45, 0.9))
    if rng.random() < 0.4:
        base = _between(rng, (0.02, 0.07), (0.45, 0.7), (0.5, 0.75))
    return make(rng, ["plain", "plain", "stripes", "dots"], base, contrast=0.25, tile=0.35)


def glow(rng: random.Random) -> Material:
    """Lamp shades that shine."""
    base = (rng.uniform(0.07, 0.14), rng.uniform(0.1, 0.4), rng.uniform(0.9, 1.0))
    return make(rng, ["plain", "stripes"], base, contrast=0.1, tile=0.5, emission=0.8)


def picture(rng: random.Random) -> Material:
    """A painting or poster of three loosely related colours."""
    hue = _any_hue(rng)
    colors = tuple(
        tone(hue + shift + rng.uniform(-0.08, 0.08), rng.uniform(0.3, 0.75), rng.uniform(*value))
        for shift, value in ((0.0, (0.7, 0.95)), (0.12, (0.4, 0.8)), (0.5, (0.25, 0.7)))
    )
    return Material(_variant(rng, rng.choice(["abstract", "abstract", "landscape"])), colors)


def view(rng: random.Random) -> Material:
    """What a window shows: sky above a hazy horizon and land below."""
    sky = tone(rng.uniform(0.53, 0.6), rng.uniform(0.25, 0.55), rng.uniform(0.8, 0.95))
    haze = tone(rng.uniform(0.5, 0.62), rng.uniform(0.05, 0.15), 0.98)
    land = tone(rng.uniform(0.2, 0.36), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.65))
    return Material(_variant(rng, "landscape"), (haze, sky, land), emission=0.85)


def fitted(rng: random.Random, family: str, body: Material) -> Material:
    """A front (doors, drawers, books) in the colours of a piece's body."""
    hue = _any_hue(rng)
    if family == "books":
        first = tone(hue, rng.uniform(0.3, 0.7), rng.uniform(0.5, 0.9))
        second = tone(hue + rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.9))
        back = tuple(0.35 * x for x in body.colors[0])
        return Material(_variant(rng, family), (back, first, second))
    share = rng.choice([0.55, 0.7, 1.3])
    inside = tuple(min(share * x, 0.95) for x in body.colors[0])
    return Material(_variant(rng, family), (body.colors[0], inside, tone(0.12, 0.3, 0.3)))


def rug(rng: random.Random) -> Material:
    """A rug with a border and a motif."""
    hue = _any_hue(rng)
    return Material(
        _variant(rng, "rug"),
        (
            tone(hue, rng.uniform(0.25, 0.65), rng.uniform(0.5, 0.85)),
            tone(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.4), rng.uniform(0.75, 0.95)),
            tone(hue + rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.6), rng.uniform(0.35, 0.6)),
        ),
    )


def wall(rng: random.Random) -> Material:
    """Wall paint, wallpaper, bricks or tiles; mostly light and pale."""
    base = _between(rng, None, (0.05, 0.45), (0.55, 0.97))
    if rng.random() < 0.45:
        base = _between(rng, (0.06, 0.16), (0.05, 0.3), (0.75, 0.98))
    families = ["plain", "plain", "mottle", "stripes", "stripes", "diamonds", "plaid"]
    if rng.random() < 0.16:
        base = _between(rng, (0.01, 0.09), (0.2, 0.5), (0.6, 0.85))
        return make(rng, ["bricks"], base, contrast=0.14, tile=rng.uniform(1.2, 1.8))
    return make(rng, families, base, contrast=rng.uniform(0.1, 0.24), tile=rng.uniform(1.0, 1.8))


def floor(rng: random.Random) -> Material:
    """Planks, tiles, marble or carpet."""
    draw = rng.random()
    if draw < 0.45:
        base = _between(rng, (0.05, 0.1), (0.3, 0.65), (0.35, 0.85))
        return make(rng, ["planks"], base, contrast=0.24, tile=rng.uniform(1.4, 2.2))
    if draw < 0.7:
        base = _between(rng, None, (0.05, 0.3), (0.6, 0.9))
        families = ["tiles", "tiles", "checker", "marble"]
        return make(
            rng, families, base, contrast=rng.uniform(0.15, 0.4), tile=rng.uniform(1.2, 2.0)
        )
    base = _between(rng, None, (0.15, 0.55), (0.3, 0.75))
    families = ["mottle", "plain", "plaid", "diamonds", "dots"]
    return make(rng, families, base, contrast=0.16, tile=rng.uniform(1.2, 2.0))


def ceiling(rng: random.Random) -> Material:
    """Nearly white."""
    base = (rng.uniform(0.05, 0.6), rng.uniform(0, 0.08), rng.uniform(0.85, 0.97))
    return make(rng, ["plain"], base, contrast=0.06, tile=2.0)
