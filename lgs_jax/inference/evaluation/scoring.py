"""Renders the scenes of a batch and compares them with the photographs.

Letters: B scenes, V views of the latents, T held-out views, K samples, H, W image, D features.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.inference.evaluation.protocols import Protocol
from lgs_jax.inference.scene_model import SceneModel
from lgs_jax.metrics import consistency, diversity, feature_cache, image
from lgs_jax.models import conditioning
from lgs_jax.rendering.api import Rendering, render
from lgs_jax.tasks import encoding, views
from lgs_jax.tasks.diffusion_settings import SamplerSettings
from lgs_jax.vision.features import FeatureNetwork
from lgs_jax.vision.lpips import Lpips

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a batch gave, on the host.

    Attributes:
      samples: for each of K samples and each measure, values [B, V + T]; empty where there is no
        true image to compare with.
      photograph: for each measure, values [B, V + T] of the nearest given photograph in place of
        each view; empty as above. A given view is that photograph.
      scenes: for each measure of a scene as a whole, values [B].
      features: of the true images [B, V + T, D], and of those of the first sample; None without a
        network.
    """

    samples: list[dict[str, np.ndarray]]
    photograph: dict[str, np.ndarray]
    scenes: dict[str, np.ndarray]
    features: tuple[np.ndarray, np.ndarray] | None


