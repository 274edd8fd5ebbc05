"""RealEstate10K scenes, good and bad. Bad ones must be named with file, finding and remedy."""

import itertools
import json
import re

import numpy as np
import pytest

from lgs_jax.data import images
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import ScannedSource, ScanOptions, examine
from lgs_jax.data.sources.realestate10k import RealEstate10K


def edit_line(path, number, change):
    """Applies `change` to the fields of line `number` (0 is the URL)."""
    lines = path.read_text().splitlines()
    lines[number] = " ".join(change(lines[number].split()))
    path.write_text("\n".join(lines) + "\n")


def open_scene(root, **options):
    return ScannedSource(RealEstate10K(root), ScanOptions(**options))


@pytest.fixture
def scene(formats):
    return formats.make_dot_scene()


@pytest.fixture
def path(formats, scene, tmp_path):
    return formats.write_realestate10k(tmp_path, scene, "abc")


def test_cameras_and_pixels_agree(formats, scene, path, tmp_path):
    example = open_scene(tmp_path)[0]
    assert example.key == "train/abc"
    assert len(example) == 8
    assert example.frame_names[0] == "1000000"
    np.testing.assert_allclose(example.world_from_cam, scene.world_from_cam, atol=1e-7)
    np.testing.assert_allclose(example.intrinsics, np.tile(scene.intrinsics, (8, 1)), rtol=1e-7)
    np.testing.assert_allclose(np.diff(example.timestamps), 0.033333, rtol=1e-4)
    np.testing.assert_array_equal(example.sizes, np.tile([60, 80], (8, 1)))
    for i in (0, 5):
        found = formats.find_dots(example.images[i])
        np.testing.assert_allclose(found, scene.project(i), atol=0.05)


@pytest.mark.parametrize(
    ("texts", "frames"),
    [
        ("train", "frames/train/abc"),
        ("train", "images/train/abc"),
        ("train", "train/abc"),
        ("train", "frames/abc"),
        (".", "abc"),
        (".", "frames/abc"),
        (".", "../frames/abc"),
    ],
)
def test_layouts(formats, scene, tmp_path, texts, frames):
    made = tmp_path / "made"
    root = tmp_path / "root"
    text = formats.write_realestate10k(made, scene, "abc", suffix=".jpg")
    (root / texts).mkdir(parents=True)
    text.rename(root / texts / "abc.txt")
    (root / frames).parent.mkdir(parents=True, exist_ok=True)
    (made / "frames/train/abc").rename(root / frames)
    assert len(open_scene(root)[0]) == 8


def test_frames_are_in_order_of_time(scene, path, tmp_path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[:0:-1]]))
    np.testing.assert_allclose(
        open_scene(tmp_path)[0].world_from_cam, scene.world_from_cam, atol=1e-7
    )


def test_a_line_that_is_there_twice_counts_once(path, tmp_path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[-1]]))
    source = open_scene(tmp_path)
    assert len(source[0]) == 8
    (finding,) = source.report.findings
    assert finding.frame == source[0].frame_names[-1]
    assert "more than once" in finding.reason


def bad_count(fields):
    return fields[:-1]


def bad_number(fields):
    return [*fields[:5], "zero", *fields[6:]]


def nan_pose(fields):
    return [*fields[:-1], "nan"]


def scaled_pose(fields):
    return fields[:7] + [str(float(value) * 1.1) for value in fields[7:]]


def no_focal(fields):
    return [fields[0], "0.0", *fields[2:]]


def pixels_for_fractions(fields):
    return [*fields[:3], "40", "30", *fields[5:]]


@pytest.mark.parametrize(
    ("change", "frame", "message"),
    [
        (bad_count, "line 4", r"abc.txt:4: 18 values, expected 19 .*download the text file again"),
        (bad_number, "line 4", r"abc.txt:4: .*'zero', expected 19 numbers; repair the line"),
        (nan_pose, "1066666", r"NaN or infinity; re-export the cameras or drop the frame"),
        (scaled_pose, "1066666", r"\|R\^T R - I\| = 0.21, allowed 0.001; remove scale"),
        (no_focal, "1066666", r"focal lengths must be positive, found fx=0"),
        (pixels_for_fractions, "1066666", r"principal point \(3200, 1800\) lies outside the 80x60"),
    ],
)
def test_bad_cameras_leave_out_the_frame(path, tmp_path, change, frame, message):
    edit_line(path, 3, change)
    source = open_scene(tmp_path)
    assert len(source[0]) == 7
    (finding,) = source.report.findings
    assert (finding.scene, finding.frame) == ("train/abc", frame)
    assert re.search(message, finding.reason)
    with pytest.raises(DataError, match=rf"scene train/abc, frame {frame}: .*{message}"):
        open_scene(tmp_path, on_bad="error")


def test_missing_image(path, tmp_path):
    (tmp_path / "frames/train/abc/1033333.png").unlink()
    for verify in ("quick", "headers", "full"):
        source = open_scene(tmp_path, verify=verify)
        assert len(source[0]) == 7
        (finding,) = source.report.findings
        assert finding.frame == "1033333"
        assert "1033333" in finding.reason
        assert "is missing; restore it or drop the frame" in finding.reason


