"""python -m lgs_jax plan --config=CONFIG: will a training fit its devices? Nothing is trained.

Compiles the training step for the devices and says what it needs of each; where that is too much,
looks for settings with which it fits. No data are read, and the devices need not be there:

  8               so many devices, simulated on the CPU (with --memory)
  v5e-16, v6e-8   a TPU slice, v5p-16 by cores; needs the package libtpu, but no TPU
  h100-8          GPUs (a100-40gb, a100-80gb, h100, h200); needs JAX's CUDA plugin, but no GPU

Without --devices: those of this machine (CPUs share its memory). Values of the configuration are
given as for train.

  python -m lgs_jax plan --config=configs/vae.py:paper --devices=v5e-16
  python -m lgs_jax plan --config=configs/vae.py:paper --devices=8 --memory=80GiB --largest-batch
  python -m lgs_jax plan --config=configs/diffusion.py:paper --devices=h100-8 \\
      --autoencoder-config=configs/vae.py:paper

Status: 0 it fits as configured, 1 it does not, 2 it could not be found out.
"""

import argparse
import dataclasses
import functools
import pathlib
import re
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_flags

from lgs_jax import files, settings, tasks
from lgs_jax.cli import flag_parsing, reporting
from lgs_jax.data import assemble, latents, report
from lgs_jax.data.cache import FrameCache
from lgs_jax.data.example import Example
from lgs_jax.data.settings import DataSettings
from lgs_jax.inference import load
from lgs_jax.models import frozen_autoencoder
from lgs_jax.models.frozen_autoencoder import FrozenAutoencoder
from lgs_jax.training import checkpoint, mesh, planning, planning_targets
from lgs_jax.training import settings as training_settings
from lgs_jax.training.planning import Case, Changes, Estimate, Tried
from lgs_jax.training.planning_targets import Target

Config = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Plans; returns the exit status."""
    overrides = [text for text in arguments if text.startswith("--config.")]
    options = _parser().parse_args([text for text in arguments if text not in overrides])
    try:
        config = read_config(options.config, overrides)
        memory = None if options.memory is None else read_size(options.memory)
        return run(options, config, memory)
    except (
        settings.SettingsError,
        report.DataError,
        checkpoint.CheckpointError,
        planning_targets.TargetError,
        NotImplementedError,
        ValueError,
        OSError,  # WeightsMissing among them
    ) as error:
        return reporting.fail(error, status=2)


def run(options: argparse.Namespace, config: Config, memory: float | None) -> int:
    """Estimates, says whether it fits, and looks for what would."""
    train = training_settings.from_config(config)
    if options.autoencoder_config and config["task"] != "diffusion":
        raise settings.SettingsError(
            f"--autoencoder-config has no effect on the task {config['task']!r}; leave it out"
        )
    target = _open_target(options.devices, memory, train)
    first_stage = options.autoencoder_config and read_config(options.autoencoder_config, [])
    make = functools.partial(make_case, config, first_stage)
    say = functools.partial(print, flush=True)
    say(f"compiling the training step for {target.name}; this can take minutes")
    first = planning.estimate(make({}), target)
    say(table(first, train))
    say(verdict(first, target))
    tried: list[Tried] = []
    if not first.fits(target.memory) and options.suggest:
        say("looking for settings with which it fits:")
        tried += planning.suggest(make, target, first, say)
        say(_suggestion(tried, target))
    if options.largest_batch:
        say("looking for the largest batch:")
        sizes = planning.largest_batch(make, target, first, say)
        say(_largest(sizes, first, train, target))
        tried += sizes
    say(_caveats(target))
    if options.json:
        files.write_json(
            pathlib.Path(options.json).expanduser(), _plan(config, target, first, tried)
        )
    return 0 if first.fits(target.memory) else 1


def _open_target(
    name: str | None, memory: float | None, train: training_settings.TrainSettings
) -> Target:
    """The devices; before JAX's backend starts, so that the CPU has as many."""
    if name is None:
        mesh.split_cpu(train.mesh, train.microbatch_size, train.evaluation_batch_size)
        return planning_targets.attached(memory)
    jax.config.update("jax_platforms", "cpu")
    if (number := planning_targets.simulated(name)) > 1:
        jax.config.update("jax_num_cpu_devices", number)
    return planning_targets.open_target(name, memory)


def read_config(path: str, overrides: list[str]) -> Config:
    """The configuration of a file and flags such as `--config.mesh.fsdp=8`.

    Raises:
      SettingsError: if there is no such file, or a flag has no value or names no group of it.
    """
    if bare := [text for text in overrides if "=" not in text]:
        raise settings.SettingsError(f"{bare[0]} has no value; give {bare[0]}=VALUE")
    values = flags.FlagValues()
    arguments = ["plan", f"--config={flag_parsing.packaged(path)}", *overrides]
    holder = config_flags.DEFINE_config_file(
        "config",
        lock_config=False,
        accept_new_attributes=True,
        flag_values=values,
        sys_argv=arguments,
    )
    try:
        values(arguments)
    except flag_parsing.ERRORS as error:
        raise settings.SettingsError(f"--config={path}: {flag_parsing.explain(error)}") from error
    try:
        return holder.value.to_dict()
    except OSError as error:  # of a file that could not be loaded, raised at its first use
        raise settings.SettingsError(flag_parsing.unreadable(path, error)) from error


