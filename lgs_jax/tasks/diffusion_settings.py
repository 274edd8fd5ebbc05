"""The settings of stage 2: the groups `diffusion` and `sampler` of a configuration."""

import dataclasses
import numbers
from typing import Any, Literal

from lgs_jax import settings
from lgs_jax.diffusion import process, schedules


@dataclasses.dataclass(frozen=True)
class DiffusionSettings:
    """The process, its loss, and what the denoiser is told in training.

    Attributes:
      process: `vp` (variance preserving) or `flow` (rectified flow).
      kind: what the network predicts: `x`, `eps` or `v`.
      schedule: density of the noise levels: `cosine`, `linear` or `flow`.
      log_snr_min: log-SNR at the noise end.
      log_snr_max: log-SNR at the data end.
      shift: above 1 moves the schedule towards noise, as latents of several views of one scene
        need; see `diffusion.schedules`.
      weighting: of the loss by noise level: `uniform` (on the error of `kind`), `snr`, `min_snr` or
        `sigmoid`; see `diffusion.process.weighting`. All but `sigmoid` apply to levels as the
        schedule draws them; `sigmoid` to levels uniform in log-SNR, as it is published, so that the
        schedule decides about the loss's variance and not about its weights.
      gamma: of `min_snr`.
      bias: of `sigmoid`.
      unconditional: share of the training scenes of which no view is known.
      max_known: the others have 1 to so many known views; 0: all V.
      class_drop: share of the training scenes whose class, and representation, is not told.
    """

    process: Literal["vp", "flow"] = "vp"
    kind: Literal["x", "eps", "v"] = "v"
    schedule: Literal["cosine", "linear", "flow"] = "cosine"
    log_snr_min: float = -12.0
    log_snr_max: float = 12.0
    shift: float = 2.0
    weighting: Literal["uniform", "snr", "min_snr", "sigmoid"] = "min_snr"
    gamma: float = 5.0
    bias: float = 0.0
    unconditional: float = 0.2
    max_known: int = 0
    class_drop: float = 0.1

    def __post_init__(self):
        shares, rule = ("unconditional", "class_drop"), "must be between 0 and 1"
        settings.require(self, shares, lambda x: 0 <= x <= 1, rule)
        settings.require(self, ("max_known",), lambda x: x >= 0, "must be 0 (all views) or more")
        self.weight(0.0)  # raises what is wrong with gamma
        self.make_schedule()  # and with the ends

    def make_schedule(self, stop: float | None = None) -> schedules.Schedule:
        """Time to log-SNR, up to `stop` in place of `log_snr_max` if it is given."""
        end = self.log_snr_max if stop is None else stop
        return schedules.make(self.schedule, min=self.log_snr_min, max=end, shift=self.shift)

    def weight(self, log_snr: Any) -> Any:
        """Weight of the squared error of `kind` at log-SNRs [...] as the schedule draws them."""
        schedule = self.make_schedule() if self.weighting == "sigmoid" else None
        weight = process.weighting(
            self.weighting,
            log_snr,
            self.kind,
            self.process,
            gamma=self.gamma,
            bias=self.bias,
            schedule=schedule,
        )
        # An integral over log-SNR becomes the mean over it: losses keep their size.
        return weight if schedule is None else weight / (schedule.max - schedule.min)


@dataclasses.dataclass(frozen=True)
class SamplerSettings:
    """How samples are drawn.

    Attributes:
      name: `ddim`, `ddpm`, `dpm_solver_pp_2m` or `heun`.
      steps: steps of the solver; it asks the denoiser once more (`heun`: twice per step).
      grid: how they are spread: `time_uniform`, `log_snr_uniform` or `karras`.
      stop: log-SNR at which the solver ends with the network's prediction of x; None: where the
        schedule ends. Latents are noisy themselves, and what lies below that noise is better
        averaged out than drawn.
      guidance: scale of classifier-free guidance away from no known view and no class; 1: none.
      guidance_known: the scale for scenes of which a view is known; None: the same. What is drawn
        from nothing but a class stands more of it.
      guidance_interval: log-SNRs (low, high) between which `guidance` acts; None: everywhere.
      autoguidance: scale of guidance away from a weaker denoiser (`models.guide`) for scenes of
        which no view is known; 1: none. It acts at all levels and last, so it carries what
        `guidance` adds as well: weaker + autoguidance * (guided - weaker).
      autoguidance_known: the scale for scenes of which a view is known; None: the same.
      truncation: share of the representations kept with a run, those nearest to the mean of all,
        near which the one of a scene from nothing is drawn; above 0, 1: all. Fewer are more typical
        and less varied (the truncation trick; Brock et al. 2019).
      rescale: how far the guided prediction is brought back to the spread of the other, 0 to 1.
      clip: largest size of a predicted normalised latent; 0: no limit.
      eval_scenes: scenes of every evaluation batch that are sampled and measured; 0: none.
    """

    name: Literal["ddim", "ddpm", "dpm_solver_pp_2m", "heun"] = "dpm_solver_pp_2m"
    steps: int = 25
    grid: Literal["time_uniform", "log_snr_uniform", "karras"] = "time_uniform"
    stop: float | None = None
    guidance: float = 1.0
    guidance_known: float | None = None
    guidance_interval: tuple[float, float] | None = None
    autoguidance: float = 1.0
    autoguidance_known: float | None = None
    truncation: float = 1.0
    rescale: float = 0.0
    clip: float = 0.0
    eval_scenes: int = 2

    def __post_init__(self):
        if not isinstance(self.steps, numbers.Integral):
            raise ValueError(f"steps={self.steps!r} must be a whole number")
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        not_negative = ("guidance", "guidance_known", "autoguidance", "autoguidance_known")
        not_negative += ("clip", "eval_scenes")
        settings.require(self, not_negative, lambda x: x >= 0, "must not be negative")
        settings.require(self, ("rescale",), lambda x: 0 <= x <= 1, "must be between 0 and 1")
        settings.require(self, ("truncation",), lambda x: 0 < x <= 1, "must be above 0, at most 1")
        interval = self.guidance_interval
        if interval is not None and not interval[0] < interval[1]:
            raise ValueError(f"guidance_interval={interval} must be (low, high) with low < high")

    @property
    def scales(self) -> tuple[float, float]:
        """Guidance scales of scenes without and with a known view."""
        return _both(self.guidance, self.guidance_known)

    @property
    def autoguidance_scales(self) -> tuple[float, float]:
        """The same of autoguidance."""
        return _both(self.autoguidance, self.autoguidance_known)


def _both(scale: float, known: float | None) -> tuple[float, float]:
    return scale, scale if known is None else known
