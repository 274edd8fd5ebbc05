"""python -m lgs_jax benchmark sampling: latent diffusion against diffusion in pixel space.

Both sample scenes from nothing at equal image size, views, network widths and steps; the rival
renders its scene in every step. Parameters are random unless workdirs are given: the speed of the
networks does not depend on them. That of the rasterizer does, through the size of the splats, which
are about a pixel wide where training starts. On a shared machine read ratios, not times.

The rivals' scenes are splats, or what --scenes says: `voxels` stands for the class of Viewset
Diffusion, `triplane` for RenderDiffusion's, `image_planes` for GIBR's. Of each, the scene and its
rendering in every step are reproduced; the networks around them are this project's own U-Net.

  python -m lgs_jax benchmark sampling
  python -m lgs_jax benchmark sampling --patch-sizes 4 1 --steps 25 --batches 1
  python -m lgs_jax benchmark sampling --scenes gaussians voxels triplane image_planes
  python -m lgs_jax benchmark sampling --variant=paper
  python -m lgs_jax benchmark sampling --latent=objects-small --alone --batches 1 4 16
"""

import argparse
import importlib.util
import itertools
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax

from lgs_jax import files, settings, tasks
from lgs_jax.cli import reporting, sample_views
from lgs_jax.core.cameras import Cameras
from lgs_jax.inference import sampling_speed, scene_model
from lgs_jax.inference.sampling_speed import Contender
from lgs_jax.models import autoencoder, frozen_autoencoder
from lgs_jax.models.scene_heads import kinds
from lgs_jax.tasks import views
from lgs_jax.tasks.pixel_diffusion import PixelDiffusionTask
from lgs_jax.training import checkpoint

CONFIGS = "configs"


