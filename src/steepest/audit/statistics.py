"""Intervals for shares: how far a number from n examples may be from the truth about all of them."""

from __future__ import annotations

from scipy.stats import binom, binomtest

CONFIDENCE = 0.95


def interval(successes: int, count: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval at 95 % for a share; (0, 1) where nothing was measured.

    >>> low, high = interval(40, 100); round(low, 3), round(high, 3)
    (0.303, 0.503)
    """
    if count == 0:
        return 0.0, 1.0
    found = binomtest(successes, count).proportion_ci(CONFIDENCE, method="exact")
    return float(found.low), float(found.high)


def looks_like_chance(correct: int, count: int, classes: int) -> bool:
    """Return whether `correct` of `count` is what guessing among `classes` gives in 99 of 100 cases.

    Fewer than 20 examples say too little to stop a run.

    >>> looks_like_chance(28, 256, 10), looks_like_chance(200, 256, 10)
    (True, False)
    """
    return count >= 20 and correct <= int(binom.ppf(0.99, count, 1 / classes))
