"""Tests of feature networks: what they compute, which weights they take, how they are named."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from lgs_jax.vision import array_files, features, inception, inception_weights, lpips, trunks
from lgs_jax.vision.weights import WeightsMissing

IMAGES = np.random.default_rng(0).uniform(0, 1, (2, 1, 40, 44, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def alex_file(tmp_path_factory):
    rng = np.random.default_rng(1)
    arrays = {}
    for name, shape in trunks.weight_shapes("alex").items():
        arrays[name] = (0.05 * rng.normal(size=shape)).astype(np.float32)
    path = tmp_path_factory.mktemp("weights") / "alex.safetensors"
    safetensors.numpy.save_file(arrays, path)
    return path


@pytest.fixture(scope="module")
def alex(alex_file):
    return features.load("alex", alex_file, allow_other_weights=True)


def test_a_trunk_gives_the_average_of_its_last_tap(alex):
    got = alex(IMAGES)
    assert got.shape == (2, 1, 256)
    assert alex.size == 256
    eight_bits = np.round(255 * IMAGES[:, 0]) / 255
    net = lpips.LpipsNet("alex")
    taps = jax.jit(lambda p, x: net.apply({"params": p}, x, method=lpips.LpipsNet.features))(
        alex.params, eight_bits
    )
    np.testing.assert_allclose(got[:, 0], taps[-1].mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_sees_what_a_file_of_the_image_would_hold(alex):
    stored = np.round(255 * IMAGES[:, 0]) / 255
    moved = stored + np.where(stored <= 0, -0.7, np.where(stored >= 1, 5, 0.4 / 255))
    np.testing.assert_array_equal(alex(moved.astype(np.float32)), alex(stored.astype(np.float32)))


def test_other_weights_need_permission_and_show_their_checksum(alex, alex_file):
    checksum = array_files.checksum(alex_file)
    assert alex.checksum == checksum
    assert not alex.published
    with pytest.raises(ValueError, match=rf"{checksum}.*allow other weights"):
        features.load("alex", alex_file)


def test_the_known_file_of_the_trunk_is_published(shared):
    path = shared / "weights" / "lpips_alex.safetensors"
    if not path.is_file():
        pytest.skip(f"no weight file {path}")
    assert features.load("alex", path).published


def test_inception_takes_the_published_file_only_unless_told(tmp_path, monkeypatch):
    small = inception.Inception(divisor=16)
    monkeypatch.setattr(inception, "Inception", lambda: small)
    shapes = inception_weights.file_shapes(small)
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(ValueError, match="no published weight file of 'inception'"):
        features.load("inception", path)
    network = features.load("inception", path, allow_other_weights=True)
    assert (network.name, network.size, network.published) == ("inception", 2048, False)
    monkeypatch.setattr(inception_weights, "PUBLISHED_SHA256", network.checksum)
    assert features.load("inception", path).published


def test_the_published_checksum_is_the_one_in_the_name():
    name, checksum = inception_weights.PUBLISHED_FILE, inception_weights.PUBLISHED_SHA256
    assert name.removesuffix(".pth").split("-")[-1] == checksum[:8]
    assert len(checksum) == 64


def test_bad_input_is_refused(alex, tmp_path):
    with pytest.raises(TypeError, match="uint8; divide"):
        alex((255 * IMAGES).astype(np.uint8))
    with pytest.raises(ValueError, match="at least 31 x 31 pixels, got 40 x 30"):
        alex(IMAGES[..., :30, :])
    with pytest.raises(ValueError, match="RGB"):
        alex(IMAGES[..., :2])
    with pytest.raises(ValueError, match="inception, vgg16, alex"):
        features.load("vgg")
    with pytest.raises(WeightsMissing, match=r"pt_inception.*another network"):
        features.load("inception")
    with pytest.raises(WeightsMissing, match=r"nothing\.npz"):
        features.load("vgg16", tmp_path / "nothing.npz")