class Scorer:
    """Scores batches; compiled once.

    Args:
      model: what is evaluated.
      protocol: how.
      seed: of the samples; sample k of a scene depends on it, the scene's index and k alone.
      num_samples: K.
      sampler: how samples are drawn.
      tell_class: whether the class of a scene is told.
      lpips: measured where given.
      network: whose features are returned, where given.
      statistics: folder that keeps the features of the true images for other evaluations; None:
        they are computed anew.
    """

    def __init__(
        self,
        model: SceneModel,
        protocol: Protocol,
        *,
        seed: int = 0,
        num_samples: int = 1,
        sampler: SamplerSettings | None = None,
        tell_class: bool = False,
        lpips: Lpips | None = None,
        network: FeatureNetwork | None = None,
        statistics: pathlib.Path | None = None,
    ):
        self._model, self._protocol = model, protocol
        self._num_samples, self._lpips, self._network = num_samples, lpips, network
        self._statistics = statistics
        self._mask = protocol.known_mask(model)
        self._sampler, self._tell_class = sampler, tell_class
        self._key = jax.random.key(seed)
        self._rendered = jax.jit(self._render)
        self._scores = jax.jit(self._compare)
        self._nearest = jax.jit(self._nearest_given)
        self._consistency = jax.jit(_neighbours_agree)
        self._diversity = jax.jit(self._measure_diversity)

    def __call__(self, batch: Mapping[str, Any]) -> Scored:
        """The scores of a batch of the data pipeline.

        Raises:
          ValueError: if the rasterizer left splats out, or a rendering is not finite.
        """
        both = _all_views(batch)
        found, photograph, agreement, kept = [], {}, [], []
        for number in range(self._num_samples):
            rendering = self.render(batch, number)
            kept.append(rendering.rgb)
            agreement.append(self._consistency(rendering, both.cameras))
            if self._protocol.compares:
                found.append(jax.device_get(self._scores(rendering.rgb, both.images)))
        if self._protocol.compares:
            nearest = self._nearest(batch["context"], both)
            photograph = jax.device_get(self._scores(nearest, both.images))
        scenes = {
            name: np.mean([np.asarray(values[name]) for values in agreement], axis=0)
            for name in agreement[0]
        }
        if self._num_samples > 1:
            # The given views are shown, not imagined.
            free = np.flatnonzero(~np.pad(self._mask, (0, both.images.shape[1] - self._mask.size)))
            scenes |= jax.device_get(self._diversity(jnp.stack(kept)[:, :, free]))
        features = None
        if self._network is not None:
            features = self.photograph_features(both.images), np.asarray(self._network(kept[0]))
        return Scored(found, photograph, scenes, features)

    def render(self, batch: Mapping[str, Any], number: int) -> Rendering:
        """Sample `number` of every scene, rendered at all views [B, V + T]."""
        model = self._model
        key = jax.random.fold_in(self._key, number)
        rendering = self._rendered(model.frozen, model.params, model.guide, batch, key)
        weights = np.asarray(batch["weight"])[:, None] > 0
        if np.any(np.asarray(rendering.aux["overflow"] > 0) & weights):
            raise ValueError("the rasterizer left splats out; render with more capacity")
        finite = np.isfinite(np.asarray(rendering.rgb)).all(axis=(1, 2, 3, 4))
        if not finite[weights[:, 0]].all():
            raise ValueError(
                "a rendering is not finite; lower --guidance and --autoguidance, set "
                "config.sampler.clip, or look whether the training diverged"
            )
        return rendering

    def _render(self, frozen, params, guide, batch, key: Array) -> Rendering:
        context, both = views.from_batch(batch["context"]), _all_views(batch)
        if self._protocol.samples:
            task, count = self._model.task, context.images.shape[0]
            label = jnp.asarray(batch["class_label"])
            if not self._tell_class:
                label = jnp.full_like(label, conditioning.NO_CLASS)
            mask = jnp.broadcast_to(jnp.asarray(self._mask), (count, self._mask.size))
            known = encoding.encode_known(frozen, context, mask)
            condition = conditioning.Conditioning(context.cameras, known, mask, label)
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch["scene_index"])
            latents = task.sample(params, condition, keys, self._sampler, guide=guide)
        else:
            latents = frozen.encode(context.images, context.cameras).mean
        height, width = self._model.image_size
        scene = frozen.decode(latents, context.cameras)
        return render(scene, both.cameras, height=height, width=width)

    def photograph_features(self, images: Array) -> np.ndarray:
        """Features [B, F, D] of photographs [B, F, H, W, 3], the same in every evaluation.

        Raises:
          ValueError: if they are not finite, or their file is damaged.
        """

        def compute() -> np.ndarray:
            features = np.asarray(self._network(images))
            if not np.isfinite(features).all():
                raise ValueError("features of photographs are not finite; look at the weights")
            return features.reshape(-1, features.shape[-1])

        if self._statistics is None:
            found = compute()
        else:
            seen = hashlib.sha256(np.ascontiguousarray(images)).hexdigest()
            origin = feature_cache.Origin.of(self._network, seen, *images.shape[2:4])
            found = feature_cache.cached(self._statistics, origin, compute)
        return found.reshape(*images.shape[:2], -1)

    def _nearest_given(self, context: Mapping[str, Any], both: views.Views) -> Array:
        """The given photograph nearest to each view [B, V + T, H, W, 3]."""
        places = np.flatnonzero(self._mask)
        given = jax.tree.map(lambda x: x[:, places], views.from_batch(context))
        return views.nearest(given, both)

    def _measure_diversity(self, images: Array) -> dict[str, Array]:
        """How much K samples [K, B, F, H, W, 3] differ at F views that were not given [B]."""
        found = {"diversity_deviation": diversity.deviation_map(images).mean(axis=(-3, -2, -1))}
        if self._lpips is not None:
            pairs = diversity.mean_pairwise(self._lpips, jnp.clip(images, 0.0, 1.0))
            found["diversity_lpips"] = pairs.mean(axis=-1)
        return found

    def _compare(self, images: Array, truth: Array) -> dict[str, Array]:
        values = {
            "psnr": image.psnr(images, truth),
            "ssim": image.ssim(images, truth),
            "ssim_signed": image.ssim_signed(images, truth),
        }
        if self._lpips is not None:
            values["lpips"] = self._lpips(jnp.clip(images, 0.0, 1.0), truth)
        return values


def _all_views(batch: Mapping[str, Any]) -> views.Views:
    """The V views of the latents, then the T held-out ones."""
    return views.concatenate(*(views.from_batch(batch[name]) for name in ("context", "target")))


def _neighbours_agree(rendering: Rendering, cameras: Any) -> dict[str, Array]:
    """Photometric consistency of every view with the next [B]; see `metrics.consistency`."""
    following = jax.tree.map(lambda x: jnp.roll(x, -1, axis=1), (rendering, cameras))
    found = consistency.between(rendering, cameras, *following)
    each = {"consistency_psnr": found.psnr, "consistency_valid": found.valid}
    return {name: jnp.nanmean(values, axis=1) for name, values in each.items()}
