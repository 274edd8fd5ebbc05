"""Stand-ins for the programs that a launcher calls: they record their arguments."""

import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# Appends its name and arguments, in one line, to `calls`. Then it looks for the first rule
# `PATTERN<tab>COMMAND` that fits the line, executes the command and uses the rule up.
STAND_IN = r"""#!/usr/bin/env bash
exec 3<&0
cd "$(dirname "$0")"
line="$(basename "$0") ${*//$'\n'/; }"
printf '%s\n' "$line" >>calls
number=0
while IFS=$'\t' read -r pattern command; do
  number=$((number + 1))
  if [[ "$line" == $pattern ]]; then
    sed -i "${number}d" rules
    eval "$command" <&3
    exit
  fi
done <rules
"""

# Ctrl-C must reach the script even where pytest itself was started in the background.
LISTENING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Programs:
    """A folder of stand-ins that comes first on PATH."""

    def __init__(self, folder: pathlib.Path, names: tuple[str, ...]):
        self.folder = folder
        for name in names:
            (folder / name).write_text(STAND_IN)
            (folder / name).chmod(0o755)
        self.rules()

    def rules(self, *rules: tuple[str, str]) -> None:
        """What the next calls that fit a glob pattern do; a call without a rule does nothing."""
        (self.folder / "rules").write_text("".join(f"{a}\t{b}\n" for a, b in rules))

    @property
    def calls(self) -> list[str]:
        """What was called up to now."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        """Starts a script of launch/ in a group of its own, as a terminal does."""
        paths = {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                LISTENING,
                "bash",
                str(REPOSITORY / "launch" / script),
                *arguments,
            ],
            env=os.environ | paths | environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> tuple[int, str]:
        """The status of a script and what it printed."""
        process = self.start(script, *arguments, **environment)
        output = process.communicate(timeout=120)[0]
        return process.returncode, output


@pytest.fixture
def programs(tmp_path):
    """Stand-ins for everything that could reach another machine."""
    return Programs(tmp_path, ("gcloud", "kubectl", "xpk", "srun", "sbatch", "scontrol"))
