"""What a training needs of its devices, before it is started.

The training step is compiled from shapes, exactly as the trainer compiles it; nothing is allocated
and no batch is read. XLA then says what the program needs. Bytes are those of one device.

Letters: B scenes of a batch.
"""

import contextlib
import dataclasses
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lgs_jax.nn import multiview_unet
from lgs_jax.rendering.splat import dispatch
from lgs_jax.training import communication, profiling, start
from lgs_jax.training import mesh as meshes
from lgs_jax.training.communication import Row
from lgs_jax.training.planning_targets import GIB, Target
from lgs_jax.training.settings import TrainSettings

Changes = Mapping[str, Any]  # values by their place in the configuration, such as "mesh.fsdp"
Say = Callable[[str], None]

# One for each step that the devices have not finished, and the next.
_BATCHES = profiling.RUN_AHEAD + 1


@dataclasses.dataclass(frozen=True)
class Case:
    """A training as `loop.train` gets it, but for its data.

    Attributes:
      task: a `tasks.task.Task`.
      settings: how to train.
      entry: one scene of a batch; arrays, of which only shapes and types are looked at.
      constants: further arguments of the loss; arrays or their shapes.
      remat: what the model computes again, one of `multiview_unet.REMATS`; None: it has no choice.
    """

    task: Any
    settings: TrainSettings
    entry: Mapping[str, Any]
    constants: tuple[Any, ...] = ()
    remat: str | None = None


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one device needs during a training step, in bytes.

    The first five are exact, from shapes and shardings. Of batches there are several, because the
    loop runs ahead of the devices.

    Attributes:
      parameters: of the model.
      optimizer: state of the optimizer, and the counters.
      average: running average of the parameters.
      constants: what is neither trained nor saved, such as a frozen autoencoder.
      batch: all batches that are on the devices at once.
      padding: what the arguments take beyond that in the layout of the device.
      temporaries: activations, gradients and the like.
      outputs: results that are not written in place of an argument.
      code: the program itself.
      refused: what the compiler said, if it found no program that fits; then everything that the
        arguments do not need is in `temporaries`, and no more than a guess.
      flops: of the matrix products of a step, on all devices together.
      flops_of_compiler: XLA's count (`cost_analysis`) of all operations of one device, the body of
        a loop once; None where it has none.
      communication: what the device sends in a step, rows of `communication.table`.
      seconds: that tracing and compiling took.
    """

    parameters: int
    optimizer: int
    average: int
    constants: int
    batch: int
    padding: int = 0
    temporaries: int = 0
    outputs: int = 0
    code: int = 0
    refused: str = ""
    flops: float = 0.0
    flops_of_compiler: float | None = None
    communication: tuple[Row, ...] = ()
    seconds: float = 0.0

    @property
    def arguments(self) -> int:
        """Everything that is there before the step begins."""
        return self.parameters + self.optimizer + self.average + self.constants + self.batch

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.padding + self.temporaries + self.outputs + self.code

    def fits(self, memory: float) -> bool:
        """Whether a device with so many bytes has room for it."""
        return not self.refused and self.total <= memory


@dataclasses.dataclass(frozen=True)
class Tried:
    """A changed configuration and what it needs; None: left out, it cannot fit."""

    changes: Changes
    estimate: Estimate | None


def arguments_of(case: Case, mesh: Mesh) -> tuple[Any, Any, Any]:
    """State, batch and constants of a step as shapes with their shardings."""
    settings = case.settings
    meshes.check_batch_size(mesh, settings.batch_size, settings.accumulate_steps)
    meshes.check_batch_size(mesh, settings.evaluation_batch_size)

    def shape(x: Any, lead: tuple[int, ...] = ()) -> jax.ShapeDtypeStruct:
        dtype = jax.dtypes.canonicalize_dtype(x.dtype)
        return jax.ShapeDtypeStruct((*lead, *np.shape(x)), dtype)

    batch = jax.tree.map(lambda x: shape(x, (settings.batch_size,)), case.entry)
    constants = jax.tree.map(shape, case.constants)
    state = start.abstract_state(case.task, settings, mesh)
    return (
        state,
        placed(batch, meshes.batch_shardings(mesh, batch)),
        placed(constants, meshes.state_shardings(mesh, constants)),
    )


def placed(shapes: Any, shardings: Any) -> Any:
    """Shapes with their shardings."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def arguments_only(case: Case, target: Target) -> Estimate:
    """The exact part of an estimate; nothing is compiled."""
    state, batch, constants = arguments_of(case, meshes.make(case.settings.mesh, target.devices))
    parameters, average = bytes_of(state.params), bytes_of(state.ema)
    return Estimate(
        parameters=parameters,
        optimizer=bytes_of(state) - parameters - average,
        average=average,
        constants=bytes_of(constants),
        batch=_BATCHES * bytes_of(batch),
    )


