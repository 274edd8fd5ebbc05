"""Representations of pictures travel with their latents, and a run is told them.

The network that looks is invented here; tests/vision/test_representation.py has a real one.
"""

import jax
import numpy as np
import pytest
import tiny_autoencoder as tiny

import lgs_jax
from lgs_jax import __main__, main, settings
from lgs_jax.data import latents, pipeline
from lgs_jax.data.cache import FrameCache
from lgs_jax.inference import encode_latents
from lgs_jax.tasks import views
from lgs_jax.training import checkpoint, preemption
from lgs_jax.vision import representation

DRAWS, SCENES = 2, 80
CONFIG = {
    "task": "diffusion",
    "seed": 0,
    "data": tiny.CONFIG["data"] | {"view_draws": DRAWS, "num_scenes": SCENES},
    "model": {
        "latent_channels": 2,
        "compression": 4,
        "representation_size": representation.SIZE,
        "embedding_size": 8,
        "widths": (8,),
        "blocks_per_level": 1,
        "middle_blocks": 0,
        "attention_levels": (),
        "num_heads": 1,
    },
    "sampler": {"eval_scenes": 0},
    "training": {
        "num_steps": 2,
        "batch_size": 2,
        "eval_scenes": 1,
        "eval_every": 0,
        "visualize": False,
        "tensorboard": False,
    },
}


class Looker:
    """Brightness in 8 x 8 cells, and random sums of the pixels."""

    name = "invented 1"

    def __call__(self, images):
        pixels = images.reshape(len(images), -1)
        sums = pixels @ jax.random.normal(jax.random.key(0), (pixels.shape[1], 50))
        cells = images.mean(axis=-1).reshape(len(images), 8, 2, 8, 2).mean(axis=(2, 4))
        return {"layout": cells.reshape(len(images), -1), "content": sums}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage_1")
    tiny.save(folder, 5)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setenv("LGS_JAX_CACHE", "off")
    monkeypatch.setattr(encode_latents, "LOOKED_AT", 256)
    monkeypatch.setattr(representation, "open_looker", lambda *_: Looker())


def encode(autoencoder, folder, *arguments):
    fixed = [f"--autoencoder={autoencoder}", f"--output={folder}", f"--draws={DRAWS}"]
    fixed += ["--batch-size=4", "--data", f"num_scenes={SCENES}"]
    return __main__.main(["encode-latents", *fixed, *arguments])


@pytest.fixture
def encoded(autoencoder, tmp_path, capsys):
    assert encode(autoencoder, tmp_path / "latents", "--representation=alex") == 0
    assert f"--config.model.representation_size={representation.SIZE}" in capsys.readouterr().out
    return tmp_path / "latents"


def make_source(config):
    data = settings.build(pipeline.DataSettings, config["data"], "data")
    return pipeline.make_source(data, "train"), data


def test_records_hold_what_the_looker_saw_of_the_reference_view(autoencoder, encoded):
    served = latents.EncodedLatents(encoded)
    assert served.manifest.representation == "invented 1"
    source, data = make_source(CONFIG)
    project = representation.load_projection(encoded / encode_latents.PROJECTION)
    found = []
    for scene in range(0, SCENES, 9):
        entry = pipeline.draw_entry(source, data, scene, 1, cache=FrameCache(0))
        context = views.from_batch(pipeline.stack([entry])["context"])
        found.append(served.entry(scene, 1)["representation"])
        expected = project(Looker()(context.images[:, 0]))[0]
        # Whitening enlarges the rounding of the least components.
        np.testing.assert_allclose(found[-1], expected, atol=0.02)
    assert 0.3 < np.std(found) < 2


def test_an_interrupted_folder_keeps_its_whitening(autoencoder, encoded, capsys):
    (shard,) = encoded.glob("shard_*.npy")
    before = shard.read_bytes()
    shard.unlink()
    assert encode(autoencoder, encoded, "--representation=alex") == 0
    assert "pictures looked at" not in capsys.readouterr().out
    assert shard.read_bytes() == before
    assert encode(autoencoder, encoded) == 1
    assert "representation: 'invented 1' there, '' here" in capsys.readouterr().err


