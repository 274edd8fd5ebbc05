"""Every format is found out from its files, and what is none gets a reason."""

import numpy as np
import pytest

from lgs_jax.data import detect, opening, prepare
from lgs_jax.data.report import DataError


@pytest.fixture(scope="module")
def scene(formats):
    return formats.make_dot_scene(num_frames=3)


def write_pixelsplat(root, formats, scene):
    (root / "train").mkdir(parents=True)
    (root / "train" / "000000.torch").write_bytes(b"")


def write_mvimgnet(root, formats, scene):
    camera = ("PINHOLE", scene.intrinsics.tolist())
    names = [f"{i}.jpg" for i in range(3)]
    formats.write_colmap(root / "1" / "ab", scene.world_from_cam, scene.size, camera, names=names)


def write_colmap(root, formats, scene):
    camera = ("PINHOLE", scene.intrinsics.tolist())
    names = [f"{i}.jpg" for i in range(3)]
    formats.write_colmap(root, scene.world_from_cam, scene.size, camera, names=names, binary=False)


def write_packed(root, formats, scene):
    formats.write_transforms(root.parent / "raw", scene)
    reader = opening.make_reader("transforms", str(root.parent / "raw"))
    options = prepare.Options()
    prepare.prepare(root, prepare.FromReader(reader, options), options, num_workers=0)


@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("realestate10k", lambda r, f, s: f.write_realestate10k(r, s, "clip")),
        ("transforms", lambda r, f, s: f.write_transforms(r, s)),
        ("transforms", lambda r, f, s: f.write_transforms(r / "thing", s)),
        ("llff", lambda r, f, s: f.write_llff(r, s)),
        ("llff", lambda r, f, s: f.write_llff(r / "fern", s)),
        ("mvimgnet", write_mvimgnet),
        ("colmap", write_colmap),
        ("colmap", lambda r, f, s: write_colmap(r / "house", f, s)),
        ("pixelsplat", write_pixelsplat),
        ("packed", write_packed),
    ],
)
def test_formats(formats, scene, tmp_path, source, write):
    write(tmp_path / "data", formats, scene)
    assert detect.detect(tmp_path / "data") == detect.Detected(source, str(tmp_path / "data"))


def test_files(formats, scene, tmp_path):
    path = formats.write_transforms(tmp_path / "a", scene)
    assert detect.detect(path) == detect.Detected("transforms", str(path))
    formats.write_llff(tmp_path / "b", scene)
    found = detect.detect(tmp_path / "b" / "poses_bounds.npy")
    assert found == detect.Detected("llff", str(tmp_path / "b"))


@pytest.mark.parametrize(
    ("name", "place"),
    [("a.jpg", "."), ("images/a.jpg", "."), ("b/a.jpg", "."), ("a.mp4", "."), ("a.MOV", "a.MOV")],
)
def test_photographs_without_poses(tmp_path, name, place):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    assert detect.detect(tmp_path / place) == detect.Detected("photos", str(tmp_path / place))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b/c.jpg", r"1 images and 0 videos without poses, deeper in it"),
        ("a.ply", r"1 splat files, no photographs"),
        ("notes.txt", r"1 files, e\.g\. notes\.txt; known formats: packed"),
        (None, r"it is empty"),
    ],
)
def test_folders_without_photographs(tmp_path, name, message):
    if name:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        detect.detect(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.splat", "is a splat file, no photographs"),
        ("a.exe", "is a file of no known kind"),
        (None, "there is no"),
    ],
)
def test_single_files_of_other_kinds(tmp_path, name, message):
    path = tmp_path / (name or "nothing")
    if name:
        path.write_bytes(np.zeros(4, np.uint8).tobytes())
    with pytest.raises(DataError, match=message):
        detect.detect(path)
