"""Diagnose in one call."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from steepest.attacks.api import ObjectiveChoice, pose
from steepest.basis.errors import ModelError, SteepestError, UsageError
from steepest.basis.progress import Progress, Silent
from steepest.budgets.contract import Budget
from steepest.diagnose.contract import Finding, Verdict
from steepest.diagnose.panel import FEW, affordable, estimate, examine, named
from steepest.diagnose.probe import Probe
from steepest.diagnose.scenery import scenery
from steepest.diagnose.verdict import verdict
from steepest.models.inspection import inspected
from steepest.models.model import Model, Network
from steepest.models.objectives import objective_of

PATIENCE = 13
"""The panel may take so many times the seconds that it is given for searches without gradients."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What the panel found.

    Attributes:
        findings: one per check, cheap ones first.
        notes: what a reader must know of the whole, e.g. that few examples were given.
        scenery: the numbers of the pictures, see `diagnose.scenery.scenery`; None where only some checks were asked
            for.
        estimated, seconds: what was foretold, and what it took.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    >>> from steepest.budgets.linf import Linf
    >>> x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    >>> found = diagnose(net, (x, net(x).argmax(1)), Linf(0.1), checks=["gradients"])
    >>> found.findings[0].level.value, found.to_record()["n"]
    ('pass', 20)
    """

    findings: tuple[Finding, ...]
    verdict: Verdict
    count: int
    notes: tuple[str, ...]
    scenery: dict[str, Any] | None
    estimated: float
    seconds: float

    def to_record(self) -> dict[str, Any]:
        """Return the diagnosis as plain JSON values."""
        return {
            "verdict": self.verdict.to_record(),
            "findings": [each.to_record() for each in self.findings],
            "n": self.count,
            "notes": list(self.notes),
            "scenery": self.scenery,
            "estimated": self.estimated,
            "seconds": self.seconds,
        }


def diagnose(
    model: Model | Network,
    data: tuple[Tensor, Tensor],
    budget: Budget,
    *,
    objective: ObjectiveChoice = "scaled-ce",
    checks: Sequence[str] | None = None,
    seed: int = 0,
    seconds: float = 20.0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Say whether robust accuracies of this model inside this budget can be believed, and why not.

    Every check of the catalogue judges the same examples; 64 are a good number. What one check asks is not asked
    again for another.

    Args:
        model: a `Model`; a bare module is taken with the box [0, 1].
        data: (x [N, *features], y int64 [N]).
        checks: names of `steepest list checks`; all if left out.
        seconds: for the searches without gradients, all together, and for the pictures; where the whole panel would
            take thirteen times as long, fewer examples are examined, at least 16; dear checks look at fewer of them
            where the model is slow, and say so.

    Raises:
        UsageError: no example, an unknown check.
        DataError: x leaves the box or is not finite; labels do not fit.
        ModelError: the model does not answer [N, K].

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    >>> from steepest.budgets.linf import Linf
    >>> x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    >>> diagnose(net, (x, net(x).argmax(1)), Linf(0.1), seconds=1).verdict.word
    'no sign of masking found'
    """
    begin, told = time.perf_counter(), progress or Silent()
    x, y = data
    if not len(x):
        raise UsageError("there is no example to diagnose on: give at least one, better 64.")
    handle = model if isinstance(model, Model) else Model(model)
    problem = pose(handle, x, y, budget, objective=objective)  # refuses what does not fit before any work
    rows, notes = _answered(handle, x)
    x, y, budget = x[rows], problem.y[rows], budget.fitted(tuple(x.shape)).rows(rows)
    handle = inspected(handle, x) if handle.facts.classes is None else handle
    panel = named(checks)
    asked: dict[str, Any] = {"objective": _of_rows(objective, rows), "seed": seed, "seconds": seconds}
    probe = Probe(handle, x, y, budget, **asked)
    with handle.borrowed(seed):
        fewer = affordable(probe, panel, PATIENCE * seconds)
        foretold = estimate(probe, panel, fewer)
    if fewer < len(x):
        notes = (*notes, f"the model is slow: {fewer} of {len(x)} examples are examined; more seconds allow more")
        some = torch.arange(fewer, device=x.device)
        x, y, budget = x[some], y[some], budget.rows(some)
        asked["objective"] = _of_rows(asked["objective"], some)
        probe = Probe(handle, x, y, budget, **asked)
    told.say(f"{len(panel)} checks on {len(x)} examples: about {foretold:.0f} s")
    findings = tuple(examine(probe, panel, told))
    if len(x) < FEW:
        notes = (*notes, f"{len(x)} examples are few: intervals are wide, and rare signs are missed")
    return Diagnosis(
        findings=findings,
        verdict=verdict(findings),
        count=len(x),
        notes=notes,
        scenery=scenery(probe, until=time.perf_counter() + seconds) if checks is None else None,
        estimated=foretold,
        seconds=time.perf_counter() - begin,
    )


def _of_rows(objective: ObjectiveChoice, rows: Tensor) -> ObjectiveChoice:
    """Return the objective of some examples; a name, which checks know, stays one."""
    return objective if isinstance(objective, str) else objective_of(objective).rows(rows)


def _answered(model: Model, x: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """Return which examples the model answers at all, and a note if it fails on some; one by one only where it fails.

    Raises:
        ModelError: it answers none of them, or none alone, so that those at fault cannot be told.
    """
    everyone = torch.arange(len(x), device=x.device)
    if _fault(model, x) is None:
        return everyone, ()
    faults = [_fault(model, x[row : row + 1]) for row in range(len(x))]
    kept = everyone[torch.tensor([fault is None for fault in faults], device=x.device)]
    first = next((fault for fault in faults if fault is not None), None)
    if not len(kept) or first is None:
        raise ModelError(
            f"the model {model.facts.source} fails on these examples ({first or 'together only'}): check the shape and "
            "range of the data, and that the model answers a batch of any size."
        )
    return kept, (f"the model fails on {len(x) - len(kept)} of {len(x)} examples ({first}); they are left out",)


def _fault(model: Model, x: Tensor) -> str | None:
    """Return what the user's code raises at `x`, if anything."""
    try:
        model.logits(x)
    except SteepestError:
        raise
    except Exception as error:  # the user's code may raise anything
        said = str(error).strip().splitlines()
        return f"{type(error).__name__}: {said[0] if said else 'no message'}"
    return None
