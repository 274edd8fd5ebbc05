"""python -m lgs_jax benchmark rasterizer: time, memory and list length of `render`.

Four scenes (random in the frustum or pixel-aligned, 16,384 or 98,304 Gaussians) at three
resolutions, forward and forward + backward, then how time grows with Gaussians and with views.
Times are minima and medians over repeats; on a shared machine compare ratios within one run.
Entries are (splat, tile) pairs; slots are what is sorted to list them all (--slots-per-splat).
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.cli import benchmark_rivals, benchmark_tpu_kernels, reporting
from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import dispatch

_UP = (0.0, -1.0, 0.0)
_TARGET = (0.0, 0.0, 4.0)
_RESOLUTIONS = (64, 128, 256)


def random_scene(num: int, seed: int) -> tuple[Gaussians, np.ndarray]:
    """Gaussians uniform in and around the frustum of a camera at the origin, and its pose."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(2, 6, num)
    x, y = rng.uniform(-0.55, 0.55, num) * z, rng.uniform(-0.55, 0.55, num) * z
    # As large as their share of the volume, so that coverage hardly depends on their number.
    size = 0.35 * (4.4 * 4.4 * 4.0 / num) ** (1 / 3)
    scales = size * np.exp(rng.normal(0, 0.5, (num, 3)))
    quats = rng.normal(size=(num, 4))
    opacities = 1 / (1 + np.exp(-rng.normal(0.0, 1.5, num)))
    colors = rng.uniform(0, 1, (num, 3))
    return _gaussians(np.stack([x, y, z], -1), quats, scales, opacities, colors), np.eye(4)


def pixel_aligned_scene(views: int, size: int, seed: int) -> tuple[Gaussians, np.ndarray]:
    """One Gaussian per pixel of `views` depth maps on an arc, and the pose of a novel view."""
    rng = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    parts = []
    for view in range(views):
        angle = (view - (views - 1) / 2) * 0.18
        center = [4 * np.sin(angle), 0.25 * np.sin(2.1 * view), 4 - 4 * np.cos(angle)]
        pose = _pose(center)
        depth = np.clip(4 + 0.8 * _smooth(rng, size, 5), 2, 7)
        points = np.stack([(u / size - 0.5) * depth, (v / size - 0.5) * depth, depth], -1)
        means = points.reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
        num = size * size
        scales = (depth.reshape(-1, 1) / size) * np.exp(rng.normal(np.log(0.7), 0.35, (num, 3)))
        quats = rng.normal(size=(num, 4))
        opacities = 1 / (1 + np.exp(-rng.normal(1.0, 1.5, num)))
        smooth = np.stack([_smooth(rng, size, 9) for _ in range(3)], -1).reshape(-1, 3)
        colors = np.clip(0.5 + 0.35 * smooth + 0.05 * rng.normal(size=(num, 3)), 0, 1)
        parts.append((means, quats, scales, opacities, colors))
    return _gaussians(*(np.concatenate(p) for p in zip(*parts))), _pose([0.35, -0.2, 0.1])


SCENES: dict[str, Callable[[], tuple[Gaussians, np.ndarray]]] = {
    "rand16k": lambda: random_scene(16384, 0),
    "rand98k": lambda: random_scene(98304, 1),
    "pix16k": lambda: pixel_aligned_scene(4, 64, 2),
    "pix98k": lambda: pixel_aligned_scene(6, 128, 3),
}


def _gaussians(*arrays: np.ndarray) -> Gaussians:
    return Gaussians(*(jnp.asarray(a, jnp.float32) for a in arrays))


def _pose(center: Any) -> np.ndarray:
    return np.asarray(
        camera_lib.look_at(*(jnp.array(v, jnp.float32) for v in (center, _TARGET, _UP)))
    )


def _smooth(rng: np.random.Generator, size: int, knots: int) -> np.ndarray:
    """A random field [size, size], interpolated smoothly between knots x knots values."""
    values = rng.normal(size=(knots, knots))
    position = np.linspace(0, knots - 1.001, size)
    low = position.astype(int)
    t = position - low
    t = t * t * (3 - 2 * t)
    rows = values[low] * (1 - t)[:, None] + values[low + 1] * t[:, None]
    return rows[:, low] * (1 - t) + rows[:, low + 1] * t


