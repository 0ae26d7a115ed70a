"""A check: a question about a model, and the function that answers it; and the catalogue of checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steepest.basis.catalogue import Catalogue
from steepest.diagnose.contract import Family, Judgement
from steepest.diagnose.probe import Probe

Judge = Callable[[Probe], Judgement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of the panel.

    Attributes:
        family: what a FAIL is a sign of.
        cost: passes over each example, forwards plus twice the backwards, as a rough number for the time estimate and
            for the order: cheap ones first.
        steady: needs a model that answers the same question alike; NOT_RUN where it draws random numbers.
        source: author and year.
    """

    name: str
    question: str
    family: Family
    cost: float
    steady: bool
    source: str
    judge: Judge


CHECKS: Catalogue[Check] = Catalogue("check", by_name=True)


def check(
    name: str, question: str, family: Family, *, cost: float, source: str, steady: bool = True
) -> Callable[[Judge], Judge]:
    """Return a decorator that catalogues a function from probe to judgement as the check called `name`."""

    def enter(judge: Judge) -> Judge:
        made = Check(name=name, question=question, family=family, cost=cost, steady=steady, source=source, judge=judge)

        def factory() -> Check:
            return made

        factory.__doc__ = judge.__doc__
        facts = {"question": question, "sign of": family.value, "cost": f"{cost:g}", "source": source}
        CHECKS.add(name, facts)(factory)
        return judge

    return enter
