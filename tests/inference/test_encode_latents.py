"""Latents encoded beforehand train like latents encoded at every step, and no others are taken."""

import dataclasses
import json
import pickle
import shutil

import jax
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import __main__, main, settings
from lgs_jax.core.cameras import Cameras
from lgs_jax.data import latents, pipeline
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.report import DataError
from lgs_jax.inference import encode_latents, load
from lgs_jax.tasks import views
from lgs_jax.training import checkpoint, preemption

DRAWS = 3
CONFIG = {
    "task": "diffusion",
    "seed": 0,
    "data": tiny.CONFIG["data"] | {"view_draws": DRAWS},
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
    "sampler": {"eval_scenes": 0},
    "optimizer": {"learning_rate": 1e-3},
    "training": {
        "num_steps": 8,  # into the second epoch
        "batch_size": 2,
        "log_every": 1,
        "eval_scenes": 1,
        "eval_every": 0,
        "visualize": False,
        "tensorboard": False,
    },
}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage_1")
    tiny.save(folder, 5)
    return folder


def command(autoencoder, folder, *arguments):
    fixed = [f"--autoencoder={autoencoder}", f"--output={folder}", f"--draws={DRAWS}"]
    return __main__.main(["encode-latents", *fixed, "--batch-size=4", *arguments])


@pytest.fixture(scope="module")
def encoded(autoencoder, tmp_path_factory):
    """Ten scenes in three shards."""
    folder = tmp_path_factory.mktemp("latents") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LGS_JAX_CACHE", "off")
        patch.setattr(encode_latents, "describe", small_shards)
        assert command(autoencoder, folder) == 0
    return folder


_describe = encode_latents.describe


def small_shards(*arguments, **options):
    return dataclasses.replace(_describe(*arguments, **options), scenes_per_shard=4)


def run(folder, autoencoder, **changes):
    main.run(
        CONFIG | {"autoencoder": str(autoencoder)} | changes, str(folder), preemption.StopSignal()
    )
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    return losses, checkpoint.restore_params(folder)[1]


def test_training_on_shards_is_training_on_images(autoencoder, encoded, tmp_path, monkeypatch):
    monkeypatch.setenv("LGS_JAX_CACHE", "off")
    here, params = run(tmp_path / "images", autoencoder)
    before, others = run(tmp_path / "shards", autoencoder, latents=str(encoded))
    assert len(here) == len(before) == 8
    # The same arithmetic in programs that XLA fuses otherwise: some units in the last place a step,
    # and 8 steps of 1e-3 at most, which Adam's quotient of small gradients can pass on in part.
    np.testing.assert_allclose(before, here, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), others, params)
    assert len(set(here)) == 8


def test_what_lies_in_the_shards(autoencoder, encoded):
    """Every record is the encoder's answer to the pipeline's draw of its scene."""
    served = latents.EncodedLatents(encoded)
    assert len(served.manifest.shards) == 3
    saved = load.open_autoencoder(autoencoder)
    data = settings.build(pipeline.DataSettings, CONFIG["data"], "data")
    source = pipeline.make_source(data, "train")
    entries = [
        pipeline.draw_entry(source, data, i, k, cache=FrameCache(0))
        for i, k in ((0, 0), (3, 2), (4, 0), (9, 2))
    ]
    batch = pipeline.stack(entries)
    seen = views.from_batch(batch["context"])
    encode = jax.jit(saved.plain.encode)
    posterior = encode(seen.images, seen.cameras)
    pickled = pickle.loads(pickle.dumps(served))
    for number, entry in enumerate(entries):
        found = pickled.entry(int(entry["scene_index"]), int(entry["draw"]))
        for name in ("class_label", "scene_index", "draw", "weight"):
            assert found[name] == entry[name]
            assert found[name].dtype == entry[name].dtype
        for name in ("world_from_cam", "intrinsics"):
            np.testing.assert_array_equal(found["context"][name], entry["context"][name])
        # Float32 through a small network; means are of size 1.
        for name in ("mean", "log_var"):
            wanted = getattr(posterior, name)[number]
            np.testing.assert_allclose(found["latents"][name], wanted, atol=1e-4)
        mask = found["latents"]["known_mask"]
        alone = Cameras(
            seen.cameras.world_from_cam[number, mask], seen.cameras.intrinsics[number, mask]
        )
        known = saved.plain.encode(seen.images[number, mask][None], alone[None]).mean[0]
        np.testing.assert_allclose(found["latents"]["known"][mask], known, atol=1e-4)


