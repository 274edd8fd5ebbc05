"""Stage 2: latent diffusion over the views of a scene.

The denoiser learns the latents of a frozen autoencoder (`FrozenAutoencoder`, a constant of the
run), encoded anew at every step, or beforehand (`data.latents`). Some views of each scene are
known: they are encoded without sight of the others and given clean. No rendering takes part in the
loss.

Letters: B scenes, V views, H, W image, h, w latent map, c latent channels, L noise levels.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax import settings
from lgs_jax.core.cameras import Cameras
from lgs_jax.data.settings import DataSettings
from lgs_jax.diffusion import grids, guidance, parameterization, process, samplers
from lgs_jax.metrics.mean import Mean
from lgs_jax.models import autoencoder, conditioning, denoiser, parameters
from lgs_jax.models.conditioning import Conditioning
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.rendering.api import render
from lgs_jax.tasks import encoding, sample_metrics, sample_visuals, views
from lgs_jax.tasks.diffusion_settings import DiffusionSettings, SamplerSettings

Array = jax.Array
Batch = Mapping[str, Any]

# Noise levels of the evaluation, in log-SNR: from nearly all noise to nearly none.
EVALUATION_LEVELS = (-6.0, -3.0, 0.0, 3.0, 6.0)


class DiffusionTask:
    """Trains, evaluates and samples a denoiser of latents (satisfies `tasks.task.Task`).

    `loss`, `evaluate` and `visualize` take the frozen autoencoder as a further argument.

    Args:
      model: arguments of `models.denoiser.Denoiser`.
      options: process, loss and conditioning.
      sampler: how samples are drawn.
      image_size: H, W of the images.
      num_views: V.
      reference: the view that is known where one view is shown.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        options: DiffusionSettings,
        sampler: SamplerSettings,
        *,
        image_size: tuple[int, int],
        num_views: int,
        reference: int = 0,
    ):
        self.model = settings.build(denoiser.Denoiser, model, "config.model")
        self.options = options
        self.sampler = sampler
        self.image_size = image_size
        self.num_views = num_views
        self.reference = reference
        self.schedule = options.make_schedule()
        if options.max_known > num_views:
            raise settings.SettingsError(
                f"config.diffusion.max_known={options.max_known} is more than the {num_views} "
                "views of config.data.context_views; lower it, or 0 for all"
            )
        self._render = functools.partial(
            render, height=image_size[0], width=image_size[1], depth_mode=None
        )
        self._jitted = sample_visuals.Functions(
            encode=jax.jit(self.encode_known),
            sample=jax.jit(self.sample),
            decode=jax.jit(lambda frozen, latents, cameras: frozen.decode(latents, cameras)),
            render=jax.jit(self._render),
        )

    def init(self, key: Array) -> Any:
        """The denoiser's parameters."""
        height, width = self.image_size
        lead = (1, self.num_views)
        size = (height // self.model.compression, width // self.model.compression)
        latents = jnp.zeros((*lead, *size, self.model.latent_channels))
        intrinsics = jnp.array([width, width, width / 2, height / 2], jnp.float32)
        cameras = Cameras(
            jnp.broadcast_to(jnp.eye(4), (*lead, 4, 4)), jnp.broadcast_to(intrinsics, (*lead, 4))
        )
        mask = jnp.zeros(lead, bool)
        variables = self.model.init(
            key, latents, jnp.zeros(1), cameras, self.image_size, latents, mask
        )
        return variables["params"]

    def describe(self, params: Any) -> str:
        """The table of parameters."""
        return parameters.summary(params)

    def denoise_fn(self, params: Any, condition: Conditioning) -> samplers.DenoiseFn:
        """The network under a condition: (z [B, V, h, w, c], log_snr [B]) -> Prediction."""

        def denoise(z: Array, log_snr: Array) -> parameterization.Prediction:
            output = self.raw(params, z, log_snr, condition)
            return parameterization.predict(
                self.options.kind, output, z, log_snr, self.options.process
            )

        return denoise

    def raw(self, params: Any, z: Array, log_snr: Array, condition: Conditioning) -> Array:
        """The network's output, of the kind that it is trained for."""
        return self.model.apply(
            {"params": params},
            z,
            log_snr,
            condition.cameras,
            self.image_size,
            condition.known,
            condition.known_mask,
            condition.class_label,
        )

    def encode_known(
        self, frozen: FrozenAutoencoder, context: views.Views, known_mask: Array, label: Array
    ) -> Conditioning:
        """The condition that tells the views of `known_mask` [B, V] and the class [B].

        Known views are encoded with each other alone (the posterior's mean), so that nothing of the
        others leaks into the condition.
        """
        known = encoding.encode_known(frozen, context, known_mask)
        return Conditioning(context.cameras, known, known_mask, label)

    def encode(
        self, frozen: FrozenAutoencoder, batch: Batch, key: Array | None = None
    ) -> encoding.Encoded:
        """The latents of a batch, of one with images by encoding them.

        Known views are random by `key`, or fixed for each draw of a scene where the batch names
        draws (`DataSettings.view_draws`).
        """
        if "latents" in batch:
            return encoding.from_latents(frozen, batch)
        context = views.from_batch(batch["context"])
        shape = context.images.shape[:2]
        most = self.options.max_known or shape[1]
        if "draw" in batch:
            mask = conditioning.known_of_draw(
                batch["scene_index"], batch["draw"], shape[1], max_known=most
            )
        else:
            mask = conditioning.random_known(key, shape, max_known=most)
        return encoding.from_images(frozen, context, mask)

    def loss(
        self, params: Any, batch: Batch, key: Array, frozen: FrozenAutoencoder
    ) -> tuple[Array, dict[str, Array]]:
        """The denoising loss of one batch and what to log of it."""
        options = self.options
        keys = jax.random.split(key, 6)
        encoded = self.encode(frozen, batch, keys[1])
        x = autoencoder.sample(encoded.posterior, keys[0])
        known_mask = conditioning.drop_known(keys[5], encoded.known_mask, options.unconditional)
        label = conditioning.drop_class(keys[2], batch["class_label"], options.class_drop)
        condition = Conditioning(encoded.cameras, encoded.known, known_mask, label)

        log_snr = process.sample_log_snr(keys[3], x.shape[:1], self.schedule)
        error, x_mse = self._errors(
            params, x, jax.random.normal(keys[4], x.shape), log_snr, condition
        )
        return jnp.mean(options.weight(log_snr) * error), {
            f"{options.kind}_mse": jnp.mean(error),
            **({} if options.kind == "x" else {"x_mse": jnp.mean(x_mse)}),
            "known_views": jnp.mean(jnp.sum(known_mask, axis=1, dtype=jnp.float32)),
            "latent_std": jnp.std(x),
        }

    def evaluate(
        self, params: Any, batch: Batch, key: Array, frozen: FrozenAutoencoder
    ) -> dict[str, Mean]:
        """Denoising errors at fixed noise levels, with no known view and with one; and samples.

        `x_mse_snr_<log-SNR>` is the mean squared error of the predicted normalised latents, whose
        variance is 1; `loss_snr_<log-SNR>` the weighted loss, at one level a constant times the
        former. `x_mse` and `loss` are means over the levels. Names that end in `_one_view` are of
        scenes with one known view, the others of scenes with none. Noise is a function of the
        scene's index alone, so evaluations can be compared, also between runs; `key` is not used.

        The first `SamplerSettings.eval_scenes` of the batch are also sampled from one view: names
        that begin with `sample_`, see `sample_metrics.measure`.
        """
        del key
        context = views.from_batch(batch["context"])
        posterior = frozen.encode(context.images, context.cameras)
        shape = posterior.mean.shape
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(batch["scene_index"])
        keys = jax.vmap(lambda k: jax.random.split(k))(keys)
        x = posterior.mean
        x += jnp.exp(posterior.log_var / 2) * samplers.initial_noise(keys[:, 0], shape)
        eps = samplers.initial_noise(keys[:, 1], shape)
        one = self.encode_known(
            frozen, context, self.one_view(shape[0]), jnp.asarray(batch["class_label"])
        )

        def at_level(_: None, case: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
            level, tell = case
            told = dataclasses.replace(one, known_mask=one.known_mask & tell)
            log_snr = jnp.full(shape[:1], level)
            error, x_mse = self._errors(params, x, eps, log_snr, told)
            return None, (self.options.weight(log_snr) * error, x_mse)

        levels = jnp.asarray(EVALUATION_LEVELS)
        cases = (jnp.tile(levels, 2), jnp.repeat(jnp.array([False, True]), len(levels)))
        _, (losses, x_mses) = jax.lax.scan(at_level, None, cases)  # [2 L, B] each
        means: dict[str, Mean] = {}
        for name, values in (("loss", losses), ("x_mse", x_mses)):
            for ending, part in (("", values[: len(levels)]), ("_one_view", values[len(levels) :])):
                means[f"{name}{ending}"] = Mean.of(part, batch["weight"])
                if name == "x_mse" or not ending:
                    for level, value in zip(EVALUATION_LEVELS, part, strict=True):
                        means[f"{name}_snr_{level:g}{ending}"] = Mean.of(value, batch["weight"])
        return means | self._measure_samples(params, batch, one, frozen)

    def _measure_samples(
        self, params: Any, batch: Batch, one: Conditioning, frozen: FrozenAutoencoder
    ) -> dict[str, Mean]:
        """Samples of the first scenes of a batch that know one view."""
        count = self.sampler.eval_scenes
        if not count:
            return {}
        first, condition = jax.tree.map(lambda x: x[:count], (dict(batch), one))
        return sample_metrics.measure(
            functools.partial(self.sample, params),
            lambda latents, cameras, others: self._render(frozen.decode(latents, cameras), others),
            first,
            condition,
            reference=self.reference,
        )

    def sample(
        self,
        params: Any,
        condition: Conditioning,
        key: Array,
        sampler: SamplerSettings | None = None,
    ) -> Array:
        """Normalised latents [B, V, h, w, c] under a condition.

        Args:
          params: the denoiser's.
          condition: known views, class and cameras.
          key: one key, or one per scene [B]; see `diffusion.samplers`.
          sampler: how to draw; None: as the task's configuration says.
        """
        options, sampler = self.options, sampler or self.sampler
        denoise = self.denoise_fn(params, condition)
        if sampler.guidance != 1.0:
            denoise = guidance.classifier_free(
                denoise,
                self.denoise_fn(params, condition.dropped()),
                sampler.guidance,
                interval=sampler.guidance_interval or guidance.EVERYWHERE,
                rescale=sampler.rescale,
                process=options.process,
            )
        clip = (lambda x: jnp.clip(x, -sampler.clip, sampler.clip)) if sampler.clip else None
        draw = samplers.make(sampler.name, options.process, clip=clip)
        noise = samplers.initial_noise(key, condition.known.shape)
        return draw(denoise, noise, grids.make(sampler.grid, self.schedule, sampler.steps), key)

    def one_view(self, num_scenes: int) -> Array:
        """The mask [B, V] that knows the reference view alone."""
        return jnp.broadcast_to(
            jnp.arange(self.num_views) == self.reference, (num_scenes, self.num_views)
        )

    def visualize(
        self, params: Any, batch: Batch, key: Array, frozen: FrozenAutoencoder
    ) -> dict[str, Any]:
        """Samples of the first scenes of a batch, from one view and from none.

        Their noise is fixed, so that pictures of two evaluations can be compared.
        """
        del key
        return sample_visuals.make(
            self._jitted, params, frozen, batch, one_view=self.one_view, reference=self.reference
        )

    def _errors(
        self, params: Any, x: Array, eps: Array, log_snr: Array, condition: Conditioning
    ) -> tuple[Array, Array]:
        """Mean squared errors [B] of the network's output, and of the x that follows from it."""
        options = self.options
        z = process.diffuse(x, eps, log_snr, options.process)
        output = self.raw(params, z, log_snr, condition)
        wanted = parameterization.target(options.kind, x, eps, log_snr, options.process)
        predicted = parameterization.predict(options.kind, output, z, log_snr, options.process)
        error, x_error = (
            jnp.mean(jnp.square(a - b), axis=(1, 2, 3, 4))
            for a, b in ((output, wanted), (predicted.x, x))
        )
        return error, x_error


def from_config(config: Mapping[str, Any], frozen: FrozenAutoencoder) -> DiffusionTask:
    """The task of a whole configuration; of `frozen` only shapes are looked at.

    Raises:
      lgs_jax.settings.SettingsError: if the data, the autoencoder and the denoiser do not fit.
    """
    data = settings.build(DataSettings, config["data"], "config.data")
    frozen.check_data(data)
    task = DiffusionTask(
        config.get("model", {}),
        settings.build(DiffusionSettings, config.get("diffusion", {}), "config.diffusion"),
        settings.build(SamplerSettings, config.get("sampler", {}), "config.sampler"),
        image_size=(data.height, data.width),
        num_views=data.context_views,
        reference=0 if data.reference == "first" else data.context_views // 2,
    )
    for name in ("latent_channels", "compression"):
        ours, theirs = getattr(task.model, name), getattr(frozen.module, name)
        if ours != theirs:
            raise settings.SettingsError(
                f"config.model.{name}={ours}, but the autoencoder's is {theirs}; change it, or "
                "give another config.autoencoder"
            )
    for name in ("height", "width"):
        if getattr(data, name) % (multiple := task.model.size_multiple):
            raise settings.SettingsError(
                f"config.data.{name}={getattr(data, name)} must be a multiple of {multiple}, by "
                "which config.model reduces the images; give fewer config.model.widths"
            )
    return task
