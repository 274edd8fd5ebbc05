"""Rendering of any scene representation: one function, dispatched on the type of the scene."""

from typing import Any, NamedTuple

import jax

from lgs_jax.core.cameras import Cameras

Array = jax.Array


class Rendering(NamedTuple):
    """What `render` returns; leading dimensions are those of the cameras."""

    rgb: Array
    alpha: Array
    depth: Array
    aux: dict[str, Array]


def render(scene: Any, cameras: Cameras, *, height: int, width: int, **options: Any) -> Rendering:
    raise NotImplementedError
