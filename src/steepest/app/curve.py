"""`steepest curve`: accuracy against ε from one gradient per example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from steepest.app import console, exports
from steepest.app.config import Settings, command_line, resolve
from steepest.app.opening import batches, goal_of, one_budget, open_subject
from steepest.attacks.contract import Status
from steepest.attacks.curve import curve
from steepest.audit.subject import Subject
from steepest.basis.errors import UsageError
from steepest.basis.progress import Progress
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.report.wording import MISSING, percent, size


@dataclass(slots=True, kw_only=True)
class Sums:
    """The curve's counts, added up over batches."""

    broken: Tensor
    right: int = 0
    lost: int = 0
    forwards: int = 0
    backwards: int = 0
    radius: list[Tensor] = field(default_factory=list)


def run(given: Mapping[str, Any], *, points: int, as_json: bool, output: str | None) -> None:
    """Measure the curve and print it; raises as `st.curve`."""
    with console.Terminal() as terminal:
        if points < 1:
            raise UsageError(f"--points {points} is not allowed: give at least 1.")
        paths = exports.checked([] if output is None else [output], (".json",))
        settings, notes = resolve(given)
        for note in notes:
            terminal.say(note)
        budget = one_budget(settings, terminal)
        subject, _ = open_subject(settings, terminal)
        budget = budget.fitted((len(subject.source), *subject.source.shape))
        grid = [k / points for k in range(1, points + 1)]
        sums = _measured(subject, budget, grid, settings, terminal)
    summary = _summary(subject, budget, grid, settings, sums)
    for path in paths:
        exports.write_json(path, summary)
    if as_json:
        console.show_json(summary)
    else:
        _show(summary)
        for path in paths:
            console.say(str(path))


def _measured(subject: Subject, budget: Budget, grid: list[float], settings: Settings, progress: Progress) -> Sums:
    objective = goal_of(settings, None)
    sums = Sums(broken=torch.zeros(len(grid), dtype=torch.int64))
    progress.begin("curve", len(subject.ids))
    progress.advance(0)
    for ids in batches(subject, settings, objective):
        x, y = subject.batch(ids)
        found = curve(subject.model, x, y, budget.rows(ids), factors=grid, objective=objective)
        # What cannot be computed is not robust at any ε.
        lost = (found.status == Status.NONFINITE) & (found.radius > 0)
        sums.broken += (found.broken | lost[:, None]).sum(0).cpu()
        sums.right += int(((found.radius > 0) & ~lost).sum())
        sums.lost += int(lost.sum())
        sums.forwards += int(found.forwards.sum())
        sums.backwards += int(found.backwards.sum())
        sums.radius.append(found.radius.cpu())
        progress.advance(len(ids))
    progress.end()
    return sums


def _summary(subject: Subject, budget: Budget, grid: list[float], settings: Settings, sums: Sums) -> dict[str, Any]:
    count = len(subject.ids)
    radius = torch.cat(sums.radius).sort().values
    found = radius[(radius > 0) & torch.isfinite(radius)]
    epsilon = largest(budget.epsilon)
    return {
        "n": count,
        "clean_accuracy": sums.right / count,
        "budget": repr(budget),
        "points": [
            {"epsilon": factor * epsilon, "accuracy": 1 - int(broken) / count}
            for factor, broken in zip(grid, sums.broken, strict=True)
        ],
        "radius": {
            "found": len(found),
            "quartiles": [float(found.quantile(share)) for share in (0.25, 0.5, 0.75)] if len(found) else None,
        },
        "nonfinite": sums.lost,
        "forwards": sums.forwards,
        "backwards": sums.backwards,
        "command": command_line(["curve"], settings),
    }


def _show(summary: Mapping[str, Any]) -> None:
    rows = [("0", percent(summary["clean_accuracy"]))]
    rows += [(size(row["epsilon"]), percent(row["accuracy"])) for row in summary["points"]]
    console.show_table(("ε", "FGSM accuracy"), rows)
    console.say()
    radius = summary["radius"]
    low, middle, high = (size(value) for value in radius["quartiles"] or (None, None, None))
    quartiles = f"quartiles {low}, {middle}, {high}" if radius["quartiles"] else MISSING
    console.say(f"smallest radius found, over {radius['found']} of {summary['n']} examples: {quartiles}")
    if summary["nonfinite"]:
        console.say(f"{summary['nonfinite']} examples met numbers that are not finite; they are not counted as right")
    console.say(
        f"cost: {summary['backwards'] / summary['n']:g} backward and {summary['forwards'] / summary['n']:.1f} forwards "
        "an example. Success is not monotone in ε: a larger step can jump over the region of error."
    )