def test_a_run_is_told_them_and_needs_them(autoencoder, encoded, tmp_path):
    config = CONFIG | {"autoencoder": str(autoencoder), "latents": str(encoded)}
    main.run(config, str(tmp_path / "run"), preemption.StopSignal())
    recorded, _ = checkpoint.restore_params(tmp_path / "run")
    bank = np.float32(recorded["representations"])
    assert bank.shape == (encode_latents.Pictures().count, representation.SIZE)
    served = latents.EncodedLatents(encoded)
    lies_there = [served.entry(i, k)["representation"] for i in range(SCENES) for k in range(DRAWS)]
    distances = np.abs(np.float32(lies_there)[:, None] - bank[None, :20]).max(axis=-1)
    assert distances.min(axis=0).max() < 1e-3  # kept with three decimals
    longer = config | {"training": config["training"] | {"num_steps": 3}}
    main.run(longer, str(tmp_path / "run"), preemption.StopSignal())
    assert checkpoint.locate(tmp_path / "run")[1] == 3
    source, data = make_source(config)
    with pytest.raises(settings.SettingsError, match=r"give --config.latents=FOLDER, .*alex"):
        encode_latents.of_run(config | {"latents": ""}, source, data)
    other = config | {"model": config["model"] | {"representation_size": 3}}
    with pytest.raises(settings.SettingsError, match="representation_size: 64 there, 3 here"):
        encode_latents.of_run(other, source, data)
    without = config | {"model": config["model"] | {"representation_size": 0}}
    assert encode_latents.of_run(without, source, data).manifest.representation_size == 64


def test_weights_of_no_network_are_refused(autoencoder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        encode(autoencoder, tmp_path / "x", "--representation-weights=a.npz")
    assert "has no effect without --representation" in capsys.readouterr().err


def test_a_packed_model_keeps_chosen_pictures_of_its_own_data(autoencoder, tmp_path, capsys):
    """`config.data.mix` helps in training; scenes from nothing may be drawn without it."""
    mix, folder = ({"num_scenes": 40, "num_frames": 7},), tmp_path / "latents"
    mixed = ["--representation=alex", "--data", f"mix={mix}"]
    assert encode(autoencoder, folder, *mixed) == 0, capsys.readouterr().err
    places = {"autoencoder": str(autoencoder), "latents": str(folder)}
    config = CONFIG | places | {"data": CONFIG["data"] | {"mix": mix}}
    main.run(config, str(tmp_path / "run"), preemption.StopSignal())
    (moved := tmp_path / "moved").symlink_to(folder)

    def packed(name, *arguments):
        path = tmp_path / name
        fixed = [f"--model={tmp_path / 'run'}", f"--output={path}", "--paths=1", "--dtype=float32"]
        assert __main__.main(["pack-model", *fixed, *arguments]) == 0, capsys.readouterr().err
        return lgs_jax.load(path).task.representations

    served = latents.EncodedLatents(folder)
    own = [served.entry(i, k)["representation"] for i in range(SCENES) for k in range(DRAWS)]

    def from_own(bank):
        distances = np.abs(bank[:, None] - np.float32(own)[None]).max(axis=-1)
        return np.mean(distances.min(axis=1) < 1e-3)

    kept = packed("kept.safetensors")
    assert kept.shape == (512, representation.SIZE)
    assert 0.3 < from_own(kept) < 0.9
    chosen = packed("own.safetensors.xz", "--no-mix", "--pictures=30", f"--latents={moved}")
    assert chosen.shape == (30, representation.SIZE)
    assert from_own(chosen) == 1
    assert len(np.unique(chosen, axis=0)) == 30


def test_pictures_that_cannot_be_chosen_are_refused():
    data = settings.build(pipeline.DataSettings, CONFIG["data"], "data")
    with pytest.raises(settings.SettingsError, match="have no mix"):
        encode_latents.Pictures(mixed=False).representations(CONFIG, data)
    untold = CONFIG | {"model": CONFIG["model"] | {"representation_size": 0}}
    with pytest.raises(settings.SettingsError, match="is told no representations"):
        encode_latents.Pictures().representations(untold, data)
    with pytest.raises(ValueError, match="0 pictures are not enough"):
        encode_latents.Pictures(0)
