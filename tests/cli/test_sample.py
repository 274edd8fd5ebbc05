"""The command writes what it promises, and refuses what it cannot do."""

import argparse
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny
from PIL import Image

from lgs_jax import __main__, settings, tasks
from lgs_jax.cli import sample, sample_views
from lgs_jax.data import pipeline
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import sample_files, scene_model
from lgs_jax.inference.export import ply
from lgs_jax.inference.viewer import camera_file

CONFIG = {
    "task": "diffusion",
    "data": tiny.CONFIG["data"],
    "model": {
        "latent_channels": 2,
        "compression": 4,
        "embedding_size": 8,
        "widths": (8,),
        "blocks_per_level": 1,
        "middle_blocks": 0,
        "attention_levels": (),
        "num_heads": 1,
    },
}


def make_model(**diffusion):
    frozen = tiny.make()
    task = tasks.make_task("diffusion", CONFIG | {"diffusion": diffusion}, frozen)
    params = tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))
    data = settings.build(DataSettings, CONFIG["data"], "data")
    return scene_model.SceneModel(frozen, task, params, data=data)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def command(model, monkeypatch, tmp_path):
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: model)
    monkeypatch.setattr(sample_files, "VIDEO_SIDE", 2 * tiny.SIZE)  # which takes less time

    def run(*arguments):
        folder = tmp_path / "out"
        fixed = ["sample", "--model=x", f"--output={folder}", "--steps=2", "--upscale=1"]
        return __main__.main([*fixed, *arguments]), folder

    return run


def test_writes_splats_videos_and_pictures(command, capsys):
    status, folder = command("--num-samples=2", "--known=0")
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert "PSNR at the given views: " in printed.out
    assert "PSNR at the other views: " in printed.out
    names = {"contact_sheet.png", "grid.png", "depth.png", "spread.png", "input_0.png"}
    names |= {"transforms.json", "view.html"}
    names |= {f"{kind}_{i}.{end}" for i in (0, 1) for kind, end in KINDS}
    assert {path.name for path in folder.iterdir()} == names
    kept = folder / "sample_of_mine.ply"
    kept.touch()
    first, second = (ply.load_ply(folder / f"sample_{i}.ply") for i in (0, 1))
    assert camera_file.load(folder / "transforms.json").cameras.batch_shape == (tiny.VIEWS,)
    page = (folder / "view.html").read_text()
    assert "sample 1" in page
    assert page.count("data:image/png;base64,") == 1  # the view that was given
    assert first.num_gaussians == tiny.VIEWS * tiny.SIZE**2
    assert np.abs(np.asarray(first.colors - second.colors)).max() > 1e-3
    with Image.open(folder / "grid.png") as grid:
        assert grid.height > 3 * tiny.SIZE  # what was given, then two samples
    with Image.open(folder / "depth.png") as depth:
        assert 2 * tiny.SIZE < depth.height < 4 * tiny.SIZE  # two samples and a scale
    status, _ = command()
    assert status == 1
    assert "is not empty" in capsys.readouterr().err
    status, _ = command("--num-samples=1", "--overwrite")
    assert status == 0
    assert f"removed {folder / 'sample_1.ply'}, of an earlier call" in capsys.readouterr().out
    others = {"sample_1.ply", "turntable_1.mp4", "spread.png"}  # of the second sample
    others |= {"input_0.png"}  # nothing was given this time
    assert {path.name for path in folder.iterdir()} == names - others | {kept.name}


KINDS = (("sample", "ply"), ("turntable", "mp4"))


def test_paths_of_a_model_without_its_data_are_of_no_split():
    options = argparse.Namespace(split="train", scene=None)
    with pytest.raises(ValueError, match="--split=train is for scenes of data; give --data-root"):
        sample_views._model_path(options, None)


