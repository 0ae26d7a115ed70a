"""Work through the shards of a plan, and keep what a report needs."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from steepest.audit import measure
from steepest.audit.cascade import Cascade
from steepest.audit.contract import SCHEMA_VERSION, Plan
from steepest.audit.data import pixel_hash
from steepest.audit.outcome import Outcome
from steepest.audit.store import RunFolder
from steepest.audit.subject import Subject
from steepest.basis.box import Box
from steepest.basis.progress import Progress
from steepest.budgets.catalogue import unit_of
from steepest.budgets.contract import Budget
from steepest.models.contract import Need

_LINE = 120
"""A budget's own text is shown up to this length."""

GALLERY = 48
"""How many pictures a report can show; each shard keeps its part."""


def begin(folder: RunFolder, subject: Subject, cascade: Cascade, plan: Plan, command: str | None) -> Plan:
    """Return the whole plan: of the run that the folder holds already, or of a new one, measured and written down.

    Raises:
        UsageError: the folder holds something else; nothing is touched.
    """
    manifest = folder.claim(plan)
    if manifest is not None:
        return replace(plan, batch_size=manifest["plan"]["batch_size"], threads=manifest["plan"]["threads"])
    first, x, y = subject.first
    need = Need.GRADIENT if plan.assure else cascade.need
    size = plan.batch_size or measure.batch_size(subject.model, x, y, cascade.objective.rows(first), need)
    plan = replace(plan, batch_size=size, threads=torch.get_num_threads())
    folder.begin(_manifest(folder, subject, cascade, plan, command))
    return plan


def work(folder: RunFolder, subject: Subject, cascade: Cascade, plan: Plan, progress: Progress) -> None:
    """Compute the shards that are not there yet, one after another."""
    digest, shards = plan.digest(), torch.split(subject.ids, plan.shard_size)
    missing = [number for number in range(len(shards)) if not folder.done(number, digest)]
    finished = len(subject.ids) - sum(len(shards[number]) for number in missing)
    if finished:
        progress.say(f"continuing: {finished} of {len(subject.ids)} examples are done already")
    progress.begin("audit", len(subject.ids))
    progress.advance(finished)
    cascade = replace(cascade, batch=plan.batch_size)
    with threads(plan.threads):
        for number in missing:
            ids = shards[number]
            x, y = subject.batch(ids)
            outcome = cascade.rows(ids).run(x, y, ids.to(x.device))
            pictures = -(-GALLERY // len(shards))
            keep_points(folder, f"{number:05d}", outcome, ids, pictures=pictures, everything=plan.save)
            folder.commit(number, outcome.columns(ids, pixel_hash(x.cpu()), plan.seed), outcome.ledger, digest)
            progress.advance(len(ids), f"{int((~outcome.broken).sum())} of the last {len(ids)} unbroken")
    progress.end()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Use the thread count of the plan: kernels split their sums by it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_points(
    folder: RunFolder, part: str, outcome: Outcome, ids: Tensor, *, pictures: int, everything: bool
) -> None:
    """Keep some successes for the report's gallery, and all of them if asked to."""
    attacked = [row for row, by in enumerate(outcome.broken_by) if by not in (None, "clean")]
    for name, rows in (("gallery", attacked[:pictures]), ("adversarial", attacked if everything else [])):
        if rows:
            index = torch.tensor(rows)
            arrays = {
                "ids": ids[index],
                "labels": outcome.y.cpu()[index],
                "clean": outcome.region.x.cpu()[index],
                "images": outcome.point.cpu()[index],
                "predictions": outcome.prediction.cpu()[index],
                "radius": outcome.region.norm(outcome.point).cpu()[index],
            }
            folder.save_arrays(f"{name}-{part}", {key: array.numpy() for key, array in arrays.items()})


def _manifest(folder: RunFolder, subject: Subject, cascade: Cascade, plan: Plan, command: str | None) -> dict[str, Any]:
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
        "measured": {"batch_size": plan.batch_size, "threads": plan.threads},
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
    chosen = f"preset={plan.preset!r}" if plan.preset != "custom" else f"attacks={', '.join(plan.attacks)!r}"
    return (
        f"st.audit({subject.model!r}, {subject.source.name!r}, [{budgets}], {chosen}, objective={plan.objective!r}, "
        f"target={plan.target}, seed={plan.seed}, batch_size={plan.batch_size}, assure={plan.assure})  "
        f"# {plan.count} examples"
    )
