"""Flags of a training run, with one sentence instead of a traceback where that says all."""

import sys
from typing import Any

from absl import app, flags


def parse(arguments: list[str]) -> list[str]:
    """Parses absl's flags, `--config` among them, and returns what is left over.

    Ends the program if a value is given for a group that the configuration does not have.
    """
    try:
        return app.parse_flags_with_usage(arguments)
    except KeyError as error:
        # ml_collections' only sign of `--config.typo.key=value`, with its guess at what was meant.
        sys.exit(f"error: --config has no such group of keys: {error.args[0]}")


def read(config: flags.FlagHolder) -> dict[str, Any] | None:
    """The configuration as plain dictionaries, None without the flag; ends if it is not there."""
    try:
        return None if config.value is None else config.value.to_dict()
    except OSError as error:  # of a file that could not be loaded, reported at its first use
        sys.exit(f"error: {error}")
