"""The GPU kernels through XLA's and NVIDIA's compilers, on any machine with JAX's CUDA plugin."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import render
from lgs_jax.training import planning_targets


@pytest.mark.parametrize("tile", [8, 16])
def test_forward_and_gradient_compile_ahead_of_time(tile):
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        pytest.skip("jax-cuda12-plugin is not installed")
    target = planning_targets.open_target("h200-1")

    def argument(*shape):
        sharding = jax.sharding.SingleDeviceSharding(target.devices[0])
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    num = 1000
    shapes = ((num, 3), (num, 4), (num, 3), (num,), (num, 3))
    scene = Gaussians(*(argument(*shape) for shape in shapes))
    cameras = Cameras(argument(4, 4), argument(4))
    options = {"implementation": "pallas_gpu", "tile_size": tile}
    draw = functools.partial(render, height=64, width=64, **options)
    gradient = jax.jit(jax.grad(lambda scene, cameras: jnp.sum(draw(scene, cameras).rgb)))
    lowered = gradient.trace(scene, cameras).lower(lowering_platforms=("cuda",))
    compiled = lowered.compile(dict(target.compiler_options))
    # The tiles forward, the tiles backward, and the sums of the rows.
    assert compiled.as_text().count('"__gpu$xla.gpu.triton"') == 3
