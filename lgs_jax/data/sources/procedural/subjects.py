"""Objects for the object scenes, standing on z = 0, about 0.5 to 0.9 m in size.

Every builder takes a random generator and returns an `Item`; its name is the object's class.
"""

import math
import random
from collections.abc import Callable

from lgs_jax.data.sources.procedural import furniture, palettes
from lgs_jax.data.sources.procedural.furniture import Item
from lgs_jax.data.sources.procedural.solids import box, ellipsoid, frustum


def blocks(rng: random.Random) -> Item:
    """A tower of toy blocks."""
    solids, z = [], 0.0
    width = rng.uniform(0.2, 0.28)
    for _ in range(rng.randint(3, 4)):
        half = width * rng.uniform(0.75, 1.0)
        height = rng.uniform(0.07, 0.14)
        center = (rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05), z + height)
        if rng.random() < 0.65:
            sizes = (half, half * rng.uniform(0.6, 1), height)
            solids.append(box(center, sizes, palettes.vivid(rng), yaw=rng.uniform(-0.7, 0.7)))
        else:
            solids.append(frustum(center, half, height, palettes.vivid(rng)))
        z += 2 * height
        width *= 0.88
    solids.append(
        frustum((0, 0, z + 0.12), 0.14, 0.12, palettes.vivid(rng), taper=0.02)
        if rng.random() < 0.5
        else ellipsoid((0, 0, z + 0.12), (0.12, 0.12, 0.12), palettes.vivid(rng))
    )
    return Item(solids, (0.33, 0.33), z + 0.24)


def house(rng: random.Random) -> Item:
    """A house with a pointed roof, door, windows and chimney."""
    x, y, h = rng.uniform(0.26, 0.36), rng.uniform(0.24, 0.34), rng.uniform(0.16, 0.24)
    base = (rng.uniform(0, 0.15), rng.uniform(0.1, 0.5), rng.uniform(0.7, 0.95))
    walls = palettes.make(rng, ["bricks", "plain", "stripes"], base, contrast=0.15, tile=0.5)
    red = (rng.choice([0.02, 0.05, 0.6]), 0.6, rng.uniform(0.45, 0.7))
    roof = palettes.make(rng, ["tiles", "plain"], red, contrast=0.15, tile=0.4)
    wood, view = palettes.wood(rng), palettes.view(rng)
    solids = [
        box((0, 0, h), (x, y, h), walls),
        frustum((0, 0, 2 * h + 0.13), 1.28 * max(x, y), 0.13, roof, taper=0.05),
        box((0.5 * x, 0.2 * y, 2 * h + 0.17), (0.04, 0.04, 0.12), walls),
        box((-0.4 * x, -y, 0.6 * h), (0.065, 0.015, 0.6 * h), palettes.fitted(rng, "panels", wood)),
        box((0.4 * x, -y, 1.1 * h), (0.08, 0.015, 0.07), view),
        box((x, 0, 1.1 * h), (0.015, 0.08, 0.07), view),
        box((-x, 0, 1.1 * h), (0.015, 0.08, 0.07), view),
    ]
    return Item(solids, (1.2 * x, 1.2 * y), 2 * h + 0.29)


def car(rng: random.Random) -> Item:
    """A toy car or truck."""
    color, rubber, glass = palettes.vivid(rng), palettes.dark(rng), palettes.view(rng)
    length, y, wheel = rng.uniform(0.34, 0.44), 0.19, rng.uniform(0.08, 0.1)
    cab_x = rng.choice([-0.05, 0.0, 0.45 * length])
    solids = [
        box((0, 0, wheel + 0.08), (length, y, 0.09), color),
        box((cab_x, 0, wheel + 0.25), (0.45 * length, 0.9 * y, 0.09), color),
        box((cab_x, 0, wheel + 0.26), (0.46 * length, 0.8 * y, 0.06), glass),
        box((cab_x, 0, wheel + 0.26), (0.38 * length, 0.92 * y, 0.06), glass),
    ]
    if cab_x > 0.1:
        where = (-0.42 * length, 0, wheel + 0.24)
        solids.append(box(where, (0.5 * length, 0.85 * y, 0.1), palettes.vivid(rng)))
    for x in (-0.6 * length, 0.6 * length):
        for side in (-1, 1):
            center = (x, side * y, wheel)
            solids.append(frustum(center, wheel, 0.04, rubber, axis="y"))
            hub = (x, side * (y + 0.035), wheel)
            solids.append(frustum(hub, 0.5 * wheel, 0.012, palettes.white(rng), axis="y"))
    return Item(solids, (length, y + 0.05), wheel + 0.34)