def _of_one_batch(exact: Estimate) -> int:
    """Bytes of the step's own arguments."""
    return exact.arguments - exact.batch + exact.batch // _BATCHES


def bytes_of(tree: Any) -> int:
    """Bytes of a tree of shapes with shardings on one device."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def estimate(case: Case, target: Target) -> Estimate:
    """Compiles the training step for the target and says what it needs.

    Raises:
      lgs_jax.settings.SettingsError: if the mesh or the batch does not fit the devices.
    """
    began = time.monotonic()
    exact = arguments_only(case, target)
    mesh = meshes.make(case.settings.mesh, target.devices)
    with rasterizer(target.platform):
        traced = _trace(case, mesh)
        lowered = traced.lower(lowering_platforms=(target.platform,))
        try:
            compiled = lowered.compile(dict(target.compiler_options))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return refused(exact, str(error), time.monotonic() - began)
    memory = compiled.memory_analysis()
    sent = communication.collectives(compiled.as_text(), mesh.size)
    return dataclasses.replace(
        exact,
        # XLA drops arguments that the step does not look at; they are on the devices all the same.
        padding=max(0, memory.argument_size_in_bytes - _of_one_batch(exact)),
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=profiling.matmul_flops(traced.jaxpr),
        flops_of_compiler=(compiled.cost_analysis() or {}).get("flops"),
        communication=tuple(communication.table(sent, mesh.shape)),
        seconds=time.monotonic() - began,
    )


def _trace(case: Case, mesh: Mesh) -> jax.stages.Traced:
    state, batch, constants = arguments_of(case, mesh)
    function = start.jit_step(case.task, case.settings, mesh, state)
    with jax.set_mesh(mesh):
        return function.trace(state, batch, constants)


def refused(exact: Estimate, message: str, seconds: float) -> Estimate:
    """The estimate for a program that the compiler does not find room for."""
    units = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    found = re.search(r"(?:Used |\()(\d+(?:\.\d+)?)([KMGT])", message)
    needed = float(found[1]) * units[found[2]] if found else 0.0
    return dataclasses.replace(
        exact,
        temporaries=max(0, int(needed) - exact.arguments),
        refused=message.partition("\n")[0],
        seconds=seconds,
    )


@contextlib.contextmanager
def rasterizer(platform: str) -> Iterator[None]:
    """Lets splats be drawn as on another platform than that on which JAX runs here.

    A task whose configuration names an implementation (`config.rendering`) draws with that one.
    """
    preferred = dispatch.PREFERRED.get({"cuda": "gpu"}.get(platform, platform), ())
    if os.environ.get(dispatch.ENVIRONMENT) or not preferred:
        yield
        return
    os.environ[dispatch.ENVIRONMENT] = preferred[0]
    try:
        yield
    finally:
        os.environ.pop(dispatch.ENVIRONMENT)


def suggest(
    make: Callable[[Changes], Case], target: Target, first: Estimate, say: Say
) -> list[Tried]:
    """Looks for the cheapest change with which a training fits; the global batch stays the same.

    In this order: more microbatches, then more that is computed again, then parameters split over
    all devices. What cannot fit is not compiled: its arguments alone are too large, or its
    temporaries would be if microbatches shrank them in proportion, the best that they can do.

    Args:
      make: the training with changes to its configuration.
      target: the devices.
      first: the estimate without changes, which does not fit.
      say: told of every attempt.

    Returns:
      all attempts; only the last one may fit.
    """
    case = make({})
    settings = case.settings
    tried: list[Tried] = []
    temporaries = {(settings.mesh.fsdp, case.remat): (settings.accumulate_steps, first)}
    parts = scene_parts(settings, target)
    for fsdp, remat in _groups(case, parts):
        for accumulate in _accumulations(settings, parts):
            changes: dict[str, Any] = {}
            if accumulate != settings.accumulate_steps:
                changes["training.accumulate_steps"] = accumulate
            if remat != case.remat:
                changes["model.remat"] = remat
            if fsdp != settings.mesh.fsdp:
                changes |= {"mesh.data": -1} if settings.mesh.data != -1 else {}
                changes["mesh.fsdp"] = fsdp
            if not changes:
                continue
            candidate = make(changes)
            least = arguments_only(candidate, target).arguments
            if known := temporaries.get((fsdp, remat)):
                least += known[1].temporaries * known[0] // accumulate
            if least > target.memory:
                say(f"{flags(changes)}: at least {readable(least)}, not compiled")
                tried.append(Tried(changes, None))
                continue
            tried.append(Tried(changes, attempt(candidate, changes, target, say)))
            temporaries[fsdp, remat] = (accumulate, tried[-1].estimate)
            if tried[-1].estimate.fits(target.memory):
                return tried
    return tried


def scene_parts(settings: TrainSettings, target: Target) -> int:
    """Over how many devices the scenes of a batch are split."""
    return len(target.devices) // settings.mesh.per_scene


def _groups(case: Case, parts: int) -> list[tuple[int, str | None]]:
    """Devices that share parameters, and what is computed again; cheapest first."""
    splits = sorted({case.settings.mesh.fsdp, parts})
    every = multiview_unet.REMATS
    remats = every[every.index(case.remat) :] if case.remat else (None,)
    return [(fsdp, remat) for fsdp in splits for remat in remats]


def _accumulations(settings: TrainSettings, parts: int) -> Iterator[int]:
    """The number of microbatches, doubled for as long as every device has a scene of each."""
    steps = settings.accumulate_steps
    while settings.batch_size % (steps * parts) == 0:
        yield steps
        steps *= 2


def largest_batch(
    make: Callable[[Changes], Case], target: Target, first: Estimate, say: Say, most: int = 6
) -> list[Tried]:
    """Looks for the most scenes with which a training fits, all else unchanged.

    Memory is taken to grow linearly with the batch between two that were compiled; what follows is
    compiled too, and the line drawn anew if it was wrong.

    Args:
      make: the training with changes to its configuration.
      target: the devices.
      first: the estimate without changes.
      say: told of every attempt.
      most: attempts.

    Returns:
      all attempts; the largest batch of those that fit is the answer.
    """
    settings = make({}).settings
    unit = scene_parts(settings, target) * settings.accumulate_steps
    known = {settings.batch_size: first}
    tried = []
    size = 2 * settings.batch_size if first.fits(target.memory) else settings.batch_size // 2
    for _ in range(most):
        fitting = max((b for b, e in known.items() if e.fits(target.memory)), default=0)
        beyond = min((b for b, e in known.items() if not e.fits(target.memory)), default=math.inf)
        size = max(size // unit * unit, fitting + unit)
        if size >= beyond:
            size = beyond - unit
        if size <= fitting:
            break
        changes = {"training.batch_size": size}
        known[size] = attempt(make(changes), changes, target, say)
        tried.append(Tried(changes, known[size]))
        size = _where_the_line_ends(known, target.memory)
    return tried


def _where_the_line_ends(known: Mapping[int, Estimate], memory: float) -> int:
    """The batch that needs just the memory, by the line through the two batches nearest to it."""
    near = sorted(known, key=lambda batch: abs(known[batch].total - memory))[:2]
    low, high = sorted(near)
    slope = (known[high].total - known[low].total) / (high - low)
    if slope <= 0:
        return 2 * max(known)
    return int(low + (memory - known[low].total) / slope)


def attempt(case: Case, changes: Changes, target: Target, say: Say) -> Estimate:
    """An estimate, told of."""
    found = estimate(case, target)
    size = found.refused or readable(found.total)
    say(f"{flags(changes) or 'as configured'}: {size} ({found.seconds:.0f} s to compile)")
    return found


def flags(changes: Changes) -> str:
    """Changes as they are given on the command line."""
    return " ".join(f"--config.{name}={value}" for name, value in changes.items())


def readable(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.2f} MiB"
