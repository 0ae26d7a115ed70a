"""Fair times on a machine that others use too: contenders take turns, and ratios are taken within a round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Contender = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of every contender in every round."""

    seconds: Mapping[str, list[float]]

    def ratio(self, what: str, against: str) -> tuple[float, tuple[float, float]]:
        """Return the median of the paired ratios, and the middle half of them."""
        pairs = sorted(a / b for a, b in zip(self.seconds[what], self.seconds[against], strict=True))
        quarter = len(pairs) // 4
        return statistics.median(pairs), (pairs[quarter], pairs[-1 - quarter])

    def fastest(self, names: list[str]) -> str:
        """Return the contender with the shortest time in any round."""
        return min(names, key=lambda name: min(self.seconds[name]))


def in_turns(contenders: Mapping[str, Contender], rounds: int, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Run all contenders `rounds` times, one after another; each round begins with the next one in the list."""
    names = list(contenders)
    for name in names:
        contenders[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            begin = clock()
            contenders[name]()
            seconds[name].append(clock() - begin)
    return Times(seconds)


def rounds_of(full: int, effort: float) -> int:
    """Return the number of rounds for an effort, at least 3."""
    return max(3, round(full * effort))
