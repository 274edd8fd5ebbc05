"""python -m lgs_jax benchmark rasterizer --compile=v5e: costs of the TPU kernels, without a TPU.

The compiler in libtpu says what it makes of a program for a TPU that is not there (`pip install
libtpu`, the version that goes with jax): memory, and the instruction words (bundles) of every loop,
one of which begins per clock cycle. What the lists hold is counted on this machine. From both
follows the time of kernels that wait for nothing and blend every block; those of pixels that stop
early take less. It is a prediction, no measurement.

What is compiled is one launch of each kernel and what surrounds it: the records fetched in the
order of the lists, the gradients added up. Projection and sorting are not in it.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from lgs_jax.cli import benchmark_rivals
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.splat import lists, pallas_tpu, tiled, tpu_streaming
from lgs_jax.rendering.splat.tpu_tables import Table

CASES = ("paper", "million-1080p")
# Bytes per second of the memory, and clock: 197 TFLOP/s are 4 units of 128 x 128 multipliers.
_CHIPS = {"v5e": (819e9, 197e12 / (4 * 128 * 128 * 2))}
# Columns of a report of libtpu on the parts of a core that every bundle occupies.
_UNITS = ("MXU", "XLU", "VALU", "VPOP", "EUP", "VLOAD", "FILL", "VSTORE", "SPILL", "SALU")
_SHOWN = ("MXU", "VALU", "EUP", "FILL", "SPILL")
# A bundle's number, its label or none, and one > for every loop around it.
_BUNDLE = re.compile(r"^ *(?:0x)?[0-9a-f]+ +(?:[A-Z]{2})? *:([ >]*)", re.MULTILINE)
_DUMP = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true"


class CompilerError(RuntimeError):
    """libtpu is missing, or says something else than what is read here."""


@dataclasses.dataclass(frozen=True)
class Loop:
    """What a kernel's bundles are for.

    Attributes:
      block: those of the loop over blocks of records.
      tile: the others of a tile.
      units: parts of a core that a block occupies, times.
      around: those of the inner loops of XLA's longest gather and scatter.
    """

    block: int
    tile: int
    units: dict[str, int]
    around: dict[str, int]


def report(target: str, *, cases: Sequence[str] = CASES, as_json: bool = False) -> None:
    """Compiles the kernels for a TPU such as v5e or v6e, and prints their costs in some cases.

    Raises:
      CompilerError: if libtpu is not installed, does not know the TPU, or cannot be understood.
    """
    with _compiler(target) as (device, folder):
        for name in cases:
            entries = count_entries(name)
            for direction, result in compile_case(name, device, folder).items():
                result = {"case": name, "kernel": direction, "target": target, **result}
                result |= {"entries": entries} | predict(result, entries, target)
                print(json.dumps(result) if as_json else _paragraph(result), flush=True)


def count_entries(name: str) -> int:
    """Entries of a case: those of its first scene, times the scenes."""
    _, _, height, width, _ = benchmark_rivals.CASES[name]
    case = benchmark_rivals.make_case(name)
    scene = Gaussians(
        *(case[key][0] for key in ("means", "quats", "scales", "opacities", "colors"))
    )
    poses = case["world_from_cam"][0]
    cameras = Cameras(poses, np.broadcast_to(case["intrinsics"], (len(poses), 4)))
    options = {"height": height, "width": width, "implementation": "pallas_tpu"}
    return len(case["means"]) * int(np.sum(lists.count_entries(scene, cameras, **options)))


def compile_case(name: str, device: Any, folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Compiles both directions of a case; bytes and bundles of each."""
    scenes, views, height, width, kind = benchmark_rivals.CASES[name]
    num_splats = kind[0] * kind[1] ** 2 if len(kind) == 2 else kind[0]
    plan = pallas_tpu.make_plan(height, width, num_images=scenes * views, num_splats=num_splats)
    results = {}
    for direction, (function, shapes) in programs(plan, scenes * views * num_splats).items():
        before = set(folder.iterdir())
        sharding = jax.sharding.SingleDeviceSharding(device)
        arguments = [jax.ShapeDtypeStruct(*shape, sharding=sharding) for shape in shapes]
        # The first two are carried from launch to launch.
        jitted = jax.jit(function, donate_argnums=(0, 1))
        compiled = jitted.trace(*arguments).lower(lowering_platforms=("tpu",)).compile()
        memory = compiled.memory_analysis()
        loop = read_bundles(set(folder.iterdir()) - before)
        record = 4 * 2 * tpu_streaming.SUBLANES * tpu_streaming.BLOCK
        results[direction] = {
            "tiles": plan.num_tiles,
            "slots": plan.segment,
            "argument_mb": memory.argument_size_in_bytes / 1e6,
            "temporary_mb": memory.temp_size_in_bytes / 1e6,
            "bundles_per_block": loop.block,
            "bundles_per_tile": loop.tile,
            **{f"{unit}_per_block": loop.units[unit] for unit in _SHOWN},
            "loops_around": loop.around,
            "bytes_per_block": record * (2 if direction == "gradient" else 1),
            "bytes_per_tile": 4 * plan.tile**2 * 8 * (3 if direction == "gradient" else 4),
        }
    return results


