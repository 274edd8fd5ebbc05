"""What a model costs to use is measured on its own data, for every kind of scene."""

import dataclasses

import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import experiment_costs
from lgs_jax.inference.scene_model import SceneModel


@pytest.fixture(scope="module")
def models():
    data = settings.build(DataSettings, tiny.CONFIG["data"], "data")
    return {kind: SceneModel(tiny.make(kind), data=data) for kind in ("gaussians", "voxels")}


def test_the_cases_take_turns(models, monkeypatch):
    monkeypatch.setattr(experiment_costs, "_REPEATS", 1)
    said = []
    seconds = experiment_costs.MEASURES["rendering_s"](models, said.append)
    assert list(seconds) == list(models)
    assert min(seconds.values()) > 0
    assert said == ["timing: 0 of 1 rounds", "timing: 1 of 1 rounds"]


def test_more_samples_of_a_ray_and_the_gradient_need_more_memory(models):
    voxels = models["voxels"]
    head = voxels.frozen.module.scene_head | {"samples": 16}
    module = voxels.frozen.module.clone(scene_head=head)
    finer = SceneModel(dataclasses.replace(voxels.frozen, module=module), data=voxels.data)
    found = experiment_costs.MEASURES["rendering_mb"]({"8": voxels, "16": finer}, print)
    assert found["16"] > 1.5 * found["8"]
    gradient = experiment_costs.MEASURES["rendering_gradient_mb"]({"8": voxels}, print)
    assert gradient["8"] > found["8"]
