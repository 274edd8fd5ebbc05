"""From settings to a checked source."""

import importlib
from collections.abc import Sequence

from lgs_jax import files
from lgs_jax.data import images, mixture, places, scan, view_index
from lgs_jax.data.example import Source
from lgs_jax.data.report import DataError
from lgs_jax.data.settings import DataSettings
from lgs_jax.data.sources import packed as packed_source
from lgs_jax.data.split import SPLITS, split_keys, subset

READERS = {
    "realestate10k": "RealEstate10K",
    "pixelsplat": "PixelSplat",
    "mvimgnet": "MVImgNet",
    "colmap": "Colmap",
    "transforms": "Transforms",
    "llff": "Llff",
    "photos": "Photos",
}


def make_source(settings: DataSettings, split: str) -> Source:
    """Opens and checks the scenes of "train" or "eval"; the two never share a scene.

    Procedural scenes for evaluation are made in addition to the `num_scenes` for training.

    Raises:
      DataError: if no scene is left, or at the first fault where `on_bad` is "error".
    """
    if split not in SPLITS:
        raise ValueError(f"{split=} must be one of {SPLITS}")
    if settings.mix:
        parts = [
            mixture.Part(make_source(part, split), part, weight) for part, weight in settings.parts
        ]
        return mixture.Mixture(parts)
    if settings.source == "procedural":
        return _procedural(settings, split)
    packed = settings.source == "packed"
    reader = (
        packed_source.Folder(settings.root, settings.verify)
        if packed
        else make_reader(settings.source, settings.root)
    )
    options = scan.ScanOptions(
        min_frames=settings.plan.frames_needed,
        on_bad=settings.on_bad,
        verify=settings.verify,
        drop_frames=read_drop_frames(settings.root, settings.drop_frames, reader.keys),
        scale=settings.scale,
        read=images.ReadOptions(settings.background, settings.masks, settings.exif),
    )
    keys = split_keys(subset(reader.keys, settings.num_scenes), settings.holdout, split)
    make = packed_source.PackedSource if packed else scan.ScannedSource
    source = make(reader, options, keys)
    if not settings.view_index or split == "train":
        return source
    if packed and reader.frames_listed:
        raise DataError(
            f"data.view_index={settings.view_index!r} numbers the frames of whole scenes, but "
            f"{reader.frames_listed} frames were left out of {settings.root} by --drop-frames; "
            "prepare the data without it, into another folder"
        )
    return view_index.IndexedSource(
        source,
        places.place(settings.root) / settings.view_index,
        context=settings.context_views,
        target=settings.target_views,
        on_bad=settings.on_bad,
    )


def make_reader(source: str, root: str) -> scan.Reader:
    """The reader of a format of files, one of `READERS`.

    Raises:
      DataError: if the root does not hold the format.
    """
    module = importlib.import_module(f"lgs_jax.data.sources.{source}")
    return getattr(module, READERS[source])(root)


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


def read_drop_frames(root: str, file: str, keys: Sequence[str]) -> dict[str, frozenset[str]]:
    """The JSON file of frames to leave out, relative to `root`; nothing without a file.

    Raises:
      DataError: if it is missing, something else, or names scenes that are not among the keys.
    """
    if not file:
        return {}
    path = places.place(root) / file
    expected = "expected a JSON object {scene: [frame names]}"
    try:
        listed = files.read_json(path)
    except FileNotFoundError as error:
        raise DataError(f"data.drop_frames: there is no file {path}; {expected}") from error
    except ValueError as error:
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
