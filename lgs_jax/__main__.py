"""`python -m lgs_jax COMMAND ...`, also installed as `lgs-jax`.

A command is a module in `lgs_jax.cli` with a function `main(arguments)`; its file name, underscores
turned into hyphens, is its name.
"""

import importlib
import pkgutil
import sys

from lgs_jax import cli

# Parts of another command, not commands of their own.
_PARTS = frozenset(
    {
        "benchmark-data",
        "benchmark-rasterizer",
        "benchmark-rivals",
        "benchmark-sampling",
        "flag-parsing",
    }
)


def commands() -> list[str]:
    """Names of all commands."""
    names = (module.name.replace("_", "-") for module in pkgutil.iter_modules(cli.__path__))
    return sorted(name for name in names if name not in _PARTS)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m lgs_jax COMMAND [--help]\ncommands:", *known, sep="\n  ")
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in known:
        print(f"no command {name!r}; commands: {', '.join(known)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"lgs_jax.cli.{name.replace('-', '_')}")
    return module.main(rest) or 0


if __name__ == "__main__":
    sys.exit(main())
