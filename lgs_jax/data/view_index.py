"""Views that a file prescribes, such as pixelSplat's evaluation index.

The file is JSON: {scene: {"context": [frame, ...], "target": [frame, ...]} or null}, frames by
their place in the scene. Scenes that are null have no good choice of views and are not evaluated,
by design (720 of the 7,194 of RealEstate10K).
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from lgs_jax import files
from lgs_jax.data import places
from lgs_jax.data.example import Example, Source
from lgs_jax.data.report import DataError, Finding

_EXPECTED = 'expected {scene: {"context": [frames], "target": [frames]} or null}'


class IndexedSource:
    """The scenes of a source for which an index names views, in the order of the source.

    Args:
      source: the scenes; their frames must be complete, or the numbers would mean others.
      path: the index; scenes by their keys or by the last part of them.
      context, target: numbers of views that are expected.
      on_bad: "skip" reports scenes that cannot be served, "error" raises at the first.

    Raises:
      DataError: if the file cannot be understood, or no scene is left.
    """

    def __init__(
        self, source: Source, path: str | os.PathLike, *, context: int, target: int, on_bad: str
    ):
        self.class_names = source.class_names
        self.report = source.report
        self._source = source
        index = _read(places.place(path))
        incomplete = {finding.scene for finding in source.report.findings if finding.frame}
        self._scenes: list[tuple[int, np.ndarray, np.ndarray]] = []
        found = set()
        for number in range(len(source)):
            example = source[number]
            name = example.key if example.key in index else example.key.split("/")[-1]
            found.add(name)
            if index.get(name) is None:
                continue
            fault = _fault(index[name], len(example), context, target)
            if example.key in incomplete:
                fault = "frames of it were left out, so the index would mean others"
            if fault:
                self._refuse(Finding(example.key, f"{path}: {fault}"), on_bad)
                continue
            views = (np.array(index[name][part], int) for part in ("context", "target"))
            self._scenes.append((number, *views))
        for name in sorted({n for n, views in index.items() if views is not None} - found):
            reason = f"{path} names it, but the data have no such scene, or it was left out"
            self._refuse(Finding(name, reason), on_bad)
        if not self._scenes:
            raise DataError(
                f"{path} names views for none of the {len(source)} scenes, e.g. {source[0].key!r}; "
                f"it names {list(index)[:3]}"
            )
        self.report.scenes_kept = len(self._scenes)
        self.report.frames_kept = sum(len(source[number]) for number, *_ in self._scenes)

    def _refuse(self, finding: Finding, on_bad: str) -> None:
        if on_bad == "error":
            raise DataError(f"{finding} (on_bad='skip' would leave it out)")
        self.report.findings.append(finding)

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Example:
        return self._source[self._scenes[index][0]]

    def views_of(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Context and target frames of scene `index`."""
        return self._scenes[index][1:]


def _fault(views: Any, frames: int, context: int, target: int) -> str:
    """What is wrong with the views of a scene; empty if nothing is."""
    if not isinstance(views, Mapping):
        return f"found {views!r}; {_EXPECTED}"
    for part, count in (("context", context), ("target", target)):
        chosen = views.get(part)
        if not isinstance(chosen, list) or not all(type(frame) is int for frame in chosen):
            return f"{part} is {chosen!r}; {_EXPECTED}"
        if len(chosen) != count:
            return f"it names {len(chosen)} {part} views, data.{part}_views={count}; change one"
        if outside := [frame for frame in chosen if not 0 <= frame < frames]:
            return f"{part} frame {outside[0]} is none of the {frames} frames"
    return ""


def _read(path: epath.Path) -> dict[str, Any]:
    try:
        index = files.read_json(path)
    except FileNotFoundError as error:
        raise DataError(f"data.view_index: there is no file {path}; {_EXPECTED}") from error
    except ValueError as error:
        raise DataError(f"data.view_index: {path} is no JSON ({error}); {_EXPECTED}") from error
    if not isinstance(index, dict):
        raise DataError(f"data.view_index: {path} holds no object; {_EXPECTED}")
    return index
