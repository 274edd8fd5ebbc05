"""Tests of the Inception network against a plain NumPy version of its graph."""

import jax
import numpy as np
import pytest
import safetensors.numpy
from scipy import interpolate

from lgs_jax.vision import inception, inception_weights

SMALL = inception.Inception(divisor=16)

# Each block: its branches, one a line; `*` marks stride 2 without padding, `mean` and `max` pool
# 3 x 3 with stride 1, `max*` with stride 2, `a|b` are two layers on the same map.
KIND_A = """branch1x1
branch5x5_1 branch5x5_2
branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3
mean branch_pool"""
KIND_C = """branch1x1
branch7x7_1 branch7x7_2 branch7x7_3
branch7x7dbl_1 branch7x7dbl_2 branch7x7dbl_3 branch7x7dbl_4 branch7x7dbl_5
mean branch_pool"""
KIND_E = """branch1x1
branch3x3_1 branch3x3_2a|branch3x3_2b
branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3a|branch3x3dbl_3b
mean branch_pool"""
BLOCKS = {
    **dict.fromkeys(("Mixed_5b", "Mixed_5c", "Mixed_5d"), KIND_A),
    "Mixed_6a": "branch3x3*\nbranch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3*\nmax*",
    **dict.fromkeys(("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"), KIND_C),
    "Mixed_7a": (
        "branch3x3_1 branch3x3_2*\nbranch7x7x3_1 branch7x7x3_2 branch7x7x3_3 branch7x7x3_4*\nmax*"
    ),
    "Mixed_7b": KIND_E,
    "Mixed_7c": KIND_E.replace("mean", "max"),
}


