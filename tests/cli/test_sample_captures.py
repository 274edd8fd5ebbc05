"""Which photographs of a capture `sample` takes, what it says of them, and who may write where."""

import argparse
import dataclasses
import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny
from PIL import Image

from lgs_jax import __main__, settings
from lgs_jax.cli import captures, sample, sample_views
from lgs_jax.core.cameras import Cameras
from lgs_jax.data import poses
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import model_file, sample_files, scene_model

DEGREES = (0.0, 90.0, 100.0, 200.0, 260.0)


def make_model(**known):
    """A model that is only asked for views."""
    data = settings.build(DataSettings, tiny.CONFIG["data"], "data")
    task = types.SimpleNamespace(reference=0)
    return scene_model.SceneModel(tiny.make(), task, data=data, **known)


@pytest.fixture(scope="module")
def model():
    """One whose own views are 10 degrees apart."""
    near = np.stack([_look_at_middle(0.0), _look_at_middle(10.0)])
    lens = np.array([tiny.SIZE, tiny.SIZE, tiny.SIZE / 2, tiny.SIZE / 2])
    paths = Cameras(jnp.tile(near, (3, 1, 1, 1)), jnp.tile(lens, (3, 2, 1)))
    return make_model(paths=paths)


def _look_at_middle(degrees):
    turn = np.deg2rad(degrees)
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    pose[:3, 3] = -3 * pose[:3, 2]
    return pose


@pytest.fixture
def folder(tmp_path):
    """Photographs 0.png to 4.png; number i is of brightness 40 i."""
    (tmp_path / "images").mkdir()
    frames = []
    for i, degrees in enumerate(DEGREES):
        pixels = np.full((20, 30, 3), 40 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        matrix = _look_at_middle(degrees) @ poses.CV_FROM_GL
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": matrix.tolist()})
    text = json.dumps({"fl_x": 30, "fl_y": 30, "cx": 15, "cy": 10, "frames": frames})
    (tmp_path / "transforms.json").write_text(text)
    return tmp_path


def views_of(model, folder, *arguments):
    options = sample._parser().parse_args([f"--transforms={folder}", *arguments])
    views = sample_views.choose(options, model)
    return views, views.known(options.known)


def test_neighbours_about_as_far_apart_as_in_training_are_taken(model, folder):
    views, known = views_of(model, folder, "--known=1")
    assert views.names == ("images/1.png", "images/2.png")
    assert [views.images[i].mean() for i in (0, 1)] == [40, 80]
    assert known == [1]
    lines = views.remarks(known, model.degrees_apart)
    assert lines == ["views: images/1.png, images/2.png (given); 10 degrees apart"]
    in_world = np.asarray(views.world_from_cameras) @ np.asarray(views.cameras.world_from_cam[1])
    np.testing.assert_allclose(in_world[:3, 3], _look_at_middle(100.0)[:3, 3], atol=1e-5)


def test_photographs_may_be_named(model, folder):
    views, known = views_of(model, folder, "--known=3.png")
    assert views.names == ("images/3.png", "images/4.png")
    assert known == [0]
    views, known = views_of(model, folder, "--known=images/4.png,0.png")
    assert views.names == ("images/0.png", "images/4.png")
    assert known == [0, 1]
    lines = views.remarks(known, model.degrees_apart)
    assert "warning: these views are 100 degrees apart" in lines[1]
    assert "10 to 10" in lines[1]


def test_photographs_may_be_named_where_the_model_has_no_paths(folder):
    views, known = views_of(make_model(), folder, "--known=2.png")
    assert views.names == ("images/1.png", "images/2.png")
    assert known == [1]


def test_without_paths_views_are_chosen_as_the_models_data_are(folder):
    views, known = views_of(make_model(), folder)
    assert views.names == ("images/0.png", "images/4.png")
    (_, said) = views.remarks(known, None)
    assert "is not shown these photographs" in said
    assert "--known=images/0.png shows it one" in said


def test_as_many_photographs_as_views_are_enough(model, folder):
    path = folder / "transforms.json"
    text = json.loads(path.read_text())
    path.write_text(json.dumps(text | {"frames": text["frames"][2:4]}))
    views, _ = views_of(model, folder)
    assert views.names == ("images/2.png", "images/3.png")


def test_a_whole_name_comes_before_the_last_part_of_another():
    photographs = ("0.png", "left/0.png", "left/1.png", "right/1.png")
    assert sample_views._find(["0.png", "left/0.png"], photographs) == ["0.png", "left/0.png"]
    with pytest.raises(ValueError, match=r"names 2 photographs, left/1\.png and others, of the 4"):
        sample_views._find(["1.png"], photographs)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ("0,2", r"no view 2; the model's views are 0 \(images/1.png\), 1 \(images/2.png\)"),
        ("-1", "no view -1"),
        ("7.png", "names none of the 5 photographs of the capture; they are named like images/"),
        ("0.png,1.png,2.png", "3 photographs are more than the 2 views"),
    ],
)
def test_what_is_no_view_is_refused(model, folder, known, message):
    with pytest.raises(ValueError, match=message):
        views_of(model, folder, f"--known={known}")


