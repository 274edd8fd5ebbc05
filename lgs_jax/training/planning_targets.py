"""The devices that a training can be planned for without having them.

A target is a number of simulated CPU devices, or accelerators by name, for which XLA compiles ahead
of time: TPUs with the package `libtpu`, NVIDIA GPUs with JAX's CUDA plugin, neither of which needs
the hardware.
"""

import dataclasses
import difflib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.experimental import topologies

from lgs_jax.settings import SettingsError

GIB = 2**30

# Linux's control groups, by which containers and clusters limit memory, and the names of those that
# this process is in (man 7 cgroups).
_GROUPS = pathlib.Path("/sys/fs/cgroup")
_OWN_GROUPS = pathlib.Path("/proc/self/cgroup")

# What JAX takes of a GPU's memory, unless the environment says otherwise (JAX's documentation, "GPU
# memory allocation").
FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_DEFAULT_FRACTION = 0.75

_SLICES_2D = {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
# By cores, as Google Cloud counts v5p; a chip has two, which JAX shows as one device.
_SLICES_3D = {
    8: "2x2x1",
    16: "2x2x2",
    32: "2x2x4",
    64: "2x4x4",
    128: "4x4x4",
    256: "4x4x8",
    512: "4x8x8",
}


class TargetError(SettingsError):
    """There is no such target, or it cannot be compiled for here; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class _Tpu:
    """A generation of TPUs.

    Attributes:
      gib: memory of a device that a program may use; what libtpu 0.0.42.1 names where it refuses a
        program (of 16, 32 and 96 GiB).
      slices: topologies by the number in the name of a slice (Google Cloud's documentation of each
        generation).
    """

    gib: float
    slices: dict[int, str]


@dataclasses.dataclass(frozen=True)
class _Gpu:
    """A GPU, from OpenXLA's xla/backends/gpu/target_config/specs (what CUDA says of the device).

    Attributes:
      name: of the device.
      memory: of the device in bytes.
      capability: CUDA's compute capability, major number; the minor one is 0.
      cores: streaming multiprocessors.
      float_units: float32 units of each.
      shared: shared memory of each in bytes.
      shared_block: most of it that one block may ask for.
      cache: L2 cache in bytes.
      bandwidth: of the memory in bytes per second.
      clock: in GHz.
    """

    name: str
    memory: int
    capability: int
    cores: int
    float_units: int
    shared: int
    shared_block: int
    cache: int
    bandwidth: int
    clock: float

    def target_config(self) -> str:
        """XLA's description of the device, a `GpuTargetConfigProto` in text form."""
        feature = "ACCELERATED_FEATURES" if self.capability >= 9 else "NONE"
        return f"""
            gpu_device_info {{
              name: "{self.name}"
              device_memory_size: {self.memory}
              memory_bandwidth: {self.bandwidth}
              l2_cache_size: {self.cache}
              clock_rate_ghz: {self.clock}
              core_count: {self.cores}
              fpus_per_core: {self.float_units}
              shared_memory_per_core: {self.shared}
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: {self.shared_block}
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              threads_per_warp: 32
              threads_per_block_limit: 1024
              threads_per_core_limit: 2048
              thread_dim_limit_x: 1024
              thread_dim_limit_y: 1024
              thread_dim_limit_z: 64
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              cuda_compute_capability {{ major: {self.capability} feature_extension: {feature} }}
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 10 }}
            runtime_version {{ major: 12 minor: 8 }}
            device_description_str: "{self.name}"
        """


TPUS = {
    "v5e": _Tpu(15.75, _SLICES_2D),
    "v6e": _Tpu(31.25, _SLICES_2D),
    "v5p": _Tpu(95.74, _SLICES_3D),
}
_A100 = (8, 108, 64, 167936, 166912, 41943040)
_HOPPER = (9, 132, 128, 233472, 232448, 52428800)
GPUS = {
    "a100-40gb": _Gpu("NVIDIA A100-SXM4-40GB", 42331013120, *_A100, 1555200000000, 1.41),
    "a100-80gb": _Gpu("NVIDIA A100-SXM4-80GB", 85100068864, *_A100, 2039040000000, 1.41),
    "h100": _Gpu("NVIDIA H100 80GB HBM3", 84942979072, *_HOPPER, 3352320000000, 1.98),
    "h200": _Gpu("NVIDIA H200 141GB HBM3e", 151397597184, *_HOPPER, 4800000000000, 1.98),
}
_GPUS_OF_A_HOST = 8


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to plan for.

    Attributes:
      name: as the user gives it.
      platform: `cpu`, `tpu` or `cuda`.
      devices: what a mesh is made of; only programs can be compiled for them.
      memory: bytes of each device that a program may use.
      note: where that number comes from.
      simulated: whether CPU devices stand for others.
      compiler_options: XLA's, with which programs are compiled for them.
    """

    name: str
    platform: str
    devices: Sequence[Any]
    memory: float
    note: str
    simulated: bool = False
    compiler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def simulated(name: str) -> int:
    """How many CPU devices a target wants simulated, 0 if it is of another kind; starts nothing.

    Raises:
      TargetError: if there is no such target.
    """
    kind, number = _split(name)
    return 0 if kind else number


def open_target(name: str, memory: float | None = None) -> Target:
    """The devices of a name such as `8` (simulated CPU devices), `v5e-16` or `h100-8`.

    JAX must run on the CPU (`jax_platforms`), and for simulated devices have as many
    (`jax_num_cpu_devices`).

    Args:
      name: of the target.
      memory: bytes of each device that a program may use; None: what is known of the accelerator.

    Raises:
      TargetError: if there is no such target, its memory is not known, or what compiles for it is
        not installed.
    """
    kind, number = _split(name)
    note = "as given" if memory else ""
    if not kind:
        if not memory:
            raise TargetError(
                f"{number} simulated devices have no memory of their own; say how much each real "
                "one has, such as --memory=80GiB, or name them, such as --devices=h100-8"
            )
        options = {
            # The arithmetic's quality does not change the memory, and takes most of the time.
            "xla_backend_optimization_level": 0,
            # Without its barriers XLA for CPUs finds that what is computed again is known already,
            # and keeps it: accelerators do not.
            "xla_disable_hlo_passes": "cse_barrier_expander",
        }
        devices = jax.devices()[:number]
        return Target(name, "cpu", devices, memory, note, simulated=True, compiler_options=options)
    # Otherwise libtpu asks the cloud's metadata for its machine, and refuses a second process.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    if kind in TPUS:
        tpu = TPUS[kind]
        devices = _open("tpu", name, topology_name=f"{kind}:{tpu.slices[number]}")
        return Target(
            name, "tpu", devices, memory or tpu.gib * GIB, note or "what the compiler allows"
        )
    gpu = GPUS[kind]
    hosts = -(-number // _GPUS_OF_A_HOST)
    devices = _open(
        "cuda",
        name,
        target_config=gpu.target_config(),
        topology=f"1x{hosts}x{number // hosts}",
    )
    fraction = float(os.environ.get(FRACTION, _DEFAULT_FRACTION))
    if not memory:
        note = (
            f"{fraction:.0%} of {gpu.memory / GIB:.1f} GiB, what JAX takes; {FRACTION} changes it"
        )
    # Tiles of products cannot be tried out without a GPU, and the default ones do not fit every
    # shape ("Couldn't find output tile sizes", jax 0.10.2); with cuBLAS there are none to choose.
    untuned = {"xla_gpu_enable_triton_gemm": False}
    memory = memory or fraction * gpu.memory
    return Target(name, "cuda", devices, memory, note, compiler_options=untuned)


def attached(memory: float | None = None) -> Target:
    """The devices of this machine; those of a CPU share its memory.

    Args:
      memory: bytes of each device that a program may use; None: what the devices say, or, for a
        CPU, the machine's memory, or as much of it as the container or job may use.

    Raises:
      TargetError: if that is not to be found out.
    """
    first, count = jax.devices()[0], jax.device_count()
    platform = {"gpu": "cuda"}.get(first.platform, first.platform)
    note = "as given" if memory else "what JAX has taken of it"
    found = memory or (first.memory_stats() or {}).get("bytes_limit")
    if not found and platform == "cpu" and (whole := machine_memory()):
        allowed = min([whole, *_memory_limits()])
        of = "this machine's memory" if allowed == whole else "what this container or job may use"
        found = allowed / count
        note = f"{of}, in equal shares; --memory says otherwise"
    if not found:
        raise TargetError(
            f"the {first.device_kind} devices of this machine do not say how much memory they "
            "have; give --memory=16GiB, or plan for others, such as --devices=h100-8"
        )
    return Target(f"{count} x {first.device_kind}", platform, jax.devices(), found, note)


def machine_memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not say (Windows)."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return None


def _memory_limits() -> Iterator[int]:
    """Bytes that this process's control groups, of version 1 or 2, and those around them allow."""
    if not _OWN_GROUPS.exists():
        return
    for line in _OWN_GROUPS.read_text().splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = _GROUPS / "memory" if controllers else _GROUPS
        file = "memory.limit_in_bytes" if controllers else "memory.max"
        # In a container the name may be that of the host, and only `top` be there.
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):
            if (limit := folder / file).exists() and (text := limit.read_text().strip()) != "max":
                yield int(text)
            if folder == top:
                break


