"""Indexing of dataclasses whose arrays share leading dimensions, as NumPy would index them.

JAX takes the nearest element where a number is out of range, so what Python expects of a sequence
(`for`, `list`, an error at a wrong number) has to be said.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import numpy as np

Tree = TypeVar("Tree")


def take(tree: Tree, index: Any, shape: tuple[int, ...]) -> Tree:
    """The tree with `[index]` applied to every array.

    Args:
      tree: whose arrays share the leading dimensions `shape`.
      index: whatever arrays take.
      shape: the leading dimensions.

    Raises:
      IndexError: if there are none, or the index is a number out of range.
    """
    if isinstance(index, int | np.integer):
        count = _count(tree, shape)
        if not -count <= index < count:
            raise IndexError(f"index {index} is out of range: the first dimension has {count}")
    return jax.tree.map(lambda x: x[index], tree)


def each(tree: Tree, shape: tuple[int, ...]) -> Iterator[Tree]:
    """What lies along the first dimension, one after the other.

    Raises:
      IndexError: if there is none.
    """
    return (take(tree, index, shape) for index in range(_count(tree, shape)))


def check_arrays(tree: Any) -> dict[str, np.dtype]:
    """The types of a dataclass's arrays, by field.

    Raises:
      ValueError: if a field is no array, such as a list.
    """
    values = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    for name, value in values.items():
        if not hasattr(value, "shape") or not hasattr(value, "dtype"):  # `eval_shape` has its own
            raise ValueError(
                f"{type(tree).__name__}.{name} must be an array of NumPy or JAX, got "
                f"{type(value).__name__}; give numpy.asarray(..., numpy.float32)"
            )
    return {name: value.dtype for name, value in values.items()}


def _count(tree: Any, shape: tuple[int, ...]) -> int:
    if not shape:
        raise IndexError(f"these {type(tree).__name__} have no leading dimension; add one")
    return shape[0]
