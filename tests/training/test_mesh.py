"""Several simulated devices against one; they need a process of their own."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy

from lgs_jax import settings
from lgs_jax.training import checkpoint
from lgs_jax.training import mesh as meshes

OPTIONS = {
    "num_steps": 6,
    "log_every": 1,
    "eval_every": 3,
    "save_every": 3,
    "accumulate_steps": 2,
    "visualize": False,
    "tensorboard": False,
    "optimizer": {"learning_rate": 0.03, "warmup_steps": 4},
}
# 3 x 8192 elements: above the size from which arrays are split over `fsdp`.
WIDTH = 8192

PROGRAM = """
import json, pathlib, shutil, sys
import jax
import toy
from lgs_jax.training import checkpoint
from lgs_jax.training import mesh as meshes
options, width, folder = json.loads(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
assert jax.device_count() == 2
task = toy.Toy(width=width)
for name, mesh in (("data", {"data": 2}), ("fsdp", {"data": 1, "fsdp": 2})):
    toy.train(folder / name, options | {"mesh": mesh}, task=task)
assert task.traces == 4, task.traces  # each run: shapes of the microbatch, then the scan's body
made = meshes.make(meshes.MeshSettings(fsdp=2))
_, params = checkpoint.restore_params(folder / "one", mesh=made)
kernel = params["hidden"]["kernel"]
assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp"), kernel.sharding
assert [s.data.shape for s in kernel.addressable_shards] == [(3, width // 2)] * 2
moved = shutil.copytree(folder / "one", folder / "moved")
shutil.rmtree(moved / "checkpoints" / "step_00000006")
toy.train(moved, options, task=task)  # a run moves to more devices
"""


def lines(workdir):
    return [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run on one device and, in another process, on two in two ways."""
    folder = tmp_path_factory.mktemp("runs")
    toy.train(folder / "one", OPTIONS, task=toy.Toy(width=WIDTH))
    one = lines(folder / "one")
    flag = "--xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(OPTIONS), str(WIDTH), str(folder)],
        env=os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flag}"},
        cwd=pathlib.Path(toy.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, one


@pytest.mark.parametrize("name", ["data", "fsdp", "moved"])
def test_two_devices_equal_one(runs, name):
    """All of a run, or its second half where the first was made on one device."""
    folder, one = runs
    two = lines(folder / name)
    assert [x["step"] for x in two] == [x["step"] for x in one]
    for a, b in zip(one, two):
        for key in a.keys() - {"kind"}:
            # Sums over the batch run in another order: float32, 6 steps.
            assert b[key] == pytest.approx(a[key], rel=2e-4, abs=1e-6), (a["step"], key)


@pytest.mark.parametrize("name", ["fsdp", "moved"])
def test_a_checkpoint_restores_on_another_number_of_devices(runs, name):
    folder, _ = runs
    _, here = checkpoint.restore_params(folder / name)  # two devices there, one here
    _, one = checkpoint.restore_params(folder / "one", step=6)
    for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(one)):
        # Adam divides by the root of the squared gradient, so where a gradient is near 0 its
        # rounding error is not small: up to the step size in a few entries.
        assert np.mean(np.abs(a - b)) < 1e-4
        np.testing.assert_allclose(a, b, atol=0.05)


def test_a_run_continues_on_another_number_of_devices(runs):
    """From the middle; what it leaves is compared above."""
    log = (runs[0] / "moved" / "train.log").read_text()
    assert re.search(r"2 cpu device\(s\) \| continues from step 3", log), log


@pytest.mark.parametrize(
    ("values", "batches", "cores", "expected"),
    [
        ({}, (4, 4), 2, 2),
        ({}, (4, 8), 3, 2),  # three scenes do not divide a batch of four
        ({}, (4, 6), 16, 2),
        ({}, (1, 4), 8, 1),
        ({"data": 1}, (4, 4), 8, 1),
        ({"data": 2, "fsdp": 3}, (6, 6), 1, 6),
        ({"fsdp": 2}, (8, 8), 6, 4),
        ({"view": 2, "spatial": 2}, (3, 6), 13, 12),  # three scenes of four devices each
        ({"data": 1, "view": 2}, (1, 1), 1, 2),
    ],
)
def test_cpu_devices_use_the_cores_and_divide_every_batch(values, batches, cores, expected):
    settings_ = meshes.MeshSettings(**values)
    assert meshes.cpu_devices(settings_, *batches, cores=cores) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fsdp": 3}, "does not fit 1 device"),
        ({"data": 2}, "data=2 x fsdp=1 x view=1 x spatial=1 does not"),
    ],
)
def test_a_mesh_that_does_not_fit(values, message):
    with pytest.raises(settings.SettingsError, match=message):
        meshes.make(meshes.MeshSettings(**values))


def test_a_batch_that_does_not_divide(monkeypatch):
    mesh = meshes.make(meshes.MeshSettings())
    meshes.check_batch_size(mesh, 6, 3)
    with pytest.raises(settings.SettingsError, match="batch_size=6 must be a multiple"):
        meshes.check_batch_size(mesh, 6, 4)
    monkeypatch.setattr(jax, "process_count", lambda: 4)  # whose devices share scenes
    with pytest.raises(settings.SettingsError, match="multiple of the 4 processes"):
        meshes.check_batch_size(mesh, 6, 3)


def test_refuses_axes_without_devices():
    for name in ("fsdp", "view", "spatial"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            meshes.MeshSettings(**{name: 0})
