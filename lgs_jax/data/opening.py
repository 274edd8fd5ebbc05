"""From settings to a checked source."""

import importlib
import json
from pathlib import Path

from lgs_jax.data import images, scan
from lgs_jax.data.example import Source
from lgs_jax.data.report import DataError
from lgs_jax.data.settings import DataSettings
from lgs_jax.data.split import SPLITS, split_keys, subset

_READERS = {
    "realestate10k": "RealEstate10K",
    "pixelsplat": "PixelSplat",
    "mvimgnet": "MVImgNet",
    "colmap": "Colmap",
    "transforms": "Transforms",
    "llff": "Llff",
}


def make_source(settings: DataSettings, split: str) -> Source:
    """Opens and checks the scenes of "train" or "eval"; the two never share a scene.

    Procedural scenes for evaluation are made in addition to the `num_scenes` for training.

    Raises:
      DataError: if no scene is left, or at the first fault where `on_bad` is "error".
    """
    if split not in SPLITS:
        raise ValueError(f"{split=} must be one of {SPLITS}")
    if settings.source == "procedural":
        return _procedural(settings, split)
    module = importlib.import_module(f"lgs_jax.data.sources.{settings.source}")
    reader = getattr(module, _READERS[settings.source])(settings.root)
    drop_frames = _read_drop_frames(settings, reader.keys) if settings.drop_frames else {}
    options = scan.ScanOptions(
        min_frames=settings.plan.frames_needed,
        on_bad=settings.on_bad,
        verify=settings.verify,
        drop_frames=drop_frames,
        needs_motion=settings.scale == "cameras",
        read=images.ReadOptions(settings.background, settings.masks, settings.exif),
    )
    keys = split_keys(subset(reader.keys, settings.num_scenes), settings.holdout, split)
    return scan.ScannedSource(reader, options, keys)


def _procedural(settings: DataSettings, split: str) -> Source:
    from lgs_jax.data.sources import procedural

    held_out = round(settings.holdout * settings.num_scenes)
    if split == "eval" and not held_out:
        raise DataError(
            f"data.holdout={settings.holdout} of data.num_scenes={settings.num_scenes} is no whole "
            "scene, so there is nothing to evaluate on; raise one of them"
        )
    return procedural.ProceduralSource(
        num_scenes=settings.num_scenes if split == "train" else held_out,
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        seed_offset=SPLITS.index(split),
        kind=settings.kind,
    )


def _read_drop_frames(settings: DataSettings, keys: list[str]) -> dict[str, frozenset[str]]:
    """The JSON file of frames to leave out."""
    path = Path(settings.root) / settings.drop_frames
    expected = "expected a JSON object {scene: [frame names]}"
    try:
        listed = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DataError(f"data.drop_frames: there is no file {path}; {expected}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"data.drop_frames: {path} is no JSON ({error}); {expected}") from error
    if not isinstance(listed, dict) or not all(isinstance(v, list) for v in listed.values()):
        raise DataError(f"data.drop_frames: {path} holds something else; {expected}")
    known = set(keys) | {key.split("/")[-1] for key in keys}
    unknown = sorted(set(listed) - known)
    if unknown:
        raise DataError(
            f"data.drop_frames: {path} names {len(unknown)} scenes that do not exist, e.g. "
            f"{unknown[0]!r}; scenes are named like {keys[0]!r}"
        )
    return {scene: frozenset(str(name) for name in names) for scene, names in listed.items()}
