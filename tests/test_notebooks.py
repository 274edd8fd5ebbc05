"""Notebooks run to their end, in a reduced setting, and keep what they printed and drew."""

import json
import pathlib

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


def test_notebooks_that_share_a_model_have_the_same_settings():
    """So that one of them takes up what another has trained in the same folder."""

    def stage_1(name):
        (found,) = [source for source in sources(name) if source.startswith("SIZE = 32\n")]
        return found

    assert stage_1("train_the_autoencoder") == stage_1("latent_diffusion")
