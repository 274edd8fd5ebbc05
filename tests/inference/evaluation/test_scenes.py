"""Which scenes and views are scored: held-out ones, those of training, neighbours of a capture."""

import json

import jax
import numpy as np
import pytest
import tiny_autoencoder as tiny
from PIL import Image

from lgs_jax import __main__, settings, tasks
from lgs_jax.data import neighbours, pipeline
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.settings import DataSettings
from lgs_jax.data.sources.procedural import ProceduralSource
from lgs_jax.inference import scene_model
from lgs_jax.inference.evaluation import protocols, records, run, scenes
from lgs_jax.metrics import image

MODEL = tiny.DENOISER
FRAMES = 9


def make_model(**data):
    """A diffusion model that was trained on such data."""
    trained_on = tiny.CONFIG["data"] | data
    config = {"task": "diffusion", "data": trained_on, "model": MODEL, "sampler": {"steps": 2}}
    frozen = tiny.make()
    task = tasks.make_task("diffusion", config, frozen)
    params = tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))
    trained_on = settings.build(DataSettings, trained_on, "data")
    return scene_model.SceneModel(frozen, task, params, data=trained_on)


def evaluate(folder, model, *, changes=None, **options):
    fixed = {"protocol": "single_image", "num_scenes": 1, "batch_size": 1, "gallery": 1}
    options = run.Options(**fixed | options)
    return run.evaluate(folder, model, "tiny", options, changes=changes, say=lambda text: None)


@pytest.fixture
def capture(tmp_path):
    """A transforms.json of one walk around."""
    folder = tmp_path / "captures" / "vase"
    folder.mkdir(parents=True)
    made = ProceduralSource(num_scenes=1, num_frames=FRAMES, height=24, width=32)[0]
    frames = []
    for i, pixels in enumerate(made.images):
        Image.fromarray(pixels).save(folder / f"{i}.png")
        matrix = made.world_from_cam[i] @ np.diag([1.0, -1.0, -1.0, 1.0])
        frames.append({"file_path": f"{i}.png", "transform_matrix": matrix.tolist()})
    camera = dict(zip(("fl_x", "fl_y", "cx", "cy"), made.intrinsics[0].tolist()))
    (folder / "transforms.json").write_text(json.dumps(camera | {"frames": frames}))
    return folder.parent, made


def test_batches_are_those_of_the_evaluation_of_a_training():
    data = settings.build(DataSettings, tiny.CONFIG["data"] | {"num_scenes": 50}, "data")
    source = pipeline.make_source(data, "eval")
    ours = list(scenes.Scenes(source, data).batches(2, 5))
    wanted = list(pipeline.eval_batches(source, data, batch_size=2, num_scenes=5))
    assert len(ours) == len(wanted) == 3
    for batch, other in zip(ours, wanted, strict=True):
        jax.tree.map(np.testing.assert_array_equal, batch, other)
    assert ours[-1]["weight"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("context", "count", "chosen"),
    [
        ([2, 6], 1, [4]),
        ([2, 6], 2, [3, 4]),
        ([3, 4], 2, [2, 5]),  # there is none between
        ([0, 2], 2, [1, 3]),
        ([0, 2, 4], 2, [1, 3]),
        ([5], 1, [4]),
    ],
)
def test_others_lie_half_way_between_encoded_frames(context, count, chosen):
    assert scenes.between(np.array(context), FRAMES, count).tolist() == chosen


def test_scenes_of_training_in_the_views_of_their_first_draw(tmp_path):
    model = make_model(view_draws=2, num_frames=9)
    fixed = {"protocol": "reconstruction", "split": "train"}
    results = evaluate(tmp_path / "train", model, **fixed, num_scenes=2)
    assert results["request"]["split"] == "train"
    assert results["views"] == (
        "2 encoded and 1 other views of each scene, those of the first draw of training"
    )
    source = pipeline.make_source(model.data, "train")
    for record in results["scenes"]:
        entry = pipeline.draw_entry(source, model.data, record["index"], 0, cache=FrameCache(0))
        seen = records.scene_hash(pipeline.stack([entry]), 0, record["key"])
        assert record["sha256"] == seen
    table = (tmp_path / "train" / "results.md").read_text()
    assert table.startswith("# reconstruction of the training set: scenes from")
    assert "**These are scenes that the model was trained on" in table
    assert "held-out views" not in table
    assert "| views that are not encoded | one sample |" in table
    held_out = evaluate(tmp_path / "eval", model, protocol="reconstruction")
    assert "training" not in (tmp_path / "eval" / "results.md").read_text()
    assert held_out["data_sha256"] != results["data_sha256"]
    with pytest.raises(ValueError, match=r"target_views=2, but the draws of training .* have 1"):
        evaluate(tmp_path / "x", model, **fixed, target_views=2)


def test_scenes_of_training_without_draws_have_the_views_of_the_evaluation(tmp_path):
    model = make_model()
    results = evaluate(tmp_path, model, split="train", protocol="reconstruction")
    data = protocols.data_settings("reconstruction", model, {})
    source = pipeline.make_source(data, "train")
    (batch,) = pipeline.eval_batches(source, data, batch_size=1, num_scenes=1)
    (record,) = results["scenes"]
    assert record["sha256"] == records.scene_hash(batch, 0, record["key"])
    with pytest.raises(ValueError, match="evaluation: split is 'train' there and 'eval' here"):
        evaluate(tmp_path, model, protocol="reconstruction")


