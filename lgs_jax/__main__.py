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

import lgs_jax
from lgs_jax import cli
from lgs_jax.cli import interrupts, reporting

# Parts of another command, not commands of their own.
_PARTS = frozenset(
    {
        "benchmark-check-data",
        "benchmark-data",
        "benchmark-rasterizer",
        "benchmark-rivals",
        "benchmark-sampling",
        "benchmark-scaling",
        "benchmark-tpu-kernels",
        "captures",
        "flag-parsing",
        "interrupts",
        "reporting",
        "sample-views",
    }
)
# Its flags are absl's, which are spelt with underscores.
_ABSL = "train"
_DEBUG = "--debug"
# Options before the command.
OPTIONS = (_DEBUG, "--help", "--version")
_ENDING = f"""
{_DEBUG}, anywhere before a lone `--`, shows the traceback of an error; --version says the version.

exit status:
  0    done
  1    something cannot be read, written or done, as the error says; or a check found something
  2    the command line is not understood, or what `plan` and `check-data` should look at
  75   a training was stopped and has saved; the same command continues it
  76   a training lost other processes of its job; the same command continues it
  {interrupts.STATUS}  stopped by Ctrl-C"""


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
    end = _end(arguments)
    return [_hyphened(each) for each in arguments[:end]] + arguments[end:]


def _end(arguments: list[str]) -> int:
    """The position of a lone `--`, whose followers are another program's; else their number."""
    return arguments.index("--") if "--" in arguments else len(arguments)


def _hyphened(argument: str) -> str:
    flag, equals, value = argument.partition("=")
    if flag.startswith("--") and "." not in flag:
        flag = flag.replace("_", "-")
    return f"{flag}{equals}{value}"


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status. Without arguments: this program's own."""
    as_program = arguments is None
    arguments = sys.argv[1:] if as_program else arguments
    if as_program:
        interrupts.outlive_readers()
    end = _end(arguments)
    if _DEBUG in arguments[:end]:
        os.environ[reporting.DEBUG] = "1"
        arguments = [each for each in arguments[:end] if each != _DEBUG] + arguments[end:]
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: python -m lgs_jax [{_DEBUG}] COMMAND [--help]\n\ncommands:")
        width = max(map(len, known))
        print(*(f"  {name:{width}}  {summary(name)}" for name in known), sep="\n")
        print(_ENDING)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"lgs_jax {lgs_jax.__version__}")
        return 0
    name, *rest = arguments
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        print(f"no command {name!r}{hint} Commands: {', '.join(known)}", file=sys.stderr)
        return 2
    if name != _ABSL:
        rest = with_hyphens(rest)
    try:
        command = _load(name, leave_at_once=as_program)
        if as_program and name != _ABSL:  # which saves at Ctrl-C
            interrupts.listen()
        return command.main(rest) or 0
    except KeyboardInterrupt:
        if as_program:
            interrupts.leave()
        print(interrupts.STOPPED, file=sys.stderr)
        return interrupts.STATUS


def _load(name: str, *, leave_at_once: bool) -> types.ModuleType:
    """Imports a command, which takes seconds.

    Ctrl-C may end the program there and then, for nothing has begun; as an exception it is lost or
    becomes another one in the extension modules that are being imported.
    """
    if leave_at_once:
        before = signal.signal(signal.SIGINT, lambda *_: interrupts.leave())
    try:
        return importlib.import_module(f"lgs_jax.cli.{name.replace('-', '_')}")
    finally:
        if leave_at_once:
            signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
