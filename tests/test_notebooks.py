"""Notebooks run to their end, in a reduced setting, and keep what they printed and drew."""

import json
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
# `quickstart` trains through the shell; its commands have tests of their own.
NAMES = ["splatting_from_scratch"]


def code_cells(name):
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NAMES)
def test_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LGS_JAX_NOTEBOOK_STEPS", "2")
    names = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(name)):
        exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), names)
    assert "PSNR in dB" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"room.ply", "room.spz", "room.html"}


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_kept_and_name_no_machine(name):
    cells = code_cells(name)
    assert all(cell["execution_count"] for cell in cells)
    kinds = [kind for cell in cells for out in cell["outputs"] for kind in out.get("data", ())]
    assert kinds.count("image/png") >= 4
    assert not any(out["output_type"] == "error" for cell in cells for out in cell["outputs"])
