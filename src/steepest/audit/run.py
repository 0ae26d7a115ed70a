"""Work through the shards of a plan, and keep what a report needs."""

from __future__ import annotations

import math
import platform
import secrets
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from steepest.audit import measure
from steepest.audit.assurance import require_answers
from steepest.audit.cascade import Cascade
from steepest.audit.contract import AFTERWARDS, SCHEMA_VERSION, Plan
from steepest.audit.executors.contract import Executor, Task
from steepest.audit.order import Job
from steepest.audit.parts import Part
from steepest.audit.store import RunFolder
from steepest.audit.subject import Subject
from steepest.basis.box import Box
from steepest.basis.progress import Progress
from steepest.budgets.catalogue import unit_of
from steepest.budgets.contract import Budget
from steepest.models.contract import Need
from steepest.models.prepare import Preparation, prepare

_LINE = 120
"""A budget's own text is shown up to this length."""

_BATCHES, _SHARD = 16, 1024
"""Batches in a shard, so that the few examples that late rungs leave still fill some; at most so many examples."""


def begin(folder: RunFolder, job: Job, command: str | None, count: int) -> tuple[Job, bool]:
    """Return the job with its whole plan, and whether the folder held it already; a new one is written down there.

    A run that is asked for more when its shards are there, a diagnosis or another sample, stays the same run.

    Args:
        command: the text that the report gives to repeat the run.
        count: threads of each worker of a new run.

    Raises:
        UsageError: the folder holds something else, or a sample cannot be attacked; nothing is touched.
    """
    require_answers(job.plan.assure, job.subject.model.facts.answers)
    manifest = folder.claim(job.plan)
    continued = manifest is not None
    if manifest is None:
        plan, found = _measured(job, count)
        folder.begin(_manifest(folder, replace(job, plan=plan), command, found))
        manifest = folder.claim(job.plan)
    assert manifest is not None
    # What stands there counts: another process may have begun the same run a moment earlier.
    held = manifest["plan"]
    measured = {name: held[name] for name in ("batch_size", "shard_size", "threads")}
    plan = replace(job.plan, **measured, prepared=tuple(held["prepared"]))
    if any(held[name] != getattr(plan, name) for name in AFTERWARDS):
        said = command or _as_python(job.subject, job.cascade, plan)
        folder.amend({**manifest, "plan": asdict(plan), "command": said})
    return job.planned(plan), continued


def _measured(job: Job, count: int) -> tuple[Plan, Preparation]:
    """The plan with what is found out once: sizes, a number of threads, and what is searched in."""
    plan, model, (first, x, y) = job.plan, job.subject.sloped, job.subject.first
    objective = job.cascade.objective.rows(first)
    need = Need.GRADIENT if plan.assure else job.cascade.need
    size = plan.batch_size or measure.batch_size(model, x, y, objective, need)
    rows = job.first_batch(size)
    found = prepare(model, x[rows], y[rows], objective.rows(rows), exact=plan.precision == "exact")
    shard = plan.shard_size or max(size, min(_BATCHES * size, _SHARD))
    return replace(plan, batch_size=size, shard_size=shard, threads=count, prepared=found.changes), found


def work(task: Task, hands: Executor, progress: Progress, part: Part, *, continued: bool) -> None:
    """Have the shards of a part computed that are not there yet."""
    shards = torch.split(task.job.subject.ids, task.job.plan.shard_size)
    mine = part.of(len(shards))
    absent = set(task.folder.missing(len(shards), task.job.plan.digest()))
    missing, total = [number for number in mine if number in absent], sum(len(shards[number]) for number in mine)
    finished = total - sum(len(shards[number]) for number in missing)
    if finished:
        progress.say(f"continuing: {finished} of {total} examples are done already")
    if continued and missing:
        # Another machine may be at work on this run: begin elsewhere, or both would compute the same.
        start = secrets.randbelow(len(missing))
        missing = missing[start:] + missing[:start]
    progress.begin("audit", total)
    progress.advance(finished)
    if missing:
        with closing(hands.map_shards(task, missing, progress.say)) as found:
            for done in found:
                note = "" if done.unbroken is None else f"{done.unbroken} of the last {done.examples} unbroken"
                progress.advance(done.examples, note)
    progress.end()


def _manifest(folder: RunFolder, job: Job, command: str | None, found: Preparation) -> dict[str, Any]:
    subject, cascade, plan = job.subject, job.cascade, job.plan
    first_ones = torch.equal(subject.ids, torch.arange(len(subject.ids)))
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command or _as_python(subject, cascade, plan),
        "run": str(folder.path),
        "plan": asdict(plan),
        "plan_hash": plan.digest(),
        "shards": -(-len(subject.ids) // plan.shard_size),
        "epsilons": list(cascade.epsilons),
        "sized": any(rung.around for rung in cascade.rungs),
        "budgets": [_shown(*pair) for pair in zip(cascade.budgets, plan.budgets, strict=True)],
        "budget_unit": unit_of(cascade.budgets[-1]),
        "model": asdict(subject.model.facts),
        "data": {
            "source": subject.source.name,
            "kind": subject.source.kind,
            "sha256": plan.data,
            "n": len(subject.ids),
            "of": len(subject.source),
            "shape": list(subject.source.shape),
            "class_names": list(subject.source.class_names) if subject.source.class_names else None,
            "ids": None if first_ones else subject.ids.tolist(),
            "notes": list(subject.source.notes),
        },
        "box": repr(subject.model.box),
        "limits": _limits(subject.model.box),
        "notes": list(subject.notes),
        "measured": {"batch_size": plan.batch_size, "shard_size": plan.shard_size, "threads": plan.threads},
        "preparation": {
            "changes": list(found.changes),
            **{name: getattr(found, name) for name in ("speedup", "difference", "seconds")},
        },
        "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow", "onnxruntime")}
        | {"steepest": plan.version, "python": platform.python_version()},
        "machine": {"system": platform.system(), "processor": platform.machine(), "device": subject.device_name()},
    }


def _shown(budget: Budget, described: str) -> str:
    """A budget as its author writes it; the text of the plan where that is no short line, as of a foreign class."""
    text = repr(budget)
    return text if len(text) <= _LINE and text.isprintable() else described


def _limits(box: Box) -> list[float] | None:
    """The least and the largest value of the box, between which pictures are drawn; None where there is none."""
    lower, upper = (torch.as_tensor(side, dtype=torch.float64) for side in (box.lower, box.upper))
    found = [float(lower.min()), float(upper.max())]
    return found if all(map(math.isfinite, found)) else None


def _as_python(subject: Subject, cascade: Cascade, plan: Plan) -> str:
    """The call in Python; the model and tensors stand there by name only."""
    budgets = ", ".join(f"st.{budget!r}" for budget in cascade.budgets)
    proofs = [rung.work.call for rung in cascade.rungs if rung.around and rung.certifier is not None]
    certify = f"certify={', '.join(proofs)!r}, " if proofs else ""
    attacks = [rung.work.call for rung in cascade.rungs if rung.attack is not None and not rung.around]
    chosen = f"preset={plan.preset!r}" if plan.preset != "custom" else f"attacks={', '.join(attacks)!r}"
    return (
        f"st.audit({subject.model!r}, {subject.source.name!r}, [{budgets}], {chosen}, {certify}"
        f"objective={plan.objective!r}, target={plan.target}, seed={plan.seed}, batch_size={plan.batch_size}, "
        f"shard_size={plan.shard_size}, precision={plan.precision!r}, save={plan.save}, assure={plan.assure}, "
        f"diagnose={plan.diagnose})"
        f"  # {plan.count} examples"
    )
