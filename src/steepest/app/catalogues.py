"""`steepest list`: what can be named in commands."""

from __future__ import annotations

from typing import Any

from steepest.app import console
from steepest.attacks.recipes import ATTACKS
from steepest.audit.presets import PRESETS
from steepest.basis.catalogue import Catalogue
from steepest.basis.errors import unknown
from steepest.budgets.catalogue import BUDGETS
from steepest.models.objectives import OBJECTIVES

_CATALOGUES: dict[str, Catalogue[Any]] = {"attacks": ATTACKS, "budgets": BUDGETS, "objectives": OBJECTIVES}


def show(kind: str, *, as_json: bool) -> None:
    """Print one kind of names: a table on a terminal, elsewhere one name a line.

    Raises:
        UsageError: no such kind; near matches are offered.
    """
    rows = _rows(kind)
    if as_json:
        console.show_json({kind: rows})
    elif console.on_terminal():
        head = list(rows[0])
        console.show_table(head, [[row[key] for key in head] for row in rows])
    else:
        for row in rows:
            console.say(row["name"])


def _rows(kind: str) -> list[dict[str, str]]:
    if kind == "presets":
        return [
            {"name": preset.name, "attacks": ", ".join(preset.attacks), "cost": preset.cost}
            for preset in PRESETS.values()
        ]
    if kind not in _CATALOGUES:
        raise unknown("kind", kind, [*_CATALOGUES, "presets"])
    shown = []
    for entry in _CATALOGUES[kind]:
        call = {"call": entry.signature} if kind == "attacks" else {}
        shown.append({"name": entry.name, **call, "summary": entry.summary, **entry.facts})
    return shown
