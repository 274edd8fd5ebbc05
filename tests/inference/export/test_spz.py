"""The .spz layouts, byte by byte, against another reader, and what is refused."""

import dataclasses
import gzip
import importlib.util
import math
import struct
import sys

import numpy as np
import pytest
import splat_scenes

from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import ply, spz

HAS_ZSTANDARD = importlib.util.find_spec("zstandard") is not None
needs_zstandard = pytest.mark.skipif(not HAS_ZSTANDARD, reason="zstandard is not installed")
VERSIONS = [3, pytest.param(4, marks=needs_zstandard)]
TURN = np.array([1, -1, -1])  # right-down-front to right-up-back


def header(version=2, count=1, degree=0, bits=12, flags=0, last=0) -> bytes:
    return struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, bits, flags, last)


def body(rotation=b"\x80\x80\x80", harmonics=b"") -> bytes:
    """One Gaussian at the origin, opaque, with scales of exp(-3)."""
    return bytes(9) + b"\xff" + b"\x80" * 3 + b"\x70" * 3 + rotation + harmonics


def write(path, *parts):
    path.write_bytes(gzip.compress(b"".join(parts)))
    return path


def test_one_gaussian_byte_by_byte(tmp_path):
    scene = Gaussians(
        means=np.array([[1.0, -2.0, 0.5]], np.float32),
        quats=np.array([[-2.0, 0.0, 2.0, 1.0]], np.float32),
        scales=np.exp(np.array([[-10.0, -1.0, 0.5]], np.float32)),
        opacities=np.array([0.2], np.float32),
        colors=np.array([[0.5, 0.0, 2.0]], np.float32),
    )
    data = gzip.decompress(spz.save_spz(tmp_path / "a.spz", scene).read_bytes())
    assert data[:16] == header(version=3)
    place = [round(v * 4096) % 2**24 for v in (1.0, 2.0, -0.5)]  # y and z flipped
    assert data[16:25] == b"".join(v.to_bytes(3, "little") for v in place)
    black = round(255 * (0.5 + 0.15 * -0.5 / 0.28209479177387814))
    assert list(data[25:29]) == [51, 128, black, 255]
    assert list(data[29:32]) == [0, 144, 168]
    # xyzw = (0, -2, -1, -2) / 3, turned so that the first of the largest, y, is positive.
    size = round(2 / 3 * math.sqrt(2) * 511), round(1 / 3 * math.sqrt(2) * 511)
    assert int.from_bytes(data[32:], "little") == 1 << 30 | 0 << 20 | size[1] << 10 | size[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_round_trip_is_within_half_a_step(tmp_path, version):
    scene = splat_scenes.make(400)
    read = spz.load_spz(spz.save_spz(tmp_path / "a.spz", scene, version=version)).check()
    np.testing.assert_allclose(read.means, scene.means, atol=0.51 / 4096)
    np.testing.assert_allclose(np.log(read.scales), np.log(scene.scales), atol=0.501 / 16)
    np.testing.assert_allclose(read.opacities, scene.opacities, atol=0.501 / 255)
    step = ply.SH_DEGREE_0 / (0.15 * 255)
    np.testing.assert_allclose(read.colors, scene.colors, atol=0.501 * step)
    # Three parts of half a step, the fourth follows.
    assert splat_scenes.angles(read.quats, scene.quats).max() < 2 * 2 * 0.5 / 511


@pytest.mark.parametrize("version", VERSIONS)
def test_another_reader_agrees(tmp_path, version):
    reader = pytest.importorskip("gsply.spz", reason="pip install gsply")
    path = spz.save_spz(tmp_path / "a.spz", splat_scenes.make(), version=version)
    ours, theirs = spz.load_spz(path), reader.read_spz(path)  # which leaves the file's axes
    np.testing.assert_array_equal(theirs.means * TURN, ours.means)
    np.testing.assert_allclose(np.exp(theirs.scales), ours.scales, rtol=1e-6)
    np.testing.assert_allclose(
        1 / (1 + np.exp(-theirs.opacities.reshape(-1))), ours.opacities, atol=1e-6
    )
    np.testing.assert_allclose(0.5 + ply.SH_DEGREE_0 * theirs.sh0, ours.colors, atol=1e-6)
    assert splat_scenes.angles(theirs.quats * [1, *TURN], ours.quats).max() < 1e-5


@pytest.mark.parametrize("version", VERSIONS)
def test_files_of_another_writer_are_read(tmp_path, version):
    gsply = pytest.importorskip("gsply", reason="pip install gsply")
    scene = splat_scenes.make()
    data = gsply.plyread(str(ply.save_ply(tmp_path / "a.ply", scene)))
    np.testing.assert_array_equal(data.means, scene.means)
    gsply.spz.write_spz(tmp_path / "a.spz", data, version=version)
    theirs, ours = spz.load_spz(tmp_path / "a.spz"), spz.save_spz(tmp_path / "b.spz", scene)
    ours = spz.load_spz(ours)
    np.testing.assert_array_equal(theirs.means, ours.means * TURN)
    np.testing.assert_array_equal(theirs.scales, ours.scales)


def test_version_2_is_read(tmp_path):
    half = round(127.5 + 127.5 * math.sqrt(0.5))
    path = write(tmp_path / "a.spz", header(), body(bytes([128, 128, half])))
    read = spz.load_spz(path)
    expected = [math.sqrt(0.5), 0, 0, -math.sqrt(0.5)]  # z is turned with the axes
    assert splat_scenes.angles(read.quats, [expected]).max() < 0.02
    np.testing.assert_allclose(read.scales, np.full((1, 3), math.exp(-3)), rtol=1e-6)
    assert read.opacities[0] == 1


@pytest.mark.parametrize(("values", "warns"), [(b"\x80" * 9, False), (b"\x80" * 8 + b"\x90", True)])
@pytest.mark.filterwarnings("default")
def test_view_dependent_colours_are_left_out_with_a_warning(tmp_path, recwarn, values, warns):
    path = write(tmp_path / "a.spz", header(degree=1), body(harmonics=values))
    np.testing.assert_allclose(spz.load_spz(path).colors, 0.5, atol=0.005)
    texts = [str(w.message) for w in recwarn if "view-dependent" in str(w.message)]
    assert len(texts) == warns


def test_small_and_large_scenes_get_the_bits_that_they_need(tmp_path):
    scene = splat_scenes.make(200)
    small = dataclasses.replace(scene, means=scene.means * 1e-3, scales=scene.scales * 1e-3)
    read = spz.load_spz(spz.save_spz(tmp_path / "a.spz", small))
    error = np.abs(np.asarray(read.means) - small.means).max()
    assert error < np.quantile(np.median(small.scales, axis=-1), 0.05) / 32
    large = dataclasses.replace(scene, means=scene.means * 1e4)
    read = spz.load_spz(spz.save_spz(tmp_path / "a.spz", large))
    np.testing.assert_allclose(read.means, large.means, atol=2 * np.abs(large.means).max() / 2**23)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"means": 1e6}, r"positions reach .*, but \.spz ends at 4\.19e\+06"),
        ({"scales": 1e3}, "scales are above 379, the largest"),
        ({"scales": 1e-6}, r"most Gaussians are smaller than 4\.5e-05"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, changes, message):
    scene = splat_scenes.make()
    larger = {name: getattr(scene, name) * factor for name, factor in changes.items()}
    with pytest.raises(ValueError, match=message):
        spz.save_spz(tmp_path / "a.spz", dataclasses.replace(scene, **larger))
    with pytest.raises(ValueError, match=r"version=2 of \.spz cannot be written; choose 3 or 4"):
        spz.save_spz(tmp_path / "a.spz", scene, version=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([b"NGSP"], "not an .spz file"),
        ([header(version=1), body()], "version 1 inside gzip, expected 2 or 3"),
        ([header(degree=5), body()], "spherical harmonics of degree 5"),
        ([header(bits=25), body()], "25 fractional bits"),
        ([header(flags=0x80), body()], "a tree of levels of detail"),
        ([header(count=2), body()], "2 Gaussians of version 2 take 38 bytes, but only 19 follow"),
        ([header(), body(), b"x"], "1 bytes follow the 1 Gaussians"),
        ([header(count=0)], "holds no Gaussians"),
        ([header(count=2**32 - 1), body()], "promises 4294967295 Gaussians, far more than"),
        ([header(count=100), bytes(1 << 22)], "goes on behind its Gaussians"),
        ([header(flags=2), body(), b"abc"], "its last extension is cut short"),
        ([header(flags=2), body(), struct.pack("<III", 0xADBE0003, 4, 6)], "not right-up-back"),
    ],
)
def test_broken_files_are_named_with_their_fault(tmp_path, parts, message):
    with pytest.raises(ValueError, match=f"a.spz.* {message}"):
        spz.load_spz(write(tmp_path / "a.spz", *parts))


