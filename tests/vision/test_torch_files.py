"""Tests of reading what torch.save wrote, in both formats, without torch."""

import collections
import os
import pickle
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from lgs_jax.vision import torch_files

STATE = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "bn.running_var": np.array([0.5, 2.0], np.float32),
    "bn.num_batches_tracked": np.array(3),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}
KINDS = {"float32": "FloatStorage", "int64": "LongStorage"}


class Rebuilt:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Storage:
    def __init__(self, *pid):
        self.pid = ("storage", *pid)


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.pid if isinstance(value, Storage) else None


def module_of(module, *names):
    """A stand-in module whose members pickle by their names."""
    made = types.ModuleType(module)
    for name in names:
        setattr(made, name, type(name, (), {"__module__": module}))
    return made


@pytest.fixture
def save(monkeypatch, tmp_path):
    """Writes a state dictionary as torch does; returns its path."""
    torch = module_of("torch", *KINDS.values())
    utils = module_of("torch._utils", "_rebuild_tensor_v2")

    def tensor(key, array, view):
        pid = (getattr(torch, KINDS[array.dtype.name]), key, "cpu", array.size, *view)
        strides = tuple(stride // array.itemsize for stride in array.strides)
        hooks = collections.OrderedDict()
        arguments = (Storage(*pid), 0, array.shape, strides, False, hooks)
        return Rebuilt(utils._rebuild_tensor_v2, *arguments)

    def write(state, *, legacy, name="w.pth"):
        path, view = tmp_path / name, (None,) if legacy else ()
        keys = {key: str(94000 + i) for i, key in enumerate(state)}
        tensors = collections.OrderedDict(
            (key, tensor(keys[key], array, view)) for key, array in state.items()
        )
        tensors._metadata = collections.OrderedDict({"": {"version": 1}})
        raw = {keys[key]: array.tobytes(order="A") for key, array in state.items()}
        with monkeypatch.context() as patch, path.open("wb") as file:
            patch.setitem(sys.modules, "torch", torch)
            patch.setitem(sys.modules, "torch._utils", utils)
            if legacy:
                pickle.dump(torch_files._MAGIC, file, protocol=2)
                pickle.dump(1001, file, protocol=2)
                pickle.dump({"protocol_version": 1001, "little_endian": True}, file, protocol=2)
                Pickler(file, protocol=2).dump(tensors)
                order = sorted(raw, reverse=True)
                pickle.dump(order, file, protocol=2)
                for key in order:
                    count = next(a.size for k, a in state.items() if keys[k] == key)
                    file.write(struct.pack("<q", count) + raw[key])
                return path
            with zipfile.ZipFile(file, "w") as archive:
                with archive.open("archive/data.pkl", "w") as entry:
                    Pickler(entry, protocol=2).dump(tensors)
                for key, data in raw.items():
                    archive.writestr(f"archive/data/{key}", data)
        return path

    return write


@pytest.mark.parametrize("legacy", [True, False])
def test_both_formats_give_the_tensors(save, legacy):
    # only old files hold tensors that are not contiguous, as far as is known
    state = STATE if legacy else {k: v for k, v in STATE.items() if k != "turned"}
    got = torch_files.load(save(state, legacy=legacy))
    assert got.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype


def test_a_cut_file_is_named(save):
    path = save(STATE, legacy=True)
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 60, 200, 20, 3, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"w\.pth is not a readable file of torch\.save"):
            torch_files.load(path)


def test_a_storage_longer_than_the_file_is_not_allocated(save):
    path = save({"a": np.zeros(3, np.float32)}, legacy=True)
    data = path.read_bytes()
    path.write_bytes(data[:-20] + struct.pack("<q", 2**50) + data[-12:])
    with pytest.raises(ValueError, match="does not fit into the file"):
        torch_files.load(path)


class Evil:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("position", [0, 1, 2, 3, 4])
def test_no_part_of_a_file_can_run_anything(tmp_path, position):
    parts = [torch_files._MAGIC, 1001, {"little_endian": True}, {}, []]
    parts[position] = Evil()
    path = tmp_path / "evil.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(ValueError, match=r"evil\.pth .* names the global (posix|nt)\.system"):
        torch_files.load(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (0, (2, 2), (2, 2)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (10**9,), (0,)),
        (0, (2,), (1, 1)),
    ],
)
def test_tensors_beyond_their_storage_are_refused(offset, shape, strides):
    storage = torch_files._Storage("0", np.dtype(np.float32), 4)
    with pytest.raises(ValueError, match="tensor"):
        torch_files._tensor(storage, offset, shape, strides)


def test_anything_but_a_state_dictionary_is_refused(tmp_path):
    parts = [torch_files._MAGIC, 1001, {"little_endian": True}, {"epoch": 3}, []]
    path = tmp_path / "other.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(ValueError, match="does not hold a state dictionary"):
        torch_files.load(path)
