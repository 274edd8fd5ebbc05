"""The rival of latent diffusion: multi-view diffusion in pixel space that renders in every step.

The network sees noisy images of all V views and predicts a 3D scene; the scene, rendered at the
views, is the prediction of the clean images (the idea of Szymanowicz et al. 2023, "Viewset
diffusion"). So every step of a sampler renders V images, where latent diffusion renders none.
Network code, data, conditions, process and samplers are those of the task `diffusion`; images lie
in [-1, 1] where they are diffused.

A sample's scene is the network's answer to the finished images at the last noise level: one more
pass. The sampler's own last step ends in images, which under guidance are a blend of two scenes'.

Letters: B scenes, V context views, T target views, H, W image.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax import settings
from lgs_jax.core import sharding
from lgs_jax.core.cameras import Cameras
from lgs_jax.data.settings import DataSettings
from lgs_jax.diffusion import process
from lgs_jax.losses import reconstruction
from lgs_jax.metrics.mean import Mean
from lgs_jax.models import parameters, pixel_denoiser
from lgs_jax.models.conditioning import Conditioning
from lgs_jax.models.scene_heads import kinds
from lgs_jax.rendering.api import Rendering, render
from lgs_jax.rendering.settings import RenderingSettings
from lgs_jax.tasks import denoising, drawing, sample_metrics, sample_visuals, views
from lgs_jax.tasks.diffusion_settings import SamplerSettings

Array = jax.Array
Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class PixelLossSettings:
    """What the loss looks at beside the denoised views.

    Attributes:
      target: weight of the error at held-out views, rendered from the same scene, relative to that
        at the denoised ones; 0: they are not rendered.
    """

    target: float = 1.0

    def __post_init__(self):
        if self.target < 0:
            raise ValueError(f"target={self.target} must not be negative")


class PixelDiffusionTask:
    """Trains, evaluates and samples a denoiser of images (satisfies `tasks.task.Task`).

    Args:
      model: arguments of `models.pixel_denoiser.PixelDenoiser`.
      shared: process, conditioning and sampler.
      loss: what the loss looks at.
      image_size: H, W of the images.
      rendering: how splats are drawn.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        shared: denoising.Denoising,
        loss: PixelLossSettings,
        *,
        image_size: tuple[int, int],
        rendering: RenderingSettings = drawing.DEFAULTS,
    ):
        self.model = settings.build(pixel_denoiser.PixelDenoiser, model, "config.model")
        drawing.check_kind(rendering, kinds.kind_of(self.model.scene_head))
        self.rendering = rendering
        self.shared = shared
        shared.check_sampler(True if self.model.num_classes else None)
        self.options = shared.options
        self.sampler = shared.sampler
        self.num_views = shared.num_views
        self.reference = shared.reference
        self.loss_options = loss
        self.image_size = image_size
        self.schedule = shared.options.make_schedule()
        self._sample = jax.jit(self.sample)
        self._final_scene = jax.jit(self.final_scene)
        self._render = jax.jit(self.render)

    def init(self, key: Array) -> Any:
        """The network's parameters."""
        images = jnp.zeros((1, self.num_views, *self.image_size, 3))
        cameras = views.example_cameras(self.num_views, self.image_size)
        mask = jnp.zeros((1, self.num_views), bool)
        return self.model.init(key, images, jnp.zeros(1), cameras, images, mask)["params"]

    def describe(self, params: Any) -> str:
        """The table of parameters."""
        return parameters.summary(params)

    def scene(self, params: Any, z: Array, log_snr: Array, condition: Conditioning) -> Any:
        """The scene [B] that the network sees behind noisy images [B, V, H, W, 3]."""
        return self.model.apply(
            {"params": params},
            z,
            log_snr,
            condition.cameras,
            condition.known,
            condition.known_mask,
            condition.class_label,
        )

    def render(self, scene: Any, cameras: Cameras) -> Rendering:
        """Renders scenes [B] at cameras [B, K], on black; each device draws its own."""
        height, width = self.image_size
        return render(
            scene,
            cameras,
            height=height,
            width=width,
            depth_mode=None,
            image_axes=sharding.image_spec(cameras.batch_shape, height),
            **self.rendering.options,
        )

    def raw(self, params: Any, z: Array, log_snr: Array, condition: Conditioning) -> Array:
        """The predicted clean images [B, V, H, W, 3] in [-1, 1]: the scene, rendered."""
        scene = self.scene(params, z, log_snr, condition)
        return to_signed(self.render(scene, condition.cameras).rgb)

    def condition(self, context: views.Views, known_mask: Array, label: Array) -> Conditioning:
        """The condition that tells the views of `known_mask` [B, V] and the class [B]."""
        return Conditioning(context.cameras, to_signed(context.images), known_mask, label)

    def loss(self, params: Any, batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        """The denoising loss of one batch and what to log of it.

        The weighted squared error of the denoised views, plus `target` times that of the held-out
        views of the same scene.
        """
        options, target_weight = self.options, self.loss_options.target
        keys = jax.random.split(key, 5)
        truth = context = views.from_batch(batch["context"])
        x = to_signed(context.images)
        condition = self.condition(
            context, *self.shared.random_condition(keys[:3], batch["class_label"])
        )
        log_snr = process.sample_log_snr(keys[3], x.shape[:1], self.schedule)
        z = process.diffuse(x, jax.random.normal(keys[4], x.shape), log_snr, options.process)
        if target_weight > 0:
            truth = views.concatenate(context, views.from_batch(batch["target"]))
        scene = self.scene(params, z, log_snr, condition)
        rendering = self.render(scene, truth.cameras)
        errors = reconstruction.l2(to_signed(rendering.rgb), to_signed(truth.images))  # [B, V + T]
        error, held_out = errors[:, : self.num_views].mean(1), errors[:, self.num_views :]
        logged = drawing.logged(scene, rendering) | {
            "x_mse": jnp.mean(error),
            "known_views": jnp.mean(jnp.sum(condition.known_mask, axis=1, dtype=jnp.float32)),
            "alpha": jnp.mean(rendering.alpha),
        }
        if target_weight > 0:
            held_out = held_out.mean(1)
            error = error + target_weight * held_out
            logged["target_mse"] = jnp.mean(held_out)
        return jnp.mean(options.weight(log_snr) * error), logged

    def evaluate(self, params: Any, batch: Batch, key: Array) -> dict[str, Mean]:
        """Denoising errors of the images in [-1, 1] at the V views; and samples.

        See `Denoising.evaluate` and, for names that begin with `sample_`, `sample_metrics`. Noise
        is a function of the scene's index alone; `key` is not used.
        """
        del key
        context = views.from_batch(batch["context"])
        label = jnp.asarray(batch["class_label"])
        one = self.condition(context, self.shared.one_view(len(label)), label)
        eps = denoising.scene_noise(batch["scene_index"], one.known.shape, 1)
        errors = self.shared.evaluate(self._network(params), one.known, eps, one, batch["weight"])
        return errors | sample_metrics.measure_first(
            self.sampler.eval_scenes,
            functools.partial(self.sample, params),
            lambda x, told, cameras: self.render(self.final_scene(params, x, told), cameras),
            batch,
            one,
            reference=self.reference,
        )

    def sample(
        self,
        params: Any,
        condition: Conditioning,
        key: Array,
        sampler: SamplerSettings | None = None,
    ) -> Array:
        """Images [B, V, H, W, 3] in [-1, 1] under a condition; `final_scene` gives their scenes.

        Args:
          params: the network's.
          condition: known views, class and cameras.
          key: one key, or one per scene [B]; see `diffusion.samplers`.
          sampler: how to draw; None: as the task's configuration says.
        """
        return self.shared.sample(self._network(params), condition, key, sampler)

    def final_scene(self, params: Any, images: Array, condition: Conditioning) -> Any:
        """The scenes [B] of finished images [B, V, H, W, 3] in [-1, 1], at the last noise level."""
        log_snr = jnp.full(images.shape[:1], self.schedule.max)
        return self.scene(params, images, log_snr, condition)

    def visualize(self, params: Any, batch: Batch, key: Array) -> dict[str, Any]:
        """Samples of the first scenes of a batch, from one view and from none.

        Their noise is fixed, so that pictures of two evaluations can be compared.
        """
        del key
        functions = sample_visuals.Functions(
            encode=self.condition,
            sample=functools.partial(self._sample, params),
            decode=functools.partial(self._final_scene, params),
            render=self._render,
        )
        return sample_visuals.make(functions, batch, self.shared, reconstruction="all views")

    def _network(self, params: Any) -> denoising.Network:
        return functools.partial(self.raw, params)


def to_signed(images: Array) -> Array:
    """Images in [0, 1] to [-1, 1], where they are diffused."""
    return 2.0 * images - 1.0


def from_config(config: Mapping[str, Any]) -> PixelDiffusionTask:
    """The task of a whole configuration.

    Raises:
      lgs_jax.settings.SettingsError: if the data and the network do not fit, or the network should
        predict anything but x.
    """
    data = settings.build(DataSettings, config["data"], "config.data")
    process_options = {"kind": "x", **config.get("diffusion", {})}
    if process_options["kind"] != "x":
        raise settings.SettingsError(
            f"config.diffusion.kind={process_options['kind']!r}, but this task renders the clean "
            "images, so it must be 'x'; other forms follow from it"
        )
    task = PixelDiffusionTask(
        config.get("model", {}),
        denoising.from_config({**config, "diffusion": process_options}, data),
        settings.build(PixelLossSettings, config.get("loss", {}), "config.loss"),
        image_size=(data.height, data.width),
        rendering=drawing.from_config(config),
    )
    views.check_image_size((data.height, data.width), task.model.size_multiple)
    return task
