"""python -m lgs_jax sample: draws 3D scenes from a trained diffusion model.

Camera paths come from the model's own kind of data (`--scene`), from a capture of yours
(`--transforms`, `--colmap`, `--llff`, or `--photos`, whose poses are computed), or are made up
(`--path`). With `--known`, the photographs at those views are given to the model; without, the
scene is imagined from nothing. One photograph without a pose (`--images`) becomes the reference
view of one of the same paths (`--scene`), or of a made-up one.

Without --model, the small model that comes with the package draws objects of all its kinds.

  python -m lgs_jax sample --open
  python -m lgs_jax sample --class-label=car --seed=7
  python -m lgs_jax sample --model=runs/diffusion --num-samples=4
  python -m lgs_jax sample --model=runs/diffusion --transforms=my_capture --known=0
  python -m lgs_jax sample --model=runs/diffusion --images=photo.jpg
  python -m lgs_jax sample --model=runs/diffusion --path=walk
"""

import argparse
import dataclasses
import pathlib
import time
import webbrowser
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.cli import captures, reporting
from lgs_jax.core import cameras as camera_lib
from lgs_jax.core import gaussians
from lgs_jax.core.cameras import Cameras
from lgs_jax.data import assemble, crops, pipeline
from lgs_jax.data import images as image_lib
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Source
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import sample_files, scene_model, visuals
from lgs_jax.inference.viewer import camera_file, html
from lgs_jax.training import checkpoint, compilation_cache

DEFAULT_MODEL = "objects-small"
ANY_CLASS = "any"
PATHS = ("orbit", "walk")
SPLITS = ("eval", "train")
FIELD_OF_VIEW_DEG = 60.0
PAGE = "view.html"
_ARC_DEG = 60.0


def main(arguments: list[str]) -> int:
    """Draws samples and writes them; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError, checkpoint.CheckpointError) as error:  # SettingsError among them
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Loads, samples, writes."""
    _check(options)
    print(compilation_cache.enable())
    output = pathlib.Path(options.output).expanduser()
    sample_files.check_folder(output, overwrite=options.overwrite)
    model = load_model(options)
    views = _views(options, model)
    known = views.known(options.known)
    others = np.array([i for i in range(len(views.cameras)) if i not in known], int)
    images = np.stack([views.images[i] for i in known]) if known else None
    arguments = {
        "images": images,
        "context_cameras": views.cameras[np.array(known)] if known else None,
        "class_label": _labels(options, model, at_random=not known),
        "steps": options.steps,
        "guidance_scale": options.guidance,
        "num_samples": options.num_samples,
    }
    began = time.monotonic()
    scenes = model.sample(jax.random.key(options.seed), views.cameras[others], **arguments)
    jax.block_until_ready(scenes.means)
    print(
        f"{options.num_samples} scenes of {scenes.num_gaussians:,} splats in "
        f"{time.monotonic() - began:.1f} s, compilation included"
    )
    shown, pictures = sample_files.make(
        scenes, views.cameras, image_size=model.image_size, known=() if images is None else images
    )
    if known:
        for kind, psnr in sample_files.scores(pictures, views.images, known).items():
            print(f"PSNR at the {kind} views: {psnr:.2f} dB")
    for name in [name for name in shown if name.startswith("sample_")]:
        shown[name] = gaussians.transform(shown[name], views.world_from_cameras)
    for path in sample_files.remove_others(output, shown):
        print(f"removed {path}, of an earlier call")
    for path in visuals.write_visuals(output, shown, upscale=options.upscale):
        print(path)
    cameras = camera_lib.transform(views.cameras, views.world_from_cameras)
    print(camera_file.save(output / camera_file.NAME, cameras, model.image_size))
    page = html.write_html(
        output / PAGE,
        {name: scene for name, scene in shown.items() if name.startswith("sample_")},
        cameras,
        model.image_size,
        images=[views.images[i] if i in known else None for i in range(len(cameras))],
    )
    print(f"{page} (open it in a browser)")
    if options.open:
        webbrowser.open(page.resolve().as_uri())


def _check(options: argparse.Namespace) -> None:
    """Refuses options that would have no effect, or none that one could mean."""
    if options.upscale < 1:
        raise ValueError(f"--upscale={options.upscale} must be at least 1")
    for name in ("scene", "split"):
        if options.path and getattr(options, name) is not None:
            raise ValueError(f"--{name} has no effect on a made-up --path; leave out one of them")
    if options.split and captures.settings(options):
        raise ValueError(
            f"--split={options.split} is for the model's own data, not for a capture of yours"
        )
    if options.images is None:
        if options.fov_deg is not None and not options.path:
            raise ValueError("--fov-deg is for --images or a made-up --path; leave it out")
        return
    for name in captures.FORMATS:
        if getattr(options, name):
            raise ValueError(f"--images is for a photograph without a pose; leave out --{name}")
    if len(options.images) > 1:
        raise ValueError(
            f"--images takes one photograph, got {len(options.images)}; several need poses: put "
            "them into a folder and give it with --photos"
        )


