"""A bound on what an audit missed: the full reference protocol on a random sample of the survivors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.attacks.contract import Attack
from steepest.attacks.fitting import serves
from steepest.attacks.recipes import ATTACKS
from steepest.audit.brackets import proven_sizes
from steepest.audit.cascade import Cascade
from steepest.audit.contract import RECORD, Stage
from steepest.audit.data import pixel_hash
from steepest.audit.merging import ASSURANCE
from steepest.audit.order import Job
from steepest.audit.outcome import Outcome
from steepest.audit.rungs import Rung, drawn
from steepest.audit.shard import GALLERY, keep_points, threads
from steepest.audit.store import RunFolder
from steepest.basis.errors import UsageError
from steepest.basis.progress import Progress
from steepest.basis.streams import Stream

PROTOCOLS = {"deterministic": "autoattack", "random": "autoattack(version='rand')"}
"""What is run in full, by how the model answers."""

_DRAW = 1 << 21
"""The examples' stream that decides who is drawn; the protocol's own is the next, the rungs' count up from 0."""


def protocol(deterministic: bool | None) -> Attack:
    """Return the full reference protocol for a model, of which it may be unknown whether it is deterministic."""
    return ATTACKS.build(PROTOCOLS["random" if deterministic is False else "deterministic"])


def require_answers(count: int, gives: str) -> None:
    """Refuse a sample that cannot be attacked, before anything is written; `gives` is what the model answers.

    Raises:
        UsageError: the number is negative, or the model answers no gradient.
    """
    if count < 0:
        raise UsageError(
            f"assure={count} is not allowed: give the number of survivors to draw, e.g. 60, or 0 for none."
        )
    if count and not serves("gradient", gives):
        lent = ", or lend the model an estimated gradient: st.estimated(model)" if gives == "scores" else ""
        raise UsageError(
            f"assure={count} runs the full protocol, which asks the model for gradients, and it gives {gives} only: "
            f"leave --assure out{lent}."
        )


def assure(folder: RunFolder, job: Job, progress: Progress) -> None:
    """Run the full protocol here on a sample of the survivors at the largest budget, once all shards are there.

    A survivor is an example that is neither broken nor proven, and whose search could be measured. What was found on
    a sample of another size is replaced.

    Raises:
        IncompleteError: shards are missing, or no space is left.
    """
    plan = job.plan
    key = folder.sample_key(plan.digest(), plan.assure)
    if not plan.assure or folder.done("assured", key):
        return
    full, sample = _full(job), _sample(folder, job)
    columns: dict[str, list[Any]] = {name: [] for name in RECORD.names}
    total = Stage(name=ASSURANCE, epsilon=full.epsilons[0])
    progress.begin(ASSURANCE, len(sample))
    sizes = proven_sizes(folder.unassured(-(-len(job.subject.ids) // plan.shard_size)), len(job.subject.source))
    with threads(plan.threads):
        for number, ids in enumerate(part for part in torch.split(sample, plan.shard_size) if len(part)):
            outcome, found = _attacked(full, job, ids, sizes[ids])
            keep_points(folder, f"assured-{number:05d}", outcome, ids, pictures=GALLERY, everything=plan.save)
            for name, values in found.items():
                columns[name] += values
            total.add(outcome.ledger, entered=len(ids), broken=int(outcome.broken.sum()))
            progress.advance(len(ids), f"{total.broken} broken")
    folder.commit("assured", columns, [total], key)
    progress.end()


def _full(job: Job) -> Cascade:
    """Return the protocol as a cascade of one rung; it is the reference, so it searches in no faster twin."""
    cascade = job.cascade
    return replace(
        cascade,
        twin=cascade.sloped,
        budgets=cascade.budgets[-1:],
        epsilons=cascade.epsilons[-1:],
        rungs=(Rung(name=ASSURANCE, work=protocol(job.subject.model.facts.deterministic)),),
        first=_DRAW + 1,
    )


def _sample(folder: RunFolder, job: Job) -> Tensor:
    """Return the ids of a simple random sample of the survivors, rising; all of them where there are fewer."""
    table = folder.unassured(-(-len(job.subject.ids) // job.plan.shard_size))
    rows = {
        name: table[name].to_numpy(zero_copy_only=False) for name in ("example_id", "broken", "proven_by", "status")
    }
    unproven = np.array([by is None for by in rows["proven_by"]], dtype=bool)
    survives = ~rows["broken"] & unproven & (rows["status"] != "nonfinite")
    ids = torch.from_numpy(rows["example_id"][survives])
    draw = Stream.of(job.plan.seed, ids).split(_DRAW).uniform(0, ())
    return ids[drawn(torch.arange(len(ids)), draw, job.plan.assure)[0]]


def _attacked(full: Cascade, job: Job, ids: Tensor, proven: Tensor) -> tuple[Outcome, dict[str, list[Any]]]:
    x, y = job.subject.batch(ids)
    outcome = full.rows(ids).run(x, y, ids.to(x.device), proven)
    return outcome, outcome.columns(ids, pixel_hash(x.cpu()), job.plan.seed)
