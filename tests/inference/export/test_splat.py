"""The .splat layout, byte by byte, and what is refused."""

import dataclasses
import struct

import numpy as np
import pytest

from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import splat


def random_scene(count=40) -> Gaussians:
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(count, 4)).astype(np.float32)
    return Gaussians(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        quats=quats / np.linalg.norm(quats, axis=-1, keepdims=True),
        scales=np.exp(rng.normal(-3, 1, size=(count, 3))).astype(np.float32),
        opacities=rng.uniform(size=count).astype(np.float32),
        colors=rng.uniform(size=(count, 3)).astype(np.float32),
    )


def test_one_gaussian_byte_by_byte(tmp_path):
    scene = Gaussians(
        means=np.array([[1.0, -2.0, 3.5]], np.float32),
        quats=np.array([[2.0, 0.0, -2.0, 0.0]], np.float32),
        scales=np.array([[0.1, 0.2, 0.3]], np.float32),
        opacities=np.array([0.5], np.float32),
        colors=np.array([[1.0, 0.0, 1.3]], np.float32),
    )
    data = splat.save_splat(tmp_path / "a.splat", scene).read_bytes()
    half = round(128 * np.sqrt(0.5))
    expected = struct.pack(
        "<6f8B", 1, -2, 3.5, 0.1, 0.2, 0.3, 255, 0, 255, 128, 128 + half, 128, 128 - half, 128
    )
    assert data == expected


def test_the_largest_and_most_opaque_come_first_and_round_trip(tmp_path):
    scene = random_scene()
    read = splat.load_splat(splat.save_splat(tmp_path / "a.splat", scene)).check()
    weight = np.prod(read.scales, axis=-1) * np.asarray(read.opacities)
    assert (np.diff(weight) <= 2e-3 * weight[:-1].max()).all()
    order = np.argsort(-np.prod(scene.scales, axis=-1) * scene.opacities)
    np.testing.assert_array_equal(read.means, scene.means[order])
    np.testing.assert_array_equal(read.scales, scene.scales[order])
    np.testing.assert_allclose(read.opacities, scene.opacities[order], atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(read.colors, scene.colors[order], atol=0.5 / 255 + 1e-6)
    agreement = np.abs(np.sum(read.quats * scene.quats[order], axis=-1))
    assert agreement.min() > 0.9995


@pytest.mark.parametrize("length", [0, 31, 33])
def test_other_lengths_are_refused(tmp_path, length):
    path = tmp_path / "a.splat"
    path.write_bytes(b"x" * length)
    with pytest.raises(ValueError, match=rf"a\.splat has {length} bytes, expected a positive mult"):
        splat.load_splat(path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, struct.pack("<f", float("nan")), "1 of 40 Gaussians have positions or scales"),
        (12, struct.pack("<f", 0.0), "1 of 40 Gaussians have scales that are not positive"),
        (28, bytes([128] * 4), "have quaternions that are zero, the first is number 3"),
    ],
)
def test_damaged_values_are_named(tmp_path, place, value, message):
    path = splat.save_splat(tmp_path / "a.splat", random_scene())
    data = bytearray(path.read_bytes())
    data[3 * 32 + place : 3 * 32 + place + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        splat.load_splat(path)


def test_what_the_format_cannot_hold_is_refused(tmp_path):
    scene = dataclasses.replace(random_scene(), opacities=np.full(40, 1.5, np.float32))
    with pytest.raises(ValueError, match="opacities are outside"):
        splat.save_splat(tmp_path / "a.splat", scene)
    assert not list(tmp_path.iterdir())
