"""python -m lgs_jax sample: draws 3D scenes from a trained diffusion model.

Camera paths come from the model's own kind of data (`--scene`), from a capture of yours
(`--transforms`, `--colmap`, `--llff`, or `--photos`, whose poses are computed), or are made up
(`--path`). Of a capture, photographs are taken that are about as far apart as the views that the
model was trained on; which, is printed. With `--known`, the photographs at those views are given to
the model; without, the scene is imagined from nothing. One photograph without a pose (`--images`)
becomes the reference view of one of the same paths (`--scene`), or of a made-up one.

Without --model, the small model that comes with the package draws objects, of kinds that it draws
well.

  python -m lgs_jax sample --open
  python -m lgs_jax sample --class-label=car --seed=7
  python -m lgs_jax sample --model=runs/diffusion --num-samples=4
  python -m lgs_jax sample --model=runs/diffusion --transforms=my_capture --known=0
  python -m lgs_jax sample --model=runs/diffusion --transforms=my_capture --known=0007.jpg
  python -m lgs_jax sample --model=runs/diffusion --images=photo.jpg
  python -m lgs_jax sample --model=runs/diffusion --path=walk
"""

import argparse
import pathlib
import time
from typing import Any

import jax
import numpy as np

from lgs_jax import files
from lgs_jax.cli import captures, reporting, sample_views
from lgs_jax.core import cameras as camera_lib
from lgs_jax.core import gaussians
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data import report
from lgs_jax.inference import pretrained, sample_files, scene_model, scene_video, visuals
from lgs_jax.inference.viewer import camera_file, html
from lgs_jax.training import checkpoint, compilation_cache

DEFAULT_MODEL = "objects-small"
ANY_CLASS, RANDOM_CLASS = "any", "random"
MAX_SEED = 2**32 - 1  # JAX's keys would drop what is above
MAX_UPSCALE = 16
PAGE = "view.html"


def main(arguments: list[str]) -> int:
    """Draws samples and writes them; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.more and options.images is None:
        parser.error(f"unrecognized arguments: {' '.join(options.more)}")
    try:
        run(options)
    except (ValueError, OSError, checkpoint.CheckpointError) as error:  # SettingsError among them
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Loads, samples, writes."""
    _check(options)
    print(compilation_cache.enable())
    output = files.local(options.output, "--output")
    sample_files.check_folder(output, overwrite=options.overwrite)
    model = load_model(options)
    views = sample_views.choose(options, model)
    known = views.known(options.known)
    for line in views.remarks(known, model.degrees_apart):
        print(line)
    others = np.array([i for i in range(len(views.cameras)) if i not in known], int)
    images = np.stack([views.images[i] for i in known]) if known else None
    labels = _labels(options, model, at_random=not known)
    arguments = {
        "images": images,
        "context_cameras": views.cameras[np.array(known)] if known else None,
        "class_label": labels,
        "steps": options.steps,
        "guidance_scale": options.guidance,
        "autoguidance": options.autoguidance,
        "num_samples": options.num_samples,
    }
    began = time.monotonic()
    scenes = model.sample(jax.random.key(options.seed), views.cameras[others], **arguments)
    jax.block_until_ready(scenes.means)
    print(
        f"{report.counted(options.num_samples, 'scene')} of {scenes.num_gaussians:,} splats in "
        f"{time.monotonic() - began:.1f} s, compilation included"
    )
    titles = sample_files.titles_of(_class_names(labels, model, options.num_samples))
    shown, pictures = sample_files.make(
        scenes,
        views.cameras,
        image_size=model.image_size,
        known=() if images is None else images,
        titles=titles,
    )
    if known:
        for kind, psnr in sample_files.scores(pictures, views.images, known).items():
            print(f"PSNR at the {kind} views: {psnr:.2f} dB")
    for name in [name for name in shown if name.startswith("sample_")]:
        shown[name] = gaussians.transform(shown[name], views.world_from_cameras)
    with sample_files.claimed(output, overwrite=options.overwrite):
        page = _write(output, shown, views, known, model.image_size, titles, options.upscale)
    if note := scene_video.turntable_note(views.cameras):
        print(note)
    print(f"{page} (open it in a browser)")
    if options.open:
        html.open_in_browser(page.resolve().as_uri())