def main(arguments: list[str]) -> int:
    """Measures and prints; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if min(*options.steps, *options.batches, options.repeats) < 1:
        parser.error("--steps, --batches and --repeats must be at least 1")
    if options.pixel and (options.scenes or options.patch_sizes):
        parser.error("--scenes and --patch-sizes have no effect on --pixel, which is trained")
    if options.alone and (options.pixel or options.scenes or options.patch_sizes):
        parser.error("--pixel, --scenes and --patch-sizes make rivals; leave out --alone")
    try:
        contenders, cameras, header = make_contenders(options)
    except (ValueError, FileNotFoundError, checkpoint.CheckpointError) as error:
        return reporting.fail(error)
    print(*header, sep="\n", flush=True)
    print("compiling the stages ...", file=sys.stderr, flush=True)
    stages = measure_stages(contenders, cameras, options.repeats)
    print("\n" + _stage_table(stages), flush=True)
    whole = measure_whole(contenders, cameras, options, stages)
    print("\n" + _whole_table(whole))
    if options.json:
        result = {"header": header, "stages": stages, "whole": whole}
        files.write_json(pathlib.Path(options.json).expanduser(), result)
    return 0


def make_contenders(
    options: argparse.Namespace,
) -> tuple[list[Contender], Cameras, list[str]]:
    """Latent diffusion first, then the rivals; cameras [V]; what to say of them."""
    if options.latent:
        model = scene_model.load(options.latent)
        if model.task is None:
            raise settings.SettingsError(f"{options.latent} is no run of configs/diffusion.py")
        task, frozen, params, guide = model.task, model.frozen, model.params, model.guide
    else:
        (task, frozen, params), guide = _random_latent(options), None
    contenders = [sampling_speed.latent(task, frozen, params, guide)]
    if options.alone:
        rivals = []
    elif options.pixel:
        config, params = checkpoint.restore_params(options.pixel)
        if config.get("task") != "pixel_diffusion":
            raise settings.SettingsError(f"{options.pixel} is no run of configs/pixel_diffusion.py")
        rivals = [(tasks.make_task("pixel_diffusion", config), params)]
    else:
        rivals = _random_pixel(options)
    for rival, params in rivals:
        sampling_speed.check_equal(task, rival)
        contenders.append(sampling_speed.pixel(rival, params, _name(rival)))
    height, width = task.image_size
    device = jax.devices()[0]
    header = [
        f"{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}",
        f"{height} x {width} pixels, {task.num_views} views, U-Net widths {task.model.widths}, "
        f"sampler {task.sampler.name}, latents {frozen.latent_shape}",
        "parameters: "
        + ", ".join(_origin(x) for x in (options.latent, options.pixel)[: len(contenders)]),
    ]
    cameras = sample_views.make_path(
        "walk", task.num_views, task.image_size, sample_views.FIELD_OF_VIEW_DEG
    )
    return contenders, cameras, header


def measure_stages(
    contenders: list[Contender], cameras: Cameras, repeats: int
) -> list[dict[str, Any]]:
    """Time, memory and FLOPs of every stage, for one scene."""
    compiled = [
        sampling_speed.compile_stages(c, sampling_speed.make_inputs(c, cameras, 1))
        for c in contenders
    ]
    sampling_speed.time_in_turns([t for stages in compiled for t in stages.values()], repeats)
    return [
        {
            "method": contender.name,
            "stage": name,
            "median_s": timed.median_s,
            "flops": timed.flops,
            "temporary_mb": timed.temporary_mb,
        }
        for contender, stages in zip(contenders, compiled, strict=True)
        for name, timed in stages.items()
    ]


def measure_whole(
    contenders: list[Contender],
    cameras: Cameras,
    options: argparse.Namespace,
    stages: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Whole samples: every number of steps at the first batch size, every batch at one of them."""
    middle = sorted(options.steps)[len(options.steps) // 2]
    cases = [(steps, options.batches[0]) for steps in options.steps]
    cases += [(middle, batch) for batch in options.batches[1:]]
    flops = {(row["method"], row["stage"]): row["flops"] for row in stages}
    rows = []
    for steps, batch in cases:
        print(f"sampling with {steps} steps, batch {batch} ...", file=sys.stderr, flush=True)
        programs = []
        for c in contenders:
            inputs = sampling_speed.make_inputs(c, cameras, batch)
            programs.append(sampling_speed.prepare(c.whole(steps), c.constants, inputs))
        sampling_speed.time_in_turns(programs, options.repeats)
        for contender, timed in zip(contenders, programs, strict=True):
            parts = contender.parts(steps)
            rows.append(
                {
                    "method": contender.name,
                    "steps": steps,
                    "batch": batch,
                    "first_s": timed.first_s,
                    "later_s": timed.median_s,
                    "per_scene_s": timed.median_s / batch,
                    "scenes_per_s": batch / timed.median_s,
                    "temporary_mb": timed.temporary_mb,
                    "flops_per_scene": sum(
                        n * flops[contender.name, stage] for stage, n in parts.items()
                    ),
                    "ratio": timed.median_s / programs[0].median_s,
                }
            )
    for contender in contenders:
        same = [r for r in rows if (r["method"], r["steps"]) == (contender.name, middle)]
        for row in same:
            row["best_batch"] = row is min(same, key=lambda r: r["per_scene_s"])
    return rows


def _random_latent(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    first, second = (_config(name, options) for name in ("vae", "diffusion"))
    module = settings.build(autoencoder.Autoencoder, first["model"], "config.model")
    images = jax.numpy.zeros((1, 1, first["data"]["height"], first["data"]["width"], 3))
    cameras = views.example_cameras(1, images.shape[2:4])
    params = jax.jit(module.init)(_key(), images, cameras)["params"]
    frozen = frozen_autoencoder.from_run(first, params)
    task = tasks.make_task("diffusion", second, frozen)
    return task, frozen, jax.jit(task.init)(_key())


def _random_pixel(options: argparse.Namespace) -> list[tuple[Any, Any]]:
    config = _config("pixel_diffusion", options)
    own = config["model"]
    rivals = []
    for kind, patch_size in itertools.product(
        options.scenes or [kinds.GAUSSIANS], options.patch_sizes or [own["patch_size"]]
    ):
        head = {**own.get("scene_head", {}), "kind": kind}
        model = {**own, "patch_size": patch_size, "scene_head": head}
        task = tasks.make_task("pixel_diffusion", {**config, "model": model})
        rivals.append((task, jax.jit(task.init)(_key())))
    return rivals


def _name(rival: PixelDiffusionTask) -> str:
    """A rival by what tells it from the others."""
    kind = kinds.kind_of(rival.model.scene_head)
    shown = "" if kind == kinds.GAUSSIANS else f" {kind},"
    return f"pixel,{shown} patch {rival.model.patch_size}"


def _config(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The variant of a configuration, with the sizes asked for."""
    path = pathlib.Path(settings.packaged(pathlib.Path(options.configs or CONFIGS, f"{name}.py")))
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; give --configs, the folder of {name}.py")
    spec = importlib.util.spec_from_file_location(f"lgs_jax_config_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(options.variant or None).to_dict()
    if config["data"]["source"] != "procedural":
        config["data"]["root"] = "not read"
    if options.image_size:
        config["data"]["height"] = config["data"]["width"] = options.image_size
    if options.views:
        config["data"]["context_views"] = options.views
    if options.widths and name != "vae":
        config["model"]["widths"] = tuple(options.widths)
    return config


def _key() -> jax.Array:
    """A key of the generator whose many draws compile fastest."""
    return jax.random.key(0, impl="rbg")


def _origin(workdir: str | None) -> str:
    return workdir or "random"


def _stage_table(rows: list[Mapping[str, Any]]) -> str:
    lines = [f"{'one scene':28} {'stage':16} {'ms':>9} {'GFLOP':>9} {'temporary MB':>13}"]
    for r in rows:
        lines.append(
            f"{r['method']:28} {r['stage']:16} {1e3 * r['median_s']:9.1f} {r['flops'] / 1e9:9.3f} "
            f"{r['temporary_mb']:13.1f}"
        )
    return "\n".join(lines)


def _whole_table(rows: list[Mapping[str, Any]]) -> str:
    lines = [
        f"{'whole scenes':28} {'steps':>5} {'batch':>5} {'first call s':>12} {'later s':>9} "
        f"{'s/scene':>9} {'scenes/s':>9} {'GFLOP':>9} {'temporary MB':>13} {'ratio':>7}"
    ]
    for r in rows:
        lines.append(
            f"{r['method']:28} {r['steps']:5d} {r['batch']:5d} {r['first_s']:12.2f} "
            f"{r['later_s']:9.3f} {r['per_scene_s']:9.3f} {r['scenes_per_s']:9.2f} "
            f"{r['flops_per_scene'] / 1e9:9.2f} {r['temporary_mb']:13.1f} {r['ratio']:6.1f}x"
            + (" best batch" if r.get("best_batch") else "")
        )
    lines += [
        "ratio: time over that of latent diffusion, same steps and batch. First calls compile.",
        "GFLOP per scene: the stages', times how often they run, as the compiler counts them: the",
        "body of a loop inside a stage (the rasterizer has one) once. Medians of later calls.",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax benchmark sampling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--variant", default="", help="of the three configurations; default: for a laptop")
    add(
        "--configs",
        help="folder of vae.py, diffusion.py, pixel_diffusion.py; default: the repository's",
    )
    add("--latent", help="a model as for `sample`, instead of random parameters")
    add("--alone", action="store_true", help="latent diffusion without a rival")
    add("--pixel", help="workdir of a run of configs/pixel_diffusion.py, likewise")
    add("--patch-sizes", nargs="*", type=int, help="one rival for each; default: the config's")
    add("--scenes", nargs="*", choices=kinds.SCENE_HEADS, help="a rival for each kind of scene")
    add("--image-size", type=int, help="height and width in pixels")
    add("--views", type=int, help="views of a scene")
    add("--widths", nargs="*", type=int, help="of the U-Nets of both denoisers")
    add("--steps", nargs="+", type=int, default=[10, 25, 50], help="of the sampler")
    add("--batches", nargs="+", type=int, default=[1, 2, 4], help="scenes at once")
    add("--repeats", type=int, default=5, help="later calls of which the median is taken")
    add("--json", help="file for all numbers")
    return parser
