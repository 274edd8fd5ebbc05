"""Tracing against slow references: solids one ray at a time, projections, shadows, patterns."""

import dataclasses
import math

import numpy as np
import pytest

from lgs_jax.data.sources import procedural
from lgs_jax.data.sources.procedural import (
    intersection,
    patterns,
    pictures,
    shading,
    solids,
    tracing,
    trajectories,
)
from lgs_jax.data.sources.procedural.scene import Lights, Scene

PLAIN = solids.Material(0, ((0.5, 0.5, 0.5),) * 3, tile=1.0)
RED = solids.Material(0, ((0.9, 0.05, 0.05),) * 3, tile=1.0)
LIGHTS = Lights(
    (0.4, 0.2, 2.8), (0.6,) * 3, 2.0, (0.0, 0.0, 1.0), (0.2,) * 3, (0.4,) * 3, (0.3,) * 3
)
SIZE = (5.0, 6.0, 3.0)


def make_scene(parts, centers=((0.0, -2.0, 1.4),), target=(0.0, 1.0, 0.8)) -> Scene:
    centers = np.array(centers)
    return Scene(
        solids=solids.pack(parts, SIZE, [PLAIN] * 6),
        room_size=SIZE,
        contacts=np.zeros((0, 6), np.float32),
        lights=LIGHTS,
        world_from_cam=trajectories.look_at(centers, np.tile(target, (len(centers), 1))),
        fov=math.radians(60),
        class_name="room",
    )


def inside(kind: int, taper: float, p: np.ndarray) -> np.ndarray:
    """Whether unit-frame points [..., 3] lie in the solid, float64."""
    x, y, z = np.moveaxis(p, -1, 0)
    if kind == solids.BOX:
        return (np.abs(p) <= 1).all(axis=-1)
    if kind == solids.ELLIPSOID:
        return x * x + y * y + z * z <= 1
    radius = 1 + (taper - 1) * (z + 1) / 2
    return (np.abs(z) <= 1) & (x * x + y * y <= radius * radius)


def march(kind: int, taper: float, o: np.ndarray, d: np.ndarray, far: float = 12.0) -> float:
    """First t at which the ray is inside, by sampling and bisection; inf if it never is."""
    t = np.linspace(0, far, 60001)
    found = np.flatnonzero(inside(kind, taper, o + t[:, None] * d))
    if not found.size:
        return math.inf
    low, high = t[found[0] - 1], t[found[0]]
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if inside(kind, taper, o + middle * d) else (middle, high)
    return high


@pytest.mark.parametrize(
    ("kind", "taper"),
    [
        (solids.BOX, 1.0),
        (solids.ELLIPSOID, 1.0),
        (solids.FRUSTUM, 1.0),
        (solids.FRUSTUM, 0.4),
        (solids.FRUSTUM, 0.0),
        (solids.FRUSTUM, 1.6),
    ],
)
def test_entry_matches_marching(kind, taper):
    rng = np.random.default_rng(kind * 10 + int(10 * taper))
    o = rng.normal(size=(60, 3))
    o *= rng.uniform(2.5, 4, size=(60, 1)) / np.linalg.norm(o, axis=1, keepdims=True)
    d = rng.normal(scale=0.6, size=(60, 3)) - o
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    expected = np.array([march(kind, taper, *ray) for ray in zip(o, d)])
    radii = np.tile(np.array([[(1 + taper) / 2], [(taper - 1) / 2]], np.float32), 60)
    ends = tuple(60 * (kind <= k) for k in (solids.BOX, solids.ELLIPSOID, solids.FRUSTUM))
    radii = radii[:, ends[1] :]
    got = intersection.enter(o.T.astype(np.float32), d.T.astype(np.float32), radii, ends)
    hits = np.isfinite(expected)
    assert 15 < hits.sum() < 60
    np.testing.assert_array_equal(np.isfinite(got), hits)
    # float32 with coordinates up to 4 and slanted surfaces.
    np.testing.assert_allclose(got[hits], expected[hits], atol=2e-4)


