"""python -m lgs_jax extract-frames: RealEstate10K's frames, out of the videos that you could get.

The data set is text files; the videos have to be got from YouTube, as <video id>.mp4 in one folder.
The frame nearest to each timestamp is written as a JPEG file in the layout that
`--config.data.source=realestate10k` reads. videos.json lists the videos that are missing and the
clips that reach beyond theirs. The same command continues where it was stopped.

  python -m lgs_jax extract-frames --texts=RealEstate10K --videos=videos --output=data/re10k \\
      --short-side=256
"""

import argparse
import os
import pathlib

from lgs_jax import files
from lgs_jax.cli import reporting
from lgs_jax.data import clips


def main(arguments: list[str]) -> int:
    """Extracts what is missing; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.short_side is not None and options.short_side < 16:
            raise ValueError(f"--short-side={options.short_side} must be at least 16")
        outcome = clips.extract(
            *(pathlib.Path(p).expanduser() for p in (options.texts, options.videos)),
            files.local(options.output, "--output"),
            short_side=options.short_side,
            num_workers=options.workers or os.cpu_count() or 1,
            say=lambda text: print(text, flush=True),
        )
    except (ValueError, OSError) as error:  # DataError among them
        return reporting.fail(error)
    print(outcome.summary())
    print(f"details in {pathlib.Path(options.output).expanduser() / clips.MANIFEST}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax extract-frames",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--texts", required=True, help="folder of <split>/<id>.txt")
    add("--videos", required=True, help="folder of <video id>.mp4, .webm, ...")
    add("--output", required=True, help="folder to write to")
    add("--short-side", type=int, help="reduce larger frames to this; default: keep them")
    add("--workers", type=int, help="clips at a time; default: one a core")
    return parser
