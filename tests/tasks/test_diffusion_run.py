"""Stage 2 through the training command: on a saved autoencoder, continued, refused on another."""

import json
import pathlib

import jax
import pytest
import tiny_autoencoder as tiny

from lgs_jax import main
from lgs_jax.training import checkpoint, preemption, workdir

CONFIG = {
    "task": "diffusion",
    "seed": 0,
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
    "optimizer": {"learning_rate": 1e-3},
    "training": {
        "num_steps": 2,
        "batch_size": 2,
        "eval_scenes": 1,
        "eval_every": 0,
        "visualize": False,
        "tensorboard": False,
    },
}


def run(config: dict, folder: pathlib.Path) -> dict:
    main.run(config, str(folder), preemption.StopSignal())
    return json.loads((folder / "results.json").read_text())


def test_trains_continues_and_refuses_another_autoencoder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LGS_JAX_CACHE", "off")
    first, second = tmp_path / "autoencoder", tmp_path / "diffusion"
    tiny.save(first, 5)
    config = CONFIG | {"autoencoder": str(first)}
    results = run(config, second)
    assert results["step"] == 2
    assert 0 < results["eval"]["x_mse"] < 2
    kept = json.loads((first / "latent_stats.json").read_text())
    assert results["config"]["latent_stats"] == kept
    assert kept["step"] == 5
    assert "computing latent statistics over 10 training scenes" in capsys.readouterr().out

    # The checkpoint holds the denoiser and nothing of the autoencoder.
    saved, params = checkpoint.restore_params(second)
    assert set(params) == {"log_snr_in", "log_snr_out", "unet_trunk"}
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    frozen = sum(x.nbytes for x in jax.tree.leaves(tiny.make_params()))
    items = (second / "checkpoints" / "step_00000002" / "ema").rglob("*")
    assert sum(f.stat().st_size for f in items if f.is_file()) < size + frozen
    assert saved["autoencoder"] == str(first)

    # The folder may move; the autoencoder may not become another one.
    moved = first.rename(tmp_path / "moved")
    config = config | {"autoencoder": str(moved)}
    assert run(config, second)["step"] == 2
    assert "continues from step 2" in capsys.readouterr().out
    tiny.save(moved, 6)
    with pytest.raises(workdir.WorkdirError, match=r"latent_stats\.step: 5 -> 6"):
        run(config, second)
    assert "is of step 5, the autoencoder of step 6" in capsys.readouterr().out


def test_another_autoencoder_and_other_data_are_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LGS_JAX_CACHE", "off")
    with pytest.raises(main.settings.SettingsError, match=r"give --config\.autoencoder=WORKDIR"):
        run(CONFIG | {"autoencoder": ""}, tmp_path / "run")
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint in"):
        run(CONFIG | {"autoencoder": str(tmp_path / "nothing")}, tmp_path / "run")
    assert not (tmp_path / "run").exists()
