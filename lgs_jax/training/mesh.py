"""The device mesh and where arrays live on it.

Four axes: `data` and `fsdp` split the scenes of a batch; `view` the views of a scene and `spatial`
the rows of its maps, for scenes that are too large for a device, or devices that outnumber the
scenes. Parameters are split over `fsdp` only, and with `fsdp=1` they are replicated.
`core.sharding` has the rules.

Letters: P processes.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lgs_jax.core import sharding
from lgs_jax.settings import SettingsError, require

# Splitting a small array costs a collective per use and frees next to nothing.
_MIN_SPLIT_ELEMENTS = 2**14


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """How many devices each axis of the mesh has.

    Attributes:
      data: devices along `data`, over which only the batch is split; -1: all that remain (of a
        CPU: its cores, as far as they divide the batch).
      fsdp: devices along `fsdp`, over which parameters and optimizer state are split too.
      view: devices that share the views of a scene; must divide `data.context_views`.
      spatial: devices that share the rows of a view; must divide the images' height.
    """

    data: int = -1
    fsdp: int = 1
    view: int = 1
    spatial: int = 1

    def __post_init__(self):
        require(self, ("fsdp", "view", "spatial"), lambda n: n >= 1, "must be positive")
        rule = "must be positive, or -1 for all devices that remain"
        require(self, ("data",), lambda n: n >= 1 or n == -1, rule)

    @property
    def per_scene(self) -> int:
        """Devices that work on one scene together."""
        return self.view * self.spatial


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
    one_row = settings.fsdp * settings.per_scene
    if settings.data != -1:
        return settings.data * one_row
    if cores is None:
        affinity = getattr(os, "sched_getaffinity", None)  # not on every system
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    common = math.gcd(*batch_sizes)
    rows = range(1, max(cores // one_row, 1) + 1)
    fitting = (n * one_row for n in rows if common % (n * settings.fsdp) == 0)
    return max(fitting, default=1)


def split_cpu(settings: MeshSettings, *batch_sizes: int) -> None:
    """Sets the number of CPU devices to `cpu_devices`; to be called before JAX starts its backend.

    Without effect where the environment has chosen a number (JAX_NUM_CPU_DEVICES, or XLA_FLAGS),
    and on training that runs on an accelerator.
    """
    chosen = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not chosen and jax.config.jax_num_cpu_devices == -1:
        jax.config.update("jax_num_cpu_devices", cpu_devices(settings, *batch_sizes))


def make(settings: MeshSettings, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over some devices; None: those of all processes.

    Raises:
      SettingsError: if the axes do not multiply to the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    rest = settings.fsdp * settings.per_scene
    data = count // rest if settings.data == -1 else settings.data
    if data * rest != count:
        raise SettingsError(
            f"config.mesh: data={settings.data} x fsdp={settings.fsdp} x view={settings.view} x "
            f"spatial={settings.spatial} does not fit {count} device(s); the product must be their "
            "number (data=-1 takes what remains)"
        )
    # Linen's layers raise on the Explicit axes that make_mesh gives by default.
    return jax.make_mesh(
        (data, settings.fsdp, settings.view, settings.spatial),
        sharding.MESH_AXES,
        axis_types=(AxisType.Auto,) * len(sharding.MESH_AXES),
        devices=devices,
    )


def of_one_device(mesh: Mesh) -> Mesh:
    """The first device of this process alone, with the axes of a mesh."""
    device = np.reshape(jax.local_devices()[:1], [1] * len(mesh.axis_names))
    return Mesh(device, mesh.axis_names, axis_types=mesh.axis_types)


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_shardings(mesh: Mesh, shapes: Any) -> Any:
    """Shardings of the arrays of a whole batch, by their names; see `core.sharding`.

    Raises:
      SettingsError: if there are devices along `view` or `spatial` that would share nothing.
    """
    _check_shared_axes(mesh, shapes)

    def of_array(path: Any, x: Any) -> NamedSharding:
        names = sharding.names_in_batch(path[-1].key)
        return NamedSharding(mesh, sharding.spec(x.shape, *names, mesh=mesh))

    return jax.tree_util.tree_map_with_path(of_array, shapes)


def check_scenes(settings: MeshSettings, *, views: int, height: int) -> None:
    """Raises SettingsError unless devices along `view` and `spatial` can share scenes of images.

    It needs no devices, and looks at images alone: latents have fewer rows (`batch_shardings`).
    """
    sizes = (1, settings.fsdp, settings.view, settings.spatial)
    images = jax.ShapeDtypeStruct((1, views, height), np.uint8)
    _check_shared_axes(AbstractMesh(sizes, sharding.MESH_AXES), {"context": {"images": images}})


def _check_shared_axes(mesh: Mesh | AbstractMesh, shapes: Any) -> None:
    """Raises SettingsError unless `view` and `spatial` split what they should of each scene.

    Held-out views (`target`) stay whole where they do not divide.
    """
    for name, what in (
        ("view", "the views (config.data.context_views)"),
        ("height", "the rows of images and latents (config.data.height), two for each device"),
    ):
        (axis,) = sharding.RULES[name]
        lengths = sorted(set(_lengths(shapes, name)))
        whole = [n for n in lengths if sharding.spec((n,), name, mesh=mesh)[0] is None]
        if mesh.shape[axis] > 1 and (whole or not lengths):
            found = f"of which there are {whole}" if whole else "which this task's batches lack"
            raise SettingsError(
                f"config.mesh.{axis}={mesh.shape[axis]} must divide {what}, {found}; change one "
                f"of them, or give config.mesh.{axis}=1"
            )


def _lengths(shapes: Any, name: str) -> Iterator[int]:
    """Of all dimensions with a name in the arrays of a batch, held-out views left out."""
    for path, x in jax.tree_util.tree_leaves_with_path(shapes):
        names = sharding.names_in_batch(path[-1].key)
        if name in names and path[0].key != "target":
            yield x.shape[names.index(name)]


def state_shardings(mesh: Mesh, tree: Any) -> Any:
    """Shardings of parameters or any state shaped like them.

    An array of at least 2^14 elements is split along its largest divisible dimension, over the axes
    of `sharding.RULES["parameter"]`; all else is replicated. The rule sees shapes only: a
    parameter, its moments and its average agree.
    """

    def of_array(leaf: Any) -> NamedSharding:
        shape = tuple(leaf.shape)
        if math.prod(shape) < _MIN_SPLIT_ELEMENTS:
            return replicated(mesh)
        specs = (
            sharding.spec(shape, *[None] * i, "parameter", mesh=mesh) for i in range(len(shape))
        )
        splits = {i: spec for i, spec in enumerate(specs) if spec[i] is not None}
        if not splits:
            return replicated(mesh)
        return NamedSharding(mesh, splits[max(splits, key=lambda i: shape[i])])

    return jax.tree.map(of_array, tree)


def check_batch_size(mesh: Mesh, batch_size: int, accumulate_steps: int = 1) -> None:
    """Raises SettingsError unless equally many scenes go to all devices and to all processes.

    Those of every microbatch to the devices, those of the batch to the processes.
    """
    rows = math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
    if batch_size % (rows * accumulate_steps):
        raise SettingsError(
            f"{batch_size=} must be a multiple of devices along data and fsdp x accumulate_steps = "
            f"{rows} x {accumulate_steps}; change the batch size or accumulate_steps, or let "
            "several devices share a scene (config.mesh.view, config.mesh.spatial)"
        )
    if batch_size % jax.process_count():
        raise SettingsError(
            f"{batch_size=} must be a multiple of the {jax.process_count()} processes, each of "
            "which loads an equal share; change the batch size or the number of processes"
        )


def put_local_batch(mesh: Mesh, batch: Any) -> Any:
    """Puts this process's share of a batch on its devices; the result is the global batch.

    Every process brings the whole of its own scenes, equally many, whatever the mesh. Where devices
    of several processes share scenes, the devices exchange what belongs elsewhere.

    Raises:
      SettingsError: if there are devices along `view` or `spatial` that would share nothing.
    """
    batch = jax.tree.map(np.asarray, batch)
    count = jax.process_count()
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(x) * count, *x.shape[1:]), x.dtype), batch
    )
    shardings = batch_shardings(mesh, shapes)
    if _scenes_are_local(mesh):
        return jax.tree.map(
            lambda x, whole, sharding: jax.make_array_from_process_local_data(
                sharding, x, whole.shape
            ),
            batch,
            shapes,
            shardings,
        )
    by_process = NamedSharding(_by_process(mesh), PartitionSpec("process"))
    placed = jax.tree.map(lambda x: jax.make_array_from_process_local_data(by_process, x), batch)
    return jax.device_put(placed, shardings)


def _scenes_are_local(mesh: Mesh) -> bool:
    """Whether the devices that share a scene are always of one process."""
    rows = mesh.devices.reshape(-1, mesh.shape["view"] * mesh.shape["spatial"])
    return all(len({device.process_index for device in row}) == 1 for row in rows)


def _by_process(mesh: Mesh) -> Mesh:
    """The same devices as [P, devices of a process]."""
    devices = sorted(mesh.devices.flat, key=lambda device: device.process_index)
    shape = (jax.process_count(), -1)
    return Mesh(np.array(devices).reshape(shape), ("process", "local"))
