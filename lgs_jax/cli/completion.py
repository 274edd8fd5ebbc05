"""python -m lgs_jax completion SHELL: prints what makes the shell complete commands and options.

lgs-jax completion bash >> ~/.bashrc
lgs-jax completion zsh >> ~/.zshrc
"""

import argparse
import contextlib
import io
import re

from lgs_jax import __main__ as front
from lgs_jax.inference import pretrained

# Options that take a model of the package by its name.
_MODEL_OPTIONS = {
    "benchmark-sampling": "--latent",
    "evaluate": "--model",
    "sample": "--model",
    "unpack-model": "--model",
    "view": "--model",
}
# Bash hands over `--path=fl` as three words, zsh as one; a command's name may be two words.
_BASH = """_lgs_jax() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" option="${{COMP_WORDS[COMP_CWORD-1]}}"
  local name="" parts="" words="" prefix="" files=yes i
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [ "$name" = "" ]; then
      [ "${{COMP_WORDS[i]}}" = "${{COMP_WORDS[i]#-}}" ] && name="${{COMP_WORDS[i]}}"
    elif [ "$parts" = "" ]; then
      parts="${{COMP_WORDS[i]}}"
    fi
  done
  if [[ "$current" == --*=* ]]; then
    option="${{current%%=*}}" prefix="${{current%%=*}}=" current="${{current#*=}}"
  elif [ "$current" = "=" ]; then
    current=""
  elif [ "$option" = "=" ]; then
    option="${{COMP_WORDS[COMP_CWORD-2]}}"
  fi
  case "$name $parts" in
{parts}
  esac
  case "$name $option" in
{choices}
  esac
  if [ "$words" = "" ]; then
    case "$name" in
      "") if [ "${{current#-}}" = "$current" ]; then words="{commands}"; else words="{first}"; fi ;;
{cases}
    esac
  fi
  COMPREPLY=($(compgen -P "$prefix" -W "$words" -- "$current"))
  if [ "$name" != "" ] && [ "$files" != "" ] && [ "${{current#-}}" = "$current" ]; then
    COMPREPLY+=($(compgen -P "$prefix" -f -- "$current"))
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
    if shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    print(script(), end="")
    return 0


def script() -> str:
    """A function of the shell that completes what the helps of all commands list."""
    known = front.commands()
    texts = {(name,): help_of(name) for name in known}
    for name in known:
        for part in positionals(texts[name,]) if name == "benchmark" else ():
            texts[name, part] = help_of(name, part)
    cases, parts, choices = [], [], []
    for names, text in texts.items():
        name, only = "-".join(names), positionals(text)
        then = f'words="{" ".join(only + options(text))}"' + (" files=" if only else "") + " ;;"
        if len(names) == 1:
            cases.append(f"      {name}) {then}")
        else:
            parts.append(f'    "{" ".join(names)}") name={name} {then}')
        for option, values in values_of(text).items():
            choices.append(f'    "{name} {option}") words="{values}" files= ;;')
        if name in _MODEL_OPTIONS:
            models = " ".join(pretrained.names())
            choices.append(f'    "{name} {_MODEL_OPTIONS[name]}") words="{models}" ;;')
    return _BASH.format(
        commands=" ".join(known),
        first=" ".join(front.OPTIONS),
        cases="\n".join(cases),
        parts="\n".join(parts),
        choices="\n".join(choices),
    )


def help_of(*names: str) -> str:
    """What a command, or a part of one, says of itself."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        front.main([*names, "--help"])
    return text.getvalue()


def options(text: str) -> list[str]:
    """The options that a help lists, and the one that all commands have."""
    lines = re.findall(r"^  (?:-\w, )?(--\S.*?)(?:  |$)", text, re.MULTILINE)
    return sorted({*re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(lines)), front.OPTIONS[0]})


def positionals(text: str) -> list[str]:
    """What may stand in the place of a positional argument, from a help; empty if anything."""
    found = re.search(r"^  \{([\w,-]+)\}", text, re.MULTILINE)
    return found[1].split(",") if found else []


def values_of(text: str) -> dict[str, str]:
    """The values of the options that have only some, from a help."""
    found = re.findall(r"^  (--[a-z-]+) \{([^}\s]+)\}", text, re.MULTILINE)
    return {option: each.replace(",", " ") for option, each in found}
