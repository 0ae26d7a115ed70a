"""Intervals for shares that were counted on a sample."""

from __future__ import annotations

from scipy import special

CONFIDENCE = 0.95


def interval(successes: int, count: int) -> tuple[float, float]:
    """Return the Clopper-Pearson interval at 95 % for a share; (0, 1) where nothing was measured.

    >>> low, high = interval(40, 100); round(low, 3), round(high, 3)
    (0.303, 0.503)
    """
    if count == 0:
        return 0.0, 1.0
    tail = (1 - CONFIDENCE) / 2
    # Quantiles of the beta law; scipy.stats gives the same numbers, a second of import later.
    low = special.betaincinv(successes, count - successes + 1, tail) if successes else 0.0
    high = special.betaincinv(successes + 1, count - successes, 1 - tail) if successes < count else 1.0
    return float(low), float(high)
