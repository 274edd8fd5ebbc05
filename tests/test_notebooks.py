"""Notebooks run to their end, in a reduced setting, and keep what they printed and drew."""

import glob
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
# What each prints and leaves behind.
NOTEBOOKS = {
    "quickstart": (
        "PSNR at the given view",
        {"snowman.mp4", "cake.mp4", "snowman.ply", "snowman.spz", "snowman.glb", "scenes.html"},
    ),
    "splatting_from_scratch": ("PSNR in dB", {"room.ply", "room.spz", "room.html"}),
    "train_the_autoencoder": (
        "PSNR in dB, a row for each scene",
        {"runs", "walk.mp4", "room.ply", "room.html"},
    ),
    "latent_diffusion": (
        "PSNR in dB, mean of the answers, by view",
        {"runs", "sample.mp4", "sample.ply", "samples.html"},
    ),
    "your_own_photographs": (
        "verdict: good",
        {"stand_in", "check", "samples", "capture.mp4", "scene.ply", "scene.spz", "scene.html"},
    ),
}


def code_cells(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def sources(name):
    return ["".join(cell["source"]) for cell in code_cells(name)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LGS_JAX_NOTEBOOK_STEPS", "2")
    names = {"__name__": "__main__"}
    for number, source in enumerate(sources(name)):
        exec(compile(source, f"{name}, cell {number}", "exec"), names)
    printed, left = NOTEBOOKS[name]
    assert printed in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_kept_and_name_no_machine(name):
    cells = code_cells(name)
    assert all(cell["execution_count"] for cell in cells)
    kinds = [kind for cell in cells for out in cell["outputs"] for kind in out.get("data", ())]
    assert kinds.count("image/png") >= 4
    assert not any(out["output_type"] == "error" for cell in cells for out in cell["outputs"])
    printed = [out["text"] for cell in cells for out in cell["outputs"] if "text" in out]
    assert not any(path in str(printed) for path in ("/home/", "/root", "/tmp/", "/Users/"))
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 1.5e6


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_readme_gives_no_less_time_than_the_kept_outputs(name):
    printed = "".join(
        "".join(out["text"])
        for cell in code_cells(name)
        for out in cell["outputs"]
        if "text" in out
    )
    seconds = sum(float(text) for text in re.findall(r"in ([\d.]+) s\b", printed))
    for hours, minutes, rest in re.findall(r"\| time (\d+):(\d+):(\d+)", printed):
        seconds += 3600 * int(hours) + 60 * int(minutes) + int(rest)
    readme = (FOLDER.parent / "README.md").read_text()
    (stated,) = re.findall(rf"\({FOLDER.name}/{name}\.ipynb\) \|.*\| (\d+) minutes? \|", readme)
    assert seconds <= 60 * int(stated)


def test_notebooks_that_share_a_model_have_the_same_settings():
    """So that one of them takes up what another has trained in the same folder."""

    def stage_1(name):
        (found,) = [source for source in sources(name) if source.startswith("SIZE = 32\n")]
        return found

    assert stage_1("train_the_autoencoder") == stage_1("latent_diffusion")


# What the first cells may differ in: packages beside lgs_jax that a notebook needs.
EXTRAS = {"your_own_photographs": "[check]"}


def first_cell(**values):
    """The first cell of the notebooks, with other values of its switches."""
    source = sources("quickstart")[0]
    for name, value in values.items():
        (line,) = [line for line in source.splitlines() if line.startswith(f"{name} = ")]
        source = source.replace(line, f"{name} = {value!r}")
    return compile(source, "first cell", "exec")


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Packages that the first cell installs on a machine without lgs_jax and accelerators."""
    asked = []
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TPU_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(glob, "glob", lambda pattern: [])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: asked.append(command[5:]))
    return asked


def test_all_share_the_first_cell():
    for name in NOTEBOOKS:
        line = f'EXTRAS = "{EXTRAS.get(name, "")}"'
        assert line in sources(name)[0]
        assert sources(name)[0].replace(line, 'EXTRAS = ""') == sources("quickstart")[0]


def test_the_first_cell_installs_nothing_where_the_package_is(pip, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    exec(first_cell(), {})
    assert pip == []
    assert capsys.readouterr().out == "runs on cpu\n"


def test_the_first_cell_installs_jax_for_the_device_in_the_same_command(pip, monkeypatch):
    address = "https://example.com/lgs_jax"
    package = f"lgs_jax[check] @ git+{address}"
    exec(first_cell(REPOSITORY=address, EXTRAS="[check]"), {})
    assert pip == [[package, "jax"]]
    monkeypatch.setattr(shutil, "which", {"nvidia-smi": "/usr/bin/nvidia-smi"}.get)
    for device, wheel in (("auto", "jax[cuda12]"), ("gpu", "jax[cuda12]"), ("tpu", "jax[tpu]")):
        with pytest.raises(RuntimeError, match=r"was wanted, but JAX runs on cpu"):
            exec(first_cell(REPOSITORY=address, EXTRAS="[check]", DEVICE=device), {})
        assert pip[-1] == [package, wheel]
    exec(first_cell(REPOSITORY=address, DEVICE="cpu"), {})
    assert os.environ["JAX_PLATFORMS"] == "cpu"
    assert pip[-1] == [f"lgs_jax @ git+{address}", "jax"]


@pytest.mark.parametrize("sign", ["environment", "file"])
def test_the_first_cell_finds_a_tpu(pip, monkeypatch, sign):
    if sign == "file":
        monkeypatch.setattr(glob, "glob", {"/dev/accel*": ["/dev/accel0"]}.get)
    else:
        monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5e-1")
    with pytest.raises(RuntimeError, match="tpu was wanted, but JAX runs on cpu"):
        exec(first_cell(REPOSITORY="https://example.com"), {})
    assert pip == [["lgs_jax @ git+https://example.com", "jax[tpu]"]]


def test_the_first_cell_refuses_other_devices(pip):
    with pytest.raises(ValueError, match='DEVICE is "gpus"; expected auto, cpu, gpu or tpu'):
        exec(first_cell(DEVICE="gpus"), {})


def test_without_an_address_the_first_cell_asks_for_a_file(pip, monkeypatch, capsys, tmp_path):
    with pytest.raises(RuntimeError, match="Set REPOSITORY above, or run"):
        exec(first_cell(), {})
    chosen = {"lgs_jax-0.1.0-py3-none-any.whl": b""}
    colab = types.ModuleType("google.colab")
    colab.files = types.SimpleNamespace(upload=lambda: chosen)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    exec(first_cell(), {})
    assert pip == [[f"lgs_jax @ {tmp_path.as_uri()}/lgs_jax-0.1.0-py3-none-any.whl", "jax"]]
    assert "REPOSITORY above is empty" in capsys.readouterr().out
    chosen.clear()
    with pytest.raises(RuntimeError, match="expected one file, not 0"):
        exec(first_cell(), {})