def _write(
    output: pathlib.Path,
    shown: dict[str, Any],
    views: sample_views.Views,
    known: list[int],
    image_size: tuple[int, int],
    titles: list[str],
    upscale: int,
) -> pathlib.Path:
    """Writes everything in the place of what an earlier call wrote; returns the page."""
    cameras = camera_lib.transform(views.cameras, views.world_from_cameras)
    given = [views.images[i] if i in known else None for i in range(len(cameras))]
    inputs = [camera_file.image_name(i) for i in known]
    for path in sample_files.remove_others(output, shown, inputs):
        print(f"removed {path}, of an earlier call")
    for path in visuals.write_visuals(
        output, shown, upscale=upscale, min_video_side=sample_files.VIDEO_SIDE
    ):
        print(path)
    path = camera_file.save(output / camera_file.NAME, cameras, image_size, given)
    print(*(path.with_name(name) for name in inputs), path, sep="\n")
    scenes = [scene for scene in shown.values() if isinstance(scene, Gaussians)]
    scenes = dict(zip(titles, scenes, strict=True))  # by the names that the page lists
    return html.write_html(output / PAGE, scenes, cameras, image_size, images=given)


def _check(options: argparse.Namespace) -> None:
    """Refuses options that would have no effect, or none that one could mean."""
    for name, least, most in (
        ("seed", 0, MAX_SEED),
        ("num_samples", 1, None),
        ("upscale", 1, MAX_UPSCALE),
    ):
        value, flag = getattr(options, name), name.replace("_", "-")
        if value < least:
            raise ValueError(f"--{flag}={value} must be at least {least}")
        if most is not None and value > most:
            raise ValueError(f"--{flag}={value} must be at most {most}")
    for name in ("scene", "split"):
        if options.path and getattr(options, name) is not None:
            raise ValueError(f"--{name} has no effect on a made-up --path; leave out one of them")
    if options.split and captures.settings(options):
        raise ValueError(
            f"--split={options.split} is for the model's own data, not for a capture of yours"
        )
    if options.more:
        raise ValueError(
            f"--images takes one photograph, got {1 + len(options.more)}; several need poses: put "
            "them into a folder and give it with --photos"
        )
    if options.images == "":
        raise ValueError("--images is empty; give the path of a photograph")
    if options.images is None:
        if options.fov_deg is not None and not options.path:
            raise ValueError("--fov-deg is for --images or a made-up --path; leave it out")
        return
    for name in captures.FORMATS:
        if getattr(options, name):
            raise ValueError(f"--images is for a photograph without a pose; leave out --{name}")


def load_model(options: argparse.Namespace) -> scene_model.SceneModel:
    """The model that --model names, which must be one that draws scenes of Gaussians."""
    model = scene_model.load(options.model, autoencoder=options.autoencoder)
    if model.task is None:
        raise ValueError(
            f"--model={options.model} is an autoencoder alone; give a run of configs/diffusion.py"
        )
    model.frozen.check_gaussians(f"--model={options.model}: what this command writes and shows")
    return model


def _labels(options: argparse.Namespace, model: scene_model.SceneModel, *, at_random: bool) -> Any:
    """The classes to sample: those asked for, else some of the model's own scenes'."""
    asked = options.class_label
    if asked is None or asked == RANDOM_CLASS:
        if not (model.class_names and model.path_classes):
            if asked is None:
                return None
            raise ValueError(
                f"--class-label={asked} needs a model with named classes, which "
                f"--model={options.model} has not; leave it out"
            )
        return _drawn_classes(options, model) if asked or at_random else None
    if asked == ANY_CLASS:
        return None
    labels = [int(part) if part.isdigit() else part for part in asked.split(",")]
    own = _own_classes(model)
    for name in dict.fromkeys(_class_names(labels, model, len(labels))):
        if own and name in model.class_names and name not in own:
            print(
                f"warning: none of the {len(model.path_classes)} scenes in the model's file is of "
                f"the class {name}, so it may never have seen one; it knows {', '.join(own)}"
            )
    return labels[0] if len(labels) == 1 else labels


