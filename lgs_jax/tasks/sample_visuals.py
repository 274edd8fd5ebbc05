"""What a person wants to see of a diffusion model: samples beside the truth.

Letters: B scenes, V context views, K any views.
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
from lgs_jax.rendering.api import Rendering
from lgs_jax.tasks import denoising, panels, scene_visuals, views
from lgs_jax.tasks.views import Views

MAX_SCENES = 3
SAMPLES = 2


@dataclasses.dataclass(frozen=True)
class Functions:
    """The compiled functions of a diffusion task, its parameters included.

    Attributes:
      encode: (context, known_mask [B, V], class_label [B]) -> Conditioning.
      sample: (condition, keys [B]) -> what was diffused, of the shape of `condition.known`.
      decode: (what was diffused, condition) -> scenes [B].
      render: (scenes [B], cameras [B, K]) -> Rendering.
    """

    encode: Callable[..., conditioning.Conditioning]
    sample: Callable[..., jax.Array]
    decode: Callable[..., Any]
    render: Callable[..., Rendering]


def make(
    functions: Functions,
    batch: Mapping[str, Any],
    shared: denoising.Denoising,
    *,
    reconstruction: str,
) -> dict[str, Any]:
    """Visuals of the first scenes of a batch.

    Args:
      functions: of the task.
      batch: of the data pipeline.
      shared: says which view is given.
      reconstruction: title of the row whose scenes are decoded from all views, known without noise.

    Returns:
      `samples_<i>`: a grid whose rows are the photographs, the reconstruction from all views,
      samples from one view, and samples from none; whose columns are the context views, then the
      held-out ones. `splats_<i>`: the first sample from one view, in the world of the data
      source, if it is of Gaussians.
      `turntable_one_view` and `turntable`: videos of the first scene's first samples.
    """
    count = min(MAX_SCENES, int(np.sum(np.asarray(batch["weight"]) > 0)))
    batch = jax.tree.map(lambda x: jnp.asarray(x)[:count], dict(batch))
    context, target = views.from_batch(batch["context"]), views.from_batch(batch["target"])
    both = views.concatenate(context, target)
    rows, scenes = [("photograph", np.asarray(both.images))], {}
    told = (context, batch["class_label"], shared.one_view(count))
    for name, values, condition in _rows(functions, *told, reconstruction):
        scenes[name] = functions.decode(values, condition)
        rows.append((name, np.asarray(functions.render(scenes[name], both.cameras).rgb)))

    titles = [f"view {k + 1}" for k in range(context.images.shape[1])]
    titles[shared.reference] += ", given"
    titles += [f"held out {k + 1}" for k in range(target.images.shape[1])]
    visuals: dict[str, Any] = {}
    for i in range(count):
        visuals[f"samples_{i}"] = panels.grid(
            [list(map(panels.to_uint8, images[i])) for _, images in rows],
            column_titles=titles,
            row_titles=[name for name, _ in rows],
        )
        sampled = scenes["one view, 1"]
        if isinstance(sampled, Gaussians):
            visuals[f"splats_{i}"] = gaussians.transform(sampled[i], batch["world_from_scene"][i])
    for name, shown in (("turntable_one_view", "one view, 1"), ("turntable", "no view, 1")):
        visuals[name] = scene_visuals.turntable(functions.render, scenes[shown], context.cameras)
    return visuals


def _rows(
    functions: Functions,
    context: Views,
    label: jax.Array,
    one_view: jax.Array,
    reconstruction: str,
) -> Iterator[tuple[str, jax.Array, conditioning.Conditioning]]:
    """Name, what is decoded, and its condition, of every row but the photographs."""
    everything = functions.encode(context, jnp.ones_like(one_view), label)
    yield reconstruction, everything.known, everything
    told = functions.encode(context, one_view, label)
    for name, condition in (("one view", told), ("no view", told.dropped())):
        for number in range(SAMPLES):
            # Not the run's seed: all runs start from the same noise.
            keys = samplers.scene_keys(jax.random.key(number), len(label))
            yield f"{name}, {number + 1}", functions.sample(condition, keys), condition