def test_extensions_that_change_nothing_are_passed_over(tmp_path):
    records = struct.pack("<III", 0xADBE0003, 4, 4) + struct.pack("<II3f", 0xADBE0002, 12, 0, 1, 2)
    path = write(tmp_path / "a.spz", header(flags=2), body(), records)
    assert spz.load_spz(path).num_gaussians == 1


@needs_zstandard
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:30], "ends inside its header"),
        (lambda d: d[:15] + b"\x04" + d[16:], "expected a table of 5 streams"),
        (lambda d: d[:40] + b"\xff" * 8 + d[48:], "stream 0 should hold 450 bytes"),
        (lambda d: d[:-1], "should hold 200 bytes in the"),
        (lambda d: d + b"x", "1 bytes follow its streams"),
        (lambda d: d[:112] + b"\0\0" + d[114:], "its zstd stream 0 is damaged"),
        (lambda d: d[:11] + b"\xff" + d[12:], "far more than"),
    ],
)
def test_broken_files_of_version_4(tmp_path, change, message):
    path = spz.save_spz(tmp_path / "a.spz", splat_scenes.make(), version=4)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=f"a.spz: .*{message}"):
        spz.load_spz(path)


@needs_zstandard
def test_a_stream_that_grows_without_end_is_not_followed(tmp_path):
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    sizes = (9, 1, 3, 3, 4)
    table = b"".join(struct.pack("<QQ", len(bomb), size) for size in sizes)
    start = header(version=4, last=5) + struct.pack("<I12x", 32)
    path = tmp_path / "a.spz"
    path.write_bytes(start + table + bomb * 5)
    with pytest.raises(ValueError, match="stream 0 does not hold 9 bytes"):
        spz.load_spz(path)


def test_version_4_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ValueError, match=r"needs the package zstandard; pip install 'lgs_jax\[spz"):
        spz.save_spz(tmp_path / "a.spz", splat_scenes.make(), version=4)
