"""How commands end: one sentence where that says all, a traceback only for who wants it."""

import os
import sys

# Set by `--debug` on the command line, or in the environment.
DEBUG = "LGS_JAX_DEBUG"


def debugging() -> bool:
    """Whether errors are to be shown with their traceback."""
    return bool(os.environ.get(DEBUG))


def fail(error: Exception, status: int = 1) -> int:
    """Prints what is wrong and returns the exit status; raises instead where debugging is on."""
    if debugging():
        raise error
    print(f"error: {error}", file=sys.stderr)
    return status