def test_scenes_trained_on_are_seen_in_the_views_of_their_training():
    data = settings.build(DataSettings, CONFIG["data"] | {"view_draws": 2}, "data")
    source = pipeline.make_source(data, "train")
    shown = sample_views._entry(source, data, 3, "train")
    trained_on = pipeline.draw_entry(source, data, 3, 0, cache=FrameCache(0))
    np.testing.assert_array_equal(shown["context"]["images"], trained_on["context"]["images"])
    held_out = sample_views._entry(source, data, 0, None)
    assert "draw" not in held_out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scene=9999"], "--scene=9999: the scenes are 0 to"),
        (["--known=7"], "there is no view 7"),
        (["--known=a"], "must be positions such as 0,2"),
        (["--path=walk", "--known=0"], "--known needs photographs, of which this path has none"),
        (["--transforms=/nowhere"], "there is no /nowhere"),
        (["--photos=/nowhere"], "there is no /nowhere"),
        (["--class-label=1"], "trained without classes"),
        (["--transforms=/nowhere", "--split=train"], "not for a capture of yours"),
        (["--images=/nowhere.jpg"], "/nowhere.jpg"),
        (["--images="], "--images is empty; give the path of a photograph"),
        (["--images", "a.jpg", "b.jpg"], "takes one photograph, got 2"),
        (["--images=a.jpg", "--colmap=b"], "leave out --colmap"),
        (["--images=a.jpg", "--photos=b"], "leave out --photos"),
        (["--fov-deg=50"], "--fov-deg is for --images or a made-up --path"),
        (["--path=orbit", "--scene=0"], "--scene has no effect on a made-up --path"),
        (["--path=orbit", "--split=eval"], "--split has no effect on a made-up --path"),
        (["--images=a.jpg", "--path=walk", "--scene=1"], "--scene has no effect on a made-up"),
        (["--upscale=0"], "--upscale=0 must be at least 1"),
        (["--upscale=-3"], "--upscale=-3 must be at least 1"),
        (["--upscale=9999999"], "--upscale=9999999 must be at most 16"),
        (["--seed=-1"], "--seed=-1 must be at least 0"),
        (["--seed=4294967296"], "--seed=4294967296 must be at most 4294967295"),
        (["--num-samples=-2"], "--num-samples=-2 must be at least 1"),
        (["--class-label=random"], "--class-label=random needs a model with named classes"),
    ],
)
def test_refusals(command, capsys, arguments, message):
    status, folder = command(*arguments)
    assert status == 1
    assert message in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("trained", "arguments", "message"),
    [
        ({"max_known": 1}, ["--known=0,1"], "2 known views are more than the 1"),
        ({"unconditional": 0.0}, ["--known=0", "--guidance=2"], "needs a model that was trained"),
        ({}, ["--num-samples=0"], "--num-samples=0 must be at least 1"),
        ({}, ["--steps=0"], "steps=0 must be at least 1"),
        ({}, [], "latents hold values that are not finite"),
    ],
)
def test_refusals_of_what_the_model_was_not_trained_for(
    monkeypatch, tmp_path, capsys, trained, arguments, message
):
    model = make_model(**trained)
    if "finite" in message:
        model.params = jax.tree.map(lambda x: x * np.nan, model.params)
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: model)
    folder = tmp_path / "out"
    fixed = ["sample", "--model=x", f"--output={folder}", "--steps=2"]
    assert __main__.main([*fixed, *arguments]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert not folder.exists()


@pytest.mark.parametrize("name", ["file", "file/new", "~/file"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tmp_path, monkeypatch, capsys, name
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert __main__.main(["sample", "--model=nowhere", f"--output={name}"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: the folder ")
    assert "file" in printed
    assert "cannot be written" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_autoencoder_alone_is_refused_at_once(model, monkeypatch, tmp_path, capsys):
    alone = scene_model.SceneModel(model.frozen, data=model.data)
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: alone)
    arguments = [f"--output={tmp_path / 'out'}", "--images=a.jpg"]
    assert __main__.main(["sample", "--model=x", *arguments]) == 1
    assert "--model=x is an autoencoder alone" in capsys.readouterr().err


def test_a_capture_without_cameras_is_refused(command, tmp_path, capsys):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    path = tmp_path / "transforms.json"
    path.write_text('{"frames": [{"file_path": "a.png"}]}')
    status, folder = command(f"--transforms={path}")
    assert status == 1
    assert "transform_matrix" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("focal_35mm", [None, 28])
def test_a_photograph_without_a_pose(command, model, tmp_path, capsys, focal_35mm):
    exif = Image.Exif()
    if focal_35mm:
        exif.get_ifd(0x8769)[0xA405] = focal_35mm
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(path, exif=exif)
    status, folder = command(f"--images={path}", "--num-samples=1")
    printed = capsys.readouterr()
    assert status == 0, printed.err
    with Image.open(folder / "grid.png") as grid:
        assert grid.height > 2 * tiny.SIZE  # the photograph, then the sample
    if focal_35mm is None:
        _photograph_is_found_beside_the_sample(folder, model.task.reference)
    # A square of 40 pixels; the diagonal of 72.1 pixels stands for 43.27 mm.
    focal = 28 * 72.11 / 43.27
    if not focal_35mm:  # that of the scene on whose path it stands
        scene = sample_views.choose(sample._parser().parse_args([]), model)
        focal = scene.cameras.intrinsics[model.task.reference, 0] * 40 / tiny.SIZE
    wide = np.rad2deg(2 * np.arctan(20 / focal))
    assert f"{wide:.0f} degrees wide" in printed.out
    assert ("EXIF" in printed.out) == bool(focal_35mm)
    status, _ = command(f"--images={path}", "--known=1", "--overwrite")
    assert status == 1
    assert "view 1 has no photograph" in capsys.readouterr().err


def _photograph_is_found_beside_the_sample(folder, reference):
    images = camera_file.load(folder / camera_file.NAME).images
    assert [i for i, image in enumerate(images) if image is not None] == [reference]
    assert images[reference].shape == (tiny.SIZE, tiny.SIZE, 3)
    assert np.abs(images[reference].astype(int) - 200).max() <= 2  # JPEG
    both, page = folder / "both.png", folder / "one.html"
    scene = str(folder / "sample_0.ply")
    assert __main__.main(["render", scene, str(both), "--beside", "input"]) == 0
    with Image.open(both) as picture:
        assert picture.size == (2 * tiny.SIZE, tiny.SIZE)
        assert np.abs(np.asarray(picture)[:, : tiny.SIZE].astype(int) - 200).max() <= 2
    assert __main__.main(["view", scene, f"--html={page}"]) == 0
    assert page.read_text().count("data:image/png;base64,") == 1


def test_a_photograph_stands_on_the_path_of_a_scene_where_the_model_has_none(
    model, monkeypatch, tmp_path
):
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "photo.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    photo = "--images=~/photo.png"
    views = sample_views.choose(sample._parser().parse_args([photo]), model)
    scene = sample_views.choose(sample._parser().parse_args([]), model)
    chex.assert_trees_all_equal(views.cameras.world_from_cam, scene.cameras.world_from_cam)
    assert list(views.images) == [model.task.reference]
    assert np.all(views.images[model.task.reference] == 200)


@pytest.mark.parametrize("fov_deg", [None, 60.0])
def test_a_photograph_stands_on_a_path_of_the_model(tmp_path, fov_deg):
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "photo.png")
    paths = jax.tree.map(
        lambda *a: jnp.stack(a),
        *(
            sample_views.make_path(name, 2, (tiny.SIZE, tiny.SIZE), 40.0)
            for name in sample_views.PATHS
        ),
    )
    task = types.SimpleNamespace(reference=1)
    model = types.SimpleNamespace(
        paths=paths, task=task, num_views=2, image_size=(tiny.SIZE, tiny.SIZE)
    )
    options = sample._parser().parse_args([f"--images={tmp_path / 'photo.png'}", "--scene=1"])
    options.fov_deg = fov_deg
    views = sample_views.choose(options, model)
    assert list(views.images) == [1]
    np.testing.assert_array_equal(views.cameras.world_from_cam, paths[1].world_from_cam)
    half_width = tiny.SIZE / 2 / np.asarray(views.cameras.intrinsics)[:, 0]
    np.testing.assert_allclose(half_width, np.tan(np.deg2rad((fov_deg or 40.0) / 2)), rtol=1e-5)
    options.path = "orbit"
    orbit = sample_views.choose(options, model).cameras
    made_up = sample_views.make_path("orbit", 2, model.image_size, fov_deg or 60.0)
    chex.assert_trees_all_equal(orbit, made_up)


def test_a_class_is_drawn_at_random_only_where_no_view_says_what_is_there():
    model = types.SimpleNamespace(class_names=("car", "tree"), path_classes=(0, 1))
    options = types.SimpleNamespace(class_label=None, seed=0, num_samples=3, model="x")
    assert set(sample._labels(options, model, at_random=True)) <= {"car", "tree"}
    assert sample._labels(options, model, at_random=False) is None
    asked = types.SimpleNamespace(class_label="tree", seed=0, num_samples=3)
    assert sample._labels(asked, model, at_random=False) == "tree"


def test_classes_that_come_out_well_are_drawn_first_and_none_twice(capsys):
    names = ("blocks", "house", "car", "snowman", "seat")
    model = types.SimpleNamespace(class_names=names, path_classes=(4, 0, 1, 2, 3, 3))

    def drawn(label, count, seed=0):
        options = types.SimpleNamespace(
            class_label=label, seed=seed, num_samples=count, model="objects-small"
        )
        return sample._labels(options, model, at_random=True)

    for seed in range(5):
        assert sorted(drawn(None, 3, seed)) == ["car", "house", "snowman"]
        twice = drawn(None, 5, seed)
        assert set(twice) == {"car", "house", "snowman"}
        assert len(set(twice[:3])) == 3
        assert sorted(drawn("random", 5, seed)) == sorted(names)
    capsys.readouterr()
    chosen = drawn(None, 2)
    printed = capsys.readouterr().out
    assert printed.startswith(f"classes: {', '.join(chosen)}\n")
    assert "the 3 that come out well (house, car, snowman)" in printed
    assert "blocks, seat; --class-label=random draws from all" in printed
    assert drawn("seat", 2) == "seat"


def test_turntables_are_smooth_and_go_around(model, monkeypatch):
    """Not the small pictures with every pixel repeated, and not along the cameras."""
    cameras = sample_views.make_path("orbit", tiny.VIEWS, (tiny.SIZE, tiny.SIZE), 60.0)
    scenes = model.sample(jax.random.key(0), cameras, steps=2)
    paths = []
    make_path = sample_files.scene_video.make_path
    monkeypatch.setattr(
        sample_files.scene_video, "make_path", lambda *a: paths.append(a[0]) or make_path(*a)
    )
    shown, _ = sample_files.make(scenes, cameras, image_size=(tiny.SIZE, tiny.SIZE), video_frames=2)
    video = shown["turntable_0"].astype(int)
    side = sample_files.VIDEO_SIDE
    assert paths == ["turntable"]
    assert video.shape == (2, side, side, 3)
    factor = side // tiny.SIZE
    within = np.abs(np.diff(video, axis=2))[:, :, : factor - 1]  # of the first pixels
    assert within.any()


@pytest.mark.parametrize("name", sample_views.PATHS)
def test_paths_look_forward_and_move(name):
    cameras = sample_views.make_path(name, 4, (32, 48), 60.0)
    forward = np.asarray(cameras.world_from_cam)[:, :3, 2]
    assert np.all(forward @ forward.mean(axis=0) > 0.5)
    assert np.asarray(cameras.world_from_cam)[:, 1, 1].min() > 0.9  # y down, as in the world
    steps = np.linalg.norm(np.diff(np.asarray(cameras.centers), axis=0), axis=-1)
    assert steps.min() > 0.1
    half_width = 24.0 / np.asarray(cameras.intrinsics)[:, 0]
    np.testing.assert_allclose(half_width, np.tan(np.deg2rad(30.0)), rtol=1e-5)


def test_scenes_that_no_file_of_splats_holds_are_refused(monkeypatch):
    model = scene_model.SceneModel(tiny.make("voxels"), task=make_model().task)
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: model)
    with pytest.raises(settings.SettingsError, match=r"--model=here: .* scene_head\.kind='voxels'"):
        sample.load_model(argparse.Namespace(model="here", autoencoder=None))
