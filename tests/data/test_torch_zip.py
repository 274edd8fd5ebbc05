"""Files of torch.save without torch: tensors, refusals, broken files."""

import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch_files

from lgs_jax.data import torch_zip
from lgs_jax.data.report import DataError

CONTENT = [
    {
        "key": "a",
        "cameras": np.arange(6, dtype=np.float32).reshape(2, 3),
        "times": np.array([3, 1]),
        "images": [np.arange(5, dtype=np.uint8), np.zeros(0, np.uint8)],
    }
]


@pytest.fixture
def path(tmp_path):
    return torch_files.save(tmp_path / "a.torch", CONTENT)


def test_tensors_are_what_was_saved(path):
    (scene,) = torch_zip.load(path)
    assert scene["key"] == "a"
    for name in ("cameras", "times"):
        np.testing.assert_array_equal(scene[name].read(), CONTENT[0][name])
        assert scene[name].read().dtype == CONTENT[0][name].dtype
    for got, wanted in zip(scene["images"], CONTENT[0]["images"], strict=True):
        np.testing.assert_array_equal(got.read(), wanted)
        assert got.span.read() == wanted.tobytes()


class Evil:
    def __reduce__(self):
        return os.system, ("exit 1",)


def archive_of(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/data.pkl": pickle.dumps(Evil())}, "names the global (posix|nt).system"),
        ({"a/data.pkl": pickle.dumps(np.float32)}, "names the global numpy"),
        ({"a/data.pkl": b"\x80\x02X\xff\xff\xff\x7f"}, "cannot be read"),
        ({"a/data.pkl": b""}, "cannot be read"),
        ({}, "holds 0 files <name>/data.pkl"),
        ({"a/data.pkl": b"", "b/data.pkl": b""}, "holds 2 files"),
        ({"a/data.pkl": b"N.", "a/byteorder": b"big"}, "byte order is b'big'"),
    ],
)
def test_other_content_is_refused(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        torch_zip.load(archive_of(tmp_path / "a.torch", files))


def test_views_of_storages_are_checked(tmp_path):
    with pytest.raises(DataError, match="has strides"):
        torch_zip.load(torch_files.save(tmp_path / "a", [np.arange(6).reshape(2, 3).T]))
    with pytest.raises(DataError, match="is compressed"):
        torch_zip.load(torch_files.save(tmp_path / "b", CONTENT, compression=zipfile.ZIP_DEFLATED))


def test_pickles_that_would_fill_the_memory_are_refused(path, monkeypatch):
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("archive/data.pkl").file_size
    monkeypatch.setattr(torch_zip, "_MAX_PICKLE_BYTES", size)
    torch_zip.load(path)
    monkeypatch.setattr(torch_zip, "_MAX_PICKLE_BYTES", size - 1)
    with pytest.raises(DataError, match=rf"its archive/data\.pkl is larger than {size - 1} bytes"):
        torch_zip.load(path)


def test_storages_end_before_the_file_does(path):
    """The directory at the end of the archive tells a size that the file does not have."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"archive/data/0") - 46  # bytes of an entry before its name
    assert data[entry : entry + 4] == b"PK\x01\x02"
    struct.pack_into("<2I", data, entry + 20, 2**20, 2**20)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"its archive/data/0 reaches beyond the end of the file"):
        torch_zip.load(path)


def test_files_that_are_no_archives(tmp_path):
    (tmp_path / "old.torch").write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match=r"is no file of torch\.save from version 1\.6 on"):
        torch_zip.load(tmp_path / "old.torch")
    with pytest.raises(DataError, match="there is no file"):
        torch_zip.load(tmp_path / "none.torch")


def test_damaged_files_are_refused_or_read(path, tmp_path):
    """500 files with some bytes changed, or cut: an error that names the file, or an answer."""
    rng = np.random.default_rng(0)
    whole = path.read_bytes()
    broken = tmp_path / "broken.torch"
    for _ in range(500):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), rng.integers(1, 6)):
            data[position] = rng.integers(256)
        broken.write_bytes(data[: len(data) if rng.random() < 0.7 else rng.integers(len(data))])
        try:
            content = torch_zip.load(broken)
        except DataError as error:
            message = str(error)
            assert str(broken) in message
            continue
        for tensor in filter(lambda x: isinstance(x, torch_zip.Tensor), leaves(content)):
            assert len(tensor.span.read()) <= len(whole)


def leaves(tree):
    if isinstance(tree, list | tuple | dict):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(item)
    else:
        yield tree