def random_file(net: inception.Inception) -> dict[str, np.ndarray]:
    """A state dictionary whose activations keep their size."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in inception_weights.file_shapes(net).items():
        values = rng.normal(size=shape)
        if name.endswith("conv.weight"):
            values *= np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif name.endswith("bn.weight"):
            values = 1 + 0.2 * values
        else:
            values *= 0.2
        arrays[name] = values.astype(np.float32)
    return arrays


def windows(x, height, width, padding, fill, stride):
    """All windows [h, w, C, height, width] of a map [H, W, C] with a border."""
    x = np.pad(x, ((padding[0],) * 2, (padding[1],) * 2, (0, 0)), constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(0, 1))
    return found[::stride, ::stride]


def plain_layer(arrays, name, x, *, stride=1, same=True):
    """Convolution, batch normalisation and ReLU, one after the other, in float64."""
    weight = arrays[f"{name}.conv.weight"].astype(np.float64)
    height, width = weight.shape[2:]
    padding = (height // 2, width // 2) if same else (0, 0)
    views = windows(x, height, width, padding, 0.0, stride)
    x = np.tensordot(views, weight, axes=([2, 3, 4], [1, 2, 3]))
    gain, shift, mean, variance = (
        arrays[f"{name}.bn.{key}"].astype(np.float64)
        for key in ("weight", "bias", "running_mean", "running_var")
    )
    return np.maximum((x - mean) / np.sqrt(variance + 0.001) * gain + shift, 0)


def plain_pool(x, kind):
    if kind == "max*":
        return windows(x, 3, 3, (0, 0), 0.0, 2).max(axis=(-2, -1))
    if kind == "max":
        return windows(x, 3, 3, (1, 1), -np.inf, 1).max(axis=(-2, -1))
    return np.nanmean(windows(x, 3, 3, (1, 1), np.nan, 1), axis=(-2, -1))


def plain_block(arrays, block, x):
    outputs = []
    for branch in BLOCKS[block].split("\n"):
        maps = [x]
        for step in branch.split():
            if step in ("mean", "max", "max*"):
                maps = [plain_pool(maps[0], step)]
                continue
            names, options = step.split("|"), {}
            if step.endswith("*"):
                names, options = [step[:-1]], {"stride": 2, "same": False}
            maps = [plain_layer(arrays, f"{block}.{n}", maps[0], **options) for n in names]
        outputs += maps
    return np.concatenate(outputs, axis=-1)


def plain_network(arrays, x):
    """The outputs of all parts of the network for an image [H, W, 3], in order."""
    found = {}
    for name, options in {
        "Conv2d_1a_3x3": {"stride": 2, "same": False},
        "Conv2d_2a_3x3": {"same": False},
        "Conv2d_2b_3x3": {},
        "Conv2d_3b_1x1": {},
        "Conv2d_4a_3x3": {"same": False},
    }.items():
        x = found[name] = plain_layer(arrays, name, x, **options)
        if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
            x = plain_pool(x, "max*")
    for name in BLOCKS:
        x = found[name] = plain_block(arrays, name, x)
    return found | {"": x.mean(axis=(0, 1))}


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    arrays = random_file(SMALL)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    unread = {"fc.weight": np.ones((3, 2), np.float32), "fc.bias": np.ones(3, np.float32)}
    unread["Conv2d_1a_3x3.bn.num_batches_tracked"] = np.array(7)
    safetensors.numpy.save_file(arrays | unread, path)
    return path, arrays


def test_every_part_equals_the_plain_graph(small_file):
    path, arrays = small_file
    params = inception_weights.load(path, SMALL)
    # the smallest side after which the last map still has several places
    image = np.random.default_rng(1).uniform(-1, 1, (107, 139, 3)).astype(np.float32)
    features, state = jax.jit(
        lambda params, x: SMALL.apply(
            {"params": params}, x, capture_intermediates=True, mutable=["intermediates"]
        )
    )(params, image[None])
    expected = plain_network(arrays, image.astype(np.float64))
    assert expected["Mixed_7c"].shape == (2, 3, 128)
    np.testing.assert_allclose(features[0], expected.pop(""), rtol=1e-4, atol=1e-5)
    for name, value in expected.items():
        (got,) = state["intermediates"][name]["__call__"]
        np.testing.assert_allclose(got[0], value, rtol=1e-4, atol=1e-4 * value.max(), err_msg=name)


def test_the_real_network_has_the_published_size():
    shapes = inception_weights.file_shapes(inception.Inception())
    kept = {n: s for n, s in shapes.items() if "running" not in n}
    # torchvision's Inception v3 (27,161,264) without its two classifiers
    assert sum(np.prod(s) for s in kept.values()) == 27_161_264 - 2_049_000 - 3_326_696
    assert sum(name.endswith("conv.weight") for name in shapes) == 94
    assert shapes["Conv2d_4a_3x3.conv.weight"] == (192, 80, 3, 3)
    assert shapes["Mixed_5b.branch_pool.conv.weight"] == (32, 192, 1, 1)
    assert shapes["Mixed_6b.branch7x7_2.conv.weight"] == (128, 128, 1, 7)
    assert shapes["Mixed_6e.branch7x7dbl_2.conv.weight"] == (192, 192, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_1.conv.weight"] == (448, 2048, 1, 1)


@pytest.mark.parametrize("size", [(2, 3), (26, 40), (96, 96), (299, 310), (400, 299)])
def test_resizes_from_the_corner_without_centres(size):
    image = np.random.default_rng(2).uniform(0, 255, (*size, 2)).astype(np.float32)
    got = inception.resize_as_tensorflow_1(image[None], 299, 299)[0]
    grid = [np.arange(n) for n in size]
    places = [np.minimum(np.arange(299) * n / 299, n - 1) for n in size]
    points = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1)
    expected = interpolate.RegularGridInterpolator(grid, image.astype(np.float64))(points)
    # float32 rounds a place to 2^-24 of it, and colours change by up to 255 from pixel to pixel
    np.testing.assert_allclose(got, expected, atol=255 * 2**-22 * max(size), rtol=1e-5)


def test_scales_the_input_as_the_graph_does(monkeypatch):
    seen = {}

    class Spy:
        def apply(self, variables, x):
            seen["x"] = x

    inception.features(Spy(), {}, np.array([0.0, 128 / 255, 1.0], np.float32).reshape(1, 1, 1, 3))
    assert seen["x"].shape == (1, 299, 299, 3)
    np.testing.assert_allclose(seen["x"][0, 5, 7], [-1.0, 0.0, 127 / 128], atol=1e-6)


def test_folding_keeps_the_shape_of_kernels(small_file):
    path, arrays = small_file
    params = inception_weights.load(path, SMALL)
    layer = params["Mixed_6c"]["branch7x7_2"]
    assert layer["kernel"].shape == (1, 7, 10, 10)
    variance = arrays["Mixed_6c.branch7x7_2.bn.running_var"]
    gain = arrays["Mixed_6c.branch7x7_2.bn.weight"] / np.sqrt(variance + 1e-3)
    raw = arrays["Mixed_6c.branch7x7_2.conv.weight"]
    np.testing.assert_allclose(layer["kernel"][0, 3, 2, 5], raw[5, 2, 0, 3] * gain[5], rtol=1e-5)


def test_missing_weights_name_the_published_file(tmp_path):
    for path in (None, tmp_path / "nothing.pth"):
        with pytest.raises(inception_weights.WeightsMissing, match="pt_inception-2015-12-05"):
            inception_weights.load(path, SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Mixed_9x.conv.weight": np.zeros(1, np.float32)}, r"unknown \['Mixed_9x.conv.weight'\]"),
        ({"Conv2d_1a_3x3.bn.bias": np.zeros(3, np.float32)}, r"bn.bias in .* has shape \(3,\)"),
        ({"Conv2d_1a_3x3.bn.running_var": -np.ones(2, np.float32)}, "negative variances"),
    ],
)
def test_files_that_do_not_fit_are_refused(small_file, tmp_path, change, message):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(small_file[1] | change, path)
    with pytest.raises(ValueError, match=message):
        inception_weights.load(path, SMALL)
