"""python -m lgs_jax benchmark check-data: does check-data find out what is wrong with photographs?

Takes scenes that are good, breaks each in memory in 19 ways (inverse matrices, axes of another
program, flips, wrong focal lengths, lost frames and poses, ...) and makes the checks of check-data,
on the scene as it is and on each broken one. What counts as right:

  as it is   nothing is called a fault; warnings and notes may be
  broken     the break is named by its kind, with the factor or order that mends it and, of a single
             frame, with that frame; nothing else is called a fault. What is said of the scene as
             it is, too, does not count

so a scene that has a fault of its own can only be wrong. Of each scene the frames in its middle are
taken. Where they have too few points in common, splats are fitted as check-data does, unless
--no-fit says otherwise. --splats leaves the points out and tests the fits alone, on the scene as it
is and the six breaks that they can tell.

Prints a table of Markdown; progress and what is not right go to stderr.

  python -m lgs_jax benchmark check-data --data-root=data/re10k --scenes=6
  python -m lgs_jax benchmark check-data --data-root=captures --scene fox --scene castle
"""

import argparse
import dataclasses
import difflib
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lgs_jax.cli import check_data, reporting
from lgs_jax.data import detect, opening, progress, report
from lgs_jax.data.checks import breaking, features
from lgs_jax.data.checks import scene as scene_check
from lgs_jax.data.checks.conventions import FileConvention
from lgs_jax.data.checks.scene import Fault
from lgs_jax.data.example import Example
from lgs_jax.data.split import subset
from lgs_jax.inference import pose_fit

AS_IS = "as it is"
_FRAMES = 16
_SCENES = 4


@dataclasses.dataclass(frozen=True)
class Result:
    """How a scene fared.

    Attributes:
      key: of the scene.
      frames: that were looked at.
      points: in common in the scene as it is; 0 where splats alone are tested.
      tested_with: "points" or, where they are too few, "splats" or "nothing".
      mistakes: what is wrong about the findings, by the title of the case; empty if they are right.
      kinds: of all findings, by the title of the case.
      seconds: that it took.
    """

    key: str
    frames: int
    points: int
    tested_with: str
    mistakes: dict[str, str]
    kinds: dict[str, list[str]]
    seconds: float

    @property
    def right(self) -> int:
        """In how many cases the findings are right."""
        return sum(not text for text in self.mistakes.values())


