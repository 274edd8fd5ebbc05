"""python -m lgs_jax check-data PATH: are these photographs and poses what they claim to be?

Finds out the format, reads every scene's cameras and files, and looks closely at a few scenes:
points that frames have in common must lie where the poses put them. Where they do not, the usual
mistakes are tried (inverse matrices, another program's axes, a flipped axis, quaternion order,
focal length, frames out of step, single lost frames) and the one that explains it is named. Also:
repeated frames, repeated poses, exposure jumps, blur, missing parallax. Points are found with
OpenCV (pip install 'lgs_jax[check]'); without it, or without texture, small splat models are fitted
under the likeliest readings of the poses and compared at held-out views.

Writes verdict.json, a picture of each scene looked at, and drop_frames.json where single frames are
at fault, for --config.data.drop_frames. Exit status: 0 without faults (the verdict is then "good",
or "untested" where no scene's poses could be tested), 1 with, 2 if the data cannot be read at all.

Videos and folders of images without poses are checked too, once their poses are computed.

  python -m lgs_jax check-data data/my_capture
"""

import argparse
import dataclasses
import pathlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import numpy as np

from lgs_jax import files
from lgs_jax.cli import reporting
from lgs_jax.data import detect, opening, progress, report, scan
from lgs_jax.data.checks import features, pictures
from lgs_jax.data.checks import scene as scene_check
from lgs_jax.data.checks.conventions import FileConvention
from lgs_jax.data.example import Example
from lgs_jax.data.split import subset

_THREADS = 8
_AHEAD = 64  # scenes
_SAY_EVERY_S = 5.0
_DROP_FRAMES = "drop_frames.json"
_GL = np.diag([1.0, -1.0, -1.0])
_CONVENTIONS = {
    "transforms": FileConvention(cam_from_world=False, axes=_GL),
    # LLFF's axes are down, right, back.
    "llff": FileConvention(False, np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])),
    "packed": FileConvention(cam_from_world=False),
}


def main(arguments: list[str]) -> int:
    """Checks, prints and writes; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return run(options)
    except (ValueError, OSError) as error:  # DataError among them
        return reporting.fail(error, 2)


def run(options: argparse.Namespace) -> int:
    """The check; 0 without faults, else 1."""
    if options.scenes < 1 or options.frames < 2:
        raise ValueError(f"{options.scenes=} must be at least 1 and {options.frames=} at least 2")
    output = files.local(options.output, "--output")
    if output.is_dir() and any(output.iterdir()) and not options.overwrite:
        raise FileExistsError(f"{output} is not empty; choose another --output, or --overwrite")
    found = detect.detect(options.path) if options.source is None else None
    source, root = (found.source, found.root) if found else (options.source, options.path)
    print(f"{options.path}: format {source}")
    keys, examine = open_scenes(source, root)
    output.mkdir(parents=True, exist_ok=True)
    listed = report.Report(f"{source} at {root}", scenes_found=len(keys))
    looked_at = set(subset(keys, options.scenes))
    scenes: list[dict[str, Any]] = []
    chosen = keys if options.all_files else sorted(looked_at)
    for key, examined in _examined(chosen, examine):
        listed.frames_found += examined.found
        listed.findings += examined.findings
        if examined.example is None:
            continue
        listed.scenes_kept += 1
        listed.frames_kept += len(examined.example)
        if key not in looked_at:
            continue
        try:
            scenes.append(_check_scene(key, examined.example, source, options, output))
        except report.DataError as error:  # of a picture that cannot be decoded
            listed.findings.append(report.Finding(key, str(error)))
    faults = sum(fault["level"] == "fault" for s in scenes for fault in s["faults"])
    faults += len(listed.findings)
    tested = sum(entry["tested_with"] != "nothing" for entry in scenes)
    verdict = {
        "path": str(options.path),
        "format": source,
        "verdict": "faults" if faults else "good" if tested else "untested",
        "scenes_found": len(keys),
        "scenes_read": listed.scenes_found if options.all_files else len(looked_at),
        "scenes": scenes,
        "unusable": [dataclasses.asdict(finding) for finding in listed.findings],
    }
    files.write_json(output / "verdict.json", verdict)
    _write_drop_frames(scenes, output / _DROP_FRAMES)
    _summarise(verdict, listed, output)
    return 1 if faults else 0


def _write_drop_frames(scenes: list[dict[str, Any]], path: pathlib.Path) -> None:
    """The frames that faults name, as `data.drop_frames` takes them; no file if there are none."""
    listed = {
        entry["key"]: sorted(
            {name for f in entry["faults"] if f["level"] == "fault" for name in f["frames"]}
        )
        for entry in scenes
    }
    listed = {key: names for key, names in listed.items() if names}
    if listed:
        files.write_json(path, listed)
        print(f"to leave these frames out: --config.data.drop_frames={path.resolve()}")
    else:
        path.unlink(missing_ok=True)


def _examined(
    keys: list[str], examine: Callable[[str], scan.Examined]
) -> Iterator[tuple[str, scan.Examined]]:
    """Reads scenes ahead in their order, and says how far it is."""
    counter = progress.Progress(len(keys), "scenes read", print, every_s=_SAY_EVERY_S)
    with futures.ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(keys), _AHEAD):
            part = keys[start : start + _AHEAD]
            yield from zip(part, pool.map(examine, part), strict=True)
            counter.add(len(part))


def open_scenes(source: str, root: str) -> tuple[list[str], Callable[[str], scan.Examined]]:
    """Keys of the scenes at a root, and a function that reads and checks one of them."""
    if source == "packed":
        from lgs_jax.data import packed
        from lgs_jax.data.sources import packed as packed_source

        folder = packed_source.Folder(root)

        def examine(key: str) -> scan.Examined:
            example = packed.read_example(*folder.entries[key])
            return scan.Examined(len(example), 0, [], example)

        return list(folder.entries), examine
    reader = opening.make_reader(source, root)
    options = scan.ScanOptions(min_frames=2)
    return list(reader.keys), lambda key: scan.examine(reader, key, options)


def convention_of(source: str) -> FileConvention:
    """How the files of a format store poses."""
    return _CONVENTIONS.get(source, FileConvention(cam_from_world=True))


def tested_by_fits(found: list[scene_check.Fault]) -> str:
    """What tested a scene's poses after fits of splats found this: "splats", or "nothing"."""
    unsure = any(fault.kind in ("not_tested", "poses_not_confirmed") for fault in found)
    return "nothing" if unsure else "splats"


