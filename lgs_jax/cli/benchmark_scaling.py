"""python -m lgs_jax benchmark scaling: how a training step grows with the devices.

The step is that of latent diffusion on latents encoded beforehand (configs/diffusion.py), with a
narrow network unless --widths says otherwise. Two things are looked at, in processes of their own:

  measured   seconds per step on simulated devices of this CPU, and of several real processes with
             one device each. All share the cores of this machine, so that the ideal is not a
             constant time: --devices 1 2 4 shows what splitting costs, never what it gains.
  compiled   what a device sends per step, read from the program compiled ahead of time for many
             devices: simulated ones by number, TPUs such as v5e-256 (with libtpu installed), or
             GPUs such as h100-64 (with JAX's CUDA plugin).

  python -m lgs_jax benchmark scaling
  python -m lgs_jax benchmark scaling --devices 1 2 --processes --compile 8 64 v5e-16
  python -m lgs_jax benchmark scaling --json=scaling.json --plot=scaling.png
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from lgs_jax import files
from lgs_jax.cli import reporting
from lgs_jax.models import autoencoder, frozen_autoencoder
from lgs_jax.tasks import denoising, diffusion
from lgs_jax.tasks.diffusion_settings import DiffusionSettings, SamplerSettings
from lgs_jax.training import communication, planning, planning_targets, processes, profiling, start
from lgs_jax.training import mesh as meshes
from lgs_jax.training.settings import TrainSettings

# Latent maps as of configs/diffusion.py: 12 x 12 x 6, of images at 48 x 48.
_COMPRESSION, _LATENT_CHANNELS, _IMAGE_SIZE = 4, 6, (48, 48)
_AXES = ("data", "fsdp", "view", "spatial")
_WARM_UP = 2  # steps that are not timed

Case = dict[str, Any]


class CaseError(RuntimeError):
    """A process that measured a case ended with an error."""


def main(arguments: list[str]) -> int:
    """Measures and prints; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if min(*options.devices, *options.processes, options.steps, options.scenes, 1) < 1:
        parser.error("--devices, --processes, --steps and --scenes must be at least 1")
    try:
        if options.case:
            print(json.dumps(run_case(json.loads(options.case))))
            return 0
        results = []
        for case in cases(options):
            print(f"{case['what']}, {case['target']} ...", file=sys.stderr, flush=True)
            results.append(in_processes(case))
    except (ValueError, CaseError) as error:
        return reporting.fail(error)
    print(_measured_table(results))
    print(_compiled_table(results))
    if options.json:
        files.write_json(
            pathlib.Path(options.json).expanduser(), {"cores": os.cpu_count(), "cases": results}
        )
    if options.plot:
        try:
            plot(results, pathlib.Path(options.plot).expanduser())
        except ImportError:
            message = "--plot needs matplotlib (pip install 'lgs_jax[experiments]')"
            return reporting.fail(CaseError(message))
    return 0


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """What is to be measured, one after another."""
    model = {"widths": options.widths, "views": options.views}
    most = max(options.devices)
    for what in ("weak", "strong"):
        for count in options.devices:
            scenes = options.scenes * (count if what == "weak" else most)
            case = {"what": what, "target": str(count), "mesh": {}, "scenes": scenes}
            yield model | case | {"steps": options.steps, "processes": 1}
    for count in options.processes:
        case = {"what": "processes", "target": str(count), "mesh": {}}
        case |= {"scenes": options.scenes * count, "steps": options.steps, "processes": count}
        yield model | case
    for target in options.compile:
        count = int(target.rpartition("-")[2])
        for axis in options.axes:
            shared = min(count, options.shared) if axis != "data" else 1
            mesh = {} if axis == "data" else {axis: shared}
            groups = count // shared if axis in ("view", "spatial") else count
            case = {"what": f"compiled, {axis}", "target": target, "mesh": mesh, "steps": 0}
            yield model | case | {"scenes": options.scenes * groups, "processes": 1}


