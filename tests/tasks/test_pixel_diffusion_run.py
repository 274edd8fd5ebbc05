"""Diffusion in pixel space through the training command, pictures included."""

import json

import pytest
import tiny_autoencoder as tiny
from PIL import Image

from lgs_jax import main, settings
from lgs_jax.inference import scene_model
from lgs_jax.tasks import scene_visuals
from lgs_jax.training import checkpoint, preemption

CONFIG = {
    "task": "pixel_diffusion",
    "seed": 0,
    "data": tiny.CONFIG["data"],
    "model": {
        "patch_size": 4,
        "embedding_size": 8,
        "widths": (8,),
        "blocks_per_level": 1,
        "middle_blocks": 0,
        "attention_levels": (),
        "num_heads": 1,
        "scene_head": {"near": 0.5, "far": 50.0, "initial_depth": 3.0},
    },
    "sampler": {"steps": 2},
    "optimizer": {"learning_rate": 1e-3},
    "training": {
        "num_steps": 2,
        "batch_size": 2,
        "eval_scenes": 1,
        "eval_every": 0,
        "tensorboard": False,
    },
}


def test_trains_evaluates_and_shows_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("LGS_JAX_CACHE", "off")
    # As many frames as views in the grid: one compilation of the rasterizer for both.
    monkeypatch.setattr(scene_visuals, "TURNTABLE_FRAMES", tiny.VIEWS + tiny.TARGETS)
    main.run(CONFIG, str(tmp_path), preemption.StopSignal())
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["step"] == 2
    assert 0 < results["eval"]["x_mse"] < 2
    (picture,) = (tmp_path / "visuals").rglob("samples_0.png")
    with Image.open(picture) as grid:
        assert grid.height > 6 * tiny.SIZE
    assert list((tmp_path / "visuals").rglob("splats_0.ply"))
    _, params = checkpoint.restore_params(tmp_path)
    assert set(params) == {"denoiser"}
    with pytest.raises(settings.SettingsError, match="a run of the task 'pixel_diffusion'"):
        scene_model.load(tmp_path)
