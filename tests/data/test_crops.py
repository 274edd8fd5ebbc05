"""Crops and sizes against the intrinsics that they promise; colours by hand."""

import numpy as np
import pytest

from lgs_jax.data import crops


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (50, 50)])
@pytest.mark.parametrize("aspect", [1.0, 2.0, 0.5])
def test_centre_box_is_the_largest_of_its_shape(size, aspect):
    left, top, right, bottom = crops.centre_box(size, aspect)
    assert min(left, top) == 0
    assert (right - left) / (bottom - top) == pytest.approx(aspect)
    assert left + right == pytest.approx(size[1])
    assert top + bottom == pytest.approx(size[0])


# Among these are sizes of which (width / aspect) * aspect is wider than the width.
@pytest.mark.parametrize("size", [(378, 504), (504, 378), (1080, 1920), (3024, 4032)])
def test_boxes_stay_in_the_frame(size):
    sides = range(32, 513, 8)
    for aspect in {width / height for height in sides for width in sides}:
        for box in (crops.centre_box(size, aspect), crops.random_box(size, aspect, (1, 1), 1.0)):
            assert min(box) >= 0
            assert box[2] <= size[1]
            assert box[3] <= size[0]


def test_random_boxes_fill_the_frame():
    for position in ((0, 0), (1, 1), (0.3, 0.8)):
        left, top, right, bottom = crops.random_box((60, 80), 1.0, position, 1.5)
        assert right - left == pytest.approx(40)
        assert bottom - top == pytest.approx(40)
        assert left == pytest.approx(position[0] * 40)
        assert top == pytest.approx(position[1] * 20)


@pytest.mark.parametrize("box", [(0, 0, 80, 60), (10, 0, 70, 60), (7.3, 4.6, 71.3, 52.6)])
@pytest.mark.parametrize(("height", "width"), [(60, 80), (40, 40), (24, 32), (90, 120)])
def test_crop_and_resize_move_dots_as_the_intrinsics_say(formats, box, height, width):
    scene = formats.make_dot_scene()
    rays = (scene.project(4) - scene.intrinsics[2:]) / scene.intrinsics[:2]
    image = crops.crop_resize(scene.image(4), box, height, width)
    assert image.shape == (height, width, 3)
    k = crops.crop_resize_intrinsics(scene.intrinsics, box, height, width)
    # Lanczos rings are clipped at black, which moves a centre of mass a little.
    np.testing.assert_allclose(formats.find_dots(image), rays * k[:2] + k[2:], atol=0.03)


def test_resize_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = crops.crop_resize(stripes, (0, 0, 64, 64), 16, 16)
    inner = small[:, 2:-2].astype(int)  # the filter is cut off at the border
    assert np.abs(inner - 127).max() <= 4


def test_recolouring_by_hand():
    image = np.array([[[100, 150, 200]]], np.uint8)
    np.testing.assert_array_equal(crops.recolour(image, 1, 1, 1), image)
    np.testing.assert_array_equal(crops.recolour(image, 0.5, 1, 1), [[[50, 75, 100]]])
    np.testing.assert_array_equal(crops.recolour(image, 1, 2, 1), [[[72, 172, 255]]])
    grey = round(0.299 * 100 + 0.587 * 150 + 0.114 * 200)
    np.testing.assert_array_equal(crops.recolour(image, 1, 1, 0), [[[grey] * 3]])
