"""python -m lgs_jax completion SHELL: prints what makes the shell complete commands and options.

lgs-jax completion bash >> ~/.bashrc
lgs-jax completion zsh >> ~/.zshrc
"""

import argparse
import contextlib
import io
import re

from lgs_jax import __main__ as front

_BASH = """_lgs_jax() {{
  local words="{commands}" current="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -gt 1 ]; then
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ "$COMP_CWORD" -gt 1 ] && [ "${{current#-}}" = "$current" ]; then
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -F _lgs_jax lgs-jax
"""


def main(arguments: list[str]) -> int:
    """Prints the script; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax completion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    shell = parser.parse_args(arguments).shell
    known = front.commands()
    cases = [f'      {name}) words="{" ".join(options(name))}" ;;' for name in known]
    if shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    print(_BASH.format(commands=" ".join(known), cases="\n".join(cases)), end="")
    return 0


def options(name: str) -> list[str]:
    """The options of a command, as its help lists them."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        front.main([name, "--help"])
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text.getvalue())))
