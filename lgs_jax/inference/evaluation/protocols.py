"""What a model is shown, what it is compared with, and which data that needs.

The paper renders every scene at its V encoded views and at as many held-out ones half-way between
them, and pools both; so do the groups "all" of every protocol here.
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
      data: keys of `DataSettings` that it fixes.
    """

    summary: str
    known: Literal["none", "reference", "all", "autoencoder"]
    data: dict[str, Any] = dataclasses.field(default_factory=dict)

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
        {"height": 256, "width": 256, "context_views": 2, "target_views": 3},
    ),
}


def data_settings(name: str, model: SceneModel, changes: dict[str, Any]) -> DataSettings:
    """The data of a protocol: the model's own, with `changes`.

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
    data = dataclasses.replace(model.data, view_draws=None, **changes)
    wrong = [
        f"{key}={getattr(data, key)} (it asks for {value})"
        for key, value in protocol.data.items()
        if getattr(data, key) != value
    ]
    if wrong:
        raise ValueError(f"the protocol {name} does not fit a model with {', '.join(wrong)}")
    if name == "re10k_2view" and not data.view_index:
        raise ValueError(
            "the protocol re10k_2view needs pixelSplat's evaluation index "
            "(evaluation_index_re10k.json): give --view-index"
        )
    model.frozen.check_data(data)
    return data
