"""Which frames of a scene are encoded (context) and which are held out (target).

V context views, T target views, F frames in the order of the camera path. A *window* of frames is
chosen first; its ends are context views, the other context views are spread evenly between them,
and targets lie between context views.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

SELECTIONS = ("gap", "distance", "overlap")

Measure = Callable[[int, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ViewPlan:
    """How views are chosen.

    Attributes:
      context, target: V and T.
      selection: "gap" spreads the context views evenly by frame number, "distance" evenly along the
        camera's path; "overlap" does that in a window whose ends see as much in common as
        `overlap_min` and `overlap_max` say.
      gap_min, gap_max: frames from one context view to the next (of their mean for "distance");
        `gap_max` None: the whole scene.
      overlap_min, overlap_max: of the first and last context view, see `overlap`, for "overlap"
        alone. Where no window fulfils them, the one that comes nearest is taken.
      beyond: how far targets may lie outside the window, as a fraction of its length.
    """

    context: int
    target: int
    selection: str = "gap"
    gap_min: int = 1
    gap_max: int | None = None
    beyond: float = 0.0
    overlap_min: float = 0.3
    overlap_max: float = 0.9

    @property
    def frames_needed(self) -> int:
        """The fewest frames of a scene that allow this plan; no frame serves twice."""
        return max(self.context + self.target, (self.context - 1) * self.gap_min + 1)


def choose_views(
    centers: np.ndarray,
    plan: ViewPlan,
    rng: np.random.Generator | None = None,
    overlap: Measure | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of context [V] and target [T] frames, each ascending, none twice.

    Args:
      centers: camera centres [F, 3].
      plan: what to choose.
      rng: draws the window and the targets; None: the longest window in the middle of the scene,
        with the targets half-way between neighbouring context views.
      overlap: (frame, other frames [N]) -> overlaps [N] in [0, 1]; needed for "overlap".

    Where a window is too short to hold the targets between its context views, the nearest frames
    outside serve.

    Raises:
      ValueError: if there are fewer frames than `plan.frames_needed`.
    """
    frames = len(centers)
    if frames < plan.frames_needed:
        raise ValueError(
            f"{frames} frames are too few for {plan}: it needs {plan.frames_needed}; "
            "ask for fewer views or a smaller gap_min"
        )
    if plan.selection == "overlap":
        if overlap is None:
            raise ValueError("selection='overlap' needs a measure of overlap")
        start, stop = _overlapping_window(frames, plan, rng, overlap)
    else:
        start, stop = _window(frames, plan, rng)
    if plan.selection == "gap":
        progress = np.arange(frames, dtype=np.float64)
    else:
        progress = _path_length(centers)
    context = _spread(progress, start, stop, plan.context)
    candidates = _candidates(frames, start, stop, context, plan)
    if rng is None:
        target = _half_way(context, candidates, plan.target)
    else:
        target = rng.choice(candidates, plan.target, replace=False)
    return context, np.sort(target)


def _window(frames: int, plan: ViewPlan, rng: np.random.Generator | None) -> tuple[int, int]:
    """First and last frame of the window."""
    shortest, longest = _lengths(frames, plan)
    if rng is None:
        start = (frames - 1 - longest) // 2
        return start, start + longest
    length = int(rng.integers(shortest, longest, endpoint=True))
    start = int(rng.integers(0, frames - 1 - length, endpoint=True))
    return start, start + length


def _lengths(frames: int, plan: ViewPlan) -> tuple[int, int]:
    """Last minus first frame of the shortest and the longest window."""
    longest = frames - 1
    if plan.gap_max is not None:
        longest = min(longest, (plan.context - 1) * plan.gap_max)
    if plan.context == 1:
        longest = 0
    # Room for the targets between the context views, as far as there is any.
    shortest = max((plan.context - 1) * plan.gap_min, plan.context + plan.target - 1)
    return min(shortest, longest), longest


def _overlapping_window(
    frames: int, plan: ViewPlan, rng: np.random.Generator | None, overlap: Measure
) -> tuple[int, int]:
    """First and last frame of a window whose ends overlap as the plan says, or nearly so."""
    shortest, longest = _lengths(frames, plan)
    if rng is None:
        lengths = np.arange(longest, shortest - 1, -1)
        starts = (frames - 1 - lengths) // 2
        pairs = np.stack([starts, starts + lengths], -1)
        found = np.array([overlap(int(a), np.array([b]))[0] for a, b in pairs])
        return tuple(pairs[np.argmin(_outside(found, plan))].tolist())
    start = int(rng.integers(0, frames - 1 - shortest, endpoint=True))
    stops = np.arange(start + shortest, min(start + longest, frames - 1) + 1)
    outside = _outside(overlap(start, stops), plan)
    return start, int(rng.choice(stops[outside == outside.min()]))


def _outside(overlaps: np.ndarray, plan: ViewPlan) -> np.ndarray:
    """How far overlaps lie outside the plan's bounds."""
    return np.maximum(plan.overlap_min - overlaps, 0) + np.maximum(overlaps - plan.overlap_max, 0)


def _path_length(centers: np.ndarray) -> np.ndarray:
    """Length of the camera's path up to each frame [F]; frame numbers if it never moves."""
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=-1)
    if steps.sum() == 0:
        return np.arange(len(centers), dtype=np.float64)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _spread(progress: np.ndarray, start: int, stop: int, count: int) -> np.ndarray:
    """`count` frames, ends included, whose `progress` is as evenly spread as frames allow."""
    wanted = np.linspace(progress[start], progress[stop], count)
    chosen: list[int] = []
    for i, value in enumerate(wanted):
        first = chosen[-1] + 1 if chosen else start
        last = stop - (count - 1 - i)
        chosen.append(first + int(np.argmin(np.abs(progress[first : last + 1] - value))))
    return np.array(chosen)


def _candidates(
    frames: int, start: int, stop: int, context: np.ndarray, plan: ViewPlan
) -> np.ndarray:
    """Frames that may serve as targets; at least T."""
    reach = round(plan.beyond * (stop - start))
    if plan.context == 1:
        reach = frames if plan.gap_max is None else plan.gap_max
    while True:
        first, last = max(0, start - reach), min(frames - 1, stop + reach)
        candidates = np.setdiff1d(np.arange(first, last + 1), context)
        if len(candidates) >= plan.target:
            return candidates
        reach += 1


def _half_way(context: np.ndarray, candidates: np.ndarray, count: int) -> np.ndarray:
    """`count` candidates nearest to evenly spread places between neighbouring context views."""
    if len(context) == 1:
        places = np.linspace(candidates[0], candidates[-1], count + 2)[1:-1]
    else:
        gaps = len(context) - 1
        gap_of = np.floor((np.arange(count) + 0.5) * gaps / count).astype(int)
        order = np.array([np.sum(gap_of[:i] == gap) for i, gap in enumerate(gap_of)])
        share = (order + 1) / (np.bincount(gap_of, minlength=gaps)[gap_of] + 1)
        places = context[gap_of] + share * (context[gap_of + 1] - context[gap_of])
    free = list(candidates)
    chosen = []
    for place in places:
        nearest = min(free, key=lambda frame: (abs(frame - place), frame))
        free.remove(nearest)
        chosen.append(nearest)
    return np.array(chosen, int)
