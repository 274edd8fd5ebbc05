"""Quality of an image against the true one: PSNR, SSIM, and SSIM as some papers computed it.

All look at what a viewer would see: float images are clipped to [0, 1] first. The order of the two
images does not matter.

Letters: H, W image, C channels.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

# A perfect copy has an infinite PSNR, which would spoil any mean and is no valid JSON.
MAX_PSNR = 100.0

# Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.
_SIGMA = 1.5
_RADIUS = 5  # int(3.5 sigma + 0.5), where scikit-image truncates the window
WINDOW = 2 * _RADIUS + 1
_C1 = 0.01**2
_C2 = 0.03**2


def psnr(a: Array, b: Array) -> Array:
    """Peak signal-to-noise ratio in dB of images [..., H, W, C] -> [...].

    -10 log10 of the mean squared error over the pixels and channels of each image, peak 1; at most
    `MAX_PSNR`, the value for identical images.

    Raises:
      TypeError: if an image has integers.
      ValueError: if the shapes differ.
    """
    a, b = _clipped_pair(a, b)
    mse = jnp.mean(jnp.square(a - b), axis=(-3, -2, -1))
    return -10.0 * jnp.log10(jnp.maximum(mse, 10.0 ** (-MAX_PSNR / 10.0)))


def ssim(a: Array, b: Array) -> Array:
    """Structural similarity of images [..., H, W, C] -> [...], averaged over pixels and channels.

    Equals scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1)`: an 11 x 11 Gaussian window, and only the places
    where it lies inside the image.

    With s = a + b and d = a - b the two factors become (mean_s^2 - mean_d^2 + 2 C1) / (mean_s^2 +
    mean_d^2 + 2 C1) and (var_s - var_d + 2 C2) / (var_s + var_d + 2 C2). In float32 this loses
    nothing where it matters: the small var_d is not a difference of large numbers.

    Raises:
      TypeError: if an image has integers.
      ValueError: if the shapes differ or a side is shorter than the window.
    """
    return _ssim(a, b, black=0.0)


def ssim_signed(a: Array, b: Array) -> Array:
    """SSIM of the images [..., H, W, C] in [0, 1] after scaling them to [-1, 1] -> [...].

    Equals scikit-image's function of 2 a - 1 and 2 b - 1 with the options named in `ssim`, but
    data_range=2. The means of windows then count from middle grey, not from black, so a window
    around grey loses far more by a little shift. Not comparable with `ssim`: it is for tables whose
    authors did so, as the paper's probably did; that the range is 2 is our reading.

    Raises:
      TypeError: if an image has integers.
      ValueError: if the shapes differ or a side is shorter than the window.
    """
    return _ssim(a, b, black=0.5)


def _ssim(a: Array, b: Array, *, black: float) -> Array:
    """SSIM of images [..., H, W, C] in [0, 1] whose means count from the value `black`.

    Scaling images and data range by one factor changes nothing, so only the shift of [-1, 1] is
    left, and that only in the means.
    """
    a, b = _clipped_pair(a, b)
    if min(a.shape[-3:-1]) < WINDOW:
        raise ValueError(
            f"SSIM's window is {WINDOW} x {WINDOW} pixels, but the images {a.shape} are "
            f"{a.shape[-3]} x {a.shape[-2]}; measure larger images"
        )
    total = a + b - 1.0  # around 0, where float32 squares are the most exact
    difference = a - b
    mean_total, var_total = _window_moments(total)
    mean_difference, var_difference = _window_moments(difference)
    square_total = jnp.square(mean_total + (1.0 - 2.0 * black))
    square_difference = jnp.square(mean_difference)
    luminance = (square_total - square_difference + 2 * _C1) / (
        square_total + square_difference + 2 * _C1
    )
    structure = (var_total - var_difference + 2 * _C2) / (var_total + var_difference + 2 * _C2)
    return jnp.mean(luminance * structure, axis=(-3, -2, -1))


def _window_moments(x: Array) -> tuple[Array, Array]:
    """Mean and variance [..., H - 10, W - 10, C] of x [..., H, W, C] under the Gaussian window."""
    mean = _blur(x)
    return mean, _blur(jnp.square(x)) - jnp.square(mean)


def _blur(x: Array) -> Array:
    """Applies the window to [..., H, W, C] where it fits; slices are exact on any device."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights = (weights / weights.sum()).tolist()
    height, width = x.shape[-3] - 2 * _RADIUS, x.shape[-2] - 2 * _RADIUS
    x = sum(w * x[..., i : i + height, :, :] for i, w in enumerate(weights))
    return sum(w * x[..., i : i + width, :] for i, w in enumerate(weights))


def _clipped_pair(a: Array, b: Array) -> tuple[Array, Array]:
    """Both images, checked, with their values clipped to [0, 1]."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.shape != b.shape or a.ndim < 3:
        raise ValueError(
            f"expected two images [..., H, W, C] of one shape, got {a.shape}, {b.shape}"
        )
    for image in (a, b):
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise TypeError(
                f"expected float images in [0, 1], got {image.dtype}; divide uint8 images by 255"
            )
    dtype = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    return jnp.clip(a.astype(dtype), 0.0, 1.0), jnp.clip(b.astype(dtype), 0.0, 1.0)
