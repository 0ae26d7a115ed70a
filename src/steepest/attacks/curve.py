"""Accuracy against ε from a single gradient.

The gradient of zero-start FGSM is taken at x, so it does not depend on ε: only the point x + extreme(ε; ∇) does.
A whole curve, and each example's first success, therefore cost one backward and forwards only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steepest.attacks.api import ObjectiveChoice, pose
from steepest.attacks.contract import Problem, Status
from steepest.basis.errors import UsageError
from steepest.budgets.contract import Budget
from steepest.models.contract import Evaluation, Labels
from steepest.models.model import Model, Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What one gradient says about every ε; rows are examples, columns the grid.

    Attributes:
        factors: float64 [E], the grid, in units of the budget, rising.
        broken: bool [N, E], FGSM at that ε succeeds. A success can vanish again at a larger ε: the point jumps over
            the region of error. Examples that are wrong at x count as broken everywhere.
        accuracy: float64 [E], the share that is not broken.
        radius: float64 [N], size in data units of the smallest success found; 0 where wrong at x, ∞ where none.
        gauge: float64 [N], the same in units of the budget.
        point: [N, *features], that success; x where there is none.
        forwards, backwards: int64 [N].
        status: `Status` as int64 [N].

    >>> import steepest as st
    >>> f = st.Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> found = st.curve(f, torch.tensor([[0.3, 0.3]]), torch.tensor([0]), st.Linf(0.1), factors=[0.25, 1.0])
    >>> found.accuracy.tolist(), found.backwards.tolist()
    ([1.0, 0.0], [1])
    """

    factors: Tensor
    broken: Tensor
    accuracy: Tensor
    radius: Tensor
    gauge: Tensor
    point: Tensor
    forwards: Tensor
    backwards: Tensor
    status: Tensor


def curve(
    model: Model | Network,
    x: Tensor,
    y: Labels,
    budget: Budget,
    *,
    factors: Sequence[float] | Tensor | None = None,
    objective: ObjectiveChoice = "scaled-ce",
    tolerance: float | None = 1e-3,
) -> Curve:
    """Return the accuracy of zero-start FGSM at every ε = factor · budget, from one backward per example.

    The first success on the grid is refined by bisection towards the last failure before it, to `tolerance` of
    the largest factor; between grid points success is not monotone, so it is a smaller success, not the smallest.

    Args:
        factors: the grid in units of the budget; 32 equal steps up to 1 if left out.
        tolerance: None leaves the radius at the grid.
        Others: as `attack`.

    Raises:
        UsageError: a factor is negative or not finite, or the tolerance is not positive; else as `attack`.

    >>> f = Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> from steepest.budgets.linf import Linf
    >>> found = curve(f, torch.tensor([[0.3, 0.3]]), torch.tensor([0]), Linf(0.1), factors=[0.25, 0.5, 1.0])
    >>> found.broken.tolist(), round(float(found.radius), 3)
    ([[False, False, True]], 0.05)
    """
    grid = _grid(factors)
    if tolerance is not None and not tolerance > 0:
        raise UsageError(f"tolerance={tolerance} is not allowed; give a positive share of the range, or None.")
    problem = pose(model, x, y, budget, objective=objective)
    with problem.model.borrowed(), torch.no_grad():
        found = problem.gradient(problem.region.x)
        return trace(problem, found, grid, tolerance)


def trace(problem: Problem, at_x: Evaluation, factors: Tensor, tolerance: float | None) -> Curve:
    """Return the curve of a problem whose gradient at x is known already; `factors` rises."""
    assert at_x.gradient is not None
    gradient, wrong = at_x.gradient, at_x.won
    columns = []
    nonfinite = ~at_x.finite
    spent = torch.zeros_like(wrong, dtype=torch.int64) + at_x.forwards
    for factor in factors.tolist():
        found = _judged(problem, gradient, factor)
        columns.append(found.won | wrong)
        nonfinite = nonfinite | ~found.finite
        spent += found.forwards
    count = wrong.shape[0]
    broken = torch.stack(columns, 1) if columns else wrong.new_zeros(count, 0)
    best = _first(broken, factors.to(gradient.device), wrong)
    if tolerance is not None and count:
        best, more = _refined(problem, gradient, factors, tolerance * float(factors[-1]), best)
        spent += more
    point, radius, gauge = _sizes(problem, gradient, best)
    status = torch.full((count,), Status.EXHAUSTED, dtype=torch.int64, device=wrong.device)
    status[at_x.size == 0] = Status.ZERO_GRADIENT
    status[nonfinite] = Status.NONFINITE
    status[broken.any(1)] = Status.OK
    return Curve(
        factors=factors,
        broken=broken,
        accuracy=1 - broken.double().mean(0) if count else torch.full_like(factors, torch.nan),
        radius=radius,
        gauge=gauge,
        point=point,
        forwards=spent,
        backwards=torch.zeros_like(spent) + at_x.backwards,
        status=status,
    )


def _grid(factors: Sequence[float] | Tensor | None) -> Tensor:
    given = torch.arange(1, 33) / 32 if factors is None else torch.as_tensor(factors, dtype=torch.float64)
    grid = torch.tensor(sorted(set(given.detach().cpu().double().reshape(-1).tolist())), dtype=torch.float64)
    if not grid.numel() or not bool((torch.isfinite(grid) & (grid >= 0)).all()):
        raise UsageError(f"factors={factors} are not allowed; give at least one, all finite and at least 0.")
    return grid


def _judged(problem: Problem, gradient: Tensor, factor: float | Tensor) -> Evaluation:
    point = problem.region.scaled(factor).extreme(gradient)
    return problem.model.evaluate(point, problem.y, problem.objective, problem.goal)


def _first(broken: Tensor, factors: Tensor, wrong: Tensor) -> Tensor:
    """Return the smallest factor that succeeded, ∞ where none did, 0 where x is wrong already."""
    first = torch.where(broken, factors, torch.inf).amin(1)
    return torch.where(wrong, 0.0, first)


def _refined(problem: Problem, gradient: Tensor, factors: Tensor, width: float, best: Tensor) -> tuple[Tensor, Tensor]:
    """Bisect between the first success and the failure before it, for the examples that have both."""
    spent = torch.zeros(best.shape[0], dtype=torch.int64, device=best.device)
    rows = (best.isfinite() & (best > 0)).nonzero().squeeze(1)
    if not rows.numel() or width <= 0:
        return best, spent
    grid = torch.cat([factors.new_zeros(1), factors]).to(best.device)
    high = best[rows]
    low = grid[torch.searchsorted(grid, high) - 1]
    part, slope = problem.rows(rows), gradient[rows]
    for _ in range(math.ceil(math.log2(max(float((high - low).max()) / width, 1)))):
        middle = (low + high) / 2
        found = _judged(part, slope, middle)
        high, low = torch.where(found.won, middle, high), torch.where(found.won, low, middle)
        spent[rows] += found.forwards
    return best.index_copy(0, rows, high), spent


def _sizes(problem: Problem, gradient: Tensor, best: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the points at the factors found and their (radius, gauge), measured on the points themselves."""
    finite = best.isfinite()
    point = problem.region.scaled(torch.where(finite, best, 0.0)).extreme(gradient)
    nothing = torch.full_like(best, torch.inf)
    radius, gauge = problem.region.norm(point), problem.region.gauge(point)
    return point, torch.where(finite, radius, nothing), torch.where(finite, gauge, nothing)
