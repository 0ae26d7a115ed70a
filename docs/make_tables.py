"""Write docs/catalogue.md from the catalogues: `make tables`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from steepest.attacks.recipes import ATTACKS
from steepest.audit.presets import PRESETS
from steepest.basis.catalogue import Catalogue
from steepest.budgets.catalogue import BUDGETS
from steepest.models.objectives import OBJECTIVES

PAGE = Path(__file__).parent / "catalogue.md"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(heads)]
    lines.append(["---"] * len(lines[0]))
    lines += [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section(title: str, catalogue: Catalogue[Any], facts: tuple[str, ...], *, calls: bool = False) -> str:
    """Return the table of one catalogue: name or call, first sentence, and the facts named."""
    rows = [
        [f"`{entry.signature if calls else entry.name}`", entry.summary, *(entry.facts.get(fact, "") for fact in facts)]
        for entry in catalogue
    ]
    heads = ["name", "what it is", *(fact.replace("_", " ") for fact in facts)]
    return f"## {title}\n\n{table(heads, rows)}\n"


def page() -> str:
    """Return the whole page."""
    presets = [[f"`{p.name}`", ", ".join(f"`{call}`" for call in p.attacks), p.cost] for p in PRESETS.values()]
    return "\n".join(
        [
            "# The catalogue",
            "",
            "Generated from the code by `make tables`; `steepest list attacks` prints the same names. F is a forward, "
            "B a backward, per example.",
            "",
            section("Attacks", ATTACKS, ("needs", "budgets", "cost", "source"), calls=True),
            section("Budgets", BUDGETS, ("text", "unit", "source")),
            section("Objectives", OBJECTIVES, ("ascends", "ranks_by", "source")),
            f"## Presets\n\n{table(['name', 'attacks, in order', 'cost'], presets)}\n",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