def load_model(options: argparse.Namespace) -> scene_model.SceneModel:
    """The model that --model names, which must be one that draws scenes."""
    model = scene_model.load(options.model, autoencoder=options.autoencoder)
    if model.task is None:
        raise ValueError(
            f"--model={options.model} is an autoencoder alone; give a run of configs/diffusion.py"
        )
    return model


def _labels(options: argparse.Namespace, model: scene_model.SceneModel, *, at_random: bool) -> Any:
    """The classes to sample: those asked for, else one of the model's own scenes' for each."""
    if options.class_label is None:
        if not (at_random and model.class_names and model.path_classes):
            return None
        rng = np.random.default_rng(options.seed)
        labels = rng.choice(sorted(set(model.path_classes)), options.num_samples)
        chosen = [model.class_names[label] for label in labels]
        print(f"classes: {', '.join(chosen)}")
        return chosen
    if options.class_label == ANY_CLASS:
        return None
    labels = [int(part) if part.isdigit() else part for part in options.class_label.split(",")]
    return labels[0] if len(labels) == 1 else labels


@dataclasses.dataclass(frozen=True)
class _Views:
    """Where to imagine the scene from, and what is seen there.

    Attributes:
      cameras: [V].
      images: uint8 [H, W, 3] of the views that have one, by position.
      world_from_cameras: similarity [4, 4] from the frame of the cameras to the data's world.
    """

    cameras: Cameras
    images: dict[int, np.ndarray]
    world_from_cameras: jax.Array

    def known(self, text: str | None) -> list[int]:
        """The positions of the known views, from "0,2"; None: the default."""
        if text is None:  # a photograph without a pose is there to be shown
            return list(self.images) if len(self.images) == 1 else []
        try:
            chosen = sorted({int(part) for part in text.split(",") if part.strip()})
        except ValueError as error:
            raise ValueError(f"--known={text!r} must be positions such as 0,2") from error
        if chosen and not self.images:
            raise ValueError("--known needs photographs, which a made-up --path does not have")
        if outside := [i for i in chosen if not 0 <= i < len(self.cameras)]:
            raise ValueError(
                f"--known={text!r}: there is no view {outside[0]}; the views are 0 to "
                f"{len(self.cameras) - 1}"
            )
        if blind := [i for i in chosen if i not in self.images]:
            raise ValueError(
                f"--known={text!r}: view {blind[0]} has no photograph; --images stands at view "
                f"{next(iter(self.images))}"
            )
        return chosen


def _views(options: argparse.Namespace, model: scene_model.SceneModel) -> _Views:
    if options.images:
        return _photograph(options, model)
    if options.path:
        fov_deg = options.fov_deg or FIELD_OF_VIEW_DEG
        cameras = make_path(options.path, model.num_views, model.image_size, fov_deg)
        return _Views(cameras, {}, jnp.eye(4))
    if model.paths is not None and not options.data_root and not captures.settings(options):
        return _Views(_model_path(options, model), {}, jnp.eye(4))
    return _data_views(options, model)


def _data_views(options: argparse.Namespace, model: scene_model.SceneModel) -> _Views:
    """A scene of the model's own data, or of a capture."""
    capture, scene = captures.settings(options), options.scene or 0
    if options.data_root:
        capture = {"root": options.data_root}
    data = dataclasses.replace(model.data, **capture)
    source = pipeline.make_source(data, options.split or SPLITS[0])
    print(source.report.summary())
    if not 0 <= scene < len(source):
        raise ValueError(f"--scene={scene}: the scenes are 0 to {len(source) - 1}")
    entry = _entry(source, data, scene, options.split)
    context = entry["context"]
    cameras = Cameras(jnp.asarray(context["world_from_cam"]), jnp.asarray(context["intrinsics"]))
    images = dict(enumerate(context["images"]))
    return _Views(cameras, images, jnp.asarray(entry["world_from_scene"]))


def _model_path(options: argparse.Namespace, model: scene_model.SceneModel) -> Cameras:
    """The path [V] of the model that --scene chooses."""
    if options.split == "train":
        raise ValueError("--split=train is for scenes of data; give --data-root, or leave it out")
    scene = options.scene or 0
    if not 0 <= scene < len(model.paths):
        raise ValueError(f"--scene={scene}: the paths are 0 to {len(model.paths) - 1}")
    return model.paths[scene]


def _entry(source: Source, data: DataSettings, scene: int, split: str | None) -> dict[str, Any]:
    """The scene in the views of the evaluation, or in the first of those that training draws."""
    if split == "train" and data.view_draws:
        return pipeline.draw_entry(source, data, scene, 0, cache=FrameCache(0))
    return assemble.scene_entry(source, data, scene, rng=None, cache=FrameCache(0))


