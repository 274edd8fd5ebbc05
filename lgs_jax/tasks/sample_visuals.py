"""What a person wants to see of a latent diffusion model: samples beside the truth.

Letters: B scenes, V context views, T target views, h, w latent map, c latent channels.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import gaussians
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.diffusion import samplers
from lgs_jax.models import conditioning
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.rendering.api import Rendering
from lgs_jax.tasks import panels, scene_visuals, views
from lgs_jax.tasks.views import Views

MAX_SCENES = 3
SAMPLES = 2


@dataclasses.dataclass(frozen=True)
class Functions:
    """The compiled functions of a diffusion task.

    Attributes:
      encode: (frozen, context, known_mask [B, V], class_label [B]) -> Conditioning.
      sample: (params, condition, keys [B]) -> latents [B, V, h, w, c].
      decode: (frozen, latents, cameras [B, V]) -> scenes [B].
      render: (scenes [B], cameras [B, K]) -> Rendering.
    """

    encode: Callable[..., conditioning.Conditioning]
    sample: Callable[..., jax.Array]
    decode: Callable[..., Gaussians]
    render: Callable[..., Rendering]


def make(
    functions: Functions,
    params: Any,
    frozen: FrozenAutoencoder,
    batch: Mapping[str, Any],
    *,
    one_view: Callable[[int], jax.Array],
    reference: int,
) -> dict[str, Any]:
    """Visuals of the first scenes of a batch.

    Returns:
      `samples_<i>`: a grid whose rows are the photographs, the autoencoder's reconstruction from
      all views, samples from one view, and samples from none; whose columns are the views of the
      latents, then the held-out ones. `splats_<i>`: the first sample from one view, in the world
      of the data source. `turntable_one_view` and `turntable`: videos of the first scene's first
      samples.
    """
    count = min(MAX_SCENES, int(np.sum(np.asarray(batch["weight"]) > 0)))
    batch = jax.tree.map(lambda x: jnp.asarray(x)[:count], dict(batch))
    context, target = views.from_batch(batch["context"]), views.from_batch(batch["target"])
    both = views.concatenate(context, target)
    rows, scenes = [("photograph", np.asarray(both.images))], {}
    for name, latents in _rows(functions, params, frozen, context, batch, one_view(count)):
        scenes[name] = functions.decode(frozen, latents, context.cameras)
        rows.append((name, np.asarray(functions.render(scenes[name], both.cameras).rgb)))

    titles = [f"view {k + 1}" for k in range(context.images.shape[1])]
    titles[reference] += ", given"
    titles += [f"held out {k + 1}" for k in range(target.images.shape[1])]
    visuals: dict[str, Any] = {}
    for i in range(count):
        visuals[f"samples_{i}"] = panels.grid(
            [list(map(panels.to_uint8, images[i])) for _, images in rows],
            column_titles=titles,
            row_titles=[name for name, _ in rows],
        )
        sampled = scenes["one view, 1"][i]
        visuals[f"splats_{i}"] = gaussians.transform(sampled, batch["world_from_scene"][i])
    for name, shown in (("turntable_one_view", "one view, 1"), ("turntable", "no view, 1")):
        visuals[name] = scene_visuals.turntable(functions.render, scenes[shown], context.cameras)
    return visuals


def _rows(
    functions: Functions,
    params: Any,
    frozen: FrozenAutoencoder,
    context: Views,
    batch: Mapping[str, Any],
    one_view: jax.Array,
) -> Iterator[tuple[str, jax.Array]]:
    """Name and latents [B, V, h, w, c] of every row but the photographs."""
    label, everything = batch["class_label"], jnp.ones_like(one_view)
    yield "autoencoder", functions.encode(frozen, context, everything, label).known
    told = functions.encode(frozen, context, one_view, label)
    for name, condition in (("one view", told), ("no view", told.dropped())):
        for number in range(SAMPLES):
            # Not the run's seed: all runs start from the same noise.
            keys = samplers.scene_keys(jax.random.key(number), len(label))
            yield f"{name}, {number + 1}", functions.sample(params, condition, keys)
