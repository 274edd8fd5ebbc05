"""How far a long task is, how fast, and when it will be done."""

import math
import time
from collections.abc import Callable


class Progress:
    """Counts and says so, at most once in `every_s` seconds, and at the end.

    Args:
      total: of all.
      unit: what is counted, plural.
      say: told of it.
      done: finished before this began; does not count for the speed.
      every_s: seconds between two lines; 0: a line for every addition.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        say: Callable[[str], None],
        *,
        done: int = 0,
        every_s: float = 0.0,
    ):
        self._total, self._unit, self._say = total, unit, say
        self._before = self._done = done
        self._every_s = every_s
        self._began = self._said = time.monotonic()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if now - self._said < self._every_s and self._done < self._total:
            return
        self._said = now
        rate = (self._done - self._before) / max(now - self._began, 1e-9)
        left = math.ceil((self._total - self._done) / max(rate, 1e-9))
        self._say(f"{self._done} of {self._total} {self._unit} | {_speed(rate)} | {left} s to go")


def _speed(rate: float) -> str:
    """So many per second, or seconds for each where these are more than one."""
    return f"{rate:.1f} per second" if rate >= 1 else f"{1 / max(rate, 1e-9):.1f} s each"
