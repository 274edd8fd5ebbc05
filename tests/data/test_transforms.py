"""NeRF transforms.json: axes, intrinsics in all spellings, masks, transparency, faults."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from lgs_jax.data import images
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import ScannedSource, ScanOptions, examine
from lgs_jax.data.sources.transforms import Transforms


def open_one(path, **options):
    return ScannedSource(Transforms(path), ScanOptions(**options))[0]


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def scene(formats):
    return formats.make_dot_scene(num_frames=6)


@pytest.fixture
def path(formats, scene, tmp_path):
    return formats.write_transforms(tmp_path / "fox", scene)


def test_opengl_cameras_agree_with_the_pixels(formats, scene, path):
    example = open_one(path)
    assert example.key == "fox"
    np.testing.assert_allclose(example.world_from_cam, scene.world_from_cam, atol=1e-12)
    np.testing.assert_allclose(example.intrinsics[0], scene.intrinsics)
    found = formats.find_dots(example.images[2])
    np.testing.assert_allclose(found, scene.project(2), atol=0.05)


def test_a_file_a_folder_and_a_folder_of_folders(formats, scene, path, tmp_path):
    formats.write_transforms(tmp_path / "cat", scene)
    assert Transforms(path).keys == Transforms(path.parent).keys == ["fox"]
    assert Transforms(tmp_path).keys == ["cat", "fox"]


def test_blender_variant(formats, tmp_path):
    """One angle, no sizes, names without a suffix, transforms_train.json."""
    scene = formats.make_dot_scene(num_frames=3)
    scene = formats.DotScene(
        scene.world_from_cam, np.array([75.0, 75.0, 40.0, 30.0]), (60, 80), scene.points
    )
    none = dict.fromkeys(("fl_x", "fl_y", "cx", "cy", "w", "h"))
    path = formats.write_transforms(
        tmp_path / "lego",
        scene,
        top=none | {"camera_angle_x": 2 * math.atan(0.5 * 80 / 75)},
        per_frame=lambda i: {"file_path": f"./images/{i:03d}"},
    )
    path.rename(path.with_name("transforms_train.json"))
    example = open_one(tmp_path / "lego")
    np.testing.assert_allclose(example.intrinsics, np.tile(scene.intrinsics, (3, 1)))
    np.testing.assert_allclose(formats.find_dots(example.images[1]), scene.project(1), atol=0.05)


def test_frames_override_the_top_and_are_sorted(formats, scene, tmp_path):
    path = formats.write_transforms(
        tmp_path, scene, per_frame=lambda i: {"fl_x": 100.0 + i, "cy": 20.0 + i}
    )
    edit(path, lambda content: content["frames"].reverse())
    example = open_one(path)
    np.testing.assert_array_equal(example.intrinsics[:, 0], 100.0 + np.arange(6))
    np.testing.assert_array_equal(example.intrinsics[:, 3], 20.0 + np.arange(6))
    np.testing.assert_array_equal(example.timestamps, np.arange(6))


FOCAL = dict.fromkeys(("fl_x", "fl_y", "camera_angle_x", "camera_angle_y"))


@pytest.mark.parametrize(
    ("top", "frame", "expected"),
    [
        ({"fl_x": 60.0}, {"camera_angle_x": 1.0}, (73.2, 73.2)),
        ({"fl_x": 60.0, "fl_y": 50.0}, {"camera_angle_x": 1.0}, (73.2, 50.0)),
        ({"camera_angle_x": 1.0}, {"fl_x": 60.0}, (60.0, 60.0)),
        ({"fl_x": 60.0, "fl_y": 50.0}, {"camera_angle_y": 1.0}, (60.0, 54.9)),
        ({"camera_angle_x": 1.0, "camera_angle_y": 1.0}, {"fl_y": 50.0}, (73.2, 50.0)),
        ({"fl_x": 60.0, "camera_angle_x": 1.0}, {}, (60.0, 60.0)),
        ({}, {"fl_x": 60.0, "camera_angle_x": 1.0, "camera_angle_y": 1.0}, (60.0, 54.9)),
    ],
)
def test_focal_lengths_of_a_frame_win_over_the_top(formats, scene, tmp_path, top, frame, expected):
    """An angle of 1 over 80 and 60 pixels is 40 / tan(0.5) = 73.2 and 30 / tan(0.5) = 54.9."""
    path = formats.write_transforms(tmp_path, scene, top=FOCAL | top, per_frame=lambda i: frame)
    np.testing.assert_allclose(open_one(path).intrinsics[3, :2], expected, atol=0.05)


def test_distortion_is_removed(formats, scene, tmp_path):
    # Radial only, so that the expectation is a one-line formula.
    path = formats.write_transforms(tmp_path, scene, top={"k1": -0.1, "k3": 0.02})
    fx, fy, cx, cy = scene.intrinsics
    rays = (scene.project(0) - [cx, cy]) / [fx, fy]
    r2 = (rays**2).sum(-1, keepdims=True)
    seen = rays * (1 - 0.1 * r2 + 0.02 * r2**3) * [fx, fy] + [cx, cy]
    formats.save_image(tmp_path / "images/000.png", scene.image(0, seen))
    example = open_one(path)
    k = example.intrinsics[0]
    assert k[0] != fx
    found = formats.find_dots(example.images[0])
    np.testing.assert_allclose(found, rays * k[:2] + k[2:], atol=0.06)


def test_masks_and_transparency(formats, scene, tmp_path):
    path = formats.write_transforms(
        tmp_path, scene, per_frame=lambda i: {"mask_path": f"masks/{i:03d}.png"}
    )
    mask = np.zeros((60, 80), np.uint8)
    mask[:, :30] = 255
    for i in range(6):
        formats.save_image(tmp_path / f"masks/{i:03d}.png", mask)
    white = open_one(path, read=images.ReadOptions(masks="white")).images[0]
    assert (white[:, 30:] == 255).all()
    np.testing.assert_array_equal(white[:, :30], scene.image(0)[:, :30])
    rgba = np.dstack([scene.image(1), mask])
    Image.fromarray(rgba).save(tmp_path / "images/001.png")
    white = open_one(path, read=images.ReadOptions(background="white")).images[1]
    assert (white[:, 30:] == 255).all()


def test_masks_that_are_not_there_are_a_fault(path):
    with pytest.raises(DataError, match=r"there is no mask for .*add mask_path or set masks='igno"):
        open_one(path, read=images.ReadOptions(masks="black"))


def set_frame(**values):
    return lambda content: content["frames"][2].update(values)


def drop_key(key):
    return lambda content: content["frames"][2].pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_frame(file_path="images/none"), r"none is missing \(with or without a suffix\)"),
        (drop_key("file_path"), r"a frame has no 'file_path'; add it"),
        (set_frame(transform_matrix=[[1, 2], [3, 4]]), r"shape \(2, 2\), expected 4x4 numbers"),
        (set_frame(transform_matrix="x"), r"'transform_matrix' has shape"),
        (drop_key("transform_matrix"), r"'transform_matrix' has shape"),
        (set_frame(transform_matrix=np.diag([1, 1, -1, 1]).tolist()), r"mirrors \(determinant -1"),
        (set_frame(transform_matrix=np.diag([2, 2, 2, 1]).tolist()), r"R\^T R - I\| = 3"),
        (
            set_frame(transform_matrix=np.diag([1, 1, 1, 2]).tolist()),
            r"the last row of the pose is 0, 0, 0, 2, expected 0, 0, 0, 1; re-export the cameras",
        ),
        (
            set_frame(transform_matrix=[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 2, 3, 1]]),
            r"the last row of the pose is 1, 2, 3, 1, .* whether rows and columns were swapped",
        ),
        (set_frame(fl_x="wide"), r"'fl_x' is 'wide', expected a number; repair"),
        (set_frame(fl_x=10**400), r"'fl_x' is not finite or beyond 1e\+12; repair"),
        (set_frame(w=float("nan")), r"'w' is not finite"),
        (set_frame(h=float("inf")), r"'h' is not finite"),
        (set_frame(file_path=None), r"'file_path' is None, expected the path of a file"),
        (set_frame(file_path=7), r"'file_path' is 7, expected the path"),
        (set_frame(file_path=""), r"'file_path' is '', expected the path"),
        (set_frame(mask_path=7), r"'mask_path' is 7, expected the path"),
        (
            set_frame(file_path="../../secret/0.png"),
            r"transforms\.json: 'file_path' is '\.\./\.\./secret/0\.png', expected a path inside "
            r".*/fox or the folder around it; put the file there and correct the path",
        ),
        (set_frame(file_path="images/../../../0.png"), r"expected a path inside"),
        (set_frame(file_path="/etc/passwd"), r"'file_path' is '/etc/passwd', expected a path insi"),
        (set_frame(mask_path="../../0.png"), r"'mask_path' is .* expected a path inside"),
        (set_frame(fl_x=-5), r"focal lengths must be positive"),
        (set_frame(w=81), r"has 80x60 pixels, its camera declares 81x60; resize"),
        (set_frame(cx=900), r"principal point \(900,.*outside the 80x60 image"),
        (set_frame(camera_model="OPENCV_FISHEYE"), r"OPENCV_FISHEYE is not a pinhole.*undistort"),
        (set_frame(is_fisheye=True), r"a fisheye is not a pinhole.*undistort"),
        (set_frame(k4=0.1), r"k4 to k6 are \(0\.1.*set camera_model to FULL_OPENCV"),
        (set_frame(k1=-9.0), r"distortion .* cannot be removed; check the coefficients"),
    ],
)
def test_bad_frames_are_left_out_with_a_reason(path, change, message):
    edit(path, change)
    source = ScannedSource(Transforms(path), ScanOptions())
    assert len(source[0]) == 5
    (finding,) = source.report.bad_frames
    with pytest.raises(DataError, match=message):
        raise DataError(finding.reason)
    with pytest.raises(DataError, match=message):
        ScannedSource(Transforms(path), ScanOptions(on_bad="error"))


@pytest.mark.parametrize("absolute", [False, True])
def test_files_in_and_beside_the_folder_are_found(scene, path, absolute):
    (path.parent / "images").rename(path.parent.parent / "pictures")
    pictures = f"{path.parent.parent}/pictures/" if absolute else "./images/../../pictures/"
    path.write_text(path.read_text().replace("images/", pictures))
    (path.parent / "images").mkdir()
    np.testing.assert_array_equal(open_one(path).images[2], scene.image(2))


def test_a_frame_that_is_listed_twice_counts_once(path):
    edit(path, lambda content: content["frames"].append(content["frames"][2]))
    source = ScannedSource(Transforms(path), ScanOptions())
    assert len(source[0]) == len(set(source[0].frame_names)) == 6
    (finding,) = source.report.findings
    assert (finding.scene, finding.frame) == ("fox", "images/002.png")
    assert "list this frame more than once, and only the first of them counts" in finding.reason
    with pytest.raises(DataError, match=r"frame images/002\.png: the cameras list this frame more"):
        ScannedSource(Transforms(path), ScanOptions(on_bad="error"))
    listed = ScanOptions(drop_frames={"fox": frozenset({"images/002.png"})}, on_bad="error")
    report = ScannedSource(Transforms(path), listed).report
    assert (report.frames_found, report.frames_listed, report.frames_kept) == (7, 2, 5)


def test_listed_frames_are_no_faults(path):
    (path.parent / "images" / "002.png").unlink()
    listed = {"fox": frozenset({"images/002.png", "images/004.png"})}
    report = ScannedSource(Transforms(path), ScanOptions(drop_frames=listed, on_bad="error")).report
    assert (report.frames_found, report.frames_listed, report.frames_kept) == (6, 2, 4)


def test_no_focal_length_at_all(path):
    edit(path, lambda content: content.pop("fl_x"))
    with pytest.raises(DataError, match=r"neither 'fl_x' nor 'camera_angle_x' is given"):
        open_one(path)


@pytest.mark.parametrize("angle", [0, math.pi, -1.0, math.inf])
def test_angles_that_no_camera_has(path, angle):
    def change(content):
        del content["fl_x"]
        content["camera_angle_x"] = angle

    edit(path, change)
    report = examine(Transforms(path), "fox", ScanOptions())
    assert report.example is None
    assert all("'camera_angle_x' is " in f.reason for f in report.findings if f.frame)


@pytest.mark.parametrize("exif", images.EXIF)
def test_turned_images_need_a_declared_size(path, exif):
    turn = Image.Exif()
    turn[274] = 6
    stored = path.parent / "images" / "002.png"
    with Image.open(stored) as image:
        image.load()
    image.save(stored, exif=turn)
    edit(path, lambda content: [content.pop(name) for name in "wh"])
    report = examine(Transforms(path), "fox", ScanOptions(read=images.ReadOptions(exif=exif)))
    (finding,) = report.findings
    assert finding.frame == "images/002.png"
    assert "EXIF orientation 6 and the file declares no w and h" in finding.reason


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"frames": 3}', '{"frames": [1]}', '{"w": 3}', "[" * 200000, "1" * 5000]
)
def test_other_json_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(DataError, match=r"transforms\.json.*export it again"):
        open_one(path)


def test_empty_list_of_frames(path):
    edit(path, lambda content: content["frames"].clear())
    with pytest.raises(DataError, match=r"it has no frames"):
        open_one(path)


def test_wrong_roots(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*gone; expected a transforms\.json"):
        Transforms(tmp_path / "gone")
    with pytest.raises(DataError, match=r"holds no transforms\.json; expected a transforms"):
        Transforms(tmp_path)


def test_captures(shared):
    reader = Transforms(shared / "data" / "real" / "captures")
    assert len(reader.keys) == 13
    for key in ("beer", "moldGoldCape", "lego_train"):
        masks = "black" if key == "moldGoldCape" else "ignore"
        options = ScanOptions(read=images.ReadOptions("white", masks))
        found = examine(reader, key, options)
        assert not found.findings
        example = found.example
        assert example.images[0].shape[:2] == tuple(example.sizes[0])
        if key == "lego_train":  # empty corners of a transparent render
            np.testing.assert_array_equal(example.images[0][0, 0], [255, 255, 255])
            assert example.images[0].min() < 60