def _photograph(options: argparse.Namespace, model: scene_model.SceneModel) -> _Views:
    """One photograph as the reference view of a path of the model or its data, or a made-up one."""
    path = str(pathlib.Path(options.images[0]).expanduser())
    pixels = image_lib.read_photograph(path)
    own = None
    if not options.path:
        has_paths = model.paths is not None and not options.data_root
        own = _model_path(options, model) if has_paths else _data_views(options, model).cameras
    fov_deg, origin = options.fov_deg, "--fov-deg"
    height, width = model.image_size
    box = crops.centre_box(pixels.shape[:2], width / height)
    if fov_deg is None and (focal := image_lib.exif_focal_length(path)) is not None:
        fov_deg, origin = np.rad2deg(2 * np.arctan((box[2] - box[0]) / 2 / focal)), "its EXIF data"
    if fov_deg is None and own is not None:
        fov_deg = np.rad2deg(2 * np.arctan(width / 2 / own.intrinsics[model.task.reference, 0]))
        origin = "as what the model was trained on; set --fov-deg if you know it"
    if fov_deg is None:
        fov_deg, origin = FIELD_OF_VIEW_DEG, "a guess; set --fov-deg if you know it"
    print(f"{path}: {fov_deg:.0f} degrees wide after the crop to {width} x {height} ({origin})")
    cameras = make_path(options.path or PATHS[0], model.num_views, model.image_size, fov_deg)
    if own is not None:
        cameras = dataclasses.replace(cameras, world_from_cam=own.world_from_cam)
    shown = crops.crop_resize(pixels, box, height, width)
    return _Views(cameras, {model.task.reference: shown}, jnp.eye(4))


def default_path(model: scene_model.SceneModel) -> Cameras:
    """Cameras [V] where nothing is said of them: the first path of the model, or an orbit."""
    if model.paths is not None:
        return model.paths[0]
    return make_path("orbit", model.num_views, model.image_size, FIELD_OF_VIEW_DEG)


def make_path(name: str, num_views: int, image_size: tuple[int, int], fov_deg: float) -> Cameras:
    """A made-up path [V] for images of a size: `orbit` around a point, or `walk` forward and aside.

    Units do not matter: the model sees cameras in units of their own spread.
    """
    steps = np.linspace(-0.5, 0.5, num_views)
    if name == "orbit":
        angles = np.deg2rad(_ARC_DEG) * steps
        centers = np.stack([np.sin(angles), np.zeros(num_views), -np.cos(angles)], -1)
        targets = np.zeros((num_views, 3))
    else:
        centers = np.stack([0.5 * steps, np.zeros(num_views), 1.0 * steps], -1)
        targets = centers + np.array([0.2, 0.0, 1.0])
    height, width = image_size
    focal = 0.5 * width / np.tan(np.deg2rad(fov_deg) / 2)
    poses = camera_lib.look_at(
        *(jnp.asarray(a, jnp.float32) for a in (centers, targets, np.array([0.0, -1.0, 0.0])))
    )
    intrinsics = jnp.array([focal, focal, width / 2, height / 2], jnp.float32)
    return Cameras(poses, jnp.broadcast_to(intrinsics, (num_views, 4)))


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
    add("--num-samples", type=int, default=4)
    add("--seed", type=int, default=0)
    add("--steps", type=int, help="of the sampler; default: as the model says")
    add(
        "--guidance",
        type=float,
        help="scale of classifier-free guidance, 1: none; default: as the model says",
    )
    add(
        "--class-label",
        help="for a model with classes: a name or number, or one for each sample (car,tree); "
        f"default: at random, or not told where a view is given; {ANY_CLASS}: not told",
    )
    add("--known", help="views given to the model, such as 0 or 0,2; default: --images, else none")
    add("--images", nargs="+", metavar="PHOTO", help="a photograph of yours, without a pose")
    where = parser.add_mutually_exclusive_group()
    captures.add_flags(where.add_argument, "your capture")
    where.add_argument("--path", choices=PATHS, help="a made-up camera path")
    where.add_argument("--data-root", help="where the model's own data lies now")
    add("--scene", type=int, help="which scene or path of the data; default: 0, the first")
    add(
        "--split",
        choices=SPLITS,
        help="scenes held out (default), or trained on (in the views of their first draw)",
    )
    add(
        "--fov-deg",
        type=_field_of_view,
        help="horizontal, of a photograph or a made-up path; default: as the photograph's EXIF "
        f"data say, else as in the model's paths, else {FIELD_OF_VIEW_DEG:.0f}",
    )
    add("--upscale", type=int, default=2, help="pictures are enlarged so many times")
    return parser


def _field_of_view(text: str) -> float:
    value = float(text)
    if not 0 < value < 180:
        raise argparse.ArgumentTypeError(f"{text} must lie between 0 and 180 degrees")
    return value
