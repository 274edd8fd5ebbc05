"""Tests of the consistency of views on a painted wall with a box in front, drawn in closed form."""

import dataclasses

import jax
import numpy as np
import pytest

from lgs_jax.core.cameras import Cameras
from lgs_jax.metrics import consistency
from lgs_jax.rendering.output import Rendering

HEIGHT, WIDTH = 40, 48
WALL, BOX = 4.0, 2.0


def cameras_at(*centers):
    """Cameras that look along z from the given x."""
    poses = np.tile(np.eye(4, dtype=np.float32), (len(centers), 1, 1))
    poses[:, 0, 3] = centers
    intrinsics = np.tile(np.float32([50, 50, WIDTH / 2, HEIGHT / 2]), (len(centers), 1))
    return Cameras(poses, intrinsics)


def draw(cameras, *, box=True):
    """A smooth wall at z = 4 and a box |x|, |y| < 0.3 at z = 2."""
    u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    views = []
    for pose, (fx, fy, cx, cy) in zip(cameras.world_from_cam, cameras.intrinsics):
        place = [((u - cx) / fx * z + pose[0, 3], (v - cy) / fy * z) for z in (WALL, BOX)]
        (x, y), (x_box, y_box) = place
        hit = (np.abs(x_box) < 0.3) & (np.abs(y_box) < 0.3) & box
        wall = np.stack([0.5 + 0.4 * np.sin(x + c) * np.cos(y - c) for c in range(3)], axis=-1)
        rgb = np.where(hit[..., None], [0.9, 0.1, 0.1], wall)
        views.append((rgb, np.where(hit, BOX, WALL)[..., None]))
    rgb, depth = (np.stack(x).astype(np.float32) for x in zip(*views))
    return Rendering(rgb, np.ones_like(depth), depth, {})


def compare(a, b, **options):
    between = jax.jit(lambda *views: consistency.between(*views, **options))
    return between(a[0], a[1], b[0], b[1])


LEFT, RIGHT = cameras_at(-0.4, 0.0), cameras_at(0.4, 0.0)


def test_a_scene_agrees_with_itself_where_both_views_see_it():
    found = compare((draw(LEFT), LEFT), (draw(RIGHT), RIGHT))
    assert found.psnr.shape == (2,)
    assert np.all(found.psnr > 45)
    assert np.all(found.l1 < 0.003)
    # the second pair is one camera twice
    np.testing.assert_allclose(found.valid[1], 1.0)
    # of the first, the wall moves by 50 * 0.8 / 4 = 10 of 48 columns, the box hides some of it
    assert 0.6 < found.valid[0] < 1 - 10 / 48


def test_what_the_other_view_cannot_see_is_not_compared():
    a, b = draw(LEFT[:1]), draw(RIGHT[:1])
    strict = compare((a, LEFT[:1]), (b, RIGHT[:1]))
    blind = compare((a, LEFT[:1]), (b, RIGHT[:1]), depth_tolerance=10.0)
    assert blind.valid[0] > strict.valid[0] + 0.05
    assert blind.psnr[0] < strict.psnr[0] - 15


def test_another_scene_scores_worse():
    other = draw(RIGHT[:1])
    other = dataclasses.replace(other, rgb=1 - other.rgb)
    same = compare((draw(LEFT[:1]), LEFT[:1]), (draw(RIGHT[:1]), RIGHT[:1]))
    found = compare((draw(LEFT[:1]), LEFT[:1]), (other, RIGHT[:1]))
    assert found.psnr[0] < same.psnr[0] - 20
    np.testing.assert_allclose(found.valid, same.valid)


def test_equals_a_loop_over_pixels():
    left, right = cameras_at(-0.4), cameras_at(0.37)  # apart by no whole number of pixels
    a, b = draw(left), draw(right)
    errors = []
    for i in range(HEIGHT):
        for j in range(WIDTH):
            z = a.depth[0, i, j, 0]
            u = j + 0.5 - 50 * 0.77 / z
            if not 0.5 <= u <= WIDTH - 0.5:
                continue
            low = min(int(np.floor(u - 0.5)), WIDTH - 2)
            t = u - 0.5 - low
            seen = [(1 - t) * x[0, i, low] + t * x[0, i, low + 1] for x in (b.rgb, b.depth)]
            if abs(seen[1][0] - z) <= 0.05 * z:
                errors.append(np.abs(seen[0] - a.rgb[0, i, j]))
    found = compare((a, left), (b, right))
    np.testing.assert_allclose(found.valid[0], len(errors) / (HEIGHT * WIDTH), rtol=1e-6)
    np.testing.assert_allclose(found.l1[0], np.mean(errors), rtol=1e-3)
    mse = np.mean(np.square(errors))
    np.testing.assert_allclose(found.psnr[0], -10 * np.log10(mse), rtol=1e-3)


def test_pairs_without_a_common_place_count_as_seen_nothing():
    away = cameras_at(100.0, 0.4)
    found = compare((draw(LEFT), LEFT), (draw(away), away))
    assert found.valid[0] == 0
    assert np.isnan(found.psnr[0])
    assert np.isnan(found.l1[0])
    assert np.isfinite(found.psnr[1])


def test_transparent_pixels_are_not_believed():
    a, b = draw(LEFT[:1]), draw(RIGHT[:1])
    alpha = np.where(np.arange(HEIGHT)[:, None, None] < HEIGHT // 2, 0.4, 1).astype(np.float32)
    half = dataclasses.replace(a, alpha=np.broadcast_to(alpha, a.alpha.shape))
    whole = compare((a, LEFT[:1]), (b, RIGHT[:1]))
    np.testing.assert_allclose(
        compare((half, LEFT[:1]), (b, RIGHT[:1])).valid, whole.valid / 2, rtol=0.02
    )


def test_bad_pairs_are_refused():
    a = draw(LEFT)
    with pytest.raises(ValueError, match="b has no depth"):
        consistency.between(a, LEFT, dataclasses.replace(a, depth=None), LEFT)
    with pytest.raises(ValueError, match=r"needs cameras \(2,\), got \(1,\)"):
        consistency.between(a, LEFT[:1], a, LEFT)
    with pytest.raises(ValueError, match="as many views"):
        consistency.between(a, LEFT, draw(RIGHT[:1]), RIGHT[:1])
