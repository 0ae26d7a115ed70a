"""What a benchmark gives back: rows with a measured number, its target, and whether it was reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured number. `target` None: shown for comparison, nothing is promised.

    Attributes:
        what, against: the two things compared; `value` is the first over the second unless `unit` says otherwise.
        spread: the middle half of the rounds, if there were several.
        at_least: the target is a lower limit.
    """

    what: str
    against: str
    value: float
    target: float | None = None
    at_least: bool = False
    unit: str = "×"
    spread: tuple[float, float] | None = None

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Numbers that belong together in a line; the promises about them are rows."""

    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one script measured; `note` says what a reader must know to judge the numbers."""

    title: str
    note: str
    rows: tuple[Row, ...]
    table: Table | None = None


Benchmark = Callable[[float], Result]
"""(effort) → result; effort 1 is the full number of rounds, less is a quick look."""
