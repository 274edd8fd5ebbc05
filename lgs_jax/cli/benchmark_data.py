"""python -m lgs_jax benchmark data: views per second that the loader delivers.

Batches are made as in training, without decoded frames in memory, once for each number of worker
processes. Without --root, procedural scenes are packed into a temporary folder first. On a shared
machine compare ratios within one run.

  python -m lgs_jax benchmark data
  python -m lgs_jax benchmark data --source=realestate10k --root=data/re10k --workers 0 2 4
"""

import argparse
import json
import os
import sys
import tempfile
import time

import numpy as np
from absl import flags

from lgs_jax.cli import reporting
from lgs_jax.data import crops, pipeline, prepare
from lgs_jax.data.example import Source

# Of the scenes that are made where no data are given.
_SCENES, _FRAMES, _SIZE = 24, 16, 128


def main(arguments: list[str]) -> int:
    """Prints a table or JSON lines; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not 0 < options.seconds < float("inf"):
        parser.error(f"--seconds={options.seconds} must be above 0, and finite")
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags
    try:
        if options.root:
            run(options)
        else:
            with tempfile.TemporaryDirectory() as folder:
                _make(folder, options)
                options.source, options.root = "packed", folder
                run(options)
    except (ValueError, OSError) as error:  # DataError among them
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Measures and prints."""
    settings = {
        workers: pipeline.DataSettings(
            source=options.source,
            root=options.root,
            height=options.size,
            width=options.size,
            context_views=options.context_views,
            target_views=options.target_views,
            holdout=0.0,
            cache_mb=0,
            num_workers=workers,
            num_threads=options.threads,
        )
        for workers in options.workers
    }
    source = pipeline.make_source(next(iter(settings.values())), "train")
    stages = stage_times(source, options.size)
    cores = os.cpu_count() or 1
    if options.json:
        print(json.dumps({"stages_us": stages, "cores": cores}))
    else:
        print(source.report.summary(), flush=True)
        print("one view alone: " + ", ".join(f"{k} {v:.0f} us" for k, v in stages.items()))
        print(f"{cores} cores, {options.threads} threads a process")
        print(f"{'workers':>7} {'views/s':>9} {'per core':>9} {'ratio':>6}")
    first = None
    for workers, case in settings.items():
        rate = views_per_second(source, case, options.batch_size, options.seconds)
        first = first or rate
        if options.json:
            print(json.dumps({"workers": workers, "views_per_second": rate}))
        else:
            print(f"{workers:7d} {rate:9.0f} {rate / cores:9.0f} {rate / first:6.2f}", flush=True)


def views_per_second(
    source: Source, settings: pipeline.DataSettings, batch_size: int, seconds: float
) -> float:
    """Context and target views a second, after the workers have started and filled their queues."""
    batches = pipeline.train_batches(source, settings, seed=0, batch_size=batch_size)
    for _ in range(2 * (settings.num_workers + 1)):
        next(batches)
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        next(batches)
        count += 1
    rate = count * batch_size / (time.monotonic() - began)
    batches.close()
    return rate * (settings.context_views + settings.target_views)


def stage_times(source: Source, size: int, repeats: int = 200) -> dict[str, float]:
    """Median microseconds of opening a scene, decoding a frame, and cropping and resizing it."""
    examples = [source[i % len(source)] for i in range(repeats)]
    frames = [np.asarray(example.images[0]) for example in examples]

    def median(function) -> float:
        times = []
        for i in range(repeats):
            began = time.perf_counter()
            function(i)
            times.append(time.perf_counter() - began)
        return float(np.median(times) * 1e6)

    def resize(i: int) -> None:
        box = crops.centre_box(frames[i].shape[:2], 1.0)
        crops.crop_resize(frames[i], box, size, size)

    return {
        "open scene": median(lambda i: source[i % len(source)]),
        "decode": median(lambda i: np.asarray(examples[i].images[0])),
        "crop and resize": median(resize),
    }


def _make(folder: str, options: argparse.Namespace) -> None:
    """Packs a few procedural scenes."""
    settings = pipeline.DataSettings(
        source="procedural",
        num_scenes=_SCENES,
        num_frames=max(_FRAMES, options.context_views + options.target_views),
        height=_SIZE,
        width=_SIZE,
        context_views=2,
        target_views=1,
    )
    supplier = prepare.FromSource(pipeline.make_source(settings, "train"), "procedural scenes")
    print(f"packing {_SCENES} procedural scenes of {_SIZE} x {_SIZE} ...", file=sys.stderr)
    prepare.prepare(
        folder, supplier, prepare.Options(), num_workers=0, scenes_per_shard=8, say=lambda _: None
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax benchmark data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", default="packed", help="format of the data in --root")
    add("--root", default="", help="folder of the data")
    add("--size", type=int, default=96, help="height and width of the views")
    add("--context-views", type=int, default=6)
    add("--target-views", type=int, default=6)
    add("--batch-size", type=int, default=8, help="scenes to a batch")
    add("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes, one run each")
    add("--threads", type=int, default=4, help="threads of a process")
    add("--seconds", type=float, default=5.0, help="of each measurement")
    add("--json", action="store_true", help="one JSON object a line")
    return parser
