"""How good samples are that know one view: at that view, where they must imagine, and how varied.

Letters: B scenes, V context views, T target views, S samples of each scene.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax.core.cameras import Cameras
from lgs_jax.metrics import image
from lgs_jax.metrics.mean import Mean
from lgs_jax.models.conditioning import Conditioning
from lgs_jax.rendering.api import Rendering
from lgs_jax.tasks import views

Array = jax.Array

SAMPLES = 2


def measure(
    sample: Callable[[Conditioning, Array], Array],
    render: Callable[[Array, Conditioning, Cameras], Rendering],
    batch: Mapping[str, Any],
    condition: Conditioning,
    *,
    reference: int,
) -> dict[str, Mean]:
    """Means over the scenes of a batch and S samples of each; pure.

    Args:
      sample: (condition [B S], keys [B S]) -> latents or images [B S, V, ...].
      render: (these, their condition, cameras [B S, K]) -> renderings of their scenes.
      batch: of the data pipeline, with photographs.
      condition: one known view of each scene [B].
      reference: which view that is.

    Returns:
      `sample_psnr_known`: of the rendering at the known view against its photograph;
      `sample_psnr_unknown`: at the other context views; `sample_psnr_target`: at held-out views;
      `sample_spread`: standard deviation over the samples of the colours in [0, 1] at the other
      context views (of S values, not of S - 1), mean over pixels and channels; `sample_overflow`:
      of the rasterizer. PSNR at views that are not known falls where samples differ from each
      other, as they should where the known view shows nothing: read it with the spread. Noise is a
      function of the scene's index alone.
    """
    context, target = views.from_batch(batch["context"]), views.from_batch(batch["target"])
    both = views.concatenate(context, target)
    scenes, num_context = context.images.shape[:2]
    repeated, cameras = jax.tree.map(
        lambda x: jnp.repeat(x, SAMPLES, axis=0), (condition, both.cameras)
    )
    samples = sample(repeated, _keys(batch["scene_index"]))
    rendering = render(samples, repeated, cameras)
    # [B, S, V + T, H, W, 3]
    images = rendering.rgb.reshape(scenes, SAMPLES, *both.images.shape[1:])
    truth = jnp.broadcast_to(both.images[:, None], images.shape)
    psnr = image.psnr(images, truth)

    weights = jnp.asarray(batch["weight"])[:, None, None]
    unknown = jnp.array([i for i in range(num_context) if i != reference], int)
    overflow = jnp.broadcast_to(rendering.aux["overflow"], (scenes * SAMPLES, both.images.shape[1]))
    means = {
        "sample_psnr_known": Mean.of(psnr[:, :, reference, None], weights),
        "sample_psnr_target": Mean.of(psnr[:, :, num_context:], weights),
        "sample_overflow": Mean.of(overflow.reshape(psnr.shape), weights),
    }
    if not unknown.size:
        return means
    spread = jnp.clip(images[:, :, unknown], 0.0, 1.0).std(axis=1).mean(axis=(-3, -2, -1))
    return means | {
        "sample_psnr_unknown": Mean.of(psnr[:, :, unknown], weights),
        "sample_spread": Mean.of(spread, weights[:, 0]),
    }


def measure_first(
    count: int,
    sample: Callable[[Conditioning, Array], Array],
    render: Callable[[Array, Conditioning, Cameras], Rendering],
    batch: Mapping[str, Any],
    condition: Conditioning,
    *,
    reference: int,
) -> dict[str, Mean]:
    """`measure` of the first `count` scenes of a batch; nothing of none."""
    if not count:
        return {}
    first, told = jax.tree.map(lambda x: x[:count], (dict(batch), condition))
    return measure(sample, render, first, told, reference=reference)


def _keys(scene_index: Array) -> Array:
    """S keys for each scene [B S], those of a scene side by side."""

    def of_scene(index: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(1), index)
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(SAMPLES))

    return jax.vmap(of_scene)(jnp.asarray(scene_index)).reshape(-1)