def programs(plan: tiled.Plan, num_splats: int) -> dict[str, tuple[Any, list]]:
    """One launch of each direction, and its arguments' shapes and types, for three features."""
    table = Table(num_splats + 1, 2 * tpu_streaming.SUBLANES)
    stored = (table.shape, jnp.float32)
    sums = (Table(num_splats, table.numbers).shape, jnp.float32)
    pixels = ((plan.num_tiles, tpu_streaming.SUBLANES, plan.tile**2), jnp.float32)
    numbers = [((plan.segment,), jnp.int32), ((plan.num_tiles + 1,), jnp.int32)]

    def forward(out, signed, ranks, offsets, stored):
        blend = functools.partial(pallas_tpu.blend_segment, table=table, stored=stored, plan=plan)
        return blend((out, signed), ranks, offsets)

    def gradient(state, gradient, ranks, offsets, toward, stored):
        replay = functools.partial(
            pallas_tpu.replay_segment, table=table, stored=stored, toward=toward, plan=plan
        )
        return replay((state, gradient), ranks, offsets)

    return {
        "forward": (forward, [pixels, pixels, *numbers, stored]),
        "gradient": (gradient, [pixels, sums, *numbers, pixels, stored]),
    }


def read_bundles(files: set[pathlib.Path]) -> Loop:
    """Counts the bundles of the one kernel with matrix products among what libtpu wrote.

    Raises:
      CompilerError: if there is not one.
    """
    programs = [f for f in files if re.search(r"-\d+-final_bundles\.txt$", f.name)]
    texts = [(f, f.read_text()) for f in programs]
    found = [(f, text) for f, text in texts if "vmatmul" in text]
    if len(found) != 1:
        raise CompilerError(
            f"{len(found)} of {len(programs)} programs that libtpu wrote multiply matrices, not 1; "
            "this version writes something else than 0.0.42"
        )
    file, text = found[0]
    prefix = re.sub(r"\d+-final_bundles\.txt$", "", file.name)
    (usage,) = (f for f in files if re.match(rf"{re.escape(prefix)}\d+-final_hlo-static", f.name))
    lines = usage.read_text().partition("== UTILIZATION:\n")[2].splitlines()
    units = [dict(zip(_UNITS, map(int, line.split()))) for line in lines]
    depths = [indents.count(">") for indents in _BUNDLE.findall(text)]
    if len(depths) != len(units) or max(depths, default=0) < 2:
        raise CompilerError(
            f"{len(depths)} bundles in loops {max(depths, default=0)} deep against {len(units)} "
            "lines on their use; this version of libtpu writes something else than 0.0.42"
        )
    around: dict[str, int] = {}
    for other, text in texts:
        for name in ("gather", "scatter"):
            if name in other.name:
                inside = sum(indents.count(">") >= 2 for indents in _BUNDLE.findall(text))
                around[name] = max(inside, around.get(name, 0))
    # Loops inside of two, that over tiles and that over blocks, are part of a block.
    edges = np.flatnonzero(np.diff([False, *(depth >= 2 for depth in depths), False]))
    begin, end = max(edges.reshape(-1, 2).tolist(), key=lambda run: run[1] - run[0])
    return Loop(
        end - begin,
        depths.count(1),
        {unit: sum(line[unit] for line in units[begin:end]) for unit in _UNITS},
        around,
    )


def predict(result: dict[str, Any], entries: int, target: str) -> dict[str, float]:
    """Launches, blocks and, for a TPU whose speed is known, milliseconds of bundles and copies."""
    launches = -(-entries // result["slots"])
    # In each, every list ends with a block that is half full on average.
    blocks = entries / tpu_streaming.BLOCK + launches * result["tiles"] / 2
    if target not in _CHIPS:
        return {"launches": launches, "blocks": blocks}
    bandwidth, clock = _CHIPS[target]
    bundles, copied = (
        blocks * result[f"{what}_per_block"]
        + launches * result["tiles"] * result[f"{what}_per_tile"]
        for what in ("bundles", "bytes")
    )
    return {
        "launches": launches,
        "blocks": blocks,
        "bundles_ms": 1e3 * bundles / clock,
        "copies_ms": 1e3 * copied / bandwidth,
    }


def _paragraph(r: dict[str, Any]) -> str:
    units = ", ".join(f"{unit} {r[f'{unit}_per_block']}" for unit in _SHOWN)
    times = "no prediction for this TPU"
    if "bundles_ms" in r:
        times = f"{r['bundles_ms']:.1f} ms of bundles, {r['copies_ms']:.2f} ms of copies"
    around = ", ".join(f"{name} {bundles}" for name, bundles in r["loops_around"].items())
    return (
        f"{r['case']}, {r['kernel']}, {r['target']}: arguments {r['argument_mb']:.0f} MB, "
        f"temporary {r['temporary_mb']:.0f} MB\n"
        f"  {r['bundles_per_block']} bundles a block ({units}), {r['bundles_per_tile']} a tile\n"
        f"  loops of XLA around it: {around}\n"
        f"  {r['entries']:,} entries in {r['slots']:,} slots, {r['blocks']:,.0f} blocks, "
        f"{r['tiles']:,} tiles, {r['launches']} launches: {times}"
    )


@contextlib.contextmanager
def _compiler(target: str) -> Iterator[tuple[Any, pathlib.Path]]:
    """A device of a TPU that is not there, and the folder into which its compiler writes."""
    if importlib.util.find_spec("libtpu") is None:
        raise CompilerError("--compile needs the TPU's compiler: pip install libtpu")
    with tempfile.TemporaryDirectory() as folder:
        # What was compiled before would not be compiled again.
        jax.config.update("jax_enable_compilation_cache", False)
        # Read when libtpu is loaded, once.
        os.environ["LIBTPU_INIT_ARGS"] = _DUMP.format(folder)
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no cloud machine to ask
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nor a TPU to share
        try:
            name = f"{target}:2x2"
            topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
        except RuntimeError as error:
            raise CompilerError(f"libtpu has no {target}: {error}") from error
        yield topology.devices[0], pathlib.Path(folder)
