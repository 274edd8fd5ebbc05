"""Pieces of furniture, standing on z = 0 around the origin with their front towards -y.

Every builder takes a random generator and returns an `Item`.
"""

import dataclasses
import random
from collections.abc import Callable, Sequence

from lgs_jax.data.sources.procedural import palettes
from lgs_jax.data.sources.procedural.solids import Material, Solid, box, ellipsoid, frustum, place


@dataclasses.dataclass(frozen=True)
class Item:
    """Solids with half sizes (x, y) of the floor that they need and their height, metres."""

    solids: Sequence[Solid]
    half: tuple[float, float]
    height: float


def legs(
    half_x: float, half_y: float, height: float, thick: float, material: Material, round_: bool
) -> list[Solid]:
    """Four legs, centres at (+-half_x, +-half_y)."""
    centers = [(x, y, height / 2) for x in (-half_x, half_x) for y in (-half_y, half_y)]
    if round_:
        return [frustum(c, 0.75 * thick, height / 2, material, taper=1.3) for c in centers]
    return [box(c, (thick, thick, height / 2), material) for c in centers]


def ornament(rng: random.Random) -> Item:
    """A vase, ball, stack of books, box or plant of 0.2 to 0.45 m, for tops and floors."""
    kind = rng.randrange(5)
    r = rng.uniform(0.09, 0.15)
    if kind == 0:
        glaze = palettes.pot(rng)
        body = ellipsoid((0, 0, 1.2 * r), (r, r, 1.2 * r), glaze)
        neck = frustum((0, 0, 2.5 * r), 0.4 * r, 0.5 * r, glaze, taper=1.5)
        return Item([body, neck], (r, r), 3 * r)
    if kind == 1:
        return Item([ellipsoid((0, 0, r), (r, r, r), palettes.vivid(rng))], (r, r), 2 * r)
    if kind == 2:
        solids = []
        for level in range(3):
            half = (rng.uniform(0.9, 1.2) * r, 1.4 * r, 0.28 * r)
            center = (0, 0, (0.28 + 0.56 * level) * r)
            solids.append(box(center, half, palettes.vivid(rng), yaw=rng.uniform(-0.3, 0.3)))
        return Item(solids, (1.5 * r, 1.6 * r), 1.7 * r)
    if kind == 3:
        turn = rng.uniform(-0.5, 0.5)
        return Item(
            [box((0, 0, r), (1.1 * r, r, r), palettes.vivid(rng), yaw=turn)],
            (1.4 * r, 1.4 * r),
            2 * r,
        )
    base = frustum((0, 0, 0.7 * r), 0.6 * r, 0.7 * r, palettes.pot(rng), taper=1.4)
    crown = ellipsoid((0, 0, 2.4 * r), (1.3 * r, 1.2 * r, 1.3 * r), palettes.leaves(rng))
    return Item([base, crown], (1.3 * r, 1.3 * r), 3.7 * r)


def _decorate(rng: random.Random, item: Item, chance: float) -> Item:
    """The item with perhaps an ornament on its top."""
    if rng.random() > chance:
        return item
    extra = ornament(rng)
    room_x = max(item.half[0] - extra.half[0] - 0.05, 0)
    where = (rng.uniform(-room_x, room_x), 0.0, item.height)
    solids = [*item.solids, *place(extra.solids, where, rng.uniform(-1, 1))]
    return Item(solids, item.half, item.height + extra.height)


def table(rng: random.Random) -> Item:
    """A rectangular or round table, perhaps with something on it."""
    wood, height = palettes.wood(rng), rng.uniform(0.45, 0.8)
    if rng.random() < 0.35:
        radius = rng.uniform(0.4, 0.6)
        top = frustum((0, 0, height - 0.03), radius, 0.03, wood)
        column = frustum((0, 0, height / 2), 0.08, height / 2, palettes.wood(rng), taper=0.8)
        foot = frustum((0, 0, 0.03), 0.55 * radius, 0.03, column.material, taper=0.7)
        return _decorate(rng, Item([top, column, foot], (radius, radius), height), 0.8)
    x, y = rng.uniform(0.5, 0.8), rng.uniform(0.35, 0.5)
    top = box((0, 0, height - 0.035), (x, y, 0.035), wood)
    frame = wood if rng.random() < 0.6 else palettes.dark(rng)
    feet = legs(x - 0.09, y - 0.09, height - 0.05, 0.04, frame, rng.random() < 0.5)
    return _decorate(rng, Item([top, *feet], (x, y), height), 0.8)


