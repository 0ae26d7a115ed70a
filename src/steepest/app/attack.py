"""`steepest attack`: one attack over data in batches, its points written where asked."""

from __future__ import annotations

import math
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
from steepest.attacks.contract import Attack, Status
from steepest.attacks.recipes import ATTACKS
from steepest.audit.subject import Subject
from steepest.audit.tally import name_of
from steepest.basis.progress import Progress
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.models.contract import Objective
from steepest.report.wording import budget, percent, size


@dataclass(slots=True, kw_only=True)
class Tally:
    """What one attack did, added up over batches.

    Attributes:
        right, still_right: examples that the model got right before and after.
        eligible: those that the attack could fool: right ones or, towards a target, those not called the target yet.
        fooled: those of them for which the goal was reached.
        lost: those of them whose outputs or gradients were not finite, and are not fooled; they are not right after.
        example: label, answers before and after, and size of the change in data units, of the first example.
    """

    n: int = 0
    right: int = 0
    still_right: int = 0
    eligible: int = 0
    fooled: int = 0
    lost: int = 0
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    largest_gauge: float = 0.0
    status: dict[str, int] = field(default_factory=dict)
    example: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attack, and what it is turned on."""

    recipe: Attack
    subject: Subject
    budget: Budget
    objective: Objective
    settings: Settings


def run(name: str, given: Mapping[str, Any], *, as_json: bool, output: str | None, force: bool) -> None:
    """Attack, write the points, and print what became of the examples; raises as `st.attack`."""
    with console.Terminal() as terminal:
        settings, notes = resolve(given)
        for note in notes:
            terminal.say(note)
        recipe = ATTACKS.build(name)
        allowed = one_budget(settings, terminal, free="none" in recipe.budgets)
        settings.batch()
        path = None if output is None else Path(output).expanduser()
        if path is not None:
            exports.require_parent(path)
            exports.require_new(path, force=force)
        subject, target = open_subject(settings, terminal)
        job = Job(
            recipe=recipe,
            subject=subject,
            budget=allowed.fitted((len(subject.source), *subject.source.shape)),
            objective=goal_of(settings, target),
            settings=settings,
        )
        sink = sink_for(path, subject, job.budget, job.objective)
        tally = _attacked(job, sink, terminal)
        if path is not None:
            exports.replace(path, sink.close)
    summary = _summary(job, tally, target, path, sink)
    if as_json:
        console.show_json(summary)
    else:
        _show(summary, subject)


def _summary(job: Job, tally: Tally, target: int | None, path: Path | None, sink: Sink) -> dict[str, Any]:
    epsilon = largest(job.budget.epsilon)
    return {
        **asdict(tally),
        "clean_accuracy": tally.right / tally.n,
        "accuracy": tally.still_right / tally.n,
        "attack": job.recipe.call,
        "budget": repr(job.budget),
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "target": target,
        "seed": job.settings.seed,
        "output": None if path is None else str(path),
        "rounded": sink.rounded(),
        "command": command_line(["attack", job.recipe.call], job.settings),
    }


def _attacked(job: Job, sink: Sink, progress: Progress) -> Tally:
    tally = Tally()
    begin = time.perf_counter()
    parts = batches(job.subject, job.settings, job.objective)
    progress.begin(job.recipe.call, len(job.subject.ids))
    progress.advance(0)
    for ids in parts:
        sink.take(_one(job, ids, tally))
        progress.advance(len(ids), f"fooled so far: {tally.fooled} of {tally.eligible}")
    progress.end()
    tally.seconds = time.perf_counter() - begin
    return tally


def _one(job: Job, ids: Tensor, tally: Tally) -> Points:
    """Attack one batch, count what happened, and return its points."""
    subject, goal, allowed = job.subject, job.objective.goal, job.budget.rows(ids)
    x, y = subject.batch(ids)
    found = attack(job.recipe, subject.model, x, y, allowed, objective=job.objective, seed=job.settings.seed, ids=ids)
    before, after = subject.model.logits(x), subject.model.logits(found.point)
    won = goal(after, y)
    right = (before.argmax(1) == y) & torch.isfinite(before).all(1)
    eligible = ~goal(before, y) & torch.isfinite(before).all(1)
    lost = eligible & ~won & (found.status == Status.NONFINITE)
    tally.n += len(ids)
    tally.right += int(right.sum())
    tally.still_right += int((right & ~lost & (after.argmax(1) == y)).sum())
    tally.eligible += int(eligible.sum())
    tally.fooled += int((eligible & won).sum())
    tally.lost += int(lost.sum())
    tally.forwards += int(found.forwards.sum()) + 2 * len(ids)
    tally.backwards += int(found.backwards.sum())
    tally.largest_gauge = max(tally.largest_gauge, float(found.gauge.max()))
    tally.example = tally.example or {
        "label": int(y[0]),
        "before": int(before[0].argmax()),
        "after": int(after[0].argmax()),
        "radius": float(allowed.rows(torch.tensor([0])).norm(found.point[:1].double() - x[:1].double())),
    }
    for status in found.status.tolist():
        word = Status(status).name.lower()
        tally.status[word] = tally.status.get(word, 0) + 1
    return Points(ids=ids, x=x, y=y, point=found.point, prediction=after.argmax(1), fooled=eligible & won)


def _show(summary: Mapping[str, Any], subject: Subject) -> None:
    if summary["n"] == 1:
        _show_one(summary, subject)
    else:
        what = "now wrong" if summary["target"] is None else f"now called {summary['target']}"
        console.say(
            f"{summary['attack']} within {budget(summary)}: {summary['fooled']} of {summary['eligible']} examples are "
            f"{what}; accuracy {percent(summary['clean_accuracy'])} → {percent(summary['accuracy'])}"
        )
    if summary["lost"]:
        console.say(f"not finite, and so not counted as robust: {summary['lost']} of {summary['n']}")
    if summary["status"].get("zero_gradient"):
        console.say(
            f"blind, since the gradient is exactly zero: {summary['status']['zero_gradient']} of {summary['n']}"
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
        f"{after}, with a change of {size(example['radius'])} within {budget(summary)}"
    )
