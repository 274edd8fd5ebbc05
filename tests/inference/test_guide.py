"""A model with a weaker denoiser to keep away from: packed, loaded, sampled, unpacked, timed."""

import functools

import jax
import numpy as np
import pytest
import safetensors
import tiny_autoencoder as tiny

import lgs_jax
from lgs_jax import __main__ as commands
from lgs_jax import settings, tasks
from lgs_jax.inference import model_file, sampling_speed
from lgs_jax.training import checkpoint

MODEL = tiny.DENOISER


def write_run(folder, seed=0, model=(), **groups):
    """A workdir of a diffusion run with invented parameters."""
    config = {
        "task": "diffusion",
        "autoencoder": str(folder.parent / "vae"),
        "data": tiny.CONFIG["data"],
        "model": MODEL | dict(model),
        "latent_stats": tiny.STATS.to_json(),
        **groups,
    }
    task = tasks.make_task("diffusion", config, tiny.make())
    params = tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))
    params = jax.tree.map(lambda x: x * (1 + 0.5 * seed), params)
    checkpoint.write_params(folder / "checkpoints", 5 + seed, config, params)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tiny.save(folder / "vae", 3)
    write_run(folder / "diffusion")
    write_run(folder / "weak", 1, {"widths": (4,)})
    return folder


@pytest.fixture(scope="module")
def file(runs):
    path = runs / "guided.safetensors"
    arguments = [f"--model={runs / 'diffusion'}", f"--output={path}", "--paths=1", "--steps=2"]
    arguments += [f"--guide={runs / 'weak'}", "--autoguidance=2", "--autoguidance-known=1"]
    assert commands.main(["pack-model", *arguments]) == 0
    return path


def means(model, **arguments):
    return np.asarray(model.sample(jax.random.key(1), model.paths[0], **arguments).means)


def test_samples_keep_away_from_the_guide(file, runs):
    model = lgs_jax.load(file)
    assert model.guide.module.widths == (4,)
    assert model.task.sampler.autoguidance_scales == (2.0, 1.0)
    plain = model_file.save(runs / "plain.safetensors", runs / "diffusion", num_paths=1)
    without = means(lgs_jax.load(plain), steps=2)
    np.testing.assert_allclose(means(model, autoguidance=1), without, atol=1e-6)
    np.testing.assert_array_equal(means(model), means(model, autoguidance=2.0))
    assert np.abs(means(model) - without).max() > 1e-3
    # Scale 0 is the guide alone.
    weak = model_file.save(runs / "weak.safetensors", runs / "weak", num_paths=1)
    alone = means(lgs_jax.load(weak), steps=2)
    np.testing.assert_allclose(means(model, autoguidance=0), alone, rtol=1e-4, atol=1e-4)


def test_another_scale_does_not_compile_again(file):
    model = lgs_jax.load(file)
    means(model)
    compiled = model._sample._cache_size()
    means(model, autoguidance=1.5)
    assert model._sample._cache_size() == compiled


def test_views_that_are_known_have_a_scale_of_their_own(file):
    model = lgs_jax.load(file)
    images = np.full((1, *model.image_size, 3), 0.5, np.float32)
    cameras = model.paths[0]
    default, none, two = (
        np.asarray(
            model.sample(
                jax.random.key(0),
                cameras[1:],
                images=images,
                context_cameras=cameras[:1],
                **arguments,
            ).means
        )
        for arguments in ({}, {"autoguidance": 1}, {"autoguidance": 2})
    )
    np.testing.assert_array_equal(default, none)
    assert np.abs(default - two).max() > 1e-4


def test_unpacked_it_can_be_packed_again(file, tmp_path, capsys):
    assert commands.main(["unpack-model", f"--model={file}", f"--output={tmp_path / 'runs'}"]) == 0
    assert f"guide:       {tmp_path / 'runs' / 'guide'}" in capsys.readouterr().out
    run, guide = tmp_path / "runs" / "diffusion", tmp_path / "runs" / "guide"
    assert [checkpoint.locate(each)[1] for each in (run, guide)] == [5, 6]
    unguided = lgs_jax.load(run)  # a run has no guide
    assert unguided.guide is None
    assert unguided.task.sampler.autoguidance_scales == (1.0, 1.0)
    assert unguided.task.sampler.steps == 2
    scales = {"autoguidance": 2.0, "autoguidance_known": 1.0}
    again = model_file.save(
        tmp_path / "again.safetensors", run, guide=guide, num_paths=1, data_root="", sampler=scales
    )
    np.testing.assert_array_equal(means(lgs_jax.load(again)), means(lgs_jax.load(file)))


def test_what_cannot_guide_is_refused(runs, tmp_path):
    path, run = tmp_path / "a.safetensors", runs / "diffusion"
    scale = {"autoguidance": 2.0}
    with pytest.raises(settings.SettingsError, match="of no use without the other"):
        model_file.save(path, run, guide=runs / "weak", num_paths=1)
    with pytest.raises(settings.SettingsError, match="of no use without the other"):
        model_file.save(path, run, sampler=scale, num_paths=1)
    with pytest.raises(settings.SettingsError, match=r"guide .* is a run of the task 'vae'"):
        model_file.save(path, run, guide=runs / "vae", num_paths=1, sampler=scale)
    tiny.save(tmp_path / "vae", 3)
    other = write_run(tmp_path / "x", 1, {"num_classes": 3}, diffusion={"kind": "eps"})
    message = r"(?s)config\.diffusion\.kind: eps there, v .*config\.model\.num_classes: 3 there, 0"
    with pytest.raises(settings.SettingsError, match=message):
        model_file.save(path, run, guide=other, num_paths=1, sampler=scale)
    stats = tiny.STATS.to_json() | {"num_scenes": 77}
    other = write_run(tmp_path / "y", 1, latent_stats=stats)
    with pytest.raises(settings.SettingsError, match="latent_stats, recorded of other latents"):
        model_file.save(path, run, guide=other, num_paths=1, sampler=scale)
    other = write_run(tmp_path / "w", 1, diffusion={"unconditional": 0.0})
    with pytest.raises(settings.SettingsError, match="unconditional > 0: False there, True of"):
        model_file.save(path, run, guide=other, num_paths=1, sampler=scale)
    with pytest.raises(settings.SettingsError, match=r"truncation=0\.5 is of representations"):
        model_file.save(path, run, num_paths=1, sampler={"truncation": 0.5})
    assert not path.exists()