def main(arguments: list[str]) -> int:
    """Checks and prints; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.scenes is not None and options.scenes < 1:
        parser.error(f"--scenes={options.scenes} must be at least 1")
    if options.frames < breaking.MIN_FRAMES:
        parser.error(f"--frames={options.frames} must be at least {breaking.MIN_FRAMES}")
    if options.splats and options.no_fit:
        parser.error("--no-fit leaves nothing of --splats; give one of them")
    try:
        run(options)
    except (ValueError, OSError) as error:  # DataError among them
        return reporting.fail(error)
    return 0


def run(options: argparse.Namespace) -> None:
    """Breaks and checks every scene asked for, one after another."""
    if not options.splats and not features.available():
        raise ValueError(
            "points in common are found with OpenCV, which is not installed: pip install "
            "'lgs_jax[check]', or test the fits of splats alone with --splats"
        )
    found = detect.detect(options.data_root) if options.source is None else None
    source, root = (found.source, found.root) if found else (options.source, options.data_root)
    keys, examine = check_data.open_scenes(source, root)
    convention = check_data.convention_of(source)
    chosen = choose(keys, options.scene, options.scenes)
    titles = [AS_IS, *(each.title for each in _breaks(convention, options.splats))]
    print(f"format {source}; {len(chosen)} scenes, {len(titles)} cases each", file=sys.stderr)
    ahead = progress.Progress(len(chosen) * len(titles), "cases", _say, every_s=5.0)
    results = []
    for key in chosen:
        example = _example(key, examine(key), options.frames)
        results.append(try_scene(example, convention, options, ahead))
        for title, text in results[-1].mistakes.items():
            if text:
                _say(f"{key}, {title}: {text}")
        if options.json:
            print(json.dumps(dataclasses.asdict(results[-1])), flush=True)
    if not options.json:
        print(table(results))


def choose(keys: Sequence[str], asked: Sequence[str] | None, count: int | None) -> list[str]:
    """The scenes asked for, by key or its last part; without any, `count` of all (None: 4 or all).

    Raises:
      ValueError: if one does not exist, or fewer than `count` do.
    """
    if not asked:
        if count is None:
            return subset(keys, min(_SCENES, len(keys)))
        if count > len(keys):
            raise ValueError(f"--scenes={count}, but there are {len(keys)}; ask for no more")
        return subset(keys, count)
    chosen = []
    for name in asked:
        fits = [key for key in keys if key == name] or [
            key for key in keys if key.split("/")[-1] == name
        ]
        if len(fits) != 1:
            close = difflib.get_close_matches(name, keys, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"one is {keys[0]!r}"
            raise ValueError(f"--scene={name} names {len(fits)} of the {len(keys)} scenes; {hint}")
        chosen += fits
    return chosen


def _example(key: str, examined: Any, frames: int) -> Example:
    """The middle frames of a scene, with their pictures in memory."""
    if examined.example is None:
        reasons = "; ".join(str(finding) for finding in examined.findings)
        raise report.DataError(f"scene {key} cannot be used: {reasons}")
    scene = examined.example
    if len(scene) < breaking.MIN_FRAMES:
        raise report.DataError(
            f"scene {key} has {len(scene)} frames; breaking one takes {breaking.MIN_FRAMES}"
        )
    example = scene_check.frames_of(scene, scene_check.middle(scene, frames))
    return dataclasses.replace(example, images=[np.asarray(image) for image in example.images])


def try_scene(
    example: Example,
    convention: FileConvention,
    options: argparse.Namespace,
    ahead: progress.Progress,
) -> Result:
    """The checks of one scene [F frames in memory], as it is and broken."""
    began, remember = time.monotonic(), _Remembering()
    before, points, tested = _findings(example, convention, options, remember)
    mistakes = {AS_IS: breaking.mistake(example, before, None)}
    kinds = {AS_IS: [fault.kind for fault in before]}
    ahead.add()
    for each in _breaks(convention, options.splats):
        faults, *_ = _findings(each.apply(example), convention, options, remember)
        mistakes[each.title] = breaking.mistake(example, faults, each, before)
        kinds[each.title] = [fault.kind for fault in faults]
        ahead.add()
    seconds = time.monotonic() - began
    return Result(example.key, len(example), points, tested, mistakes, kinds, seconds)


def _breaks(convention: FileConvention, by_splats: bool) -> list[breaking.Break]:
    return [each for each in breaking.breaks(convention) if each.by_splats or not by_splats]


def _findings(
    example: Example,
    convention: FileConvention,
    options: argparse.Namespace,
    match: features.Matcher,
) -> tuple[list[Fault], int, str]:
    """What check-data says of a scene, its points in common, and what tested its poses."""
    if options.splats:
        found = pose_fit.faults(example, convention)
        return found, 0, check_data.tested_by_fits(found)
    checked = scene_check.check(example, convention, len(example), match)
    points = sum(map(len, checked.matches))
    if checked.fit is not None:
        return checked.faults, points, "points"
    if options.no_fit:
        return checked.faults, points, "nothing"
    found = pose_fit.faults(example, convention)
    return checked.faults + found, points, check_data.tested_by_fits(found)


class _Remembering:
    """`features.match`, which takes most of the time, once for breaks that leave the pictures."""

    def __init__(self) -> None:
        self._found: dict[bytes, list[features.Matches]] = {}

    def __call__(
        self, images: Sequence[np.ndarray], pairs: Iterable[tuple[int, int]]
    ) -> list[features.Matches]:
        digest = hashlib.sha256()
        for image in images:
            digest.update(str(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        if digest.digest() not in self._found:
            self._found[digest.digest()] = features.match(images, pairs)
        return self._found[digest.digest()]


def table(results: Sequence[Result]) -> str:
    """The results as a table of Markdown, with a last line for all of them."""
    lines = [
        "| scene | frames | points in common | tested with | right | not right | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        missed = "; ".join(f"{title} ({text})" for title, text in result.mistakes.items() if text)
        points = f"{result.points:,}" if result.points else ""
        lines.append(
            f"| {result.key} | {result.frames} | {points} | {result.tested_with} | {result.right} "
            f"of {len(result.mistakes)} | {missed} | {result.seconds:.0f} |"
        )
    right, cases = sum(r.right for r in results), sum(len(r.mistakes) for r in results)
    seconds = sum(result.seconds for result in results)
    lines.append(f"| all {len(results)} | | | | {right} of {cases} | | {seconds:.0f} |")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lgs_jax benchmark check-data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data-root", required=True, help="folder or file of good scenes")
    add("--source", choices=(*opening.READERS, "packed"), help="format; default: found out")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--scenes", type=int, help="how many of them; default: 4, or all of fewer")
    which.add_argument("--scene", action="append", metavar="KEY", help="this one; may be repeated")
    add("--frames", type=int, default=_FRAMES, help="of each, in its middle; default: 16")
    add("--no-fit", action="store_true", help="do not fit splats where points are too few")
    add("--splats", action="store_true", help="test fits of splats alone, without points")
    add("--json", action="store_true", help="one JSON object a line, for each scene")
    return parser
