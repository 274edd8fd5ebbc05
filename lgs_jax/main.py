"""Trains: `python -m lgs_jax.main --config=configs/vae.py [--workdir=runs/vae]`.

Stage 2 needs stage 1: `--config=configs/diffusion.py --config.autoencoder=runs/vae`.
Any value of the configuration can be given: `--config.training.num_steps=2000`. The same command
continues a run that was stopped; SIGTERM or Ctrl-C saves and leaves with status 75. Traces of some
steps: `--config.profile=100:105` (docs/profiling.md).
"""

import functools
import os
import pathlib
import signal
import sys
from typing import Any

if __name__ == "__main__":
    # Ctrl-C may end the program while the rest is imported, which takes seconds: nothing has begun.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import jax
from absl import app, flags
from ml_collections import config_flags

from lgs_jax import settings, tasks
from lgs_jax.cli import flag_parsing, interrupts, reporting
from lgs_jax.data import pipeline, report
from lgs_jax.inference import encode_latents, load, visuals
from lgs_jax.rendering.splat import dispatch
from lgs_jax.tasks import drawing
from lgs_jax.training import compilation_cache, loop, mesh, preemption, processes
from lgs_jax.training import settings as training_settings

# New keys are let through here; the settings classes refuse unknown ones and know the defaults.
CONFIG = config_flags.DEFINE_config_file("config", lock_config=False, accept_new_attributes=True)
WORKDIR = flags.DEFINE_string("workdir", "", "Where to write; default: runs/<config>[-variant].")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other processes of this job.")


def main(argv: list[str]) -> None:
    """Runs one training; no traceback where the message says all."""
    config = flag_parsing.read(CONFIG)
    if config is None or argv[1:]:
        wrong = f"unknown argument {argv[1]}" if argv[1:] else "no --config"
        print(f"error: {wrong}\n\n{__doc__}", file=sys.stderr)
        sys.exit(2)
    name = config_flags.get_config_filename(flags.FLAGS["config"])
    stop = preemption.StopSignal().install()
    try:
        if not DISTRIBUTED.value:
            train = training_settings.from_config(config)
            mesh.split_cpu(train.mesh, train.microbatch_size, train.evaluation_batch_size)
        run(config, WORKDIR.value or default_workdir(name), stop)
    except processes.LostProcessError as error:
        reporting.fail(error)
        processes.end_at_once(processes.EXIT_STATUS)
    except (settings.SettingsError, report.DataError, *loop.ERRORS) as error:
        sys.exit(reporting.fail(error))


def run(config: dict, workdir: str, stop: preemption.StopSignal) -> None:
    """Checks the configuration, joins the job, then trains."""
    train = training_settings.from_config(config)
    data = settings.build(pipeline.DataSettings, config["data"], "config.data")
    if DISTRIBUTED.value:
        processes.join(train.heartbeat_seconds)
    print(compilation_cache.enable(), flush=True)
    source, held_out = sources = [pipeline.make_source(data, split) for split in ("train", "eval")]
    print(*(each.report.summary() for each in sources), sep="\n", flush=True)
    constants, record = load.frozen_parts(config, source, data)
    latents = encode_latents.of_run(config, source, data)
    if config.get("model", {}).get("representation_size"):
        record |= encode_latents.representations(latents, source)
    host = {"host_index": jax.process_index(), "host_count": jax.process_count()}
    batches = {"latents": latents, "seed": train.seed, "batch_size": train.batch_size} | host
    evaluation = {"batch_size": train.evaluation_batch_size, "num_scenes": train.eval_scenes} | host
    loop.train(
        _make_task(config | record, constants),
        train,
        workdir=workdir,
        config_json=config | record,
        train_batches=lambda s: pipeline.train_batches(source, data, start_step=s, **batches),
        eval_batches=lambda: pipeline.eval_batches(held_out, data, **evaluation),
        write_visuals=visuals.write_visuals,
        constants=constants,
        stop=stop,
        images_per_scene=data.context_views + data.target_views,
        data_report={"train": source.report.to_json(), "eval": held_out.report.to_json()},
        choices=dispatch.choices,
        advise=functools.partial(drawing.advice, config),
    )


def _make_task(config: dict, constants: tuple) -> Any:
    """The task; what its parts lack on this machine, such as weights of a loss, is an error too."""
    chosen = os.environ.get(dispatch.ENVIRONMENT)
    if chosen and chosen not in dispatch.IMPLEMENTATIONS:  # noticed by the first step only
        raise settings.SettingsError(
            f"{dispatch.ENVIRONMENT}={chosen!r} must be one of "
            f"{', '.join(dispatch.IMPLEMENTATIONS)}, or left out"
        )
    try:
        return tasks.make_task(config["task"], config, *constants)
    except (ValueError, OSError) as error:
        raise settings.SettingsError(str(error)) from error


def default_workdir(config_name: str) -> str:
    """runs/vae for configs/vae.py, runs/vae-small for configs/vae.py:small."""
    file, _, variant = config_name.partition(":")
    return str(pathlib.Path("runs", "-".join(filter(None, (pathlib.Path(file).stem, variant)))))


if __name__ == "__main__":
    interrupts.outlive_readers()
    # Otherwise absl shows Orbax's notes on every file, and they drown the progress.
    arguments = [sys.argv[0], "--verbosity=-1", *sys.argv[1:]]
    app.run(main, argv=arguments, flags_parser=flag_parsing.parse)
