"""Files that we write as JavaScript programs read them, and files of theirs as we read them.

three.js and PlayCanvas' splat-transform, in the versions of package.json beside this file. They are
looked for in the folder that LGS_JAX_NODE_MODULES names; CONTRIBUTING.md says how to make it.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess

import numpy as np
import plyfile
import pytest
import splat_scenes
from scipy.spatial import KDTree

from lgs_jax.core import gaussians
from lgs_jax.inference.export import formats, ply

HERE = pathlib.Path(__file__).parent
VARIABLE = "LGS_JAX_NODE_MODULES"
COUNT = 300  # more than one chunk of a compressed .ply
# Scene to file; see docs/export.md.
TURNS = {".ply": (1, 1, 1), ".splat": (1, 1, 1), ".spz": (1, -1, -1), ".glb": (-1, -1, 1)}


@pytest.fixture(scope="module")
def modules():
    """The folder of the packages, in the versions that are asked for."""
    if shutil.which("node") is None:
        pytest.skip("no program node")
    if not os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} names no node_modules; CONTRIBUTING.md says how to make one")
    folder = pathlib.Path(os.environ[VARIABLE])
    for name, version in json.loads((HERE / "package.json").read_text())["dependencies"].items():
        found = json.loads((folder / name / "package.json").read_text())["version"]
        assert found == version, f"{folder} holds {name} {found}; `npm ci` in {HERE}"
    return folder


@pytest.fixture(scope="module")
def scene():
    return splat_scenes.make(COUNT)


def node(*arguments):
    """What a program in JavaScript prints."""
    command = ["node", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def three(modules, path):
    """What three.js reads from a file: arrays by name."""
    return json.loads(node(HERE / "three_reader.mjs", modules, path))


@pytest.fixture(scope="module")
def convert(modules):
    """A function (source, target, options) that converts a file with splat-transform."""
    program = modules / "@playcanvas/splat-transform/bin/cli.mjs"

    def run(source, target, *options):
        node(program, "--quiet", *options, source, target)
        return target

    return run


WRITTEN = [(".ply", {}), (".splat", {}), (".spz", {}), (".spz", {"version": 4})]


@pytest.mark.parametrize(("suffix", "options"), [*WRITTEN, (".glb", {})])
def test_three_reads_what_we_write(modules, scene, tmp_path, suffix, options):
    path = formats.save(tmp_path / f"a{suffix}", scene, **options)
    theirs, ours = three(modules, path), formats.load(path)
    turn = np.diag(TURNS[suffix])
    np.testing.assert_array_equal(np.reshape(theirs["position"], (-1, 3)), ours.means @ turn)
    expected = (turn @ np.asarray(gaussians.covariances(ours)) @ turn)[:, *np.triu_indices(3)]
    # Two ways of rounding products in float32, against the largest part of each.
    difference = np.abs(np.reshape(theirs["covariance"], (-1, 6)) - expected)
    assert (difference < 5e-6 * np.abs(expected).max(axis=-1, keepdims=True)).all()
    colors = 255 * np.clip(np.column_stack([ours.colors, ours.opacities]), 0, 1)
    np.testing.assert_allclose(np.reshape(theirs["color"], (-1, 4)), colors, atol=0.501)


def test_three_finds_the_numbers_of_the_extension(modules, scene, tmp_path):
    theirs = three(modules, formats.save(tmp_path / "a.glb", scene))

    def column(name):
        return np.reshape(theirs[f"khr_gaussian_splatting:{name}"], (COUNT, -1)).squeeze()

    np.testing.assert_array_equal(column("scale"), scene.scales)
    np.testing.assert_array_equal(column("opacity"), scene.opacities)
    quats = np.roll(column("rotation"), 1, axis=-1) * [1, *TURNS[".glb"]]
    assert splat_scenes.angles(quats, scene.quats).max() < 1e-6
    colors = 0.5 + ply.SH_DEGREE_0 * column("sh_degree_0_coef_0")
    np.testing.assert_allclose(colors, scene.colors, atol=2e-7)


@pytest.mark.parametrize(("suffix", "options"), WRITTEN)
def test_splat_transform_reads_what_we_write(convert, scene, tmp_path, suffix, options):
    path = formats.save(tmp_path / f"a{suffix}", scene, **options)
    ours = formats.load(path)
    rows = plyfile.PlyData.read(convert(path, tmp_path / "b.ply"))["vertex"]

    def columns(*names):
        return np.stack([rows[name].astype(np.float64) for name in names], axis=-1)

    np.testing.assert_array_equal(columns("x", "y", "z"), ours.means)
    scales = np.exp(columns("scale_0", "scale_1", "scale_2"))
    np.testing.assert_allclose(scales, ours.scales, rtol=2e-6)
    colors = 0.5 + ply.SH_DEGREE_0 * columns("f_dc_0", "f_dc_1", "f_dc_2")
    np.testing.assert_allclose(colors, ours.colors, atol=3e-7)
    opacities = 1 / (1 + np.exp(-columns("opacity")[:, 0]))
    np.testing.assert_allclose(opacities, ours.opacities, atol=3e-7)
    apart = splat_scenes.angles(columns("rot_0", "rot_1", "rot_2", "rot_3"), ours.quats)
    # In the bytes of .splat zero is 128 for three.js and us, 127.5 here: 1/255 in each of four
    # parts is an angle of 0.0157.
    assert apart.max() < (0.016 if suffix == ".splat" else 1e-6)


@pytest.mark.parametrize(
    ("name", "options", "step", "log_step", "color_step"),
    [
        ("b.ply", (), 0, 0, 0),
        ("b.glb", (), 0, 0, 0),
        # Positions of 24 bits, 12 of them behind the point.
        ("b.spz", ("--spz-version=3",), 1 / 4096, 1 / 16, ply.SH_DEGREE_0 / 0.15 / 255),
        ("b.spz", ("--spz-version=4",), 1 / 4096, 1 / 16, ply.SH_DEGREE_0 / 0.15 / 255),
        # Steps between the least and the largest values of 256 splats: here, of all.
        ("b.compressed.ply", (), 65 / 1023, 8 / 1023, 1.5 / 255),
    ],
)
def test_we_read_what_splat_transform_writes(
    convert, scene, tmp_path, name, options, step, log_step, color_step
):
    source = formats.save(tmp_path / "a.ply", scene)
    read = formats.load(convert(source, tmp_path / name, *options))
    _, rows = KDTree(read.means).query(scene.means)  # it puts them into another order
    assert sorted(rows) == list(range(COUNT))
    read = read[rows]
    np.testing.assert_allclose(read.means, scene.means, atol=0.501 * step)
    scales = np.log(read.scales)
    np.testing.assert_allclose(scales, np.log(scene.scales), atol=0.501 * log_step + 1e-6)
    opacity_step = 1 / 255 if step else 0
    np.testing.assert_allclose(read.opacities, scene.opacities, atol=0.501 * opacity_step + 3e-7)
    np.testing.assert_allclose(read.colors, scene.colors, atol=0.501 * color_step + 3e-7)
    # A splat looks the same after half a turn about an axis of its own. Parts of 10 bits leave less
    # than 0.01 radians, of which a covariance changes by twice as much.
    same, other = (np.asarray(gaussians.covariances(s)) for s in (with_scales(read, scene), scene))
    size = np.abs(other).max(axis=(1, 2), keepdims=True)
    assert (np.abs(same - other) < (0.02 if step else 5e-6) * size).all()


def with_scales(scene, other):
    """A scene with the scales of another, to compare rotations alone."""
    return dataclasses.replace(scene, scales=other.scales)
