"""Whether an attack can serve a budget and a model; if not, why, and which can."""

from __future__ import annotations

from steepest.attacks.contract import Attack
from steepest.basis.catalogue import Catalogue
from steepest.basis.errors import ModelError, UsageError
from steepest.budgets.catalogue import kind_of
from steepest.budgets.contract import Budget

NEEDS = ("labels", "scores", "gradient")
"""What a model may answer, each including the ones before it."""


def serves(needs: str, gives: str) -> bool:
    """Return whether a model that gives `gives` answers an attack that needs `needs`.

    >>> serves("labels", "gradient"), serves("gradient", "scores")
    (True, False)
    """
    return NEEDS.index(needs) <= NEEDS.index(gives)


def admits(budgets: str, kind: str) -> bool:
    """Return whether the fact `budgets` of the catalogue ("any", or kinds with commas) names a kind.

    "none" is named only where an attack also works without a budget.

    >>> admits("linf, l2", "l2"), admits("any", "l0"), admits("linf, l2", "l1"), admits("any", "none")
    (True, True, False, False)
    """
    named = budgets.split(", ")
    return kind in named or ("any" in named and kind != "none")


def require_fit(attack: Attack, budget: Budget, gives: str, catalogue: Catalogue[Attack]) -> None:
    """Refuse a budget or a model that an attack cannot serve, before the model is asked; the model answers `gives`.

    Raises:
        UsageError: the budget is of another kind; the attacks that serve it are named.
        ModelError: the model does not answer what the attack needs; the attacks that it can answer are named.
    """
    name, kind = attack.call.partition("(")[0] or "the attack", kind_of(budget)
    if not admits(", ".join(attack.budgets) or "any", kind):
        others = [entry.name for entry in catalogue if admits(entry.facts["budgets"], kind)]
        if kind == "none":
            raise UsageError(
                f"{name} needs a budget: give one such as st.Linf(8 / 255); without one there is {', '.join(others)}."
            )
        raise UsageError(
            f"{name} serves the budgets {', '.join(attack.budgets)}, not {kind}; for {kind} there are "
            f"{', '.join(others)} (`steepest list attacks --budget {kind}`)."
        )
    if not serves(attack.needs, gives):
        others = [entry.name for entry in catalogue if serves(entry.facts["needs"], gives)]
        raise ModelError(
            f"{name} needs the model's {attack.needs}, and it answers {gives} only; attacks for it: "
            f"{', '.join(others)}. `st.estimated(model)` lends a model with scores an estimated gradient."
        )