def read_size(text: str) -> float:
    """Bytes of a text such as "80GiB", "16G" (the same) or "24GB" (10^9 bytes each).

    Raises:
      SettingsError: if it is something else.
    """
    units = {"GIB": 2**30, "G": 2**30, "MIB": 2**20, "M": 2**20, "GB": 10**9, "MB": 10**6}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    if not found or found[2].upper() not in units or not float(found[1]):
        raise settings.SettingsError(
            f"--memory={text} must be a positive size with its unit, such as 80GiB or 24GB"
        )
    return float(found[1]) * units[found[2].upper()]


def make_case(config: Config, first_stage: Config | None, changes: Changes) -> Case:
    """A training of a changed configuration, as far as that can be had without its data.

    Args:
      config: the configuration.
      first_stage: that of the autoencoder of stage 2; None: of the run in `config.autoencoder`.
      changes: values by their place.
    """
    config = _without_data(_changed(config, changes))
    constants = ()
    if config["task"] == "diffusion":
        constants = (_autoencoder(config, first_stage),)
    task = tasks.make_task(config["task"], config, *constants)
    data = settings.build(DataSettings, config["data"], "config.data")
    latents_of = constants[0] if config.get("latents") and constants else None
    return Case(
        task=task,
        settings=training_settings.from_config(config),
        entry=example_entry(data, latents_of, load.representation_size(config)),
        constants=constants,
        remat=getattr(getattr(task, "model", None), "remat", None),
    )


def _changed(config: Config, changes: Changes) -> Config:
    config = {name: dict(v) if isinstance(v, dict) else v for name, v in config.items()}
    for place, value in changes.items():
        group, _, name = place.partition(".")
        config.setdefault(group, {})[name] = value
    return config


def _without_data(config: Config) -> Config:
    """The configuration with a name for the folder of the data, which is not looked at."""
    data = config.get("data", {})
    # The splats of this task are fitted to the data themselves, so it reads them at once.
    if config.get("task") == "splat_fit" or data.get("source", "procedural") == "procedural":
        return config
    return config | {"data": data | {"root": data.get("root") or "not read"}}


def _autoencoder(config: Config, first_stage: Config | None) -> FrozenAutoencoder:
    """The autoencoder of stage 2, shapes only."""
    if first_stage is None:
        if not (source := config.get("autoencoder")):
            raise settings.SettingsError(
                "stage 2 holds an autoencoder; say which: --config.autoencoder=WORKDIR, or, if it "
                "is not trained yet, --autoencoder-config=configs/vae.py:VARIANT"
            )
        folder, step = checkpoint.locate(source)
        first_stage = checkpoint.read_config(folder, step)
    first_stage = _without_data(first_stage)
    if first_stage.get("task") != "vae":
        raise settings.SettingsError(
            f"the autoencoder's task is {first_stage.get('task')!r}; expected a configuration or a "
            "run of configs/vae.py"
        )
    # Its loss plays no part any more, nor do the networks' weights that it may need.
    task = tasks.make_task("vae", first_stage | {"loss": {}, "metrics": {}})
    params = jax.eval_shape(task.init, jax.random.key(0))
    return frozen_autoencoder.from_run(first_stage, params)


def example_entry(
    data: DataSettings, frozen: FrozenAutoencoder | None, representation_size: int = 0
) -> Config:
    """One scene of a batch, as the data pipeline makes it: of black frames, or of empty latents.

    Args:
      data: the settings of the data.
      frozen: the autoencoder whose latents were encoded beforehand; None: there are frames.
      representation_size: of the latents' records.
    """
    if frozen is not None:
        shape = (data.context_views, *frozen.latent_shape)
        return latents.entry_of(np.zeros((), latents.record_type(shape, representation_size)))
    # How views are chosen does not change their number.
    data = dataclasses.replace(data, selection="gap", view_index="")
    entry = assemble.scene_entry([_black_frames(data)], data, 0, rng=None, cache=FrameCache(0))
    return entry if data.view_draws is None else entry | {"draw": np.int32(0)}


def _black_frames(data: DataSettings) -> Example:
    """A walk past black frames, as many as a batch needs."""
    frames = data.plan.frames_needed
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 0, 3] = np.arange(frames)
    return Example(
        key="example",
        images=np.zeros((frames, data.height, data.width, 3), np.uint8),
        world_from_cam=poses,
        intrinsics=np.ones((frames, 4)),
        sizes=np.tile([data.height, data.width], (frames, 1)),
        timestamps=np.arange(frames),
        frame_names=tuple(map(str, range(frames))),
    )


