"""The border between configuration and code.

A configuration arrives as nested mappings (a `ConfigDict` turned into dictionaries, JSON of a
checkpoint). `build` turns each group into a frozen dataclass, so that a misspelt key or a value of
the wrong type ends the run before anything else has happened. Behind this border no code looks at a
configuration.
"""

import collections.abc
import dataclasses
import difflib
import math
import os
import pathlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from lgs_jax import files

T = TypeVar("T")
_PACKAGE = pathlib.Path(__file__).parent


class SettingsError(ValueError):
    """A configuration that cannot be honoured: an unknown or missing key, or a wrong value."""


def packaged(path: str | os.PathLike) -> str | os.PathLike:
    """The copy of `configs/...` that comes with the package, where there is no such path here.

    An installed package holds the folder, and a copy of the repository has it beside the package.
    """
    if pathlib.PurePath(path).parts[:1] == ("configs",) and not pathlib.Path(path).exists():
        for folder in (_PACKAGE, _PACKAGE.parent):
            if (folder / path).exists():
                return folder / path
    return path


def build(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Makes the settings dataclass `cls` from a mapping.

    A field that is itself a dataclass takes a mapping or a finished instance. Lists become tuples
    and whole numbers become floats where the field says so; nothing else is converted. Floats are
    finite.

    Args:
      cls: a dataclass; the types of its fields are checked, its `__post_init__` may check values.
      mapping: values by field name.
      where: what the mapping is called in messages, such as "config.training".

    Raises:
      SettingsError: for an unknown key (with the nearest known one), a missing key, a value of the
        wrong type, or a value that `cls` itself refuses.
    """
    if not isinstance(mapping, Mapping):
        raise SettingsError(
            f"{where} must be a group of keys for {cls.__name__}, got {_show(mapping)}"
        )
    fields = _settable(cls)
    check_keys(mapping, fields, where)
    missing = [name for name, field in fields.items() if _required(field) and name not in mapping]
    if missing:
        raise SettingsError(f"{where} lacks {', '.join(missing)}; add it to the configuration")
    hints = typing.get_type_hints(cls)
    values = {
        name: _convert(value, hints[name], f"{where}.{name}") for name, value in mapping.items()
    }
    try:
        return cls(**values)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def read(cls: type[T], path: pathlib.PurePath, version: int | None = None) -> T | None:
    """Makes the dataclass `cls` from a JSON file, local or in an object store; None: no such file.

    Args:
      cls: as in `build`.
      path: of the file.
      version: what its key `format` must hold, looked at before all others; None: nothing.

    Raises:
      ValueError: if it is no JSON, of another format, or `build` refuses it.
    """
    try:
        value = files.read_json(path)
    except FileNotFoundError:
        return None
    found = value.get("format") if isinstance(value, Mapping) else version
    if version is not None and found != version:
        raise SettingsError(f"format {found!r}, expected {version}")
    return build(cls, value, str(path))


def check_keys(keys: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuses keys that are not among the known ones, naming the nearest.

    Raises:
      SettingsError: that lists every unknown key.
    """
    known = sorted(set(known))
    complaints = []
    for key in keys:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        complaints.append(f"unknown key {where}.{key}; {hint}")
    if complaints:
        raise SettingsError("\n".join(complaints))


def require(group: Any, names: Iterable[str], holds: Callable[[Any], bool], rule: str) -> None:
    """Checks values of a settings dataclass, for its `__post_init__`.

    Args:
      group: the settings.
      names: of the fields to look at; None stands for no value, which breaks no rule.
      holds: whether a value is right; a comparison, as NaN fulfils none.
      rule: the end of the message, such as "must be positive".

    Raises:
      ValueError: that shows the values which are wrong, and no others.
    """
    values = {name: getattr(group, name) for name in names}
    wrong = [f"{name}={x!r}" for name, x in values.items() if x is not None and not holds(x)]
    if wrong:
        raise ValueError(f"{' and '.join(wrong)} {rule}")


def _settable(cls: type) -> dict[str, dataclasses.Field]:
    """The fields that a configuration may set: of a module, not the two that Flax adds to all."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    of_flax = {"name", "parent"} if {"name", "parent"} <= fields.keys() else ()
    return {name: field for name, field in fields.items() if name not in of_flax}


def _required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _convert(value: Any, hint: Any, where: str) -> Any:
    """The value as the type `hint` wants it; see `build`."""
    if hint is Any or isinstance(hint, TypeVar):
        return value
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise SettingsError(f"{where} must be one of {_join(arguments)}, got {_show(value)}")
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, where)
    if (origin or hint) in (tuple, list, collections.abc.Sequence):
        return _convert_sequence(value, origin or hint, arguments, where)
    if (origin or hint) in (dict, collections.abc.Mapping):
        if not isinstance(value, Mapping):
            raise SettingsError(f"{where} must be a group of keys, got {_show(value)}")
        inner = arguments[1] if arguments else Any
        return {key: _convert(item, inner, f"{where}.{key}") for key, item in value.items()}
    return _convert_scalar(value, origin or hint, where)


def _convert_union(value: Any, options: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in options:
        return None
    complaints = []
    for option in options:
        try:
            return _convert(value, option, where)
        except SettingsError as error:
            complaints.append(str(error))
    raise SettingsError("; or ".join(complaints))


def _convert_sequence(value: Any, kind: Any, arguments: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise SettingsError(f"{where} must be a sequence, got {_show(value)}")
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise SettingsError(f"{where} must have {len(arguments)} entries, got {_show(value)}")
        inner = arguments
    else:
        inner = (arguments[0] if arguments else Any,) * len(value)
    items = (_convert(v, t, f"{where}[{i}]") for i, (v, t) in enumerate(zip(value, inner)))
    return list(items) if kind is list else tuple(items)


def _convert_scalar(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(kind, type):  # a hint that cannot be checked, such as a Callable's
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # A bool is an int to Python, but `num_steps=True` is a mistake.
    if isinstance(value, kind) and not (isinstance(value, bool) and kind in (int, float)):
        if kind is float and not math.isfinite(value):
            raise SettingsError(f"{where} must be finite, got {_show(value)}")
        return value
    raise SettingsError(f"{where} must be {_article(kind.__name__)}, got {_show(value)}")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _join(options: tuple[Any, ...]) -> str:
    return ", ".join(map(repr, options))


def _show(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
