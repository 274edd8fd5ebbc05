"""Files of named arrays, plain and compressed."""

import json
import lzma

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from lgs_jax.inference import tensor_file


@pytest.fixture(params=tensor_file.SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"a.b{request.param}"


def arrays_of(dtype):
    numbers = np.random.default_rng(0).normal(size=(64, 65)).astype(dtype)
    return {"a/kernel": numbers, "a/bias": numbers[0], "labels": np.arange(3, dtype=np.int64)}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
def test_what_is_read_is_what_was_written(path, dtype):
    arrays = arrays_of(dtype)
    tensor_file.save(path, arrays, {"steps": [1, 2]}, entry="us")
    found, about = tensor_file.load(path, entry="us")
    assert about == {"steps": [1, 2]}
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_other_programs_can_read_a_compressed_file(tmp_path):
    path = tmp_path / "a.safetensors.xz"
    arrays = arrays_of(np.float16)
    tensor_file.save(path, arrays, {}, entry="us")
    plain = lzma.decompress(path.read_bytes(), format=lzma.FORMAT_XZ)
    np.testing.assert_equal(safetensors.numpy.load(plain), arrays)


def test_bfloat16_shrinks_by_a_quarter_or_more(tmp_path):
    numbers = {"a": np.random.default_rng(0).normal(size=(300, 300)).astype(jnp.bfloat16)}
    for ending in tensor_file.SUFFIXES:
        tensor_file.save(tmp_path / f"a{ending}", numbers, {}, entry="us")
    plain, small = ((tmp_path / f"a{ending}").stat().st_size for ending in tensor_file.SUFFIXES)
    assert small < 0.75 * plain


def test_damage_is_said(path):
    tensor_file.save(path, arrays_of(np.float32), {}, entry="us")
    with pytest.raises(ValueError, match="KeyError: 'them'"):
        tensor_file.load(path, entry="them")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"SafetensorError|EOFError"):
        tensor_file.load(path, entry="us")
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"SafetensorError|LZMAError"):
        tensor_file.load(path, entry="us")


def test_a_small_file_that_grows_beyond_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tensor_file, "MAX_BYTES", 1 << 20)
    path = tmp_path / "bomb.safetensors.xz"
    path.write_bytes(lzma.compress(json.dumps({}).encode() + bytes(2 << 20)))
    with pytest.raises(ValueError, match="which is no model"):
        tensor_file.load(path, entry="us")