@pytest.mark.parametrize("kind", [solids.BOX, solids.ELLIPSOID, solids.FRUSTUM])
@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_normals_follow_the_traced_surface(kind, axis):
    # The normal of a smooth patch is orthogonal to the differences of neighbouring hit points.
    part = solids.Solid(kind, (0.0, 0.6, 0.9), (0.8, 0.6, 0.5), RED, 0.5, axis, 0.7)
    scene = make_scene([part])
    n = 96
    _, hits, _, _ = pictures.primary_hits(scene, np.array([0]), n, n)
    points, normals = hits.points.reshape(3, n, n), hits.normals.reshape(3, n, n)
    code = (8 * hits.surface + hits.face).reshape(n, n)
    toward = scene.world_from_cam[0, :3, 3, None, None] - points
    same = (code[:, 1:] == code[:, :-1]) & (code[:, 1:] < 8)
    step = points[:, :, 1:] - points[:, :, :-1]
    middle = normals[:, :, 1:] + normals[:, :, :-1]
    slope = np.abs((step * middle).sum(0)) / np.linalg.norm(step, axis=0)
    assert same.sum() > 300
    assert np.quantile(slope[same], 0.99) < 0.02
    assert ((toward * normals).sum(0) > -1e-3).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-5)


def test_a_ball_appears_where_it_projects():
    centers = [(0.0, -2.0, 1.4), (1.0, -1.8, 1.0), (-1.2, -2.2, 1.7)]
    ball = np.array([0.3, 0.9, 1.1])
    scene = make_scene([solids.ellipsoid(tuple(ball), (0.12,) * 3, RED)], centers)
    height, width = 90, 120
    fx, fy, cx, cy = scene.intrinsics(height, width)
    images = pictures.render(scene, np.arange(3), height, width).astype(float)
    for pose, image in zip(scene.world_from_cam, images):
        x, y, z = np.linalg.inv(pose)[:3] @ (*ball, 1)
        red = image[..., 0] - image[..., 1]
        weight = red * (red > 30)
        assert weight.sum() > 0
        u, v = np.arange(width) + 0.5, np.arange(height) + 0.5
        found = (weight * u).sum() / weight.sum(), (weight * v[:, None]).sum() / weight.sum()
        # Shading weighs the lit side more: a quarter of a pixel of a ball nine pixels wide.
        np.testing.assert_allclose(found, (fx * x / z + cx, fy * y / z + cy), atol=0.3)


@pytest.mark.parametrize("index", range(4))
def test_points_keep_their_surface_and_albedo_in_other_views(index):
    source = procedural.ProceduralSource(10, 12, 64, 64)
    scene = source.scene(index)
    n = 64
    _, here, _, _ = pictures.primary_hits(scene, np.array([4]), n, n)
    cam_from_world = np.linalg.inv(scene.world_from_cam[6])
    x, y, z = cam_from_world[:3, :3] @ here.points + cam_from_world[:3, 3:]
    fx, fy, cx, cy = scene.intrinsics(n, n)
    u, v = fx * x / z + cx, fy * y / z + cy
    inside_ = (z > 0) & (u > 0) & (u < n) & (v > 0) & (v < n)
    frame = np.zeros(inside_.sum(), np.int64)
    rays = pictures._rays(scene, np.array([6]), frame, u[inside_], v[inside_], n, n, 1.0)
    mask = np.ones((scene.solids.count, frame.size), bool)
    there = tracing.trace(scene, rays, mask)
    seen = np.abs(there.depth - z[inside_]) < 1e-3
    assert seen.mean() > 0.5
    sharp = np.zeros(n * n)
    albedo_here = shading.albedo(scene, here, sharp)[:, inside_][:, seen]
    albedo_there = shading.albedo(scene, there, sharp[: frame.size])[:, seen]
    same = here.surface[inside_][seen] == there.surface[seen]
    assert same.mean() > 0.995  # solids that touch may swap at the seam
    # Hit points differ by rounding only; texels are some centimetres wide.
    error = np.abs(albedo_here - albedo_there).max(axis=0)[same]
    assert np.quantile(error, 0.99) < 0.01


def test_culling_loses_nothing():
    source = procedural.ProceduralSource(10, 12, 48, 40)
    widening = solids.frustum((0.2, 0.5, 0.8), 0.3, 0.4, RED, taper=1.8, axis="x")
    for scene in [make_scene([widening] * 2, [(0, -2, 1.4)] * 8), *map(source.scene, range(6))]:
        rays, hits, mask, _ = pictures.primary_hits(scene, np.array([0, 7]), 48, 40)
        every = tracing.trace(scene, rays, np.ones((len(mask), rays.frame.size), bool))
        np.testing.assert_array_equal(hits.surface, every.surface)
        np.testing.assert_array_equal(hits.depth, every.depth)