def in_processes(case: Case) -> Case:
    """The case with its results, from as many new processes as it wants."""
    count = case["processes"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    simulated = planning_targets.simulated(case["target"])
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(max(1, simulated // count)),
    }
    command = [sys.executable, "-m", "lgs_jax", "benchmark", "scaling", "--case", json.dumps(case)]
    started = []
    for index in range(count):
        values = (address, str(count), str(index)) if count > 1 else ()
        joined = dict(zip(processes.ENVIRONMENT, values))
        started.append(
            subprocess.Popen(
                command,
                env=environment | joined,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [process.communicate() for process in started]
    for process, (_, errors) in zip(started, ended):
        if process.returncode:
            last = errors.strip().splitlines()[-1:] or ["no message"]
            raise CaseError(f"{case['what']} on {case['target']} failed: {last[0]}")
    return case | json.loads(ended[0][0].splitlines()[-1])


def run_case(case: Case) -> Case:
    """Compiles the step of a case and, with `steps`, times it; in a process of its own."""
    if case["processes"] > 1:
        processes.join()
    target = planning_targets.open_target(case["target"], memory=1.0)
    plan = _plan(case)
    mesh = meshes.make(plan.settings.mesh, target.devices)
    began = time.monotonic()
    state, batch, constants = planning.arguments_of(plan, mesh)
    with jax.set_mesh(mesh):
        traced = start.jit_step(plan.task, plan.settings, mesh, state).trace(
            state, batch, constants
        )
        lowered = traced.lower(lowering_platforms=(target.platform,))
        # Only a program that runs needs its arithmetic optimized.
        compiled = lowered.compile(None if case["steps"] else dict(target.compiler_options))
    found = communication.collectives(compiled.as_text(), mesh.size)
    rows = communication.table(found, mesh.shape)
    seconds, cpu_seconds = [], None
    if case["steps"]:
        seconds, cpu_seconds = _time_steps(compiled, plan, mesh, case["steps"])
    return {
        "devices": mesh.size,
        "mesh_shape": dict(mesh.shape),
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "state_bytes": planning.bytes_of(state),
        "matmul_flops_over_devices": profiling.matmul_flops(traced.jaxpr) / mesh.size,
        "flops_of_compiler": (compiled.cost_analysis() or {}).get("flops"),
        "communication": rows,
        "sent_bytes": sum(row["sent_bytes"] for row in rows),
        "compile_s": time.monotonic() - began,
        "seconds": seconds,
        "step_s": statistics.median(seconds) if seconds else None,
        "cpu_step_s": cpu_seconds and cpu_seconds * case["processes"],
    }


def _plan(case: Case) -> planning.Case:
    """The training of a case, from shapes."""
    views, (height, width) = case["views"], (n // _COMPRESSION for n in _IMAGE_SIZE)
    shared = denoising.Denoising(DiffusionSettings(), SamplerSettings(), views, 0)
    network = {
        "latent_channels": _LATENT_CHANNELS,
        "compression": _COMPRESSION,
        "embedding_size": 128,
        "widths": tuple(case["widths"]),
        "blocks_per_level": 1,
        "middle_blocks": 1,
        "attention_levels": (len(case["widths"]) - 1,),
        "num_heads": 4,
        "cross_view": "resnet",
    }
    module = autoencoder.Autoencoder(
        compression=_COMPRESSION, latent_channels=_LATENT_CHANNELS, patch_size=_COMPRESSION
    )
    frozen = frozen_autoencoder.FrozenAutoencoder(
        params={},
        mean=np.zeros(_LATENT_CHANNELS, np.float32),
        std=np.ones(_LATENT_CHANNELS, np.float32),
        module=module,
        image_size=_IMAGE_SIZE,
        num_views=views,
        scene_frame=("first", 1.0),
    )
    maps = np.zeros((views, height, width, _LATENT_CHANNELS), np.float32)
    size = np.float32([_IMAGE_SIZE[1], _IMAGE_SIZE[1], _IMAGE_SIZE[1] / 2, _IMAGE_SIZE[0] / 2])
    entry = {
        "context": {
            "world_from_cam": np.tile(np.eye(4, dtype=np.float32), (views, 1, 1)),
            "intrinsics": np.tile(size, (views, 1)),
        },
        "latents": {
            "mean": maps,
            "log_var": maps,
            "known": maps,
            "known_mask": np.arange(views) == 0,
        },
        "class_label": np.int32(-1),
    }
    return planning.Case(
        task=diffusion.DiffusionTask(network, shared, image_size=_IMAGE_SIZE),
        settings=TrainSettings(
            num_steps=1000,
            batch_size=case["scenes"],
            mesh=meshes.MeshSettings(**case["mesh"]),
        ),
        entry=entry,
        constants=(frozen,),
    )


def _time_steps(
    compiled: jax.stages.Compiled, plan: planning.Case, mesh: Any, steps: int
) -> tuple[list[float], float]:
    """Seconds of each of some steps, and the mean CPU time of one in this process.

    Parameters are zero, on which the time does not depend.
    """
    local = plan.settings.batch_size // jax.process_count()
    batch = jax.tree.map(lambda x: np.stack([np.asarray(x)] * local), plan.entry)
    abstract, _, _ = planning.arguments_of(plan, mesh)

    def zeros(x: jax.ShapeDtypeStruct) -> jax.Array:
        shard = np.zeros(x.sharding.shard_shape(x.shape), x.dtype)
        return jax.make_array_from_callback(x.shape, x.sharding, lambda _: shard.copy())

    state, seconds = jax.tree.map(zeros, abstract), []
    constants = jax.device_put(plan.constants, meshes.state_shardings(mesh, plan.constants))
    placed = meshes.put_local_batch(mesh, batch)
    for i in range(_WARM_UP + steps):
        if i == _WARM_UP:
            cpu_began = time.process_time()
        began = time.monotonic()
        state, metrics = compiled(state, placed, constants)
        jax.block_until_ready(metrics)
        seconds.append(time.monotonic() - began)
    return seconds[_WARM_UP:], (time.process_time() - cpu_began) / steps


def _measured_table(results: Sequence[Case]) -> str:
    """Seconds of steps; `of one` is the time over that of the first case of its kind."""
    lines = [
        f"{'measured':10} {'devices':>7} {'processes':>9} {'scenes':>6} {'ms/step':>9} "
        f"{'ms/scene':>9} {'of one':>7} {'CPU ms':>8} {'of one':>7} {'sent MB':>8}"
    ]
    first: dict[str, Case] = {}
    for r in (each for each in results if each["step_s"]):
        start_of_kind = first.setdefault(r["what"], r)
        wall, cpu = (r[name] / r["scenes"] for name in ("step_s", "cpu_step_s"))
        ratios = [
            r[name] / r["scenes"] / (start_of_kind[name] / start_of_kind["scenes"])
            for name in ("step_s", "cpu_step_s")
        ]
        lines.append(
            f"{r['what']:10} {r['devices']:7d} {r['processes']:9d} {r['scenes']:6d} "
            f"{1e3 * r['step_s']:9.1f} {1e3 * wall:9.1f} {ratios[0]:7.2f} "
            f"{1e3 * cpu:8.1f} {ratios[1]:7.2f} {r['sent_bytes'] / 1e6:8.2f}"
        )
    lines += [
        "of one: time per scene over that with the fewest devices. They share the cores of this",
        f"machine ({os.cpu_count()}): below 1 idle cores were put to use, above 1 is overhead. CPU",
        "time per scene, of all processes, tells the overhead where others use the machine too.",
    ]
    return "\n".join(lines)


def _compiled_table(results: Sequence[Case]) -> str:
    """What a device sends, by kind and axes."""
    lines = [
        f"{'compiled for':12} {'mesh':28} {'scenes':>6} {'state MB':>9} {'GFLOP':>8} "
        f"{'sent MB':>9}  of which"
    ]
    for r in (each for each in results if not each["step_s"]):
        mesh = " x ".join(f"{k} {n}" for k, n in r["mesh_shape"].items() if n > 1) or "1 device"
        parts = ", ".join(
            f"{row['kind']} over {row['axes']} {row['sent_bytes'] / 1e6:.2f} ({row['count']})"
            for row in r["communication"]
        )
        flops = r["flops_of_compiler"]
        lines.append(
            f"{r['target']:12} {mesh:28} {r['scenes']:6d} {r['state_bytes'] / 1e6:9.2f} "
            f"{f'{flops / 1e9:.3f}' if flops else '':>8} {r['sent_bytes'] / 1e6:9.2f}  {parts}"
        )
    lines.append(
        "Per device and step; in brackets how many. GFLOP as the compiler counts, where it does."
    )
    return "\n".join(lines)


def plot(results: Sequence[Case], path: str | pathlib.Path) -> None:
    """Time per scene over devices, and what a device sends over devices.

    Raises:
      ImportError: if matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, shown, value in (
        (left, [r for r in results if r["step_s"]], lambda r: 1e3 * r["step_s"] / r["scenes"]),
        (right, [r for r in results if not r["step_s"]], lambda r: r["sent_bytes"] / 1e6),
    ):
        lines: dict[str, list[Case]] = {}
        for result in shown:
            kind = result["target"].rpartition("-")[0]
            lines.setdefault(" ".join(filter(None, (result["what"], kind))), []).append(result)
        for name, line in lines.items():
            points = [(r["devices"], value(r)) for r in line]
            axes.plot(*zip(*points), "o-", label=name)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="devices", ylim=(0, None))
        axes.grid(alpha=0.3)
        if lines:
            axes.legend(fontsize=8)
    left.set(ylabel="ms per scene", title=f"measured on {os.cpu_count()} cores")
    right.set(ylabel="MB sent by a device per step", title="compiled ahead of time")
    with files.replacing(path) as partial:
        figure.savefig(partial, dpi=120)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax benchmark scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--devices", nargs="+", type=int, default=[1, 2, 4, 8], help="simulated, measured")
    add("--processes", nargs="*", type=int, default=[1, 2, 4], help="real ones, a device each")
    add("--compile", nargs="*", default=["8", "64", "512"], help="devices, or names as of plan")
    add("--axes", nargs="+", choices=_AXES, default=["data", "fsdp", "view"], help="to compile for")
    add("--shared", type=int, default=4, help="devices along that axis, if it is not data")
    add("--scenes", type=int, default=1, help="per device, or group of devices that share them")
    add("--views", type=int, default=4, help="views of a scene")
    add("--widths", nargs="+", type=int, default=[32, 64], help="of the U-Net, multiples of 4")
    add("--steps", type=int, default=10, help="timed steps of which the median is taken")
    add("--json", help="file for all numbers")
    add("--plot", help="picture of the curves")
    add("--case", help=argparse.SUPPRESS)
    return parser