def test_the_scene_of_a_folder_of_captures_is_named(model, folder, capsys):
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "images").symlink_to(folder / "images")
        (folder / name / "transforms.json").write_text((folder / "transforms.json").read_text())
    (folder / "transforms.json").unlink()
    views_of(model, folder, "--scene=1")
    assert "scene 1: b; --scene takes another of 0 to 1" in capsys.readouterr().out


def test_photographs_that_do_not_come_with_a_model_are_asked_for(model):
    options = sample._parser().parse_args(["--known=0", "--model=rooms"])
    data = dataclasses.replace(model.data, source="llff", root=model_file.ELSEWHERE)
    with pytest.raises(ValueError, match=r"--model=rooms comes without .*--data-root=FOLDER"):
        captures.check_at_hand(options, data)
    captures.check_at_hand(argparse.Namespace(data_root="x"), data)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((7, 5), "has 7 x 5 pixels, fewer than the 16 x 16 that the model sees"),
        ((300, 20), "has 300 x 20 pixels, of which the model sees the middle 7%"),
        ((60, 40), None),
    ],
)
def test_photographs_that_show_little_are_remarked_on(model, tmp_path, capsys, size, message):
    Image.new("RGB", size).save(tmp_path / "p.png")
    options = sample._parser().parse_args([f"--images={tmp_path / 'p.png'}"])
    sample_views.choose(options, model)
    printed = capsys.readouterr().out
    assert (message is None) != (f"warning: {tmp_path / 'p.png'} {message}" in printed)
    assert ("warning" in printed) == (message is not None)


def test_of_two_commands_that_write_to_one_folder_the_second_is_told(tmp_path):
    folder = tmp_path / "new"
    with sample_files.claimed(folder, overwrite=False):
        (folder / "sample_0.ply").write_text("mine")
        for overwrite in (False, True):
            with (
                pytest.raises(FileExistsError, match="another command writes to"),
                sample_files.claimed(folder, overwrite=overwrite),
            ):
                pass
    with (
        pytest.raises(FileExistsError, match="is not empty any more"),
        sample_files.claimed(folder, overwrite=False),
    ):
        pass
    with sample_files.claimed(folder, overwrite=True):
        pass
    assert [path.name for path in folder.iterdir()] == ["sample_0.ply"]


@pytest.mark.parametrize("command", [["sample"], ["evaluate", "--protocol=unconditional"]])
def test_an_output_in_a_store_is_refused_at_once(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert __main__.main([*command, "--model=nowhere", "--output=gs://bucket/x"]) == 1
    assert "--output=gs://bucket/x is an address" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_arguments_that_belong_to_no_option_are_not_understood(capsys):
    with pytest.raises(SystemExit) as stopped:
        sample.main(["stray"])
    assert stopped.value.code == 2
    assert "unrecognized arguments: stray" in capsys.readouterr().err


def test_classes_are_named_in_the_pictures_and_the_page():
    assert sample_files.titles_of(["car", ""]) == ["sample 0: car", "sample 1"]
    named = argparse.Namespace(class_names=("room", "car"), path_classes=(1, 1))
    assert sample._class_names([1, "car"], named, 2) == ["car", "car"]
    assert sample._class_names(None, named, 2) == ["", ""]
    assert sample._class_names(0, argparse.Namespace(class_names=()), 1) == [""]
    pictures = [np.zeros((8, 8, 3), np.uint8)] * 2
    plain, titled = (sample_files.contact_sheet(pictures, ["", t]) for t in ("", "sample 1: car"))
    assert titled.shape[0] > plain.shape[0]


def test_a_class_that_the_models_scenes_lack_is_remarked_on(capsys):
    named = argparse.Namespace(class_names=("room", "car"), path_classes=(1, 1))
    for label, said in (("room", True), ("0", True), ("car", False), ("1", False)):
        options = argparse.Namespace(class_label=label)
        sample._labels(options, named, at_random=False)
        assert ("none of the 2 scenes" in capsys.readouterr().out) == said
