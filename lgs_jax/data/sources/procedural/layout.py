"""Lays out whole scenes: furnished rooms, and objects on a stage.

A scene is a function of its random generator alone.
"""

import dataclasses
import math
import random
from collections.abc import Sequence

import numpy as np

from lgs_jax.data.sources.procedural import furniture, palettes, solids, subjects, trajectories
from lgs_jax.data.sources.procedural.furniture import Item
from lgs_jax.data.sources.procedural.scene import Lights, Scene
from lgs_jax.data.sources.procedural.solids import Material, Solid, Triple, box, place

CLASS_NAMES = ("room", *(build.__name__ for build in subjects.SUBJECTS))
_QUARTER = math.pi / 2
_CLEARANCE = 0.55  # metres between the camera path and anything that stands


@dataclasses.dataclass(frozen=True)
class _Placed:
    """An item on the floor: its solids, its place and the rectangle that it takes."""

    item: Item
    x: float
    y: float
    yaw: float
    half: tuple[float, float]  # of the upright rectangle around it

    def solids(self, z: float = 0.0) -> list[Solid]:
        return place(self.item.solids, (self.x, self.y, z), self.yaw)

    def contact(self) -> tuple[float, ...]:
        return (self.x, self.y, math.cos(self.yaw), math.sin(self.yaw), *self.item.half)

    def overlaps(self, other: "_Placed", gap: float = 0.06) -> bool:
        return (
            abs(self.x - other.x) < self.half[0] + other.half[0] + gap
            and abs(self.y - other.y) < self.half[1] + other.half[1] + gap
        )


def _placed(item: Item, x: float, y: float, yaw: float) -> _Placed:
    cos, sin = abs(math.cos(yaw)), abs(math.sin(yaw))
    a, b = item.half
    return _Placed(item, x, y, yaw, (cos * a + sin * b, sin * a + cos * b))


def _fits(candidate: _Placed, placed: Sequence[_Placed], path: np.ndarray) -> bool:
    """Whether the place is free and the camera path [F, 3] keeps its distance."""
    out = np.abs(path[:, :2] - (candidate.x, candidate.y)) - candidate.half
    if np.hypot(*np.maximum(out, 0).T).min() < _CLEARANCE:
        return False
    return not any(candidate.overlaps(other) for other in placed)