def _own_classes(model: scene_model.SceneModel) -> list[str]:
    """Names of the classes of the model's own scenes."""
    own = sorted(set(model.path_classes)) if model.class_names else []
    return [model.class_names[label] for label in own]


def _class_names(labels: Any, model: scene_model.SceneModel, count: int) -> list[str]:
    """The name of the class of each of so many samples; empty where there is none."""
    listed = labels if isinstance(labels, list) else [labels] * count
    known = dict(enumerate(model.class_names))
    return [known.get(each, "") if isinstance(each, int) else each or "" for each in listed]


def _drawn_classes(options: argparse.Namespace, model: scene_model.SceneModel) -> list[str]:
    """A class for each sample, none twice before all were drawn; prints which, of how many.

    They are drawn from those that come out well, where that is known, unless all are asked for.
    """
    names = _own_classes(model)
    good = set(pretrained.recognised_classes(options.model))
    pool = [name for name in names if name in good]
    if options.class_label == RANDOM_CLASS or not pool:
        pool = names
    rng, chosen = np.random.default_rng(options.seed), []
    while len(chosen) < options.num_samples:
        chosen += rng.permutation(pool).tolist()
    chosen = chosen[: options.num_samples]
    print(f"classes: {', '.join(chosen)}")
    if others := [name for name in names if name not in pool]:
        print(
            f"  drawn from the {len(pool)} that come out well ({', '.join(pool)}); --class-label "
            f"takes any, also {', '.join(others)}; --class-label={RANDOM_CLASS} draws from all"
        )
    return chosen


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        default=DEFAULT_MODEL,
        help="a model of the package, a model file, or the workdir of a run of "
        "configs/diffusion.py; default: %(default)s",
    )
    add("--autoencoder", help="where its autoencoder lies now; default: where the run found it")
    add("--output", default="samples", help="folder to write to")
    add(
        "--overwrite",
        action="store_true",
        help="write into a folder that is not empty, in place of the samples in it",
    )
    add("--open", action="store_true", help=f"open {PAGE} in a browser")
    add("--num-samples", type=int, default=4, help="default: %(default)s")
    add("--seed", type=int, default=0, help="of the noise, and of what is drawn; default: 0")
    add("--steps", type=int, help="of the sampler; default: as the model says")
    add(
        "--guidance",
        type=float,
        help="scale of classifier-free guidance, 1: none; default: as the model says",
    )
    add(
        "--autoguidance",
        type=float,
        help="scale of guidance away from a weaker denoiser, for a model that has one, likewise",
    )
    add(
        "--class-label",
        help="for a model with classes: a name or number, or one for each sample (car,tree); "
        "default: different ones of those that the model draws well, or not told where a view is "
        f"given; {RANDOM_CLASS}: from all; {ANY_CLASS}: not told",
    )
    add(
        "--known",
        help="views given to the model, of as many as it has: positions such as 0 or 0,2 or, of a "
        "capture, names of photographs, around which the others are chosen; default: --images, "
        "else none",
    )
    add("--images", metavar="PHOTO", help="a photograph of yours, without a pose")
    add("more", nargs="*", help=argparse.SUPPRESS)  # --images *.jpg, which is told what to do
    where = parser.add_mutually_exclusive_group()
    captures.add_flags(where.add_argument, "your capture")
    where.add_argument("--path", choices=sample_views.PATHS, help="a made-up camera path")
    where.add_argument("--data-root", help="where the model's own data lies now")
    add("--scene", type=int, help="which scene or path of the data; default: 0, the first")
    add(
        "--split",
        choices=sample_views.SPLITS,
        help="scenes held out (default), or trained on (in the views of their first draw)",
    )
    add(
        "--fov-deg",
        type=_field_of_view,
        help="horizontal, of a photograph or a made-up path; default: as the photograph's EXIF "
        f"data say, else as in the model's paths, else {sample_views.FIELD_OF_VIEW_DEG:.0f}",
    )
    add(
        "--upscale",
        type=int,
        default=2,
        help=f"pictures, not videos, are enlarged so many times, at most {MAX_UPSCALE}; default: 2",
    )
    return parser


def _field_of_view(text: str) -> float:
    value = float(text)
    if not 0 < value < 180:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 180 degrees")
    return value
