"""Where `sample` imagines scenes from: paths of the model, its data, captures, made-up paths."""

import argparse
import dataclasses
import difflib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.cli import captures
from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.data import assemble, crops, neighbours, pipeline
from lgs_jax.data import images as image_lib
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Source
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import scene_model

PATHS = ("orbit", "walk")
SPLITS = ("eval", "train")
FIELD_OF_VIEW_DEG = 60.0
_ARC_DEG = 60.0
# Of a photograph; less is hardly what was meant.
_LEAST_SHARE = 1 / 3


@dataclasses.dataclass(frozen=True)
class Views:
    """Where to imagine the scene from, and what is seen there.

    Attributes:
      cameras: [V].
      images: uint8 [H, W, 3] of the views that have one, by position.
      world_from_cameras: similarity [4, 4] from the frame of the cameras to the data's world.
      names: of the photographs of a capture, by position; empty where there is no capture.
    """

    cameras: Cameras
    images: dict[int, np.ndarray]
    world_from_cameras: jax.Array
    names: tuple[str, ...] = ()

    def known(self, text: str | None) -> list[int]:
        """The positions of the known views, from "0,2" or names; None: the default."""
        if text is None:  # a photograph without a pose is there to be shown
            return list(self.images) if len(self.images) == 1 else []
        numbers, names = split_known(text)
        if names and not self.names:
            raise ValueError(
                f"--known={text!r} must be positions such as 0,2; names of photographs are for "
                "captures"
            )
        chosen = {*numbers, *(self.names.index(found) for found in _find(names, self.names))}
        if chosen and not self.images:
            raise ValueError(
                "--known needs photographs, of which this path has none; give --images, a capture "
                "of yours, or --data-root"
            )
        if outside := [i for i in numbers if not 0 <= i < len(self.cameras)]:
            views = f"the views are 0 to {len(self.cameras) - 1}"
            if self.names:
                shown = ", ".join(f"{i} ({name})" for i, name in enumerate(self.names))
                views = f"the model's views are {shown}; give these, or names of photographs"
            raise ValueError(f"--known={text!r}: there is no view {outside[0]}; {views}")
        if blind := [i for i in chosen if i not in self.images]:
            raise ValueError(
                f"--known={text!r}: view {blind[0]} has no photograph; --images stands at view "
                f"{next(iter(self.images))}"
            )
        return sorted(chosen)

    def remarks(self, known: Sequence[int], degrees_apart: np.ndarray | None) -> list[str]:
        """What to say of the photographs of a capture: which, how far apart, whether shown.

        Args:
          known: positions of the views that the model is given.
          degrees_apart: of the first and the last view of scenes that it knows [K], or None.
        """
        if not self.names:
            return []
        shown = (name + " (given)" * (i in known) for i, name in enumerate(self.names))
        angle = neighbours.angles_deg(self.cameras.world_from_cam)[0, -1]
        lines = [f"views: {', '.join(shown)}; {angle:.0f} degrees apart"]
        if degrees_apart is not None and (far := neighbours.too_far(angle, degrees_apart)):
            lines.append(f"warning: {far}")
        if not known:
            lines.append(
                "the model is not shown these photographs, it only takes their cameras; --known=0 "
                f"or --known={self.names[0]} shows it one"
            )
        return lines


def split_known(text: str | None) -> tuple[list[int], list[str]]:
    """The positions and the names of photographs in the text of --known."""
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    names = [part for part in parts if not part.removeprefix("-").isdigit()]
    return [int(part) for part in parts if part not in names], names


def _find(names: Sequence[str], photographs: Sequence[str]) -> list[str]:
    """The photographs that are meant by names: whole ones, or their last part."""
    found = []
    for name in names:
        fits = [each for each in photographs if name == each.rpartition("/")[2]]
        fits = [name] if name in photographs else fits
        if len(fits) != 1:
            close = difflib.get_close_matches(name, photographs, n=1, cutoff=0.0)
            what = f"names {len(fits)} photographs, {fits[0]} and others," if fits else "names none"
            raise ValueError(
                f"--known={name!r} {what} of the {len(photographs)} photographs of the capture; "
                f"they are named like {close[0]}"
            )
        found += fits
    return found


def choose(options: argparse.Namespace, model: scene_model.SceneModel) -> Views:
    """The views that the options of `sample` ask for, else those of the model's own data."""
    if options.images:
        return _photograph(options, model)
    if options.path:
        fov_deg = options.fov_deg or FIELD_OF_VIEW_DEG
        cameras = make_path(options.path, model.num_views, model.image_size, fov_deg)
        return Views(cameras, {}, jnp.eye(4))
    asked_for = options.data_root or captures.settings(options)
    # What is made from a seed can be made anywhere, so its pictures can be shown.
    if options.known or options.split == "train":
        asked_for = asked_for or {part.source for part, _ in model.data.parts} == {"procedural"}
    if model.paths is not None and not asked_for:
        return Views(_model_path(options, model), {}, jnp.eye(4))
    return _data_views(options, model)