def _in_view(x: float, y: float, poses: np.ndarray) -> bool:
    """Whether the place is within about 28 degrees of the axis of an early, middle or late view."""
    views = poses[[len(poses) // 5, len(poses) // 2, (4 * len(poses)) // 5]]
    offsets = np.array([x, y]) - views[:, :2, 3]
    along = (offsets * views[:, :2, 2]).sum(axis=1)
    return bool((along > 0.88 * np.hypot(*offsets.T) * np.hypot(*views[:, :2, 2].T)).any())


def _at_wall(rng: random.Random, item: Item, size: Triple) -> _Placed:
    """The item with its back to the high-y wall or one of the x walls."""
    x, y, _ = size
    wall = rng.choice(["y", "y", "x low", "x high"])
    depth = item.half[1] + 0.02
    if wall == "y":
        room = max(x / 2 - item.half[0] - 0.02, 0)
        return _placed(item, rng.uniform(-room, room), y / 2 - depth, 0.0)
    room = max(y / 2 - item.half[0] - 0.02, 0)
    along = rng.uniform(-0.3 * room, room)
    if wall == "x low":
        return _placed(item, -x / 2 + depth, along, _QUARTER)
    return _placed(item, x / 2 - depth, along, -_QUARTER)


def _free(rng: random.Random, item: Item, size: Triple) -> _Placed:
    """The item anywhere on the floor, turned at random."""
    yaw = rng.uniform(-math.pi, math.pi)
    reach = math.hypot(*item.half)
    room_x, room_y = max(size[0] / 2 - reach, 0), max(size[1] / 2 - reach, 0)
    return _placed(item, rng.uniform(-room_x, room_x), rng.uniform(-room_y, room_y), yaw)


def _furnish(rng: random.Random, size: Triple, poses: np.ndarray) -> list[_Placed]:
    """Three to eight pieces, first along the walls, then in the open."""
    placed: list[_Placed] = []
    at_walls, in_open = rng.randint(2, 4), rng.randint(1, 4)
    for number in range(at_walls + in_open):
        walled = number < at_walls
        build = rng.choice(furniture.AT_WALLS if walled else furniture.ANYWHERE)
        item = build(rng)
        for _ in range(12):
            candidate = (_at_wall if walled else _free)(rng, item, size)
            if _in_view(candidate.x, candidate.y, poses) and _fits(
                candidate, placed, poses[:, :3, 3]
            ):
                placed.append(candidate)
                break
    return placed


def _window(rng: random.Random) -> Item:
    """A window, perhaps with curtains; like all things on walls its back is at y = 0."""
    x, z = rng.uniform(0.45, 0.85), rng.uniform(0.4, 0.6)
    frame = palettes.white(rng) if rng.random() < 0.7 else palettes.wood(rng)
    parts = [box((0, -0.02, 0), (x, 0.02, z), frame)]
    panes, view = rng.randint(1, 2), palettes.view(rng)
    wide = x / panes
    for k in range(panes):
        center = (-x + (2 * k + 1) * wide, -0.04, 0)
        parts.append(box(center, (wide - 0.05, 0.008, z - 0.05), view))
    if rng.random() < 0.45:
        cloth = palettes.fabric(rng)
        for side in (-1, 1):
            parts.append(box((side * (x + 0.08), -0.07, -0.08), (0.17, 0.03, z + 0.16), cloth))
        x += 0.25
    return Item(parts, (x, 0.1), 2 * z)


def _picture(rng: random.Random) -> Item:
    x, z = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.4)
    frame = rng.choice([palettes.wood, palettes.dark, palettes.white])(rng)
    canvas = box((0, -0.03, 0), (x - 0.04, 0.01, z - 0.04), palettes.picture(rng))
    return Item([box((0, -0.015, 0), (x, 0.015, z), frame), canvas], (x, 0.05), 2 * z)


def _door(rng: random.Random) -> Item:
    leaf = palettes.wood(rng) if rng.random() < 0.6 else palettes.paint(rng)
    frame = palettes.white(rng) if rng.random() < 0.5 else leaf
    parts = [
        box((0, -0.015, 0), (0.48, 0.015, 1.03), frame),
        box((0, -0.03, -0.02), (0.42, 0.01, 0.99), palettes.fitted(rng, "panels", leaf)),
    ]
    return Item(parts, (0.5, 0.05), 2.06)


def _hang(
    rng: random.Random, size: Triple, placed: Sequence[_Placed], poses: np.ndarray
) -> list[Solid]:
    """Windows, pictures and doors on the walls, clear of tall furniture and of one another."""
    height = size[2]
    taken = [(p.x, p.y, p.half, p.item.height) for p in placed]
    solids_: list[Solid] = []
    builders = [_window, _picture, _door, _picture, _window]
    for build in [rng.choice([_window, _picture]), *rng.sample(builders, rng.randint(2, 5))]:
        item = build(rng)
        middle = 1.03 if build is _door else rng.uniform(1.35, 1.55)
        for _ in range(8):
            spot = _at_wall(rng, dataclasses.replace(item, half=(item.half[0], -0.02)), size)
            spot = _placed(item, spot.x, spot.y, spot.yaw)
            bottom = middle - item.height / 2
            clash = any(
                top > bottom
                and abs(spot.x - ox) < spot.half[0] + half[0] + 0.05
                and abs(spot.y - oy) < spot.half[1] + half[1] + 0.05
                for ox, oy, half, top in taken
            )
            if not clash and _in_view(spot.x, spot.y, poses):
                solids_ += spot.solids(min(middle, height - item.height / 2 - 0.1))
                taken.append((spot.x, spot.y, spot.half, height))
                break
    return solids_


def _skirting(rng: random.Random, size: Triple) -> list[Solid]:
    x, y, _ = size
    material = palettes.white(rng) if rng.random() < 0.6 else palettes.wood(rng)
    return [
        box((0, y / 2, 0.05), (x / 2, 0.015, 0.05), material),
        *(box((s * x / 2, 0, 0.05), (0.015, y / 2, 0.05), material) for s in (-1, 1)),
    ]


def _lights(rng: random.Random, lamp: Triple, reach: float) -> Lights:
    """Warm to cool light that adds up to about the same level everywhere."""
    warm = rng.uniform(-0.5, 1.0)
    level = rng.uniform(0.7, 1.05)
    azimuth, rise = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.6)
    flat = math.sqrt(1 - rise * rise)
    share = rng.uniform(0.17, 0.26)

    def color(amount: float, warmth: float) -> tuple[float, float, float]:
        return (amount * (1 + 0.1 * warmth), amount, amount * (1 - 0.16 * warmth))

    return Lights(
        lamp_position=lamp,
        lamp=color(level, warm),
        lamp_reach=reach,
        fill_direction=(flat * math.cos(azimuth), flat * math.sin(azimuth), rise),
        fill=color(rng.uniform(0.12, 0.35), -warm),
        ambient_up=color(1.15 * share, 0.3 * warm),
        ambient_down=color(0.8 * share, 0.5 * warm),
    )


