"""The settings of a run."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from lgs_jax import settings
from lgs_jax.training import profiling
from lgs_jax.training.mesh import MeshSettings
from lgs_jax.training.optimizer import OptimizerSettings


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How long, how often, how safely.

    Attributes:
      num_steps: steps of the whole run; also the length of the cosine decay.
      batch_size: scenes per step, over all devices, hosts and microbatches.
      accumulate_steps: microbatches per step, computed one after another to save memory.
      seed: of parameters, data and noise.
      ema_decay: decay of the average of the parameters; 0: the average is the parameters.
      init_from: workdir or checkpoint whose averaged parameters a new run starts from; "": random.
      init_missing: whether layers that `init_from` lacks may start at random, as when
        `model.middle_blocks` is raised; blocks and attention start as the identity.
      max_nonfinite: steps in a row that may be skipped for a loss or gradient that is not finite;
        looked at where metrics are logged and before a save.
      log_every: steps between logged metrics.
      eval_every: steps between evaluations; 0: only at the end.
      eval_batch_size: scenes per batch of an evaluation; 0: `batch_size`.
      eval_scenes: scenes that an evaluation looks at.
      visualize: whether evaluations also write pictures, videos and scenes.
      save_every: steps between checkpoints; 0: only by time and at the end.
      save_every_seconds: time between checkpoints; 0: only by steps.
      keep_checkpoints: how many of the newest checkpoints are kept.
      stop_check_every: with several processes, steps between their agreements on stopping and on
        saving by time (a single process looks at every step).
      tensorboard: whether to write TensorBoard events.
      stall_seconds: silence after which the watchdog reports, and after as long again ends the
        process with status 76; compilation is not watched, evaluations and saves may take ten times
        as long, and so may the first step; 0: no watchdog.
      heartbeat_seconds: with several processes, silence after which one is taken for dead and the
        others end.
      profile: steps to trace, such as "100:105" or "100:105,2000:2005" (as Python's slices); "":
        none. In a configuration it is the key `profile` at the top.
      optimizer: the optimizer and its learning rate.
      mesh: the devices.
    """

    num_steps: int
    batch_size: int = 8
    accumulate_steps: int = 1
    seed: int = 0
    ema_decay: float = 0.9999
    init_from: str = ""
    init_missing: bool = False
    max_nonfinite: int = 10
    log_every: int = 50
    eval_every: int = 1000
    eval_batch_size: int = 0
    eval_scenes: int = 32
    visualize: bool = True
    save_every: int = 1000
    save_every_seconds: float = 600.0
    keep_checkpoints: int = 2
    stop_check_every: int = 10
    tensorboard: bool = True
    stall_seconds: float = 600.0
    heartbeat_seconds: int = 100
    profile: str = ""
    optimizer: OptimizerSettings = dataclasses.field(default_factory=OptimizerSettings)
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)

    def __post_init__(self):
        positive = ("num_steps", "batch_size", "accumulate_steps", "max_nonfinite", "log_every")
        positive += ("eval_scenes", "keep_checkpoints", "stop_check_every", "heartbeat_seconds")
        not_negative = ("eval_every", "eval_batch_size", "save_every", "save_every_seconds")
        not_negative += ("stall_seconds",)
        require = functools.partial(settings.require, self)
        require(positive, lambda x: x >= 1, "must be at least 1")
        require(not_negative, lambda x: x >= 0, "must not be negative")
        require(("ema_decay",), lambda x: 0 <= x < 1, "must be at least 0 and below 1")
        if self.init_missing and not self.init_from:
            raise ValueError("init_missing=True needs init_from, the parameters to start from")
        if self.batch_size % self.accumulate_steps:
            raise ValueError(
                f"batch_size={self.batch_size} must be a multiple of "
                f"accumulate_steps={self.accumulate_steps}"
            )
        profiling.windows(self.profile, self.num_steps)

    @property
    def microbatch_size(self) -> int:
        """Scenes that go through the network at once, over all devices."""
        return self.batch_size // self.accumulate_steps

    @property
    def evaluation_batch_size(self) -> int:
        """Scenes per batch of an evaluation."""
        return self.eval_batch_size or self.batch_size


# JAX takes 32 bits of a seed: larger ones would share their parameters and noise.
_SEEDS = 2**32

# The groups of a configuration; the tasks read those that the trainer does not.
GROUPS = ("task", "seed", "data", "model", "loss", "metrics", "optimizer", "training", "mesh")
GROUPS += ("autoencoder", "latents", "diffusion", "sampler", "rendering", "profile")


def from_config(config: Mapping[str, Any]) -> TrainSettings:
    """The settings in `training`, `optimizer`, `mesh`, `seed` and `profile` of a configuration.

    Raises:
      lgs_jax.settings.SettingsError: for unknown or missing groups and keys, and wrong values.
    """
    settings.check_keys(config, GROUPS, "config")
    if missing := [name for name in ("task", "seed", "data", "training") if name not in config]:
        raise settings.SettingsError(f"config lacks {', '.join(missing)}; add it")
    seed = config["seed"]
    if type(seed) is not int or not 0 <= seed < _SEEDS:
        raise settings.SettingsError(
            f"config.seed={seed!r} must be a whole number from 0 to {_SEEDS - 1}"
        )
    parts = {
        "seed": seed,
        "optimizer": settings.build(
            OptimizerSettings, config.get("optimizer", {}), "config.optimizer"
        ),
        "mesh": settings.build(MeshSettings, config.get("mesh", {}), "config.mesh"),
        "profile": str(config.get("profile", "")),  # a single number is refused as a text
    }
    training = config["training"]
    if twice := sorted(parts.keys() & training.keys()):
        raise settings.SettingsError(f"config.training.{twice[0]} belongs to config.{twice[0]}")
    return settings.build(TrainSettings, {**training, **parts}, "config.training")
