"""Gates: rules such as `robust>=0.40` that a build may demand of an audit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.basis.catalogue import parse_number
from steepest.basis.errors import UsageError, unknown
from steepest.report.contract import Claim

_RULE = re.compile(r"\s*([\w-]+)\s*(>=|>)\s*([^\s<>=]+)\s*")
_MEASURES = ("robust", "robust_low", "clean", "certified")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One rule: `measure` must reach `threshold` (or exceed it, if `strict`)."""

    text: str
    measure: str
    strict: bool
    threshold: float

    def measured(self, summary: Mapping[str, Any]) -> float:
        """Return the number that the rule is about; `robust_low` is the lower end of the interval.

        Where no certifier ran, nothing is certified.
        """
        if self.measure == "robust_low":
            return float(summary["robust_interval"][0])
        return float(summary[f"{self.measure}_accuracy"] or 0.0)

    def holds(self, summary: Mapping[str, Any]) -> bool:
        """Return whether the summary of an audit keeps the rule."""
        found = self.measured(summary)
        return found > self.threshold if self.strict else found >= self.threshold

    def claim(self, summary: Mapping[str, Any]) -> Claim:
        """Return what the gate says of a summary."""
        holds = self.holds(summary)
        says = "" if holds else f"gate failed: {self.text}, but {self.measure} is {self.measured(summary):.4f}"
        return Claim(text=self.text, holds=holds, says=says)


def parse_gates(texts: Sequence[str]) -> tuple[Gate, ...]:
    """Read rules; each text holds one, or several separated by commas.

    Raises:
        UsageError: a rule that cannot be read, an unknown measure, or a threshold outside [0, 1].

    >>> [gate.measure for gate in parse_gates(["robust>=0.4, clean>0.9"])]
    ['robust', 'clean']
    """
    return tuple(_parse(rule) for text in texts for rule in text.split(","))


def _parse(text: str) -> Gate:
    found = _RULE.fullmatch(text)
    if found is None:
        raise UsageError(f"--gate {text!r} cannot be read: write NAME>=SHARE or NAME>SHARE, e.g. 'robust>=0.40'.")
    measure, operator, number = found.groups()
    if measure not in _MEASURES:
        raise unknown("gate", measure, _MEASURES)
    threshold = parse_number(number)
    if not 0 <= threshold <= 1:
        raise UsageError(f"--gate {text!r}: {number} is not a share; give a number from 0 to 1, e.g. 0.40 for 40 %.")
    return Gate(text=text.strip(), measure=measure, strict=operator == ">", threshold=threshold)
