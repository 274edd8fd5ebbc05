"""Grids and depth colours."""

import numpy as np
import pytest

from lgs_jax.tasks import panels


def image(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_to_uint8_rounds_and_clips():
    got = panels.to_uint8(np.array([-1.0, 0.0, 0.5 / 255 + 1e-4, 0.999, 1.0, 7.0, np.nan]))
    assert got.tolist() == [0, 0, 1, 255, 255, 255, 0]
    assert got.dtype == np.uint8


def test_every_uint8_survives_the_round_trip():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(panels.to_uint8(levels.astype(np.float32) / 255), levels)


def test_grid_places_images_with_padding():
    picture = panels.grid([[image(2, 3, 10), image(2, 3, 20)], [image(2, 3, 30)]], padding=1)
    expected = np.full((7, 9, 3), 255, np.uint8)
    expected[1:3, 1:4], expected[1:3, 5:8], expected[4:6, 1:4] = 10, 20, 30
    np.testing.assert_array_equal(picture, expected)


def test_grid_centres_smaller_images_and_keeps_empty_cells():
    picture = panels.grid([[None, image(4, 4, 9)], [image(2, 2, 5), image(2, 2, 7)]], padding=0)
    assert picture.shape == (6, 6, 3)
    assert (picture[:4, :2] == 255).all()
    np.testing.assert_array_equal(picture[4:, 3:5], image(2, 2, 7))


def test_titles_add_room_and_ink_but_leave_images_alone():
    rows = [[image(8, 60, 100), image(8, 60, 100)]]
    plain = panels.grid(rows, background=0)
    titled = panels.grid(rows, ["input", "novel view"], ["kitchen"], background=0)
    assert titled.shape[0] > plain.shape[0]
    assert titled.shape[1] > plain.shape[1]
    assert (titled == 100).all(-1).sum() >= 2 * 8 * 60
    head = titled[: titled.shape[0] - plain.shape[0]]
    assert head.max() > 200  # white ink on black


def test_grid_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match=r"row 0, column 1 is float64 \(2, 2, 3\)"):
        panels.grid([[image(2, 2, 0), np.zeros((2, 2, 3))]])
    with pytest.raises(ValueError, match="at least one image"):
        panels.grid([[None]])
    with pytest.raises(ValueError, match="column_titles has 1 texts for 2"):
        panels.grid([[image(2, 2, 0)] * 2], ["only one"])


def test_turbo_matches_the_published_table():
    # Entries 0, 64, 128, 192, 255 of the 256-entry table, which the polynomial was fitted to: it is
    # some levels off inside, and up to 32 in the nearly black ends.
    table = [[48, 18, 59], [40, 187, 236], [164, 252, 60], [251, 126, 33], [122, 4, 3]]
    errors = np.abs(panels.turbo(np.array([0, 64, 128, 192, 255]) / 255) * 255 - table)
    assert errors[1:-1].max() < 20
    assert errors.max() < 34


def test_depth_colours_run_from_red_to_blue_in_inverse_depth():
    depth = np.array([[1.0, 4 / 3, 2.0, 4.0]])  # 1/d = 1, .75, .5, .25
    colors, near, far = panels.colorize_depth(depth, near=1.0, far=4.0)
    assert (near, far) == (1.0, 4.0)
    expected = panels.to_uint8(panels.turbo(np.array([[1.0, 2 / 3, 1 / 3, 0.0]])))
    np.testing.assert_array_equal(colors, expected)


def test_depth_range_ignores_stray_values_and_is_returned():
    rng = np.random.default_rng(0)
    depth = rng.uniform(2.0, 4.0, size=(3, 32, 32))
    depth[0, 0, :3] = [1e6, 1e-6, np.nan]
    colors, near, far = panels.colorize_depth(depth)
    assert colors.shape == (3, 32, 32, 3)
    assert 2.0 < near < 2.1
    assert 3.9 < far < 4.0
    again, *_ = panels.colorize_depth(depth, near=near, far=far)
    np.testing.assert_array_equal(colors, again)


def test_invalid_depths_are_black():
    depth = np.array([[1.0, np.inf, -1.0, 0.0, 2.0]])
    colors, *_ = panels.colorize_depth(depth, valid=np.array([[1, 1, 1, 1, 0]], bool))
    assert colors[0, 0].any()
    assert not colors[0, 1:].any()


def test_depth_edge_cases():
    flat, near, far = panels.colorize_depth(np.full((2, 2), 3.0))
    assert near == far == 3.0
    assert flat.any()
    empty, near, far = panels.colorize_depth(np.zeros((2, 2)))
    assert not empty.any()
    assert np.isnan([near, far]).all()
    with pytest.raises(ValueError, match=r"near=5.0 far=1.0"):
        panels.colorize_depth(np.ones((2, 2)), near=5.0, far=1.0)
    with pytest.raises(ValueError, match=r"valid has shape \(2,\)"):
        panels.colorize_depth(np.ones((2, 2)), valid=np.ones(2))


def test_a_colour_scale_runs_from_one_end_of_the_colours_to_the_other():
    scale = panels.color_scale("", "", width=64, height=6)
    bar = scale[5]
    for end, position in ((0, 0.0), (-1, 1.0)):
        expected = panels.to_uint8(panels.turbo(np.array(position)))
        inside = bar[~np.all(bar == 255, axis=-1)][end]
        np.testing.assert_array_equal(inside, expected)
    told = panels.color_scale("far", "near", width=64, height=6)
    assert told.shape[1] > scale.shape[1]