def test_goes_on_after_an_interruption_and_repairs(autoencoder, encoded, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(encoded, folder)
    whole = latents.read_manifest(folder)
    stamps = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert command(autoencoder, folder) == 0
    assert "3 of 3 shards are there and whole" in capsys.readouterr().out
    assert latents.read_manifest(folder) == whole
    # Killed before the last shard was listed; the first was damaged afterwards.
    dataclasses.replace(whole, shards=whole.shards[:2]).write(folder)
    (folder / "shard_00002.npy").unlink()
    damaged = bytearray((folder / "shard_00000.npy").read_bytes())
    damaged[-1] ^= 1
    (folder / "shard_00000.npy").write_bytes(damaged)
    with pytest.raises(DataError, match="2 of 3 shards; run python -m lgs_jax encode-latents"):
        latents.EncodedLatents(folder)
    assert command(autoencoder, folder) == 0
    assert "1 of 3 shards are there and whole" in capsys.readouterr().out
    assert latents.read_manifest(folder) == whole  # checksums included: the same bytes
    assert (folder / "shard_00001.npy").stat().st_mtime_ns == stamps["shard_00001.npy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"view_draws": 2}}, r"data\.view_draws: 3 there, 2 here"),
        ({"data": {"view_draws": None}}, r"view_draws=None, .* holds 3 draws"),
        ({"data": {"gap_max": 2}}, r"data\.gap_max: None there, 2 here"),
        ({"data": {"num_scenes": 20}}, "num_scenes: 10 there, 20 here"),
        ({"diffusion": {"max_known": 1}}, "max_known: 2 there, 1 here"),
        ({"latents": "nowhere"}, "nowhere holds no encoded latents"),
        ({"latents": 3}, r"config\.latents=3 must be a folder"),
    ],
)
def test_other_latents_are_refused(autoencoder, encoded, changes, message):
    config = CONFIG | {"autoencoder": str(autoencoder), "latents": str(encoded)}
    for group, values in changes.items():
        config[group] = {**config.get(group, {}), **values} if isinstance(values, dict) else values
    data = settings.build(pipeline.DataSettings, config["data"], "data")
    source = pipeline.make_source(data, "train")
    with pytest.raises(ValueError, match=message):
        encode_latents.of_run(config, source, data)


def test_another_autoencoder_is_refused(encoded, tmp_path, monkeypatch, capsys):
    tiny.save(tmp_path / "later", 6)
    data = settings.build(pipeline.DataSettings, CONFIG["data"], "data")
    config = CONFIG | {"autoencoder": str(tmp_path / "later"), "latents": str(encoded)}
    with pytest.raises(settings.SettingsError, match="step: 5 there, 6 here"):
        encode_latents.of_run(config, pipeline.make_source(data, "train"), data)
    assert command(tmp_path / "later", encoded) == 1
    assert "holds other latents:\n  step: 5 there, 6 here" in capsys.readouterr().err
    params = tiny.make_params()
    changed = jax.tree.map(lambda x: x + np.float32(1e-3), params)
    assert encode_latents.parameter_hash(params) != encode_latents.parameter_hash(changed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draws=0"], "data.view_draws=0 must be a number >= 1"),
        (["--max-known=3"], "max_known=3 must be 0 to the 2 context views"),
        (["--data", "hieght=3"], "did you mean 'height'"),
        (["--data", "height=32"], "height=32, but the autoencoder's is 16"),
        (["--autoencoder=/nowhere"], "/nowhere"),
    ],
)
def test_refusals_of_the_command(autoencoder, tmp_path, capsys, arguments, message):
    assert command(autoencoder, tmp_path / "out", *arguments) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_that_are_missing_are_told_before_the_data_are_read(
    autoencoder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(pipeline, "make_source", lambda *_: pytest.fail("the data were read"))
    missing = f"--representation-weights={tmp_path / 'nosuch'}"
    assert command(autoencoder, tmp_path / "out", "--representation=alex", missing) == 1
    assert "nosuch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "view_draws=32"], "--draws=3 says; give --draws=32 alone"),
        (["--data", "root=/x", "--data-root=/y"], "--data root=/x and --data-root=/y say the same"),
        (["--data", "num_scenes"], "'num_scenes' must be KEY=VALUE"),
        (["--batch-size=0"], "--batch-size=0"),
    ],
)
def test_command_lines_that_make_no_sense(autoencoder, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        command(autoencoder, tmp_path / "out", *arguments)
    assert message in capsys.readouterr().err


def test_a_folder_of_something_else_and_latents_that_are_not_finite(
    autoencoder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "notes.txt").write_text("mine")
    assert command(autoencoder, tmp_path) == 1
    assert "is not empty (it holds 'notes.txt')" in capsys.readouterr().err

    def broken(plain, batch, *, max_known):
        values = {
            name: np.zeros((len(batch["draw"]), tiny.VIEWS, 4, 4, 2), np.float32)
            for name in ("mean", "log_var", "known")
        }
        values["log_var"][batch["scene_index"] == 7] = np.inf
        return values | {"known_mask": np.ones((len(batch["draw"]), tiny.VIEWS), bool)}

    monkeypatch.setattr(encode_latents, "_encode", broken)
    assert command(autoencoder, tmp_path / "new") == 1
    assert "scene mixed-0-000007: its latents (log_var) are not" in capsys.readouterr().err
