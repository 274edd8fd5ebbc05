"""Opening an autoencoder and keeping the statistics of its latents beside it."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import __main__ as commands
from lgs_jax import settings
from lgs_jax.data import pipeline
from lgs_jax.inference import load
from lgs_jax.tasks import views
from lgs_jax.training import checkpoint, optimizer, state

DATA = settings.build(pipeline.DataSettings, tiny.CONFIG["data"], "data")


@pytest.fixture(scope="module")
def source():
    return pipeline.make_source(DATA, "train")


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    """A workdir with checkpoints of two steps."""
    folder = tmp_path_factory.mktemp("autoencoder")
    first = state.create(
        jax.tree.map(np.zeros_like, tiny.make_params()),
        optimizer.make(optimizer.OptimizerSettings()),
    )
    first = jax.tree.map(jax.numpy.asarray, first)
    averaged = state.TrainState(**(vars(first) | {"ema": tiny.make_params()}))
    with checkpoint.Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, averaged, tiny.CONFIG, {"seconds": 1.0})
            checkpoints.wait()
    return folder


@pytest.fixture
def folder(saved_once, tmp_path):
    return shutil.copytree(saved_once, tmp_path / "run")


def test_opens_the_averaged_parameters_of_the_newest_checkpoint(folder):
    saved = load.open_autoencoder(folder)
    assert (saved.folder, saved.step) == (folder, 4)
    jax.tree.map(np.testing.assert_array_equal, saved.plain.params, tiny.make_params())
    one = load.open_autoencoder(folder / "checkpoints" / "step_00000002")
    assert (one.folder, one.step) == (folder, 2)
    assert saved.data_settings() == DATA


def test_statistics_are_those_of_latents_of_every_training_scene(folder, source):
    saved, said = load.open_autoencoder(folder), []
    stats = load.ensure_stats(saved, source, DATA, num_scenes=9, say=said.append)
    assert (stats.step, stats.num_scenes) == (4, 9)
    assert any("over 9 training scenes" in text for text in said)
    assert load.read_stats(folder) == stats

    # By the definition, from the scenes one at a time.
    encode = jax.jit(lambda frozen, x: frozen.encode(x.images, x.cameras))
    means, variances, seen = [], [], []
    batches = pipeline.train_batches(source, DATA, seed=0, batch_size=1)
    for _ in range(9):
        batch = next(batches)
        posterior = encode(saved.plain, views.from_batch(batch["context"]))
        means.append(posterior.mean.reshape(-1, 2))
        variances.append(np.exp(posterior.log_var).reshape(-1, 2))
        seen.append(int(batch["scene_index"][0]))
    batches.close()
    assert sorted(seen) == sorted(set(seen))
    means, variances = np.concatenate(means), np.concatenate(variances)
    # Batches of another size: float32 rounding of the encoder.
    np.testing.assert_allclose(stats.mean, means.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats.std, np.sqrt(means.var(0) + variances.mean(0)), rtol=1e-4)


def test_kept_statistics_are_used_and_stale_ones_computed_again(folder, source):
    saved, said = load.open_autoencoder(folder), []
    path = folder / load.STATS_FILE
    path.write_text(json.dumps(tiny.STATS.to_json() | {"step": 4}))
    kept = load.ensure_stats(saved, source, DATA, say=said.append)
    assert kept.mean == tiny.STATS.mean
    assert len(said) == 1
    path.write_text(json.dumps(tiny.STATS.to_json()))  # of step 3
    fresh = load.ensure_stats(saved, source, DATA, num_scenes=1, say=said.append)
    assert fresh.step == 4
    assert fresh.mean != tiny.STATS.mean
    assert f"{path} is of step 3, the autoencoder of step 4" in said
    assert load.read_stats(folder) == fresh
    path.write_text("{")
    with pytest.raises(settings.SettingsError, match=r"latent_stats\.json is no JSON"):
        load.read_stats(folder)
    path.unlink()
    assert load.read_stats(folder) is None


def test_command(folder, capsys):
    arguments = ["latent-stats", f"--autoencoder={folder}", "--num-scenes=1"]
    assert commands.main(arguments) == 0
    shown = capsys.readouterr().out
    stats = load.read_stats(folder)
    assert f"{stats.mean[1]:.4f}" in shown
    assert commands.main(["latent-stats", f"--autoencoder={folder / 'nothing'}"]) == 1
    assert "error: no checkpoint in" in capsys.readouterr().err
    for number in (0, -3):
        with pytest.raises(SystemExit, match="2"):
            commands.main([*arguments[:2], f"--num-scenes={number}"])
        assert f"--num-scenes={number} must be at least 1" in capsys.readouterr().err


def test_an_autoencoder_that_was_stopped_is_named(folder, source, capsys, monkeypatch):
    saved = load.open_autoencoder(folder)
    assert saved.unfinished is None
    stopped = dataclasses.replace(saved, config=saved.config | {"training": {"num_steps": 900}})
    monkeypatch.setattr(load, "open_autoencoder", lambda name: stopped)
    config = {"task": "diffusion", "autoencoder": str(folder), "model": {}}
    load.frozen_parts(config, source, DATA)
    assert f"{folder} has been trained for 4 of 900 steps" in capsys.readouterr().out


def test_parts_of_a_run(folder, source, monkeypatch):
    assert load.frozen_parts({"task": "vae"}, source, DATA) == ((), {})
    (folder / load.STATS_FILE).write_text(json.dumps(tiny.STATS.to_json() | {"step": 4}))
    config = {"task": "diffusion", "autoencoder": str(folder), "model": {}}
    (frozen,), record = load.frozen_parts(config, source, DATA)
    np.testing.assert_array_equal(frozen.std, np.float32(tiny.STATS.std))
    assert record["autoencoder"] == str(folder)
    assert record["latent_stats"]["step"] == 4
    with monkeypatch.context() as patched:  # one in the object store stays there
        saved = load.open_autoencoder(folder)
        patched.setattr(load, "open_autoencoder", lambda name: saved)
        there = config | {"autoencoder": "gs://bucket/runs/vae"}
        assert load.frozen_parts(there, source, DATA)[1]["autoencoder"] == "gs://bucket/runs/vae"
    for value in ("", None):
        with pytest.raises(settings.SettingsError, match=r"give --config\.autoencoder=WORKDIR"):
            load.frozen_parts(config | {"autoencoder": value}, source, DATA)
    other = settings.build(
        pipeline.DataSettings, tiny.CONFIG["data"] | {"reference": "middle"}, "data"
    )
    with pytest.raises(settings.SettingsError, match="'middle', but the autoencoder's is 'first'"):
        load.frozen_parts(config, source, other)
    with pytest.raises(
        settings.SettingsError, match=r"num_classes=3, but the data have \d+ classes"
    ):
        load.frozen_parts(config | {"model": {"num_classes": 3}}, source, DATA)
