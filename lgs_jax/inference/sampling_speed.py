"""How long it takes to sample scenes, by stage: latent diffusion and its rival in pixel space.

Everything is compiled ahead of time, once per shape, and sampling is one program: noise in, scenes
and their V images out. For latent diffusion that is the loop of denoising steps, the decoder and
one rendering of all views; the rival's last step has rendered its images, so it only asks for the
scene behind them.

Letters: B scenes, V views.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax import settings
from lgs_jax.core.cameras import Cameras
from lgs_jax.diffusion import samplers
from lgs_jax.models.conditioning import NO_CLASS, Conditioning
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.models.guide import Guide
from lgs_jax.rendering.api import render
from lgs_jax.tasks.diffusion import DiffusionTask
from lgs_jax.tasks.pixel_diffusion import PixelDiffusionTask

Array = jax.Array

# What both must have in common for their times to be compared.
_EQUAL_SAMPLER = ("name", "grid", "guidance", "guidance_known", "guidance_interval", "rescale")
_EQUAL_SAMPLER += ("autoguidance", "autoguidance_known")
_EQUAL = ("embedding_size", "widths", "blocks_per_level", "middle_blocks", "dtype")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Scenes to be sampled from nothing: conditions, keys [B] and something noisy to denoise."""

    condition: Conditioning
    keys: Array
    z: Array
    log_snr: Array


