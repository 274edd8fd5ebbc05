"""Flags of a training run, and axes such as `--up -z` for the other commands.

What is wrong with a training's flags is said in one sentence instead of a traceback where that says
all. Of flags for the same key of a configuration the last one counts, so that what is added at the
end of a command has its way.
"""

import pathlib
import re
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from lgs_jax import settings
from lgs_jax.cli import reporting

# What flags of a configuration, and the file that they name, raise while they are parsed.
ERRORS = (KeyError, SyntaxError, ValueError, flags.Error)
# Values of `--up` that argparse would take for options.
_AXES = ("-x", "-y", "-z")
# "ValueError: ", before the message of an exception at the end of a traceback.
_NAME_OF_ERROR = re.compile(r"[\w.]+(Error|Exception): ")


class _LastTuple(flags.ArgumentParser):
    """A tuple in one flag, such as "(16, 32)"; ml_collections' own joins those of several flags."""

    def parse(self, argument: str | tuple) -> tuple:
        return tuple_parser.TupleParser().parse(argument)


config_flags.register_flag_parser_for_type(tuple, _LastTuple())


def with_axes(arguments: list[str]) -> list[str]:
    """The same with `--up -z` as `--up=-z`, up to a lone `--`."""
    joined = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            return joined + arguments[i:]
        if argument in _AXES and joined and joined[-1] == "--up":
            joined[-1] = f"--up={argument}"
        else:
            joined.append(argument)
    return joined


def parse(arguments: list[str]) -> list[str]:
    """Parses absl's flags, `--config` among them, and returns what is left over.

    Ends the program if they are not understood, or the configuration cannot be made from them;
    raises what is wrong instead where debugging is on.
    """
    try:
        return flags.FLAGS(with_packaged(arguments))
    except ERRORS as error:
        if reporting.debugging():
            raise
        sys.exit(f"error: {explain(error)}")


def with_packaged(arguments: list[str]) -> list[str]:
    """The same with a configuration of the package where `--config=configs/...` is not here."""
    found = list(arguments)
    for i, argument in enumerate(arguments):
        if argument.startswith("--config="):
            found[i] = f"--config={packaged(argument.removeprefix('--config='))}"
        elif argument == "--config" and i + 1 < len(found):
            found[i + 1] = packaged(arguments[i + 1])
    return found


def packaged(name: str) -> str:
    """The same for FILE or FILE:VARIANT; says where it comes from."""
    file, colon, variant = name.partition(":")
    if (copy := settings.packaged(file)) == file:
        return name
    print(f"there is no {file} here; taking that of the package, {copy}", file=sys.stderr)
    return f"{copy}{colon}{variant}"


def explain(error: Exception) -> str:
    """What is wrong with the flags, from one of `ERRORS`, without a traceback."""
    if isinstance(error, KeyError):
        # ml_collections' only sign of `--config.typo.key=value`, with its guess at what was meant.
        return f"--config has no such group of keys: {error.args[0]}"
    if isinstance(error, SyntaxError):
        return f"--config is no configuration in Python: {error}"
    lines = str(error).strip().splitlines() or [repr(error)]
    return _NAME_OF_ERROR.sub("", lines[-1].strip(), count=1)  # of a traceback in its text


def unreadable(name: str, error: OSError) -> str:
    """Why the configuration FILE or FILE:VARIANT was not loaded."""
    file = name.partition(":")[0]
    if pathlib.Path(file).exists():
        return f"--config={name} cannot be loaded: {error}"
    found = sorted(pathlib.Path(settings.packaged("configs")).glob("*.py"))
    own = ", ".join(f"configs/{path.name}" for path in found)
    return (
        f"there is no file {file!r}, here or in the package; expected a configuration in Python, "
        f"such as {own}"
    )


def read(config: flags.FlagHolder) -> dict[str, Any] | None:
    """The configuration as plain dictionaries, None without the flag; ends if it is not there."""
    try:
        return None if config.value is None else config.value.to_dict()
    except OSError as error:  # of a file that could not be loaded, reported at its first use
        if reporting.debugging():
            raise
        name = config_flags.get_config_filename(flags.FLAGS[config.name])
        sys.exit(f"error: {unreadable(name, error)}")
