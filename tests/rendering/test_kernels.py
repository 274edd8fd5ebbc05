"""The kernels beyond their results: what is built for GPUs and TPUs, and a TPU's memory simulated.

`test_implementations.py` compares their results; these need no accelerator either.
"""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu
from render_scenes import make_cameras, make_scene

from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import tpu_streaming

TRITON = "__gpu$xla.gpu.triton"


def gradient_of(implementation, cameras, *, height=32, width=32):
    """Gradient and rendering as a function of a scene; two launches of a kernel at least."""

    def loss(scene):
        out = render(scene, cameras, height=height, width=width, implementation=implementation)
        return jnp.sum(jnp.sin(out.rgb)) + jnp.sum(out.depth), out

    return jax.jit(jax.grad(loss, has_aux=True))


def device_of(platform):
    """From JAX 0.11 on, Triton wants to know for which device it builds."""
    if platform != "cuda":
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(
        device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu"
    )
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


@pytest.mark.parametrize(
    ("implementation", "platform", "call"),
    [("pallas_gpu", "cuda", TRITON), ("pallas_tpu", "tpu", "tpu_custom_call")],
)
def test_kernels_lower_for_their_platform(implementation, platform, call):
    """As `jit` does it on the device; what JAX refuses to export is lowered too."""
    gradient = gradient_of(implementation, make_cameras(32, 32))
    with device_of(platform):
        traced = gradient.trace(make_scene(25, num=100))
        lowered = traced.lower(lowering_platforms=(platform,))
    assert lowered.as_text().count(call) >= 2


@pytest.mark.parametrize(
    ("implementation", "platform", "call"),
    [
        ("xla", "tpu", None),
        ("xla", "cuda", None),
        ("pallas_tpu", "tpu", "tpu_custom_call"),
        ("pallas_gpu", "cuda", TRITON),
    ],
)
def test_is_exported_for_its_platform(implementation, platform, call):
    # JAX promises no compatibility of exported Triton kernels with later versions, and refuses to
    # export them unless it is told that none is wanted.
    unpromised = [jax.export.DisabledSafetyCheck.custom_call(TRITON)]
    export = jax.export.export(
        gradient_of(implementation, make_cameras(32, 32)),
        platforms=[platform],
        disabled_checks=unpromised if call == TRITON else (),
    )
    scene = make_scene(25, num=100)
    with device_of(platform):
        exported = export(scene)
    assert exported.platforms == (platform,)
    expected = [x.shape for x in jax.tree.leaves(scene)]
    assert [x.shape for x in exported.out_avals][: len(expected)] == expected
    if call is not None:
        assert exported.mlir_module().count(call) >= 2


def test_triton_kernels_are_exported_only_unpromised():
    export = jax.export.export(gradient_of("pallas_gpu", make_cameras(32, 32)), platforms=["cuda"])
    with device_of("cuda"), pytest.raises(ValueError, match="no compatibility guarantees"):
        export(make_scene(25, num=100))


def lowered_for(platform, implementation):
    gradient = gradient_of(implementation, make_cameras(32, 32))
    with device_of(platform):
        traced = gradient.trace(make_scene(25, num=100))
        return traced.lower(lowering_platforms=(platform,)).as_text()


def test_a_gradient_on_gpus_is_added_up_in_one_order():
    """A scatter that adds is a race of atomics there, whose order differs from run to run."""

    def scatters(implementation):
        text = lowered_for("cuda", implementation)
        return re.findall(r'"stablehlo\.scatter".*?\n *}\) :', text, re.DOTALL)

    def adds(scatter):
        return "stablehlo.add" in scatter

    assert scatters("pallas_gpu")
    assert not any(map(adds, scatters("pallas_gpu")))
    assert any(map(adds, scatters("xla")))


@pytest.mark.parametrize(("platform", "operands"), [("cuda", 2), ("cpu", 1)])
def test_sorts_are_what_the_platform_does_best(platform, operands):
    """GPUs have a radix sort for pairs; on CPUs a single operand is several times faster."""
    sorts = re.findall(r'"stablehlo\.sort"\((.*?)\)', lowered_for(platform, "xla"))
    assert len(sorts) >= 3
    assert {len(s.split(",")) for s in sorts} == {operands}


def in_simulated_memory(scene, cameras, copies):
    """Gradient and rendering by the TPU kernels; its memories, copies and semaphores are simulated.

    What no copy has filled reads as not a number, and a read beside a buffer is an error.
    """
    options = tpu.InterpretParams(detect_races=True, dma_execution_mode=copies)
    with tpu.force_tpu_interpret_mode(options):
        out = gradient_of("pallas_tpu", cameras, height=16)(scene)
        return jax.block_until_ready(out)


# Several blocks of a list in each of two tiles: all of them blended, or only the first ones.
LONG_LISTS = {
    "blended": make_scene(25, num=140, opacity=(0.02, 0.1), scale=2.0),
    "hidden": make_scene(25, num=300, opacity=(0.9, 0.99), scale=2.0),
}


@pytest.mark.parametrize("scene", LONG_LISTS)
@pytest.mark.parametrize("copies", ["eager", "on_wait"])
def test_tpu_kernels_wait_for_what_they_copy(copies, scene, capfd):
    """Copies may be done at once, or no earlier than somebody waits for them."""
    scene, cameras = LONG_LISTS[scene], make_cameras(16, 32)
    gradient, out = in_simulated_memory(scene, cameras, copies)
    printed = "".join(capfd.readouterr())
    assert "RACE DETECTED" not in printed
    assert "non-zero count" not in printed  # of a semaphore at the end: a copy is on its way
    assert int(out.aux["required"]) > 2 * tpu_streaming.BLOCK
    expected_gradient, expected = gradient_of("reference", cameras, height=16)(scene)
    np.testing.assert_allclose(out.rgb, expected.rgb, atol=1e-5)
    for got, want in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient)):
        # As in test_implementations.py: float32 sums, in another order.
        assert np.linalg.norm(got - want) < 3e-5 * np.linalg.norm(want)


# As "blended", each of another shape, so that nothing is reused.
HASTY = [make_scene(25, num=num, opacity=(0.02, 0.1), scale=2.0) for num in (141, 142)]


def test_a_read_before_its_copy_has_arrived_is_noticed(capfd, monkeypatch):
    class Hasty(tpu_streaming.Blocks):
        def take(self, block):
            self._ask(block + 1)
            records = self.buffers[block & 1]
            self._fetch(block).wait()
            return records

    monkeypatch.setattr(tpu_streaming, "Blocks", Hasty)
    in_simulated_memory(HASTY[0], make_cameras(16, 32), "eager")
    assert "RACE DETECTED" in capfd.readouterr().out


def test_a_copy_that_is_not_waited_for_is_noticed(monkeypatch):
    class Hasty(tpu_streaming.Sums):
        def put(self, block, values):
            self.buffers[block & 1] = values
            self._copy(block).start()

    monkeypatch.setattr(tpu_streaming, "Sums", Hasty)
    gradient, _ = in_simulated_memory(HASTY[1], make_cameras(16, 32), "on_wait")
    assert not np.all(np.isfinite(gradient.means))
