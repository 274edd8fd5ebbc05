"""Estimates against real arrays and programs, what is suggested, and which devices are known."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from lgs_jax import settings
from lgs_jax.core import streams
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import render
from lgs_jax.rendering.settings import RenderingSettings
from lgs_jax.rendering.splat import dispatch
from lgs_jax.training import mesh as meshes
from lgs_jax.training import optimizer, planning, planning_targets, profiling, start, state
from lgs_jax.training.planning_targets import GIB, Target, TargetError
from lgs_jax.training.settings import TrainSettings

WIDTH = 2**14  # activations outweigh parameters


def make_case(changes=None, batch_size=64):
    """The toy task; changes are those of the trainer's settings alone."""
    options = {"num_steps": 10, "batch_size": batch_size}
    mesh = {}
    for place, value in (changes or {}).items():
        group, name = place.split(".")
        (mesh if group == "mesh" else options)[name] = value
    return planning.Case(
        task=toy.Toy(width=WIDTH),
        settings=settings.build(TrainSettings, options | {"mesh": mesh}, "config.training"),
        entry={name: value[0] for name, value in toy.make_batch(0, 1).items()},
    )


def make_target(memory, devices=1):
    return Target("toy", "cpu", jax.devices()[:devices], memory, "as given", simulated=True)


@pytest.fixture(scope="module")
def first():
    return planning.estimate(make_case(), make_target(GIB))


def test_the_state_is_counted_to_the_byte(first):
    case = make_case()
    transform = optimizer.make(case.settings.optimizer)
    real = state.create(case.task.init(streams.root_key(0)), transform)
    parameters, everything = (
        sum(x.nbytes for x in jax.tree.leaves(t)) for t in (real.params, real)
    )
    assert (first.parameters, first.average) == (parameters, parameters)
    assert first.optimizer == everything - 2 * parameters
    # x, y, weight and step of 64 scenes; whole numbers have 4 bytes on the devices
    assert first.batch == (profiling.RUN_AHEAD + 1) * 64 * (12 + 4 + 4 + 4)
    assert first.padding == first.constants == 0


def test_the_program_is_that_of_the_trainer(first):
    case = make_case()
    mesh = meshes.make(case.settings.mesh)
    abstract = start.abstract_state(case.task, case.settings, mesh)
    batch = meshes.put_local_batch(mesh, toy.make_batch(0, 64))
    with jax.set_mesh(mesh):
        step = start.jit_step(case.task, case.settings, mesh, abstract)
        memory = step.lower(abstract, batch, ()).compile().memory_analysis()
    assert first.temporaries == memory.temp_size_in_bytes
    assert first.temporaries > 64 * WIDTH * 4
    # 64 scenes, kernels of 3 x WIDTH and WIDTH x 1: three products with each, but for the inputs
    assert first.flops == 2 * 64 * WIDTH * (2 * 3 + 3)
    assert first.flops_of_compiler > first.flops


def test_fits_or_not(first):
    assert first.fits(first.total)
    assert not first.fits(first.total - 1)
    assert not dataclasses.replace(first, refused="no room").fits(10 * first.total)


def test_microbatches_are_suggested_first(first):
    said = []
    memory = 0.7 * first.total
    tried = planning.suggest(make_case, make_target(memory), first, said.append)
    *failed, found = tried
    assert found.estimate.fits(memory)
    assert not any(each.estimate and each.estimate.fits(memory) for each in failed)
    assert set(found.changes) == {"training.accumulate_steps"}
    assert len(said) == len(tried)
    flag = f"--config.training.accumulate_steps={found.changes['training.accumulate_steps']}"
    assert planning.flags(found.changes) == flag
    assert said[-1].startswith(flag)
    assert found.estimate.batch == first.batch  # the global batch is the same


def test_what_cannot_fit_is_not_compiled(first, monkeypatch):
    monkeypatch.setattr(planning, "estimate", None)
    tried = planning.suggest(make_case, make_target(first.arguments - 1), first, lambda text: None)
    assert [each.estimate for each in tried] == [None] * 6  # 2 to 64 microbatches
    assert [each.changes["training.accumulate_steps"] for each in tried] == [2, 4, 8, 16, 32, 64]


