"""What is evaluated beside the model and its data, and how samples are drawn for it.

Letters: B scenes of a batch, T held-out views, K samples.
"""

import dataclasses

from lgs_jax.data.settings import check_name
from lgs_jax.data.split import SPLITS
from lgs_jax.inference.evaluation import protocols, scenes
from lgs_jax.inference.scene_model import SceneModel
from lgs_jax.tasks.diffusion_settings import SamplerSettings

# Options that change the model's own way to draw samples.
_OF_SAMPLER = ("steps", "guidance", "autoguidance", "truncation")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is evaluated beside the model and its data.

    Attributes:
      protocol: a name in `protocols.PROTOCOLS`.
      split: "eval" for held-out scenes, "train" for those that the model was trained on, in the
        views of the first draw of training where the data's settings have `view_draws`.
      views: how the views of captures are chosen, one of `scenes.CHOICES`.
      num_scenes: the first so many of the evaluation's order, no more than there are; None: all.
      target_views: T; None: as many as encoded views where there is room for them between those,
        see `protocols.target_views`.
      num_samples: K, for protocols that draw samples.
      steps, guidance, autoguidance, truncation: of the sampler; None: as the model says.
      tell_class: whether the denoiser is told the class of the scene.
      seed: of the samples.
      batch_size: B.
      gallery: scenes of each kind that are shown: best, middle and worst.
      nearest_training: training scenes among which the nearest photographs of samples from nothing
        are looked for; 0: none.
      allow_left_out: go on although the data have scenes or frames that cannot be read.
    """

    protocol: str
    split: str = "eval"
    views: str = "settings"
    num_scenes: int | None = None
    target_views: int | None = None
    num_samples: int = 1
    steps: int | None = None
    guidance: float | None = None
    autoguidance: float | None = None
    truncation: float | None = None
    tell_class: bool = False
    seed: int = 0
    batch_size: int = 8
    gallery: int = 2
    nearest_training: int = 0
    allow_left_out: bool = False

    def __post_init__(self) -> None:
        check_name("split", self.split, SPLITS)
        check_name("views", self.views, scenes.CHOICES)
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("num_scenes", "target_views"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        for name in ("gallery", "nearest_training"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


def sampler_of(
    model: SceneModel, protocol: protocols.Protocol, options: Options
) -> SamplerSettings | None:
    """How samples are drawn; None where none are.

    Raises:
      ValueError: for an option that has no effect, or that the model cannot honour.
      lgs_jax.settings.SettingsError: for conditions that the model never met in training.
    """
    if protocol.samples:
        asked = {name: getattr(options, name) for name in _OF_SAMPLER}
        if options.tell_class and not model.task.model.num_classes:
            raise ValueError("tell_class is for a model with classes; this one has none")
        asked |= {f"{name}_known": asked[name] for name in ("guidance", "autoguidance")}
        sampler = dataclasses.replace(
            model.task.sampler, **{key: value for key, value in asked.items() if value is not None}
        )
        if sampler.autoguidance_scales != (1.0, 1.0) and model.guide is None:
            raise ValueError(
                f"autoguidance={options.autoguidance} needs a weaker denoiser, which this model "
                "has not (pack-model --guide); leave it out"
            )
        known = int(protocol.known_mask(model).sum())
        if options.truncation is not None and (known or model.task.representations is None):
            raise ValueError(
                f"truncation={options.truncation} has an effect on samples from nothing alone, of "
                "a model that keeps representations; leave it out"
            )
        model.task.check_request(known, sampler.scales[known > 0], class_told=options.tell_class)
        return sampler
    idle = {"num_samples": 1, "tell_class": False} | dict.fromkeys(_OF_SAMPLER)
    for key, value in idle.items():
        if getattr(options, key) != value:
            raise ValueError(
                f"{key}={getattr(options, key)} has no effect on the protocol "
                f"{options.protocol}, which draws no samples; leave it out"
            )
    return None
