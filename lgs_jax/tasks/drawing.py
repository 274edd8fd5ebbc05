"""How tasks draw their scenes: what may be chosen, what losses log of it, and what to change."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lgs_jax import settings
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.data.settings import DataSettings
from lgs_jax.models.scene_heads import kinds
from lgs_jax.rendering.api import Rendering
from lgs_jax.rendering.settings import RenderingSettings
from lgs_jax.rendering.splat import lists

Array = jax.Array

DEFAULTS = RenderingSettings()

# Room beyond so many times what is needed is worth a word: most of what is sorted is then empty.
_TOO_MUCH = 3.0


def from_config(config: Mapping[str, Any]) -> RenderingSettings:
    """The group `rendering` of a whole configuration, which may lack it.

    Raises:
      lgs_jax.settings.SettingsError: for unknown keys and wrong values.
    """
    return settings.build(RenderingSettings, config.get("rendering", {}), "config.rendering")


def check_kind(rendering: RenderingSettings, kind: str) -> None:
    """Refuses settings without effect: all but the defaults for scenes that are not of Gaussians.

    Raises:
      lgs_jax.settings.SettingsError: that names what was found, and the kind of scene.
    """
    if rendering.options and kind != kinds.GAUSSIANS:
        found = ", ".join(f"config.rendering.{k}={v!r}" for k, v in rendering.options.items())
        raise settings.SettingsError(
            f"{found} says how splats are drawn, but config.model.scene_head.kind={kind!r} makes "
            "none; leave it out"
        )


def logged(scene: Any, rendering: Rendering) -> dict[str, Array]:
    """What a loss logs of its rendering of scenes.

    Returns:
      `overflow`, a count; and of splats `entries_per_splat`: (splat, tile) pairs per splat, mean
      over all images (0 where the reference draws, which lists none).
    """
    found = {"overflow": jnp.sum(rendering.aux["overflow"])}
    if isinstance(scene, Gaussians):
        found["entries_per_splat"] = jnp.mean(rendering.aux["required"]) / scene.num_gaussians
    return found


def advice(config: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """What to change in a configuration for the lists of splats, in a sentence; "": nothing.

    Args:
      config: the whole configuration.
      metrics: of a training step.
    """
    need = metrics.get("entries_per_splat", 0.0)
    # With rows of its own, a device lists fewer entries than all of them together.
    if not need or config.get("mesh", {}).get("spatial", 1) > 1:
        return ""
    data = settings.build(DataSettings, config["data"], "config.data")
    room = lists.room_of_one_launch(data.height, data.width, **from_config(config).options)
    if room is None:
        return ""
    slots = lists.slots_for(need, 1)
    if need > room:
        gain = "draws them in one launch"
    elif room > _TOO_MUCH * need and room > slots:
        gain = "sorts fewer empty slots"
    else:
        return ""
    return (
        f"splats need {need:.1f} entries each, the lists have room for {room:g} at a time: "
        f"--config.rendering.slots_per_splat={slots} {gain} (same images)"
    )
