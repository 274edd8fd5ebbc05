"""Tests of PSNR and SSIM against float64 references built on scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from lgs_jax.metrics import image


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth waves and a hard edge, in [0, 1]; a formula, so stored values stay valid."""
    v, u, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    waves = 0.5 + 0.3 * np.sin(0.31 * u + c) * np.cos(0.17 * v - 2 * c) + 0.1 * np.sin(1.7 * u * v)
    return np.clip(np.where(u + 2 * v > width, waves, 0.9 - 0.5 * waves), 0, 1).astype(np.float32)


def distorted(height: int, width: int, strength: float, channels: int = 3) -> np.ndarray:
    v, u, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    noise = np.sin(2.3 * u + 1.1 * v * c) * np.cos(0.7 * v + 0.2 * u * u)
    return np.clip(picture(height, width, channels) + strength * noise, 0, 1).astype(np.float32)


def ssim_by_scipy(a: np.ndarray, b: np.ndarray, data_range: float = 1.0) -> float:
    """SSIM of one image [H, W, C] from the textbook formula, in float64."""
    means = []
    for x, y in zip(np.moveaxis(a.astype(np.float64), -1, 0), np.moveaxis(b.astype(float), -1, 0)):

        def blur(z):
            return ndimage.gaussian_filter(z, sigma=1.5, truncate=3.5)

        ux, uy = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - ux * ux, blur(y * y) - uy * uy, blur(x * y) - ux * uy
        c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
        ratio = (2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))
        means.append(ratio[5:-5, 5:-5].mean())
    return float(np.mean(means))


@pytest.mark.parametrize("size", [(11, 11), (24, 37), (64, 48)])
@pytest.mark.parametrize("strength", [0.003, 0.1, 0.8])
def test_ssim_equals_the_textbook_formula(size, strength):
    a, b = picture(*size), distorted(*size, strength)
    # A dozen roundings of float32 near 1; how many, depends on how the compiler joins operations.
    tolerance = 12 * np.finfo(np.float32).eps
    np.testing.assert_allclose(image.ssim(a, b), ssim_by_scipy(a, b), atol=tolerance, rtol=0)


@pytest.mark.parametrize("strength", [0.003, 0.1, 0.8])
def test_ssim_signed_is_that_of_the_images_scaled_to_minus_one_and_one(strength):
    a, b = picture(24, 37), distorted(24, 37, strength)
    expected = ssim_by_scipy(2 * a.astype(np.float64) - 1, 2 * b.astype(np.float64) - 1, 2.0)
    # windows around middle grey divide by little more than C1, so roundings weigh more
    np.testing.assert_allclose(image.ssim_signed(a, b), expected, atol=2e-6, rtol=0)
    assert abs(float(image.ssim_signed(a, b) - image.ssim(a, b))) > 1e-5 * strength


def test_ssim_signed_has_middle_grey_for_its_black():
    grey, lighter = np.full((16, 16, 3), 0.48, np.float32), np.full((16, 16, 3), 0.52, np.float32)
    signed = jax.jit(image.ssim_signed)
    # means -0.04 and 0.04: (-2 * 0.0016 + C1) / (2 * 0.0016 + C1), C1 = 0.0004
    np.testing.assert_allclose(signed(grey, lighter), -0.0028 / 0.0036, rtol=1e-4)
    assert jax.jit(image.ssim)(grey, lighter) > 0.99
    assert float(signed(grey, grey)) == 1.0
    np.testing.assert_allclose(signed(picture(16, 16), picture(16, 16)), 1.0, rtol=1e-6)


def test_ssim_equals_scikit_image():
    # Made with scikit-image 0.26.0 in float64: structural_similarity(a, b, data_range=1,
    # channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False).
    expected = {0.01: 0.9980545304, 0.1: 0.8466733993, 0.5: 0.2297492371}
    for strength, value in expected.items():
        a, b = picture(40, 56), distorted(40, 56, strength)
        np.testing.assert_allclose(image.ssim(a, b), value, atol=1e-6, rtol=0)


