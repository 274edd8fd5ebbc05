"""Distortion against plain scalar formulas, and its removal in pixels."""

import numpy as np
import pytest

from lgs_jax.data import lens

COEFFICIENTS = (0.08, -0.03, 0.002, -0.003, 0.01)


def scalar_distort(x, y, k1, k2, p1, p2, k3):
    """The formulas of OpenCV's manual, one point at a time."""
    r = (x**2 + y**2) ** 0.5
    factor = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
    return (
        x * factor + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2),
        y * factor + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
    )


def test_distort_equals_the_scalar_formulas():
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (20, 2))
    expected = [scalar_distort(x, y, *COEFFICIENTS) for x, y in points]
    np.testing.assert_allclose(lens.distort(points, COEFFICIENTS), expected, rtol=1e-12)


def test_rational_model_divides():
    point = np.array([0.3, -0.4])  # r^2 = 1/4
    found = lens.distort(point, (0, 0, 0, 0, 0, 0.4, 0.8, 1.6))
    np.testing.assert_allclose(found, point / (1 + 0.1 + 0.05 + 0.025), rtol=1e-12)


@pytest.mark.parametrize("k1", [-0.15, -0.02, 0.02, 0.12])
def test_pinhole_has_no_empty_border_and_wastes_little(k1):
    camera = lens.Lens((90.0, 92.0, 41.0, 29.0), (k1, 0.01, 0.001, -0.001), (60, 80))
    pinhole = lens.pinhole_intrinsics(camera)
    rows, columns = np.meshgrid(np.linspace(0, 60, 61), np.linspace(0, 80, 81), indexing="ij")
    pixels = lens.source_pixels(camera, pinhole, np.stack([columns, rows], -1))
    assert pixels.min() > -1e-3
    assert (pixels.max(axis=(0, 1)) < [80.001, 60.001]).all()
    room = min(pixels.min(), (np.array([80, 60]) - pixels.max(axis=(0, 1))).min())
    assert abs(room) < 0.02  # at least one side touches the border
    np.testing.assert_allclose(pinhole[0] / 90.0, pinhole[1] / 92.0, rtol=1e-12)


def test_no_distortion_changes_nothing():
    camera = lens.Lens((90.0, 92.0, 41.0, 29.0), (0.0,), (60, 80))
    np.testing.assert_allclose(lens.pinhole_intrinsics(camera), camera.intrinsics, rtol=1e-7)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    np.testing.assert_array_equal(lens.undistort(image, camera), image)


def test_impossible_distortion_is_refused():
    with pytest.raises(ValueError, match="cannot be removed; check the coefficients"):
        lens.pinhole_intrinsics(lens.Lens((50.0, 50.0, 40.0, 30.0), (-9.0,), (60, 80)))


@pytest.mark.parametrize("k1", [-0.12, 0.1])
def test_undistorted_dots_stand_where_the_pinhole_projects_them(formats, k1):
    scene = formats.make_dot_scene()
    coefficients = (k1, 0.02, 0.002, -0.003, 0.0)
    camera = lens.Lens(tuple(scene.intrinsics.tolist()), coefficients, scene.size)
    rays = (scene.project(3) - scene.intrinsics[2:]) / scene.intrinsics[:2]
    seen = np.array([scalar_distort(x, y, *coefficients) for x, y in rays])
    image = formats.draw_dots(seen * scene.intrinsics[:2] + scene.intrinsics[2:], scene.size)
    pinhole = lens.pinhole_intrinsics(camera)
    found = formats.find_dots(lens.undistort(image, camera))
    # A dot of 2 px width is bent a little, so its centre of mass moves by hundredths of a pixel.
    np.testing.assert_allclose(found, rays * pinhole[:2] + pinhole[2:], atol=0.06)
