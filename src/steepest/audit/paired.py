"""Two models on the same examples: McNemar's exact test, and intervals from drawing the examples anew in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from steepest.basis.shares import CONFIDENCE

DRAWS = 4000
_ROWS = 1 << 22
"""So many numbers are drawn at once, however many examples there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What two models get right of the same examples.

    Attributes:
        only_first, only_second: examples that one alone gets right.
        difference: share of the first less that of the second.
        interval: of the difference, 95 %, by the paired bootstrap.
        p: of McNemar's exact test, two-sided.
        adjusted: p by Holm's rule for all pairs of one comparison.
    """

    only_first: int
    only_second: int
    difference: float
    interval: tuple[float, float]
    p: float
    adjusted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Medians:
    """The medians of a number that two models have for each example.

    Attributes:
        first, second: the medians; None where more than half of the examples have no number.
        difference: first less second; None likewise.
        interval: of the difference, 95 %, by the paired bootstrap; None where an end is not finite.
    """

    first: float | None
    second: float | None
    difference: float | None
    interval: tuple[float, float] | None


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p of McNemar's exact test: min(1, 2·P(B ≤ min)), B binomial with n = both counts, ½.

    Examples on which both agree say nothing; where none is left, p is 1.

    Source: McNemar 1947; exact form by the sign test.

    >>> mcnemar(1, 4), mcnemar(0, 0)
    (0.375, 1.0)
    """
    total = only_first + only_second
    return min(1.0, 2 * float(special.bdtr(min(only_first, only_second), total, 0.5))) if total else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: the smallest times m, the next times m − 1, …, never falling.

    Source: Holm 1979.

    >>> holm([0.04, 0.01, 0.5])
    [0.08, 0.03, 0.5]
    """
    adjusted, least = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = least
    return adjusted


def shares(first: NDArray[np.bool_], second: NDArray[np.bool_], *, seed: int = 0) -> Shares:
    """Return the difference of two shares over the same examples, both bool [N]; `adjusted` is p itself.

    An example that is drawn anew brings both its answers, so what the models have in common cancels.

    >>> right = np.array([True] * 6 + [False] * 4)
    >>> found = shares(right, ~right)
    >>> found.only_first, found.only_second, round(found.difference, 1)
    (6, 4, 0.2)
    """
    count = len(first)
    apart = (int((first & ~second).sum()), int((second & ~first).sum()))
    p = mcnemar(*apart)
    if not count:
        return Shares(only_first=0, only_second=0, difference=0.0, interval=(-1.0, 1.0), p=p, adjusted=p)
    # N examples drawn anew hold counts of the three kinds that follow a multinomial law.
    chances = [apart[0] / count, apart[1] / count, 1 - sum(apart) / count]
    drawn = np.random.default_rng(seed).multinomial(count, chances, size=DRAWS)
    return Shares(
        only_first=apart[0],
        only_second=apart[1],
        difference=(apart[0] - apart[1]) / count,
        interval=_middle((drawn[:, 0] - drawn[:, 1]) / count) or (-1.0, 1.0),
        p=p,
        adjusted=p,
    )


def medians(first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int = 0) -> Medians:
    """Return the difference of two medians over the same examples, [N]; ∞ stands for "above all that was tried".

    The median of an even number of values is the lower of the middle two, so that ∞ needs no arithmetic.

    >>> medians(np.array([1.0, 2.0, 9.0]), np.array([1.0, 1.0, np.inf])).difference
    1.0
    """
    if not len(first):
        return Medians(first=None, second=None, difference=None, interval=None)
    middles = tuple(float(_median(each[None])[0]) for each in (first, second))
    drawn = [(_median(first[index]), _median(second[index])) for index in _drawn(len(first), seed)]
    one, other = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    finite = bool(np.isfinite(middles).all())
    with np.errstate(invalid="ignore"):  # ∞ − ∞: such a draw leaves the interval open
        ends = _middle(one - other) if finite else None
    return Medians(
        first=_finite(middles[0]),
        second=_finite(middles[1]),
        difference=middles[0] - middles[1] if finite else None,
        interval=ends,
    )


def _drawn(count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    generator, left = np.random.default_rng(seed), DRAWS
    while left:
        some = min(left, max(1, _ROWS // count))
        left -= some
        yield generator.integers(0, count, (some, count))


def _median(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    place = (rows.shape[1] - 1) // 2
    found: NDArray[np.float64] = np.partition(rows, place, axis=1)[:, place]
    return found


def _middle(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the range of the middle 95 % of draws, None unless both ends are numbers."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail], method="inverted_cdf")
    return (float(low), float(high)) if np.isfinite([low, high]).all() else None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