def test_without_a_guide_no_scale_is_taken(runs, capsys, tmp_path):
    model = lgs_jax.load(runs / "diffusion")
    cameras = lgs_jax.load(
        model_file.save(tmp_path / "p.safetensors", runs / "diffusion", num_paths=1)
    ).paths[0]
    with pytest.raises(ValueError, match=r"autoguidance=2 needs a weaker denoiser.*--guide"):
        model.sample(jax.random.key(0), cameras, autoguidance=2)
    with pytest.raises(ValueError, match="autoguidance=-1 must be a number"):
        model.sample(jax.random.key(0), cameras, autoguidance=-1)
    with pytest.raises(settings.SettingsError, match=r"config\.sampler\.autoguidance=2 .*--guide"):
        write_run(tmp_path / "z", sampler={"autoguidance": 2.0})


def test_what_the_guide_costs_is_timed(file):
    model = lgs_jax.load(file)
    contender = sampling_speed.latent(model.task, model.frozen, model.params, model.guide)
    inputs = sampling_speed.make_inputs(contender, model.paths[0], 1)
    stages = sampling_speed.compile_stages(contender, inputs)
    assert stages.keys() == {"guide's step", "denoising step", "decode", "render"}
    assert 0 < stages["guide's step"].flops < stages["denoising step"].flops
    assert contender.parts(2) == {
        "guide's step": 3,
        "denoising step": 3,
        "decode": 1,
        "render": 1,
    }
    scene, _ = sampling_speed.prepare(contender.whole(2), contender.constants, inputs).output
    np.testing.assert_allclose(scene.means[0], _drawn(model, inputs), rtol=1e-4, atol=1e-4)


def _drawn(model, inputs):
    sampled = model.task.sample(model.params, inputs.condition, inputs.keys, guide=model.guide)
    return model.frozen.decode(sampled, inputs.condition.cameras).means[0]


def test_evaluations_draw_with_the_guide(file, tmp_path, capsys):
    def evaluate(*more):
        arguments = ["evaluate", f"--model={file}", "--protocol=unconditional", "--num-scenes=1"]
        arguments += [f"--output={tmp_path / str(len(more))}"]
        return commands.main([*arguments, "--batch-size=1", "--gallery=0", *more])

    assert evaluate() == 0
    assert "2 steps, guidance 1.0, autoguidance 2.0." in capsys.readouterr().out
    assert evaluate("--autoguidance=1.5") == 0
    assert "autoguidance 1.5" in capsys.readouterr().out
    assert evaluate("--autoguidance=1", "--seed=0") == 0
    assert "autoguidance" not in capsys.readouterr().out
    assert evaluate("--autoguidance=2", "--seed=0", "--truncation=0.5") == 1
    assert "of a model that keeps representations" in capsys.readouterr().err


def test_a_file_keeps_what_training_pictures_show(runs, tmp_path, capsys):
    """The representations are stored as an array; a guide has the same."""
    bank = {"representations": [[1.0, 0.5, -2.0], [0.25, 0.0, 0.125]]}
    told = {"representation_size": 3}
    write = functools.partial(write_run, model=told, **bank)
    run, weak = write(runs / "told"), write(runs / "told_weak", 1)
    path = tmp_path / "told.safetensors"
    sampler = {"autoguidance": 2.0, "truncation": 0.5, "steps": 2}
    model_file.save(path, run, guide=weak, num_paths=1, sampler=sampler)
    model = lgs_jax.load(path)
    np.testing.assert_array_equal(model.task.representations, bank["representations"])
    with safetensors.safe_open(path, "np") as opened:
        assert opened.get_tensor("representations").dtype == np.float16
        assert "representations" not in opened.metadata()["lgs_jax"]
    model_file.unpack(path, tmp_path / "runs")
    for name in ("diffusion", "guide"):
        task = lgs_jax.load(tmp_path / "runs" / name).task
        np.testing.assert_array_equal(task.representations, bank["representations"])
    arguments = [f"--model={path}", "--num-scenes=1", "--batch-size=1", "--gallery=0"]
    arguments += ["--truncation=1", f"--output={tmp_path / 'scores'}"]
    assert commands.main(["evaluate", "--protocol=unconditional", *arguments]) == 0
    assert "autoguidance 2.0." in capsys.readouterr().out  # and no word of truncation
    assert commands.main(["evaluate", "--protocol=single_image", *arguments]) == 1
    assert "an effect on samples from nothing alone" in capsys.readouterr().err
    other = write_run(runs / "others", 1, told, representations=bank["representations"][:1])
    with pytest.raises(settings.SettingsError, match="representations, recorded of other latents"):
        model_file.save(tmp_path / "b.safetensors", run, guide=other, num_paths=1, sampler=sampler)
