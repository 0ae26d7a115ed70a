"""Linear relations: the closed form of the ball in the null space, and a linear programme for intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from steepest.basis.box import Box
from steepest.basis.errors import UsageError
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.region import Region
from steepest.budgets.relations import relations
from steepest.budgets.tabular import Tabular

RELATION = torch.tensor([[1.0, -1.0, -1.0, 0.0], [2.0, -2.0, -2.0, 0.0]], dtype=torch.float64)  # one, said twice


def test_the_ball_in_the_null_space_has_a_closed_form():
    g = torch.tensor([[1.0, 0.5, -2.0, 3.0]], dtype=torch.float64)
    row = RELATION[0] / RELATION[0].norm()
    along = g - (g @ row)[:, None] * row
    assert torch.allclose(relations(L2(0.3), RELATION).extreme(g), 0.3 * along / along.norm())
    assert torch.allclose(relations(L2(0.3), RELATION).project(0.01 * g), 0.01 * along)


def test_intervals_agree_with_the_linear_programme():
    g = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gain = relations(Linf(0.1), RELATION).fitted((6, 4)).support(g)
    for row in range(6):
        solved = linprog(-g[row].numpy(), A_eq=RELATION[:1].numpy(), b_eq=np.zeros(1), bounds=[(-0.1, 0.1)] * 4)
        assert float(gain[row]) == pytest.approx(-solved.fun, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_the_total_stays_the_sum_to_one_unit_in_the_last_place(dtype):
    parts = torch.rand(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 2
    x = torch.cat([parts.sum(1, keepdim=True), parts, torch.zeros(20, 1)], 1).to(dtype)
    region = Region(relations(L2(0.2), RELATION), Box(0, 1), x)
    point = region.extreme(torch.randn(20, 4, generator=torch.Generator().manual_seed(1)).to(dtype))
    delta = point.double() - x.double()
    assert region.contains(point).all()
    assert (delta.norm(dim=1) > 0.05).all()
    unit = torch.finfo(dtype).eps * torch.maximum(x.double(), point.double()).sum(1)
    assert ((delta @ RELATION[0]).abs() <= 2 * unit + 1e-8 * delta.norm(dim=1)).all()


def test_what_is_refused():
    with pytest.raises(UsageError, match="convex"):
        relations(Tabular(1.0, step=1.0), RELATION)
    with pytest.raises(UsageError, match="do not fit"):
        relations(L2(1.0), RELATION).fitted((2, 5))