def table(estimate: Estimate, train: training_settings.TrainSettings) -> str:
    """What a device needs, a line for each part."""
    rows = {
        "parameters": estimate.parameters,
        "their average": estimate.average,
        "optimizer": estimate.optimizer,
        "frozen autoencoder": estimate.constants,
        "batches in flight": estimate.batch,
        "padding of these": estimate.padding,
        "activations, gradients": estimate.temporaries,
        "other results": estimate.outputs,
        "program": estimate.code,
        "on each device": estimate.total,
    }
    lines = [f"  {name:24}{planning.readable(size):>14}" for name, size in rows.items() if size]
    per_scene = estimate.flops / train.batch_size
    text = f"  {estimate.flops:.3g} FLOPs of matrix products a step, {per_scene:.3g} a scene"
    if estimate.flops_of_compiler is not None:
        text += f"; XLA counts {estimate.flops_of_compiler:.3g} on each device, a loop once"
    lines.append(text)
    lines += _sent(estimate)
    return "\n".join([*lines, f"  compiled in {estimate.seconds:.0f} s"])


def _sent(estimate: Estimate) -> list[str]:
    """What a device sends to others in a step, the sum and a line for each kind."""
    rows = estimate.communication
    if not rows:
        return []
    total = sum(row["sent_bytes"] for row in rows)
    lines = [f"  {'sent by each device':24}{planning.readable(total):>14} a step"]
    for row in rows:
        kind = f"{row['kind']} over {row['axes']}"
        count = f"{row['count']} of them" + ("" if row["bounded"] else ", at least")
        lines.append(f"    {kind:36}{planning.readable(row['sent_bytes']):>14} ({count})")
    return lines


def verdict(estimate: Estimate, target: Target) -> str:
    """Whether it fits, in a sentence."""
    fits = "fits" if estimate.fits(target.memory) else "does not fit"
    count = len(target.devices)
    text = (
        f"{fits}: {planning.readable(estimate.total)} of {planning.readable(target.memory)} "
        f"({target.note}) on " + (f"each of {count} devices" if count > 1 else "one device")
    )
    return f"{text}\nthe compiler says: {estimate.refused}" if estimate.refused else text


def _suggestion(tried: list[Tried], target: Target) -> str:
    last = tried[-1] if tried else None
    if last and last.estimate and last.estimate.fits(target.memory):
        return f"{verdict(last.estimate, target)} with\n  {planning.flags(last.changes)}"
    return (
        "none was found that keeps the batch; take more devices, or fewer scenes (--largest-batch)"
    )


def _largest(
    tried: list[Tried],
    first: Estimate,
    train: training_settings.TrainSettings,
    target: Target,
) -> str:
    sizes = {train.batch_size: first}
    sizes |= {each.changes["training.batch_size"]: each.estimate for each in tried}
    fitting = [size for size, estimate in sizes.items() if estimate.fits(target.memory)]
    if not fitting:
        return "no batch fits, not even the smallest"
    return f"the largest batch that fits: --config.training.batch_size={max(fitting)}"


def _caveats(target: Target) -> str:
    text = "Evaluations and the pictures that they write are not included."
    if target.simulated:
        text += (
            " Compiled for a CPU: other devices fuse operations and lay out arrays in their own "
            "ways, so activations may take more or less there; the rest is exact."
        )
    if target.platform == "cuda":
        text += " Compiled without a GPU at hand, cuDNN's and cuBLAS's own buffers are a guess."
    return text


def _plan(config: Config, target: Target, first: Estimate, tried: list[Tried]) -> dict[str, Any]:
    """Everything that was found out, for JSON."""

    def found(changes: Changes, estimate: Estimate | None) -> dict[str, Any]:
        if estimate is None:
            return {"changes": dict(changes), "fits": False}
        numbers = dataclasses.asdict(estimate)
        fits = estimate.fits(target.memory)
        return {"changes": dict(changes), "fits": fits, "total": estimate.total} | numbers

    return {
        "devices": target.name,
        "platform": target.platform,
        "number": len(target.devices),
        "memory": target.memory,
        "jax": jax.__version__,
        "as_configured": found({}, first),
        "tried": [found(each.changes, each.estimate) for each in tried],
        "config": config,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", required=True, help="file of the configuration, such as configs/vae.py:paper")
    add("--devices", help=f"what to plan for: a number, or one of {planning_targets.known()}")
    add("--memory", help="of each device, such as 80GiB; default: what is known of it")
    add(
        "--autoencoder-config",
        help="of stage 2: the configuration of stage 1; default: that of the run in "
        "config.autoencoder",
    )
    add("--largest-batch", action="store_true", help="look for the largest batch that fits, too")
    add(
        "--no-suggest",
        dest="suggest",
        action="store_false",
        help="only say whether it fits as configured",
    )
    add("--json", metavar="FILE", help="write all numbers there")
    return parser
