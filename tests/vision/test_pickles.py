"""Tests of the restricted unpickler."""

import collections
import os
import pathlib
import pickle

import numpy as np
import pytest

from lgs_jax.vision import pickles


def write(path: pathlib.Path, value: object, protocol: int = 3) -> pathlib.Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


class RunsOnLoad:
    """Makes a folder when an ordinary unpickler reads it."""

    def __init__(self, target: pathlib.Path):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_reads_nested_dictionaries_of_arrays(tmp_path, dtype):
    rng = np.random.default_rng(0)
    tree = {"a": {"kernel": (9 * rng.normal(size=(2, 3, 4))).astype(dtype)}, "b": [np.ones(3)]}
    tree["transposed"] = tree["a"]["kernel"].T  # stored in Fortran order
    got = pickles.load_arrays(write(tmp_path / "a.pkl", tree))
    np.testing.assert_array_equal(got["a"]["kernel"], tree["a"]["kernel"])
    np.testing.assert_array_equal(got["transposed"], tree["transposed"])
    np.testing.assert_array_equal(got["b"][0], 1.0)
    assert got["a"]["kernel"].dtype == dtype


def test_reads_big_endian_arrays_and_leaves_numpys_types_alone(tmp_path):
    values = np.arange(5, dtype=">f4")
    got = pickles.load_arrays(write(tmp_path / "a.pkl", values))
    np.testing.assert_array_equal(got, values)
    assert np.dtype("f4").isnative


def test_reads_the_module_name_of_numpy_1(tmp_path):
    data = pickle.dumps(np.arange(3.0), protocol=3)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core.multiarray" in old
    path = tmp_path / "old.ckpt"
    path.write_bytes(old)
    np.testing.assert_array_equal(pickles.load_arrays(path), [0.0, 1.0, 2.0])


def test_a_file_cannot_run_anything(tmp_path):
    target = tmp_path / "made"
    path = write(tmp_path / "evil.pkl", {"weights": RunsOnLoad(target)})
    with pytest.raises(pickles.ForbiddenPickle, match=r"evil\.pkl.* global \w+\.mkdir"):
        pickles.load_arrays(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())  # the same file does run under an ordinary unpickler
    assert target.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (collections.OrderedDict(a=1), "collections.OrderedDict"),
        (print, "builtins.print"),
        (np.float32, "numpy.float32"),
        (np.load, "numpy.load"),
        (np.float64(1.0), "scalar"),
    ],
)
def test_other_globals_are_refused_by_name(tmp_path, value, name):
    with pytest.raises(pickles.ForbiddenPickle, match=name):
        pickles.load_arrays(write(tmp_path / "a.pkl", value))


@pytest.mark.parametrize(
    "value", [np.array([{}, None]), np.zeros(2, [("a", "f4"), ("b", "i4")]), np.array(["x"])]
)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, value):
    with pytest.raises(pickles.ForbiddenPickle, match="not a plain number"):
        pickles.load_arrays(write(tmp_path / "a.pkl", value))


def test_the_allowed_names_cannot_be_called_for_something_else(tmp_path):
    # reduce: numpy.ndarray((2,)): the class itself is not handed out
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x03cnumpy\nndarray\nK\x02\x85\x85R.")
    with pytest.raises(ValueError, match="not a readable pickle"):
        pickles.load_arrays(path)
    path.write_bytes(b"\x80\x03cnumpy._core.multiarray\n_reconstruct\nK\x01K\x02K\x03\x87R.")
    with pytest.raises(pickles.ForbiddenPickle, match="only plain NumPy arrays"):
        pickles.load_arrays(path)
    # An array whose memory nothing has set.
    path.write_bytes(
        b"\x80\x03cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x07\x85C\x01b\x87R."
    )
    with pytest.raises(pickles.ForbiddenPickle, match=r"from an empty one, not from shape=\(7,\)"):
        pickles.load_arrays(path)


def test_a_cut_file_is_named(tmp_path):
    path = write(tmp_path / "cut.ckpt", {"a": np.zeros(100)})
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"cut\.ckpt is not a readable pickle"):
        pickles.load_arrays(path)
