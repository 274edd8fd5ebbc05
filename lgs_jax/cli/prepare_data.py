"""python -m lgs_jax prepare-data: checks a data set once and packs it into a few large files.

The result is read with `--config.data.source=packed --config.data.root=OUTPUT`, from a local disk
or an object store. Bad frames and scenes are left out and reported; images are kept as they are
stored unless --short-side or a mask, a lens or a turned image asks for more. The same command
continues where it was stopped.

  python -m lgs_jax prepare-data --source=realestate10k --root=data/re10k --output=packed/re10k \\
      --short-side=128
  python -m lgs_jax prepare-data --source=procedural --num-scenes=2000 --output=packed/rooms
  python -m lgs_jax prepare-data --source=splats --root=captures --draws=20 --output=packed/splats

`photos` are videos and folders of images without poses, which are computed first (extra `photos`).
`splats` are .ply (plain or compressed), .splat, .spz and .glb files, rendered along arcs around
their middle.
"""

import argparse
import os

from lgs_jax.cli import flag_parsing, reporting
from lgs_jax.data import opening, prepare, report
from lgs_jax.data.settings import DataSettings
from lgs_jax.training import compilation_cache

# Options of scenes that are made: their defaults, and the sources that have them.
_MADE = {
    "num_frames": (16, ("procedural", "splats")),
    "size": (64, ("procedural", "splats")),
    "kind": ("mixed", ("procedural",)),
    "draws": (1, ("splats",)),
    "up": ("-y", ("splats",)),
}


def main(arguments: list[str]) -> int:
    """Prepares what is missing; returns the exit status."""
    options = _parser().parse_args(flag_parsing.with_axes(arguments))
    try:
        run(options)
    except (ValueError, OSError) as error:  # DataError among them
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Prepares, and says what was left out and how to use the rest."""
    _check_made(options)
    wanted = prepare.Options(
        short_side=options.short_side,
        codec=options.codec,
        quality=options.quality,
        min_frames=options.min_frames,
        num_scenes=options.num_scenes,
        background=options.background,
        masks=options.masks,
        exif=options.exif,
        on_bad=options.on_bad,
    )
    found = prepare.prepare(
        options.output,
        _supplier(options, wanted),
        wanted,
        scenes_per_shard=options.scenes_per_shard,
        num_workers=_workers(options),
        retry=options.retry,
        say=lambda text: print(text, flush=True),
    )
    print(found.summary(limit=options.show))
    print(f"train with --config.data.source=packed --config.data.root={options.output}")


def _workers(options: argparse.Namespace) -> int:
    if options.source == "splats":
        if options.workers:
            raise ValueError("--workers has no effect on splats, which this process renders")
        return 0
    return os.cpu_count() or 1 if options.workers is None else options.workers


def _check_made(options: argparse.Namespace) -> None:
    """Refuses options of made scenes that the source does not have; fills in the others."""
    for name, (default, sources) in _MADE.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
        elif options.source not in sources:
            flag = "--" + name.replace("_", "-")
            raise ValueError(
                f"{flag} has no effect on {options.source}; it is for {' and '.join(sources)}"
            )
    if options.source in ("procedural", "splats") and (options.masks, options.exif) != (
        prepare.Options.masks,
        prepare.Options.exif,
    ):
        raise ValueError(
            f"--masks and --exif have no effect on {options.source}, whose pictures are made"
        )
    if options.source == "photos" and (options.background, options.exif) != (
        prepare.Options.background,
        prepare.Options.exif,
    ):
        raise ValueError(
            "--background and --exif have no effect on photos, which are seen upright and before "
            "black as their poses were computed"
        )


def _supplier(options: argparse.Namespace, wanted: prepare.Options) -> prepare.Supplier:
    if options.source == "splats":
        return _rendered(options)
    if options.source != "procedural":
        if not options.root:
            raise ValueError(f"--root is missing; give the folder of the {options.source} data")
        reader = opening.make_reader(options.source, options.root)
        listed = opening.read_drop_frames(options.root, options.drop_frames, reader.keys)
        return prepare.FromReader(reader, wanted, listed)
    if options.root or options.drop_frames:
        raise ValueError("--root and --drop-frames have no effect on procedural scenes")
    settings = DataSettings(
        source="procedural",
        num_scenes=options.num_scenes,
        num_frames=options.num_frames,
        height=options.size,
        width=options.size,
        context_views=2,
        target_views=1,
        kind=options.kind,
    )
    made_of = f"procedural, kind={options.kind}, {options.num_frames} frames of {options.size}"
    return prepare.FromSource(opening.make_source(settings, "train"), made_of)


def _rendered(options: argparse.Namespace) -> prepare.Supplier:
    from lgs_jax.inference import splat_views  # the only source that needs JAX

    if not options.root or options.drop_frames or options.num_scenes:
        raise ValueError(
            "splats need --root, a folder of .ply, .splat, .spz or .glb files, and take --draws "
            "instead of --num-scenes and --drop-frames"
        )
    print(compilation_cache.enable(), flush=True)
    source = splat_views.SplatViews(
        options.root,
        num_frames=options.num_frames,
        size=options.size,
        draws=options.draws,
        up=options.up,
        background={"black": 0.0, "white": 1.0}[options.background],
        on_bad=options.on_bad,
    )
    made_of = (
        f"splats, {options.draws} arcs of {options.num_frames} frames of {options.size}, up "
        f"{options.up}, {options.background} background"
    )
    return prepare.FromSource(source, made_of, f"splats at {options.root}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax prepare-data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = prepare.Options()
    add = parser.add_argument
    add("--source", required=True, choices=(*opening.READERS, "procedural", "splats"))
    add("--root", default="", help="folder of the data, or a video")
    add("--output", required=True, help="folder to write to, local or gs://, s3://")
    add("--short-side", type=int, help="reduce larger images to this; default: keep them")
    add("--codec", choices=prepare.CODECS, default=defaults.codec, help="of changed images")
    add("--quality", type=int, default=defaults.quality, help="of changed JPEG images")
    add("--min-frames", type=int, default=defaults.min_frames, help="least frames of a scene")
    add("--num-scenes", type=int, help="only so many scenes; needed for procedural ones")
    add("--background", choices=("black", "white"), default=defaults.background)
    add("--masks", choices=("ignore", "black", "white"), default=defaults.masks)
    add("--exif", choices=("auto", "apply", "ignore"), default=defaults.exif)
    add("--drop-frames", default="", help="JSON file {scene: [frames]}, relative to the root")
    add("--on-bad", choices=report.POLICIES, default=defaults.on_bad)
    add("--retry", action="store_true", help="look again at shards that left something out")
    add("--num-frames", type=int, help="of a procedural scene, or of splats; default: 16")
    add("--size", type=int, help="sides of procedural images, or of splats; default: 64")
    add("--draws", type=int, help="scenes of each splat file; default: 1")
    add("--up", metavar="AXIS", help="where up is in splat files, as --up=-z; default: -y")
    add("--kind", help="of procedural scenes; default: mixed")
    add("--workers", type=int, help="processes; default: one a core; 0: none")
    add("--scenes-per-shard", type=int, default=64, help="scenes to a file")
    add("--show", type=int, default=20, help="findings to print; all are in the shards' lists")
    return parser