def known() -> str:
    """All names, for messages and help."""
    tpus = (f"{kind}-{{{','.join(map(str, tpu.slices))}}}" for kind, tpu in TPUS.items())
    return ", ".join([*tpus, *(f"{kind}-N" for kind in GPUS)])


def _split(name: str) -> tuple[str, int]:
    """Kind ("" for simulated devices) and number of a name that makes sense."""
    found = re.fullmatch(r"(?:(.+)-)?([1-9]\d*)", name.strip().lower())
    kind, number = (found[1] or "", int(found[2])) if found else (name, 0)
    if found and not kind:
        return kind, number
    if not found or kind not in TPUS | GPUS:
        near = difflib.get_close_matches(kind, [*TPUS, *GPUS], n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}-{number or 8}?" if near else ""
        raise TargetError(
            f"--devices={name} is neither a number of simulated devices nor one of {known()}{hint}"
        )
    if kind in TPUS and number not in TPUS[kind].slices:
        sizes = ", ".join(f"{kind}-{size}" for size in TPUS[kind].slices)
        raise TargetError(f"--devices={name} is no size of a slice; expected one of {sizes}")
    if kind in GPUS and number > _GPUS_OF_A_HOST and number % _GPUS_OF_A_HOST:
        raise TargetError(
            f"--devices={name}: more than {_GPUS_OF_A_HOST} GPUs must be whole hosts of "
            f"{_GPUS_OF_A_HOST}"
        )
    return kind, number


def _open(platform: str, name: str, **description: str) -> Sequence[Any]:
    """The devices of a topology that is not here."""
    package = {
        "tpu": "libtpu",
        "cuda": f"jax-cuda12-plugin=={jax.__version__} jax-cuda12-pjrt=={jax.__version__}",
    }[platform]
    try:
        return topologies.get_topology_desc(platform=platform, **description).devices
    except RuntimeError as error:
        raise TargetError(
            f"--devices={name}: JAX cannot compile for these devices here ({error}). That needs no "
            f"such device, only its compiler: pip install {package}"
        ) from error
