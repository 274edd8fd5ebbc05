"""Which scenes are held out for evaluation."""

import difflib
import fnmatch
import hashlib
from collections.abc import Sequence

from lgs_jax.data.report import DataError

SPLITS = ("train", "eval")


def hash_fraction(key: str) -> float:
    """A number in [0, 1) that depends on the key only."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def subset(keys: Sequence[str], count: int | None) -> list[str]:
    """`count` keys in their order, picked by hash so that classes stay mixed; None: all."""
    picked = sorted(keys, key=lambda key: hash_fraction(f"subset {key}"))[:count]
    wanted = set(picked)
    return [key for key in keys if key in wanted]


def split_keys(keys: Sequence[str], holdout: float | tuple[str, ...], split: str) -> list[str]:
    """The keys of "train" or "eval", in their order; no key is in both.

    A fraction decides for each key by itself, so adding scenes moves none from one side to the
    other; the share is met on average only.

    Raises:
      DataError: if a listed scene does not exist or nothing is left.
    """
    if split not in SPLITS:
        raise ValueError(f"{split=} must be one of {SPLITS}")
    if isinstance(holdout, tuple):
        held_out = set().union(*(_matching(keys, pattern) for pattern in holdout))
    else:
        held_out = {key for key in keys if hash_fraction(key) < holdout}
    chosen = [key for key in keys if (key in held_out) == (split == "eval")]
    if not chosen:
        raise DataError(
            f"{holdout=} leaves no scene of {len(keys)} for {split}; "
            "change the fraction or list the scenes to hold out"
        )
    return chosen


def _matching(keys: Sequence[str], pattern: str) -> set[str]:
    found = {
        key
        for key in keys
        if fnmatch.fnmatchcase(key, pattern) or fnmatch.fnmatchcase(key.split("/")[-1], pattern)
    }
    if not found:
        close = difflib.get_close_matches(pattern, keys, n=1, cutoff=0.0)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(
            f"holdout lists {pattern!r}, which matches none of {len(keys)} scenes{hint}"
        )
    return found
