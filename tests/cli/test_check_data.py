"""check-data from the shell: format found, faults named, verdict and pictures written."""

import json

import numpy as np
import pytest
from PIL import Image

from lgs_jax.cli import check_data
from lgs_jax.data import opening, packed, pipeline, prepare

GL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def example():
    settings = pipeline.DataSettings(
        source="procedural",
        num_scenes=3,
        num_frames=8,
        height=128,
        width=160,
        context_views=2,
        target_views=1,
    )
    found = pipeline.make_source(settings, "train")[2]
    found.images.prefetch(range(8))
    return found


def write_transforms(folder, example, axes=GL):
    """The scene as a transforms.json; OpenGL axes unless told otherwise."""
    (folder / "images").mkdir(parents=True)
    fx, fy, cx, cy = example.intrinsics[0].tolist()
    content = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "frames": []}
    for i, pose in enumerate(example.world_from_cam):
        Image.fromarray(np.asarray(example.images[i])).save(folder / "images" / f"{i}.png")
        matrix = (pose @ axes).tolist()
        content["frames"].append({"file_path": f"images/{i}.png", "transform_matrix": matrix})
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def run(path, tmp_path, *options):
    output = tmp_path / "out"
    status = check_data.main([str(path), f"--output={output}", *options])
    return status, json.loads((output / "verdict.json").read_text()), output


def test_a_good_capture(example, tmp_path, capsys):
    status, verdict, output = run(write_transforms(tmp_path / "fox", example), tmp_path)
    assert status == 0
    assert verdict["verdict"] == "good"
    assert verdict["format"] == "transforms"
    (scene,) = verdict["scenes"]
    assert scene["tested_with"] == "matches"
    assert scene["share_that_fits"] > 0.9
    assert not scene["faults"]
    with Image.open(output / scene["picture"]) as picture:
        assert picture.width == 1200
    text = capsys.readouterr().out
    assert "format transforms" in text
    assert "verdict: good" in text


def test_the_wrong_axes_are_named(example, tmp_path, capsys):
    folder = write_transforms(tmp_path / "fox", example, axes=np.eye(4))
    status, verdict, _ = run(folder, tmp_path)
    assert status == 1
    assert verdict["verdict"] == "faults"
    (fault,) = verdict["scenes"][0]["faults"]
    assert fault["kind"] == "opencv_axes"
    assert "the poses look like OpenCV's camera axes" in capsys.readouterr().out


def test_files_that_cannot_be_used_are_faults(example, tmp_path, capsys):
    folder = write_transforms(tmp_path / "fox", example)
    broken = folder / "images" / "3.png"
    broken.write_bytes(broken.read_bytes()[:500])
    status, verdict, _ = run(folder, tmp_path)
    assert status == 1
    (finding,) = verdict["unusable"]
    assert finding["frame"] == "images/3.png"
    assert "cut off" in finding["reason"]
    assert verdict["scenes"][0]["frames"] == 7
    assert "left out as bad: 0 scenes and 1 frame" in capsys.readouterr().out


def test_a_picture_that_only_decoding_finds_broken(example, tmp_path):
    folder = write_transforms(tmp_path / "fox", example)
    path = folder / "images" / "3.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    status, verdict, _ = run(folder, tmp_path)
    assert status == 1
    (finding,) = verdict["unusable"]
    assert "3.png cannot be decoded" in finding["reason"]


def test_single_bad_frames_can_be_left_out(example, tmp_path, capsys):
    folder = write_transforms(tmp_path / "fox", example)
    path = folder / "images"
    (path / "4.png").write_bytes((path / "3.png").read_bytes())
    _, verdict, output = run(folder, tmp_path)
    assert [fault["kind"] for fault in verdict["scenes"][0]["faults"]] == ["repeated_images"]
    listed = output / "drop_frames.json"
    assert json.loads(listed.read_text()) == {"fox": ["images/4.png"]}
    assert f"--config.data.drop_frames={listed}" in capsys.readouterr().out
    data = pipeline.DataSettings(
        source="transforms",
        root=str(folder),
        context_views=2,
        target_views=1,
        holdout=0.0,
        drop_frames=str(listed),
    )
    assert len(pipeline.make_source(data, "train")[0]) == 7
    Image.fromarray(np.asarray(example.images[4])).save(path / "4.png")
    before = {path: path.read_bytes() for path in output.iterdir()}
    assert run(folder, tmp_path)[0] == 2
    assert f"{output} is not empty; choose another --output" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in output.iterdir()} == before
    assert run(folder, tmp_path, "--overwrite")[0] == 0
    assert not listed.exists()


def test_packed_data_are_checked_too(example, tmp_path):
    write_transforms(tmp_path / "raw", example)
    options = prepare.Options()
    supplier = prepare.FromReader(opening.make_reader("transforms", str(tmp_path / "raw")), options)
    prepare.prepare(tmp_path / "packed", supplier, options, num_workers=0)
    status, verdict, _ = run(tmp_path / "packed", tmp_path)
    assert (status, verdict["format"]) == (0, "packed")
    assert packed.MANIFEST in {path.name for path in (tmp_path / "packed").iterdir()}


def test_what_cannot_be_read_is_status_2(tmp_path, capsys):
    assert check_data.main([str(tmp_path / "nothing")]) == 2
    assert "there is no" in capsys.readouterr().err
    (tmp_path / "notes.md").write_bytes(b"x")
    assert check_data.main([str(tmp_path)]) == 2
    assert "is of no known format: 1 files, e.g. notes.md" in capsys.readouterr().err


def test_scenes_without_texture_are_tested_with_splats(example, tmp_path, monkeypatch, capsys):
    from lgs_jax.data.checks.scene import Fault
    from lgs_jax.inference import pose_fit

    folder = write_transforms(tmp_path / "flat", example)
    for path in (folder / "images").iterdir():
        Image.new("RGB", (160, 128), (90, 100 + 8 * int(path.stem), 90)).save(path)
    status, verdict, _ = run(folder, tmp_path, "--no-fit")
    assert (status, verdict["scenes"][0]["tested_with"]) == (0, "nothing")
    seen = []

    def faults(scene, convention):
        seen.append((len(scene), convention.cam_from_world))
        return [Fault("inverted", "the poses look like inverses", "invert them")]

    monkeypatch.setattr(pose_fit, "faults", faults)
    status, verdict, _ = run(folder, tmp_path, "--overwrite")
    assert seen == [(8, False)]
    assert (status, verdict["scenes"][0]["tested_with"]) == (1, "splats")
    assert "too few points in common" in capsys.readouterr().out


def test_a_tilde_is_the_home(example, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_transforms(tmp_path / "fox", example)
    assert check_data.main(["~/fox", "--output=~/out", "--no-fit", "--frames=2"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fox", "out"]
