"""What latent diffusion and diffusion in pixel space share: errors, evaluation, samples.

A network enters as a function (z, log_snr [B], condition) -> output of the kind that it is trained
for; x, z and the output are arrays [B, V, ..., C], of latents or of images.

Letters: B scenes, V views, C channels, L noise levels.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax import settings
from lgs_jax.diffusion import grids, guidance, parameterization, process, samplers
from lgs_jax.metrics.mean import Mean
from lgs_jax.models import conditioning
from lgs_jax.models.conditioning import Conditioning
from lgs_jax.tasks.diffusion_settings import DiffusionSettings, SamplerSettings

Array = jax.Array
Network = Callable[[Array, Array, Conditioning], Array]

# Noise levels of the evaluation, in log-SNR: from nearly all noise to nearly none.
EVALUATION_LEVELS = (-6.0, -3.0, 0.0, 3.0, 6.0)


@dataclasses.dataclass(frozen=True)
class Denoising:
    """The functions of a process, of what is told in training, and of how samples are drawn.

    Attributes:
      options: process, loss and conditioning.
      sampler: how samples are drawn unless asked otherwise.
      num_views: V.
      reference: the view that is known where one view is shown.
    """

    options: DiffusionSettings
    sampler: SamplerSettings
    num_views: int
    reference: int

    def __post_init__(self):
        if self.options.max_known > self.num_views:
            raise settings.SettingsError(
                f"config.diffusion.max_known={self.options.max_known} is more than the "
                f"{self.num_views} views of config.data.context_views; lower it, or 0 for all"
            )
        low, high = self.options.log_snr_min, self.options.log_snr_max
        if self.sampler.stop is not None and not low < self.sampler.stop <= high:
            raise settings.SettingsError(
                f"config.sampler.stop={self.sampler.stop} must lie above {low} and at most at "
                f"{high}, the log-SNRs of config.diffusion; change it, or leave it out"
            )
        self.check_sampler()

    def check_sampler(self, class_told: bool | None = None) -> None:
        """Refuses guidance of the sampler that the network is not trained for.

        Raises:
          lgs_jax.settings.SettingsError: see `check_request`.
        """
        known = 0 if self.options.unconditional else 1  # both are met in training
        for scale in self.sampler.scales:
            self.check_request(
                known, scale, class_told=class_told, scale_name="config.sampler.guidance"
            )

    def check_request(
        self,
        known: int,
        guidance_scale: float,
        *,
        class_told: bool | None = None,
        scale_name: str = "guidance_scale",
    ) -> None:
        """Refuses to draw samples under conditions that the network never met in training.

        Args:
          known: number of known views.
          guidance_scale: of classifier-free guidance; 1: none.
          class_told: whether the class (or representation) is told; None: for a network that takes
            none.
          scale_name: of the scale, for the message.

        Raises:
          lgs_jax.settings.SettingsError: that says what was never met, and what to do.
        """
        options, most = self.options, self.options.max_known or self.num_views
        guided = guidance_scale != 1.0
        if known > most:
            raise settings.SettingsError(
                f"{known} known views are more than the {most} that the model was trained with "
                "(config.diffusion.max_known); give fewer"
            )
        if known and options.unconditional == 1:
            raise settings.SettingsError(
                f"{known} known views, but this model has never been shown one "
                "(config.diffusion.unconditional=1); draw from nothing"
            )
        if not known and options.unconditional == 0:
            raise settings.SettingsError(
                "this model has always been shown a view (config.diffusion.unconditional=0); give "
                "images and context_cameras, or evaluate by a protocol that shows a view"
            )
        if guided and options.unconditional == 0:
            raise settings.SettingsError(
                f"{scale_name}={guidance_scale:g} needs a model that was trained with conditions "
                "left out (config.diffusion.unconditional > 0); use 1"
            )
        if class_told is None or options.class_drop > 0:
            return
        if guided:
            raise settings.SettingsError(
                f"{scale_name}={guidance_scale:g} needs a model that was trained with classes and "
                "representations left out (config.diffusion.class_drop > 0); use 1"
            )
        if not class_told:
            raise settings.SettingsError(
                "this model has always been told the class (config.diffusion.class_drop=0); give "
                "class_label, or evaluate with --tell-class"
            )

    def denoise_fn(self, network: Network, condition: Conditioning) -> samplers.DenoiseFn:
        """The network under a condition: (z [B, V, ...], log_snr [B]) -> Prediction."""

        def denoise(z: Array, log_snr: Array) -> parameterization.Prediction:
            output = network(z, log_snr, condition)
            return parameterization.predict(
                self.options.kind, output, z, log_snr, self.options.process
            )

        return denoise

    def sample(
        self,
        network: Network,
        condition: Conditioning,
        key: Array,
        sampler: SamplerSettings | None = None,
        guidance_scale: Any | None = None,
        autoguidance: Any | None = None,
        weaker: Network | None = None,
    ) -> Array:
        """Samples x of the shape of `condition.known`.

        Args:
          network: the denoiser.
          condition: known views, class and cameras.
          key: one key, or one per scene [B]; see `diffusion.samplers`.
          sampler: how to draw; None: as the attribute says.
          guidance_scale: in place of the sampler's, a number or one per scene [B]; it may be
            traced. None: the sampler's.
          autoguidance: in place of the sampler's, likewise.
          weaker: what that keeps away from.

        Raises:
          lgs_jax.settings.SettingsError: if there is nothing that `autoguidance` could use.
        """
        options, sampler = self.options, sampler or self.sampler
        denoise = self.denoise_fn(network, condition)
        if guidance_scale is None and sampler.scales != (1.0, 1.0):
            guidance_scale = _by_known(sampler.scales, condition)
        if guidance_scale is not None:
            denoise = guidance.classifier_free(
                denoise,
                self.denoise_fn(network, condition.dropped()),
                guidance_scale,
                interval=sampler.guidance_interval or guidance.EVERYWHERE,
                rescale=sampler.rescale,
                process=options.process,
            )
        if autoguidance is None and sampler.autoguidance_scales != (1.0, 1.0):
            autoguidance = _by_known(sampler.autoguidance_scales, condition)
        if autoguidance is not None:
            if weaker is None:
                raise settings.SettingsError(
                    "sampler.autoguidance needs a weaker denoiser to keep away from, which only "
                    "models of pack-model --guide have; use 1"
                )
            weaker_fn = self.denoise_fn(weaker, condition)
            denoise = guidance.autoguided(denoise, weaker_fn, autoguidance)
        clip = (lambda x: jnp.clip(x, -sampler.clip, sampler.clip)) if sampler.clip else None
        draw = samplers.make(sampler.name, options.process, clip=clip)
        noise = samplers.initial_noise(key, condition.known.shape)
        grid = grids.make(sampler.grid, options.make_schedule(sampler.stop), sampler.steps)
        return draw(denoise, noise, grid, key)

    def random_condition(self, keys: Array, class_label: Array) -> tuple[Array, Array]:
        """What training tells, from three keys: the known views [B, V] and the class labels [B]."""
        options = self.options
        key_known, key_none, key_class = keys
        shape, most = (len(class_label), self.num_views), options.max_known or self.num_views
        known_mask = conditioning.random_known(key_known, shape, max_known=most)
        known_mask = conditioning.drop_known(key_none, known_mask, options.unconditional)
        return known_mask, conditioning.drop_class(key_class, class_label, options.class_drop)

    def one_view(self, num_scenes: int) -> Array:
        """The mask [B, V] that knows the reference view alone."""
        return jnp.broadcast_to(
            jnp.arange(self.num_views) == self.reference, (num_scenes, self.num_views)
        )

    def errors(
        self, network: Network, x: Array, eps: Array, log_snr: Array, condition: Conditioning
    ) -> tuple[Array, Array]:
        """Mean squared errors [B] of the network's output, and of the x that follows from it."""
        options = self.options
        z = process.diffuse(x, eps, log_snr, options.process)
        output = network(z, log_snr, condition)
        wanted = parameterization.target(options.kind, x, eps, log_snr, options.process)
        predicted = parameterization.predict(options.kind, output, z, log_snr, options.process)
        return mean_square(output, wanted), mean_square(predicted.x, x)

    def evaluate(
        self, network: Network, x: Array, eps: Array, one: Conditioning, weights: Array
    ) -> dict[str, Mean]:
        """Denoising errors at fixed noise levels, with no known view and with one.

        `x_mse_snr_<log-SNR>` is the mean squared error of the predicted x; `loss_snr_<log-SNR>` the
        weighted loss, at one level a constant times the former. `x_mse` and `loss` are means over
        the levels. Names that end in `_one_view` are of scenes with one known view, the others of
        scenes with none.

        Args:
          network: the denoiser.
          x: what the evaluated scenes are.
          eps: the noise put on them, at every level the same.
          one: the condition that tells one view.
          weights: [B], 0 for scenes that only pad a batch.
        """

        def at_level(_: None, case: tuple[Array, Array]) -> tuple[None, tuple[Array, Array]]:
            level, tell = case
            told = dataclasses.replace(one, known_mask=one.known_mask & tell)
            log_snr = jnp.full(x.shape[:1], level)
            error, x_mse = self.errors(network, x, eps, log_snr, told)
            return None, (self.options.weight(log_snr) * error, x_mse)

        levels = jnp.asarray(EVALUATION_LEVELS)
        cases = (jnp.tile(levels, 2), jnp.repeat(jnp.array([False, True]), len(levels)))
        _, (losses, x_mses) = jax.lax.scan(at_level, None, cases)  # [2 L, B] each
        means: dict[str, Mean] = {}
        for name, values in (("loss", losses), ("x_mse", x_mses)):
            for ending, part in (("", values[: len(levels)]), ("_one_view", values[len(levels) :])):
                means[f"{name}{ending}"] = Mean.of(part, weights)
                if name == "x_mse" or not ending:
                    for level, value in zip(EVALUATION_LEVELS, part, strict=True):
                        means[f"{name}_snr_{level:g}{ending}"] = Mean.of(value, weights)
        return means