def test_shadows_match_marching():
    parts = [
        solids.box((0.3, 0.6, 0.5), (0.4, 0.3, 0.5), RED, yaw=0.4),
        solids.ellipsoid((-0.8, 0.2, 1.2), (0.3, 0.3, 0.4), RED),
        solids.frustum((0.9, -0.5, 0.8), 0.3, 0.4, RED, taper=0.3),
    ]
    scene = make_scene(parts)
    _, hits, _, _ = pictures.primary_hits(scene, np.array([0]), 24, 24)
    view = tracing.lamp_view(scene.solids, LIGHTS.lamp_position)
    lit = tracing.lit(scene.solids, view, hits.points, hits.normals)
    lamp = np.array(LIGHTS.lamp_position)
    packed = scene.solids
    kinds = (solids.BOX, solids.ELLIPSOID, solids.FRUSTUM)
    expected = np.ones(lit.size, bool)
    t = np.linspace(0, 1, 1500)[:-3, None]
    for k in range(lit.size):
        start = hits.points[:, k] + 5e-3 * hits.normals[:, k]
        for p, kind in enumerate(kinds):
            way = packed.linear[p] @ (lamp + (start - lamp) * t).T + packed.shift[p][:, None]
            expected[k] &= not inside(kind, 0.3, way.T).any()
    facing = ((lamp[:, None] - hits.points) * hits.normals).sum(axis=0) > 0.05
    assert 0.03 < (~expected[facing]).mean() < 0.6
    # Points at a shadow's border may fall on either side.
    assert (lit == expected)[facing].mean() > 0.99


def test_room_faces_enclose_the_view():
    scene = make_scene([solids.ellipsoid((2.0, 2.5, 0.1), (0.05,) * 3, RED)])
    _, hits, _, _ = pictures.primary_hits(scene, np.array([0]), 20, 30)
    half = np.array([[SIZE[0] / 2], [SIZE[1] / 2], [SIZE[2] / 2]])
    off = np.abs(hits.points - [[0], [0], [SIZE[2] / 2]]) / half
    walls = hits.surface >= scene.solids.count
    np.testing.assert_allclose(off.max(axis=0)[walls], 1, atol=1e-5)
    assert set(hits.surface[walls] - scene.solids.count) >= {3, 4}  # wall at high y, floor


def test_pattern_lookup_blends_texels_and_levels():
    bank = patterns.bank()
    k = bank.names["abstract"][2]
    side = patterns.SIZE
    level = bank.quads[k * side * side : (k + 1) * side * side, :2].reshape(side, side, 2)
    row, column = np.array([0, 5, 63]), np.array([63, 7, 0])
    u, v = (column + 0.5) / side, (row + 0.5) / side
    number, sharp = np.full(3, k), np.zeros(3)
    exact = bank.lookup(number, u, v, sharp)
    np.testing.assert_allclose(exact, level[row, column].T, atol=1e-6)
    np.testing.assert_allclose(bank.lookup(number, u + 1, v - 3, sharp), exact, atol=1e-5)
    between = bank.lookup(number, u + 0.5 / side, v, sharp)
    right = level[row, (column + 1) % side]
    np.testing.assert_allclose(between, (level[row, column] + right).T / 2, atol=1e-5)
    blurred = bank.lookup(number, u, v, np.ones(3))
    # Footprint 1 asks for the one-texel level but for the last 0.001 of a level.
    np.testing.assert_allclose(blurred, np.tile(level.mean(axis=(0, 1))[:, None], 3), atol=2e-3)


def test_patterns_are_weights_and_differ():
    bank = patterns.bank()
    assert bank.quads.min() >= 0
    assert bank.quads.max() <= 1
    side = patterns.SIZE
    count = sum(map(len, bank.names.values()))
    finest = bank.quads[: count * side * side].reshape(count, -1)
    assert len(np.unique(finest, axis=0)) == count
    assert set(bank.names) == set(patterns.FAMILIES)


def test_emission_overrides_light():
    glowing = dataclasses.replace(PLAIN, emission=1.0)
    for material, brighter in ((glowing, True), (PLAIN, False)):
        scene = make_scene([solids.box((0.0, 1.0, 0.6), (0.5, 0.1, 0.5), material)])
        dark = dataclasses.replace(
            LIGHTS, lamp=(0,) * 3, fill=(0,) * 3, ambient_up=(0,) * 3, ambient_down=(0,) * 3
        )
        scene = dataclasses.replace(scene, lights=dark)
        picture = pictures.render(scene, np.array([0]), 16, 16)[0]
        assert (picture.max() > 120) == brighter
