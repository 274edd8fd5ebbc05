"""Several sources as one, drawn from by weight.

Which source an entry of the training stream comes from is a function of (seed, number), as
everything in a batch: every period of `PERIOD` entries holds each source in its exact share, in a
random order. Each source goes through its own epochs.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from lgs_jax.data.example import Example, Source
from lgs_jax.data.report import Report
from lgs_jax.data.settings import DataSettings

PERIOD = 1000

# Keep the streams of one seed apart, and from those of `pipeline`.
_ORDER, _MIX = 0, 3


@dataclasses.dataclass(frozen=True)
class Part:
    """One source of a mixture: its scenes, how to read them, and its share of the entries."""

    source: Source
    settings: DataSettings
    weight: float


class Mixture:
    """The scenes of all parts, one part after the other.

    Keys begin with the number of the part, classes are those of all parts one after the other.
    """

    def __init__(self, parts: Sequence[Part]):
        self._parts = tuple(parts)
        self.weights = tuple(part.weight for part in parts)
        self.counts = tuple(len(part.source) for part in parts)
        self.part_names = tuple(part.source.report.source for part in parts)
        self._starts = np.cumsum([0, *self.counts])
        names = [tuple(part.source.class_names) for part in parts]
        self.class_names = tuple(name for each in names for name in each)
        self._first_class = np.cumsum([0, *map(len, names)])
        self.report = _joined([part.source.report for part in parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Example:
        number, inner = self._find(index)
        example = self._parts[number].source[inner]
        label = example.class_label
        return dataclasses.replace(
            example,
            key=f"{number}/{example.key}",
            class_label=label + int(self._first_class[number]) if label >= 0 else label,
        )

    def settings_of(self, index: int) -> DataSettings:
        """How scene `index` is to be read."""
        return self._parts[self._find(index)[0]].settings

    def part_of(self, index: int) -> int:
        """The number of the part that scene `index` comes from."""
        return self._find(index)[0]

    def _find(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])


def _joined(reports: Sequence[Report]) -> Report:
    counts = {
        field.name: sum(getattr(report, field.name) for report in reports)
        for field in dataclasses.fields(Report)
        if field.type is int or field.type == "int"
    }
    findings = [
        dataclasses.replace(finding, scene=f"{number}/{finding.scene}")
        for number, report in enumerate(reports)
        for finding in report.findings
    ]
    return Report(" + ".join(r.source for r in reports), findings=findings, **counts)


class Order:
    """Which scene comes when: entry number of the endless stream -> scene and its epoch.

    Within an epoch every scene of a source is visited once, in an order of its own.

    Args:
      source: a mixture or any other source.
      seed: of all orders.

    Raises:
      ValueError: if a source's share is below one entry of a period.
    """

    def __init__(self, source: Source, seed: int):
        mixture = source if isinstance(source, Mixture) else None
        self._counts = mixture.counts if mixture else (len(source),)
        self._seed = seed
        weights = np.array(mixture.weights if mixture else (1.0,))
        self._share = _shares(weights / weights.sum())
        if not self._share.all():
            raise ValueError(
                f"a weight of {weights.min():g} among {weights.tolist()} is below 1 / {PERIOD} of "
                "all; raise it or leave the source out"
            )

    def __call__(self, number: int) -> tuple[int, int]:
        """Scene and epoch of an entry."""
        if len(self._counts) == 1:
            part, visit = 0, number
        else:
            period, place = divmod(number, PERIOD)
            parts = _parts_of_period(self._seed, period, tuple(self._share.tolist()))
            part = int(parts[place])
            visit = period * int(self._share[part]) + int(np.sum(parts[:place] == part))
        epoch, position = divmod(visit, self._counts[part])
        order = _epoch_order(self._seed, epoch, self._counts[part], part)
        return sum(self._counts[:part]) + int(order[position]), epoch


def _shares(fractions: np.ndarray) -> np.ndarray:
    """Whole numbers with the sum `PERIOD`, by the largest remainders."""
    exact = fractions * PERIOD
    shares = np.floor(exact).astype(int)
    shares[np.argsort(shares - exact, kind="stable")[: PERIOD - shares.sum()]] += 1
    return shares


@functools.lru_cache(maxsize=4)
def _parts_of_period(seed: int, period: int, shares: tuple[int, ...]) -> np.ndarray:
    parts = np.repeat(np.arange(len(shares)), shares)
    return np.random.default_rng([_MIX, seed, period]).permutation(parts)


@functools.lru_cache(maxsize=16)
def _epoch_order(seed: int, epoch: int, count: int, part: int) -> np.ndarray:
    streams = [_ORDER, seed, epoch, *([part] if part else [])]
    return np.random.default_rng(streams).permutation(count)