def fake_estimate(case, target):
    """Memory as of a model: activations by scene, fewer by remat; parameters by fsdp."""
    options = case.settings
    scenes = options.batch_size // len(target.devices) // options.accumulate_steps
    return planning.Estimate(
        parameters=400 // options.mesh.fsdp,
        optimizer=0,
        average=0,
        constants=0,
        batch=0,
        temporaries=scenes * {"none": 100, "dots": 75, "full": 50}[case.remat],
    )


def model_case(changes):
    changes = dict(changes)
    remat = changes.pop("model.remat", "none")
    return dataclasses.replace(make_case(changes), remat=remat)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (600, {"training.accumulate_steps": 8}),
        (480, {"training.accumulate_steps": 16, "model.remat": "dots"}),
        (460, {"training.accumulate_steps": 16, "model.remat": "full"}),
        (200, {"training.accumulate_steps": 16, "mesh.fsdp": 4}),
        (180, {"training.accumulate_steps": 16, "model.remat": "dots", "mesh.fsdp": 4}),
        (150, {"training.accumulate_steps": 16, "model.remat": "full", "mesh.fsdp": 4}),
        (90, None),
    ],
)
def test_the_cheapest_change_wins(monkeypatch, memory, expected):
    monkeypatch.setattr(planning, "estimate", fake_estimate)
    monkeypatch.setattr(planning, "arguments_only", arguments_of_model)
    target = Target("model", "cpu", [None] * 4, memory, "as given")
    tried = planning.suggest(
        model_case, target, fake_estimate(model_case({}), target), lambda text: None
    )
    last = tried[-1]
    fits = last.estimate is not None and last.estimate.fits(memory)
    assert (dict(last.changes) if fits else None) == expected
    if memory < 400:  # the parameters alone are too large without splitting them
        compiled = [each.changes for each in tried if each.estimate]
        assert all("mesh.fsdp" in changes for changes in compiled)


def test_no_search_goes_back_to_less_that_is_computed_again(monkeypatch):
    monkeypatch.setattr(planning, "estimate", fake_estimate)
    monkeypatch.setattr(planning, "arguments_only", arguments_of_model)
    target = Target("model", "cpu", [None] * 4, 90, "as given")

    def make(changes):
        return model_case({"model.remat": "dots"} | dict(changes))

    tried = planning.suggest(make, target, fake_estimate(make({}), target), lambda text: None)
    assert {each.changes.get("model.remat") for each in tried} == {None, "full"}


def arguments_of_model(case, target):
    return dataclasses.replace(fake_estimate(case, target), temporaries=0)


@pytest.mark.parametrize(("memory", "largest"), [(2400, 80), (500, 4), (450, None), (7000, 264)])
def test_the_largest_batch(monkeypatch, memory, largest):
    monkeypatch.setattr(planning, "estimate", fake_estimate)
    target = Target("model", "cpu", [None] * 4, memory, "as given")
    base = fake_estimate(model_case({}), target)
    tried = planning.largest_batch(model_case, target, base, lambda text: None)
    sizes = {each.changes["training.batch_size"]: each.estimate for each in tried} | {64: base}
    fitting = [size for size, found in sizes.items() if found.fits(memory)]
    assert max(fitting, default=None) == largest
    assert len(tried) <= 6


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 24.50G of 15.75G", 24.5),
        ("RESOURCE_EXHAUSTED: total memory required for HLO temporaries (400.00G) exceeds", 400),
        ("RESOURCE_EXHAUSTED: no figure\nmore", 0),
    ],
)
def test_what_the_compiler_refuses_does_not_fit(first, message, needed):
    exact = dataclasses.replace(first, temporaries=0, outputs=0, code=0)
    found = planning.refused(exact, message, 3.0)
    assert not found.fits(math.inf)
    assert found.total == max(int(needed * GIB), exact.arguments)
    assert message.startswith(found.refused)
    assert "more" not in found.refused


