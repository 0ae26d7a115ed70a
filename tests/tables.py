"""Tables that many laws share: a new budget or model is one row here and arrives tested."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from steepest.budgets.contract import Budget, Limits
from steepest.budgets.ellipsoid import Ellipsoid
from steepest.budgets.intersection import Intersection
from steepest.budgets.l0 import L0
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from steepest.budgets.pixel_l2 import PixelL2
from steepest.budgets.pixel_sum import PixelSum
from steepest.budgets.relations import relations
from steepest.budgets.subspace import Subspace, low_frequency
from steepest.budgets.tabular import Tabular
from steepest.budgets.weighted import Weighted


def budgets(shape: tuple[int, ...], eps: float) -> dict[str, Budget]:
    """One budget of every kind for examples of `shape`; a new budget is a row here."""
    size = int(np.prod(shape))
    weights = torch.linspace(0, 2, size).reshape(shape)
    mask = (torch.arange(size) % 2 == 0).reshape(shape)
    count = math.ceil(2 * eps)  # how many values or pixels; how far each may go is eps
    return {
        "linf": Linf(eps),
        "linf per feature": Linf(eps * weights[None]),
        "l2": L2(eps),
        "l1": L1(eps),
        "weighted": Weighted(eps, up=weights, down=weights.flip(0)),
        "one-sided": Weighted(eps, up=weights, down=torch.zeros(shape)),
        "masked linf": Masked(Linf(eps), mask),
        "masked l2": Masked(L2(eps), mask),
        "masked l1": Masked(L1(eps), mask),
        "l0": L0(count, reach=eps),
        "l0 in the box": L0(count),
        "pixels": L0(count, pixels=True, reach=eps),
        "masked l0": Masked(L0(count, reach=eps), mask),
        "pixel-l2": PixelL2(eps),
        "pixel-sum": PixelSum(eps),
        "masked pixel-sum": Masked(PixelSum(eps), mask),
        "ellipsoid": Ellipsoid(eps, metric(size)),
        "subspace": Subspace(L2(eps), directions(shape)),
        "low frequency": low_frequency(Linf(eps), 1),
        "relations": relations(L2(eps), total(shape)),
        "stepped": Tabular(eps, up=weights + 0.5, step=eps * 0.4 * mask),
        "intersection": Intersection(L2(eps), Linf(eps / 2)),
    }


def answerable(budget: Budget, limits: Limits, *, cut: bool = True) -> Limits | None:
    """The limits, or none where a law asks without and the set bounds every value; a plain count refuses that."""
    like = torch.zeros(1, *limits[0].shape[1:], dtype=torch.float64)
    return limits if cut or needs_a_box(budget, like) else None


def needs_a_box(budget: Budget, like: torch.Tensor) -> bool:
    """Whether the set leaves a value of inputs such as `like` unbounded, so that it needs a box."""
    return any(bool(side.isinf().any()) for side in budget.hull(like))


def metric(size: int) -> torch.Tensor:
    """A symmetric positive definite matrix with axes of different lengths that are no coordinates."""
    index = torch.arange(size, dtype=torch.float64)
    return torch.exp(-(index[:, None] - index).abs()) + torch.diag(0.2 + index / max(size, 1))


def directions(shape: tuple[int, ...]) -> torch.Tensor:
    """About half as many vectors as coordinates, neither orthogonal nor of one length."""
    size = int(np.prod(shape))
    waves = torch.arange(1, size // 2 + 2)[:, None] * torch.arange(1, size + 1)
    return torch.cos(waves.double()).reshape(-1, *shape)


def total(shape: tuple[int, ...]) -> torch.Tensor:
    """The relation that the first value is the sum of the others."""
    row = -torch.ones(int(np.prod(shape)), dtype=torch.float64)
    row[0] = 1
    return row.reshape(1, *shape)


NAMES = list(budgets((2,), 1.0))
ITERATED = [name for name, budget in budgets((2,), 1.0).items() if hasattr(budget, "accuracy")]
"""Sets whose extreme and projection have no closed form inside a box: iterated to a stated accuracy."""


def slow_under_full(names: list[str]) -> list:
    """The names as parameters; sets whose answers take long inside the box come under `make test-all` only."""
    slow = [name for name in names if "sum" in name or name in ITERATED]
    return [pytest.param(name, marks=pytest.mark.full if name in slow else ()) for name in names]


CONVEX = [name for name, budget in budgets((2,), 1.0).items() if budget.convex]
CLOSED = [name for name in CONVEX if name not in ITERATED]
"""Convex sets with a closed form."""