def robot(rng: random.Random) -> Item:
    """A robot of boxes and cylinders."""
    body, limb, eye = palettes.vivid(rng), palettes.dark(rng), palettes.glow(rng)
    head = palettes.vivid(rng)
    w, h = rng.uniform(0.15, 0.2), rng.uniform(0.15, 0.2)
    chest = 0.24 + h
    top = chest + h
    solids = [
        box((0, 0, chest), (w, 0.12, h), body),
        box((0, -0.12, chest), (0.6 * w, 0.012, 0.5 * h), palettes.picture(rng)),
        box((0, 0, top + 0.13), (0.7 * w, 0.1, 0.1), head),
        frustum((0, 0, top + 0.02), 0.05, 0.03, limb),
        frustum((0, 0, top + 0.27), 0.03, 0.06, eye, taper=0.3),
    ]
    for side in (-1, 1):
        solids.append(box((side * 0.5 * w, -0.02, 0.12), (0.06, 0.09, 0.13), limb))
        solids.append(frustum((side * (w + 0.05), 0, chest), 0.05, 0.9 * h, head))
        where = (side * 0.3 * w, -0.1, top + 0.15)
        solids.append(ellipsoid(where, (0.035, 0.03, 0.035), eye))
    return Item(solids, (w + 0.1, 0.13), top + 0.33)


def snowman(rng: random.Random) -> Item:
    """A snowman, or a bear-like figure, of balls."""
    white, r = palettes.white(rng), rng.uniform(0.2, 0.25)
    if rng.random() < 0.4:
        white = palettes.vivid(rng)
    coal = palettes.dark(rng)
    solids = [
        ellipsoid((0, 0, 0.9 * r), (r, r, 0.92 * r), white),
        ellipsoid((0, 0, 2.2 * r), (0.75 * r, 0.75 * r, 0.7 * r), white),
        ellipsoid((0, 0, 3.25 * r), (0.55 * r, 0.55 * r, 0.52 * r), white),
        frustum((0, -0.7 * r, 3.25 * r), 0.1 * r, 0.25 * r, palettes.vivid(rng), axis="y"),
        frustum((0, 0, 3.7 * r), 0.6 * r, 0.05 * r, coal),
        frustum((0, 0, 3.95 * r), 0.38 * r, 0.28 * r, coal),
        frustum((0, 0, 2.78 * r), 0.5 * r, 0.1 * r, palettes.fabric(rng)),
    ]
    for side in (-1, 1):
        solids.append(ellipsoid((side * 0.2 * r, -0.5 * r, 3.4 * r), (0.08 * r,) * 3, coal))
    return Item(solids, (r, r), 4.2 * r)


def rocket(rng: random.Random) -> Item:
    """A rocket with fins."""
    body, tip, r = palettes.vivid(rng), palettes.vivid(rng), rng.uniform(0.12, 0.16)
    h = rng.uniform(0.22, 0.28)
    glass = palettes.view(rng)
    solids = [
        frustum((0, 0, 0.12 + h), r, h, body),
        frustum((0, 0, 0.12 + 2 * h + 0.13), r, 0.13, tip, taper=0.03),
        frustum((0, 0, 0.07), 0.9 * r, 0.06, palettes.dark(rng), taper=0.6),
        ellipsoid((0, -0.85 * r, 0.12 + 1.4 * h), (0.4 * r, 0.25 * r, 0.4 * r), glass),
    ]
    for k in range(4):
        angle = k * math.pi / 2 + 0.4
        where = (1.2 * r * math.cos(angle), 1.2 * r * math.sin(angle), 0.14)
        solids.append(box(where, (0.6 * r, 0.03, 0.13), tip, yaw=angle))
    return Item(solids, (1.8 * r, 1.8 * r), 0.38 + 2 * h)


