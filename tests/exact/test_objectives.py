"""Objectives by hand at z = (3, 1, 0, −1), y = 0, and what every catalogued objective promises."""

from __future__ import annotations

import math

import pytest
import torch

from steepest.basis.errors import DataError, UsageError
from steepest.models.contract import Need
from steepest.models.goals import Misclassified
from steepest.models.model import Model
from steepest.models.objectives import (
    DLR,
    OBJECTIVES,
    CrossEntropy,
    Custom,
    Margin,
    ScaledCrossEntropy,
    Targeted,
    checked,
    objective_of,
)

Z = (3.0, 1.0, 0.0, -1.0)


def softmax(z: tuple[float, ...]) -> list[float]:
    total = sum(math.exp(a) for a in z)
    return [math.exp(a) / total for a in z]


P = softmax(Z)
HALF = softmax(tuple(a / 2 for a in Z))  # the top-two gap of Z is 2
LOG_HALF = [2 * math.log(p) for p in HALF]

BY_HAND = {
    # name: (objective, ascent, value, gradient of the ascent)
    "ce": ("ce", -math.log(P[0]), -math.log(P[0]), [P[0] - 1, P[1], P[2], P[3]]),
    "margin": ("margin", -2, -2, [-1, 1, 0, 0]),
    "dlr": ("dlr", -2 / 3, -2 / 3, [-1 / 9, 1 / 3, -2 / 9, 0]),
    "scaled-ce": ("scaled-ce", -LOG_HALF[0], -2, [HALF[0] - 1, HALF[1], HALF[2], HALF[3]]),
    "ce to 1": (Targeted("ce", 1), math.log(P[1]), math.log(P[1]), [-P[0], 1 - P[1], -P[2], -P[3]]),
    "margin to 1": (Targeted("margin", 1), -2, -2, [-1, 1, 0, 0]),
    "margin to 2": (Targeted("margin", 2), -3, -3, [-1, 0, 1, 0]),
    "scaled-ce to 2": (Targeted("scaled-ce", 2), LOG_HALF[2], -3, [-HALF[0], -HALF[1], 1 - HALF[2], -HALF[3]]),
    "dlr to 1": (Targeted("dlr", 1), -4 / 7, -4 / 7, [-2 / 7 + 8 / 49, 2 / 7, -4 / 49, -4 / 49]),
    "dlr to 3": (
        Targeted("dlr", 3),
        -8 / 7,
        -8 / 7,
        [-2 / 7 + 16 / 49, 0, -8 / 49, 2 / 7 - 8 / 49],
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_values_and_gradients_by_hand(name):
    chosen, ascent, value, gradient = BY_HAND[name]
    objective, y = objective_of(chosen), torch.tensor([0])
    z = torch.tensor([Z], dtype=torch.float64, requires_grad=True)
    found = objective.ascent(z, y)
    (slope,) = torch.autograd.grad(found.sum(), z)
    assert found.item() == pytest.approx(ascent, abs=1e-14)
    assert objective.value(z, y).item() == pytest.approx(value, abs=1e-14)
    assert slope[0].tolist() == pytest.approx(gradient, abs=1e-14)


def made(entry):
    """The objective of a catalogue entry; one that needs a class is given class 1."""
    return entry.factory(**({"target": 1} if "target" in entry.parameters else {}))


@pytest.mark.parametrize("entry", list(OBJECTIVES), ids=lambda entry: entry.name)
class TestEveryCatalogued:
    def test_one_finite_number_per_example_and_rows_are_independent(self, entry):
        torch.manual_seed(0)
        objective, y = made(entry), torch.arange(8) % 5
        for dtype in (torch.float32, torch.float64):
            z = (3 * torch.randn(8, 5)).to(dtype)
            for ask in (objective.ascent, objective.value):
                found = ask(z, y)
                assert found.shape == (8,)
                assert found.dtype == dtype
                assert torch.isfinite(found).all()
                for i in range(8):
                    row = torch.tensor([i])
                    alone = getattr(objective.rows(row), ask.__name__)(z[row], y[row])
                    assert torch.allclose(alone, found[row])
        assert objective.ascent(torch.zeros(0, 5), y[:0]).shape == (0,)

    def test_ascending_the_logits_reaches_the_goal(self, entry):
        """The sign is right: whoever follows the ascent gets what the goal asks for (C17)."""
        torch.manual_seed(1)
        objective, z = made(entry), torch.randn(16, 5, dtype=torch.float64)
        y = z.argmax(1)
        first = objective.value(z, y)
        for _ in range(400):
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(objective.ascent(z, y).sum(), z)
            assert torch.isfinite(slope).all()
            z = z + 0.02 * slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-12)
        assert objective.goal(z, y).all()
        stays = objective.goal(torch.randn(16, 5, dtype=torch.float64), y)
        assert stays.dtype == torch.bool
        assert (objective.value(z, y) >= first).all()

    def test_labels_that_do_not_fit_are_refused(self, entry):
        objective, z = made(entry), torch.randn(2, 5)
        y = torch.tensor([0, 5])
        if entry.name == "targeted":  # the target, not y, must be a class
            objective = Targeted("margin", 5)
        with pytest.raises(DataError, match="5"):
            objective.ascent(z, y)

    def test_nonfinite_outputs_never_reach_the_goal(self, entry):
        z = torch.tensor([[math.nan, 5.0, 0.0, 0.0], [0.0, math.inf, 0.0, 0.0], [5.0, math.nan, 0.0, 0.0]])
        assert not made(entry).goal(z, torch.tensor([0, 0, 1])).any()


def test_dlr_does_not_see_scale_or_shift_and_is_in_minus_one_to_zero_iff_correct():
    torch.manual_seed(2)
    z, y = torch.randn(500, 4, dtype=torch.float64), torch.arange(500) % 4
    value = DLR().value(z, y)
    for a in (1e-6, 0.1, 7.0, 1e6):
        assert torch.allclose(DLR().value(a * z + 3 * a, y), value, atol=1e-9)
    assert torch.equal((value >= -1) & (value <= 0), z.argmax(1) == y)
    with pytest.raises(UsageError, match="margin"):
        DLR().value(z[:, :2], y % 2)
    with pytest.raises(UsageError, match="4 classes"):
        Targeted("dlr", 1).value(z[:, :3], y % 3)


def test_margin_hides_the_own_class_by_minus_infinity():
    """With 0 in its place a class with negative logits would seem beaten by nobody (C8)."""
    z = torch.tensor([[-1.0, -5.0, -3.0]], dtype=torch.float64)
    assert float(Margin().value(z, torch.tensor([0]))) == -2
    assert float(Margin().value(z, torch.tensor([1]))) == 4
    for shift in (-1e3, -10.0, 10.0, 1e3):
        for label in range(3):
            y = torch.tensor([label])
            assert torch.allclose(Margin().value(z + shift, y), Margin().value(z, y))


def test_float32_cross_entropy_is_flat_where_the_scaled_one_is_not():
    y = torch.tensor([0])
    ce, scaled = objective_of("ce"), ScaledCrossEntropy()
    assert float(ce.value(torch.tensor([[16.5, 0.0]]), y)) > 0
    for m in (16.64, 20.0, 60.0, 110.0):
        z = torch.tensor([[m, 0.0]], requires_grad=True)
        assert ce.value(z, y).item() == 0
        (flat,) = torch.autograd.grad(ce.ascent(z, y).sum(), z)
        (steep,) = torch.autograd.grad(scaled.ascent(z, y).sum(), z)
        assert float(flat[0, 0]) == 0
        assert steep[0].tolist() == pytest.approx([-1 / (1 + math.e), 1 / (1 + math.e)], rel=1e-5)
    assert float(flat.abs().max()) == 0  # m = 110: nothing at all is left of the gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "z", [(1.0, 1.0), (0.0, 0.0, 0.0), (2.0, 2.0, -3.0), (5.0, 5.0, -1e4), (1e-30, 0.0, 0.0), (-1e4, -1e4)], ids=str
)
def test_scaled_ce_at_ties_has_a_finite_gradient_that_points_out(z, dtype):
    for label in range(len(z)):
        logits = torch.tensor([z], dtype=dtype, requires_grad=True)
        (slope,) = torch.autograd.grad(ScaledCrossEntropy().ascent(logits, torch.tensor([label])).sum(), logits)
        assert torch.isfinite(slope).all()
        assert float(slope[0, label]) < 0
        assert float(slope.abs().max()) > 0.1


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e4, 1e30])
def test_scaled_ce_gradient_does_not_depend_on_the_scale_of_the_logits(scale):
    y = torch.tensor([0, 1, 2])
    base = torch.tensor([[3.0, 1.0, 0.0]] * 3, dtype=torch.float64)
    slopes = []
    for factor in (1.0, scale):
        z = (base * factor).requires_grad_()
        slopes.append(torch.autograd.grad(ScaledCrossEntropy().ascent(z, y).sum(), z)[0])
    assert torch.allclose(slopes[0], slopes[1], rtol=1e-9)


