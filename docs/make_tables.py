"""Write docs/catalogue.md and docs/attacks.md from the catalogues: `make tables`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the rows of the attacks' tests say how they are called

from tests.conformance.table import ROWS

from steepest.attacks.recipes import ATTACKS
from steepest.audit.presets import PRESETS
from steepest.basis.catalogue import Catalogue
from steepest.budgets.catalogue import BUDGETS
from steepest.diagnose.checks import CHECKS
from steepest.harden.library import METHODS
from steepest.models.objectives import OBJECTIVES

PAGE = Path(__file__).parent / "catalogue.md"
ATTACKS_PAGE = Path(__file__).parent / "attacks.md"


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
    presets = [[f"`{p.name}`", ", ".join(f"`{rung.text}`" for rung in p.rungs), p.cost] for p in PRESETS.values()]
    return "\n".join(
        [
            "# The catalogue",
            "",
            "Generated from the code by `make tables`; `steepest list attacks` prints the same names. F is a forward, "
            "B a backward, per example.",
            "",
            section("Attacks", ATTACKS, ("needs", "budgets", "cost", "source"), calls=True),
            section("Checks", CHECKS, ("question", "sign of", "source")),
            section("Training methods", METHODS, ("when", "budgets", "cost", "source"), calls=True),
            section("Budgets", BUDGETS, ("text", "unit", "source")),
            section("Objectives", OBJECTIVES, ("ascends", "ranks_by", "source")),
            f"## Presets\n\n{table(['name', 'attacks, in order', 'cost'], presets)}\n",
        ]
    )


EXAMPLES = """# Every attack by example

Generated from the catalogue by `make tables`; every example is executed by the tests. The model is linear and right \
about x; it is wrong where the input moves by more than most of the budget in the best direction.

```python
import torch
import steepest as st

x, y, w = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64), torch.linspace(-1, 2, 16).reshape(1, 4, 4)


def model(budget, share):
    reach = share * float(st.Region(budget, st.Box(0, 1), x).support(w.expand_as(x))[0])
    over = lambda p: ((p - 0.5) * w).flatten(1).sum(1) - reach
    return st.Model(lambda p: torch.stack([-over(p), over(p)], 1))
```
"""


def examples() -> str:
    """Return the page with one executed example for every attack, called as the row of its tests calls it."""
    parts = [EXAMPLES]
    for entry in ATTACKS:
        row, facts = ROWS[entry.name], entry.facts
        call, share = row.solves or row.call, row.share or 0.5
        lines = [
            f"budget = {BY_NAME[row.budget]}",
            f'result = st.attack("{call}", model(budget, {share}), x, y, budget)',
        ]
        lines.append("assert result.won.all()" if row.share else "assert result.forwards.min() > 0")
        text = f"{entry.summary}\n\nNeeds: {facts['needs']}. Budgets: {facts['budgets']}. Cost: {facts['cost']}. "
        code = "\n".join(lines)
        parts.append(f"## {entry.name}\n\n{text}Source: {facts['source']}.\n\n```python\n{code}\n```\n")
    return "\n".join(parts)


BY_NAME = {
    "linf": "st.Linf(0.25)",
    "l2": "st.L2(0.25)",
    "l1": "st.L1(0.25)",
    "l0": "st.L0(4)",
}
"""How the budgets of the rows are written in the examples."""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    ATTACKS_PAGE.write_text(examples(), encoding="utf-8")