def tree(rng: random.Random) -> Item:
    """A fir of cones or a tree with round crowns, in a pot or on a trunk."""
    green, bark = palettes.leaves(rng), palettes.wood(rng)
    solids = [frustum((0, 0, 0.15), 0.07, 0.15, bark, taper=0.8)]
    if rng.random() < 0.5:
        z, r = 0.2, rng.uniform(0.28, 0.34)
        for _ in range(3):
            solids.append(frustum((0, 0, z + 0.14), r, 0.14, green, taper=0.25))
            z, r = z + 0.2, 0.72 * r
        solids.append(ellipsoid((0, 0, z + 0.1), (0.05, 0.05, 0.06), palettes.glow(rng)))
        return Item(solids, (0.33, 0.33), z + 0.15)
    fruit = palettes.vivid(rng)
    for k in range(3):
        angle = 2.1 * k + rng.uniform(0, 0.5)
        where = (0.13 * math.cos(angle), 0.13 * math.sin(angle), 0.42 + 0.07 * k)
        solids.append(ellipsoid(where, (0.21, 0.2, 0.19), green))
        dot = (0.33 * math.cos(angle + 0.3), 0.33 * math.sin(angle + 0.3), 0.42 + 0.07 * k)
        solids.append(ellipsoid(dot, (0.05, 0.05, 0.05), fruit))
    return Item(solids, (0.36, 0.36), 0.75)


def castle(rng: random.Random) -> Item:
    """A castle: a hall between towers with pointed roofs."""
    base = (rng.uniform(0.02, 0.15), rng.uniform(0.05, 0.4), rng.uniform(0.6, 0.9))
    stone = palettes.make(rng, ["bricks", "tiles", "mottle"], base, contrast=0.15, tile=0.4)
    roof = palettes.vivid(rng)
    x, h = rng.uniform(0.2, 0.28), rng.uniform(0.2, 0.28)
    gate = palettes.fitted(rng, "panels", palettes.wood(rng))
    solids = [
        box((0, 0, 0.7 * h), (x, 0.8 * x, 0.7 * h), stone),
        box((0, -0.8 * x, 0.4 * h), (0.3 * x, 0.015, 0.4 * h), gate),
    ]
    for k, (side_x, side_y) in enumerate(((-1, -1), (1, -1), (1, 1), (-1, 1))):
        height = h * (1.0 + 0.25 * (k >= 2))
        where = (side_x * x, 0.8 * side_y * x, height)
        solids.append(frustum(where, 0.1, height, stone))
        top = (where[0], where[1], 2 * height + 0.1)
        solids.append(frustum(top, 0.14, 0.1, roof, taper=0.02))
    return Item(solids, (x + 0.13, 0.8 * x + 0.13), 2.5 * h + 0.2)


def animal(rng: random.Random) -> Item:
    """A four-legged animal."""
    base = (rng.uniform(0.03, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.9))
    fur = palettes.make(rng, ["plain", "mottle", "dots", "stripes"], base, contrast=0.25, tile=0.5)
    dark, leg = palettes.dark(rng), rng.uniform(0.11, 0.2)
    x, r = rng.uniform(0.26, 0.34), rng.uniform(0.14, 0.18)
    back = leg * 1.6 + r
    neck = rng.choice([0.05, 0.12, 0.25])
    head = (x + 0.08, 0.0, back + r * 0.6 + neck)
    solids = [
        ellipsoid((0, 0, back), (x, r, r), fur),
        ellipsoid(head, (0.14, 0.11, 0.12), fur),
        ellipsoid((head[0] + 0.12, 0, head[2] - 0.03), (0.08, 0.06, 0.06), dark),
        frustum((x - 0.02, 0, back + 0.5 * neck + 0.05), 0.08, 0.5 * neck + 0.05, fur),
        ellipsoid((-x, 0, back + 0.06), (0.09, 0.04, 0.05), dark),
    ]
    for side in (-1, 1):
        ear = (head[0] - 0.03, side * 0.08, head[2] + 0.12)
        solids.append(frustum(ear, 0.045, 0.06, dark, taper=0.2))
        for along in (-0.6, 0.6):
            where = (along * x, side * 0.6 * r, 0.9 * leg)
            solids.append(frustum(where, 0.055, 0.9 * leg, fur))
    return Item(solids, (x + 0.2, r), head[2] + 0.18)


