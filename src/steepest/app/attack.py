"""`steepest attack`: one attack over data in batches, its points written where asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steepest.app import console, exports
from steepest.app.adversarial import Points, Sink, sink_for
from steepest.app.config import Settings, command_line, resolve
from steepest.app.opening import batches, goal_of, one_budget, open_subject
from steepest.attacks.api import attack
from steepest.attacks.contract import Status
from steepest.attacks.recipes import ATTACKS, Recipe
from steepest.audit.subject import Subject
from steepest.audit.tally import name_of
from steepest.basis.progress import Progress
from steepest.budgets.contract import Budget
from steepest.models.contract import Objective
from steepest.models.goals import Predicted
from steepest.report.wording import percent, size


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one attack did, added up over batches.

    Attributes:
        right: examples that the model got right (or, towards a target, did not call the target) before.
        fooled: those of them for which the goal was reached.
        lost: those of them whose outputs or gradients were not finite, and are not fooled.
        example: label, answers before and after, and size of the change in data units, of the first example.
    """

    n: int = 0
    right: int = 0
    fooled: int = 0
    lost: int = 0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    largest_gauge: float = 0.0
    status: dict[str, int] = field(default_factory=dict)
    example: dict[str, Any] = field(default_factory=dict)


def run(name: str, given: Mapping[str, Any], *, as_json: bool, output: str | None, force: bool) -> None:
    """Attack, write the points, and print what became of the examples; raises as `st.attack`."""
    with console.Terminal() as terminal:
        settings, notes = resolve(given)
        for note in notes:
            terminal.say(note)
        recipe = ATTACKS.build(name)
        budget = one_budget(settings, terminal)
        settings.batch()
        path = None if output is None else Path(output).expanduser()
        if path is not None:
            exports.require_parent(path)
            exports.require_new(path, force=force)
        subject, target = open_subject(settings, terminal)
        budget = budget.fitted((len(subject.source), *subject.source.shape))
        goal = goal_of(settings, target)
        sink = sink_for(path, subject, budget, goal)
        if path is None:
            tally = _attacked(recipe, subject, budget, goal, settings, sink, terminal)
        else:
            found: list[Tally] = []

            def write(beside: Path) -> None:
                found.append(_attacked(recipe, subject, budget, goal, settings, sink, terminal))
                sink.close(beside)

            exports.replace(path, write)
            tally = found[0]
    summary = {
        **asdict(tally),
        "clean_accuracy": tally.right / tally.n,
        "accuracy": (tally.right - tally.fooled - tally.lost) / tally.n,
        "attack": recipe.call,
        "budget": repr(budget),
        "target": target,
        "seed": settings.seed,
        "output": None if path is None else str(path),
        "rounded": sink.rounded(),
        "command": command_line(["attack", name], settings),
    }
    if as_json:
        console.show_json(summary)
    else:
        _show(summary, subject)


def _attacked(
    recipe: Recipe,
    subject: Subject,
    budget: Budget,
    goal: Objective,
    settings: Settings,
    sink: Sink,
    progress: Progress,
) -> Tally:
    tally = Tally()
    progress.begin(recipe.call, len(subject.ids))
    progress.advance(0)
    begin = time.perf_counter()
    for ids in batches(subject, settings, goal):
        _one(recipe, subject, ids, budget.rows(ids), goal, settings.seed, tally, sink)
        progress.advance(len(ids), f"fooled so far: {tally.fooled} of {tally.right}")
    progress.end()
    tally.seconds = time.perf_counter() - begin
    return tally


def _one(
    recipe: Recipe,
    subject: Subject,
    ids: Tensor,
    budget: Budget,
    goal: Objective,
    seed: int,
    tally: Tally,
    sink: Sink,
) -> None:
    """Attack one batch, count what happened, and hand its points on."""
    x, y = subject.batch(ids)
    found = attack(recipe, subject.model, x, y, budget, objective=goal, seed=seed, ids=ids)
    before, after = subject.model.logits(x), subject.model.logits(found.point)
    won = goal.goal(after, y)
    right = ~goal.goal(before, y) if isinstance(goal.goal, Predicted) else before.argmax(1) == y
    right &= torch.isfinite(before).all(1)
    tally.n += len(ids)
    tally.right += int(right.sum())
    tally.fooled += int((right & won).sum())
    tally.lost += int((right & ~won & (found.status == Status.NONFINITE)).sum())
    tally.forwards += int(found.forwards.sum()) + 2 * len(ids)
    tally.backwards += int(found.backwards.sum())
    tally.largest_gauge = max(tally.largest_gauge, float(found.gauge.max()))
    tally.example = tally.example or {
        "label": int(y[0]),
        "before": int(before[0].argmax()),
        "after": int(after[0].argmax()),
        "radius": float(budget.rows(torch.tensor([0])).norm(found.point[:1].double() - x[:1].double())),
    }
    for status in found.status.tolist():
        word = Status(status).name.lower()
        tally.status[word] = tally.status.get(word, 0) + 1
    sink.take(Points(ids=ids, x=x, y=y, point=found.point, prediction=after.argmax(1), fooled=right & won))


def _show(summary: Mapping[str, Any], subject: Subject) -> None:
    if summary["n"] == 1:
        _show_one(summary, subject)
    else:
        what = "now wrong" if summary["target"] is None else f"now called {summary['target']}"
        console.say(
            f"{summary['attack']} within {summary['budget']}: {summary['fooled']} of {summary['right']} examples are "
            f"{what}; accuracy {percent(summary['clean_accuracy'])} → {percent(summary['accuracy'])}"
        )
    if summary["lost"]:
        console.say(f"{summary['lost']} examples met numbers that are not finite; they are not counted as robust")
    if summary["status"].get("zero_gradient"):
        console.say(
            f"{summary['status']['zero_gradient']} examples have a gradient of exactly zero: the attack was blind there"
        )
    rounded = summary["rounded"]
    if rounded is not None:
        console.say(f"{rounded['fooled']} of {summary['fooled']} stay adversarial after rounding to 8 bits")
        if rounded["left_out"]:
            console.say(f"{rounded['left_out']} have no 8-bit image inside the budget and were left out")
    console.say(summary["output"] or "nothing was written: give -o adversarial.npz, or -o folder/")


def _show_one(summary: Mapping[str, Any], subject: Subject) -> None:
    example = summary["example"]
    names = subject.source.class_names
    label, before, after = (name_of(example[key], names) for key in ("label", "before", "after"))
    wrong = "" if summary["right"] else ", which is wrong already"
    console.say(
        f"{subject.source.name}, label {label}: the model says {before}{wrong}; after {summary['attack']} it says "
        f"{after}, with a change of {size(example['radius'])} within {summary['budget']}"
    )
