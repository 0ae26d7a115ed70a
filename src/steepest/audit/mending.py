"""The search once more on what nothing broke, as a diagnosis asks for it; the model itself still judges each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from steepest.attacks.fitting import admits
from steepest.attacks.recipes import ATTACKS
from steepest.audit.contract import RECORD, Stage, mended_key
from steepest.audit.data import pixel_hash
from steepest.audit.merging import MENDED, merged
from steepest.audit.order import Job
from steepest.audit.rungs import Rung
from steepest.audit.shard import GALLERY, keep_points, threads
from steepest.audit.store import RunFolder
from steepest.basis.errors import ModelError
from steepest.basis.progress import Progress
from steepest.basis.streams import Stream
from steepest.budgets.catalogue import kind_of
from steepest.budgets.region import Region
from steepest.diagnose.contract import Remedy
from steepest.diagnose.remedies import Mended, mended
from steepest.models.confirmed import Confirmed
from steepest.models.objectives import Targeted, objective_of

_SLOPES: tuple[tuple[str, int | None], ...] = (
    ("pgd(steps=20, restarts=4)", None),
    ("apgd(steps=30)", None),
    *(("apgd(steps=20, targets=1)", rank) for rank in range(5)),
)
"""What follows the slopes of a mended model, with the rank of the class that it aims at.

PGD keeps its step and its way where only the slopes are mended and values stay as flat as the model's; APGD would go
back to where it began.
"""

_FREE: tuple[tuple[str, int | None], ...] = (("square(queries=2000, rescale=True)", None),)
"""What searches without slopes."""

_FIRST = 1 << 10
"""The number of the first rung; those of the ladder lie below, so that each draws random numbers of its own."""


def mend(
    folder: RunFolder, job: Job, remedies: Sequence[Remedy], table: pa.Table, progress: Progress
) -> tuple[str, ...]:
    """Attack the survivors at the largest budget in every way that remedies ask for, and keep what they break.

    A survivor is an example that is neither broken nor proven; one whose search could not be measured is tried again.

    Returns:
        What was changed, one sentence each; none if no remedy was asked for, or nothing was left to attack.
    """
    ids = _survivors(table)
    ways = _ways(job, remedies) if len(ids) else ()
    if not ways:
        return ()
    held, ledger, changes = RECORD.empty_table(), list[Stage](), list[str]()
    with threads(job.plan.threads):
        for order, way in enumerate(ways):
            if not len(ids):
                break
            changes += way.changes
            found = _tried(folder, job, way, order, ids, progress)
            if isinstance(found, str):
                ledger.append(Stage(name=way.name, epsilon=job.cascade.epsilons[-1], notes=(found,)))
                continue
            ledger.append(found[1])
            held = merged(held, found[0], MENDED) if len(held) else found[0]
            ids = _survivors(found[0])
    folder.commit("mended", held.to_pydict(), ledger, mended_key(job.plan.digest()))
    return tuple(dict.fromkeys(changes))


def _survivors(table: pa.Table) -> Tensor:
    """Return the ids of the examples that nothing broke and nothing proved."""
    unproven = np.array([by is None for by in table["proven_by"].to_pylist()], dtype=bool)
    left = ~table["broken"].to_numpy(zero_copy_only=False) & unproven
    return torch.from_numpy(table["example_id"].to_numpy()[left])


def _ways(job: Job, remedies: Sequence[Remedy]) -> tuple[Mended, ...]:
    """Return the ways to search that serve this audit; those without slopes exist for some budgets only."""
    ids, x, _ = job.subject.first
    region = Region(job.cascade.budgets[-1].rows(ids), job.subject.model.box, x)
    objective = job.cascade.objective if isinstance(job.cascade.objective, Targeted) else job.plan.objective
    made = mended(job.subject.model, objective, remedies, region, Stream.of(job.plan.seed, ids.to(x.device)))
    return tuple(way for way in made if _rungs(job, way))


def _rungs(job: Job, way: Mended) -> tuple[Rung, ...]:
    kind, aimed = kind_of(job.cascade.budgets[-1]), isinstance(job.cascade.objective, Targeted)
    classes = job.subject.model.facts.classes
    wanted = [(ATTACKS.build(call), rank) for call, rank in (_FREE if way.free else _SLOPES)]
    return tuple(
        Rung(name=way.name, work=attack, rank=rank)
        for attack, rank in wanted
        if admits(", ".join(attack.budgets) or "any", kind)
        and (rank is None or not (aimed or (classes is not None and rank >= classes - 1)))
    )


def _tried(
    folder: RunFolder, job: Job, way: Mended, order: int, ids: Tensor, progress: Progress
) -> tuple[pa.Table, Stage] | str:
    """Return the records of one way to search and its line in the ledger, or why it could not run."""
    cascade = replace(
        job.cascade,
        twin=way.model.asked_by(Confirmed(job.subject.model)),
        budgets=job.cascade.budgets[-1:],
        epsilons=job.cascade.epsilons[-1:],
        rungs=_rungs(job, way),
        objective=objective_of(way.objective),
        first=_FIRST * (order + 1),
    )
    columns: dict[str, list[Any]] = {name: [] for name in RECORD.names}
    total = Stage(name=way.name, epsilon=cascade.epsilons[0])
    progress.begin(way.name, len(ids))
    try:
        for number, part in enumerate(torch.split(ids, job.plan.shard_size)):
            x, y = job.subject.batch(part)
            outcome = cascade.rows(part).run(x, y, part.to(x.device))
            keep_points(
                folder, f"mended-{order}-{number:05d}", outcome, part, pictures=GALLERY, everything=job.plan.save
            )
            for name, values in outcome.columns(part, pixel_hash(x.cpu()), job.plan.seed).items():
                columns[name] += values
            total.add(outcome.ledger, entered=len(part), broken=int(outcome.broken.sum()))
            progress.advance(len(part), f"{total.broken} broken")
    except ModelError as error:  # said, and never counted as robustness: the other ways go on
        return f"could not run: {error}"
    finally:
        progress.end()
    return pa.table(columns, schema=RECORD), total
