"""One scene: from frames and poses to findings that say what is wrong and what to do.

F frames.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lgs_jax.data import normalize
from lgs_jax.data.checks import conventions, features, photometry
from lgs_jax.data.checks.conventions import Bundle, FileConvention, Fit
from lgs_jax.data.checks.features import Matcher, Matches
from lgs_jax.data.example import Example

LEVELS = ("fault", "warning", "note")

MAX_FRAMES = 32
_PAIR_STEPS = (1, 2, 4, 8)
_MAX_MATCHES = 4000
_MIN_MATCHES = 60
# A reading other than the given one is believed if it fits so much better.
_SHARE_GAIN = 0.03
_COST_RATIO = 0.7
_GOOD_SHARE = 0.65
_LOST_SHARE, _REST_SHARE, _MOST_LOST = 0.4, 0.7, 0.25
# Noise of points costs 1.6 times as much where both of its dimensions count: without translations.
_TURNING_COST = 1.8
_FOCAL_FACTORS = (0.25, 1 / 3, 0.5, 2 / 3, 0.8, 1.25, 1.5, 2.0, 3.0, 4.0)
_SIZE_FACTORS = (0.25, 0.5, 2.0, 4.0)
_LARGE_SPREAD = 50.0


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong or worth knowing.

    Attributes:
      kind: a short name.
      says: what was found.
      fix: what to do.
      level: "fault": training would suffer; "warning": look at it; "note".
      frames: names of the frames concerned; empty: all.
    """

    kind: str
    says: str
    fix: str
    level: str = "fault"
    frames: tuple[str, ...] = ()

    def __str__(self) -> str:
        listed = ", ".join(self.frames[:5]) + (" ..." if len(self.frames) > 5 else "")
        return f"{self.level}: {self.says}" + (f" ({listed})" if listed else "") + f"; {self.fix}"


@dataclasses.dataclass(frozen=True)
class Checked:
    """A scene after its check.

    Attributes:
      example: the frames that were looked at.
      images: their pictures.
      matches: what they have in common; empty without OpenCV.
      faults: what was found.
      fit: of the matches under the poses as given; None if there are too few.
      reading: the reading of the poses that fits best, if another one; for the picture.
    """

    example: Example
    images: list[np.ndarray]
    matches: list[Matches]
    faults: list[Fault]
    fit: Fit | None = None
    reading: conventions.Hypothesis | None = None


def check(
    scene: Example,
    convention: FileConvention,
    max_frames: int = MAX_FRAMES,
    match: Matcher = features.match,
) -> Checked:
    """Checks neighbouring frames of a scene.

    Args:
      scene: all of it.
      convention: how its format stores poses.
      max_frames: of a longer scene so many in the middle are looked at.
      match: finds what pairs of frames have in common.

    Raises:
      DataError: if an image cannot be read.
    """
    part = middle(scene, max_frames)
    example = frames_of(scene, part)
    images = [np.asarray(image) for image in example.images]
    faults = _camera_faults(example, images) + _picture_faults(example, images)
    if not features.available():
        return Checked(example, images, [], faults)
    count = len(example)
    pairs = [(i, i + d) for i in range(count) for d in _PAIR_STEPS if i + d < count]
    matches = match(images, pairs)
    faults += _exposure_faults(example, images, matches)
    # Frames with a fault of their own say nothing about the others.
    named = {name for fault in faults if fault.level == "fault" for name in fault.frames}
    bad = {i for i, name in enumerate(example.frame_names) if name in named}
    thinned = _thinned([m for m in matches if not bad & {m.first, m.second}])
    if sum(map(len, thinned)) < _MIN_MATCHES:
        says = f"only {sum(map(len, matches))} points in common were found, too few to test poses"
        fix = "use frames that overlap more, or scenes with more texture"
        faults.append(Fault("few_matches", says, fix, "warning"))
        return Checked(example, images, matches, faults)
    found, fit, reading = _pose_faults(scene, part, example, thinned, convention)
    return Checked(example, images, matches, faults + found, fit, reading)


