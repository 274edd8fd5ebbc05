"""Views of a batch: conversion, order, and the nearest-view baseline."""

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.tasks import views


def _views(poses: np.ndarray, brightness: list[float]) -> views.Views:
    lead = poses.shape[:2]
    images = np.broadcast_to(np.asarray(brightness)[None, :, None, None, None], (*lead, 4, 4, 3))
    intrinsics = jnp.broadcast_to(jnp.array([4.0, 4.0, 2.0, 2.0]), (*lead, 4))
    return views.Views(jnp.asarray(images), Cameras(jnp.asarray(poses), intrinsics))


def _poses(centers: list[list[float]], targets: list[list[float]]) -> np.ndarray:
    up = np.array([0.0, -1.0, 0.0])
    poses = [cameras_lib.look_at(np.array(c), np.array(t), up) for c, t in zip(centers, targets)]
    return np.stack(poses)[None].astype(np.float32)


def test_from_batch_scales_uint8_to_the_unit_interval():
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 1, 3)
    poses, intrinsics = np.eye(4, dtype=np.float32)[None, None], np.ones((1, 1, 4), np.float32)
    group = {"images": images, "world_from_cam": poses, "intrinsics": intrinsics}
    result = views.from_batch(group)
    np.testing.assert_allclose(result.images.ravel(), [0.0, 0.2, 1.0], rtol=1e-6)
    assert result.cameras.batch_shape == (1, 1)


def test_concatenate_keeps_the_order():
    ahead = [[0.0, 0.0, 5.0]] * 2
    first = _views(_poses([[0.0, 0, 0], [1.0, 0, 0]], ahead), [0.1, 0.2])
    second = _views(_poses([[2.0, 0, 0]], ahead[:1]), [0.3])
    both = views.concatenate(first, second)
    np.testing.assert_allclose(both.images[0, :, 0, 0, 0], [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(both.cameras.centers[0, :, 0], [0.0, 1.0, 2.0])


def test_nearest_counts_distance_and_direction():
    left, right, behind = [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.1, 0.0, 0.0]
    ahead, back = [0.0, 0.0, 50.0], [0.0, 0.0, -50.0]
    context = _views(_poses([left, right, behind], [ahead, ahead, back]), [0.1, 0.2, 0.3])
    target = _views(
        _poses([[-0.8, 0, 0], [0.7, 0, 0], [0.1, 0, 0.1]], [ahead, ahead, back]), [0] * 3
    )
    shown = views.nearest(context, target)[0, :, 0, 0, 0]
    np.testing.assert_allclose(shown, [0.1, 0.2, 0.3], rtol=1e-6)


def test_draw_takes_the_same_different_views_of_every_scene():
    ahead = [[0.0, 0.0, 5.0]] * 3
    one = _views(_poses([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]], ahead), [0.0, 1.0, 2.0])
    group = jax.tree.map(lambda x: jnp.concatenate([x, x]), one)
    seen = set()
    for seed in range(20):
        drawn = views.draw(jax.random.key(seed), group, 2)
        brightness = np.asarray(drawn.images[..., 0, 0, 0])
        np.testing.assert_array_equal(brightness[0], brightness[1])
        np.testing.assert_array_equal(drawn.cameras.centers[..., 0], brightness)
        assert len(set(brightness[0])) == 2
        seen |= set(brightness[0].tolist())
    assert seen == {0.0, 1.0, 2.0}