def test_targets_per_example_follow_their_rows_and_functions_are_checked():
    z = torch.randn(4, 5)
    target = torch.tensor([1, 2, 3, 4])
    objective, index = Targeted("ce", target), torch.tensor([2, 0])
    y = torch.zeros(4, dtype=torch.int64)
    part = objective.rows(index)
    assert torch.equal(part.value(z[index], y[index]), objective.value(z, y)[index])
    assert torch.equal(part.goal(z[index], y[index]), objective.goal(z, y)[index])
    with pytest.raises(UsageError, match="one number"):
        Custom(lambda outputs, y: outputs.mean()).ascent(z, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(UsageError, match="margin"):
        objective_of("margn")
    assert isinstance(objective_of(lambda outputs, y: outputs[:, 0]).goal, Misclassified)


def test_labels_that_fitted_once_are_looked_at_again_when_they_or_the_classes_change():
    outputs, y = torch.rand(3, 4), torch.tensor([0, 3, 1])
    assert torch.equal(checked(y, outputs), y) and torch.equal(checked(y, outputs), y)
    with pytest.raises(DataError, match="3 classes"):
        checked(y, outputs[:, :3])
    y[0] = 4
    with pytest.raises(DataError, match="to 4,"):
        checked(y, outputs)
    with torch.inference_mode():
        made = torch.tensor([0, 1, 2])
        assert torch.equal(checked(made, outputs), made)
        made[0] = -1
        with pytest.raises(DataError, match="-1"):
            checked(made, outputs)


def test_a_slope_is_what_an_evaluation_finds_also_where_it_is_no_number():
    """Row 1: a gradient without limit under finite outputs; row 2: outputs without limit over a finite gradient."""

    def rooted(x: torch.Tensor) -> torch.Tensor:
        far = torch.where(x[:, :1] > 0.8, torch.inf, 0.0)
        return torch.cat([x[:, :1].sqrt() + x[:, 1:], x[:, 1:] * x[:, :1] + far], 1)

    x, y = torch.tensor([[0.5, 0.5], [0.0, 0.5], [0.9, 0.5], [0.2, 0.7]]), torch.tensor([0, 1, 0, 1])
    for rows in (torch.arange(4), torch.tensor([0, 3])):
        at, labels = x[rows], y[rows]
        found = Model(rooted).evaluate(at, labels, CrossEntropy(), need=Need.GRADIENT)
        outputs, slope = Model(rooted).slope(at, labels, CrossEntropy())
        assert found.gradient is not None and torch.equal(slope, found.gradient)
        assert torch.equal(outputs, found.outputs) and not slope.requires_grad
        assert torch.equal((slope != 0).any(1), (rows != 1) & (rows != 2))
