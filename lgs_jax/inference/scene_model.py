"""A trained model as one object: photographs to scenes, latents to scenes, samples of scenes.

Everything goes in and comes out in the caller's world. Inside, scenes stand in the frame that the
autoencoder was trained in (`data.normalize`). A scene is `Gaussians`, or of an autoencoder with
another `scene_head.kind` a radiance field, which `lgs_jax.render` takes as well.

Letters: V views, K known views, H, W image height and width, h, w latent map, c latent channels,
S samples.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax import settings, tasks
from lgs_jax.core.cameras import Cameras
from lgs_jax.data import crops, neighbours, normalize
from lgs_jax.data.settings import DataSettings
from lgs_jax.diffusion import samplers
from lgs_jax.inference import arguments, model_file, pretrained, tensor_file
from lgs_jax.inference import load as load_lib
from lgs_jax.models.conditioning import NO_CLASS, Conditioning
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.models.guide import Guide
from lgs_jax.models.latent_stats import LatentStats
from lgs_jax.rendering import api
from lgs_jax.tasks.diffusion import DiffusionTask
from lgs_jax.training import checkpoint

Array = jax.Array


def load(path: str | os.PathLike, *, autoencoder: str | os.PathLike | None = None) -> "SceneModel":
    """Opens a model: one that comes with the package, a file, or the workdir of a run.

    Args:
      path: the name of a model in the package (`pretrained.names()`), or the path of a file that
        `pack-model` has written, or of a run of configs/vae.py or configs/diffusion.py or one of
        its checkpoints.
      autoencoder: where the autoencoder of a diffusion run lies now; None: where the run found it.
        A file holds its own.

    Raises:
      lgs_jax.training.checkpoint.CheckpointError: if there is no checkpoint, or it is damaged.
      lgs_jax.settings.SettingsError: if it is the run of another task, or its parts do not fit.
    """
    path = pretrained.find(path)
    if tensor_file.suffix(pathlib.Path(path)):
        if autoencoder is not None:
            raise settings.SettingsError(
                f"{path} holds its own autoencoder; leave out autoencoder={str(autoencoder)!r}"
            )
        parts = model_file.load(path)
        return SceneModel(
            parts.frozen,
            parts.task,
            parts.params,
            guide=parts.guide,
            data=parts.data,
            paths=parts.paths,
            path_classes=parts.path_classes,
            class_names=parts.class_names,
        )
    folder, step = checkpoint.locate(path)
    config = checkpoint.read_config(folder, step)
    name = config.get("task")
    if name == "vae":
        saved = load_lib.open_autoencoder(path)
        return SceneModel(saved.plain, data=saved.data_settings())
    if name != "diffusion":
        raise settings.SettingsError(
            f"{path} is a run of the task {name!r}; expected one of configs/vae.py or "
            "configs/diffusion.py"
        )
    stats = LatentStats.from_json(config["latent_stats"], f"the latent statistics of {path}")
    frozen = load_lib.autoencoder_of_run(autoencoder or config["autoencoder"], stats)
    task = tasks.make_task("diffusion", config, frozen)
    _, params = checkpoint.restore_params(folder, step=step)
    data = settings.build(DataSettings, config["data"], "the run's data")
    return SceneModel(frozen, task, params, data=data)


class SceneModel:
    """An autoencoder and, for sampling, a denoiser of its latents.

    Its methods check what they are given and compile what they need, so they are called from Python
    with arrays, not inside `jit`, `vmap` or `grad`; `frozen` and `task` hold what may be.

    Args:
      frozen: the autoencoder.
      task: the diffusion task; None for an autoencoder alone.
      params: the denoiser's parameters.
      guide: a weaker denoiser, which the sampler's `autoguidance` keeps away from; None without.
      data: what it was trained on; None where that is not known.
      paths: cameras [K, V] of scenes of the kind that it was trained on, for images of its size;
        None where there are none at hand.
      path_classes: class labels [K] of those scenes.
      class_names: by class label; empty for a model without classes, or where they are not known.
    """

    def __init__(
        self,
        frozen: FrozenAutoencoder,
        task: DiffusionTask | None = None,
        params: Any | None = None,
        *,
        guide: Guide | None = None,
        data: DataSettings | None = None,
        paths: Cameras | None = None,
        path_classes: Sequence[int] = (),
        class_names: Sequence[str] = (),
    ):
        self.frozen = frozen
        self.task = task
        self.params = params
        self.guide = guide
        self.data = data
        self.paths = paths
        self.path_classes = tuple(path_classes)
        self.class_names = tuple(class_names)
        self._encode = jax.jit(lambda frozen, *a: frozen.encode(*a).mean)
        self._decode = jax.jit(lambda frozen, *a: frozen.decode(*a))
        self._sample = jax.jit(self._sample_latents, static_argnames="sampler")

    @property
    def image_size(self) -> tuple[int, int]:
        """H, W of the images that the model takes and was trained to render."""
        return self.frozen.image_size

    @property
    def num_views(self) -> int:
        """V that the model was trained for."""
        return self.frozen.num_views

    @property
    def degrees_apart(self) -> np.ndarray | None:
        """Angles [K] between the first and the last view of `paths`, as in training; or None."""
        if self.paths is None:
            return None
        ends = np.asarray(self.paths.world_from_cam)[:, [0, -1]]
        return np.array([neighbours.angles_deg(pair)[0, 1] for pair in ends])

    def encode(self, images: Any, cameras: Cameras) -> Array:
        """Latents [V, h, w, c] of posed images.

        Args:
          images: [V, H', W', 3], uint8 or float in [0, 1]; of another size than the model's they
            are cropped to its shape around the centre and resized.
          cameras: [V], for these images.

        Raises:
          ValueError: if shapes do not fit, values are not finite, or a pose is no rigid motion.
        """
        images, cameras = self._prepare(images, cameras)
        scene = self._to_scene(cameras)
        return self._encode(self.frozen, images[None], scene.cameras[None])[0]

    def decode(self, latents: Array, cameras: Cameras) -> Any:
        """The scene of latents [V, h, w, c] at cameras [V] (for images of `image_size`).

        Returns:
          `Gaussians` [N], or the field that the autoencoder's `scene_head.kind` makes.

        Raises:
          ValueError: if shapes do not fit, values are not finite, or a pose is no rigid motion.
        """
        expected = (len(arguments.one_set(cameras)), *self.frozen.latent_shape)
        if latents.shape != expected:
            raise ValueError(
                f"latents have shape {latents.shape}, but the cameras and the model ask for "
                f"[V, h, w, c] = {expected}"
            )
        arguments.check_finite("latents", latents)
        scene = self._to_scene(cameras)
        decoded = self._decode(self.frozen, jnp.asarray(latents)[None], scene.cameras[None])
        return api.transform(decoded[0], scene.world_from_scene)

    def reconstruct(self, images: Any, cameras: Cameras) -> Any:
        """The scene of posed images, encoded and decoded; see `encode`."""
        prepared, fitted = self._prepare(images, cameras)
        return self.decode(self.encode(prepared, fitted), fitted)

    def sample(
        self,
        key: Array,
        cameras: Cameras,
        *,
        images: Any | None = None,
        context_cameras: Cameras | None = None,
        class_label: int | str | Sequence[int | str] | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        autoguidance: float | None = None,
        num_samples: int = 1,
    ) -> Any:
        """Scenes [S] drawn from the model, as seen from V cameras, given K of the views or none.

        Sample i depends on the key and i alone, not on how many are drawn.

        Args:
          key: a typed key, `jax.random.key(seed)`.
          cameras: where the scene is imagined from [V - K], for images of `image_size`; splats lie
            on the rays of these and of the known views.
          images: known views [K, H', W', 3], as in `encode`.
          context_cameras: of the known views [K].
          class_label: of the scenes, or one for each, for a model with classes: a number, or one of
            `class_names`; None: any.
          steps: of the sampler; None: as the model's configuration says (25 if it does not).
          guidance_scale: of classifier-free guidance, 1: none; None: as the configuration says.
          autoguidance: scale of guidance away from a weaker denoiser, 1: none, for a model that has
            one; None: as the configuration says.
          num_samples: S.

        Returns:
          `Gaussians` [S, N], or fields [S] where the autoencoder's `scene_head.kind` makes those.

        Raises:
          ValueError: if there is no denoiser, an argument is missing or outside of what the model
            was trained for, or values are not finite.
        """
        if self.task is None:
            raise ValueError(
                "this model is an autoencoder alone; load a run of configs/diffusion.py to sample"
            )
        own = self.task.sampler
        steps = own.steps if steps is None else steps
        if guidance_scale is None:
            guidance_scale = own.scales[images is not None]
        if autoguidance is None:
            autoguidance = own.autoguidance_scales[images is not None]
        scales = {"guidance_scale": guidance_scale, "autoguidance": autoguidance}
        labels = self._check_request(class_label, scales, num_samples)
        known, context = self._known(images, context_cameras)
        told = NO_CLASS not in labels
        self.task.check_request(len(known), guidance_scale, class_told=told)
        together, mask = self._arrange(arguments.one_set(cameras), context)
        scene = self._to_scene(together)
        everything = np.zeros((len(together), *self.image_size, 3), np.float32)
        everything[mask] = known
        # The scales are arguments of the compiled program; that there is none, a part of it.
        drawn = [None if scale == 1.0 else jnp.float32(scale) for scale in scales.values()]
        plain = {"guidance_known": None, "autoguidance": 1.0, "autoguidance_known": None}
        sampler = dataclasses.replace(own, steps=steps, guidance=1.0, **plain)
        decoded, finite = self._sample(
            self.frozen,
            self.params,
            self.guide,
            jnp.asarray(everything),
            scene.cameras,
            jnp.asarray(mask),
            jnp.asarray(labels, jnp.int32),
            samplers.scene_keys(key, num_samples),
            *drawn,
            sampler=sampler,
        )
        if not finite:
            raise ValueError(
                f"the sampler's latents hold values that are not finite ({steps=}, {scales}); "
                "lower the scales, take more steps, set config.sampler.clip, or look whether the "
                "training diverged"
            )
        return api.transform(decoded, scene.world_from_scene)

    def _sample_latents(
        self, frozen, params, guide, images, cameras, mask, labels, keys, *scales, sampler
    ):
        """Scenes [S] in the scene frame, and whether their latents are finite."""
        count = keys.shape[0]
        known = frozen.encode(images[None], cameras[None], mask[None]).mean
        condition = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (count, *x.shape[1:])),
            Conditioning(cameras[None], known, mask[None], labels),
        )
        latents = self.task.sample(params, condition, keys, sampler, *scales, guide)
        return frozen.decode(latents, condition.cameras), jnp.isfinite(latents).all()

    def _prepare(self, images: Any, cameras: Cameras) -> tuple[Array, Cameras]:
        """Images [V, H, W, 3], float in [0, 1], and their cameras."""
        cameras, images = arguments.one_set(cameras), np.asarray(images)
        if images.ndim != 4 or images.shape[-1] != 3 or not 0 < len(images) == len(cameras):
            raise ValueError(
                f"images have shape {images.shape}; expected [V, H, W, 3] for the {len(cameras)} "
                "cameras, at least one"
            )
        if jnp.issubdtype(images.dtype, jnp.floating):  # bfloat16 too
            images = images.astype(np.promote_types(images.dtype, np.float32))
            arguments.check_finite("images", images)
            if images.min() < 0 or images.max() > 1:
                raise ValueError(
                    f"images of float type must lie in [0, 1], got [{images.min()}, "
                    f"{images.max()}]; divide by 255, or give uint8"
                )
            if images.shape[1:3] == self.image_size:
                return jnp.asarray(images, jnp.float32), cameras
            images = np.rint(images * 255).astype(np.uint8)
        if images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 or float, got {images.dtype}")
        height, width = self.image_size
        box = crops.centre_box(images.shape[1:3], width / height)
        resized = np.stack([crops.crop_resize(image, box, height, width) for image in images])
        intrinsics = crops.crop_resize_intrinsics(
            np.asarray(cameras.intrinsics, np.float64), box, height, width
        )
        fitted = dataclasses.replace(cameras, intrinsics=jnp.asarray(intrinsics, jnp.float32))
        return jnp.asarray(resized, jnp.float32) / 255, fitted

    def _to_scene(self, cameras: Cameras) -> "_SceneFrame":
        """Cameras [V] of a world in the frame that the autoencoder knows."""
        reference, scale = self.frozen.scene_frame
        placed = np.asarray(arguments.one_set(cameras).world_from_cam, np.float64)
        if not normalize.has_unit(placed[:, :3, 3], scale):
            raise ValueError(
                f"the {len(placed)} cameras stand in one place, but this model measures a scene by "
                f"how far they are apart (data.scale={scale!r}); give cameras in several places"
            )
        unit = normalize.scene_unit(placed[:, :3, 3], np.arange(len(placed)), scale)
        to_world = normalize.world_from_scene(placed, reference, unit)
        moved = jnp.asarray(normalize.to_scene(placed, to_world), jnp.float32)
        return _SceneFrame(
            dataclasses.replace(cameras, world_from_cam=moved), jnp.asarray(to_world, jnp.float32)
        )

    def _check_request(
        self, class_label: Any, scales: Mapping[str, float], num_samples: int
    ) -> list[int]:
        """The class labels [S] as the network takes them."""
        if not arguments.is_whole(num_samples) or num_samples < 1:
            raise ValueError(f"{num_samples=} must be a whole number, at least 1")
        for name, value in scales.items():
            arguments.check_scale(name, value)
        if scales["autoguidance"] != 1 and self.guide is None:
            raise ValueError(
                f"autoguidance={scales['autoguidance']} needs a weaker denoiser, which this model "
                "has not (pack-model --guide); use 1"
            )
        if class_label is None or isinstance(class_label, str) or np.ndim(class_label) == 0:
            return [self._label(class_label)] * num_samples
        if len(class_label) != num_samples:
            raise ValueError(
                f"{len(class_label)} class labels for {num_samples=}; give one, or one for each"
            )
        return [self._label(label) for label in class_label]

    def _label(self, class_label: int | str | None) -> int:
        """A class label as the network takes it."""
        if class_label is None:
            return NO_CLASS
        classes = self.task.model.num_classes
        label = self.class_names.index(class_label) if class_label in self.class_names else None
        if arguments.is_whole(class_label) and 0 <= class_label < classes:
            label = int(class_label)
        if label is None:
            known = f"0 to {classes - 1}" if classes else "none: it was trained without classes"
            names = f" ({', '.join(self.class_names)})" if self.class_names else ""
            raise ValueError(
                f"{class_label=} is not a class of this model; it knows {known}{names}"
            )
        return label

    def _known(self, images: Any, cameras: Cameras | None) -> tuple[np.ndarray, Cameras | None]:
        if (images is None) != (cameras is None):
            given, missing = ("images", "context_cameras")[:: 1 if cameras is None else -1]
            raise ValueError(f"{given} without {missing}; give both, or neither")
        if images is None:
            return np.zeros((0, *self.image_size, 3), np.float32), None
        prepared, fitted = self._prepare(images, cameras)
        return np.asarray(prepared), fitted

    def _arrange(self, cameras: Cameras, context: Cameras | None) -> tuple[Cameras, np.ndarray]:
        """All V cameras, a known one as the reference, and which of them are known."""
        count = 0 if context is None else len(context)
        if len(cameras) + count != self.num_views:
            raise ValueError(
                f"the model was trained with {self.num_views} views, but there are {len(cameras)} "
                f"cameras and {count} known views; give {self.num_views - count} cameras"
            )
        place = min(self.task.reference, len(cameras))
        mask = np.zeros(self.num_views, bool)
        mask[place : place + count] = True
        if context is None:
            return cameras, mask
        return jax.tree.map(
            lambda a, b: jnp.concatenate([a[:place], b, a[place:]]), cameras, context
        ), mask


@dataclasses.dataclass(frozen=True)
class _SceneFrame:
    """Cameras [V] in the scene frame, and the similarity [4, 4] back to the world."""

    cameras: Cameras
    world_from_scene: Array
