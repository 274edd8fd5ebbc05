"""Which scene heads there are, and the one switch between them: `scene_head.kind`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax

from lgs_jax import settings
from lgs_jax.core.cameras import Cameras
from lgs_jax.models.scene_heads import gaussians, image_planes, triplane, voxels

Array = jax.Array

SCENE_HEADS = {
    "gaussians": gaussians.GaussianHead,
    "voxels": voxels.VoxelHead,
    "triplane": triplane.TriPlaneHead,
    "image_planes": image_planes.ImagePlanesHead,
}
GAUSSIANS = "gaussians"


class SceneHead(Protocol):
    """A frozen dataclass of settings that turns maps into scenes.

    Attributes:
      channels: what it needs per pixel of the maps.
      color_channels: where the logits of the colours are among them.
    """

    channels: int
    color_channels: slice

    def __call__(self, maps: Array, cameras: Cameras, view_mask: Array | None = None) -> Any:
        """The scenes [B] of maps [B, V, H, W, channels]; in a Linen scope, for its parameters."""


def kind_of(arguments: Mapping[str, Any] | None) -> str:
    """The kind of scene that a configuration's `scene_head` asks for; Gaussians by default."""
    return (arguments or {}).get("kind", GAUSSIANS)


def check_older_switch(scene: str) -> None:
    """Raises ValueError if a model's `scene`, which only ever was "gaussians", is anything else."""
    if scene != GAUSSIANS:
        raise ValueError(
            f"scene={scene!r}: the kind of scene is chosen by scene_head.kind, one of "
            f"{', '.join(SCENE_HEADS)}; leave scene out"
        )


def build(arguments: Mapping[str, Any] | None, where: str = "scene_head") -> SceneHead:
    """The head that a configuration asks for.

    `kind` is a name in `SCENE_HEADS`; the other arguments are those of its class. Arguments that
    only other kinds have are let through without effect, so that one configuration can be run with
    all kinds by changing `kind` alone.

    Raises:
      SettingsError: if the kind or an argument is unknown, or a value is refused.
    """
    arguments, kind = dict(arguments or {}), kind_of(arguments)
    if kind not in SCENE_HEADS:
        raise settings.SettingsError(
            f"{where}.kind={kind!r} must be one of {', '.join(SCENE_HEADS)}"
        )
    every = dict.fromkeys(field for head in SCENE_HEADS.values() for field in _fields(head))
    settings.check_keys(arguments, ["kind", *every], where)
    own = _fields(SCENE_HEADS[kind])
    return settings.build(
        SCENE_HEADS[kind], {k: v for k, v in arguments.items() if k in own}, where
    )


def _fields(head: type) -> list[str]:
    return [field.name for field in dataclasses.fields(head)]