def measure(
    scene: Gaussians, cameras: Cameras, size: int, *, repeats: int, **options: Any
) -> dict[str, float]:
    """Times (ms) of rendering and of rendering with all gradients, and what they needed."""

    def forward(scene):
        background = jnp.array([0.1, 0.2, 0.3])
        out = render(scene, cameras, height=size, width=size, background=background, **options)
        return out.rgb, out.alpha, out.aux

    def loss(scene):
        rgb, alpha, _ = forward(scene)
        return jnp.mean(rgb**2) + jnp.mean(alpha)

    result = {}
    for name, function in (("forward", forward), ("gradient", jax.grad(loss))):
        begin = time.perf_counter()
        compiled = jax.jit(function).lower(scene).compile()
        result[f"{name}_compile_s"] = time.perf_counter() - begin
        times = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            out = jax.block_until_ready(compiled(scene))
            times.append(1e3 * (time.perf_counter() - begin))
        result[f"{name}_ms"] = min(times[1:])
        result[f"{name}_median_ms"] = float(np.median(times[1:]))
        result[f"{name}_temporary_mb"] = compiled.memory_analysis().temp_size_in_bytes / 2**20
        if name == "forward":
            entries = np.reshape(out[2]["required"], -1)
    num_splats = entries.size * scene.means.shape[-2]
    result["entries"] = int(entries.sum())
    result["entries_per_splat"] = result["entries"] / num_splats
    result["slots_per_splat"] = _slots(entries, scene, size, **options) / num_splats
    result["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def _slots(
    entries: np.ndarray,
    scene: Gaussians,
    size: int,
    *,
    implementation: str | None = None,
    tile_size: int | None = None,
    slots_per_splat: int | None = None,
    **_: Any,
) -> int:
    """Slots of the segments that hold the entries [images]; fewer if all pixels stop before."""
    name = dispatch.candidates(implementation)[0]
    if name not in dispatch.PLANS:  # the reference, which lists nothing
        return 0
    plan = dispatch.PLANS[name](
        size,
        size,
        num_images=entries.size,
        num_splats=scene.means.shape[-2],
        tile_size=tile_size,
        slots_per_splat=slots_per_splat,
    )
    together = entries.reshape(-1, plan.images).sum(axis=1)
    return int(np.sum(-(-together // plan.segment))) * plan.segment


def _cameras(pose: np.ndarray, size: int) -> Cameras:
    k = jnp.array([size, size, size / 2, size / 2], jnp.float32)
    return Cameras(jnp.asarray(pose, jnp.float32), k)


def _cases(options: argparse.Namespace):
    """Yields name, scene, cameras and resolution of everything to measure."""
    for name in options.scenes:
        scene, pose = SCENES[name]()
        for size in options.resolutions:
            yield f"{name}-{size}", scene, _cameras(pose, size), size
    if options.scaling:
        for num in (4096, 16384, 65536):
            scene, pose = random_scene(num, 0)
            yield f"gaussians-{num}", scene, _cameras(pose, 64), 64
        scene, pose = pixel_aligned_scene(4, 32, 2)
        for views in (1, 4, 16):
            one = _cameras(pose, 32)
            cameras = jax.tree.map(lambda a, n=views: jnp.broadcast_to(a, (n, *a.shape)), one)
            yield f"views-{views}", scene, cameras, 32


def main(arguments: list[str]) -> int:
    """Prints a table, or with --json one JSON object per case; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    idle = ["--scenes", "--resolutions", "--tile-size", "--slots-per-splat", "--depth"]
    idle.append("--no-scaling")
    if options.compile:
        idle += ["--repeats", "--implementation", "--compare"]
    if other := "--compile" if options.compile else "--compare" if options.compare else None:
        if changed := [flag for flag in idle if _is_changed(parser, options, flag)]:
            parser.error(f"{', '.join(changed)}: no effect with {other}, which measures --cases")
    elif options.cases:
        parser.error(
            "--cases choose what --compare=RIVAL or --compile=TPU measures; give one of these "
            "too, or choose by --scenes and --resolutions"
        )
    if min(options.repeats, *options.resolutions, options.tile_size or 1) < 1:
        parser.error("--repeats, --resolutions and --tile-size must be at least 1")
    try:
        if options.compile:
            cases = options.cases or benchmark_tpu_kernels.CASES
            benchmark_tpu_kernels.report(options.compile, cases=cases, as_json=options.json)
        elif options.compare:
            benchmark_rivals.compare(options)
        else:
            run(options)
    except (
        ValueError,
        NotImplementedError,
        benchmark_rivals.RivalError,
        benchmark_tpu_kernels.CompilerError,
    ) as error:
        return reporting.fail(error)
    return 0


def _is_changed(parser: argparse.ArgumentParser, options: argparse.Namespace, flag: str) -> bool:
    name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
    return getattr(options, name) != parser.get_default(name)


def run(options: argparse.Namespace) -> None:
    """Measures and prints."""
    if not options.json:
        print(
            f"{'case':16} {'forward ms':>18} {'forward+backward ms':>20} {'entries':>9} "
            f"{'per splat':>9} {'slots':>6} "
            f"{'temporary MB':>13} {'peak RSS MB':>12} {'compile s':>10}"
        )
    results = {}
    for name, scene, cameras, size in _cases(options):
        result = results[name] = measure(
            scene,
            cameras,
            size,
            repeats=options.repeats,
            implementation=options.implementation,
            tile_size=options.tile_size,
            slots_per_splat=options.slots_per_splat,
            depth_mode="expected" if options.depth else None,
        )
        if options.json:
            print(json.dumps({"case": name, **result}))
        else:
            print(_line(name, result))
        sys.stdout.flush()
    for quantity in ("gaussians", "views") if options.scaling else ():
        growth = {
            key: exponent({n: r[key] for n, r in results.items() if n.startswith(f"{quantity}-")})
            for key in ("forward_ms", "gradient_ms")
        }
        if options.json:
            print(json.dumps({"exponent": quantity, **growth}))
        else:
            print(
                f"time grows as {quantity}^{growth['forward_ms']:.2f} forward, "
                f"^{growth['gradient_ms']:.2f} forward+backward"
            )


def exponent(values: dict[str, float]) -> float:
    """The power of the number at the end of the names by which the values grow (least squares)."""
    numbers = [float(name.rpartition("-")[2]) for name in values]
    return float(np.polyfit(np.log(numbers), np.log(list(values.values())), 1)[0])


def _line(name: str, r: dict[str, float]) -> str:
    forward = f"{r['forward_ms']:.1f} ({r['forward_median_ms']:.1f})"
    gradient = f"{r['gradient_ms']:.1f} ({r['gradient_median_ms']:.1f})"
    compile_s = r["forward_compile_s"] + r["gradient_compile_s"]
    return (
        f"{name:16} {forward:>18} {gradient:>20} {r['entries']:9d} "
        f"{r['entries_per_splat']:9.2f} {r['slots_per_splat']:6.2f} "
        f"{r['gradient_temporary_mb']:13.1f} {r['peak_rss_mb']:12.0f} {compile_s:10.1f}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax benchmark rasterizer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--scenes", nargs="*", choices=SCENES, default=list(SCENES))
    add("--resolutions", nargs="*", type=int, default=list(_RESOLUTIONS))
    add("--repeats", type=int, default=10)
    add("--implementation", default=None, help="default: the best supported")
    add("--tile-size", type=int, default=None)
    add("--slots-per-splat", type=int, help="default: the implementation's")
    add("--depth", action="store_true", help="also render depth")
    add("--no-scaling", dest="scaling", action="store_false")
    add("--json", action="store_true", help="one JSON object per line")
    group = parser.add_argument_group(
        "other measurements",
        "These have cases of their own in place of --scenes, --resolutions and the like.",
    )
    add = group.add_argument
    add(
        "--compare",
        metavar="RIVAL",
        help="side by side with gsplat's CUDA kernels (`gsplat`; needs torch, CUDA and gsplat), or "
        "with another implementation of ours by name",
    )
    add(
        "--compile",
        metavar="TPU",
        help="costs of the TPU kernels as compiled for `v5e` or `v6e`, which need not be there "
        "(needs libtpu)",
    )
    add("--cases", nargs="+", choices=benchmark_rivals.CASES, help="default: big ones")
    return parser
