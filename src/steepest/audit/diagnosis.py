"""How far the number of a run can be believed: checks on what was measured and on some examples, then the mending."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from steepest.audit.contract import Stage
from steepest.audit.mending import mend
from steepest.audit.order import Job
from steepest.audit.rungs import drawn
from steepest.audit.store import RunFolder
from steepest.basis.progress import Progress
from steepest.basis.streams import Stream
from steepest.diagnose.contract import Finding, Level
from steepest.diagnose.panel import FEW, examine, named
from steepest.diagnose.probe import Climbed, Probe, Traces
from steepest.diagnose.scenery import scenery
from steepest.diagnose.verdict import verdict

PROBED = 32
"""Examples that the checks ask about; what the run has measured speaks of all."""

SHARE, LEAST = 0.15, 10.0
"""The checks may take so large a share of the run's own seconds, and always so many seconds."""

CHECKS = 0.85
"""The checks' part of those seconds; what is left of them is for the pictures."""

_MENDED = (
    "The search was mended once, as said beside the number. That is evidence, and no proof: what hid one gradient may "
    "hide more. Remove what hides it and audit that, attack by means made for this model, or ask for a certificate."
)
_DRAW = 1 << 22
"""The examples' stream that decides who is asked about."""


def diagnose(folder: RunFolder, job: Job, progress: Progress) -> None:
    """Judge the run once all shards are there, mend the search if a finding asks for it, and keep both.

    The number as first measured stays with the shards; what the mended search breaks is added to it.

    Raises:
        IncompleteError: shards are missing, or no space is left.
    """
    if not job.plan.diagnose or folder.diagnosed:
        return
    shards = -(-len(job.subject.ids) // job.plan.shard_size)
    table, stages = folder.first(shards), folder.ledger(shards, first=True)
    findings, notes, seen = _examined(job, table, stages, progress)
    word = verdict(findings)
    changes = mend(folder, job, word.remedies, table, progress, repaired=_gradients_only(findings))
    if changes:
        word = replace(word, next=_MENDED)
    folder.keep_diagnosis(
        {
            "verdict": word.to_record(),
            "findings": [each.to_record() for each in findings],
            "notes": list(notes),
            "scenery": seen,
            "mended": bool(changes),
            "changes": list(changes),
        }
    )


def _gradients_only(findings: Sequence[Finding]) -> bool:
    """Whether what could not be measured are the gradients, of most examples: then a surrogate's are a measurement."""
    return any(
        each.check == "gradients" and each.level is Level.FAIL and (each.statistic or 0.0) >= 0.5 for each in findings
    )


def _examined(
    job: Job, table: pa.Table, stages: Sequence[Stage], progress: Progress
) -> tuple[list[Finding], tuple[str, ...], dict[str, Any] | None]:
    ids = _chosen(job, table)
    if not len(ids):
        return [], ("no example is right at x, so there is nothing to diagnose",), None
    cascade, (x, y) = job.cascade, job.subject.batch(ids)
    spent = sum(stage.seconds for stage in stages)
    limit = max(LEAST, SHARE * spent)
    begin = time.perf_counter()
    probe = Probe(
        job.subject.model,
        x,
        y,
        cascade.budgets[-1].rows(ids),
        objective=job.objective if isinstance(job.objective, str) else cascade.objective.rows(ids.to(x.device)),
        ids=ids.to(x.device),
        seed=job.plan.seed,
        seconds=limit / 4,
        traces=_traces(job, table, stages),
    )
    found = examine(probe, named(), progress, until=begin + CHECKS * limit)
    notes = () if len(ids) >= FEW else (f"{len(ids)} examples are few: intervals are wide, and rare signs are missed",)
    return found, notes, scenery(probe, until=begin + limit)


def _chosen(job: Job, table: pa.Table) -> Tensor:
    """Return the ids of a simple random sample of the examples that are right at x, rising."""
    right = ~np.equal(table["broken_by"].to_numpy(zero_copy_only=False), "clean")
    ids = torch.from_numpy(table["example_id"].to_numpy()[right])
    draw = Stream.of(job.plan.seed, ids).split(_DRAW).uniform(0, ())
    return ids[drawn(torch.arange(len(ids)), draw, PROBED)[0]]


def _traces(job: Job, table: pa.Table, stages: Sequence[Stage]) -> Traces:
    cascade = job.cascade
    attacks = {rung.name: rung.attack for rung in cascade.rungs if rung.attack is not None}
    largest = cascade.epsilons[-1]
    rungs = tuple(
        Climbed(name=each.name, entered=each.entered, broken=each.broken, free=_free(each.name, attacks[each.name]))
        for each in stages
        if each.name in attacks and each.epsilon == largest
    )
    wrong = np.equal(table["broken_by"].to_numpy(zero_copy_only=False), "clean")
    return Traces(count=len(table), clean=int((~wrong).sum()), rungs=rungs, curve=_curve(job, table, stages))


def _free(name: str, attack: Any) -> bool:
    """Whether a rung goes where gradients do not lead; the relay's gradient steps begin where its squares end."""
    return attack.needs != "gradient" or name.startswith("relay")


def _curve(job: Job, table: pa.Table, stages: Sequence[Stage]) -> tuple[tuple[float, float], ...]:
    if not len(table) or not any(stage.name == "curve" for stage in stages):
        return ()
    factors = job.plan.factors
    flags = table["fgsm_broken"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    held = 1 - flags.reshape(len(table), len(factors)).mean(0)
    return tuple(zip(factors, held.tolist(), strict=True))
