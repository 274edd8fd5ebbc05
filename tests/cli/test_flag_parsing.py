"""Flags of a configuration: which of several counts, and what is said of one that is wrong."""

import importlib

import pytest
from absl import flags
from ml_collections import config_flags

from lgs_jax import __main__ as front
from lgs_jax.cli import flag_parsing

# ml_collections' way of importing a configuration.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
CONFIG = """
import ml_collections

def get_config(variant=None):
    if variant:
        raise ValueError(f"{variant=} is not known")
    return ml_collections.ConfigDict({"widths": (8, 8), "steps": 1, "flip": True, "name": "a"})
"""


@pytest.fixture
def parse(tmp_path):
    """The configuration that a command line makes of the one above."""
    path = tmp_path / "config.py"
    path.write_text(CONFIG)

    def parsed(*arguments, variant=""):
        values = flags.FlagValues()
        line = ["train", f"--config={path}{variant}", *arguments]
        config = config_flags.DEFINE_config_file(
            "config",
            lock_config=False,
            accept_new_attributes=True,
            flag_values=values,
            sys_argv=line,
        )
        values(line)
        return config.value

    return parsed


@pytest.mark.parametrize(
    ("arguments", "key", "expected"),
    [
        (["--config.widths=(16, 16)", "--config.widths=(32,)"], "widths", (32,)),
        (["--config.widths", "16,16", "--config.widths", "(4, 2)"], "widths", (4, 2)),
        (["--config.widths=(16, 16)", "--config.widths", "()"], "widths", ()),
        (["--config.widths=4"], "widths", (4,)),
        (["--config.steps=2", "--config.steps", "3"], "steps", 3),
        (["--config.flip=true", "--noconfig.flip"], "flip", False),
        (["--noconfig.flip", "--config.flip"], "flip", True),
        (["--config.new=(1, 2)", "--config.new=(3,)"], "new", (3,)),
    ],
)
def test_the_last_flag_of_a_key_counts(parse, arguments, key, expected):
    assert parse(*arguments)[key] == expected


def test_what_is_not_given_stays(parse):
    assert parse("--config.steps=5").widths == (8, 8)


def test_messages_name_no_class(parse):
    with pytest.raises(flag_parsing.ERRORS) as caught:
        parse(variant=":big")
    assert flag_parsing.explain(caught.value) == "variant='big' is not known"


@pytest.mark.parametrize("axis", ["-z", "+x"])
@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize(
    "command",
    [
        ["export", "a.ply", "b.ply"],
        ["prepare-data", "--source=splats", "--output=out"],
        ["view", "a.ply"],
    ],
    ids=lambda command: command[0],
)
def test_an_axis_may_follow_its_option(command, separate, axis, monkeypatch):
    seen = []
    module = importlib.import_module(f"lgs_jax.cli.{command[0].replace('-', '_')}")
    monkeypatch.setattr(module, "run", seen.append)
    given = ["--up", axis] if separate else [f"--up={axis}"]
    assert front.main([*command, *given]) == 0
    assert seen[0].up == axis


def test_an_axis_is_joined_to_nothing_else():
    others = ["-z", "a", "-z", "--up", "-q", "--up=-x", "-y", "--", "--up", "-z"]
    assert flag_parsing.with_axes(others) == others
    assert flag_parsing.with_axes(["--up", "-z", "-z"]) == ["--up=-z", "-z"]
