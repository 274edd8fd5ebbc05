"""What a renderer returns, and what all of them ask of the scene, whatever represents it."""

import dataclasses
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from lgs_jax.core import sharding

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rendering:
    """Images of a scene; the leading dimensions [...] are those of the cameras.

    Attributes:
      rgb: colour over the background, any number of channels [..., H, W, C].
      alpha: accumulated opacity, 1 - transmittance [..., H, W, 1].
      depth: distance along the optical axis [..., H, W, 1], or None where it was not asked for.
      aux: what the renderer reports about its work, by name; int32 counts [...].
    """

    rgb: Array
    alpha: Array
    depth: Array | None
    aux: dict[str, Array]


def check_prefix(own: tuple[int, ...], lead: tuple[int, ...]) -> None:
    """Raises ValueError unless a scene's leading dimensions begin those of the cameras."""
    if lead[: len(own)] != own:
        raise ValueError(
            f"the scene's leading dimensions {own} must be a prefix of the cameras' {lead}"
        )


def backdrop(background: Any, lead: tuple[int, ...], colors: Array) -> Array:
    """The background as [..., C] behind colours of C channels; `lead` is that of the cameras.

    Raises:
      ValueError: if it is neither a number nor [C] nor [..., C].
    """
    channels = colors.shape[-1]
    shapes = dict.fromkeys([(channels,), (*lead, channels)])
    expected = f"a number or colours of shape {' or '.join(map(str, shapes))}"
    try:
        values = jnp.asarray(background, colors.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{background=} must be {expected}") from error
    if values.shape not in ((), *shapes):
        raise ValueError(f"background has shape {values.shape}, expected {expected}")
    return jnp.broadcast_to(values, (*lead, channels))


def promote(*trees: Any) -> tuple[Any, ...]:
    """The trees with all arrays of one type: the widest among them, at least float32."""
    dtype = jnp.promote_types(jnp.result_type(*jax.tree.leaves(trees)), jnp.float32)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), trees)


def positive_int(name: str, value: Any) -> int:
    """The value of a static option as a Python int.

    Raises:
      ValueError: if it is no whole number of at least 1, of Python or NumPy; True is none.
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name}={value!r} must be a positive Python int")
    return number


def split_images(
    image_axes: str | tuple[str, ...] | PartitionSpec, lead: tuple[int, ...]
) -> tuple[PartitionSpec, PartitionSpec]:
    """`sharding.split_rows` for cameras with the leading dimensions `lead`.

    Raises:
      ValueError: if there is no mesh in context, it has no such axis, or an axis does not divide
        its dimension.
    """
    images, rows = sharding.split_rows(image_axes, len(lead))
    sizes = jax.sharding.get_abstract_mesh().shape
    for entry, length in zip(rows, (*lead, None)):
        axes = (entry,) if isinstance(entry, str) else tuple(entry or ())
        for axis in axes:
            if axis not in sizes:
                raise ValueError(
                    f"{image_axes=} names {axis!r}, but the axes of the mesh in context are "
                    f"{', '.join(sizes)}"
                )
        parts = math.prod(sizes[axis] for axis in axes)
        if length is not None and length % parts:
            raise ValueError(
                f"{image_axes=} splits cameras {lead} over {parts} devices, which do not divide "
                f"{length}; give so many cameras that they do, or leave image_axes out"
            )
    return images, rows