def chair(rng: random.Random) -> Item:
    """A chair."""
    frame, seat = palettes.wood(rng), rng.uniform(0.42, 0.48)
    cloth = palettes.fabric(rng) if rng.random() < 0.6 else frame
    solids = legs(0.18, 0.18, seat, 0.035, frame, False)
    solids.append(box((0, 0, seat), (0.23, 0.23, 0.04), cloth))
    solids.append(box((0, 0.21, seat + 0.27), (0.22, 0.03, 0.24), cloth))
    return Item(solids, (0.25, 0.25), seat + 0.5)


def sofa(rng: random.Random) -> Item:
    """A sofa or an armchair."""
    x, y = rng.choice([0.42, 0.75, 0.95]), rng.uniform(0.38, 0.45)
    cloth, seat = palettes.fabric(rng), rng.uniform(0.38, 0.45)
    arm = rng.uniform(0.09, 0.13)
    solids = [
        box((0, 0, seat / 2 + 0.02), (x - 0.01, y - 0.01, seat / 2 - 0.02), cloth),
        box((0, y - 0.11, seat + 0.17), (x, 0.11, 0.24), cloth),
        *(box((s * (x - arm), 0, 0.31), (arm, y, 0.29), cloth) for s in (-1, 1)),
    ]
    pillows = 1 + (x > 0.5)
    for i in range(pillows):
        where = (0.0 if pillows == 1 else (2 * i - 1) * 0.45 * x, y - 0.28, seat + 0.16)
        solids.append(ellipsoid(where, (0.21, 0.11, 0.18), palettes.fabric(rng)))
    return Item(solids, (x, y), seat + 0.41)


def bed(rng: random.Random) -> Item:
    """A bed; its head is at +y."""
    x, y = rng.choice([0.5, 0.7, 0.8]), rng.uniform(0.95, 1.05)
    wood, cover = palettes.wood(rng), palettes.fabric(rng)
    solids = [
        box((0, 0, 0.15), (x, y, 0.13), wood),
        box((0, 0.02, 0.38), (x - 0.03, y - 0.04, 0.1), palettes.white(rng)),
        box((0, -0.25 * y, 0.42), (x + 0.01, 0.74 * y, 0.09), cover),
        box((0, y - 0.03, 0.5), (x, 0.04, rng.uniform(0.4, 0.5)), wood),
    ]
    pillows = 1 if x < 0.6 else 2
    for i in range(pillows):
        where = (0.0 if pillows == 1 else (i - 0.5) * x, y - 0.3, 0.52)
        solids.append(ellipsoid(where, (0.45 * x, 0.2, 0.1), palettes.white(rng)))
    return Item(solids, (x, y), 0.95)


def bookcase(rng: random.Random) -> Item:
    """Shelves full of books."""
    x, y, height = rng.uniform(0.4, 0.65), 0.17, rng.uniform(1.1, 2.0)
    body = palettes.wood(rng)
    front = box((0, -y, height / 2), (x, 0.01, height / 2), palettes.fitted(rng, "books", body))
    return Item([box((0, 0, height / 2), (x, y, height / 2), body), front], (x, y + 0.01), height)


def cabinet(rng: random.Random) -> Item:
    """A wardrobe, a sideboard or a chest of drawers."""
    tall = rng.random() < 0.4
    x, y = rng.uniform(0.4, 0.75), rng.uniform(0.2, 0.3)
    height = rng.uniform(1.6, 2.0) if tall else rng.uniform(0.6, 0.95)
    body = palettes.wood(rng) if rng.random() < 0.7 else palettes.paint(rng)
    family = "panels" if tall or rng.random() < 0.4 else "drawers"
    face = palettes.fitted(rng, family, body)
    solids = [
        box((0, 0, height / 2), (x, y, height / 2), body),
        box((0, -y, height / 2), (x - 0.02, 0.012, height / 2 - 0.03), face),
    ]
    item = Item(solids, (x, y + 0.02), height)
    return item if tall else _decorate(rng, item, 0.7)


def television(rng: random.Random) -> Item:
    """A screen on a low board."""
    body, x = palettes.wood(rng), rng.uniform(0.6, 0.85)
    screen = dataclasses.replace(palettes.picture(rng), emission=0.5)
    solids = [
        box((0, 0, 0.22), (x, 0.2, 0.22), body),
        box((0, -0.2, 0.22), (x - 0.02, 0.012, 0.18), palettes.fitted(rng, "drawers", body)),
        box((0, 0, 0.47), (0.2, 0.1, 0.03), palettes.dark(rng)),
        box((0, 0, 0.8), (0.8 * x, 0.035, 0.45 * x), palettes.dark(rng)),
        box((0, -0.035, 0.8), (0.75 * x, 0.005, 0.41 * x), screen),
    ]
    return Item(solids, (x, 0.22), 0.8 + 0.45 * x)


