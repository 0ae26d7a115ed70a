"""A bound on what a sample did not show, and what guessing looks like."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from steepest.basis.shares import CONFIDENCE


def most_missed(found: int, drawn: int, count: int) -> int:
    """Return the largest number W of marked things among `count` that a simple random sample does not rule out.

    That is the largest W for which a sample of `drawn` without replacement shows at most `found` marked ones with a
    probability of 5 % or more: Clopper-Pearson's construction for a finite set, a one-sided bound at 95 %. A sample of
    everything gives W = `found`.

    >>> most_missed(0, 60, 10_000), most_missed(0, 10, 10)
    (485, 0)
    """
    low, high = found, count - (drawn - found)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _at_most(found, drawn, middle, count) >= 1 - CONFIDENCE else (low, middle - 1)
    return low


def _at_most(found: int, drawn: int, marked: int, count: int) -> float:
    """Return P(a sample of `drawn` of `count` things, `marked` of them marked, shows at most `found` marked ones)."""
    shown = np.arange(max(0, drawn - (count - marked)), min(found, marked, drawn) + 1)
    ways = _log_choose(marked, shown) + _log_choose(count - marked, drawn - shown) - _log_choose(count, drawn)
    # Logarithms of factorials are exact to 1e-15 of their size: ties count as reached, which is the careful side.
    return float(np.exp(ways).sum()) * (1 + 1e-9)


def _log_choose(count: int, taken: int | NDArray[np.int64]) -> Any:
    rest = count - taken
    return special.gammaln(count + 1) - special.gammaln(taken + 1) - special.gammaln(rest + 1)


def looks_like_chance(correct: int, count: int, classes: int) -> bool:
    """Return whether `correct` of `count` is what guessing among `classes` gives in 99 of 100 cases.

    Fewer than 20 examples say too little to stop a run.

    >>> looks_like_chance(28, 256, 10), looks_like_chance(200, 256, 10)
    (True, False)
    """
    return count >= 20 and bool(correct == 0 or special.bdtr(correct - 1, count, 1 / classes) < 0.99)
