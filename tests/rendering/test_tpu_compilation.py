"""The TPU kernels through the TPU's own compiler, on any machine where `pip install libtpu` is."""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from lgs_jax.cli import benchmark_tpu_kernels
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import pallas_tpu

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


@pytest.fixture
def without_cache():
    """JAX keeps programs, but cannot read again one for a device that is not there."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


def device_of(monkeypatch, target):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # there is no cloud machine to ask
    topology = topologies.get_topology_desc(platform="tpu", topology_name=f"{target}:2x2")
    return topology.devices[0]


@needs_libtpu
@pytest.mark.parametrize("target", ["v5e", "v6e"])
def test_forward_and_gradient_compile_ahead_of_time(monkeypatch, without_cache, target):
    sharding = jax.sharding.SingleDeviceSharding(device_of(monkeypatch, target))

    def argument(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    num = 1024
    shapes = ((num, 3), (num, 4), (num, 3), (num,), (num, 3))
    scene = Gaussians(*(argument(*shape) for shape in shapes))
    cameras = Cameras(argument(4, 4), argument(4))
    draw = functools.partial(render, height=64, width=64, implementation="pallas_tpu")
    gradient = jax.jit(jax.grad(lambda scene, cameras: jnp.sum(draw(scene, cameras).rgb)))
    lowered = gradient.trace(scene, cameras).lower(lowering_platforms=("tpu",))
    # Lists of 4,096 slots for 16 tiles are 0.4 MiB; a copy of them for every tile, say, would not
    # fit in this.
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 2**23


@needs_libtpu
@pytest.mark.parametrize(("direction", "arrays"), [("forward", 1), ("gradient", 2)])
def test_records_are_not_padded(monkeypatch, without_cache, direction, arrays):
    sharding = jax.sharding.SingleDeviceSharding(device_of(monkeypatch, "v5e"))
    num = 2_000_000
    plan = pallas_tpu.make_plan(64, 64, num_images=1, num_splats=num)
    function, shapes = benchmark_tpu_kernels.programs(plan, num)[direction]
    arguments = [jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes]
    jitted = jax.jit(function, donate_argnums=(0, 1))
    compiled = jitted.trace(*arguments).lower(lowering_platforms=("tpu",)).compile()
    # Columns of 16 numbers, less than half of that for numbers of splats, and the rows of four
    # pieces; all columns as rows of 16 numbers, laid out as 128, would be 2.1 GB.
    columns = 64 * (plan.segment + 127 * plan.num_tiles)
    pieces = 4 * 512 * 2**18
    assert compiled.memory_analysis().temp_size_in_bytes < pieces + 1.5 * arrays * columns


@needs_libtpu
def test_report_of_costs():
    """In a process of its own, because libtpu reads its options once."""
    code = (
        "from lgs_jax.cli import benchmark_tpu_kernels\n"
        "benchmark_tpu_kernels.report('v5e', cases=('tiny',), as_json=True)"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    forward, gradient = map(json.loads, out.stdout.splitlines())
    assert (forward["kernel"], gradient["kernel"]) == ("forward", "gradient")
    for result in (forward, gradient):
        # 128 splats x 256 pixels are 32 registers, with more than 20 operations each.
        assert result["VALU_per_block"] > 20 * 32
        assert result["VALU_per_block"] / 4 < result["bundles_per_block"]
        assert result["bundles_ms"] > 0 < result["copies_ms"]
    assert forward["bundles_per_block"] < gradient["bundles_per_block"] < 3000


def test_prediction_adds_up_blocks_and_tiles():
    result = {"slots": 1000, "tiles": 10, "bundles_per_block": 700, "bundles_per_tile": 100}
    result |= {"bytes_per_block": 8192, "bytes_per_tile": 32768}
    got = benchmark_tpu_kernels.predict(result, 1280, "v5e")
    # Two launches, in each of which ten lists end with half a block.
    assert (got["launches"], got["blocks"]) == (2, 20)
    clock = 197e12 / (4 * 2 * 128**2)
    np.testing.assert_allclose(got["bundles_ms"], 1e3 * (20 * 700 + 20 * 100) / clock)
    np.testing.assert_allclose(got["copies_ms"], 1e3 * (20 * 8192 + 20 * 32768) / 819e9)
    assert set(benchmark_tpu_kernels.predict(result, 1280, "v6e")) == {"launches", "blocks"}


BUNDLES = """header
     0   :  { %2 = vmov }
   0x1 LB: > { %3 = sadd }
   0x2   : >> { %4 = vmatmul.bf16 }
   0x3   : >> { %5 = vadd }
   0x4 PF: > { %6 = sbr }
   0x5   : >> { %7 = vst }
"""


def write_dump(folder: pathlib.Path, bundles: str) -> set[pathlib.Path]:
    usage = "== CAPACITY:\n4\n== UTILIZATION:\n" + "1 0 2 0 0 0 0 0 0 0\n" * 6
    (folder / "7-kernel-72-final_bundles.txt").write_text(bundles)
    (folder / "7-kernel-70-final_hlo-static-per-bundle-utilization.txt").write_text(usage)
    (folder / "8-copy-72-final_bundles.txt").write_text("     0   :  { %2 = vmov }\n")
    (folder / "9-scatter_fusion.3-67-final_bundles.txt").write_text("   0x7   : >> { %2 = vmov }\n")
    return set(folder.iterdir())


def test_the_longest_inner_loop_is_that_of_a_block(tmp_path):
    loop = benchmark_tpu_kernels.read_bundles(write_dump(tmp_path, BUNDLES))
    assert (loop.block, loop.tile) == (2, 2)
    assert (loop.units["MXU"], loop.units["VALU"], loop.units["EUP"]) == (2, 4, 0)
    assert loop.around == {"scatter": 1}


@pytest.mark.parametrize(
    ("bundles", "message"),
    [
        (BUNDLES.replace("vmatmul", "vmul"), "0 of 3 programs"),
        (BUNDLES.replace(">>", ">"), "6 bundles in loops 1 deep against 6"),
    ],
)
def test_another_format_is_an_error(tmp_path, bundles, message):
    with pytest.raises(benchmark_tpu_kernels.CompilerError, match=message):
        benchmark_tpu_kernels.read_bundles(write_dump(tmp_path, bundles))


def test_more_tiles_than_scalar_memory_holds_are_declined():
    pallas_tpu.make_plan(1080, 1920, num_images=31, num_splats=10)
    with pytest.raises(NotImplementedError, match=r"261,120 tiles at once.*fewer than 32 images"):
        pallas_tpu.make_plan(1080, 1920, num_images=32, num_splats=10)


def test_report_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(benchmark_tpu_kernels.CompilerError, match="pip install libtpu"):
        benchmark_tpu_kernels.report("v5e")