def room(rng: random.Random, num_frames: int) -> Scene:
    """A furnished room with a walk."""
    size = (rng.uniform(3.4, 5.2), rng.uniform(3.6, 5.4), rng.uniform(2.4, 2.9))
    poses = trajectories.walk(rng, size, num_frames)
    placed = _furnish(rng, size, poses)
    parts = [part for p in placed for part in p.solids()]
    parts += _hang(rng, size, placed, poses)
    if rng.random() < 0.65:
        parts += _skirting(rng, size)
    if rng.random() < 0.5:
        half = (rng.uniform(0.7, 1.2), rng.uniform(0.6, 0.9), 0.006)
        center = (rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.7), 0.006)
        parts.append(box(center, half, palettes.rug(rng)))
    wall, accent = palettes.wall(rng), palettes.wall(rng)
    walls = [wall, wall, wall, accent if rng.random() < 0.25 else wall]
    faces: list[Material] = [*walls, palettes.floor(rng), palettes.ceiling(rng)]
    lamp = (rng.uniform(-0.3, 0.3) * size[0], rng.uniform(-0.3, 0.2) * size[1], size[2] - 0.15)
    return Scene(
        solids=solids.pack(parts, size, faces),
        room_size=size,
        contacts=_contacts(placed),
        lights=_lights(rng, lamp, 1.7),
        world_from_cam=poses,
        fov=math.radians(rng.uniform(54, 72)),
        class_name="room",
    )


def _contacts(placed: Sequence[_Placed]) -> np.ndarray:
    return np.array([p.contact() for p in placed], np.float32).reshape(-1, 6)


def stage(rng: random.Random, num_frames: int) -> Scene:
    """One object among a few small things on a textured ground, with an arc around it."""
    build = rng.choice(subjects.SUBJECTS)
    subject = _placed(build(rng), 0.0, 0.0, rng.uniform(-math.pi, math.pi))
    size = (rng.uniform(4.2, 5.6), rng.uniform(4.2, 5.6), 4.2)
    fov = math.radians(rng.uniform(50, 65))
    middle = 0.46 * subject.item.height
    radius = math.hypot(*subject.item.half, middle)
    distance = radius / math.sin(fov / 2) * rng.uniform(0.95, 1.2)
    limit = min(size[:2]) / 2 - trajectories.MARGIN
    poses = trajectories.arc(rng, middle, distance, num_frames, limit)
    placed = [subject]
    for _ in range(rng.randint(2, 4)):
        item = furniture.ornament(rng)
        for _ in range(10):
            away, angle = rng.uniform(0.55, 1.3), rng.uniform(0, 2 * math.pi)
            candidate = _placed(item, away * math.cos(angle), away * math.sin(angle), angle)
            if _fits(candidate, placed, poses[:, :3, 3]):
                placed.append(candidate)
                break
    wall = palettes.wall(rng)
    other = palettes.wall(rng) if rng.random() < 0.6 else wall
    ground = dataclasses.replace(palettes.floor(rng), tile=rng.uniform(1.0, 1.7))
    lamp = (rng.uniform(-1.6, 1.6), rng.uniform(-1.6, 1.6), rng.uniform(2.4, 3.2))
    return Scene(
        solids=solids.pack(
            [part for p in placed for part in p.solids()],
            size,
            [wall, other, other, wall, ground, palettes.ceiling(rng)],
        ),
        room_size=size,
        contacts=_contacts(placed),
        lights=_lights(rng, lamp, 2.4),
        world_from_cam=poses,
        fov=fov,
        class_name=build.__name__,
    )
