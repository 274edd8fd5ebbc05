"""Tests of the perceptual losses by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from scipy import ndimage

from lgs_jax.losses import perceptual
from lgs_jax.vision import lpips, trunks, weights

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(2, 20, 27, 3)).astype(np.float32)
TRUTH = RNG.uniform(size=(2, 20, 27, 3)).astype(np.float32)


def multiscale_by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """Both pyramids of one image pair in float64, level by level."""
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    a, b, total = a.astype(np.float64), b.astype(np.float64), 0.0
    for _ in range(5):
        if min(a.shape[:2]) < 4:
            break
        low_a, low_b = (
            ndimage.convolve1d(
                ndimage.convolve1d(x, kernel, 0, mode="nearest"), kernel, 1, mode="nearest"
            )
            for x in (a, b)
        )
        total += np.abs((a - low_a) - (b - low_b)).mean()
        a, b = low_a[::2, ::2], low_b[::2, ::2]
    return total + np.abs(a - b).mean()


def test_multiscale_equals_the_pyramids_of_both_images():
    got = jax.jit(perceptual.make("multiscale"))(IMAGES, TRUTH)
    expected = [multiscale_by_scipy(a, b) for a, b in zip(IMAGES, TRUTH)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_multiscale_is_zero_only_for_identical_images_and_differentiable():
    loss = jax.jit(perceptual.make("multiscale"))
    np.testing.assert_array_equal(loss(IMAGES, IMAGES), 0.0)
    assert np.all(loss(IMAGES, IMAGES + 0.01) > 0.009)  # a change of colour is seen
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(loss(x, TRUTH))))(IMAGES)
    assert np.all(np.isfinite(gradient))
    assert np.all(loss(IMAGES - 0.1 * gradient, TRUTH) < loss(IMAGES, TRUTH))


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 50, 3), (5, 7, 1), (2, 3, 33, 18, 3)])
def test_multiscale_takes_any_size(shape):
    a = RNG.uniform(size=shape).astype(np.float32)
    assert jax.jit(perceptual.multiscale)(a, a[..., ::-1, :, :]).shape == shape[:-3]


def test_none_is_zero():
    loss = perceptual.make("none")
    np.testing.assert_array_equal(loss(IMAGES, TRUTH), [0.0, 0.0])


def test_lpips_is_that_of_vision(tmp_path):
    path = tmp_path / "w.safetensors"
    flat = {
        name: np.abs(RNG.normal(size=shape)).astype(np.float32) * np.prod(shape[:-1]) ** -0.5
        for name, shape in trunks.weight_shapes("alex").items()
    }
    safetensors.numpy.save_file(flat, path)
    loss = perceptual.make("lpips_alex", path, resize_to=40)
    expected = jax.jit(lpips.load("alex", path, resize_to=40))(IMAGES, TRUTH)
    np.testing.assert_allclose(jax.jit(loss)(IMAGES, TRUTH), expected, rtol=1e-5)
    assert np.all(expected > 0)
    with pytest.raises(ValueError, match="resize_to"):
        perceptual.make("lpips_alex", path)(IMAGES, TRUTH)


def test_lpips_without_weights_names_the_fallback_and_does_not_take_it(monkeypatch):
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(weights.WeightsMissing, match=r"lgs_jax\[lpips\].*'multiscale'"):
        perceptual.make("lpips_vgg")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="lpips_vgg, lpips_alex, multiscale, none"):
        perceptual.make("vgg")


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="must have one shape"):
        perceptual.multiscale(IMAGES, TRUTH[:1])