def test_splats_are_drawn_as_on_the_target(monkeypatch):
    monkeypatch.delenv(dispatch.ENVIRONMENT, raising=False)
    monkeypatch.setitem(dispatch.PREFERRED, "gpu", ("pallas_gpu", "xla"))
    with planning.rasterizer("cuda"):
        assert os.environ[dispatch.ENVIRONMENT] == "pallas_gpu"
    assert dispatch.ENVIRONMENT not in os.environ
    monkeypatch.setenv(dispatch.ENVIRONMENT, "reference")
    with planning.rasterizer("cuda"):
        assert os.environ[dispatch.ENVIRONMENT] == "reference"


class Drawing(toy.Toy):
    """Draws splats beside, as a configuration says."""

    def __init__(self, **rendering):
        super().__init__()
        self.options = RenderingSettings(**rendering).options

    def loss(self, params, batch, key):
        loss, metrics = super().loss(params, batch, key)
        scene = Gaussians(*(jnp.ones((5, *shape)) for shape in ((3,), (4,), (3,), (), (3,))))
        cameras = Cameras(jnp.eye(4), jnp.full(4, 5.0))
        drawn = render(scene, cameras, height=7, width=9, **self.options)
        return loss + jnp.mean(drawn.rgb), metrics


@pytest.mark.parametrize(
    ("rendering", "expected"), [({}, "xla"), ({"implementation": "reference"}, "reference")]
)
def test_splats_are_drawn_as_the_configuration_says(rendering, expected, monkeypatch):
    monkeypatch.delenv(dispatch.ENVIRONMENT, raising=False)
    drawn = []
    for name, composite in dispatch.IMPLEMENTATIONS.items():

        def noted(*args, name=name, composite=composite, **options):
            drawn.append(name)
            return composite(*args, **options)

        monkeypatch.setitem(dispatch.IMPLEMENTATIONS, name, noted)
    case = dataclasses.replace(make_case(batch_size=1), task=Drawing(**rendering))
    assert planning.estimate(case, make_target(GIB)).fits(GIB)
    assert set(drawn) == {expected}


def test_a_mesh_of_another_size_is_refused():
    target = Target("three", "cpu", [None] * 3, 1.0, "as given")
    with pytest.raises(settings.SettingsError, match=r"does not fit 3 device\(s\)"):
        planning.arguments_only(make_case({"mesh.data": 2}), target)


SHARDED = """
import sys, json
sys.path.insert(0, sys.argv[1])
import jax
jax.config.update("jax_num_cpu_devices", 4)
import test_planning as t
case = t.make_case({"mesh.fsdp": 2})
found = t.planning.arguments_only(case, t.make_target(1, devices=4))
mesh = t.meshes.make(case.settings.mesh)
abstract = t.start.abstract_state(case.task, case.settings, mesh)
shardings = jax.tree.map(lambda x: x.sharding, abstract)
transform = t.optimizer.make(case.settings.optimizer)
real = jax.jit(
    lambda key: t.state.create(case.task.init(key), transform), out_shardings=shardings
)(t.streams.root_key(0))
batch = t.meshes.put_local_batch(mesh, t.toy.make_batch(0, 64))
def held(tree):
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
print(json.dumps([
    [found.parameters, found.average, found.optimizer, found.batch],
    [held(real.params), held(real.ema), held(real) - held(real.params) - held(real.ema),
     3 * held(batch)],
]))
"""


def test_shares_of_several_devices_are_counted_to_the_byte():
    """In a process of its own, with four devices."""
    here = str(pathlib.Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, here], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    planned, real = json.loads(done.stdout)
    assert planned == real
    assert planned[0] < 4 * WIDTH * 5  # parameters are split


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e-17", "no size of a slice; expected one of v5e-4, v5e-8, v5e-16"),
        ("v5-16", "did you mean v5"),
        ("h10-8", "did you mean h100-8"),
        ("h100-12", "whole hosts of 8"),
        ("h100", "neither a number of simulated devices nor one of"),
        ("0", "neither a number"),
        ("8", "say how much each real one has, such as --memory=80GiB"),
    ],
)
def test_devices_that_are_refused(name, message):
    with pytest.raises(TargetError, match=message):
        planning_targets.open_target(name)