def _by_known(scales: tuple[float, float], condition: Conditioning) -> Array:
    """The scale of each scene [B], of a pair for scenes without and with a known view."""
    none, known = scales
    return jnp.where(jnp.any(condition.known_mask, axis=-1), known, none)


def mean_square(a: Array, b: Array) -> Array:
    """Mean squared difference per scene, [B, ...] -> [B]."""
    return jnp.mean(jnp.square(a - b), axis=tuple(range(1, a.ndim)))


def scene_noise(scene_index: Array, shape: tuple[int, ...], stream: int) -> Array:
    """Unit noise [B, ...] that is a function of each scene's index and the stream alone.

    So evaluations can be compared, also between runs.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(scene_index)
    keys = jax.vmap(lambda key: jax.random.split(key)[stream])(keys)
    return samplers.initial_noise(keys, shape)


def from_config(
    config: Mapping[str, Any], data: Any, *, guided: bool = False, represented: bool = False
) -> Denoising:
    """The groups `diffusion` and `sampler` of a configuration, for the views of `data`.

    Args:
      config: the configuration.
      data: its `DataSettings`.
      guided: whether there is a weaker denoiser, for the sampler's `autoguidance`.
      represented: whether the denoiser is told representations, for the sampler's `truncation`.

    Raises:
      lgs_jax.settings.SettingsError: for a key or value that cannot be honoured.
    """
    sampler = settings.build(SamplerSettings, config.get("sampler", {}), "config.sampler")
    if sampler.autoguidance_scales != (1.0, 1.0) and not guided:
        raise settings.SettingsError(
            f"config.sampler.autoguidance={sampler.autoguidance:g} (with a known view "
            f"{sampler.autoguidance_scales[1]:g}) needs a weaker denoiser to keep away from, which "
            "only models of pack-model --guide have; leave it out, and give it to pack-model"
        )
    if sampler.truncation != 1 and not represented:
        raise settings.SettingsError(
            f"config.sampler.truncation={sampler.truncation:g} is of representations, which this "
            "denoiser is not told (config.model.representation_size); leave it out"
        )
    return Denoising(
        settings.build(DiffusionSettings, config.get("diffusion", {}), "config.diffusion"),
        sampler,
        num_views=data.context_views,
        reference=0 if data.reference == "first" else data.context_views // 2,
    )
