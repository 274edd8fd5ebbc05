"""What a denoiser is told in training: shares, numbers and places of known views."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core.cameras import Cameras
from lgs_jax.models import conditioning


def draw(count=4000, views=4, *, unconditional, max_known):
    keys = jax.random.split(jax.random.key(0))
    mask = conditioning.random_known(keys[0], (count, views), max_known=max_known)
    return np.asarray(conditioning.drop_known(keys[1], mask, unconditional))


def test_numbers_and_places_of_known_views():
    mask = draw(unconditional=0.25, max_known=3)
    kept = mask.sum(1)
    shares = np.bincount(kept, minlength=5) / len(kept)
    # A quarter each of 0, 1, 2, 3; five standard errors are 0.034.
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.25, 0.25, 0.0], atol=0.035)
    assert np.abs(mask.mean(0) - mask.mean()).max() < 0.04
    # No place goes with another beyond what their number says: all pairs are equally common.
    pairs = [(mask[:, i] & mask[:, j]).mean() for i in range(4) for j in range(i)]
    assert np.ptp(pairs) < 0.04


def test_ends_of_the_settings():
    assert not draw(unconditional=1.0, max_known=4).any()
    assert set(draw(unconditional=0.0, max_known=1).sum(1)) == {1}
    assert set(draw(unconditional=0.0, max_known=4).sum(1)) == {1, 2, 3, 4}


def test_known_views_of_a_draw_depend_on_scene_and_draw_alone():
    scenes, draws = (np.ravel(x) for x in np.meshgrid(np.arange(500), np.arange(8)))
    mask = np.asarray(conditioning.known_of_draw(scenes, draws, 4, max_known=3))
    shuffled = np.random.default_rng(0).permutation(len(mask))[:100]
    again = conditioning.known_of_draw(scenes[shuffled], draws[shuffled], 4, max_known=3)
    np.testing.assert_array_equal(again, mask[shuffled])
    # A third each of 1, 2, 3 of 4000; five standard errors are 0.037.
    shares = np.bincount(mask.sum(1), minlength=5) / len(mask)
    np.testing.assert_allclose(shares, [0, 1 / 3, 1 / 3, 1 / 3, 0], atol=0.038)
    # The draws of a scene, and the scenes of a draw, are unrelated: two masks agree as often as
    # two independent ones, of which each has one of 14 values, 4 of them with probability 1/12,
    # 6 with 1/18 and 4 with 1/12: 0.0741; five standard errors of 3500 pairs are 0.022.
    by_draw = mask.reshape(8, 500, 4)
    for a, b in ((by_draw[1:], by_draw[:-1]), (by_draw[:, 1:], by_draw[:, :-1])):
        assert abs((a == b).all(-1).mean() - 0.0741) < 0.023


def test_dropped_classes():
    labels = jnp.full(4000, 3)
    dropped = np.asarray(conditioning.drop_class(jax.random.key(0), labels, 0.1))
    assert set(dropped) == {3, conditioning.NO_CLASS}
    assert abs((dropped == conditioning.NO_CLASS).mean() - 0.1) < 0.025
    np.testing.assert_array_equal(conditioning.drop_class(jax.random.key(0), labels, 0.0), labels)


def test_representations_are_told_where_no_view_is_known():
    mask = jnp.arange(4000)[:, None] % 2 == jnp.array([0, 2])
    told = np.asarray(conditioning.drop_representation(jax.random.key(0), mask, 0.2))
    assert not told[::2].any()
    assert abs(told[1::2].mean() - 0.8) < 0.045  # five standard errors of 2000
    assert conditioning.drop_representation(jax.random.key(0), mask, 0.0)[1::2].all()


def test_dropping_the_condition_keeps_the_cameras():
    cameras = Cameras(jnp.ones((1, 2, 4, 4)), jnp.ones((1, 2, 4)))
    mask = jnp.array([[True, False]])
    given = conditioning.Conditioning(cameras, jnp.ones((1, 2, 3, 3, 1)), mask, jnp.array([2]))
    dropped = given.dropped()
    assert not dropped.known_mask.any()
    assert dropped.class_label.tolist() == [conditioning.NO_CLASS]
    assert dropped.cameras is cameras
    assert dropped.represented is None
    told = dataclasses.replace(
        given, representation=jnp.ones((1, 3)), represented=jnp.array([True])
    )
    assert told.dropped().represented.tolist() == [False]