def cake(rng: random.Random) -> Item:
    """A cake with tiers, candles and a plate."""
    r, h, z = rng.uniform(0.26, 0.32), rng.uniform(0.08, 0.11), 0.03
    solids = [frustum((0, 0, 0.015), 1.25 * r, 0.015, palettes.white(rng))]
    for _ in range(rng.randint(2, 3)):
        solids.append(frustum((0, 0, z + h), r, h, palettes.vivid(rng)))
        solids.append(frustum((0, 0, z + 2 * h), 1.04 * r, 0.018, palettes.white(rng)))
        z, r = z + 2 * h + 0.015, 0.68 * r
    for k in range(3):
        where = (0.6 * r * math.cos(2.1 * k), 0.6 * r * math.sin(2.1 * k), z + 0.07)
        solids.append(frustum(where, 0.025, 0.07, palettes.vivid(rng)))
    return Item(solids, (0.38, 0.38), z + 0.14)


def mushroom(rng: random.Random) -> Item:
    """One tall and one small mushroom."""
    hue = rng.choice([0.0, 0.05, 0.1, 0.75])
    cap = palettes.make(rng, ["dots"], (hue, 0.7, 0.7), contrast=0.35, tile=0.4)
    stem, h, r = palettes.white(rng), rng.uniform(0.18, 0.26), rng.uniform(0.26, 0.34)
    solids = [
        frustum((0, 0, h), 0.11, h, stem, taper=0.75),
        ellipsoid((0, 0, 2 * h), (r, r, 0.5 * r), cap),
        frustum((0.3, 0.12, 0.5 * h), 0.06, 0.5 * h, stem, taper=0.8),
        ellipsoid((0.3, 0.12, h), (0.5 * r, 0.5 * r, 0.3 * r), cap),
    ]
    return Item(solids, (0.45, 0.34), 2 * h + 0.5 * r)


def seat(rng: random.Random) -> Item:
    """A chair."""
    return furniture.chair(rng)


def vase(rng: random.Random) -> Item:
    """A vase with a bouquet."""
    glaze, r = palettes.pot(rng), rng.uniform(0.17, 0.23)
    solids = [
        frustum((0, 0, 0.03), 0.7 * r, 0.03, glaze),
        ellipsoid((0, 0, 0.05 + r), (r, r, 1.05 * r), glaze),
        frustum((0, 0, 0.06 + 2 * r), 0.42 * r, 0.4 * r, glaze, taper=1.5),
    ]
    top = 0.06 + 2.4 * r
    solids.append(ellipsoid((0, 0, top + 0.09), (0.19, 0.19, 0.13), palettes.leaves(rng)))
    for k in range(4):
        angle = k * math.pi / 2 + rng.uniform(0, 0.6)
        where = (0.15 * math.cos(angle), 0.15 * math.sin(angle), top + rng.uniform(0.12, 0.22))
        solids.append(ellipsoid(where, (0.075, 0.075, 0.065), palettes.vivid(rng)))
    return Item(solids, (r, r), top + 0.25)


SUBJECTS: tuple[Callable[[random.Random], Item], ...] = (
    blocks,
    house,
    car,
    robot,
    snowman,
    rocket,
    tree,
    castle,
    animal,
    cake,
    mushroom,
    seat,
    vase,
)
