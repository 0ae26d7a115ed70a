"""A check: a question about a model, and the function that answers it; and the catalogue of checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steepest.basis.catalogue import Catalogue
from steepest.diagnose.contract import Family, Judgement
from steepest.diagnose.probe import Probe

Judge = Callable[[Probe], Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a measurement asks of a model that hides nothing and of which nothing breaks; roughly, for estimates.

    Attributes:
        passes: over each example, forwards plus backwards (a gradient of the input alone costs about a forward more);
            one in float64 counts as `WIDE`.
        least: of a slow model fewer examples are looked at than the probe has, but so many; None: always all.
    """

    passes: float
    least: int | None = None

    def examples(self, probe: Probe, count: int | None = None) -> int:
        """Return how many examples are looked at of `count`; None: of all of the probe."""
        given = probe.count if count is None else count
        return given if self.least is None else min(given, probe.few(self.passes, least=self.least))

    def total(self, probe: Probe, count: int | None = None) -> float:
        """Return the passes over all of them together."""
        return self.passes * self.examples(probe, count)


WIDE = 6
"""A convolution in float64 takes a processor about so many times as long."""

WHITE, FURTHER, WHOLE = "white box", "more steps", "whole box"

SHARED = {WHITE: Price(passes=85), FURTHER: Price(passes=82, least=32), WHOLE: Price(passes=100, least=16)}
"""Measurements that several checks read and the probe makes once, under these keys: the short searches along
gradients, forty more steps for what they left, and the way to the whole box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of the panel.

    Attributes:
        family: what a FAIL is a sign of.
        cost: what it asks for itself.
        uses: names of the `SHARED` measurements that it reads besides.
        steady: needs a model that answers the same question alike; NOT_RUN where it draws random numbers.
        source: author and year.
    """

    name: str
    question: str
    family: Family
    cost: Price
    uses: tuple[str, ...]
    steady: bool
    source: str
    judge: Judge

    @property
    def alone(self) -> float:
        """Passes over an example where nothing is known yet."""
        return self.cost.passes + sum(SHARED[name].passes for name in self.uses)


CHECKS: Catalogue[Check] = Catalogue("check", by_name=True)


def check(
    name: str,
    question: str,
    family: Family,
    *,
    cost: float | Price,
    source: str,
    uses: tuple[str, ...] = (),
    steady: bool = True,
) -> Callable[[Judge], Judge]:
    """Return a decorator that catalogues a function from probe to judgement as the check called `name`."""

    def enter(judge: Judge) -> Judge:
        made = Check(
            name=name,
            question=question,
            family=family,
            cost=cost if isinstance(cost, Price) else Price(passes=cost),
            uses=uses,
            steady=steady,
            source=source,
            judge=judge,
        )

        def factory() -> Check:
            return made

        factory.__doc__ = judge.__doc__
        facts = {"question": question, "sign of": family.value, "cost": f"{made.alone:g}", "source": source}
        CHECKS.add(name, facts)(factory)
        return judge

    return enter
