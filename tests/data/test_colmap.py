"""COLMAP folders: every camera model, binary and text, and the points of a real reconstruction."""

import struct

import numpy as np
import pytest

from lgs_jax.data import lens
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import ScannedSource, ScanOptions, examine
from lgs_jax.data.sources.colmap import Colmap, natural_order

SIZE = (60, 80)
# Model name -> parameters and OpenCV's fx fy cx cy and coefficients that they stand for.
CAMERAS = {
    "SIMPLE_PINHOLE": ((75.0, 41.0, 29.0), (75, 75, 41, 29), ()),
    "PINHOLE": ((78.0, 75.0, 41.0, 29.0), (78, 75, 41, 29), ()),
    "SIMPLE_RADIAL": ((75.0, 41.0, 29.0, 0.08), (75, 75, 41, 29), (0.08, 0, 0, 0)),
    "RADIAL": ((75.0, 41.0, 29.0, -0.08, 0.02), (75, 75, 41, 29), (-0.08, 0.02, 0, 0)),
    "OPENCV": (
        (78.0, 75.0, 41.0, 29.0, 0.05, -0.01, 0.003, -0.002),
        (78, 75, 41, 29),
        (0.05, -0.01, 0.003, -0.002),
    ),
}


def distorted_pixels(scene, frame, intrinsics, coefficients):
    """Where a distorting camera shows the dots [3, 2]; formulas of OpenCV's manual."""
    k1, k2, p1, p2 = coefficients or (0, 0, 0, 0)
    fx, fy, cx, cy = intrinsics
    cam_from_world = np.linalg.inv(scene.world_from_cam[frame])
    pixels = []
    for point in scene.points:
        x, y, z = cam_from_world[:3, :3] @ point + cam_from_world[:3, 3]
        x, y = x / z, y / z
        r2 = x * x + y * y
        factor = 1 + k1 * r2 + k2 * r2 * r2
        u = x * factor + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * factor + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        pixels.append((fx * u + cx, fy * v + cy))
    return np.array(pixels)


def write(formats, folder, scene, model="PINHOLE", binary=True, index="0"):
    params, intrinsics, coefficients = CAMERAS.get(model, ((50.0,) * 8, (50,) * 4, ()))
    names = [f"img_{i}.png" for i in range(len(scene.world_from_cam))]
    for i, name in enumerate(names):
        pixels = distorted_pixels(scene, i, intrinsics, coefficients)
        formats.save_image(folder / "images" / name, scene.image(i, pixels))
    formats.write_colmap(
        folder,
        scene.world_from_cam[::-1],
        SIZE,
        (model, params),
        names=names[::-1],
        binary=binary,
        index=index,
    )


@pytest.fixture
def scene(formats):
    return formats.make_dot_scene(num_frames=12)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("model", sorted(CAMERAS))
def test_cameras_agree_with_the_undistorted_pixels(formats, scene, tmp_path, model, binary):
    write(formats, tmp_path / "chair", scene, model, binary)
    source = ScannedSource(Colmap(tmp_path / "chair"), ScanOptions())
    example = source[0]
    assert example.key == "chair"
    assert example.frame_names[:3] == ("img_0.png", "img_1.png", "img_2.png")
    np.testing.assert_allclose(example.world_from_cam, scene.world_from_cam, atol=1e-12)
    for i in (0, 7):
        ideal = distorted_pixels(scene, i, example.intrinsics[i], ())
        found = formats.find_dots(example.images[i])
        np.testing.assert_allclose(found, ideal, atol=0.06)


def test_pinhole_parameters_are_kept(formats, scene, tmp_path):
    write(formats, tmp_path / "chair", scene, "PINHOLE")
    example = ScannedSource(Colmap(tmp_path), ScanOptions())[0]
    np.testing.assert_array_equal(example.intrinsics[0], [78, 75, 41, 29])


def test_many_folders_are_many_scenes(formats, scene, tmp_path):
    for name in ("b", "a"):
        write(formats, tmp_path / name, scene)
    (tmp_path / "notes").mkdir()
    assert Colmap(tmp_path).keys == ["a", "b"]


def test_binary_is_preferred_to_text(formats, scene, tmp_path):
    write(formats, tmp_path / "a", scene, "PINHOLE", binary=True)
    (tmp_path / "a/sparse/0/cameras.txt").write_text("nonsense")
    assert len(ScannedSource(Colmap(tmp_path), ScanOptions())) == 1


def test_fisheye_is_declined_with_a_reason(formats, scene, tmp_path):
    write(formats, tmp_path / "a", scene, "OPENCV_FISHEYE")
    with pytest.raises(DataError, match=r"OPENCV_FISHEYE is not a pinhole.*undistort the images"):
        ScannedSource(Colmap(tmp_path), ScanOptions())


def test_size_of_the_files_must_be_the_cameras(formats, scene, tmp_path):
    write(formats, tmp_path / "a", scene)
    formats.save_image(tmp_path / "a/images/img_3.png", np.zeros((30, 40, 3), np.uint8))
    report = ScannedSource(Colmap(tmp_path), ScanOptions()).report
    (finding,) = report.findings
    assert finding.frame == "img_3.png"
    assert "has 40x30 pixels, its camera declares 80x60; resize the images" in finding.reason


