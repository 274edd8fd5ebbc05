"""A trained autoencoder as a constant: images to normalised latents and back to scenes.

It is a pytree, so it goes through `jax.jit` as an argument: its parameters are inputs of a compiled
program, not constants inside of it.

Letters: B scenes, V views, H, W image height and width, h, w latent map, c latent channels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax import settings
from lgs_jax.core.cameras import Cameras
from lgs_jax.data.settings import DataSettings
from lgs_jax.models import autoencoder
from lgs_jax.models.latent_stats import LatentStats
from lgs_jax.models.scene_heads import kinds

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FrozenAutoencoder:
    """Parameters and statistics of latents (leaves), and what they belong to (static).

    Attributes:
      params: of `module`.
      mean: of the latents, per channel [c].
      std: standard deviation of the latents, per channel [c].
      module: the network.
      image_size: H, W that it was trained for.
      num_views: V that it was trained for.
      scene_frame: reference view and unit of the scene frame that it was trained in; see
        `DataSettings`.
    """

    params: Any
    mean: Array
    std: Array
    module: autoencoder.Autoencoder = dataclasses.field(metadata={"static": True})
    image_size: tuple[int, int] = dataclasses.field(metadata={"static": True})
    num_views: int = dataclasses.field(metadata={"static": True})
    scene_frame: tuple[str, str | float] = dataclasses.field(metadata={"static": True})

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """h, w, c."""
        height, width = (length // self.module.compression for length in self.image_size)
        return height, width, self.module.latent_channels

    def with_stats(self, stats: LatentStats) -> "FrozenAutoencoder":
        """The same autoencoder with latents that these statistics normalise.

        Raises:
          lgs_jax.settings.SettingsError: if they are of another number of channels.
        """
        if len(stats.mean) != self.module.latent_channels:
            raise settings.SettingsError(
                f"latent statistics of {len(stats.mean)} channels do not fit an autoencoder with "
                f"latent_channels={self.module.latent_channels}; compute them again"
            )
        return dataclasses.replace(
            self,
            mean=jnp.asarray(stats.mean, jnp.float32),
            std=jnp.asarray(stats.std, jnp.float32),
        )

    def check_data(self, data: DataSettings) -> None:
        """Refuses data that it was not trained for.

        Raises:
          lgs_jax.settings.SettingsError: that names every key that differs, with both values.
        """
        ours = {
            "height": self.image_size[0],
            "width": self.image_size[1],
            "context_views": self.num_views,
            "reference": self.scene_frame[0],
            "scale": self.scene_frame[1],
        }
        different = [
            f"config.data.{name}={getattr(data, name)!r}, but the autoencoder's is {value!r}"
            for name, value in ours.items()
            if getattr(data, name) != value
        ]
        if different:
            raise settings.SettingsError(
                "\n".join(different) + "\nChange them, or give another config.autoencoder"
            )

    def check_gaussians(self, purpose: str) -> None:
        """Refuses an autoencoder whose scenes are no Gaussians, for a purpose that needs them.

        Raises:
          lgs_jax.settings.SettingsError: that names the kind of scene, and the purpose.
        """
        kind = kinds.kind_of(self.module.scene_head)
        if kind != kinds.GAUSSIANS:
            raise settings.SettingsError(
                f"{purpose} needs scenes of Gaussians, but this autoencoder's are of "
                f"scene_head.kind={kind!r}; give one of kind {kinds.GAUSSIANS!r}"
            )

    def encode(
        self, images: Array, cameras: Cameras, view_mask: Array | None = None
    ) -> autoencoder.Posterior:
        """Distributions of the normalised latents of posed images; see `Autoencoder.encode`."""
        posterior = self.module.apply(
            {"params": self.params}, images, cameras, view_mask, method="encode"
        )
        return self.normalized(posterior)

    def normalized(self, posterior: autoencoder.Posterior) -> autoencoder.Posterior:
        """The distributions [..., c] of `Autoencoder.encode` on the scale of these statistics."""
        return autoencoder.Posterior(
            mean=self.normalized_mean(posterior.mean),
            log_var=posterior.log_var - 2 * jnp.log(self.std),
        )

    def normalized_mean(self, latents: Array) -> Array:
        """Latents [..., c] as they come on the scale of these statistics."""
        return (latents - self.mean) / self.std

    def decode(self, latents: Array, cameras: Cameras) -> Any:
        """The scene of normalised latents [B, V, h, w, c]; see `Autoencoder.decode`."""
        return self.module.apply(
            {"params": self.params},
            latents * self.std + self.mean,
            cameras,
            self.image_size,
            method="decode",
        )


def from_run(config: Mapping[str, Any], params: Any) -> FrozenAutoencoder:
    """The autoencoder of a run's configuration and parameters; its latents are as they come.

    Raises:
      lgs_jax.settings.SettingsError: if the run was not an autoencoder's, or the parameters are not
        those of its model.
    """
    if config.get("task") != "vae":
        raise settings.SettingsError(
            f"expected the run of an autoencoder (task 'vae', configs/vae.py), but its task is "
            f"{config.get('task')!r}"
        )
    module = settings.build(autoencoder.Autoencoder, config["model"], "the autoencoder's model")
    data = settings.build(DataSettings, config["data"], "the autoencoder's data")
    _check_params(module, (data.height, data.width), params)
    return FrozenAutoencoder(
        params=params,
        mean=jnp.zeros(module.latent_channels),
        std=jnp.ones(module.latent_channels),
        module=module,
        image_size=(data.height, data.width),
        num_views=data.context_views,
        scene_frame=(data.reference, data.scale),
    )


def _check_params(
    module: autoencoder.Autoencoder, image_size: tuple[int, int], params: Any
) -> None:
    """Raises SettingsError unless the parameters have the names and shapes of the module's."""
    images = jnp.zeros((1, 1, *image_size, 3))
    cameras = Cameras(jnp.eye(4)[None, None], jnp.ones((1, 1, 4)))
    wanted = jax.eval_shape(lambda: module.init(jax.random.key(0), images, cameras)["params"])
    shapes = [
        {jax.tree_util.keystr(path): x.shape for path, x in jax.tree_util.tree_leaves_with_path(t)}
        for t in (params, wanted)
    ]
    found, wanted = shapes
    different = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if different:
        first = different[0]
        raise settings.SettingsError(
            f"{len(different)} parameters do not fit the autoencoder's model, such as {first}: "
            f"{found.get(first)} there, {wanted.get(first)} expected; it was trained with another "
            "version of this package"
        )
