"""`python -m lgs_jax COMMAND ...`, also installed as `lgs-jax`.

A command is a module in `lgs_jax.cli` with a function `main(arguments)`; its file name, underscores
turned into hyphens, is its name. Flags may be written either way too: `--num_samples` is
`--num-samples`.
"""

import ast
import difflib
import importlib
import importlib.resources
import os
import pkgutil
import signal
import sys
import types

from lgs_jax import cli
from lgs_jax.cli import reporting

# Parts of another command, not commands of their own.
_PARTS = frozenset(
    {
        "benchmark-data",
        "benchmark-rasterizer",
        "benchmark-rivals",
        "benchmark-sampling",
        "benchmark-scaling",
        "captures",
        "flag-parsing",
        "reporting",
    }
)
# Its flags are absl's, which are spelt with underscores.
_ABSL = "train"
_STOPPED, _STOPPED_STATUS = "stopped", 130


def commands() -> list[str]:
    """Names of all commands."""
    names = (module.name.replace("_", "-") for module in pkgutil.iter_modules(cli.__path__))
    return sorted(name for name in names if name not in _PARTS)


def summary(name: str) -> str:
    """What a command does, from the first line of its module, which is not imported for it."""
    path = importlib.resources.files(cli) / f"{name.replace('-', '_')}.py"
    first = ast.get_docstring(ast.parse(path.read_text())).partition("\n")[0]
    return first.partition(": ")[2]


def with_hyphens(arguments: list[str]) -> list[str]:
    """The same with `--some_flag[=value]` as `--some-flag[=value]`, up to a lone `--`.

    Keys of a configuration (`--config.training.num_steps`) stay as they are.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [_hyphened(each) for each in arguments[:end]] + arguments[end:]


def _hyphened(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    if flag.startswith("--") and "." not in flag:
        flag = flag.replace("_", "-")
    return f"{flag}{equals}{value}"


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status. Without arguments: this program's own."""
    as_program = arguments is None
    arguments = sys.argv[1:] if as_program else arguments
    if arguments[:1] == ["--debug"]:
        os.environ[reporting.DEBUG] = "1"
        arguments = arguments[1:]
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m lgs_jax [--debug] COMMAND [--help]\n\ncommands:")
        width = max(map(len, known))
        print(*(f"  {name:{width}}  {summary(name)}" for name in known), sep="\n")
        print("\n--debug shows the traceback of an error. Status: 0, or else as --help says.")
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        print(f"no command {name!r}{hint}; commands: {', '.join(known)}", file=sys.stderr)
        return 2
    if name != _ABSL:
        rest = with_hyphens(rest)
    try:
        return _load(name, leave_at_once=as_program).main(rest) or 0
    except KeyboardInterrupt:
        print(_STOPPED, file=sys.stderr)
        return _STOPPED_STATUS


def _load(name: str, *, leave_at_once: bool) -> types.ModuleType:
    """Imports a command, which takes seconds.

    Ctrl-C may end the program there and then, for nothing has begun; as an exception it is lost or
    becomes another one in the extension modules that are being imported.
    """
    if leave_at_once:
        before = signal.signal(signal.SIGINT, _leave)
    try:
        return importlib.import_module(f"lgs_jax.cli.{name.replace('-', '_')}")
    finally:
        if leave_at_once:
            signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: types.FrameType | None) -> None:
    os.write(sys.stderr.fileno(), f"{_STOPPED}\n".encode())
    os._exit(_STOPPED_STATUS)


if __name__ == "__main__":
    sys.exit(main())
