"""The search once more on what nothing broke, as a diagnosis asks for it; the model itself still judges each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from steepest.attacks.fitting import admits, serves
from steepest.attacks.recipes import ATTACKS
from steepest.audit.brackets import proven_sizes
from steepest.audit.contract import RECORD, Stage, mended_key
from steepest.audit.data import pixel_hash
from steepest.audit.merging import MENDED, SUMS, merged
from steepest.audit.order import Job
from steepest.audit.rungs import Rung
from steepest.audit.shard import GALLERY, keep_points, threads
from steepest.audit.store import RunFolder
from steepest.basis.errors import IncompleteError
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

_FREE: tuple[tuple[str, int | None], ...] = (("square(queries=5000, rescale=True)", None),)
"""What searches without slopes."""

_FIRST = 1 << 10
"""The number of the first rung; those of the ladder lie below, so that each draws random numbers of its own."""


def mend(
    folder: RunFolder, job: Job, remedies: Sequence[Remedy], table: pa.Table, progress: Progress, *, repaired: bool
) -> tuple[str, ...]:
    """Attack the survivors of every budget in every way that remedies ask for, and keep what they break.

    A survivor is proven by nothing, and broken by nothing at some budget; one that could not be measured is tried
    again. It runs here, whoever computed the shards, and begins anew if it is cut off.

    Args:
        repaired: what could not be measured is measured where a mended search meets finite numbers only.

    Returns:
        What was changed, one sentence each; none if no remedy was asked for, nothing was left to attack, or no way
        could run.
    """
    unmeasured = {row["example_id"] for row in table.to_pylist() if row["status"] == "nonfinite" and not repaired}
    ids = _survivors(job, table)
    ways = _ways(job, remedies) if len(ids) else ()
    sizes = proven_sizes(table, len(job.subject.source))
    held, ledger, changes = table, list[Stage](), list[str]()
    with threads(job.plan.threads):
        for order, way in enumerate(ways):
            if not len(ids):
                break
            found = _tried(folder, job, way, order, (ids, sizes[ids]), progress)
            if isinstance(found, str):
                ledger.append(Stage(name=way.name, epsilon=job.cascade.epsilons[-1], notes=(found,)))
                continue
            changes += way.changes
            before = _broken(held)
            held = merged(held, _as_measured(found[0], unmeasured), MENDED)
            found[1].broken = _broken(held) - before
            ledger.append(found[1])
            ids = _survivors(job, held)
    if changes:
        folder.commit("mended", _added(held, table), ledger, mended_key(job.plan.digest()))
    return tuple(dict.fromkeys(changes))


def _survivors(job: Job, table: pa.Table) -> Tensor:
    """Return the ids of the examples that nothing broke at the smallest budget, and nothing proved at the largest."""
    epsilons = job.cascade.epsilons
    smallest = epsilons[0] / epsilons[-1] if epsilons[-1] > 0 else 1.0
    size = table["radius_gauge"].to_numpy(zero_copy_only=False).astype(float)  # None becomes NaN: no success known
    unproven = np.array([by is None for by in table["proven_by"].to_pylist()], dtype=bool)
    left = ~(size <= smallest * (1 + 1e-12)) & unproven
    return torch.from_numpy(table["example_id"].to_numpy()[left])


def _broken(table: pa.Table) -> int:
    return int(table["broken"].to_numpy(zero_copy_only=False).sum())


def _as_measured(table: pa.Table, unmeasured: set[int]) -> pa.Table:
    """Return the records with those that stay unmeasured marked so."""
    rows = table.to_pylist()
    for row in rows:
        if row["example_id"] in unmeasured and not row["broken"]:
            row["status"] = "nonfinite"
    return pa.Table.from_pylist(rows, schema=RECORD)


def _added(held: pa.Table, table: pa.Table) -> dict[str, list[Any]]:
    """Return what the mended search added, as records that `merged` gives back: passes are those of the search."""
    first = {row["example_id"]: row for row in table.to_pylist()}
    rows = []
    for row in held.to_pylist():
        old = first[row["example_id"]]
        if row != old:
            rows.append({**row, **{name: row[name] - old[name] for name in SUMS}})
    added: dict[str, list[Any]] = pa.Table.from_pylist(rows, schema=RECORD).to_pydict()
    return added


def _ways(job: Job, remedies: Sequence[Remedy]) -> tuple[Mended, ...]:
    """Return the ways to search that serve this audit; those without slopes exist for some budgets only."""
    ids, x, _ = job.subject.first
    region = Region(job.cascade.budgets[-1].rows(ids), job.subject.model.box, x)
    made = mended(job.subject.model, job.objective, remedies, region, Stream.of(job.plan.seed, ids.to(x.device)))
    return tuple(way for way in made if _rungs(job, way))


def _rungs(job: Job, way: Mended) -> tuple[Rung, ...]:
    kind, aimed = kind_of(job.cascade.budgets[-1]), isinstance(job.cascade.objective, Targeted)
    facts = job.subject.model.facts
    wanted = [(ATTACKS.build(call), rank) for call, rank in (_FREE if way.free else _SLOPES)]
    return tuple(
        Rung(name=way.name, work=attack, rank=rank)
        for attack, rank in wanted
        if admits(", ".join(attack.budgets) or "any", kind)
        and serves(attack.needs, facts.answers)
        and (rank is None or not (aimed or (facts.classes is not None and rank >= facts.classes - 1)))
    )


def _tried(
    folder: RunFolder, job: Job, way: Mended, order: int, left: tuple[Tensor, Tensor], progress: Progress
) -> tuple[pa.Table, Stage] | str:
    """Return the records of one way to search and its line in the ledger, or why it could not run.

    `left` holds the ids of the survivors and the sizes proven of them.
    """
    size = job.plan.shard_size
    parts = list(zip(torch.split(left[0], size), torch.split(left[1], size), strict=True))
    columns: dict[str, list[Any]] = {name: [] for name in RECORD.names}
    total = Stage(name=way.name, epsilon=job.cascade.epsilons[-1])
    progress.begin(way.name, len(left[0]))
    try:
        cascade = replace(
            job.cascade,
            twin=way.model.asked_by(Confirmed(job.subject.model)),
            rungs=_rungs(job, way),
            objective=objective_of(way.objective),
            first=_FIRST * (order + 1),
        )
        for number, (part, proven) in enumerate(parts):
            x, y = job.subject.batch(part)
            outcome = cascade.rows(part).run(x, y, part.to(x.device), proven)
            keep_points(
                folder, f"mended-{order}-{number:05d}", outcome, part, pictures=GALLERY, everything=job.plan.save
            )
            for name, values in outcome.columns(part, pixel_hash(x.cpu()), job.plan.seed).items():
                columns[name] += values
            total.add(outcome.ledger, entered=len(part), broken=int(outcome.broken.sum()))
            progress.advance(len(part), f"{total.broken} broken")
    except IncompleteError:
        raise
    except Exception as error:  # of the user's code, under another's gradients: said, never counted as robustness
        return f"could not run ({type(error).__name__}: {error})"
    finally:
        progress.end()
    return pa.table(columns, schema=RECORD), total
