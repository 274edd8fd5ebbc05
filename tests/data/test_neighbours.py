"""Photographs of a capture for a model that knows views a certain angle apart."""

import numpy as np
import pytest

from lgs_jax.data import neighbours


def capture(degrees, radius=4.0):
    """Cameras on a circle, looking at its middle."""
    turns = np.deg2rad(degrees)
    poses = np.tile(np.eye(4), (len(turns), 1, 1))
    poses[:, 0, 0] = poses[:, 2, 2] = np.cos(turns)
    poses[:, 0, 2] = np.sin(turns)
    poses[:, 2, 0] = -np.sin(turns)
    poses[:, :3, 3] = -radius * poses[:, :3, 2]
    return poses


def test_angles_are_those_of_the_circle():
    degrees = np.array([0.0, 10.0, 90.0, 181.0])
    found = neighbours.angles_deg(capture(degrees))
    np.testing.assert_allclose(found[0], [0.0, 10.0, 90.0, 179.0], atol=1e-5)
    np.testing.assert_allclose(found, found.T)


def test_the_nearest_of_those_that_are_as_far_apart_as_asked():
    shuffled = capture([0.0, 200.0, 60.0, 12.0, 130.0, 63.0, 40.0])
    assert neighbours.choose(shuffled, 2, (10.0, 20.0)).tolist() == [0, 3]
    assert neighbours.choose(shuffled, 2, (1.0, 20.0)).tolist() == [2, 5]
    assert neighbours.choose(shuffled, 2, (69.0, 71.0)).tolist() == [1, 4]


def test_of_equal_angles_the_nearest_in_space():
    """Not two photographs that look in one direction from two ends of a house."""
    poses = capture([0.0, 8.0, 16.0, 24.0])
    poses[2:, :3, 3] += [100.0, 0.0, 0.0]
    poses[1, :3, 3] += [2.0, 0.0, 0.0]
    assert neighbours.choose(poses, 2, (7.9, 8.1)).tolist() == [2, 3]


def test_photographs_that_are_taken_are_among_them():
    poses = capture(np.arange(0.0, 200.0, 10.0))
    assert neighbours.choose(poses, 2, (19.0, 21.0), [0]).tolist() == [0, 2]
    assert 7 in neighbours.choose(poses, 2, (19.0, 21.0), [7])
    assert neighbours.choose(poses, 2, (19.0, 21.0), [3, 15]).tolist() == [3, 15]
    assert neighbours.choose(poses, 1, taken=[4]).tolist() == [4]
    for taken in ([0], [19], [9], [3, 4], [0, 19, 18], [5, 6, 7, 8, 9, 10]):
        chosen = neighbours.choose(poses, 6, (49.0, 51.0), taken)
        assert set(taken) <= set(chosen.tolist())
        assert len(set(chosen.tolist())) == 6
        assert (np.diff(chosen) > 0).all()


def test_several_are_spread_between_the_first_and_the_last():
    poses = capture(np.arange(0.0, 200.0, 5.0))
    chosen = neighbours.choose(poses, 4, (44.0, 46.0))
    assert np.diff(chosen).tolist() == [3, 3, 3]
    assert neighbours.choose(poses[:3], 3, (1.0, 2.0)).tolist() == [0, 1, 2]


def test_what_is_usual_comes_from_the_model_where_it_is_known():
    known = np.linspace(0.0, 40.0, 101)
    assert neighbours.usual_deg(known) == pytest.approx((10.0, 30.0))
    assert neighbours.usual_deg(None) == neighbours.USUAL_DEG
    assert not neighbours.too_far(50.0, known)
    assert "60 degrees apart" in neighbours.too_far(60.0, known)
    assert "2 to 38" in neighbours.too_far(60.0, known)


def test_too_few_photographs_and_too_many_names_are_refused():
    with pytest.raises(ValueError, match="2 photographs are too few for 3 views"):
        neighbours.choose(capture([0.0, 5.0]), 3)
    with pytest.raises(ValueError, match="3 photographs are more than the 2 views"):
        neighbours.choose(capture([0.0, 5.0, 9.0]), 2, taken=[0, 1, 2])
