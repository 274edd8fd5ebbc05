"""Evaluations of a tiny model: what they score, that they go on, and what they refuse."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny
from PIL import Image

from lgs_jax import __main__, settings, tasks
from lgs_jax.data import pipeline
from lgs_jax.data.report import Finding
from lgs_jax.data.settings import DataSettings
from lgs_jax.data.sources.procedural import ProceduralSource
from lgs_jax.inference import scene_model
from lgs_jax.inference.evaluation import nearest, protocols, run, scoring
from lgs_jax.metrics import image
from lgs_jax.rendering.api import render
from lgs_jax.vision.features import FeatureNetwork

SCENES = 3
MODEL = {
    "latent_channels": 2,
    "compression": 4,
    "num_classes": 14,
    "embedding_size": 8,
    "widths": (8,),
    "blocks_per_level": 1,
    "middle_blocks": 0,
    "attention_levels": (),
    "num_heads": 1,
}
DATA = tiny.CONFIG["data"] | {"num_scenes": 30}


def make_model(**diffusion):
    config = {
        "task": "diffusion",
        "data": DATA,
        "model": MODEL,
        "sampler": {"steps": 2},
        "diffusion": diffusion,
    }
    frozen = tiny.make()
    task = tasks.make_task("diffusion", config, frozen)
    params = tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))
    return scene_model.SceneModel(
        frozen, task, params, data=settings.build(DataSettings, DATA, "data")
    )


@pytest.fixture(scope="module")
def model():
    return make_model()


def network():
    """Means of the corners of an image, under the name of a network."""
    return FeatureNetwork(
        name="vgg16",
        size=6,
        checksum="0" * 64,
        published=True,
        min_size=1,
        params={},
        function=lambda params, x: jnp.concatenate(
            [x[:, :8, :8].mean((1, 2)), x[:, 8:, 8:].mean((1, 2))], axis=-1
        ),
    )


def evaluate(folder, model, *, lpips=None, **options):
    return run.evaluate(
        folder,
        model,
        "tiny",
        run.Options(**{"num_scenes": SCENES, "batch_size": 2, "gallery": 1} | options),
        lpips=lpips,
        network=network(),
        say=lambda text: None,
    )


@pytest.fixture(scope="module")
def single(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation") / "single"
    return folder, evaluate(folder, model, protocol="single_image", num_samples=2)


def test_files_and_figures(single):
    folder, results = single
    assert {path.name for path in folder.iterdir()} == {
        *("request.json", "parts", "results.json", "results.md", "gallery.png")
    }
    saved = json.loads((folder / "results.json").read_text())
    assert saved["scores"] == results["scores"]
    assert saved["request"]["seed"] == 0
    assert len(saved["scenes"]) == SCENES
    assert len({scene["sha256"] for scene in saved["scenes"]}) == SCENES
    assert set(saved["distances"]) >= {"fd_vgg16", "kd_vgg16"}
    by_scenes = saved["distances"]["kd_vgg16_by_scenes"]
    assert by_scenes["low"] < by_scenes["high"]
    assert set(saved["scores"]["psnr"]) == {"all", "given", "context", "target"}
    table = (folder / "results.md").read_text()
    assert "| held-out views | best of K |" in table
    assert f"{saved['scores']['psnr']['given']['first']['mean']:.2f} [" in table
    assert "2 encoded and 2 held-out views of each scene" in table
    assert saved["request"]["target_views"] == saved["request"]["data"]["target_views"] == 2
    assert len(saved["scenes"][0]["samples"][0]["psnr"]) == 4


def test_of_several_samples_from_all_views_the_best_is_taken_for_each_measure(model, tmp_path):
    results = evaluate(tmp_path / "s", model, protocol="sparse_views", num_samples=3)
    assert set(results["scores"]["psnr"]) == {"all", "given", "target"}
    for measure, figures in results["scores"].items():
        values = [[np.mean(s[measure]) for s in scene["samples"]] for scene in results["scenes"]]
        first, best = np.mean([row[0] for row in values]), np.mean([max(row) for row in values])
        assert figures["all"]["first"]["mean"] == pytest.approx(first, abs=1e-9)
        assert figures["all"]["best"]["mean"] == pytest.approx(best, abs=1e-9)
        assert best > first


def test_a_scene_scores_alone_what_it_scores_in_a_batch(model, single):
    _, results = single
    data = settings.build(DataSettings, DATA | {"target_views": tiny.VIEWS}, "data")
    source = pipeline.make_source(data, "eval")
    batches = pipeline.eval_batches(source, data, batch_size=1, num_scenes=SCENES)
    protocol = protocols.PROTOCOLS["single_image"]
    scorer = scoring.Scorer(model, protocol, num_samples=2)
    alone = [scorer(batch) for batch in batches][SCENES - 1]
    record = results["scenes"][SCENES - 1]
    for sample, kept in zip(alone.samples, record["samples"], strict=True):
        for name, values in sample.items():
            np.testing.assert_allclose(values[0], kept[name], rtol=2e-4, atol=2e-4)
    first, second = record["samples"]
    assert first["psnr"] != second["psnr"]
    assert record["scene"]["diversity_deviation"] > 0


def test_reconstruction_is_that_of_the_autoencoder(model, tmp_path):
    results = evaluate(
        tmp_path / "r", model, protocol="reconstruction", target_views=DATA["target_views"]
    )
    assert set(results["scores"]["psnr"]) == {"all", "given", "target"}
    assert set(results["scores"]["psnr"]["all"]) == {"first"}
    data = model.data
    source = pipeline.make_source(data, "eval")
    (batch,) = pipeline.eval_batches(source, data, batch_size=SCENES, num_scenes=SCENES)
    height, width = model.image_size

    @jax.jit
    def psnr(batch):
        both = scoring._all_views(batch)
        context = scoring.views.from_batch(batch["context"])
        latents = model.frozen.encode(context.images, context.cameras).mean
        scene = model.frozen.decode(latents, context.cameras)
        rendered = render(scene, both.cameras, height=height, width=width)
        return image.psnr(rendered.rgb, both.images)

    wanted = float(jnp.mean(psnr(batch)))
    assert results["scores"]["psnr"]["all"]["first"]["mean"] == pytest.approx(wanted, abs=1e-3)


def test_from_nothing_there_is_nothing_to_compare_with(model, tmp_path):
    results = evaluate(tmp_path / "u", model, protocol="unconditional", tell_class=True)
    assert results["scores"] == {}
    assert results["distances"]["images"] == SCENES * 2 * tiny.VIEWS
    assert results["distances"]["fd_vgg16"] > 0
    assert (tmp_path / "u" / "gallery.png").exists()


def test_samples_are_compared_with_the_training_set(model, tmp_path):
    """The training scenes are found among themselves; a finished evaluation only adds them."""
    folder = tmp_path / "u"
    evaluate(folder, model, protocol="unconditional")
    assert not (folder / "nearest.png").exists()
    results = evaluate(folder, model, protocol="unconditional", nearest_training=5)
    found = results["nearest"]
    assert found["training_photographs"] == 5 * tiny.VIEWS
    assert len(found["distances_of_samples"]) == len(found["distances_of_held_out"]) == SCENES
    assert "| copying z (below -3: copies) |" in (folder / "results.md").read_text()
    with Image.open(folder / "nearest.png") as picture:
        assert picture.height > 4 * tiny.SIZE
    training = pipeline.make_source(model.data, "train")
    scorer = scoring.Scorer(model, protocols.PROTOCOLS["unconditional"], network=network())
    (batch,) = pipeline.eval_batches(training, model.data, batch_size=4, num_scenes=4)
    images = scoring.views.from_batch(batch["context"]).images
    copies = scorer.photograph_features(images)[:, 1]
    near = nearest.find(
        *(scorer, training, model.data),
        samples=copies,
        held_out=copies + 1.0,
        num_scenes=5,
        batch_size=2,
        say=lambda text: None,
    )
    np.testing.assert_allclose(near.distances[0], 0.0, atol=1e-6)
    wanted = [(scene, 1) for scene in batch["scene_index"].tolist()]
    assert list(map(tuple, near.places[0].tolist())) == wanted
    assert near.figures()["copying_z"] < 0


def test_features_of_photographs_are_kept_for_other_evaluations(model, tmp_path):
    images = np.random.default_rng(0).uniform(0, 1, (2, 3, 16, 16, 3)).astype(np.float32)
    reconstruction = protocols.PROTOCOLS["reconstruction"]

    def features(network, images, folder):
        scorer = scoring.Scorer(model, reconstruction, network=network, statistics=folder)
        return scorer.photograph_features(images)

    first = features(network(), images, tmp_path)
    np.testing.assert_array_equal(first, features(network(), images, None))
    other = dataclasses.replace(network(), function=lambda params, x: jnp.zeros((len(x), 6)))
    np.testing.assert_array_equal(first, features(other, images, tmp_path))  # it is not asked
    assert not features(other, images[:, :, ::-1], tmp_path).any()
    assert len(list(tmp_path.iterdir())) == 2
    broken = dataclasses.replace(
        network(), function=lambda params, x: jnp.full((len(x), 6), jnp.nan)
    )
    with pytest.raises(ValueError, match="features of photographs are not finite"):
        features(broken, images[:, ::-1], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_stopped_evaluation_goes_on(model, single, tmp_path, monkeypatch):
    folder = tmp_path / "stopped"
    called = scoring.Scorer.__call__
    count = []

    def stop_at_the_second(self, batch):
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt
        return called(self, batch)

    monkeypatch.setattr(scoring.Scorer, "__call__", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, model, protocol="single_image", num_samples=2)
    results = evaluate(folder, model, protocol="single_image", num_samples=2)
    assert len(count) == 3  # one batch was not done again
    assert results["scores"] == single[1]["scores"]
    assert results["data_sha256"] == single[1]["data_sha256"]
    with pytest.raises(ValueError, match="holds another evaluation: seed is 0 there and 1 here"):
        evaluate(folder, model, protocol="single_image", num_samples=2, seed=1)


def test_data_that_are_not_whole_are_refused_unless_allowed(model, tmp_path, monkeypatch):
    made = pipeline.make_source

    def with_a_gap(data, split):
        source = made(data, split)
        source.report.findings.append(Finding("kitchen", "no poses"))
        return source

    monkeypatch.setattr(run.pipeline, "make_source", with_a_gap)
    with pytest.raises(ValueError, match="1 scenes and 0 frames that cannot be used"):
        evaluate(tmp_path / "a", model, protocol="reconstruction")
    results = evaluate(tmp_path / "b", model, protocol="reconstruction", allow_left_out=True)
    assert results["left_out"] == 1
    assert "1 scenes or frames left out" in (tmp_path / "b" / "results.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "guess"}, "unknown protocol 'guess'; expected one of unconditional"),
        ({"protocol": "re10k_2view"}, r"does not fit a model with height=\d+ \(it asks for 256\)"),
        ({"protocol": "reconstruction", "num_samples": 2}, "num_samples=2 has no effect"),
        ({"protocol": "reconstruction", "tell_class": True}, "tell_class=True has no effect"),
        ({"protocol": "single_image", "batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"protocol": "single_image", "num_scenes": 4}, "num_scenes=4, but the data hold out 3"),
        ({"protocol": "single_image", "target_views": 0}, "target_views=0 must be at least 1"),
        ({"protocol": "single_image", "target_views": 9}, "num_frames=5 is too few for the views"),
        ({"protocol": "single_image", "nearest_training": 9}, "is for samples from nothing"),
        ({"protocol": "unconditional", "nearest_training": -1}, "must not be negative"),
    ],
)
def test_refusals(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path / "x", model, **options)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("trained", "options", "message"),
    [
        ({"max_known": 1}, {"protocol": "sparse_views"}, "2 known views are more than the 1"),
        ({"unconditional": 0.0}, {"protocol": "unconditional"}, "always been shown a view"),
        (
            {"unconditional": 0.0},
            {"protocol": "single_image", "guidance": 2.0},
            "guidance_scale=2 needs a model that was trained",
        ),
        ({"class_drop": 0.0}, {"protocol": "single_image"}, "give class_label, or evaluate with"),
    ],
)
def test_requests_that_the_model_was_not_trained_for(tmp_path, trained, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path / "x", make_model(**trained), **options)
    assert not (tmp_path / "x").exists()


def test_a_folder_has_the_figures_of_one_weight_file(model, tmp_path):
    """The heads differ: the same trunk and size, but another distance."""
    params = {"conv_0": jnp.ones(3)}
    fake = types.SimpleNamespace
    measure = dict(net=fake(trunk="alex"), params=params, resize_to=None, checksum="a" * 64)
    results = evaluate(tmp_path, model, lpips=Constant(**measure), protocol="reconstruction")
    assert results["request"]["lpips"]["checksum"] == "a" * 64
    evaluate(tmp_path, model, lpips=Constant(**measure), protocol="reconstruction")
    for other in ({"checksum": "b" * 64}, {"checksum": ""}):
        with pytest.raises(ValueError, match=r"another evaluation: lpips is .*aaa.* there"):
            evaluate(tmp_path, model, lpips=Constant(**measure | other), protocol="reconstruction")


class Constant(types.SimpleNamespace):
    """A distance that is always 1."""

    def __call__(self, a, b):
        return jnp.ones(a.shape[:-3])


def test_a_foreign_folder_and_an_autoencoder_alone_are_refused(model, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="is not empty and no evaluation"):
        evaluate(tmp_path, model, protocol="reconstruction")
    alone = scene_model.SceneModel(model.frozen, data=model.data)
    with pytest.raises(ValueError, match="an autoencoder alone; give a run"):
        evaluate(tmp_path / "x", alone, protocol="unconditional")


def test_the_command(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: model)
    fixed = ["evaluate", "--model=x", "--protocol=reconstruction", "--num-scenes=1"]
    folder = tmp_path / "out"
    assert __main__.main([*fixed, f"--output={folder}", "--gallery=0"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 1 batches" in printed
    assert "95 %" not in printed  # of a single scene
    assert "# reconstruction: scenes from all V views" in printed
    assert __main__.main([*fixed, "--lpips-resize-to=64"]) == 1
    assert "--lpips-resize-to has no effect without --lpips" in capsys.readouterr().err


def test_the_command_takes_captures_in_place_of_the_models_data(
    model, tmp_path, monkeypatch, capsys
):
    """All scenes of the folder, and no part of a mixture that the model was trained on."""
    capture = tmp_path / "captures" / "vase"
    capture.mkdir(parents=True)
    made = ProceduralSource(num_scenes=1, num_frames=8, height=24, width=32)[0]
    frames = []
    for i, pixels in enumerate(made.images):
        Image.fromarray(pixels).save(capture / f"{i}.png")
        matrix = made.world_from_cam[i] @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"{i}.png", "transform_matrix": matrix.tolist()})
    camera = dict(zip(("fl_x", "fl_y", "cx", "cy"), made.intrinsics[0].tolist()))
    (capture / "transforms.json").write_text(json.dumps(camera | {"frames": frames}))
    data = dataclasses.replace(model.data, mix=({"num_scenes": 5, "weight": 0.5},), num_scenes=30)
    mixed = scene_model.SceneModel(model.frozen, model.task, model.params, data=data)
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: mixed)
    folder = tmp_path / "out"
    fixed = ["evaluate", "--model=x", "--protocol=reconstruction", f"--output={folder}"]
    status = __main__.main([*fixed, f"--transforms={capture.parent}"])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    results = json.loads((folder / "results.json").read_text())
    assert [scene["key"] for scene in results["scenes"]] == ["vase"]
    assert "1 of 1 scenes, 8 of 8 frames" in printed.out
    assert "degrees apart, median of 1 scenes" in printed.out
    assert __main__.main([*fixed, f"--transforms={capture}", "--tell-class"]) == 1
    assert "captures, which have no classes" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main([*fixed, f"--transforms={capture}", "--data-root=x"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_overflow_is_an_error(model, monkeypatch):
    data = model.data
    source = pipeline.make_source(data, "eval")
    (batch,) = pipeline.eval_batches(source, data, batch_size=1, num_scenes=1)
    scorer = scoring.Scorer(model, protocols.PROTOCOLS["reconstruction"])
    views = tiny.VIEWS + DATA["target_views"]
    fake = types.SimpleNamespace(rgb=np.zeros((1, views, 4, 4, 3)), aux={"overflow": np.ones(1)})
    monkeypatch.setattr(scorer, "_rendered", lambda *arguments: fake)
    with pytest.raises(ValueError, match="left splats out"):
        scorer(batch)
