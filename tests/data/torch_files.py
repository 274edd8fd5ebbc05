"""Writes files as `torch.save` does, without torch."""

import pickle
import sys
import types
import zipfile

import numpy as np

_STORAGES = {"uint8": "ByteStorage", "int64": "LongStorage", "float32": "FloatStorage"}


class _Reduced:
    """Pickled as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


def _module_with(module, *names):
    """A stand-in module whose members pickle by their names alone."""
    made = types.ModuleType(module)
    for name in names:
        member = type(name, (), {"__module__": module, "__qualname__": name})
        setattr(made, name, member)
    return made


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.pid if isinstance(value, _Storage) else None


class _Storage:
    def __init__(self, *pid):
        self.pid = ("storage", *pid)


def save(path, value, *, compression=zipfile.ZIP_STORED):
    """Every array in the lists and dictionaries of `value` becomes a tensor."""
    torch = _module_with("torch", *_STORAGES.values())
    utils = _module_with("torch._utils", "_rebuild_tensor_v2")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = []

    def prepare(value):
        if isinstance(value, list):
            return [prepare(item) for item in value]
        if isinstance(value, dict):
            return {key: prepare(item) for key, item in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        kind = getattr(torch, _STORAGES[value.dtype.name])
        storage = _Storage(kind, str(len(data)), "cpu", value.size)
        data.append(np.ascontiguousarray(value).tobytes())
        strides = tuple(stride // value.itemsize for stride in value.strides)
        arguments = (storage, 0, value.shape, strides, False, {})
        return _Reduced(utils._rebuild_tensor_v2, *arguments)

    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        with zipfile.ZipFile(path, "w", compression) as archive:
            prepared = prepare(value)
            with archive.open("archive/data.pkl", "w") as file:
                _Pickler(file, protocol=2).dump(prepared)
            archive.writestr("archive/byteorder", "little")
            for number, raw in enumerate(data):
                archive.writestr(f"archive/data/{number}", raw)
            archive.writestr("archive/version", "3\n")
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return path