jax.tree_util.register_dataclass(Inputs, ["condition", "keys", "z", "log_snr"], [])


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to sample.

    Attributes:
      name: for tables.
      constants: parameters, arguments of all programs.
      shape: V, ..., C of what is denoised.
      stages: by name, functions (constants, inputs, output of the stage before) -> output.
      whole: steps -> function (constants, inputs) -> (scenes, images).
      parts: how many times each stage runs in the whole, by steps.
    """

    name: str
    constants: Any
    shape: tuple[int, ...]
    stages: Mapping[str, Callable[..., Any]]
    whole: Callable[[int], Callable[..., Any]]
    parts: Callable[[int], Mapping[str, int]]


@dataclasses.dataclass
class Timed:
    """A compiled program and its times in seconds.

    Attributes:
      call: runs it and waits for it.
      first_s: compilation and the first run.
      temporary_mb: memory beside arguments and results.
      flops: as the compiler counts; the body of a loop once, however often it runs.
      later_s: later runs.
      output: of the first run.
    """

    call: Callable[[], Any]
    first_s: float
    temporary_mb: float
    flops: float
    later_s: list[float]
    output: Any

    @property
    def median_s(self) -> float:
        """Median of the later runs."""
        return float(np.median(self.later_s))


def latent(
    task: DiffusionTask,
    frozen: FrozenAutoencoder,
    params: Any,
    guide: Guide | None = None,
    name: str = "latent",
) -> Contender:
    """Latent diffusion: a loop without rendering, then one decoding and one rendering."""

    def draw(scene: Any, cameras: Cameras) -> Array:
        height, width = task.image_size
        return render(scene, cameras, height=height, width=width, depth_mode=None).rgb

    def weaker(constants: Any, x: Inputs, _: Any) -> Array:
        guide = constants[2]
        return task.raw(guide.params, x.z, x.log_snr, x.condition, guide.module)

    def whole(steps: int) -> Callable[..., Any]:
        sampler = dataclasses.replace(task.sampler, steps=steps)

        def run(constants: Any, x: Inputs) -> Any:
            frozen, params, guide = constants
            latents = task.sample(params, x.condition, x.keys, sampler, guide=guide)
            scene = frozen.decode(latents, x.condition.cameras)
            return scene, draw(scene, x.condition.cameras)

        return run

    return Contender(
        name=name,
        constants=(frozen, params, guide),
        shape=(task.num_views, *frozen.latent_shape),
        stages={
            **({"guide's step": weaker} if guide else {}),
            "denoising step": lambda c, x, _: task.raw(c[1], x.z, x.log_snr, x.condition),
            "decode": lambda c, x, z: c[0].decode(z, x.condition.cameras),
            "render": lambda c, x, scene: draw(scene, x.condition.cameras),
        },
        whole=whole,
        parts=lambda steps: {
            **({"guide's step": _calls(task, steps)} if guide else {}),
            "denoising step": _evaluations(task, steps),
            "decode": 1,
            "render": 1,
        },
    )


def pixel(task: PixelDiffusionTask, params: Any, name: str = "pixel") -> Contender:
    """Diffusion in pixel space: a loop that renders, then one pass for the scene."""

    def whole(steps: int) -> Callable[..., Any]:
        sampler = dataclasses.replace(task.sampler, steps=steps)

        def run(params: Any, x: Inputs) -> Any:
            images = task.sample(params, x.condition, x.keys, sampler)
            return task.final_scene(params, images, x.condition), images

        return run

    return Contender(
        name=name,
        constants=params,
        shape=(task.num_views, *task.image_size, 3),
        stages={
            "network": lambda p, x, _: task.scene(p, x.z, x.log_snr, x.condition),
            "render": lambda p, x, scene: task.render(scene, x.condition.cameras).rgb,
            "denoising step": lambda p, x, _: task.raw(p, x.z, x.log_snr, x.condition),
        },
        whole=whole,
        parts=lambda steps: {"denoising step": _evaluations(task, steps), "network": 1},
    )


def check_equal(latent_task: DiffusionTask, pixel_task: PixelDiffusionTask) -> None:
    """Refuses a comparison of unequal models.

    Raises:
      lgs_jax.settings.SettingsError: that names all that differs, with both values.
    """
    pairs = {name: [getattr(t.model, name) for t in (latent_task, pixel_task)] for name in _EQUAL}
    for name in ("image_size", "num_views"):
        pairs[name] = [getattr(t, name) for t in (latent_task, pixel_task)]
    for name in _EQUAL_SAMPLER:
        pairs[f"sampler.{name}"] = [getattr(t.sampler, name) for t in (latent_task, pixel_task)]
    different = [f"{name}: {a} and {b}" for name, (a, b) in pairs.items() if a != b]
    if different:
        raise settings.SettingsError(
            "latent and pixel diffusion can only be compared at equal size; these differ:\n  "
            + "\n  ".join(different)
        )


def make_inputs(contender: Contender, cameras: Cameras, batch: int) -> Inputs:
    """Inputs of `batch` scenes, all seen from the cameras [V], with no known view."""
    shape = (batch, *contender.shape)
    keys = samplers.scene_keys(jax.random.key(0), batch)
    spread = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), cameras)
    return Inputs(
        condition=Conditioning(
            spread, jnp.zeros(shape), jnp.zeros(shape[:2], bool), jnp.full(batch, NO_CLASS)
        ),
        keys=keys,
        z=samplers.initial_noise(keys, shape),
        log_snr=jnp.zeros(batch),
    )


def compile_stages(contender: Contender, inputs: Inputs) -> dict[str, Timed]:
    """The stages, each run once on what the one before has left."""
    timed, given = {}, None
    for name, function in contender.stages.items():
        timed[name] = prepare(function, contender.constants, inputs, given)
        given = timed[name].output
    return timed


def prepare(function: Callable[..., Any], *arguments: Any) -> Timed:
    """Compiles a function for its arguments and runs it once."""
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()

    def call() -> Any:
        return jax.block_until_ready(compiled(*arguments))

    output = call()
    return Timed(
        call=call,
        first_s=time.perf_counter() - began,
        temporary_mb=compiled.memory_analysis().temp_size_in_bytes / 2**20,
        flops=float(compiled.cost_analysis().get("flops", float("nan"))),
        later_s=[],
        output=output,
    )


def time_in_turns(programs: Sequence[Timed], repeats: int) -> None:
    """Times programs in turns, so that what else the machine does falls on all of them alike."""
    for _ in range(repeats):
        for program in programs:
            began = time.perf_counter()
            program.call()
            program.later_s.append(time.perf_counter() - began)


def _evaluations(task: DiffusionTask | PixelDiffusionTask, steps: int) -> int:
    """How often a sampler of so many steps asks the network."""
    calls = _calls(task, steps)
    return calls if task.sampler.scales == (1.0, 1.0) else 2 * calls


def _calls(task: DiffusionTask | PixelDiffusionTask, steps: int) -> int:
    """How often it asks for a prediction; see `diffusion.samplers`."""
    return (2 if task.sampler.name == "heun" else 1) * steps + 1
