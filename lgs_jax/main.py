"""Trains: `python -m lgs_jax.main --config=configs/vae.py [--workdir=runs/vae]`.

Stage 2 needs stage 1: `--config=configs/diffusion.py --config.autoencoder=runs/vae`.
Any value of the configuration can be given, `--config.training.num_steps=2000`; if several are
for one key, the last one counts. The same command continues a run that was stopped; SIGTERM or
Ctrl-C saves and leaves with status 75. Traces of some steps: `--config.profile=100:105`
(docs/profiling.md).
"""

import functools
import signal
import sys

if __name__ == "__main__":
    # Ctrl-C may end the program while the rest is imported, which takes seconds: nothing has begun.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import app, flags
from ml_collections import config_flags

from lgs_jax import settings
from lgs_jax.cli import flag_parsing, interrupts, reporting
from lgs_jax.data import pipeline, report
from lgs_jax.inference import training_parts, visuals
from lgs_jax.rendering.splat import dispatch
from lgs_jax.tasks import drawing
from lgs_jax.training import checkpoint, compilation_cache, loop, mesh, preemption, processes
from lgs_jax.training import settings as training_settings
from lgs_jax.training import workdir as workdirs

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
        run(config, WORKDIR.value or workdirs.default(name), stop)
    except (processes.LostProcessError, checkpoint.CheckpointError) as error:
        # The ordinary end would wait for who is lost, and let what a failed save has left complain.
        lost = isinstance(error, processes.LostProcessError)
        status = reporting.fail(error, processes.EXIT_STATUS if lost else 1)
        sys.stdout.flush()
        processes.end_at_once(status)
    except (settings.SettingsError, report.DataError, *loop.ERRORS) as error:
        sys.exit(reporting.fail(error))


def run(config: dict, workdir: str, stop: preemption.StopSignal) -> None:
    """Checks the configuration, joins the job, then trains."""
    train = training_settings.from_config(config)
    data = settings.build(pipeline.DataSettings, config["data"], "config.data")
    mesh.check_scenes(train.mesh, views=data.context_views, height=data.height)
    if DISTRIBUTED.value:
        processes.join(train.heartbeat_seconds)
    print(compilation_cache.enable(), flush=True)
    parts = training_parts.open_parts(config, train, data)
    loop.train(
        parts.task,
        train,
        workdir=workdir,
        config_json=parts.config,
        train_batches=parts.train_batches,
        eval_batches=parts.eval_batches,
        write_visuals=visuals.write_visuals,
        constants=parts.constants,
        stop=stop,
        images_per_scene=data.context_views + data.target_views,
        data_report=parts.data_report,
        choices=dispatch.choices,
        advise=functools.partial(drawing.advice, config),
    )


if __name__ == "__main__":
    interrupts.outlive_readers()
    # Otherwise absl shows Orbax's notes on every file, and they drown the progress.
    arguments = [sys.argv[0], "--verbosity=-1", *sys.argv[1:]]
    app.run(main, argv=arguments, flags_parser=flag_parsing.parse)
