"""The benchmark of sampling: what it times is what it says, and only equal models are compared."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import __main__, settings, tasks
from lgs_jax.cli import benchmark_sampling
from lgs_jax.inference import sampling_speed

UNET = {
    "embedding_size": 8,
    "widths": (8,),
    "blocks_per_level": 1,
    "middle_blocks": 0,
    "attention_levels": (),
    "num_heads": 1,
}
HEAD = {"near": 1.0, "far": 8.0}


def make_tasks(frozen, **pixel_model):
    shared = {"data": tiny.CONFIG["data"], "sampler": {"name": "ddim"}}
    latent = {"latent_channels": 2, "compression": 4, **UNET}
    pixel = {"patch_size": 4, "scene_head": HEAD, **UNET, **pixel_model}
    return (
        tasks.make_task("diffusion", {"task": "diffusion", "model": latent, **shared}, frozen),
        tasks.make_task("pixel_diffusion", {"task": "pixel_diffusion", "model": pixel, **shared}),
    )


@pytest.fixture(scope="module")
def parts():
    """Both tasks with their parameters, and the autoencoder."""
    frozen = tiny.make()
    made = make_tasks(frozen)
    return frozen, *[(t, tiny.invent(jax.eval_shape(t.init, jax.random.key(0)))) for t in made]


def test_the_benchmark_prints_and_keeps_all_of_its_numbers(parts, monkeypatch, capsys, tmp_path):
    frozen, (latent_task, latent_params), (pixel_task, pixel_params) = parts
    contenders = [
        sampling_speed.latent(latent_task, frozen, latent_params),
        sampling_speed.pixel(pixel_task, pixel_params),
    ]
    cameras = tiny.make_views(1)[1][0]
    monkeypatch.setattr(
        benchmark_sampling, "make_contenders", lambda options: (contenders, cameras, ["tiny"])
    )
    file = tmp_path / "numbers.json"
    arguments = f"benchmark sampling --steps 2 --batches 1 --repeats 2 --json {file}"
    assert __main__.main(arguments.split()) == 0
    shown = capsys.readouterr().out
    assert "best batch" in shown
    result = json.loads(file.read_text())
    stages = {(row["method"], row["stage"]): row for row in result["stages"]}
    assert len(stages) == 6
    assert all(row["median_s"] > 0 and row["flops"] > 0 for row in stages.values())
    latent, pixel = result["whole"]
    assert (latent["ratio"], latent["steps"], latent["batch"]) == (1.0, 2, 1)
    assert pixel["ratio"] == pytest.approx(pixel["later_s"] / latent["later_s"])
    assert pixel["first_s"] > pixel["later_s"]
    # Two steps and the prediction at the end, then one decoding and one rendering.
    each = [stages["latent", name]["flops"] for name in ("denoising step", "decode", "render")]
    assert latent["flops_per_scene"] == pytest.approx(3 * each[0] + each[1] + each[2])
    assert latent["scenes_per_s"] * latent["per_scene_s"] == pytest.approx(1.0)


def test_whole_samples_are_those_of_the_task(parts):
    _, _, (task, params) = parts
    contender = sampling_speed.pixel(task, params)
    inputs = sampling_speed.make_inputs(contender, tiny.make_views(1)[1][0], 1)
    scene, images = jax.jit(contender.whole(2))(params, inputs)
    sampler = dataclasses.replace(task.sampler, steps=2)
    wanted = jax.jit(lambda *given: task.sample(*given, sampler))(
        params, inputs.condition, inputs.keys
    )
    # One program or two: float32 roundings over some steps.
    np.testing.assert_allclose(images, wanted, atol=1e-3)
    assert scene.num_gaussians == tiny.VIEWS * tiny.SIZE**2
    assert not inputs.condition.known_mask.any()


@pytest.mark.parametrize("change", [{"widths": (16,)}, {"blocks_per_level": 2}])
def test_unequal_models_are_not_compared(parts, change):
    (name,) = change
    with pytest.raises(settings.SettingsError, match=f"these differ:\n  {name}: "):
        sampling_speed.check_equal(*make_tasks(parts[0], **change))


def test_sizes_of_the_configurations_can_be_changed():
    options = benchmark_sampling._parser().parse_args(
        ["--image-size", "32", "--views", "3", "--widths", "8", "16", "--variant=paper"]
    )
    for name in ("vae", "diffusion", "pixel_diffusion"):
        config = benchmark_sampling._config(name, options)
        data = config["data"]
        assert (data["height"], data["width"], data["context_views"]) == (32, 32, 3)
        assert (config["model"]["widths"] == (8, 16)) == (name != "vae")


def test_there_is_a_rival_for_each_kind_of_scene(monkeypatch):
    monkeypatch.setattr(benchmark_sampling.jax, "jit", lambda f: lambda key: jax.eval_shape(f, key))
    options = benchmark_sampling._parser().parse_args(
        [
            "--image-size",
            "16",
            "--views",
            "2",
            "--widths",
            "8",
            "8",
            "--scenes",
            "gaussians",
            "voxels",
        ]
    )
    rivals = benchmark_sampling._random_pixel(options)
    names = [benchmark_sampling._name(task) for task, _ in rivals]
    assert names == ["pixel, patch 4", "pixel, voxels, patch 4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--configs=/nowhere"], "there is no /nowhere/vae.py; give --configs"),
        (["--latent=/nowhere"], "no checkpoint in /nowhere"),
    ],
)
def test_refusals(arguments, message, capsys):
    assert __main__.main(["benchmark", "sampling", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "must be at least 1"),
        (["--alone", "--scenes", "voxels"], "make rivals; leave out --alone"),
        (["--pixel=a", "--scenes", "voxels"], "--scenes and --patch-sizes have no effect"),
    ],
)
def test_command_lines_that_make_no_sense(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        __main__.main(["benchmark", "sampling", *arguments])
    assert message in capsys.readouterr().err


def test_a_model_can_be_timed_alone():
    options = benchmark_sampling._parser().parse_args(["--latent=objects-small", "--alone"])
    contenders, cameras, header = benchmark_sampling.make_contenders(options)
    assert [contender.name for contender in contenders] == ["latent"]
    assert cameras.batch_shape == (2,)
    assert header[-1] == "parameters: objects-small"