def test_a_compiler_that_is_not_installed_is_named(monkeypatch):
    def missing(**_):
        raise RuntimeError("not installed")

    monkeypatch.setattr(planning_targets.topologies, "get_topology_desc", missing)
    with pytest.raises(TargetError, match=r"not installed.*pip install libtpu"):
        planning_targets.open_target("v5e-16")
    with pytest.raises(TargetError, match="pip install jax-cuda12-plugin=="):
        planning_targets.open_target("h100-8")


def test_what_is_known_of_accelerators(monkeypatch):
    asked = []

    class Topology:
        devices = [None] * 8

    def describe(**options):
        asked.append(options)
        return Topology

    monkeypatch.setattr(planning_targets.topologies, "get_topology_desc", describe)
    monkeypatch.delenv(planning_targets.FRACTION, raising=False)
    assert planning_targets.open_target("v5p-16").memory == pytest.approx(95.74 * GIB)
    assert asked[-1] == {"platform": "tpu", "topology_name": "v5p:2x2x2"}
    found = planning_targets.open_target("h100-16")
    assert found.memory == 0.75 * 84942979072
    assert "75% of 79.1 GiB" in found.note
    assert asked[-1]["topology"] == "1x2x8"
    assert "NVIDIA H100" in asked[-1]["target_config"]
    assert planning_targets.open_target("h100-8", 5.0).memory == 5.0
    assert planning_targets.simulated("12") == 12
    assert planning_targets.simulated("h100-8") == 0


def test_devices_of_a_cpu_share_the_memory_of_the_machine(monkeypatch, tmp_path):
    assert planning_targets.machine_memory() > GIB
    monkeypatch.setattr(planning_targets, "machine_memory", lambda: 12 * GIB)
    monkeypatch.setattr(planning_targets, "_OWN_GROUPS", tmp_path / "not of this system")
    assert planning_targets.attached().memory * jax.device_count() == 12 * GIB
    assert "--memory says otherwise" in planning_targets.attached().note
    monkeypatch.setattr(planning_targets, "machine_memory", lambda: None)
    with pytest.raises(TargetError, match="give --memory=16GiB"):
        planning_targets.attached()
    assert planning_targets.attached(7.0).memory == 7.0
    assert np.size(planning_targets.attached(7.0).devices) == jax.device_count()


@pytest.mark.parametrize(
    ("own", "files", "gib"),
    [
        ("0::/", {"memory.max": 4 * GIB}, 4),
        ("0::/", {"memory.max": "max"}, 12),
        ("0::/", {}, 12),  # of the machine itself, which has no such file
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": 5 * GIB, "memory.max": "max"}, 5),
        ("0::/a/b", {"a/b/memory.max": 3 * GIB, "a/memory.max": 5 * GIB}, 3),
        ("0::/a", {"a/memory.max": 99 * GIB}, 12),
        ("0::/a", {"b/memory.max": GIB}, 12),
        ("4:cpu:/b\n3:memory:/a\n0::/", {"memory/a/memory.limit_in_bytes": 2 * GIB}, 2),
        ("3:hugetlb,memory:/host/a", {"memory/memory.limit_in_bytes": 2 * GIB}, 2),
        ("3:memory:/", {"memory/memory.limit_in_bytes": 2**63 - 4096}, 12),  # none
    ],
)
def test_the_memory_of_a_container_or_job_counts_where_it_is_less(
    own, files, gib, monkeypatch, tmp_path
):
    (tmp_path / "own").write_text(f"{own}\n")
    for name, limit in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    monkeypatch.setattr(planning_targets, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(planning_targets, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(planning_targets, "machine_memory", lambda: 12 * GIB)
    found = planning_targets.attached()
    assert found.memory * jax.device_count() == gib * GIB
    assert ("this container or job may use" in found.note) == (gib < 12)
