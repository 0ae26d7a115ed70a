"""The factories of all catalogued attacks, by their names with underscores.

>>> import steepest as st
>>> st.recipes.pgd(steps=5).call
"pgd(steps=5, step=None, restarts=1, start='clipped')"
"""

from __future__ import annotations

from collections.abc import Callable

from steepest.attacks import library as library
from steepest.attacks.contract import Attack
from steepest.attacks.recipe import ATTACKS as ATTACKS


def __getattr__(name: str) -> Callable[..., Attack]:
    """Return the factory of a catalogued attack."""
    factories = {entry.name.replace("-", "_"): entry.factory for entry in ATTACKS}
    if name not in factories:
        raise AttributeError(f"no attack is called {name!r}; known: {', '.join(sorted(factories))}")
    return factories[name]


def __dir__() -> list[str]:
    return sorted(entry.name.replace("-", "_") for entry in ATTACKS)
