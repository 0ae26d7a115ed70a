"""Quadratic bowls: where one big step overshoots or picks the wrong corner, small steps judged again do not."""

from __future__ import annotations

import pytest
import torch

from steepest.attacks.api import fgsm
from steepest.attacks.worst_case import worst_case
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.models.model import Model
from steepest.models.objectives import output_itself

X = torch.zeros(1, 2, dtype=torch.float64)
SMALL_STEPS = "bim(steps=210, step=0.01)"


def fgsm_of(fn, budget) -> torch.Tensor:
    model = Model(lambda x: fn(x)[:, None], None)
    return fgsm(model, X, torch.zeros(1, dtype=torch.int64), budget, objective=output_itself())


@pytest.mark.parametrize("theta", [0.1, 0.5, -0.9, 1.5, -1.9, 2.0, 3.0])
def test_pgd_finds_the_top_of_a_concave_bowl_and_fgsm_overshoots(theta):
    """L = θδ − cδ²/2, c = 2, ε = 1: the best δ is θ/c clipped; FGSM misses (|θ| − cε)²/2c per coordinate."""
    c = 2.0

    def bowl(x):
        return (theta * x - c * x.square() / 2).sum(1)

    top = max(-1.0, min(1.0, theta / c))
    best = 2 * (theta * top - c * top**2 / 2)
    for recipe in (SMALL_STEPS, "pgd(steps=200, step=0.01)"):
        found = worst_case(bowl, X, Linf(1.0), recipe=recipe)
        assert found.value.item() == pytest.approx(best, abs=1e-3)
        assert found.value.item() <= best + 1e-12
        assert found.point[0].tolist() == pytest.approx([top, top], abs=0.02)
    jump = bowl(fgsm_of(bowl, Linf(1.0))).item()
    gap = 2 * max(0.0, c - abs(theta)) ** 2 / (2 * c)
    assert jump == pytest.approx(best - gap, abs=1e-12)
    assert found.value.item() > jump - 1e-9


@pytest.mark.parametrize("h", [0.05, 0.2, 1.0])
def test_pgd_finds_the_corner_that_the_first_gradient_does_not_point_to(h):
    """L = ⟨θ, δ⟩ + ½ δ'Hδ, θ = (1, .1), H = [[0, −h], [−h, 0]]: the best corner is (+, −) once hε > .1."""

    def saddle(x):
        return x[:, 0] + 0.1 * x[:, 1] - h * x[:, 0] * x[:, 1]

    assert fgsm_of(saddle, Linf(1.0)).tolist() == [[1.0, 1.0]]
    best = [1.0, 1.0] if h < 0.1 else [1.0, -1.0]
    for recipe in (SMALL_STEPS, "pgd(steps=100)"):
        found = worst_case(saddle, X, Linf(1.0), recipe=recipe)
        assert found.point[0].tolist() == pytest.approx(best)
        assert found.value.item() == pytest.approx(max(1.1 - h, 0.9 + h))


def test_pgd_follows_the_sphere_to_the_best_direction_of_a_bowl():
    """max of ⟨a, δ⟩ − ½|δ|² over |δ|₂ ≤ ε is at ε a/|a| when |a| ≥ ε, else at a itself."""
    a = torch.tensor([0.6, -0.8], dtype=torch.float64)
    for eps in (0.5, 2.0):
        found = worst_case(lambda x: x @ a - x.square().sum(1) / 2, X, L2(eps), recipe="pgd(steps=120, step=0.05)")
        size = min(eps, 1.0)
        assert found.value.item() == pytest.approx(size - size**2 / 2, abs=3e-3)
        assert found.point[0].tolist() == pytest.approx((size * a).tolist(), abs=0.06)
