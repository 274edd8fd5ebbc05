"""All axes of the mesh against a single device: eight simulated devices, and two real processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

from lgs_jax import settings
from lgs_jax.core import sharding
from lgs_jax.training import mesh as meshes

STEPS = 20
# Scenes alone are split: parameters of the toy task, which are large enough for `fsdp`.
TOY = {"1": {}, "2": {"data": 2}, "4x2": {"data": 4, "fsdp": 2}, "fsdp8": {"fsdp": 8}}
# The autoencoder, rendering included; the last three share a scene among devices.
VAE = {
    "1": {},
    "fsdp2": {"fsdp": 2},
    "view2": {"view": 2},
    "spatial2": {"spatial": 2},
    "2x2x2": {"data": 2, "view": 2, "spatial": 2},
}
_PATIENCE = 300.0

PROGRAM = """
import pathlib, sys
import jax
folder, arguments = pathlib.Path(sys.argv[1]), sys.argv[2:]
jax.config.update("jax_compilation_cache_dir", arguments[0] or None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
if arguments[1:]:
    jax.distributed.initialize(arguments[1], 2, int(arguments[2]))
import mesh_cases
mesh_cases.run(folder)
"""


def environment(devices):
    # The tiles' rasterizer has a case of its own; this one compiles in a quarter of the time.
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "LGS_JAX_RASTERIZER": "reference"}


def start(folder, devices, *arguments):
    cache = jax.config.jax_compilation_cache_dir or ""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), cache, *arguments],
        env=environment(devices),
        cwd=pathlib.Path(toy.__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    outputs = [process.communicate(timeout=_PATIENCE)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Losses and last parameters by task and mesh."""
    folder = tmp_path_factory.mktemp("runs")
    finish(start(folder, 8))
    return folder


def load(folder, name):
    found = dict(np.load(folder / f"{name}.npz"))
    return found.pop("losses"), found


def assert_equal_runs(folder, name, reference):
    losses, params = load(folder, name)
    expected_losses, expected = load(folder, reference)
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    # Sums run in another order: float32, through 20 steps of Adam.
    np.testing.assert_allclose(losses, expected_losses, rtol=5e-4)
    assert params.keys() == expected.keys()
    for key, value in params.items():
        np.testing.assert_allclose(value, expected[key], atol=2e-3, err_msg=key)
        assert np.mean(np.abs(value - expected[key])) < 1e-4, key


@pytest.mark.parametrize("mesh", [name for name in TOY if name != "1"])
def test_scenes_split_over_devices_train_like_one(runs, mesh):
    assert_equal_runs(runs, f"toy-{mesh}", "toy-1")


@pytest.mark.parametrize("mesh", [name for name in VAE if name != "1"])
def test_the_autoencoder_on_several_devices_trains_like_on_one(runs, mesh):
    assert_equal_runs(runs, f"vae-{mesh}", "vae-1")


@pytest.mark.parametrize("mesh", ["fsdp2", "view2", "spatial2", "2x2x2"])
def test_no_device_repeats_what_another_does(runs, mesh):
    """The compiler's count of a device's operations, without what the loops repeat."""
    flops = json.loads((runs / "flops.json").read_text())
    devices = 8 if mesh == "2x2x2" else 2
    assert flops[mesh] < 1.75 * flops["1"] / devices


def test_two_processes_of_four_devices_train_like_one(runs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    finish(*(start(runs, 4, address, str(i)) for i in range(2)))
    assert_equal_runs(runs, "toy-processes", "toy-1")


def batch(scenes=2, views=4, targets=2, height=8):
    def group(count):
        return {
            "images": np.zeros((scenes, count, height, 6, 3), np.uint8),
            "intrinsics": np.zeros((scenes, count, 4), np.float32),
        }

    return {"context": group(views), "target": group(targets), "weight": np.ones(scenes)}


def mesh_of(**sizes):
    """A mesh without devices; shardings need its shape alone."""
    shape = tuple(sizes.get(name, 1) for name in sharding.MESH_AXES)
    return jax.sharding.AbstractMesh(shape, sharding.MESH_AXES)


def test_the_rules_split_what_divides():
    mesh = mesh_of(data=2, view=4, spatial=2)
    placed = meshes.batch_shardings(mesh, batch())
    specs = jax.tree.map(lambda x: x.spec, placed)
    assert specs["context"]["images"] == jax.sharding.PartitionSpec("data", "view", "spatial")
    assert specs["context"]["intrinsics"] == jax.sharding.PartitionSpec("data", "view")
    # Two held-out views are not split by four devices, and have the whole of their rows apart.
    assert specs["target"]["images"] == jax.sharding.PartitionSpec("data", None, "spatial")
    assert specs["weight"] == jax.sharding.PartitionSpec("data")
    # One row for each of eight devices: a convolution would fetch twice as many.
    assert sharding.spec((2, 4, 8), *sharding.MAPS, mesh=mesh_of(spatial=8))[2] is None


def test_the_rule_of_parameters_splits_their_largest_dimension(monkeypatch):
    mesh = mesh_of(data=2, fsdp=2)
    shapes = {
        name: jax.ShapeDtypeStruct(shape, np.float32)
        for name, shape in (("wide", (128, 256)), ("odd", (128, 255)), ("small", (64, 128)))
    }
    specs = jax.tree.map(lambda x: x.spec, meshes.state_shardings(mesh, shapes))
    assert specs["wide"] == jax.sharding.PartitionSpec(None, "fsdp")
    assert specs["odd"] == jax.sharding.PartitionSpec("fsdp")
    assert specs["small"] == jax.sharding.PartitionSpec()
    monkeypatch.setitem(sharding.RULES, "parameter", ("data", "fsdp"))
    specs = jax.tree.map(lambda x: x.spec, meshes.state_shardings(mesh, shapes))
    assert specs["wide"] == jax.sharding.PartitionSpec(None, ("data", "fsdp"))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"view": 3}, r"config\.mesh\.view=3 must divide the views .* there are \[4\]"),
        ({"spatial": 3}, r"config\.mesh\.spatial=3 must divide the rows .* there are \[8\]"),
        ({"spatial": 8}, "two for each device"),
    ],
)
def test_what_does_not_divide_is_named(sizes, message):
    with pytest.raises(settings.SettingsError, match=message):
        meshes.batch_shardings(mesh_of(**sizes), batch())


def test_an_axis_without_anything_to_split_is_refused():
    with pytest.raises(settings.SettingsError, match="which this task's batches lack"):
        meshes.batch_shardings(mesh_of(view=2), {"x": np.zeros((4, 3))})
