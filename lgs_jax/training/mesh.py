"""The device mesh and where arrays live on it.

Two axes: `data` and `fsdp`. A batch is split over both; parameters are split over `fsdp` only, and
with `fsdp=1` they are replicated.
"""

import dataclasses
import math
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lgs_jax.settings import SettingsError

BATCH_AXES = ("data", "fsdp")

# Splitting a small array costs a collective per use and frees next to nothing.
_MIN_SPLIT_ELEMENTS = 2**14


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """How many devices each axis of the mesh has.

    Attributes:
      data: devices along `data`, over which only the batch is split; -1: all that remain (of a
        CPU: its cores, as far as they divide the batch).
      fsdp: devices along `fsdp`, over which parameters and optimizer state are split too.
    """

    data: int = -1
    fsdp: int = 1

    def __post_init__(self):
        if self.fsdp < 1 or (self.data < 1 and self.data != -1):
            raise ValueError(f"{self.data=} must be positive or -1, {self.fsdp=} positive")


def cpu_devices(settings: MeshSettings, *batch_sizes: int, cores: int | None = None) -> int:
    """How many devices to make of a CPU: what the mesh asks for, else one per core.

    XLA runs the many small loops of the rasterizer one after another on each device, so that a CPU
    in one piece leaves cores idle. With `data=-1` it is the largest number that is no more than the
    cores and splits every batch (scenes on all devices together) evenly.

    Args:
      settings: the mesh.
      batch_sizes: of a microbatch and of an evaluation.
      cores: None: those that this process may use.
    """
    if settings.data != -1:
        return settings.data * settings.fsdp
    if cores is None:
        affinity = getattr(os, "sched_getaffinity", None)  # not on every system
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    common = math.gcd(*batch_sizes)
    most = max(cores, settings.fsdp)
    fitting = (n for n in range(1, most + 1) if common % n == 0 and n % settings.fsdp == 0)
    return max(fitting, default=1)


def split_cpu(settings: MeshSettings, *batch_sizes: int) -> None:
    """Sets the number of CPU devices to `cpu_devices`; to be called before JAX starts its backend.

    Without effect where the environment has chosen a number (JAX_NUM_CPU_DEVICES, or XLA_FLAGS),
    and on training that runs on an accelerator.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen and jax.config.jax_num_cpu_devices == -1:
        jax.config.update("jax_num_cpu_devices", cpu_devices(settings, *batch_sizes))


def make(settings: MeshSettings) -> Mesh:
    """The mesh over the devices of all processes.

    Raises:
      SettingsError: if the axes do not multiply to the number of devices.
    """
    count = jax.device_count()
    data = count // settings.fsdp if settings.data == -1 else settings.data
    if data * settings.fsdp != count:
        raise SettingsError(
            f"config.mesh: data={settings.data} x fsdp={settings.fsdp} does not fit {count} "
            "device(s); the product must be their number (data=-1 takes what remains)"
        )
    # Linen's layers raise on the Explicit axes that make_mesh gives by default.
    return jax.make_mesh(
        (data, settings.fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * len(BATCH_AXES)
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def state_shardings(mesh: Mesh, tree: Any) -> Any:
    """Shardings of parameters or any state shaped like them.

    An array of at least 2^14 elements is split over `fsdp` along its largest divisible axis; all
    else is replicated. The rule sees shapes only: a parameter, its moments and its average agree.
    """
    parts = mesh.shape["fsdp"]

    def sharding(leaf: Any) -> NamedSharding:
        shape = tuple(leaf.shape)
        axes = [i for i, size in enumerate(shape) if size % parts == 0]
        if parts == 1 or not axes or math.prod(shape) < _MIN_SPLIT_ELEMENTS:
            return replicated(mesh)
        best = max(axes, key=lambda i: shape[i])
        return NamedSharding(
            mesh, PartitionSpec(*("fsdp" if i == best else None for i in range(len(shape))))
        )

    return jax.tree.map(sharding, tree)


def check_batch_size(mesh: Mesh, batch_size: int, accumulate_steps: int = 1) -> None:
    """Raises SettingsError unless every device gets equally many scenes of every microbatch."""
    if batch_size % (mesh.size * accumulate_steps):
        raise SettingsError(
            f"{batch_size=} must be a multiple of devices x accumulate_steps = "
            f"{mesh.size} x {accumulate_steps}; change the batch size or accumulate_steps"
        )


def put_local_batch(mesh: Mesh, batch: Any) -> Any:
    """Puts this process's share of a batch on its devices; the result is the global batch."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def put_global_batch(mesh: Mesh, batch: Any) -> Any:
    """Splits a batch that every process holds in full over all devices."""
    sharding = batch_sharding(mesh)

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, batch)