def _check_scene(
    key: str, example: Example, source: str, options: argparse.Namespace, output: pathlib.Path
) -> dict[str, Any]:
    """Looks at one scene, prints, and draws its picture; what to keep of it in the verdict."""
    began = time.monotonic()
    convention = convention_of(source)
    checked = scene_check.check(example, convention, options.frames)
    tested = "matches"
    if checked.fit is None and not options.no_fit:
        from lgs_jax.inference import pose_fit

        print(f"{key}: fitting splats, as there are too few points in common", flush=True)
        found = pose_fit.faults(example, convention)
        tested = tested_by_fits(found)
        checked = dataclasses.replace(checked, faults=checked.faults + found)
    elif checked.fit is None:
        tested = "nothing"
    name = re.sub(r"[^\w.-]+", "_", key) + ".png"
    with files.replacing(output / name) as partial:
        pictures.draw(checked, f"{source} scene {key}").save(partial)
    print(f"{key}: {len(example)} frames, {len(checked.images)} looked at", end="")
    print(f", {checked.fit.share:.0%} of the points in common fit" if checked.fit else "", end="")
    print(f" ({time.monotonic() - began:.0f} s)")
    for fault in checked.faults:
        print(f"  {fault}", flush=True)
    return {
        "key": key,
        "frames": len(example),
        "frames_looked_at": len(checked.images),
        "tested_with": tested,
        "points_in_common": sum(map(len, checked.matches)),
        "share_that_fits": checked.fit.share if checked.fit else None,
        "faults": [dataclasses.asdict(fault) for fault in checked.faults],
        "picture": name,
    }


def _summarise(verdict: dict[str, Any], listed: report.Report, output: pathlib.Path) -> None:
    if listed.findings:
        print(listed.summary())
    kinds: dict[str, int] = {}
    for entry in verdict["scenes"]:
        for kind in {fault["kind"] for fault in entry["faults"] if fault["level"] == "fault"}:
            kinds[kind] = kinds.get(kind, 0) + 1
    for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"{kind}: {count} of {len(verdict['scenes'])} scenes")
    if not features.available():
        print("OpenCV is not installed, so no points were compared: pip install 'lgs_jax[check]'")
    tested = sum(entry["tested_with"] != "nothing" for entry in verdict["scenes"])
    print(f"poses could be tested in {tested} of the {len(verdict['scenes'])} scenes looked at")
    print(f"verdict: {verdict['verdict']}; details and pictures in {output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax check-data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("path", help="folder or file")
    add("--source", choices=(*opening.READERS, "packed"), help="format; default: found out")
    add("--output", default="check_data", help="folder for verdict.json and pictures")
    add(
        "--overwrite",
        action="store_true",
        help="write into a folder that is not empty, in place of what an earlier check wrote",
    )
    add("--scenes", type=int, default=4, help="scenes to look at closely")
    add("--frames", type=int, default=scene_check.MAX_FRAMES, help="of each, in its middle")
    add(
        "--all-files", action=argparse.BooleanOptionalAction, default=True,
        help="read the cameras and file headers of all scenes, not only of those looked at",
    )  # fmt: skip
    add("--no-fit", action="store_true", help="do not fit splats where points are too few")
    return parser
