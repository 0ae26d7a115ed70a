"""Compute one shard of a run, and commit it: what every executor does, wherever it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from steepest.audit.data import pixel_hash
from steepest.audit.order import Job
from steepest.audit.outcome import Outcome
from steepest.audit.store import RunFolder

GALLERY = 48
"""How many pictures a report can show; each shard keeps its part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A shard that is committed.

    Attributes:
        unbroken: how many of its `examples` nothing broke; None where another worker had committed it already.
    """

    number: int
    examples: int
    unbroken: int | None


def compute(folder: RunFolder, job: Job, number: int) -> Done:
    """Compute and commit one shard, unless it is there: the same shard twice does no harm, but costs."""
    plan, shards = job.plan, torch.split(job.subject.ids, job.plan.shard_size)
    ids, digest = shards[number], plan.digest()
    if folder.done(number, digest):
        return Done(number=number, examples=len(ids), unbroken=None)
    x, y = job.subject.batch(ids)
    outcome = job.cascade.rows(ids).run(x, y, ids.to(x.device))
    pictures = -(-GALLERY // len(shards))
    keep_points(folder, f"{number:05d}", outcome, ids, pictures=pictures, everything=plan.save)
    folder.commit(number, outcome.columns(ids, pixel_hash(x.cpu()), plan.seed), outcome.ledger, digest)
    return Done(number=number, examples=len(ids), unbroken=int((~outcome.broken).sum()))


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
