"""LLFF's poses_bounds.npy: axes, reduced images, faults."""

import numpy as np
import pytest

from lgs_jax.data.report import DataError
from lgs_jax.data.scan import ScannedSource, ScanOptions
from lgs_jax.data.sources.llff import Llff


@pytest.fixture
def scene(formats):
    """A camera as LLFF describes one: a single focal length, the principal point in the middle."""
    scene = formats.make_dot_scene(num_frames=5)
    return formats.DotScene(
        scene.world_from_cam, np.array([75.0, 75.0, 40.0, 30.0]), (60, 80), scene.points
    )


@pytest.fixture
def folder(formats, scene, tmp_path):
    return formats.write_llff(tmp_path / "fern", scene)


def test_cameras_agree_with_the_pixels(formats, scene, folder):
    example = ScannedSource(Llff(folder), ScanOptions())[0]
    assert example.key == "fern"
    np.testing.assert_allclose(example.world_from_cam, scene.world_from_cam, atol=1e-12)
    np.testing.assert_allclose(example.intrinsics, np.tile(scene.intrinsics, (5, 1)))
    found = formats.find_dots(example.images[3])
    np.testing.assert_allclose(found, scene.project(3), atol=0.05)


def test_reduced_images_get_the_intrinsics_of_their_size(formats, scene, folder):
    (folder / "images").rename(folder / "originals")
    for divisor in (2, 4):
        for i in range(5):
            size = (60 // divisor, 80 // divisor)
            picture = formats.draw_dots(scene.project(i) / divisor, size, sigma=1.0)
            formats.save_image(folder / f"images_{divisor}" / f"{i:03d}.png", picture)
    example = ScannedSource(Llff(folder.parent), ScanOptions())[0]
    np.testing.assert_allclose(example.intrinsics[0], scene.intrinsics / 2)
    np.testing.assert_allclose(
        formats.find_dots(example.images[3]), scene.project(3) / 2, atol=0.05
    )


def test_a_folder_of_scenes(formats, scene, folder):
    formats.write_llff(folder.parent / "horns", scene)
    assert Llff(folder.parent).keys == ["fern", "horns"]


def broken(change, folder):
    path = folder / "poses_bounds.npy"
    np.save(path, change(np.load(path)), allow_pickle=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "has 4 rows, .*images has 5 images"),
        (lambda rows: rows[:, :15], r"has the shape \(5, 15\), expected \[N, 17\]"),
        (lambda rows: rows.astype(object), "is no readable .npy file"),
        (lambda rows: rows.astype(str), "no plain array of numbers"),
        (lambda rows: rows * (np.arange(17) != 4), "row 0 declares images of 80x0 pixels"),
    ],
)
def test_faults_are_named(folder, change, message):
    broken(change, folder)
    with pytest.raises(DataError, match=message):
        Llff(folder).read("fern")


def test_a_bad_pose_is_left_out_and_reported(folder):
    def spoil(rows):
        rows[2, 0] = np.nan
        return rows

    broken(spoil, folder)
    source = ScannedSource(Llff(folder), ScanOptions())
    assert len(source[0]) == 4
    assert "the pose holds NaN" in str(source.report.findings[0])


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        Llff(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no poses_bounds\.npy"):
        Llff(tmp_path / "empty")
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(DataError, match="holds no images"):
        Llff(folder).read("fern")
    for content in (b"\x93NUMPY", b"PK\x03\x04 cut off"):  # which NumPy takes for an .npz file
        (folder / "poses_bounds.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"is no readable \.npy file"):
            Llff(folder).read("fern")
