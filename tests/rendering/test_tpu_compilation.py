"""The TPU kernels through the TPU's own compiler, on any machine where `pip install libtpu` is."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies

from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import render


@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2"])
def test_forward_and_gradient_compile_ahead_of_time(monkeypatch, topology):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # there is no cloud machine to ask
    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]

    def argument(*shape):
        sharding = jax.sharding.SingleDeviceSharding(device)
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    num = 1024
    shapes = ((num, 3), (num, 4), (num, 3), (num,), (num, 3))
    scene = Gaussians(*(argument(*shape) for shape in shapes))
    cameras = Cameras(argument(4, 4), argument(4))
    draw = functools.partial(render, height=64, width=64, implementation="pallas_tpu")
    gradient = jax.jit(jax.grad(lambda scene, cameras: jnp.sum(draw(scene, cameras).rgb)))
    lowered = gradient.trace(scene, cameras).lower(lowering_platforms=("tpu",))
    # Lists of 1,024 splats with 8 entries each, in rows laid out over 128 lanes, are 4 MiB; a copy
    # of them for every tile, say, would not fit in this.
    assert lowered.compile().memory_analysis().temp_size_in_bytes < 2**28
