"""The border between configuration and code: types, unknown keys, messages."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import pytest

from lgs_jax import settings


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    top: float | None = None

    def __post_init__(self):
        settings.require(self, ("rate", "top"), lambda x: x >= 0, "must not be negative")


@dataclasses.dataclass(frozen=True)
class Outer:
    num_steps: int
    name: str = "a"
    flag: bool = False
    sizes: tuple[int, ...] = ()
    pair: tuple[int, float] = (1, 2.0)
    kind: Literal["cosine", "constant"] = "cosine"
    limit: float | None = None
    inner: Inner = Inner()
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def test_values_arrive_with_the_types_of_the_fields():
    got = settings.build(
        Outer,
        {
            "num_steps": 3,
            "sizes": [4, 5],
            "pair": [1, 2],
            "limit": 2,
            "inner": {"rate": 1},
            "extra": {"x": [1]},
        },
        "config",
    )
    assert got == Outer(
        3, sizes=(4, 5), pair=(1, 2.0), limit=2.0, inner=Inner(1.0), extra={"x": [1]}
    )
    assert isinstance(got.pair[1], float)
    assert isinstance(got.limit, float)
    assert (
        settings.build(Outer, {"num_steps": 1, "limit": None, "inner": Inner(3.0)}, "c").limit
        is None
    )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"num_stpes": 3}, r"unknown key config\.num_stpes; did you mean 'num_steps'\?"),
        ({"num_steps": 3, "zzz": 1}, r"unknown key config\.zzz; known keys: extra, flag"),
        ({"num_steps": 3, "limit": float("nan")}, r"config\.limit must be finite, got nan"),
        ({"num_steps": 3, "pair": [1, float("inf")]}, r"config\.pair\[1\] must be finite"),
        ({"num_steps": 3, "inner": {"rat": 1.0}}, r"config\.inner\.rat; did you mean 'rate'"),
        ({}, r"config lacks num_steps"),
        ({"num_steps": 3.0}, r"config\.num_steps must be an int, got 3\.0 \(float\)"),
        ({"num_steps": True}, r"config\.num_steps must be an int, got True"),
        ({"num_steps": 3, "name": 1}, r"config\.name must be a str, got 1 \(int\)"),
        ({"num_steps": 3, "flag": 1}, r"config\.flag must be a bool"),
        ({"num_steps": 3, "sizes": 4}, r"config\.sizes must be a sequence, got 4"),
        ({"num_steps": 3, "sizes": [1, "b"]}, r"config\.sizes\[1\] must be an int, got 'b'"),
        ({"num_steps": 3, "pair": [1]}, r"config\.pair must have 2 entries"),
        ({"num_steps": 3, "kind": "cos"}, r"config\.kind must be one of 'cosine', 'constant'"),
        ({"num_steps": 3, "limit": "x"}, r"config\.limit must be a float, got 'x'"),
        ({"num_steps": 3, "inner": 3}, r"config\.inner must be a group of keys for Inner, got 3"),
        ({"num_steps": 3, "inner": {"rate": -1.0}}, r"config\.inner: rate=-1\.0 must not"),
        ({"num_steps": 3, "inner": {"rate": -1, "top": -2}}, r"rate=-1\.0 and top=-2\.0 must not"),
        ({"num_steps": 3, "extra": 3}, r"config\.extra must be a group of keys"),
    ],
)
def test_messages_name_the_key_the_value_and_the_remedy(mapping, message):
    with pytest.raises(settings.SettingsError, match=message):
        settings.build(Outer, mapping, "config")


def test_every_unknown_key_is_listed():
    with pytest.raises(settings.SettingsError, match=r"(?s)config\.flga.*config\.nmae"):
        settings.build(Outer, {"num_steps": 1, "flga": True, "nmae": "b"}, "config")


def test_a_value_that_is_not_a_number_breaks_every_rule():
    with pytest.raises(ValueError, match="rate=nan must not be negative"):
        Inner(rate=float("nan"))


def test_a_key_known_twice_is_listed_once():
    with pytest.raises(settings.SettingsError, match=r"known keys: data, loss$"):
        settings.check_keys(["zzz"], ["data", "loss", "data"], "config")


@pytest.mark.parametrize("key", ["name", "parent"])
def test_the_fields_of_a_module_are_settings_but_for_those_of_flax(key):
    assert settings.build(nn.Dense, {"features": 3}, "config").features == 3
    with pytest.raises(settings.SettingsError, match=f"unknown key config.{key}"):
        settings.build(nn.Dense, {"features": 3, key: None}, "config")
