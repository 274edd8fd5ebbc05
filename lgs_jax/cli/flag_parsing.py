"""Flags of a training run, with one sentence instead of a traceback where that says all."""

import sys
from typing import Any

from absl import flags

# What flags of a configuration, and the file that they name, raise while they are parsed.
ERRORS = (KeyError, SyntaxError, ValueError, flags.Error)


def parse(arguments: list[str]) -> list[str]:
    """Parses absl's flags, `--config` among them, and returns what is left over.

    Ends the program if they are not understood, or the configuration cannot be made from them.
    """
    try:
        return flags.FLAGS(arguments)
    except ERRORS as error:
        sys.exit(f"error: {explain(error)}")


def explain(error: Exception) -> str:
    """What is wrong with the flags, from one of `ERRORS`, without a traceback."""
    if isinstance(error, KeyError):
        # ml_collections' only sign of `--config.typo.key=value`, with its guess at what was meant.
        return f"--config has no such group of keys: {error.args[0]}"
    if isinstance(error, SyntaxError):
        return f"--config is no configuration in Python: {error}"
    lines = str(error).strip().splitlines() or [repr(error)]
    return lines[-1].strip()  # of a traceback in the text of the error


def read(config: flags.FlagHolder) -> dict[str, Any] | None:
    """The configuration as plain dictionaries, None without the flag; ends if it is not there."""
    try:
        return None if config.value is None else config.value.to_dict()
    except OSError as error:  # of a file that could not be loaded, reported at its first use
        sys.exit(f"error: {error}")
