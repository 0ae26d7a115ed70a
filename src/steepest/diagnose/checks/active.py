"""Does the search find a planted point that it must find?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self, final

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from steepest.attacks.contract import Problem
from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import ModelError
from steepest.basis.streams import Stream
from steepest.diagnose.check import Price, check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Remedy
from steepest.diagnose.features import features_of
from steepest.diagnose.probe import Probe
from steepest.diagnose.searches import require_gradient
from steepest.models.model import Model

PASSED, FAILED = 0.95, 0.5
"""Shares of planted points found from which on the search passes, and below which it fails."""

CALLS = ("pgd(steps=20)", "apgd(steps=40)")

_INSIDE, _INNER, _EXAMPLES, _FEWEST = 0.95, 200, 32, 8
_BLIND = 50
_COST = Price(passes=_INNER + 42 + _BLIND, least=16)
_PLANTED = 1 << 21


@check(
    "active",
    "Does the search along gradients find a point that was planted for it?",
    Family.MASKED,
    cost=_COST,
    source="Zimmermann et al. 2022, the binarisation test",
)
def active(probe: Probe) -> Judgement:
    """FAIL where gradients find under 50 % of what was planted, WARN under 95 %.

    For each of at most 32 examples the last linear layer is replaced by one that separates the features of one corner
    of the budget from those of random points in 95 % of it, and the search must find a point on the corner's side.
    """
    require_gradient(probe)
    rows = probe.require_right()[: min(_EXAMPLES, _COST.examples(probe))]
    features = features_of(probe)
    task = _planted(probe, features, rows)
    if len(task.rows) < _FEWEST:
        raise NotRun(f"{len(task.rows)} of {len(rows)} planted points can be told apart by a plane; {_FEWEST} must be")
    try:
        score = _score(task, CALLS, probe.seed)
    except ModelError as error:
        raise NotRun(str(error)) from None
    blind = _score(task, (f"noise(points={_BLIND})",), probe.seed + 1)
    found, trivial = float(score.double().mean()), float(blind.double().mean())
    missed = torch.zeros_like(probe.right)
    missed[task.rows[~score]] = True
    level = Level.PASS if found >= PASSED else Level.WARN if found >= FAILED else Level.FAIL
    return Judgement(
        level=level,
        says=f"gradients found {100 * found:.0f} % of {len(task.rows)} planted points "
        f"({_BLIND} random points each {100 * trivial:.0f} %)",
        statistic=found,
        threshold=PASSED,
        flagged=missed if level is not Level.PASS else None,
        advice="A search that misses what is there by construction says nothing about what it does not find. Search "
        "through a surrogate, or without gradients."
        if level is not Level.PASS
        else "",
        remedy=Remedy(name="surrogate") if level is Level.FAIL else None,
        of=len(task.rows),
    )


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Examples with a planted point each."""

    rows: Tensor
    problem: Problem


def _score(task: _Task, calls: tuple[str, ...], seed: int) -> Tensor:
    won = torch.zeros_like(task.rows, dtype=torch.bool)
    for call in calls:
        left = (~won).nonzero().squeeze(1)
        if left.numel():
            won[left] = ATTACKS.build(call).run(task.problem.rows(left), seed).won
    return won


def _planted(probe: Probe, features: Model, rows: Tensor) -> _Task:
    posed = probe.problem().rows(rows)
    inner = posed.region.scaled(_INSIDE)
    stream = posed.stream.split(_PLANTED)
    corner = features.logits(posed.region.corner(stream, 0)).double()
    count = int(min(_INNER, max(corner.shape[1] // 2, 8)))
    cloud = torch.stack([features.logits(_point(inner, stream, draw)).double() for draw in range(count)], 1)
    weights, biases, kept = [], [], []
    for at in range(len(rows)):
        plane = _plane(cloud[at].cpu().numpy(), corner[at].cpu().numpy())
        if plane is not None:
            weights.append(plane[0])
            biases.append(plane[1])
            kept.append(at)
    index = torch.tensor(kept, dtype=torch.int64, device=rows.device)
    width = corner.shape[1]
    side = _Side(
        torch.tensor(np.array(weights).reshape(-1, width), device=rows.device),
        torch.tensor(np.array(biases), device=rows.device),
    )
    problem = replace(posed.rows(index), model=features, objective=side, goal=side.goal, clean=None)
    return _Task(rows=rows[index], problem=problem)


def _point(region: Any, stream: Stream, draw: int) -> Tensor:
    point: Tensor = region.x if draw == 0 else region.sample(stream, draw)
    return point


def _plane(cloud: np.ndarray[Any, Any], corner: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], float] | None:
    """Return (w, b) with w·z + b above 0 at the corner alone; None where no plane does that."""
    z = np.vstack([cloud, corner[None]])
    if not np.isfinite(z).all():
        return None
    middle, scale = cloud.mean(0), max(float(z.std()), 1e-30)
    fit = LogisticRegression(C=1e6, max_iter=1000).fit((z - middle) / scale, [0] * len(cloud) + [1])
    w = fit.coef_[0] / scale
    sides = (z - middle) @ w
    low, high = sides[:-1].max(), sides[-1]
    return (w, float(-(middle @ w) - (low + high) / 2)) if high > low else None


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """An objective: w·z + b of the features z, one plane for each example; the goal is its positive side."""

    weight: Tensor
    bias: Tensor

    @property
    def goal(self) -> _Beyond:
        return _Beyond(self)

    def ascent(self, outputs: Tensor, y: object) -> Tensor:
        """See `Objective`."""
        return (outputs * self.weight.to(outputs.dtype)).sum(1) + self.bias.to(outputs.dtype)

    def value(self, outputs: Tensor, y: object) -> Tensor:
        """See `Objective`."""
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Self:
        """See `Objective.rows`."""
        return replace(self, weight=self.weight[index], bias=self.bias[index])


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Beyond:
    """The goal: a point on the positive side."""

    side: _Side

    def __call__(self, outputs: Tensor, y: object) -> Tensor:
        return self.side.value(outputs, y) > 0

    def rows(self, index: Tensor) -> Self:
        """See `Goal.rows`."""
        return replace(self, side=self.side.rows(index))
