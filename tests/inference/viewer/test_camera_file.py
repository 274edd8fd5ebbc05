"""Cameras survive being written; pictures are read where they are; faults are named."""

import json

import numpy as np
import pytest
from PIL import Image

from lgs_jax.inference.viewer import camera_file

GL_POSE = [[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]
FRAME = {"transform_matrix": GL_POSE, "fl_x": 40, "w": 64, "h": 48}


def written(folder, *frames, **top):
    path = folder / "transforms.json"
    path.write_text(json.dumps({**top, "frames": list(frames)}))
    return path


def test_round_trip(cameras, tmp_path):
    path = camera_file.save(tmp_path / "a" / camera_file.NAME, cameras, (48, 64))
    again = camera_file.load(path)
    np.testing.assert_allclose(again.cameras.world_from_cam, cameras.world_from_cam, atol=1e-6)
    np.testing.assert_allclose(again.cameras.intrinsics, cameras.intrinsics, rtol=1e-6)
    assert again.sizes.tolist() == [[48, 64]] * 2
    assert again.images == (None, None)


def test_photographs_are_written_beside_the_cameras_and_found_again(cameras, tmp_path):
    photograph = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    path = camera_file.save(tmp_path / camera_file.NAME, cameras, (48, 64), [None, photograph])
    assert {each.name for each in tmp_path.iterdir()} == {camera_file.NAME, "input_1.png"}
    again = camera_file.load(path)
    assert again.images[0] is None
    np.testing.assert_array_equal(again.images[1], photograph)
    assert again.sizes.tolist() == [[48, 64]] * 2  # what the cameras are for
    with pytest.raises(ValueError, match="1 images for 2 cameras"):
        camera_file.save(path, cameras, (48, 64), [photograph])


def test_photographs_are_found_and_give_the_size(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "images" / "a.png")
    base = {"transform_matrix": GL_POSE}
    path = written(
        tmp_path,
        {**base, "file_path": "images/a"},
        {**base, "file_path": "images/absent.png", "w": 8, "h": 6},
        {**base, "file_path": "images/a.png", "k1": 0.1, "w": 20, "h": 10},
        camera_angle_x=np.pi / 2,
    )
    views = camera_file.load(path)
    assert views.sizes.tolist() == [[10, 20], [6, 8], [10, 20]]
    assert [image is not None for image in views.images] == [True, False, False]
    np.testing.assert_allclose(views.cameras.intrinsics[0], [10, 10, 10, 5], rtol=1e-6)
    # Looks along -z of the file's axes, upright.
    forward, down = np.asarray(views.cameras.world_from_cam)[0, :3, [2, 1]]
    np.testing.assert_allclose(forward, [0, 0, -1])
    np.testing.assert_allclose(down, [0, -1, 0])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({}, "'transform_matrix' must be 4x4"),
        (FRAME | {"transform_matrix": [[1]]}, "'transform_matrix' must be 4x4"),
        (FRAME | {"fl_x": "wide"}, "'fl_x' is 'wide', expected a number"),
        ({"transform_matrix": GL_POSE, "fl_x": 40}, "'h' is None"),
        (FRAME | {"w": 0}, "expected pixels"),
        (FRAME | {"fl_x": -1}, "focal lengths must be positive"),
        (FRAME | {"transform_matrix": [[2, 0, 0, 0], *GL_POSE[1:]]}, "no rigid motion"),
        (FRAME | {"transform_matrix": [*GL_POSE[:3], [0, 0, 0, 2]]}, "the last row of the pose"),
        (3, "expected a JSON object"),
    ],
)
def test_faults_are_named(tmp_path, frame, message):
    path = written(tmp_path, frame)
    with pytest.raises(ValueError, match=message) as error:
        camera_file.load(path)
    assert str(path) in str(error.value)


def test_photographs_elsewhere_are_left_out(tmp_path):
    elsewhere = tmp_path / "elsewhere.png"
    Image.new("RGB", (8, 6)).save(elsewhere)
    (tmp_path / "captures" / "one").mkdir(parents=True)
    names = ("../../elsewhere.png", str(elsewhere), "../beside.png")
    frames = ({**FRAME, "w": 8, "h": 6, "file_path": name} for name in names)
    Image.new("RGB", (8, 6)).save(tmp_path / "captures" / "beside.png")
    views = camera_file.load(written(tmp_path / "captures" / "one", *frames))
    assert [image is not None for image in views.images] == [False, False, True]


def test_a_focal_length_of_a_frame_comes_before_an_angle_at_the_top(tmp_path):
    own, of_top = {**FRAME, "fl_x": 7.0, "fl_y": 7.0}, {"transform_matrix": GL_POSE}
    path = written(tmp_path, own, of_top, camera_angle_x=np.pi / 2, w=20, h=10)
    focal = camera_file.load(path).cameras.intrinsics[:, 0]
    np.testing.assert_allclose(focal, [7, 10], rtol=1e-6)


def test_files_that_hold_no_cameras(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"deep\.json: expected a JSON object .*nested too deep"):
        camera_file.load(tmp_path / "deep.json")
    with pytest.raises(ValueError, match="there is no camera"):
        camera_file.load(written(tmp_path))
    with pytest.raises(ValueError, match=r"there is no file .*absent\.json; expected cameras"):
        camera_file.load(tmp_path / "absent.json")