def test_ssim_in_bright_flat_regions_is_not_lost_to_cancellation():
    a = 0.9 + 0.01 * picture(48, 48)
    b = 0.9 + 0.01 * distorted(48, 48, 0.5)
    np.testing.assert_allclose(image.ssim(a, b), ssim_by_scipy(a, b), atol=1e-6, rtol=0)


def test_ssim_of_an_image_with_itself_is_one():
    a = picture(32, 32)
    assert float(image.ssim(a, a)) == 1.0
    assert float(image.ssim(np.zeros_like(a), np.zeros_like(a))) == 1.0


def test_both_are_symmetric_and_keep_leading_dimensions():
    a = np.stack([picture(20, 24)] * 6).reshape(2, 3, 20, 24, 3)
    b = np.stack([distorted(20, 24, s) for s in (0.01, 0.02, 0.1, 0.2, 0.3, 0.9)])
    b = b.reshape(a.shape)
    for metric in (image.psnr, image.ssim, image.ssim_signed):
        values = jax.jit(metric)(a, b)
        assert values.shape == (2, 3)
        np.testing.assert_allclose(values, metric(b, a), rtol=1e-6)
        each = [metric(x, y) for x, y in zip(a.reshape(6, 20, 24, 3), b.reshape(6, 20, 24, 3))]
        np.testing.assert_allclose(values.ravel(), each, rtol=1e-5)
        assert np.all(np.diff(values.ravel()) < 0)  # a stronger distortion scores worse


def test_psnr_is_the_formula_per_image():
    a, b = picture(16, 20), distorted(16, 20, 0.1)
    mse = np.mean((a.astype(np.float64) - b) ** 2)
    np.testing.assert_allclose(image.psnr(a, b), 10 * np.log10(1 / mse), rtol=1e-6)
    # an error of 1/10 everywhere is 20 dB
    half = np.full((4, 5, 3), 0.5, np.float32)
    np.testing.assert_allclose(image.psnr(half, half + 0.1), 20.0, rtol=1e-6)


def test_psnr_of_a_batch_is_not_that_of_the_pooled_error():
    a = np.zeros((2, 4, 4, 3), np.float32)
    b = np.stack([np.full((4, 4, 3), 0.1), np.full((4, 4, 3), 0.01)]).astype(np.float32)
    np.testing.assert_allclose(image.psnr(a, b), [20.0, 40.0], rtol=1e-5)


def test_psnr_of_identical_images_is_the_documented_cap():
    a = picture(12, 12)
    assert float(image.psnr(a, a)) == image.MAX_PSNR


def test_values_outside_the_displayable_range_are_clipped():
    a, b = picture(16, 16), distorted(16, 16, 0.2)
    wild = np.where(b <= 0, -3.0, np.where(b >= 1, 7.0, b)).astype(np.float32)
    wild[0, 0] = 5.0
    b[0, 0] = 1.0
    assert np.abs(wild - b).max() > 1
    for metric in (image.psnr, image.ssim, image.ssim_signed):
        assert float(metric(a, wild)) == float(metric(a, b))


def test_bfloat16_images_are_measured_in_float32():
    a = jnp.asarray(picture(16, 16), jnp.bfloat16)
    b = jnp.asarray(distorted(16, 16, 0.1), jnp.bfloat16)
    wide = np.asarray(a, np.float32), np.asarray(b, np.float32)
    assert image.ssim(a, b).dtype == jnp.float32
    np.testing.assert_allclose(image.ssim(a, b), ssim_by_scipy(*wide), atol=1e-6)


def test_bad_images_are_refused():
    a = picture(16, 16)
    with pytest.raises(TypeError, match="uint8; divide"):
        image.psnr(a, (255 * a).astype(np.uint8))
    with pytest.raises(ValueError, match="one shape"):
        image.psnr(a, a[None])
    with pytest.raises(ValueError, match="window is 11 x 11"):
        image.ssim(a[:10], a[:10])
