"""export from the shell: what it writes, verifies, prints and refuses."""

import numpy as np
import pytest

from lgs_jax import __main__
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import formats, ply, verify


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A ball of 60 soft splats."""
    rng = np.random.default_rng(0)
    scene = Gaussians(
        means=rng.normal(size=(60, 3)).astype(np.float32),
        quats=rng.normal(size=(60, 4)).astype(np.float32),
        scales=rng.uniform(0.1, 0.5, size=(60, 3)).astype(np.float32),
        opacities=rng.uniform(0.1, 0.9, size=60).astype(np.float32),
        colors=rng.uniform(size=(60, 3)).astype(np.float32),
    )
    return ply.save_ply(tmp_path_factory.mktemp("export") / "a.ply", scene)


@pytest.fixture
def small_pictures(monkeypatch):
    monkeypatch.setattr(verify, "_SIZE", 48)


def run(*arguments):
    return __main__.main(["export", *map(str, arguments)])


@pytest.mark.parametrize("name", ["b.ply", "b.spz", "b.glb"])
def test_converts_and_verifies(source, tmp_path, capsys, small_pictures, name):
    target = tmp_path / "new" / name
    assert run(source, target, "--verify") == 0
    printed = capsys.readouterr().out
    assert f"{target}: 60 Gaussians, {target.stat().st_size:,} bytes" in printed
    assert printed.count("dB") == verify.NUM_VIEWS
    assert ("float32 rounding" in printed) == (name != "b.spz")
    assert formats.load(target).num_gaussians == 60


def test_what_differs_does_not_pass(source, tmp_path, capsys, small_pictures, monkeypatch):
    monkeypatch.setattr(verify, "MIN_PSNR_DB", 90.0)
    assert run(source, tmp_path / "b.spz", "--verify") == 1
    assert "dB only, expected 90" in capsys.readouterr().err
    monkeypatch.setattr(verify, "differing_fields", lambda scene, other: ["scales"])
    assert run(source, tmp_path / "b.glb", "--verify") == 1
    assert "does not hold what was written: scales" in capsys.readouterr().err


def test_files_are_not_overwritten_unless_told(source, tmp_path, capsys):
    target = tmp_path / "b.splat"
    target.write_bytes(b"mine")
    assert run(source, target) == 1
    assert f"{target} exists; choose another name, or --overwrite" in capsys.readouterr().err
    assert target.read_bytes() == b"mine"
    assert run(source, target, "--overwrite") == 0
    assert target.stat().st_size == 60 * 32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["b.obj"], "'.obj' is no format of splat files; known: .ply"),
        (["b.glb", "--version=4"], "has no option version"),
        (["b.spz", "--version=2"], "version=2 of .spz cannot be written"),
    ],
)
def test_refusals(source, tmp_path, capsys, arguments, message):
    name, *rest = arguments
    assert run(source, tmp_path / name, *rest) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert run(tmp_path / "nothing.ply", tmp_path / "b.ply") == 1
    assert capsys.readouterr().err == f"error: there is no file {tmp_path / 'nothing.ply'}\n"
    assert run(tmp_path, tmp_path / "b.ply") == 1
    assert f"{tmp_path} is a folder; give one of the splat files" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert run(source, "/proc/b.ply") == 1
    assert "error: /proc/b.ply cannot be written (" in capsys.readouterr().err


def test_it_is_said_where_the_cameras_stay(source, tmp_path, capsys):
    cameras, (there, away) = (
        tmp_path / "transforms.json",
        (tmp_path / "b.ply", tmp_path / "c/b.ply"),
    )
    there.write_bytes(source.read_bytes())
    cameras.write_text("{}")
    assert run(there, away) == 0
    assert (
        f"its cameras stay behind; view or render it with --transforms={cameras}"
        in capsys.readouterr().out
    )
    assert run(there, tmp_path / "b.splat") == 0
    assert "cameras" not in capsys.readouterr().out
    assert cameras.read_text() == "{}"
    assert not away.with_name("transforms.json").exists()