def test_cut_off_image_is_found_at_the_start_or_when_used(path, tmp_path):
    image = tmp_path / "frames/train/abc/1033333.png"
    image.write_bytes(image.read_bytes()[:-30])
    source = open_scene(tmp_path)
    assert len(source[0]) == 7
    assert "1033333.png cannot be decoded" in source.report.findings[0].reason
    quick = open_scene(tmp_path, verify="quick")
    with pytest.raises(DataError, match=r"1033333\.png cannot be decoded.*restore the file"):
        quick[0].images[1]


def test_damage_in_the_middle_needs_the_full_check(formats, path, tmp_path):
    image = tmp_path / "frames/train/abc/1033333.png"
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    formats.save_image(image, noise)
    content = image.read_bytes()
    image.write_bytes(content[:5000] + content[6000:])
    assert len(open_scene(tmp_path)[0]) == 8
    assert len(open_scene(tmp_path, verify="full")[0]) == 7


def test_sizes_must_agree(formats, path, tmp_path):
    formats.save_image(tmp_path / "frames/train/abc/1033333.png", np.zeros((30, 40, 3), np.uint8))
    with pytest.raises(DataError, match=r"train/abc: its frames have several sizes \(40x30, 80x60"):
        open_scene(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("https://example.org\n", "it has no frames; the camera file lists none"),
        ("", "it has no frames"),
    ],
)
def test_empty_scene(formats, scene, path, tmp_path, text, message):
    good = formats.write_realestate10k(tmp_path, scene, "good")
    path.write_text(text)
    source = open_scene(tmp_path)
    assert [example.key for example in source] == ["train/good"]
    assert good.stem in source[0].key
    assert message in source.report.bad_scenes[0].reason


def test_too_few_frames_says_how_many_are_needed(path, tmp_path):
    edit_line(path, 3, nan_pose)
    with pytest.raises(
        DataError, match=r"no usable scene is left(?s:.)*7 usable frames of 8, needed 8 .*fewer"
    ):
        open_scene(tmp_path, min_frames=8)


def test_cameras_in_one_place_have_no_scale(formats, scene, tmp_path):
    poses = scene.world_from_cam.copy()
    poses[:, :3, 3] = poses[0, :3, 3]
    still = formats.DotScene(poses, scene.intrinsics, scene.size, scene.points)
    formats.write_realestate10k(tmp_path, still, "still")
    assert len(open_scene(tmp_path)) == 1
    with pytest.raises(DataError, match=r"stand in one place.*set scale to a number"):
        open_scene(tmp_path, scale="cameras")


def test_missing_folder_of_frames_names_it(formats, scene, path, tmp_path):
    formats.write_realestate10k(tmp_path, scene, "good")
    (tmp_path / "frames/train/abc").rename(tmp_path / "gone")
    source = open_scene(tmp_path)
    assert len(source) == 1
    assert "frames/train/abc is missing; download the frames" in source.report.findings[0].reason


def test_missing_root_and_missing_frames(path, tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*nowhere; expected <root>/<split>"):
        RealEstate10K(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no scene; expected <root>/<split>"):
        RealEstate10K(tmp_path / "frames/train/abc")
    (tmp_path / "frames").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"1 text files but no folder of frames, e.g. .*train/abc"):
        RealEstate10K(tmp_path)


def test_listed_frames_are_dropped_and_counted(path, tmp_path):
    source = open_scene(tmp_path, drop_frames={"abc": frozenset({"1033333", "1066666"})})
    assert len(source[0]) == 6
    assert source.report.findings == []
    assert source.report.frames_listed == 2
    assert "left out as listed in drop_frames: 2 frames" in source.report.summary()


def test_report_lists_everything(formats, scene, path, tmp_path):
    formats.write_realestate10k(tmp_path, scene, "good")
    for line in (1, 2, 3):
        edit_line(path, line, nan_pose)
    report = open_scene(tmp_path, min_frames=6).report
    content = json.loads(json.dumps(report.to_json()))
    assert content["scenes_found"] == 2
    assert content["scenes_kept"] == 1
    assert content["frames_kept"] == 8
    assert len(content["findings"]) == 4
    summary = report.summary(limit=2)
    assert "1 of 2 scenes, 8 of 16 frames" in summary
    assert "1 scene and 3 frames" in summary
    assert "scene train/abc: 5 usable frames of 8, needed 6" in summary
    assert "2 more" in summary


def test_rooms(shared):
    reader = RealEstate10K(shared / "data" / "rooms")
    for key in reader.keys[::250]:
        found = examine(reader, key, ScanOptions(verify="full"))
        assert not found.findings
        assert found.found == 12
        fx, fy, cx, cy = found.example.intrinsics[0]
        assert abs(fx / fy - 1) < 1e-6  # square pixels
        assert (cx, cy) == (85, 48)
        assert found.example.images[0].shape == (96, 170, 3)
        height = found.example.centers[:, 1]  # the world has y up, in metres
        assert (height > 1.1).all()
        assert (height < 1.9).all()


def test_red_kitchen_without_repeated_frames(shared):
    root = shared / "data" / "real" / "redkitchen"
    listed = json.loads((root / "repeated_frames.json").read_text())
    drop = {scene: frozenset(map(str, names)) for scene, names in listed.items()}
    reader = RealEstate10K(root)
    found = examine(reader, "train/redkitchen_010", ScanOptions(drop_frames=drop))
    assert found.listed == len(listed["redkitchen_010"])
    assert not found.findings
    frames = [found.example.images[i] for i in range(len(found.example))]
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(frames))
    assert isinstance(found.example.images, images.Frames)
