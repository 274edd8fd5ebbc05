"""A table of a model's parameters."""

import math
from collections.abc import Mapping
from typing import Any


def summary(params: Mapping[str, Any], *, depth: int = 3) -> str:
    """A table, sorted by module: name, number of arrays, parameters, share of the total.

    Args:
      params: nested mapping of arrays or of `jax.ShapeDtypeStruct`s; only shapes are read.
      depth: levels of nesting that get rows of their own; deeper ones are summed up.
    """
    rows: dict[str, list[int]] = {}
    for path, shape in _leaves(params, ()):
        row = rows.setdefault("/".join(path[:depth]), [0, 0])
        row[0] += 1
        row[1] += math.prod(shape)
    arrays = sum(row[0] for row in rows.values())
    total = sum(row[1] for row in rows.values())
    width = max([len("module"), *map(len, rows)])
    header = f"{'module':<{width}}  {'arrays':>6}  {'parameters':>13}  {'share':>6}"
    lines = [header, "-" * len(header)]
    for name, (count, size) in [*sorted(rows.items()), ("total", (arrays, total))]:
        if name == "total":
            lines.append("-" * len(header))
        share = size / max(total, 1)
        lines.append(f"{name:<{width}}  {count:>6}  {size:>13,}  {share:>6.1%}")
    return "\n".join(lines)


def count(params: Mapping[str, Any]) -> int:
    """Number of parameters; works on shapes too."""
    return sum(math.prod(shape) for _, shape in _leaves(params, ()))


def _leaves(tree: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Module path and shape of every array; an array's own name is not part of the path."""
    leaves = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves += _leaves(value, (*path, str(name)))
        else:
            leaves.append((path or (str(name),), tuple(value.shape)))
    return leaves
