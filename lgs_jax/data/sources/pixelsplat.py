"""Chunks of pixelSplat: RealEstate10K or ACID as `<root>/<split>/<chunk>.torch` and `index.json`.

A chunk is a list of scenes {key, url, timestamps [F], cameras [F, 18], images}; a camera is
`fx fy cx cy 0 0` in fractions of width and height and the 3x4 world-to-camera map row by row
(OpenCV axes), an image the bytes of a JPEG file. https://github.com/dcharatan/pixelsplat.

Images are read where they lie in the chunk, when they are used.
"""

import functools
import os
import posixpath
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from lgs_jax import files
from lgs_jax.data import places, torch_zip
from lgs_jax.data.report import DataError
from lgs_jax.data.scan import RawFrame, RawScene

_EXPECTED = "<root>/<split>/*.torch with an index.json beside them, or <root>/*.torch"
_AGAIN = "download the chunk again"
# Scenes are read in order, by several threads: a few chunks are enough.
_OPEN_CHUNKS = 16


class PixelSplat:
    """Parses folders of chunks. Keys are `<split>/<key>`, or `<key>` for chunks in the root itself.

    `index.json` {key: chunk file} tells where a scene is; without it every chunk is looked into.

    Raises:
      DataError: if there are no chunks, or the index is broken.
    """

    class_names: tuple[str, ...] = ()

    def __init__(self, root: str | os.PathLike):
        root = places.place(root)
        self.name = f"pixelsplat at {root}"
        if not root.is_dir():
            raise DataError(f"there is no folder {root}; expected {_EXPECTED}")
        chunks = sorted(root.glob("*/*.torch")) or sorted(root.glob("*.torch"))
        if not chunks:
            raise DataError(f"{root} holds no chunk; expected {_EXPECTED}")
        self._chunk_of: dict[str, epath.Path] = {}
        for folder in sorted({chunk.parent for chunk in chunks}):
            prefix = "" if folder == root else f"{folder.name}/"
            for key, chunk in _index(folder).items():
                self._chunk_of[prefix + key] = chunk
        self.keys = list(self._chunk_of)

    def read(self, key: str) -> RawScene:
        """Parses one scene; the frames are named by their timestamps, in microseconds."""
        chunk = self._chunk_of[key]
        name = key.rpartition("/")[-1]
        try:
            scene = _scenes(chunk)[name]
        except KeyError as error:
            raise DataError(f"the index names {chunk} for it, which does not hold it") from error
        where = f"scene {name} of {chunk}"
        times, cameras = (_numbers(scene, part, where) for part in ("timestamps", "cameras"))
        pictures = scene.get("images")
        if not isinstance(pictures, list) or cameras.shape != (len(pictures), 18):
            count = len(pictures) if isinstance(pictures, list) else "no"
            raise DataError(
                f"{where} has cameras {cameras.shape} for {count} images, expected one row of 18 "
                f"numbers each; {_AGAIN}"
            )
        if times.shape != cameras.shape[:1] or times.dtype.kind not in "iu":
            raise DataError(
                f"{where} has timestamps {times.shape} of type {times.dtype} for {len(cameras)} "
                f"cameras, expected one integer each; {_AGAIN}"
            )
        frames = [_frame(*parts) for parts in zip(times, cameras, pictures, strict=True)]
        frames.sort(key=lambda frame: frame.timestamp)
        return RawScene(frames, cam_from_world=True, same_size=True)


def _index(folder: epath.Path) -> dict[str, epath.Path]:
    """Scene to chunk."""
    path = folder / "index.json"
    if not path.is_file():
        found: dict[str, epath.Path] = {}
        for chunk in sorted(folder.glob("*.torch")):
            for key in _scenes(chunk):
                if found.setdefault(key, chunk) != chunk:
                    raise DataError(f"scene {key} is in {found[key]} and in {chunk}; remove one")
        return found
    try:
        listed = files.read_json(path)
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); download it again") from error
    names = listed.values() if isinstance(listed, dict) else [None]
    if not all(isinstance(name, str) and posixpath.basename(name) == name for name in names):
        raise DataError(f"{path} is no object {{scene: file name of its chunk}}; download it again")
    return {key: folder / name for key, name in listed.items()}


def _scenes(chunk: epath.Path) -> dict[str, dict[str, Any]]:
    """The scenes of a chunk by key, images as places in it."""
    return _load(chunk, _version(chunk))


def _version(chunk: epath.Path) -> tuple[int, int]:
    """Of a file on disk; what lies in a store is never rewritten."""
    if places.is_remote(str(chunk)) or not chunk.is_file():
        return 0, 0
    found = Path(chunk).stat()
    return found.st_mtime_ns, found.st_size


@functools.lru_cache(_OPEN_CHUNKS)
def _load(chunk: epath.Path, _changed: tuple[int, int]) -> dict[str, dict[str, Any]]:
    scenes = torch_zip.load(chunk)
    if not isinstance(scenes, list) or not all(
        isinstance(scene, dict) and isinstance(scene.get("key"), str) for scene in scenes
    ):
        raise DataError(f"{chunk} holds no list of scenes with keys; {_AGAIN}")
    by_key = {scene["key"]: scene for scene in scenes}
    if len(by_key) < len(scenes):
        raise DataError(f"{chunk} holds several scenes of one key; {_AGAIN}")
    return by_key


def _numbers(scene: dict[str, Any], part: str, where: str) -> np.ndarray:
    tensor = scene.get(part)
    if not isinstance(tensor, torch_zip.Tensor):
        raise DataError(f"{where} has no tensor {part!r}; {_AGAIN}")
    return tensor.read()


def _frame(timestamp: np.ndarray, camera: np.ndarray, picture: Any) -> RawFrame:
    name = str(int(timestamp))
    if not isinstance(picture, torch_zip.Tensor) or picture.dtype != np.uint8:
        raise DataError(f"frame {name} is no tensor of bytes; {_AGAIN}")
    pose = np.eye(4)
    pose[:3] = camera[6:].reshape(3, 4)
    return RawFrame(
        name=name,
        path=picture.span,
        pose=pose,
        intrinsics=camera[:4].astype(np.float64),
        timestamp=float(timestamp) * 1e-6,
        fractions=True,
    )
