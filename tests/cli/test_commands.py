"""The front door: what commands there are, how they end, and what the shell completes."""

import importlib
import re
import subprocess
import sys
from unittest import mock

import pytest

import lgs_jax
from lgs_jax import __main__ as front
from lgs_jax.cli import export, flag_parsing, reporting
from lgs_jax.inference import pretrained
from lgs_jax.training import preemption, processes


def test_every_command_is_listed_with_what_it_does(capsys):
    assert front.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in front.commands():
        assert f"  {name} " in text
        assert len(front.summary(name)) > 20
    assert {"train", "sample", "export", "view", "prepare-data"} <= set(front.commands())
    assert "reporting" not in front.commands()
    for name in front.commands():  # and nothing that is only a part of another
        module = importlib.import_module(f"lgs_jax.cli.{name.replace('-', '_')}")
        assert callable(module.main)
        assert name == "benchmark" or not name.startswith("benchmark-")


def test_unknown_commands_are_refused_with_a_guess(capsys):
    assert front.main(["smaple"]) == 2
    assert "no command 'smaple'; did you mean 'sample'?" in capsys.readouterr().err


def test_errors_are_one_line_unless_debugging(capsys, monkeypatch):
    monkeypatch.setenv(reporting.DEBUG, "")
    assert front.main(["export", "a.obj", "b.ply"]) == 1
    assert capsys.readouterr().err.startswith("error: a.obj: '.obj' is no format")
    for place in range(4):
        monkeypatch.setenv(reporting.DEBUG, "")
        arguments = ["export", "a.obj", "b.ply"]
        arguments.insert(place, "--debug")
        with pytest.raises(ValueError, match="is no format"):
            front.main(arguments)


def test_debugging_is_asked_for_before_a_lone_dash_dash(monkeypatch):
    monkeypatch.setenv(reporting.DEBUG, "")
    seen = []
    monkeypatch.setattr(export, "main", seen.append)
    assert front.main(["export", "--", "--debug"]) == 0
    assert seen == [["--", "--debug"]]
    assert not reporting.debugging()


@pytest.mark.parametrize("debugging", ["", "1"])
def test_debugging_shows_where_a_configuration_fails(monkeypatch, debugging):
    def broken(*_):
        raise ValueError("no good")

    def absent():
        raise FileNotFoundError("nowhere.py")

    missing = mock.Mock()
    missing.value.to_dict = absent
    monkeypatch.setenv(reporting.DEBUG, debugging)
    monkeypatch.setattr(flag_parsing.flags, "FLAGS", mock.MagicMock(side_effect=broken))
    monkeypatch.setattr(
        flag_parsing.config_flags, "get_config_filename", lambda _: "nowhere.py:small"
    )
    for ask, message in (
        (lambda: flag_parsing.parse([]), "no good"),
        (lambda: flag_parsing.read(missing), "nowhere.py"),
    ):
        with pytest.raises((ValueError, OSError) if debugging else SystemExit, match=message):
            ask()


def test_help_says_versions_statuses_and_parts(capsys):
    assert front.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lgs_jax {lgs_jax.__version__}\n"
    front.main(["--help"])
    statuses = re.findall(r"^  (\d+) ", capsys.readouterr().out, re.MULTILINE)
    assert statuses == ["0", "1", "2", "75", "76", "130"]
    assert (preemption.EXIT_STATUS, processes.EXIT_STATUS) == (75, 76)
    assert front.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    for part in ("--workdir", "--distributed", "--config.KEY", "same command continues"):
        assert part in text
    with pytest.raises(SystemExit):
        front.main(["benchmark", "--help"])
    assert "scaling     how a training step grows" in capsys.readouterr().out


def test_flags_may_be_spelt_with_underscores(monkeypatch):
    given = ["--max_bytes=a_b", "--no_verify", "x_y", "--config.data.num_scenes=3", "--", "--a_b"]
    seen = []
    for name in ("export", "train"):
        monkeypatch.setattr(importlib.import_module(f"lgs_jax.cli.{name}"), "main", seen.append)
        assert front.main([name, *given]) == 0
    with_hyphens, as_given = seen
    assert with_hyphens[:3] == ["--max-bytes=a_b", "--no-verify", "x_y"]
    assert with_hyphens[3:] == given[3:]
    assert as_given == given  # absl's flags have underscores


def test_stopping_is_no_traceback(capsys, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "main", stop)
    assert front.main(["export", "a", "b"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_training_needs_a_configuration(capsys):
    assert front.main(["train"]) == 2
    assert "--config=configs/vae.py" in capsys.readouterr().out


def test_the_shell_completes_commands_options_and_files(capsys, monkeypatch, tmp_path):
    offered = ["benchmark", "completion", "export", "render", "train", "view"]
    monkeypatch.setattr(front, "commands", lambda: offered)
    assert front.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    (tmp_path / "room.ply").touch()

    def complete(*words):
        ask = f"COMP_WORDS=({' '.join(words)!s}); COMP_CWORD={len(words) - 1}; _lgs_jax"
        ask = ask.replace("EMPTY", "''") + '; printf "%s\\n" "${COMPREPLY[@]}"'
        command = ["bash", "-c", script + ask]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        return set(done.stdout.split())

    assert complete("lgs-jax", "EMPTY") == set(offered)
    assert complete("lgs-jax", "--d") == {"--debug"}
    assert complete("lgs-jax", "--debug", "vi") == {"view"}
    assert complete("lgs-jax", "view", "--ht") == {"--html"}
    assert complete("lgs-jax", "export", "--ver") == {"--verify", "--version"}
    assert complete("lgs-jax", "export", "ro") == {"room.ply"}
    parts = {"check-data", "data", "rasterizer", "sampling", "scaling"}
    assert complete("lgs-jax", "benchmark", "EMPTY") == parts | {"--debug", "--help"}
    assert complete("lgs-jax", "benchmark", "data", "--w") == {"--workers"}
    assert complete("lgs-jax", "benchmark", "scaling", "--axes", "f") == {"fsdp"}
    assert complete("lgs-jax", "completion", "z") == {"zsh"}
    assert complete("lgs-jax", "train", "--") >= {"--config", "--workdir", "--distributed"}
    for words in (("--path", "EMPTY"), ("--path", "="), ("--path", "=", "EMPTY")):  # as Bash cuts
        assert complete("lgs-jax", "render", *words) == {"fly", "turntable", "wobble"}
    assert complete("lgs-jax", "render", "--path=tu") == {"--path=turntable"}  # as zsh does
    assert complete("lgs-jax", "view", "--model", "=", "EMPTY") == {*pretrained.names(), "room.ply"}
    assert front.main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload -U +X bashcompinit")


def test_help_does_not_wait_for_jax():
    """The package imports JAX with the first thing that needs it."""
    program = """
import sys
import lgs_jax.__main__
lgs_jax.__main__.main(["--help"])
assert "jax" not in sys.modules
assert {*lgs_jax.__all__} <= {*dir(lgs_jax)}
assert all(getattr(lgs_jax, name) for name in lgs_jax.__all__)
assert "jax" in sys.modules
assert not hasattr(lgs_jax, "nothing")
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)


def test_ctrl_c_while_a_command_is_imported_ends_the_program():
    """There an extension module would make something else of the exception."""
    program = """
import importlib
import signal
import sys
import lgs_jax.__main__


def import_module(name):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("while initializing the extension")


importlib.import_module = import_module
sys.argv = ["lgs-jax", "sample"]
lgs_jax.__main__.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")