def floor_lamp(rng: random.Random) -> Item:
    """A lamp with a shining shade."""
    height, r = rng.uniform(1.25, 1.6), rng.uniform(0.17, 0.25)
    metal = palettes.dark(rng) if rng.random() < 0.6 else palettes.wood(rng)
    solids = [
        frustum((0, 0, 0.02), 0.75 * r, 0.02, metal),
        frustum((0, 0, height / 2), 0.025, height / 2, metal),
        frustum((0, 0, height), r, 0.15, palettes.glow(rng), taper=rng.uniform(0.5, 0.9)),
    ]
    return Item(solids, (r, r), height + 0.15)


def plant(rng: random.Random) -> Item:
    """A potted plant, tree-like or bushy."""
    r, green = rng.uniform(0.16, 0.24), palettes.leaves(rng)
    solids = [frustum((0, 0, r), 0.75 * r, r, palettes.pot(rng), taper=1.35)]
    if rng.random() < 0.4:
        height = rng.uniform(1.0, 1.5)
        solids.append(frustum((0, 0, height / 2), 0.035, height / 2, palettes.wood(rng)))
        solids.append(ellipsoid((0, 0, height), (0.34, 0.32, 0.32), green))
        return Item(solids, (0.34, 0.34), height + 0.32)
    if rng.random() < 0.4:
        height = rng.uniform(0.4, 0.6)
        solids.append(frustum((0, 0, 2 * r + height), 1.4 * r, height, green, taper=0.05))
        return Item(solids, (1.4 * r, 1.4 * r), 2 * r + 2 * height)
    for _ in range(3):
        where = (rng.uniform(-0.7, 0.7) * r, rng.uniform(-0.7, 0.7) * r, rng.uniform(2.6, 3.8) * r)
        half = (rng.uniform(0.8, 1.2) * r, rng.uniform(0.8, 1.2) * r, rng.uniform(0.9, 1.4) * r)
        solids.append(ellipsoid(where, half, green))
    return Item(solids, (1.9 * r, 1.9 * r), 5.2 * r)


def pouf(rng: random.Random) -> Item:
    """A round or cushion-like seat."""
    r, h = rng.uniform(0.22, 0.34), rng.uniform(0.18, 0.24)
    cloth = palettes.fabric(rng)
    if rng.random() < 0.5:
        return Item([frustum((0, 0, h), r, h, cloth, taper=rng.uniform(0.8, 1))], (r, r), 2 * h)
    return Item([ellipsoid((0, 0, h), (r, r, h), cloth)], (r, r), 2 * h)


def crates(rng: random.Random) -> Item:
    """Two or three boxes on one another."""
    solids, z = [], 0.0
    for _ in range(rng.randint(2, 3)):
        half = rng.uniform(0.16, 0.26)
        material = palettes.vivid(rng) if rng.random() < 0.5 else palettes.wood(rng)
        turn = rng.uniform(-0.4, 0.4)
        solids.append(box((0, 0, z + 0.8 * half), (half, half, 0.8 * half), material, yaw=turn))
        z += 1.6 * half
    return Item(solids, (0.34, 0.34), z)


def toys(rng: random.Random) -> Item:
    """A ball, a cone and a block side by side."""
    r = rng.uniform(0.13, 0.2)
    solids = [
        ellipsoid((-1.5 * r, 0, r), (r, r, r), palettes.vivid(rng)),
        frustum((r, 0.6 * r, 1.5 * r), r, 1.5 * r, palettes.vivid(rng), taper=0.02),
        box((0.9 * r, -1.3 * r, 0.6 * r), (0.6 * r, 0.6 * r, 0.6 * r), palettes.vivid(rng)),
    ]
    return Item(solids, (2.5 * r, 1.9 * r), 3 * r)


Builder = Callable[[random.Random], Item]
# What stands with its back to a wall, and what may stand anywhere.
AT_WALLS: tuple[Builder, ...] = (sofa, bed, bookcase, cabinet, cabinet, television, table)
ANYWHERE: tuple[Builder, ...] = (table, chair, floor_lamp, plant, plant, pouf, crates, toys, chair)
