"""The catalogue of certifiers, and the sentence that all of them rest on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

from steepest.basis.catalogue import Catalogue, call_text
from steepest.certify.contract import Certifier, Prover
from steepest.models.model import Model

CERTIFIERS: Catalogue[Certifier] = Catalogue("certifier", by_name=True)

REAL_ARITHMETIC = (
    "it speaks of the network in real arithmetic with the weights as they are stored; the bound is computed in float64 "
    "and moved outwards by more than its rounding"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A certifier made of one function that prepares it for a model; see `Certifier`."""

    prepare: Callable[[Model, tuple[int, ...]], Prover]
    assumes: tuple[str, ...] = (REAL_ARITHMETIC,)
    call: str = ""
    budgets: tuple[str, ...] = ()

    def prepared(self, model: Model, shape: tuple[int, ...]) -> Prover:
        """See `Certifier.prepared`."""
        return self.prepare(model, shape)


def certifier(
    name: str, *, source: str, cost: str, says: str, budgets: str = "any"
) -> Callable[[Callable[..., Method]], Callable[..., Method]]:
    """Return a decorator that catalogues a factory of a `Method` under its name in the field.

    Args:
        cost: per example, in passes or as text.
        says: when it is tight, and when it is vacuous.
        budgets: the kinds that it serves, "any" or names separated by commas.
    """
    kinds = () if budgets == "any" else tuple(budgets.split(", "))

    def enter(factory: Callable[..., Method]) -> Callable[..., Method]:
        remembering = call_text(name, factory, lambda made, call: replace(made, call=call, budgets=kinds))
        facts = {"budgets": budgets, "cost": cost, "when": says, "source": source}
        CERTIFIERS.add(name, facts)(remembering)
        return remembering

    return enter
