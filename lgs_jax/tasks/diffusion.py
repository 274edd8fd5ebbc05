"""Stage 2: latent diffusion over the views of a scene.

The denoiser learns the latents of a frozen autoencoder (`FrozenAutoencoder`, a constant of the
run), encoded anew at every step, or beforehand (`data.latents`). Some views of each scene are
known: they are encoded without sight of the others and given clean. No rendering takes part in the
loss.

Letters: B scenes, V views, H, W image, h, w latent map, c latent channels.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax import settings
from lgs_jax.core import streams
from lgs_jax.data.settings import DataSettings
from lgs_jax.diffusion import process, samplers
from lgs_jax.metrics.mean import Mean
from lgs_jax.models import autoencoder, conditioning, denoiser, parameters
from lgs_jax.models.conditioning import Conditioning
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.models.guide import Guide
from lgs_jax.rendering.api import render
from lgs_jax.tasks import denoising, encoding, sample_metrics, sample_visuals, views
from lgs_jax.tasks.diffusion_settings import SamplerSettings

Array = jax.Array
Batch = Mapping[str, Any]

# Share of noise in a representation that is drawn near that of a training picture.
_NEARBY = 0.3


class DiffusionTask:
    """Trains, evaluates and samples a denoiser of latents (satisfies `tasks.task.Task`).

    `loss`, `evaluate` and `visualize` take the frozen autoencoder as a further argument.

    Args:
      model: arguments of `models.denoiser.Denoiser`.
      shared: process, conditioning and sampler.
      image_size: H, W of the images.
      representations: of some training pictures [K, R], near which that of a scene from nothing is
        drawn; None: such scenes are told none.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        shared: denoising.Denoising,
        *,
        image_size: tuple[int, int],
        representations: np.ndarray | None = None,
    ):
        self.model = settings.build(denoiser.Denoiser, model, "config.model")
        self.shared = shared
        self.options = shared.options
        self.sampler = shared.sampler
        self.num_views = shared.num_views
        self.reference = shared.reference
        self.image_size = image_size
        self.representations = representations
        shared.check_sampler(self._told(True))
        self.schedule = shared.options.make_schedule()
        height, width = image_size
        draw = functools.partial(render, height=height, width=width, depth_mode=None)
        self._encode = jax.jit(self.encode_known)
        self._sample = jax.jit(self.sample)
        self._decode = jax.jit(lambda frozen, latents, cameras: frozen.decode(latents, cameras))
        self._render = jax.jit(draw)

    def init(self, key: Array) -> Any:
        """The denoiser's parameters."""
        size = (length // self.model.compression for length in self.image_size)
        latents = jnp.zeros((1, self.num_views, *size, self.model.latent_channels))
        cameras = views.example_cameras(self.num_views, self.image_size)
        mask = jnp.zeros((1, self.num_views), bool)
        variables = self.model.init(
            key, latents, jnp.zeros(1), cameras, self.image_size, latents, mask
        )
        return variables["params"]

    def check_request(self, known: int, guidance_scale: float, *, class_told: bool) -> None:
        """Refuses to draw samples under untrained conditions; see `Denoising.check_request`.

        Args:
          known: number of known views.
          guidance_scale: of classifier-free guidance; 1: none.
          class_told: whether the class is told.

        Raises:
          lgs_jax.settings.SettingsError: if the network never met that in training.
        """
        self.shared.check_request(known, guidance_scale, class_told=self._told(class_told))

    def _told(self, class_told: bool) -> bool | None:
        """`class_told` as `Denoising.check_request` takes it: None where nothing can be told."""
        if self.model.num_classes:
            return class_told
        return True if self.model.representation_size else None

    def describe(self, params: Any) -> str:
        """The table of parameters."""
        return parameters.summary(params)

    def raw(
        self,
        params: Any,
        z: Array,
        log_snr: Array,
        condition: Conditioning,
        module: denoiser.Denoiser | None = None,
    ) -> Array:
        """The network's output, of the kind that it is trained for.

        Args:
          params: the denoiser's.
          z: noisy latents [B, V, h, w, c].
          log_snr: [B].
          condition: what is told.
          module: another network of the same latents, whose the parameters are; None: the task's.
        """
        return (module or self.model).apply(
            {"params": params},
            z,
            log_snr,
            condition.cameras,
            self.image_size,
            condition.known,
            condition.known_mask,
            condition.class_label,
            condition.representation,
            condition.represented,
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
        if self.model.representation_size:
            key_told = jax.random.fold_in(keys[2], 1)
            told = conditioning.drop_representation(key_told, known_mask, options.class_drop)
            condition = dataclasses.replace(
                condition, representation=batch["representation"], represented=told
            )

        log_snr = process.sample_log_snr(keys[3], x.shape[:1], self.schedule)
        eps = jax.random.normal(keys[4], x.shape)
        error, x_mse = self.shared.errors(self._network(params), x, eps, log_snr, condition)
        return jnp.mean(options.weight(log_snr) * error), {
            f"{options.kind}_mse": jnp.mean(error),
            **({} if options.kind == "x" else {"x_mse": jnp.mean(x_mse)}),
            "known_views": jnp.mean(jnp.sum(known_mask, axis=1, dtype=jnp.float32)),
            "latent_std": jnp.std(x),
        }

    def evaluate(
        self, params: Any, batch: Batch, key: Array, frozen: FrozenAutoencoder
    ) -> dict[str, Mean]:
        """Denoising errors of normalised latents, whose variance is 1; and samples.

        See `Denoising.evaluate`. The first `SamplerSettings.eval_scenes` of the batch are also
        sampled from one view: names that begin with `sample_`, see `sample_metrics.measure`. Noise
        is a function of the scene's index alone; `key` is not used.
        """
        del key
        context = views.from_batch(batch["context"])
        posterior = frozen.encode(context.images, context.cameras)
        shape, index = posterior.mean.shape, batch["scene_index"]
        x = posterior.mean
        x += jnp.exp(posterior.log_var / 2) * denoising.scene_noise(index, shape, 0)
        eps = denoising.scene_noise(index, shape, 1)
        label = jnp.asarray(batch["class_label"])
        one = self.encode_known(frozen, context, self.shared.one_view(shape[0]), label)
        errors = self.shared.evaluate(self._network(params), x, eps, one, batch["weight"])
        return errors | sample_metrics.measure_first(
            self.sampler.eval_scenes,
            functools.partial(self.sample, params),
            lambda x, told, seen_from: self._render(frozen.decode(x, told.cameras), seen_from),
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
        guidance_scale: Any | None = None,
        autoguidance: Any | None = None,
        guide: Guide | None = None,
    ) -> Array:
        """Normalised latents [B, V, h, w, c] under a condition.

        Where no view is known and the condition brings no representation, the network is told one
        near that of a training picture, if it takes such.

        Args:
          params: the denoiser's.
          condition: known views, class, representation and cameras.
          key: one key, or one per scene [B]; see `diffusion.samplers`.
          sampler: how to draw; None: as the task's configuration says.
          guidance_scale: in place of the sampler's; see `Denoising.sample`.
          autoguidance: in place of the sampler's, likewise.
          guide: what that keeps away from.

        Raises:
          lgs_jax.settings.SettingsError: if that needs a guide, and there is none.
        """
        if self.representations is not None and condition.representation is None:
            keys = samplers.scene_keys(key, len(condition.known_mask))
            bank = typical(self.representations, (sampler or self.sampler).truncation)
            condition = dataclasses.replace(
                condition,
                representation=jax.vmap(functools.partial(_draw_near, bank))(keys),
                represented=~jnp.any(condition.known_mask, axis=-1),
            )
        weaker = None
        if guide is not None:
            weaker = functools.partial(self.raw, guide.params, module=guide.module)
        return self.shared.sample(
            self._network(params), condition, key, sampler, guidance_scale, autoguidance, weaker
        )

    def visualize(
        self, params: Any, batch: Batch, key: Array, frozen: FrozenAutoencoder
    ) -> dict[str, Any]:
        """Samples of the first scenes of a batch, from one view and from none.

        Their noise is fixed, so that pictures of two evaluations can be compared.
        """
        del key
        functions = sample_visuals.Functions(
            encode=functools.partial(self._encode, frozen),
            sample=functools.partial(self._sample, params),
            decode=lambda latents, condition: self._decode(frozen, latents, condition.cameras),
            render=self._render,
        )
        return sample_visuals.make(functions, batch, self.shared, reconstruction="autoencoder")

    def _network(self, params: Any) -> denoising.Network:
        return functools.partial(self.raw, params)


def typical(representations: np.ndarray, share: float) -> np.ndarray:
    """The share of representations [K, R] of the smallest norms, in their order; at least one.

    Representations are whitened, so these lie nearest to the mean of all.
    """
    count = max(1, round(share * len(representations)))
    nearest = np.argsort(np.linalg.norm(representations, axis=-1), kind="stable")[:count]
    return representations[np.sort(nearest)]


def _draw_near(bank: np.ndarray, key: Array) -> Array:
    """A representation [R] near one of the bank's [K, R]: of its direction, of the usual length."""
    key_which, key_noise = jax.random.split(streams.stream_key(key, "representation"))
    own = jnp.asarray(bank)[jax.random.randint(key_which, (), 0, len(bank))]
    noise = jax.random.normal(key_noise, own.shape)
    return math.sqrt(1 - _NEARBY**2) * own + _NEARBY * noise


def from_config(
    config: Mapping[str, Any], frozen: FrozenAutoencoder, guide: Guide | None = None
) -> DiffusionTask:
    """The task of a whole configuration; of `frozen` only shapes are looked at.

    Without a `guide`, to be given to `sample` again, a sampler with autoguidance is refused.

    Raises:
      lgs_jax.settings.SettingsError: if the data, the autoencoder and the denoiser do not fit.
    """
    data = settings.build(DataSettings, config["data"], "config.data")
    frozen.check_data(data)
    bank = config.get("representations")
    task = DiffusionTask(
        config.get("model", {}),
        denoising.from_config(
            config,
            data,
            guided=guide is not None,
            represented=bool(config.get("model", {}).get("representation_size")),
        ),
        image_size=(data.height, data.width),
        representations=np.asarray(bank, np.float32) if bank else None,
    )
    for name in ("latent_channels", "compression"):
        ours, theirs = getattr(task.model, name), getattr(frozen.module, name)
        if ours != theirs:
            raise settings.SettingsError(
                f"config.model.{name}={ours}, but the autoencoder's is {theirs}; change it, or "
                "give another config.autoencoder"
            )
    if task.model.out_channels is not None:
        raise settings.SettingsError(
            f"config.model.out_channels={task.model.out_channels}, but a denoiser of latents puts "
            "out latents; leave it out"
        )
    views.check_image_size((data.height, data.width), task.model.size_multiple)
    return task