def test_the_given_photograph_is_scored_in_the_place_of_other_views(tmp_path):
    model = make_model()
    results = evaluate(tmp_path, model)
    data = protocols.data_settings("single_image", model, {})
    source = pipeline.make_source(data, "eval")
    (batch,) = pipeline.eval_batches(source, data, batch_size=1, num_scenes=1)
    context, target = (np.float32(batch[g]["images"][0]) / 255 for g in ("context", "target"))
    given, figures = context[:1], results["scores"]["psnr"]
    assert "photograph" not in figures["all"] | figures["given"]
    for group, truth in (("context", context[1:]), ("target", target)):
        wanted = float(np.mean(image.psnr(np.broadcast_to(given, truth.shape), truth)))
        assert figures[group]["photograph"]["mean"] == pytest.approx(wanted, abs=1e-3)
    table = (tmp_path / "results.md").read_text()
    assert "| held-out views | nearest given photograph instead |" in table


def test_neighbours_of_a_capture(capture, tmp_path, monkeypatch, capsys):
    root, made = capture
    model = make_model(gap_min=6, num_frames=9)  # of which captures have too few
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: model)
    monkeypatch.chdir(tmp_path)
    fixed = ["evaluate", "--model=x", "--protocol=reconstruction", f"--transforms={root}"]
    assert __main__.main([*fixed, "--views=neighbours"]) == 0
    printed = capsys.readouterr().out
    folder = tmp_path / "evaluation_reconstruction"
    (record,) = json.loads((folder / "results.json").read_text())["scenes"]
    context = neighbours.choose(made.world_from_cam, tiny.VIEWS)
    angle = neighbours.angles_deg(made.world_from_cam[context])[0, 1]
    assert f"encoded views {angle:.0f} degrees apart" in printed
    assert "2 held-out views of each scene, neighbouring photographs" in printed
    request = json.loads((folder / "request.json").read_text())
    assert request["degrees"] == list(neighbours.USUAL_DEG)
    changes = {"source": "transforms", "root": str(root), "holdout": ("*",), "num_scenes": None}
    data = protocols.data_settings("reconstruction", model, changes | scenes.ANY_GAP)
    chosen = scenes.Scenes(pipeline.make_source(data, "eval"), data, neighbours.USUAL_DEG)
    assert chosen.frames(0)[0].tolist() == context.tolist()
    batch = pipeline.stack([chosen.entry(0)])
    assert record["sha256"] == records.scene_hash(batch, 0, "vase")
    assert __main__.main([*fixed, "--views=settings"]) == 1
    assert "holds another evaluation" in capsys.readouterr().err


def test_the_folder_says_that_it_is_of_the_training_set(tmp_path, monkeypatch, capsys):
    model = make_model()
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: model)
    monkeypatch.chdir(tmp_path)
    fixed = ["evaluate", "--model=x", "--protocol=reconstruction", "--num-scenes=1"]
    assert __main__.main([*fixed, "--split=train", "--gallery=0"]) == 0
    assert "These are scenes that the model was trained on" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation_reconstruction_train"]


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"split": "test"}, {}, "split='test' must be one of 'train', 'eval'"),
        ({"views": "near"}, {}, "views='near' must be one of 'settings', 'neighbours'"),
        ({"views": "neighbours"}, {}, "views='neighbours' is for captures"),
        ({"split": "train"}, {"source": "transforms"}, "captures, on which the model was not"),
        ({"split": "train"}, {"view_index": "v.json"}, "a view_index, which is for evaluation"),
        (
            {"split": "train", "protocol": "unconditional", "nearest_training": 3},
            {},
            "nearest_training, which compares new scenes",
        ),
        ({"split": "train", "num_scenes": 99}, {}, "but the data have for training 10 scenes"),
    ],
)
def test_refusals(tmp_path, options, changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path / "x", make_model(), changes=changes, **options)
    assert not (tmp_path / "x").exists()


def test_scenes_of_a_mixture_are_counted_and_may_be_left_out(tmp_path, monkeypatch, capsys):
    mixed = make_model(num_scenes=40, mix=({"kind": "objects", "num_scenes": 60},))
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: mixed)

    def score(name, *more):
        fixed = [f"--output={tmp_path / name}", "--protocol=reconstruction", "--gallery=0"]
        status = __main__.main(["evaluate", "--model=x", *fixed, *more])
        return status, capsys.readouterr()

    assert score("all")[0] == 0
    told = "10 scenes (a mixture, 4 of procedural mixed and 6 of procedural objects), 1 sample"
    assert told in (tmp_path / "all/results.md").read_text()
    assert score("own", "--no-mix")[0] == 0
    assert "x, 4 scenes, 1 sample" in (tmp_path / "own/results.md").read_text()
    keys = []
    for name in ("all", "own"):
        results = json.loads((tmp_path / name / "results.json").read_text())
        keys.append({each["key"] for each in results["scenes"]})
    assert {key.removeprefix("0/") for key in keys[0]} >= keys[1]
    status, printed = score("capture", "--no-mix", "--transforms=x")
    assert (status, "--no-mix has no effect on captures" in printed.err) == (1, True)
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: make_model())
    status, printed = score("none", "--no-mix")
    assert (status, "the model's data have no mix" in printed.err) == (1, True)