def _data_views(options: argparse.Namespace, model: scene_model.SceneModel) -> Views:
    """A scene of the model's own data, or of a capture."""
    captures.check_at_hand(options, model.data)
    capture = captures.settings(options)
    fewest = {}
    if _by_angle(options, model):  # of as many photographs as the model has views, or more
        fewest = {"context_views": max(model.num_views - 1, 1), "target_views": 1, "scale": 1.0}
        fewest |= {"gap_min": 1, "gap_max": None}
    other = {"root": options.data_root} if options.data_root else capture and capture | fewest
    data, scene = dataclasses.replace(model.data, **other), options.scene or 0
    source = pipeline.make_source(data, options.split or SPLITS[0])
    print(source.report.summary())
    if not 0 <= scene < len(source):
        raise ValueError(f"--scene={scene}: the scenes are 0 to {len(source) - 1}")
    if other and len(source) > 1:
        print(
            f"scene {scene}: {source[scene].key}; --scene takes another of 0 to {len(source) - 1}"
        )
    frames, names = None, ()
    if capture:
        frames = _frames(options, model, source, data, scene)
        names = tuple(source[scene].frame_names[frame] for frame in frames[0])
        data = model.data  # for sizes and frame of reference; which frames, is settled
    entry = _entry(source, data, scene, options.split, frames)
    context = entry["context"]
    cameras = Cameras(jnp.asarray(context["world_from_cam"]), jnp.asarray(context["intrinsics"]))
    images = dict(enumerate(context["images"]))
    return Views(cameras, images, jnp.asarray(entry["world_from_scene"]), names)


def _by_angle(options: argparse.Namespace, model: scene_model.SceneModel) -> bool:
    """Whether views of a capture are chosen by angle, or else as the model's data settings say."""
    return model.paths is not None or bool(split_known(options.known)[1])


def _frames(
    options: argparse.Namespace,
    model: scene_model.SceneModel,
    source: Source,
    data: DataSettings,
    scene: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs [V] of a capture, as far apart as the model knows views, and one more."""
    example = source[scene]
    if not _by_angle(options, model):
        return assemble.choose_frames(source, example, data, scene, rng=None)
    named = _find(split_known(options.known)[1], example.frame_names)
    taken = sorted({example.frame_names.index(name) for name in named})
    degrees = neighbours.usual_deg(model.degrees_apart)
    frames = neighbours.choose(example.world_from_cam, model.num_views, degrees, taken)
    return frames, frames[:1]  # an entry has held-out views, which nothing here looks at


def _model_path(options: argparse.Namespace, model: scene_model.SceneModel) -> Cameras:
    """The path [V] of the model that --scene chooses."""
    if options.split == "train":
        raise ValueError("--split=train is for scenes of data; give --data-root, or leave it out")
    scene = options.scene or 0
    if not 0 <= scene < len(model.paths):
        raise ValueError(f"--scene={scene}: the paths are 0 to {len(model.paths) - 1}")
    return model.paths[scene]


def _entry(
    source: Source,
    data: DataSettings,
    scene: int,
    split: str | None,
    frames: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """The scene in these frames, in the evaluation's, or in the first that training draws."""
    if split == "train" and data.view_draws:
        return pipeline.draw_entry(source, data, scene, 0, cache=FrameCache(0))
    cache = FrameCache(0)
    return assemble.scene_entry(source, data, scene, rng=None, cache=cache, frames=frames)


def _photograph(options: argparse.Namespace, model: scene_model.SceneModel) -> Views:
    """One photograph as the reference view of a path of the model or its data, or a made-up one."""
    path = str(pathlib.Path(options.images).expanduser())
    pixels = image_lib.read_photograph(path)
    own = None
    if not options.path:
        has_paths = model.paths is not None and not options.data_root
        own = _model_path(options, model) if has_paths else _data_views(options, model).cameras
    fov_deg, origin = options.fov_deg, "--fov-deg"
    height, width = model.image_size
    box = crops.centre_box(pixels.shape[:2], width / height)
    if warning := _little_to_see(pixels.shape[:2], box, model.image_size):
        print(f"warning: {path} {warning}")
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
    return Views(cameras, {model.task.reference: shown}, jnp.eye(4))


def _little_to_see(
    size: tuple[int, int], box: tuple[float, ...], image_size: tuple[int, int]
) -> str:
    """What is odd about a photograph (H, W) that is cropped to a box; empty if nothing is."""
    found = f"has {size[1]} x {size[0]} pixels"
    share = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
    if share < _LEAST_SHARE:
        return f"{found}, of which the model sees the middle {share:.0%}; crop it to what matters"
    if box[3] - box[1] < image_size[0]:
        height, width = image_size
        return f"{found}, fewer than the {width} x {height} that the model sees; it is enlarged"
    return ""


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
