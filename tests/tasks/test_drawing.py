"""The group `rendering` of a configuration reaches what draws; losses say what lists hold."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.output import Rendering
from lgs_jax.rendering.splat import dispatch, lists
from lgs_jax.tasks import drawing, make_task, views

SIZE = {"height": tiny.SIZE, "width": tiny.SIZE}
# What configurations of the other tasks have in place of the autoencoder's groups.
GROUPS = {
    "vae": {},
    "pixel_diffusion": {
        "model": {
            name: value
            for name, value in tiny.CONFIG["model"].items()
            if name not in ("compression", "latent_channels")
        },
        "sampler": {"steps": 1, "eval_scenes": 1},
    },
    "splat_fit": {
        "model": {"stride": 2, "num_planes": 8},
        "metrics": {},
        "data": tiny.CONFIG["data"] | {"num_scenes": 4, "holdout": 0.5},
        "training": {"eval_scenes": 2},
    },
}


def make(name, **rendering):
    """A tiny task; without values, of a configuration as they were stored before there were any."""
    group = {"rendering": rendering} if rendering else {}
    return make_task(name, tiny.CONFIG | {"task": name} | GROUPS[name] | group)


@pytest.mark.parametrize("step", ["loss", "evaluate"])
@pytest.mark.parametrize("name", ["vae", "pixel_diffusion", "splat_fit"])
def test_what_is_asked_for_reaches_the_renderer(name, step, monkeypatch):
    module = importlib.import_module(f"lgs_jax.tasks.{name}")
    asked, render = [], module.render
    monkeypatch.setattr(
        module, "render", lambda *args, **options: asked.append(options) or render(*args, **options)
    )
    names = ("implementation", "tile_size", "slots_per_splat")
    for rendering in ({}, {"implementation": "xla", "tile_size": 8, "slots_per_splat": 2}):
        task, batch = make(name, **rendering), tiny.make_batch()
        key = jax.random.key(0)
        params = jax.eval_shape(task.init, key)
        jax.eval_shape(getattr(task, step), params, batch, key)
        assert asked
        assert all({k: v for k, v in o.items() if k in names} == rendering for o in asked)
        asked.clear()


def test_the_named_implementation_draws(monkeypatch):
    dispatch._choices.clear()
    monkeypatch.setenv(dispatch.ENVIRONMENT, "xla")  # which says nothing then
    monkeypatch.setitem(dispatch.IMPLEMENTATIONS, "xla", None)  # would fail if called
    task = make("vae", implementation="reference")
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch = tiny.make_batch(1)  # of a size of its own, so that nothing traced before is taken
    _, logged = jax.eval_shape(task.loss, params, batch, jax.random.key(0))
    assert "entries_per_splat" in logged
    (text,) = dispatch.choices()
    assert "'reference' on cpu (as the caller says)" in text


@pytest.fixture(scope="module")
def params():
    return tiny.make_params()


def test_losses_do_not_depend_on_the_room_of_the_lists(params):
    (loss, logged), (less, logged_less) = (
        jax.jit(make("vae", **rendering).loss)(params, tiny.make_batch(), jax.random.key(0))
        for rendering in ({}, {"slots_per_splat": 1})
    )
    splats = 6 * tiny.VIEWS * tiny.SIZE**2  # of two scenes at three views, drawn as one image
    assert logged["entries_per_splat"] * splats > 4096 >= splats  # more than a segment of one slot
    np.testing.assert_allclose(less, loss, rtol=1e-5)
    # Two programs may put a splat on the edge of a tile to either side.
    found, expected = logged_less["entries_per_splat"], logged["entries_per_splat"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("tile_size", [0, 8])
def test_losses_log_the_entries_of_their_images(tile_size, monkeypatch, params):
    task, batch = make("vae", tile_size=tile_size), tiny.make_batch()
    decode, decoded = task.decode, []
    monkeypatch.setattr(task, "decode", lambda *args: decoded.append(decode(*args)) or decoded[-1])
    logged, scene = jax.jit(
        lambda params: (task.loss(params, batch, jax.random.key(0))[1], decoded.pop())
    )(params)
    both = views.concatenate(views.from_batch(batch["context"]), views.from_batch(batch["target"]))
    entries = lists.count_entries(scene, both.cameras, **SIZE, **task.rendering.options)
    assert entries.shape == (2, tiny.VIEWS + tiny.TARGETS)
    found = logged["entries_per_splat"]
    assert found.dtype == jnp.float32  # the trainer takes means of these, and adds up counts
    expected = entries.sum() / (entries.size * scene.num_gaussians)
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # two programs, as above
    assert found > 0.5


def test_fields_have_no_lists():
    rendering = Rendering(None, None, None, {"overflow": jnp.zeros((2, 3), jnp.int32)})
    assert drawing.logged("a field", rendering).keys() == {"overflow"}
    scene = Gaussians(*(jnp.ones((2, 5, *shape)) for shape in ((3,), (4,), (3,), (), (3,))))
    rendering.aux["required"] = jnp.int32([[5, 10, 15], [20, 0, 10]])
    assert drawing.logged(scene, rendering)["entries_per_splat"] == 2.0


@pytest.mark.parametrize("name", ["vae", "pixel_diffusion"])
def test_settings_of_splats_need_splats(name):
    config = tiny.CONFIG | {"task": name} | GROUPS[name]
    head = config["model"]["scene_head"] | {"kind": "voxels"}
    config |= {"model": config["model"] | {"scene_head": head}}
    make_task(name, config | {"rendering": {"implementation": "", "slots_per_splat": 0}})
    with pytest.raises(
        settings.SettingsError,
        match=r"config\.rendering\.slots_per_splat=8 says .*kind='voxels' makes none; leave it out",
    ):
        make_task(name, config | {"rendering": {"slots_per_splat": 8}})


def test_stage_two_draws_nothing_in_training_and_takes_no_such_group():
    config = tiny.CONFIG | {"task": "diffusion", "rendering": {}}
    with pytest.raises(settings.SettingsError, match=r"unknown key config\.rendering"):
        make_task("diffusion", config, tiny.make())


def advice(entries, mesh=None, **rendering):
    config = tiny.CONFIG | {"rendering": rendering, "mesh": mesh or {}}
    # 16 tiles of 16 x 16 pixels: more than the lists have room for.
    config |= {"data": tiny.CONFIG["data"] | {"height": 64, "width": 64}}
    return drawing.advice(config, {"loss": 1.0, "entries_per_splat": entries})


@pytest.mark.parametrize(
    ("implementation", "slots", "entries", "room", "advised", "gain"),
    [
        ("pallas_gpu", 0, 6.1, 4, 8, "draws them in one launch"),
        ("pallas_gpu", 6, 6.1, 6, 8, "draws them in one launch"),
        ("pallas_gpu", 0, 1.2, 4, 2, "sorts fewer empty slots"),
        ("pallas_tpu", 0, 2.5, 2, 4, "draws them in one launch"),
        ("pallas_tpu", 12, 2.5, 12, 4, "sorts fewer empty slots"),
    ],
)
def test_advice(implementation, slots, entries, room, advised, gain):
    found = advice(entries, implementation=implementation, slots_per_splat=slots)
    assert found == (
        f"splats need {entries} entries each, the lists have room for {room} at a time: "
        f"--config.rendering.slots_per_splat={advised} {gain} (same images)"
    )
    # Whoever follows it is not advised again.
    assert not advice(entries, implementation=implementation, slots_per_splat=advised)


@pytest.mark.parametrize("entries", [0.0, 1.5, 3.9, float("nan")])
def test_no_advice_where_the_room_is_right_or_nothing_is_known(entries):
    assert not advice(entries, implementation="pallas_gpu")


def test_no_advice_where_it_would_not_help(monkeypatch):
    assert not advice(30.0)  # xla
    assert not advice(30.0, implementation="xla", slots_per_splat=1)
    assert not advice(0.0, implementation="reference")
    assert not advice(30.0, {"spatial": 2}, implementation="pallas_gpu")
    assert not drawing.advice({}, {"loss": 1.0})
    monkeypatch.setenv(dispatch.ENVIRONMENT, "pallas_gpu")
    assert advice(30.0)
    # No splat touches more tiles than there are.
    config = tiny.CONFIG | {"rendering": {"tile_size": 16}}
    assert not drawing.advice(config, {"entries_per_splat": 1.0})
