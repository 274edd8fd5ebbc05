"""What earlier versions have stored is read, and continued, as what it means today."""

import numpy as np
import pytest
import toy

from lgs_jax.inference import model_file, pretrained, tensor_file
from lgs_jax.training import checkpoint, older_configs, workdir

OPTIONS = {
    "num_steps": 2,
    "eval_every": 0,
    "save_every": 2,
    "tensorboard": False,
    "visualize": False,
}


@pytest.mark.parametrize(("switch", "name"), [(False, "none"), (True, "full")])
def test_a_switch_becomes_a_name(switch, name):
    model = {"widths": [8], "remat": switch, "encoder_unet": {"remat": not switch}}
    stored = {"task": "vae", "model": model}
    found = older_configs.upgraded(stored)
    other = {"none": "full", "full": "none"}[name]
    assert found["model"] == {"widths": [8], "remat": name, "encoder_unet": {"remat": other}}
    assert model["remat"] is switch  # what was given stays as it is
    assert older_configs.upgraded(found) == found


@pytest.mark.parametrize("config", [{}, {"task": "toy"}, {"model": {"size": 3}}, {"model": {}}])
def test_all_else_stays_as_it_is(config):
    assert older_configs.upgraded(config) == config


def test_a_training_of_an_earlier_version_is_continued(tmp_path):
    toy.train(tmp_path, OPTIONS, config={"model": {"remat": False}})
    longer = OPTIONS | {"num_steps": 4}
    with pytest.raises(workdir.WorkdirError, match=r"model\.remat: 'none' -> 'full'"):
        toy.train(tmp_path, longer, config={"model": {"remat": "full"}})
    toy.train(tmp_path, longer, config={"model": {"remat": "none"}})
    config, _ = checkpoint.restore_params(tmp_path, step=2)
    assert config["model"] == {"remat": "none"}
    assert checkpoint.steps_in(tmp_path / "checkpoints")[-1] == 4


def test_a_model_of_an_earlier_version_is_read():
    path = pretrained.find("objects-small")
    _, stored = tensor_file.load(path, entry="lgs_jax")
    assert [stored[part]["model"]["remat"] for part in ("autoencoder", "denoiser")] == [False] * 2
    parts = model_file.load(path)
    assert parts.frozen.module.remat == parts.task.model.remat == "none"
    assert [config["model"]["remat"] for config in parts.configs] == ["none"] * 2
    assert np.size(parts.path_classes)
