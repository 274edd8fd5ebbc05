"""python -m lgs_jax latent-stats: mean and standard deviation of an autoencoder's latents.

Computed over training scenes of the autoencoder's own data and kept as latent_stats.json in its
workdir, where stage 2 and sampling look for them. (A run of configs/diffusion.py does this by
itself where the file is missing.)
"""

import argparse

from absl import flags

from lgs_jax import settings
from lgs_jax.cli import reporting
from lgs_jax.data import pipeline, report
from lgs_jax.inference import load
from lgs_jax.training import checkpoint, workdir


def main(arguments: list[str]) -> int:
    """Computes the statistics, or says that they are there."""
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax latent-stats",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--autoencoder", required=True, help="workdir of a run of configs/vae.py")
    parser.add_argument("--data-root", help="where its data lies now; default: as in its run")
    parser.add_argument("--num-scenes", type=int, default=load.STATS_SCENES)
    parser.add_argument("--again", action="store_true", help="even if they are there")
    options = parser.parse_args(arguments)
    if options.num_scenes < 1:
        parser.error(f"--num-scenes={options.num_scenes} must be at least 1")
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    try:
        saved = load.open_autoencoder(options.autoencoder)
        data = saved.data_settings(root=options.data_root)
        source = pipeline.make_source(data, "train")
        stats = load.ensure_stats(
            saved, source, data, num_scenes=options.num_scenes, again=options.again
        )
    except (
        settings.SettingsError,
        report.DataError,
        checkpoint.CheckpointError,
        workdir.WorkdirError,
    ) as error:
        return reporting.fail(error)
    print(f"{'channel':>7}  {'mean':>9}  {'std':>9}")
    for channel, (mean, std) in enumerate(zip(stats.mean, stats.std, strict=True)):
        print(f"{channel:>7}  {mean:>9.4f}  {std:>9.4f}")
    return 0
