"""The benchmark of check-data: which breaks of a scene are found out, and the table of it."""

import json

import numpy as np
import pytest

from lgs_jax import __main__
from lgs_jax.cli import benchmark_check_data
from lgs_jax.data import pipeline, prepare
from lgs_jax.data.checks import features
from lgs_jax.data.checks.scene import Fault
from lgs_jax.inference import pose_fit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three procedural scenes, of which the last has texture enough, as packed data."""
    root = tmp_path_factory.mktemp("packed")
    settings = pipeline.DataSettings(
        source="procedural",
        num_scenes=3,
        num_frames=10,
        height=128,
        width=160,
        context_views=2,
        target_views=1,
    )
    supplier = prepare.FromSource(pipeline.make_source(settings, "train"), "procedural scenes")
    prepare.prepare(root, supplier, prepare.Options(), num_workers=0, say=lambda _: None)
    return root


def run(folder, *options):
    return __main__.main(["benchmark", "check-data", f"--data-root={folder}", *options])


def test_all_breaks_of_a_good_scene_are_named(folder, capsys):
    key = sorted(benchmark_check_data.check_data.open_scenes("packed", str(folder))[0])[2]
    assert run(folder, f"--scene={key}") == 0
    captured = capsys.readouterr()
    header, _, row, last = captured.out.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    titles = [cell.strip() for cell in header.strip("|").split("|")]
    found = dict(zip(titles, cells, strict=True))
    assert (found["scene"], found["frames"], found["tested with"]) == (key, "10", "points")
    assert found["right"] == "20 of 20", captured.err
    assert found["not right"] == ""
    assert last.startswith("| all 1 | | | | 20 of 20 |")
    assert "20 of 20 cases" in captured.err


def test_what_is_not_found_is_said(folder, capsys, monkeypatch):
    """Without points and without fits hardly anything can be told."""
    monkeypatch.setattr(features, "match", lambda images, pairs: [])
    assert run(folder, "--scenes=2", "--no-fit", "--json") == 0
    captured = capsys.readouterr()
    results = [json.loads(line) for line in captured.out.splitlines()]
    assert [result["tested_with"] for result in results] == ["nothing", "nothing"]
    for result in results:
        assert len(result["mistakes"]) == 20
        right = {title for title, text in result["mistakes"].items() if not text}
        assert right == {
            *("as it is", "millimetres", "one frozen pose"),
            *("one blurred frame", "one repeated frame"),
        }
        assert result["kinds"]["as it is"] == ["few_matches"]
    assert f"{results[0]['key']}, inverse matrices: not found" in captured.err


def test_fits_of_splats_are_tested_alone(folder, capsys, monkeypatch):
    seen = []

    def faults(example, convention):
        seen.append(np.array(example.world_from_cam))
        return [Fault("inverted", "inverse", "invert")] if len(seen) == 2 else []

    monkeypatch.setattr(pose_fit, "faults", faults)
    monkeypatch.setattr(features, "available", lambda: False)
    assert run(folder, "--scenes=1", "--splats") == 0
    table = capsys.readouterr().out
    assert len(seen) == 7
    assert "| splats | 2 of 7 |" in table
    assert "mirrored pictures (not found)" in table
    assert run(folder, "--scenes=1") == 1
    assert "OpenCV, which is not installed" in capsys.readouterr().err


def test_points_are_found_once_for_the_same_pictures(monkeypatch):
    calls = []
    monkeypatch.setattr(features, "match", lambda images, pairs: calls.append(len(images)) or [])
    remember = benchmark_check_data._Remembering()
    images = [np.full((4, 4, 3), i, np.uint8) for i in range(3)]
    for shown in (images, [image.copy() for image in images], images[::-1], images[:2]):
        remember(shown, [])
    assert calls == [3, 3, 2]


def test_what_cannot_be_checked_is_said(folder, tmp_path, capsys):
    assert run(tmp_path / "none") == 1
    assert "there is no" in capsys.readouterr().err
    assert run(folder, "--scenes=9") == 1
    assert "--scenes=9, but there are 3; ask for no more" in capsys.readouterr().err
    assert run(folder, "--scene=vase") == 1
    message = capsys.readouterr().err
    assert "--scene=vase names 0 of the 3 scenes; one is " in message
    key = message.split("'")[1]
    assert run(folder, f"--scene={key}x") == 1
    assert f"did you mean '{key}'?" in capsys.readouterr().err
    for wrong in ("--scenes=0", "--frames=3", "--splats --no-fit", "--scene=a --scenes=2"):
        with pytest.raises(SystemExit, match="2"):
            run(folder, *wrong.split())