def test_unknown_camera_number(formats, scene, tmp_path):
    write(formats, tmp_path / "a", scene, binary=False)
    path = tmp_path / "a/sparse/0/images.txt"
    path.write_text(path.read_text().replace(" 7 img_3.png", " 8 img_3.png"))
    (finding,) = ScannedSource(Colmap(tmp_path), ScanOptions()).report.findings
    assert "has no camera 8; export it again" in finding.reason


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", ["../other/0.png", "a/../../0.png", "/etc/0.png"])
def test_names_stay_in_the_folder_of_images(formats, scene, tmp_path, name, binary):
    write(formats, tmp_path / "a", scene)
    names = [f"img_{i}.png" for i in range(11)] + [name]
    camera = ("PINHOLE", CAMERAS["PINHOLE"][0])
    formats.write_colmap(
        tmp_path / "a", scene.world_from_cam, SIZE, camera, names=names, binary=binary
    )
    if not binary:
        (tmp_path / "a/sparse/0/cameras.bin").unlink()
    for place in (tmp_path / "a/other/0.png", tmp_path / "a/0.png"):
        formats.save_image(place, scene.image(0))
    (finding,) = ScannedSource(Colmap(tmp_path), ScanOptions()).report.findings
    assert finding.frame == name
    assert f"sparse/0 names the image {name!r}, expected a path inside " in finding.reason
    assert finding.reason.endswith("a/images; put the image there and export the model again")


@pytest.mark.parametrize("name", ["cameras", "images"])
def test_cut_off_binaries(formats, scene, tmp_path, name):
    write(formats, tmp_path / "a", scene)
    path = tmp_path / f"a/sparse/0/{name}.bin"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=rf"{name}\.bin cannot be parsed, .*export the model again"):
        ScannedSource(Colmap(tmp_path), ScanOptions())


def test_unknown_model_number(formats, scene, tmp_path):
    write(formats, tmp_path / "a", scene)
    path = tmp_path / "a/sparse/0/cameras.bin"
    data = bytearray(path.read_bytes())
    struct.pack_into("<i", data, 12, 99)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"cameras\.bin.*unknown camera model number 99"):
        ScannedSource(Colmap(tmp_path), ScanOptions())


def test_missing_images_file_and_missing_root(formats, scene, tmp_path):
    write(formats, tmp_path / "a", scene)
    (tmp_path / "a/sparse/0/images.bin").unlink()
    with pytest.raises(DataError, match=r"images\.bin is missing; expected <folder>/images"):
        ScannedSource(Colmap(tmp_path), ScanOptions())
    with pytest.raises(DataError, match=r"there is no folder .*none; expected <folder>/images"):
        Colmap(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds no reconstruction; expected <folder>/images"):
        Colmap(tmp_path / "a/images")


def test_names_sort_by_value():
    names = ["img_10.png", "img_2.png", "a/3.png", "img_1.png"]
    assert sorted(names, key=natural_order) == ["a/3.png", "img_1.png", "img_2.png", "img_10.png"]


def read_observations(folder):
    """name -> (pixels [N, 2], point ids [N]), and point id -> xyz: a reader of its own."""
    data = (folder / "points3D.bin").read_bytes()
    (count,) = struct.unpack_from("<Q", data)
    offset, points = 8, {}
    for _ in range(count):
        number, x, y, z, _, _, _, _, track = struct.unpack_from("<Q3d3BdQ", data, offset)
        points[number] = (x, y, z)
        offset += struct.calcsize("<Q3d3BdQ") + 8 * track
    data = (folder / "images.bin").read_bytes()
    (count,) = struct.unpack_from("<Q", data)
    offset, seen = 8, {}
    for _ in range(count):
        offset += struct.calcsize("<I7dI")
        end = data.index(b"\0", offset)
        name = data[offset:end].decode()
        (number,) = struct.unpack_from("<Q", data, end + 1)
        rows = np.frombuffer(data, np.dtype("<f8,<f8,<i8"), number, end + 9)
        offset = end + 9 + 24 * number
        seen[name] = (np.stack([rows["f0"], rows["f1"]], -1), rows["f2"])
    return seen, points


def test_points_of_a_real_capture_reproject(shared):
    """Median error of COLMAP's own points is 0.23 px in the distorted images, as its notes say."""
    folder = shared / "data" / "real" / "colmap" / "beer"
    reader = Colmap(folder)
    example = examine(reader, "beer", ScanOptions()).example
    raw = {frame.name: frame for frame in reader.read("beer").frames}
    seen, points = read_observations(folder / "sparse" / "0")
    errors = []
    for i, name in enumerate(example.frame_names):
        pixels, ids = seen[name]
        pixels, ids = pixels[ids >= 0], ids[ids >= 0]
        xyz = np.array([points[number] for number in ids])
        pose = example.world_from_cam[i]
        in_cam = (xyz - pose[:3, 3]) @ pose[:3, :3]
        ideal = (
            in_cam[:, :2] / in_cam[:, 2:] * example.intrinsics[i, :2] + example.intrinsics[i, 2:]
        )
        camera = lens.Lens(tuple(raw[name].intrinsics.tolist()), raw[name].distortion, (448, 252))
        distorted = lens.source_pixels(camera, example.intrinsics[i], ideal)
        errors.append(np.linalg.norm(distorted - pixels, axis=-1))
    assert 0.2 < np.median(np.concatenate(errors)) < 0.26
    assert example.images[0].shape == (448, 252, 3)
