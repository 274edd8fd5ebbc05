"""Indexing of dataclasses whose arrays share leading dimensions, as NumPy would index them.

JAX takes the nearest element where a number is out of range, so what Python expects of a sequence
(`for`, `list`, an error at a wrong number) has to be said.
"""

import dataclasses
import operator
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import numpy as np

Tree = TypeVar("Tree")


def take(tree: Tree, index: Any, shape: tuple[int, ...]) -> Tree:
    """The tree with `[index]` applied to every array.

    Args:
      tree: whose arrays share the leading dimensions `shape`.
      index: whatever arrays take; `...` stands for leading dimensions alone.
      shape: the leading dimensions.

    Raises:
      IndexError: if there are fewer of them than the index has, or a number in it is out of range.
    """
    index = _full_index(tree, index, shape)
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


def _full_index(tree: Any, index: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """The index with slices in place of `...`, which arrays would extend to their last dimensions.

    Raises:
      IndexError: see `take`.
    """
    entries = index if isinstance(index, tuple) else (index,)
    taken = sum(map(_dimensions, entries))
    if not shape and taken:
        _count(tree, shape)
    if sum(entry is ... for entry in entries) > 1:
        raise IndexError("an index takes `...` once")
    if taken > len(shape):
        raise IndexError(
            f"{taken} indices for the {len(shape)} leading dimensions {shape} of these "
            f"{type(tree).__name__}"
        )
    full: list[Any] = []
    for entry in entries:
        full += [slice(None)] * (len(shape) - taken) if entry is ... else [entry]
    place = 0
    for entry in full:
        number, size = _number(entry), shape[place] if place < len(shape) else 0
        if number is not None and not -size <= number < size:
            name = "the first dimension" if place == 0 else f"dimension {place}"
            raise IndexError(f"index {number} is out of range: {name} has {size}")
        place += _dimensions(entry)
    return tuple(full)


def _dimensions(entry: Any) -> int:
    """How many dimensions an entry of an index takes."""
    if entry is None or entry is ...:
        return 0
    if isinstance(entry, slice):
        return 1
    array = entry if hasattr(entry, "dtype") else np.asarray(entry)
    return array.ndim if array.dtype == bool else 1


def _number(entry: Any) -> int | None:
    """The entry of an index if it is a number whose value is known."""
    if isinstance(entry, jax.core.Tracer) or _dimensions(entry) == 0:
        return None
    try:
        return operator.index(entry)
    except TypeError:
        return None


def _count(tree: Any, shape: tuple[int, ...]) -> int:
    if not shape:
        raise IndexError(f"these {type(tree).__name__} have no leading dimension; add one")
    return shape[0]
