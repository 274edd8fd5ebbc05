"""USD layers and packages: the schema's own attributes, placements, and what is refused."""

import pathlib
import sys

import numpy as np
import pytest
import splat_scenes

from lgs_jax.core import gaussians
from lgs_jax.inference.export import ply, usd, verify


@pytest.fixture
def pxr():
    package = pytest.importorskip("pxr", reason="usd-core is not installed")
    usd._pxr("test")
    return package


@pytest.mark.parametrize("suffix", usd.SUFFIXES)
def test_round_trip_is_exact_to_float_rounding(pxr, tmp_path, suffix):
    scene = splat_scenes.make(20)
    path = usd.save_usd(tmp_path / f"a{suffix}", scene)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    read = usd.load_usd(path).check()
    for name in ("means", "scales", "opacities"):
        np.testing.assert_array_equal(getattr(read, name), getattr(scene, name))
    assert verify.differing_fields(scene, read) == []


@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize("suffix", usd.SUFFIXES)
def test_a_folder_that_cannot_be_written(pxr, suffix):
    with pytest.raises(OSError, match="OpenUSD could not write it; choose a folder that can be"):
        usd.save_usd(f"/proc/a{suffix}", splat_scenes.make(3))


def test_the_schema_finds_what_it_asks_for(pxr, tmp_path):
    scene = splat_scenes.make(20)
    stage = pxr.Usd.Stage.Open(str(usd.save_usd(tmp_path / "a.usda", scene)))
    assert pxr.UsdGeom.GetStageUpAxis(stage) == "Y"
    prim = stage.GetDefaultPrim()
    assert prim.IsA(pxr.UsdVol.ParticleField3DGaussianSplat)
    splats = pxr.UsdVol.ParticleField3DGaussianSplat(prim)
    position = np.array(splats.GetPositionsAttr().Get())
    np.testing.assert_array_equal(position, scene.means * [1, -1, -1])
    quats = [[q.GetReal(), *q.GetImaginary()] for q in splats.GetOrientationsAttr().Get()]
    theirs = gaussians.Gaussians(
        position, np.float32(quats), np.array(splats.GetScalesAttr().Get()), scene.opacities,
        scene.colors,
    )  # fmt: skip
    turn = np.diag([1.0, -1.0, -1.0])
    expected = turn @ np.asarray(gaussians.covariances(scene)) @ turn
    np.testing.assert_allclose(gaussians.covariances(theirs), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(splats.GetOpacitiesAttr().Get(), scene.opacities)
    assert splats.GetRadianceSphericalHarmonicsDegreeAttr().Get() == 0
    f_dc = np.array(splats.GetRadianceSphericalHarmonicsCoefficientsAttr().Get())
    np.testing.assert_allclose(0.5 + ply.SH_DEGREE_0 * f_dc, scene.colors, atol=2e-7)
    low, high = np.array(splats.GetExtentAttr().Get())
    assert (low < position.min(axis=0)).all()
    assert (high > position.max(axis=0)).all()


STAGE = """#usda 1.0
( upAxis = "{up}" )
def Xform "World"
{{
    double3 xformOp:translate = (1, 2, 3)
    uniform token[] xformOpOrder = ["xformOp:translate"]
    def ParticleField3DGaussianSplat "A"
    {{
        point3h[] positionsh = [(1, 0, 0), (0, 1, 0)]
        quath[] orientationsh = [(1, 0, 0, 0), (1, 0, 0, 0)]
        float3[] scales = [(1, 2, 0), (1, 2, 3)]
        float[] opacities = [0.25, 1]
        uniform int radiance:sphericalHarmonicsDegree = 1
        float3[] radiance:sphericalHarmonicsCoefficients = [
            (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (1, 0, -1), {harmonic}, (0, 0, 0), (0, 0, 0)
        ]
    }}
}}
"""


@pytest.mark.parametrize(
    ("up", "expected"),
    [("Y", [[2, -2, -3], [1, -3, -3]]), ("Z", [[2, -3, 2], [1, -3, 3]])],
)
def test_stages_of_another_writer_are_read(pxr, tmp_path, up, expected):
    path = tmp_path / "a.usda"
    path.write_text(STAGE.format(up=up, harmonic=(0, 0, 0)))
    read = usd.load_usd(path)
    np.testing.assert_allclose(read.means, expected, atol=1e-6)
    np.testing.assert_allclose(read.colors[1], 0.5 + ply.SH_DEGREE_0 * np.array([1, 0, -1]))
    covariances = np.asarray(gaussians.covariances(read))
    upwards = covariances[1, 1, 1]
    assert upwards == pytest.approx(4 if up == "Y" else 9, rel=1e-5)


def test_view_dependent_colours_are_left_out_with_a_warning(pxr, tmp_path):
    path = tmp_path / "a.usda"
    path.write_text(STAGE.format(up="Y", harmonic=(0, 0.5, 0)))
    with pytest.warns(UserWarning, match="9 view-dependent colour coefficients"):
        usd.load_usd(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "OpenUSD cannot read it"),
        ("#usda 1.0\n", "the stage has no ParticleField3DGaussianSplat"),
        (STAGE.format(up="Y", harmonic="(0, 0, 0), (0, 0, 0)"), "does not hold 2 x 4 x 3 numbers"),
        (STAGE.format(up="Y", harmonic="(0, 0, 0)").replace("0.25", "25"), r"not in \[0, 1\]"),
    ],
)
def test_broken_files_are_named_with_their_fault(pxr, tmp_path, text, message):
    path = tmp_path / "a.usda"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)a.usda.*{message}"):
        usd.load_usd(path)
    (tmp_path / "a.usdz").write_text(text)
    with pytest.raises(ValueError, match=r"a\.usdz: OpenUSD cannot read it"):
        usd.load_usd(tmp_path / "a.usdz")
    with pytest.raises(FileNotFoundError):
        usd.load_usd(tmp_path / "nothing.usdc")


def test_damaged_packages_are_found_by_their_checksums(pxr, tmp_path):
    path = usd.save_usd(tmp_path / "a.usdz", splat_scenes.make(20))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"splats\.usdc in it does not fit its checksum"):
        usd.load_usd(path)


def test_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(ValueError, match=r"needs the package usd-core; pip install 'lgs_jax\[usd"):
        usd.save_usd(tmp_path / "a.usda", splat_scenes.make())
