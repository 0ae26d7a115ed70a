"""`steepest list`: what can be named in commands."""

from __future__ import annotations

from typing import Any

from steepest.app import console
from steepest.attacks.fitting import admits
from steepest.attacks.recipes import ATTACKS
from steepest.audit.presets import PRESETS
from steepest.basis.catalogue import Catalogue
from steepest.basis.errors import UsageError, unknown
from steepest.budgets.catalogue import BUDGETS
from steepest.diagnose.checks import CHECKS
from steepest.harden.library import METHODS
from steepest.models.objectives import OBJECTIVES

_CATALOGUES: dict[str, Catalogue[Any]] = {
    "attacks": ATTACKS,
    "budgets": BUDGETS,
    "checks": CHECKS,
    "methods": METHODS,
    "objectives": OBJECTIVES,
}


def show(kind: str, *, budget: str | None, as_json: bool) -> None:
    """Print one kind of names: a table on a terminal, elsewhere one name a line.

    Raises:
        UsageError: no such kind, or no such budget (`budget` keeps the attacks that serve it); near matches are
            offered.
    """
    rows = _rows(kind)
    if budget is not None:
        wanted = budget.partition(":")[0].strip().lower()
        if kind != "attacks":
            raise UsageError(f"--budget {budget!r} belongs to `list attacks`, not to `list {kind}`.")
        BUDGETS.entry(wanted)
        rows = [row for row in rows if admits(row["budgets"], wanted)]
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
            {"name": preset.name, "attacks": ", ".join(rung.text for rung in preset.rungs), "cost": preset.cost}
            for preset in PRESETS.values()
        ]
    if kind not in _CATALOGUES:
        raise unknown("kind", kind, [*_CATALOGUES, "presets"])
    shown = []
    for entry in _CATALOGUES[kind]:
        call = {"call": entry.signature} if kind in ("attacks", "methods") else {}
        shown.append({"name": entry.name, **call, "summary": entry.summary, **entry.facts})
    return shown
