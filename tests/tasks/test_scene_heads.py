"""The tasks with every kind of scene: shapes of init, step and evaluation, and what is refused."""

import jax
import numpy as np
import pytest
import test_configs as configs
import tiny_autoencoder as tiny

from lgs_jax import settings, tasks
from lgs_jax.models.scene_heads import kinds

FIELDS = [kind for kind in kinds.SCENE_HEADS if kind != kinds.GAUSSIANS]


def load(file: str, kind: str, **loss: float) -> dict:
    config = configs.load(file, None)
    config["model"]["scene_head"]["kind"] = kind
    config["loss"] |= loss
    return config


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize("file", ["vae.py", "pixel_diffusion.py"])
def test_shapes_of_init_step_and_evaluation(file, kind):
    config = load(file, kind, **({"pixel_color": 0.0} if file == "vae.py" else {}))
    task = tasks.make_task(config["task"], config)
    key = jax.random.key(0)
    params = jax.eval_shape(task.init, key)
    batch = configs.abstract_batch(config, 2)
    gradient = jax.value_and_grad(task.loss, has_aux=True)
    (loss, metrics), slope = jax.eval_shape(gradient, params, batch, key)
    assert loss.shape == ()
    assert all(value.shape == () for value in metrics.values())
    assert jax.tree.map(np.shape, slope) == jax.tree.map(np.shape, params)
    if file == "vae.py":  # the other samples, which takes long to trace and has nothing of its own
        means = jax.eval_shape(task.evaluate, params, batch, key)
        assert configs.MEANS["vae"] <= means.keys()


def test_parameters_of_other_kinds_are_added_to_those_of_gaussians():
    def names(kind):
        task = tasks.make_task("vae", load("vae.py", kind, pixel_color=0.0))
        return jax.eval_shape(task.init, jax.random.key(0))["decoder"].keys()

    assert names("voxels") - names("gaussians") == {"scene_head", "scene_head_depth"}
    assert names("gaussians") < names("voxels")


@pytest.mark.parametrize("kind", FIELDS)
def test_a_loss_on_splats_needs_splats(kind):
    with pytest.raises(settings.SettingsError, match=rf"pixel_color=1.0 .*kind='{kind}'"):
        tasks.make_task("vae", load("vae.py", kind))


HEAD = {"near": 1.0, "far": 8.0, "kind": "voxels", "resolution": 4, "samples": 4}


@pytest.mark.parametrize("name", ["vae", "pixel_diffusion"])
def test_visuals_of_fields_have_no_splats(name):
    config = {"task": name, "data": tiny.CONFIG["data"]}
    config["model"] = {"patch_size": 4, "widths": (8,), "blocks_per_level": 1, "middle_blocks": 0}
    config["model"] |= {"attention_levels": (), "num_heads": 1, "scene_head": HEAD}
    if name == "vae":
        config["model"] |= {"compression": 4, "latent_channels": 2}
    else:
        config["sampler"] = {"steps": 1}
    task = tasks.make_task(name, config)
    params = tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))
    visuals = task.visualize(params, tiny.make_batch(1), None)
    pictures = {"vae": {"scene_0"}, "pixel_diffusion": {"samples_0", "turntable_one_view"}}
    assert visuals.keys() == pictures[name] | {"turntable"}
    assert visuals["turntable"].dtype == np.uint8
    assert visuals["turntable"].shape[1:] == (tiny.SIZE, tiny.SIZE, 3)
    assert visuals["turntable"].std() > 1