def middle(scene: Example, max_frames: int) -> slice:
    """Where the middle `max_frames` of a scene are, or all where there are fewer."""
    first = max(0, (len(scene) - max_frames) // 2)
    return slice(first, min(first + max_frames, len(scene)))


def frames_of(scene: Example, part: slice) -> Example:
    """Neighbouring frames of a scene, whose images are read when they are used."""
    return dataclasses.replace(
        scene,
        images=_Some(scene.images, range(part.start, part.stop)),
        world_from_cam=scene.world_from_cam[part],
        intrinsics=scene.intrinsics[part],
        sizes=scene.sizes[part],
        timestamps=scene.timestamps[part],
        frame_names=scene.frame_names[part],
    )


class _Some(Sequence):
    """Some items of a sequence, read when they are used."""

    def __init__(self, items: Sequence, indices: range):
        self._items, self._indices = items, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._items[self._indices[index]]


def _thinned(matches: Sequence[Matches]) -> list[Matches]:
    """At most `_MAX_MATCHES` in all, the same number of each pair at most."""
    most = max(1, _MAX_MATCHES // max(1, len(matches)))
    result = []
    for m in matches:
        kept = np.random.default_rng(0).permutation(len(m))[:most]
        result.append(
            dataclasses.replace(
                m, points_first=m.points_first[kept], points_second=m.points_second[kept]
            )
        )
    return result


def _camera_faults(example: Example, images: list[np.ndarray]) -> list[Fault]:
    """What the numbers tell, without points in common."""
    faults = []
    centers, turns = example.centers, example.world_from_cam[:, :3, :3]
    spread = normalize.spread(centers)
    if spread > _LARGE_SPREAD:
        faults.append(
            Fault(
                "large_unit",
                f"the cameras stand {spread:.3g} units apart (mean distance from their centre), "
                "which looks like millimetres or centimetres rather than metres",
                "divide the translations if they should be metres; with data.scale='cameras' the "
                "unit makes no difference",
                "note",
            )
        )
    still = [
        i
        for i in range(1, len(example))
        if np.abs(centers[i] - centers[i - 1]).max() <= 1e-9 * max(np.abs(centers).max(), 1e-300)
        and np.abs(turns[i] - turns[i - 1]).max() <= 1e-9
    ]
    images_repeat = set(photometry.repeated(images))
    frozen = [i for i in still if i not in images_repeat]
    if frozen:
        faults.append(
            Fault(
                "frozen_poses",
                f"{len(frozen)} frames have the pose of the frame before, but another picture",
                "the tracking was lost or poses were repeated; leave these frames out "
                "(data.drop_frames) or estimate their poses again",
                frames=_names(example, frozen),
            )
        )
    repeats = [i for i in sorted(images_repeat) if i not in still]
    if repeats:
        faults.append(
            Fault(
                "repeated_images",
                f"{len(repeats)} frames show the picture of the frame before at another pose",
                "leave them out (data.drop_frames), or extract the frames again",
                frames=_names(example, repeats),
            )
        )
    return faults


def _picture_faults(example: Example, images: list[np.ndarray]) -> list[Fault]:
    blurred = photometry.blurred(images)
    if not blurred:
        return []
    return [
        Fault(
            "blur",
            f"{len(blurred)} frames are much less sharp than the frames around them",
            "leave them out (data.drop_frames)",
            "warning",
            _names(example, blurred),
        )
    ]


def _exposure_faults(
    example: Example, images: list[np.ndarray], matches: list[Matches]
) -> list[Fault]:
    steps = photometry.exposure_steps(images, matches)
    if not steps:
        return []
    (first, second), largest = max(steps.items(), key=lambda item: abs(item[1]))
    return [
        Fault(
            "exposure",
            f"the exposure jumps at {len(steps)} frames, by up to {largest:+.1f} stops from "
            f"{example.frame_names[first]} to {example.frame_names[second]}",
            "lock the exposure when filming, or equalise the frames",
            "warning",
            _names(example, [second for _, second in steps]),
        )
    ]


def _names(example: Example, frames: Sequence[int]) -> tuple[str, ...]:
    return tuple(example.frame_names[i] for i in frames)


@dataclasses.dataclass(frozen=True)
class _Candidate:
    """A change that might make the matches fit."""

    fault: Fault | None
    fit: Fit
    rank: float
    reading: conventions.Hypothesis | None = None


def _pose_faults(
    scene: Example,
    part: slice,
    example: Example,
    matches: list[Matches],
    convention: FileConvention,
) -> tuple[list[Fault], Fit, conventions.Hypothesis | None]:
    """What the matches tell, the fit as given, and the reading that explains it, if any."""
    found = conventions.bundle(matches, example.intrinsics)
    hypotheses = conventions.readings(example.world_from_cam, convention)
    lost, rest, given = _lost_frames(found, hypotheses[0], len(example))
    candidates = [
        _other_reading(found, hypotheses),
        _other_intrinsics(example, matches, hypotheses[0]),
        _other_order(scene, part, found),
    ]
    winner = min(candidates, key=lambda candidate: candidate.rank)
    if (
        winner.fit.share > max(given.share + _SHARE_GAIN, _GOOD_SHARE / 2)
        and winner.fit.cost < _COST_RATIO * given.cost
        and winner.fit.share > rest - _SHARE_GAIN
    ):
        return [winner.fault], given, winner.reading
    if lost:
        fault = Fault(
            "jumping_camera",
            f"the poses of {len(lost)} frames do not fit their neighbours, all others do",
            "leave these frames out (data.drop_frames) or estimate their poses again",
            frames=_names(example, lost),
        )
        return [fault], given, None
    if given.share < _GOOD_SHARE:
        fault = Fault(
            "poses_do_not_fit",
            f"only {given.share:.0%} of the points that frames have in common fit the poses, and "
            "no usual mistake explains it",
            "check that images and poses belong together; estimate the poses again (COLMAP)",
        )
        return [fault], given, None
    turning = conventions.fits(
        found, hypotheses[0].rotations[None], np.zeros_like(hypotheses[0].centers)[None]
    )[0]
    if turning.cost < _TURNING_COST * given.cost:
        fault = Fault(
            "no_parallax",
            f"cameras that only turn would explain the points as well ({turning.share:.0%})",
            "there is nothing to learn depth from; move the camera sideways while filming",
            "warning",
        )
        return [fault], given, None
    return [], given, None


def _lost_frames(found: Bundle, given: conventions.Hypothesis, count: int) -> tuple[list[int], Fit]:
    """Few frames without which everything fits; and the fit of all as given."""
    relative = conventions.errors(found, given.rotations, given.centers) / found.tolerance
    fit = conventions.fits(found, given.rotations[None], given.centers[None])[0]
    inside, lost = relative < 1, []
    kept = np.ones(len(found), bool)
    while len(lost) <= _MOST_LOST * count:
        shares = np.ones(count)
        for frame in set(range(count)) - set(lost):
            of_frame = kept & ((found.first == frame) | (found.second == frame))
            if of_frame.sum() >= 20:
                shares[frame] = inside[of_frame].mean()
        worst = int(np.argmin(shares))
        if shares[worst] > _LOST_SHARE:
            break
        lost.append(worst)
        kept &= (found.first != worst) & (found.second != worst)
    enough = kept.sum() >= max(_MIN_MATCHES / 2, 0.3 * len(found))
    fine = enough and len(lost) <= _MOST_LOST * count and inside[kept].mean() > _REST_SHARE
    return (sorted(lost), float(inside[kept].mean()), fit) if fine and lost else ([], 0.0, fit)


def _other_reading(found: Bundle, hypotheses: list[conventions.Hypothesis]) -> _Candidate:
    reading, fit, _ = conventions.best(found, hypotheses[1:])
    fault = Fault(
        reading.kind,
        f"the poses look like {reading.says}: read so, {fit.share:.0%} of the points in common fit",
        "convert the poses, or choose the reader of the format that they are in",
    )
    return _Candidate(fault, fit, fit.cost + 0.02 * reading.changes, reading)


def _other_intrinsics(
    example: Example, matches: list[Matches], given: conventions.Hypothesis
) -> _Candidate:
    """Focal lengths or whole intrinsics that are wrong by a factor, or swapped."""
    cases = []
    for factor in _FOCAL_FACTORS:
        cases.append((f"focal lengths {1 / factor:.2g} times too long", (factor, factor, 1, 1)))
    for factor in _SIZE_FACTORS:
        cases.append((f"intrinsics of images {1 / factor:.2g} times as large", (factor,) * 4))
    tried = [(says, example.intrinsics * np.array(f), 0.02) for says, f in cases]
    swapped = example.intrinsics[:, [1, 0, 3, 2]]
    tried.append(("fx and fy, cx and cy that were swapped", swapped, 0.02))
    candidates = []
    for says, intrinsics, penalty in tried:
        found = conventions.bundle(matches, intrinsics)
        fit = conventions.fits(found, given.rotations[None], given.centers[None])[0]
        fault = Fault(
            "intrinsics",
            f"the cameras look like {says}: corrected, {fit.share:.0%} of the points in common fit",
            "rescale the intrinsics to the size of the images",
        )
        candidates.append(_Candidate(fault, fit, fit.cost + penalty))
    return min(candidates, key=lambda candidate: candidate.rank)


def _other_order(scene: Example, part: slice, found: Bundle) -> _Candidate:
    """Poses that belong to other frames of the scene."""
    natural = np.arange(len(scene))
    by_text = np.argsort(np.array(scene.frame_names), kind="stable")
    cases = {
        "poses in the reverse order of the images": natural[::-1],
        "poses in the order of the file names as text (img_10 before img_2)": by_text,
        "images in the order of their names as text (img_10 before img_2), unlike the poses": (
            np.argsort(by_text)
        ),
    }
    for shift in (-2, -1, 1, 2):
        says = (
            f"poses {abs(shift)} frame{'s' * (abs(shift) > 1)} {'late' if shift > 0 else 'early'}"
        )
        cases[says] = np.roll(natural, -shift)
    candidates = []
    for says, order in cases.items():
        poses = scene.world_from_cam[order[part]]
        fit = conventions.fits(found, poses[None, :, :3, :3], poses[None, :, :3, 3])[0]
        fault = Fault(
            "frame_order",
            f"the scene looks like it has {says}: put right, {fit.share:.0%} of the points in "
            "common fit",
            "pair every image with its own pose again",
        )
        candidates.append(_Candidate(fault, fit, fit.cost + 0.02))
    return min(candidates, key=lambda candidate: candidate.rank)
