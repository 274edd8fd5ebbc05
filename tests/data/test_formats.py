"""One scene written in every format: the same cameras and pictures, on disk and in a store."""

import io

import numpy as np
import pytest
import torch_files
from etils import epath
from PIL import Image

from lgs_jax.data import detect, opening, places, prepare, scan
from lgs_jax.data.report import DataError
from lgs_jax.data.sources import packed as packed_source


def write_chunk(folder, formats, scene):
    height, width = scene.size
    fractions = scene.intrinsics / [width, height, width, height]
    rows, pictures = [], []
    for i, pose in enumerate(scene.world_from_cam):
        rows.append([*fractions, 0, 0, *np.linalg.inv(pose)[:3].reshape(-1)])
        buffer = io.BytesIO()
        Image.fromarray(scene.image(i)).save(buffer, "PNG")
        pictures.append(np.frombuffer(buffer.getvalue(), np.uint8))
    scene = {"key": "a", "url": "", "timestamps": np.arange(len(rows)) * 1000}
    scene |= {"cameras": np.array(rows, np.float32), "images": pictures}
    torch_files.save(folder / "train" / "000000.torch", [scene])


def write_packed(folder, formats, scene):
    formats.write_transforms(folder.with_name("raw"), scene)
    reader = opening.make_reader("transforms", folder.with_name("raw"))
    options = prepare.Options()
    prepare.prepare(folder, prepare.FromReader(reader, options), options, num_workers=0)


# Source, writer, and how exactly the format holds cameras: by digits or by float32.
FORMATS = {
    "realestate10k": ("realestate10k", lambda d, f, s: f.write_realestate10k(d, s, "a"), 1e-8),
    "pixelsplat": ("pixelsplat", write_chunk, 1e-6),
    "mvimgnet": ("mvimgnet", lambda d, f, s: f.write_colmap_scene(d / "3" / "abc", s), 1e-12),
    "mvimgnet in a zip archive": ("mvimgnet", lambda d, f, s: f.write_mvimgnet_zip(d, s), 1e-12),
    "colmap": ("colmap", lambda d, f, s: f.write_colmap_scene(d, s), 1e-12),
    "colmap as text": ("colmap", lambda d, f, s: f.write_colmap_scene(d, s, binary=False), 1e-12),
    "transforms": ("transforms", lambda d, f, s: f.write_transforms(d, s), 1e-12),
    "llff": ("llff", lambda d, f, s: f.write_llff(d, s), 1e-12),
    "packed": ("packed", write_packed, 1e-12),
}  # fmt: skip


@pytest.fixture(scope="module")
def scene(formats):
    """With the camera that all formats can tell: one focal length, the centre in the middle."""
    made = formats.make_dot_scene(num_frames=5)
    height, width = made.size
    intrinsics = np.array([90.0, 90.0, width / 2, height / 2])
    return formats.DotScene(made.world_from_cam, intrinsics, made.size, made.points)


def read(source, root):
    """The only scene there is, all of its files checked."""
    if source == "packed":
        folder = packed_source.Folder(root)
        return packed_source.PackedSource(folder, scan.ScanOptions(), folder.keys)[0]
    reader = opening.make_reader(source, root)
    return scan.ScannedSource(reader, scan.ScanOptions(verify="full", on_bad="error"))[0]


@pytest.fixture(scope="module")
def written(formats, scene, tmp_path_factory):
    """The folder of each format."""
    folders = {}
    for name, (_, write, _) in FORMATS.items():
        folders[name] = tmp_path_factory.mktemp("format") / "data"
        folders[name].mkdir()
        write(folders[name], formats, scene)
    return folders


@pytest.mark.parametrize("name", FORMATS)
def test_cameras_and_pictures_come_back(scene, written, name):
    source, _, error = FORMATS[name]
    example = read(source, written[name])
    np.testing.assert_allclose(example.world_from_cam, scene.world_from_cam, atol=10 * error)
    np.testing.assert_allclose(
        example.intrinsics, np.tile(scene.intrinsics, (5, 1)), rtol=10 * error
    )
    for i in range(5):
        np.testing.assert_array_equal(example.images[i], scene.image(i))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "packed"])
def test_a_store_holds_the_same(written, store, name):
    source = FORMATS[name][0]
    for path in written[name].rglob("*"):
        if path.is_file():
            copy = epath.Path("s3://bucket/data") / str(path.relative_to(written[name]))
            copy.write_bytes(path.read_bytes())
    assert detect.detect("s3://bucket/data") == detect.Detected(source, "s3://bucket/data")
    ours, theirs = read(source, "s3://bucket/data"), read(source, written[name])
    np.testing.assert_array_equal(ours.world_from_cam, theirs.world_from_cam)
    np.testing.assert_array_equal(ours.intrinsics, theirs.intrinsics)
    assert ours.frame_names == theirs.frame_names
    for i in range(5):
        np.testing.assert_array_equal(ours.images[i], theirs.images[i])


def test_frames_above_the_folder_are_found_in_a_store(formats, scene, store, tmp_path):
    path = formats.write_transforms(tmp_path / "in", scene)
    text = path.read_text().replace("images/", "../pictures/")
    (epath.Path("s3://bucket/a/transforms.json")).write_text(text)
    for i in range(5):
        picture = (tmp_path / "in" / "images" / f"{i:03d}.png").read_bytes()
        epath.Path(f"s3://bucket/pictures/{i:03d}.png").write_bytes(picture)
    np.testing.assert_array_equal(read("transforms", "s3://bucket/a").images[2], scene.image(2))


@pytest.mark.parametrize(
    ("folder", "relative", "inside", "beside"),
    [
        ("/data/a", "images/0.png", True, True),
        ("/data/a", "b/../0.png", True, True),
        ("/data/a", "/data/a/0.png", True, True),
        ("/data/a", "../images/0.png", False, True),
        ("/data/a", "/data/ab/0.png", False, True),
        ("/data/a", "../../0.png", False, False),
        ("/data/a", "/etc/0.png", False, False),
        ("/data", "../etc/0.png", False, False),  # all of a disk is beside it
        ("/", "etc/0.png", True, True),
        ("a", "../0.png", False, True),
        ("a/../b", "../a/0.png", False, True),
        ("s3://bucket/a", "../b/0.png", False, True),
        ("s3://bucket/a", "../../other/0.png", False, False),
        ("s3://bucket", "../other/0.png", False, False),
        ("s3://bucket/a", "/other/0.png", False, False),
    ],
)
def test_places_inside_a_folder(folder, relative, inside, beside):
    assert places.is_inside(epath.Path(folder), relative) is inside
    assert places.is_inside(epath.Path(folder), relative, or_beside=True) is beside


def test_places_that_cannot_be_read_are_refused(monkeypatch):
    with pytest.raises(DataError, match=r"no store that can be read; expected a path or gs://"):
        places.place("ftp://host/data")

    def missing(scheme):
        raise ImportError("Please install s3fs")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    with pytest.raises(DataError, match=r"pip install 'lgs_jax\[s3\]'"):
        places.place("s3://bucket/data")
