"""Every key of `config.data`, checked."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from lgs_jax import settings
from lgs_jax.data import images, normalize, report, scan, views
from lgs_jax.data.sources.procedural.source import KINDS

SOURCES = (
    "realestate10k",
    "pixelsplat",
    "mvimgnet",
    "colmap",
    "transforms",
    "llff",
    "photos",
    "packed",
    "procedural",
)
_OPTIONAL_COUNTS = ("num_scenes", "gap_max", "view_draws")
CROPS = ("centre", "random")
_REALS = ("beyond", "max_zoom", "colour_jitter", "weight", "overlap_min", "overlap_max")
# Batches need one value of these.
_SHARED = (
    "height",
    "width",
    "context_views",
    "target_views",
    "view_draws",
    "scale",
    "reference",
    "num_workers",
    "num_threads",
    "cache_mb",
    "view_index",
    "mix",
)


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What is read, how views are chosen, and what a batch looks like.

    Attributes:
      source: format of the data, one of `SOURCES`.
      root: folder of the data (or a transforms.json, or a video); unused by "procedural".
      height, width: of the images in a batch; frames are cropped to this shape and resized.
      context_views, target_views: encoded and held-out views of a scene.
      selection, gap_min, gap_max, beyond, overlap_min, overlap_max: see `views.ViewPlan`.
      holdout: scenes for evaluation only: a fraction (by a stable hash of the key), or a list of
        keys, of their last parts, or of patterns such as "test/*".
      num_scenes: use only so many scenes of a folder (None: all); with "procedural", how many to
        make for training.
      num_frames, kind: of "procedural" scenes.
      reference: context view that gives the scene's origin and axes, "first" or "middle".
      view_draws: K: a scene is seen with one of K fixed choices of views and augmentation, in epoch
        e with number e mod K, whatever the seed; None: with a new choice at every visit. Latents
        that are encoded beforehand need a K.
      scale: unit of the scene: "cameras" for the mean distance of the context cameras from their
        mean, "cameras_robust" for the median distance from their median, or a length in the data's
        unit.
      crop: "centre", or "random" boxes in training.
      max_zoom: random boxes are up to so many times smaller than the largest one.
      flip: mirror half of the training scenes.
      colour_jitter: exposure, contrast and saturation of a training scene are multiplied by factors
        between exp(-j) and exp(j), the same for all of its views; 0: not.
      background, masks, exif: see `images.ReadOptions`.
      view_index: JSON file of the views of scenes for evaluation, relative to the root; see
        `view_index`. Frames must not be left out of these scenes.
      drop_frames: JSON file {scene: [frame names]} of frames to leave out, relative to the root.
      on_bad, verify: see `scan.ScanOptions`.
      weight: share of this source in training, beside those of `mix`.
      mix: further sources: for each a mapping of the keys that differ, such as {"source": "colmap",
        "root": ..., "weight": 0.5}. Sizes, numbers of views, `view_draws`, `scale` and `reference`
        are the same for all.
      num_workers: processes that prepare batches; 0: threads of this one.
      num_threads: threads per process.
      cache_mb: memory for decoded frames in total; 0: none.
    """

    source: str = "procedural"
    root: str = ""
    height: int = 96
    width: int = 96
    context_views: int = 6
    target_views: int = 6
    selection: str = "gap"
    gap_min: int = 1
    gap_max: int | None = None
    beyond: float = 0.0
    overlap_min: float = 0.3
    overlap_max: float = 0.9
    holdout: float | tuple[str, ...] = 0.1
    num_scenes: int | None = None
    num_frames: int = 16
    kind: str = "mixed"
    view_draws: int | None = None
    reference: str = "first"
    scale: str | float = "cameras"
    crop: str = "centre"
    max_zoom: float = 1.0
    flip: bool = False
    colour_jitter: float = 0.0
    background: str = "black"
    masks: str = "ignore"
    exif: str = "auto"
    view_index: str = ""
    drop_frames: str = ""
    on_bad: str = "skip"
    verify: str = "headers"
    weight: float = 1.0
    mix: tuple[Mapping[str, Any], ...] = dataclasses.field(default=(), hash=False)
    num_workers: int = 0
    num_threads: int = 4
    cache_mb: int = 512

    def __post_init__(self) -> None:
        if isinstance(self.holdout, list):
            object.__setattr__(self, "holdout", tuple(self.holdout))
        self._check_names()
        self._check_numbers()
        self._check_combinations()

    @property
    def plan(self) -> views.ViewPlan:
        """How views are chosen."""
        return views.ViewPlan(
            context=self.context_views,
            target=self.target_views,
            selection=self.selection,
            gap_min=self.gap_min,
            gap_max=self.gap_max,
            beyond=self.beyond,
            overlap_min=self.overlap_min,
            overlap_max=self.overlap_max,
        )

    @property
    def parts(self) -> list[tuple["DataSettings", float]]:
        """Settings and weight of every source, this one first."""
        own = dataclasses.replace(self, mix=())
        values = dataclasses.asdict(own)
        others = [
            settings.build(DataSettings, values | dict(keys), f"data.mix[{number}]")
            for number, keys in enumerate(self.mix)
        ]
        return [(part, part.weight) for part in (own, *others)]

    def _check_names(self) -> None:
        allowed = {
            "source": SOURCES,
            "selection": views.SELECTIONS,
            "reference": normalize.REFERENCES,
            "crop": CROPS,
            "background": tuple(images.BACKGROUNDS),
            "masks": images.MASKS,
            "exif": images.EXIF,
            "on_bad": report.POLICIES,
            "verify": scan.VERIFY,
            "kind": KINDS,
        }
        for name, choices in allowed.items():
            check_name(f"data.{name}", getattr(self, name), choices)

    def _check_numbers(self) -> None:
        least = {
            "height": 1,
            "width": 1,
            "context_views": 1,
            "target_views": 1,
            "gap_min": 1,
            "beyond": 0,
            "num_frames": 1,
            "max_zoom": 1,
            "colour_jitter": 0,
            "num_workers": 0,
            "num_threads": 1,
            "cache_mb": 0,
        }
        for name in ("weight", "overlap_min", "overlap_max"):
            least[name] = 0
        least |= {name: 1 for name in _OPTIONAL_COUNTS if getattr(self, name) is not None}
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < bound:
                raise ValueError(f"data.{name}={value!r} must be a number >= {bound}")
            if name not in _REALS and not isinstance(value, int):
                raise ValueError(f"data.{name}={value!r} must be a whole number")

    def _check_combinations(self) -> None:
        if self.gap_max is not None and self.gap_max < self.gap_min:
            raise ValueError(
                f"data.gap_max={self.gap_max} is below data.gap_min={self.gap_min}; swap them"
            )
        if isinstance(self.scale, str):
            check_name("data.scale", self.scale, normalize.SCALES)
            if self.context_views == 1:
                raise ValueError(
                    f"data.scale={self.scale!r} needs at least 2 data.context_views; set "
                    "data.scale to a length in the data's unit"
                )
        elif not self.scale > 0:
            raise ValueError(f"data.scale={self.scale} must be positive")
        if not isinstance(self.holdout, tuple) and not 0 <= self.holdout < 1:
            raise ValueError(
                f"data.holdout={self.holdout!r} must be a fraction in [0, 1) or a list of scenes"
            )
        if self.masks != "ignore" and self.source != "transforms":
            raise ValueError(
                f"data.masks={self.masks!r} needs masks, and source={self.source!r} has none; set "
                "data.masks='ignore'"
            )
        if (self.background, self.exif) != ("black", "auto"):
            if self.source == "packed":
                raise ValueError(
                    "data.background and data.exif have no effect on packed data, whose images are "
                    "as prepare-data has written them; remove them here and give them there"
                )
            if self.source == "photos":
                raise ValueError(
                    "data.background and data.exif have no effect on photos, which are seen "
                    "upright and before black as their poses were computed; remove them"
                )
        if self.max_zoom > 1 and self.crop != "random":
            raise ValueError(
                f"data.max_zoom={self.max_zoom} has no effect with data.crop={self.crop!r}; set "
                "data.crop='random'"
            )
        if not 0 <= self.overlap_min <= self.overlap_max <= 1:
            raise ValueError(
                f"data.overlap_min={self.overlap_min} and data.overlap_max={self.overlap_max} must "
                "lie in this order between 0 and 1"
            )
        usual = DataSettings.overlap_min, DataSettings.overlap_max
        if self.selection != "overlap" and (self.overlap_min, self.overlap_max) != usual:
            raise ValueError(
                "data.overlap_min and data.overlap_max have no effect with "
                f"data.selection={self.selection!r}; set data.selection='overlap'"
            )
        self._check_mix()
        if self.source == "procedural":
            self._check_procedural()
        elif not self.root:
            raise ValueError(f"data.root is empty; set it to the folder of the {self.source} data")

    def _check_mix(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"data.weight={self.weight} must be positive")
        known = {field.name for field in dataclasses.fields(self)} - set(_SHARED)
        for number, keys in enumerate(self.mix):
            for name in keys:
                if name in _SHARED:
                    raise ValueError(
                        f"data.mix[{number}] sets {name!r}, which must be the same for all sources"
                    )
            settings.check_keys(keys, known, f"data.mix[{number}]")
        if self.view_index and (self.mix or self.drop_frames):
            other = "data.mix" if self.mix else "data.drop_frames"
            raise ValueError(
                f"data.view_index={self.view_index!r} numbers the frames of one whole source; "
                f"remove it or {other}"
            )
        if self.mix:
            self.parts  # noqa: B018  every part checks itself

    def _check_procedural(self) -> None:
        if self.num_scenes is None:
            raise ValueError("data.num_scenes is not set; say how many procedural scenes to make")
        if isinstance(self.holdout, tuple):
            raise ValueError("data.holdout must be a fraction for procedural scenes")
        if self.root or self.drop_frames or self.view_index:
            raise ValueError(
                "data.root, data.drop_frames and data.view_index have no effect on procedural "
                "scenes; remove them"
            )
        if self.num_frames < self.plan.frames_needed:
            raise ValueError(
                f"data.num_frames={self.num_frames} is too few for the views asked for, which need "
                f"{self.plan.frames_needed}; raise it"
            )


def check_name(what: str, value: Any, choices: Collection[str]) -> None:
    """Raises ValueError with a suggestion if `value` is not one of `choices`."""
    if value in choices:
        return
    close = difflib.get_close_matches(str(value), list(choices), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{what}={value!r} must be one of {', '.join(map(repr, choices))}{hint}")
