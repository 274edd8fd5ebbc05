"""What a model is shown, what it is compared with, and which data that needs.

The paper very probably renders every scene at its V encoded views and at V held-out ones half-way
between them, and pools both. So do the groups "all" here, wherever the data's settings leave room
for V frames between the encoded ones; see `target_views`.
"""

import dataclasses
from typing import Any, Literal

import numpy as np

from lgs_jax.data.settings import DataSettings
from lgs_jax.inference.scene_model import SceneModel

GROUPS = {
    "all": "all views",
    "given": "given views",
    "context": "other views of the latents",
    "target": "held-out views",
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way to evaluate.

    Attributes:
      summary: in a sentence.
      known: views that the denoiser is told: "none", "reference" or "all"; "autoencoder" leaves the
        denoiser out and decodes the encoded views.
      data: keys of `DataSettings` that the model must have been trained with.
      target_views: T that it fixes; None: see `target_views`.
    """

    summary: str
    known: Literal["none", "reference", "all", "autoencoder"]
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    target_views: int | None = None

    @property
    def samples(self) -> bool:
        """Whether scenes are drawn, so that there may be several of each."""
        return self.known != "autoencoder"

    @property
    def compares(self) -> bool:
        """Whether a rendering has a true image; of a scene from nothing there is none."""
        return self.known != "none"

    def known_mask(self, model: SceneModel) -> np.ndarray:
        """Which of the V views of the latents are given, bool [V]."""
        mask = np.full(model.num_views, self.known in ("all", "autoencoder"))
        if self.known == "reference":
            mask[model.task.reference] = True
        return mask


PROTOCOLS = {
    "unconditional": Protocol("scenes from nothing", "none"),
    "single_image": Protocol("scenes from the reference view", "reference"),
    "sparse_views": Protocol("scenes from all V views, through the denoiser", "all"),
    "reconstruction": Protocol("scenes from all V views, through the autoencoder", "autoencoder"),
    "re10k_2view": Protocol(
        "RealEstate10K at 256 x 256 from two views, in pixelSplat's choice of views",
        "autoencoder",
        {"height": 256, "width": 256, "context_views": 2},
        target_views=3,
    ),
}


def room_between(data: DataSettings) -> int | None:
    """How many frames of a scene lie between its encoded views at most; None: as many as it has."""

    def of_part(part: DataSettings) -> list[int]:
        gaps, limits = part.context_views - 1, []
        if part.gap_max is not None:
            limits.append(gaps * (part.gap_max - 1))
        if part.source == "procedural":
            limits.append(part.num_frames - part.context_views)
        return limits

    return min((limit for part, _ in data.parts for limit in of_part(part)), default=None)


def target_views(protocol: Protocol, data: DataSettings, asked: int | None = None) -> int:
    """T of a protocol: what it fixes, else what is asked for, else V.

    Where the settings leave no room for V between the encoded views, or a file chooses the views,
    it is that of the data, as in training. T does not change which views are encoded, but where
    they are chosen by overlap and a scene has hardly enough frames.

    Raises:
      ValueError: if the protocol fixes another T than the one asked for.
    """
    fixed = protocol.target_views
    if fixed is not None and asked not in (None, fixed):
        raise ValueError(
            f"target_views={asked}, but the protocol ({protocol.summary}) has {fixed}; leave it out"
        )
    if fixed or asked:
        return fixed or asked
    room = room_between(data)
    fits = not data.view_index and (room is None or room >= data.context_views)
    return data.context_views if fits else data.target_views


def describe_views(data: DataSettings, split: str = "eval", views: str = "settings") -> str:
    """How many views a scene is scored at, and where the others lie, for the reader."""
    others = "held-out" if split == "eval" else "other"
    text = f"{data.context_views} encoded and {data.target_views} {others} views of each scene"
    if views == "neighbours":
        return f"{text}, neighbouring photographs, the {others} ones nearest to half-way between"
    if data.view_draws:
        return f"{text}, those of the first draw of training"
    room = room_between(data)
    if data.view_index:
        return f"{text}, as {data.view_index} chooses them"
    if room is not None and room < data.target_views:
        return f"{text}; {room} frames lie between the encoded views, so others lie beyond them"
    return f"{text}, these between the encoded ones"


def data_settings(
    name: str,
    model: SceneModel,
    changes: dict[str, Any],
    asked: int | None = None,
    split: str = "eval",
) -> DataSettings:
    """The data of a protocol: the model's own, with `changes` and the protocol's `target_views`.

    Scenes for training keep their `view_draws` and with them the T of these.

    Args:
      name: of the protocol.
      model: what is evaluated.
      changes: keys of its data settings.
      asked: see `target_views`.
      split: "eval", or "train" for the scenes that the model was trained on.

    Raises:
      ValueError: if the protocol is unknown, or the model or the data are not made for it.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; expected one of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    if protocol.samples and model.task is None:
        raise ValueError(
            f"the protocol {name} draws samples, but the model is an autoencoder alone; give a run "
            "of configs/diffusion.py, or take the protocol reconstruction"
        )
    drawn = {"view_draws": None} if split == "eval" else {"view_index": ""}
    data = dataclasses.replace(model.data, **{**changes, **drawn})
    wrong = [
        f"{key}={getattr(data, key)} (it asks for {value})"
        for key, value in protocol.data.items()
        if getattr(data, key) != value
    ]
    if wrong:
        raise ValueError(f"the protocol {name} does not fit a model with {', '.join(wrong)}")
    if name == "re10k_2view" and split == "train":
        raise ValueError(
            "the protocol re10k_2view scores the scenes that an index names for evaluation; leave "
            "out split='train', or take another protocol"
        )
    if name == "re10k_2view" and not data.view_index:
        raise ValueError(
            "the protocol re10k_2view needs pixelSplat's evaluation index "
            "(evaluation_index_re10k.json): give --view-index"
        )
    model.frozen.check_data(data)
    if not data.view_draws:
        return dataclasses.replace(data, target_views=target_views(protocol, data, asked))
    if asked not in (None, data.target_views):
        raise ValueError(
            f"target_views={asked}, but the draws of training (view_draws={data.view_draws}) have "
            f"{data.target_views}, and others would be other draws; leave it out"
        )
    return data
