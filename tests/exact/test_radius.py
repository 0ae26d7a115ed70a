"""The largest proven size: asked about itself, close to the first that is not proven, and cheap to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

import steepest as st
from steepest.certify.radius import CAP, proven_gauge

EPSILON = 0.5


@dataclass
class Told:
    """A prover whose bound is a function of the size in budgets, one row at a time; it remembers what it was asked."""

    bound: Callable[[Tensor, Tensor], Tensor]
    asked: list[list[tuple[int, float, float]]] = field(default_factory=list)

    def lower(self, region: st.Region, y: Tensor) -> Tensor:
        size = torch.as_tensor(region.budget.epsilon).double().reshape(-1).expand(len(y)) / EPSILON
        found = self.bound(size, y)
        self.asked.append(list(zip(y.tolist(), size.tolist(), found.tolist(), strict=True)))
        return found


def searched(bound: Callable[[Tensor, Tensor], Tensor], count: int = 1, tolerance: float = 1e-4) -> tuple[Told, Tensor]:
    told, y = Told(bound), torch.arange(count)
    region = st.Region(st.Linf(EPSILON), st.Box(-9, 9), torch.zeros(count, 3))
    gauge, margin = proven_gauge(told, region, y, right=torch.ones(count).bool(), tolerance=tolerance)
    torch.testing.assert_close(margin, bound(torch.ones(count).double(), y).nan_to_num(nan=-torch.inf))
    return told, gauge


def line(root: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda size, y: 2 - 2 * size / root


@pytest.mark.parametrize("root", [0.003, 0.2, 0.999, 1.001, 3.0, 40.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_a_line_is_closed_in_few_questions(root, tolerance):
    told, gauge = searched(line(root), tolerance=tolerance)
    assert root * (1 - tolerance) <= float(gauge) < root
    assert len(told.asked) <= 7


SHAPES = {
    "a step": lambda size, y: torch.where(size < 0.37, 1.0, -torch.inf).double(),
    "NaN beyond": lambda size, y: torch.where(size < 0.37, 1.0, torch.nan).double(),
    "a steep fall": lambda size, y: 1 - torch.expm1(size * 40),
    "a long tail": lambda size, y: 0.01 / (size + 0.01) - 0.02,
    "flat, then down": lambda size, y: 1 - (size / 0.8).clamp(min=0) ** 30,
    "nothing to 0": lambda size, y: 1e-12 - size,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answer_was_asked_about_and_proven_and_what_lies_beyond_was_not(shape):
    told, gauge = searched(SHAPES[shape])
    sizes = {size: bound for batch in told.asked for _, size, bound in batch}
    size = float(gauge)
    assert size == 0 or sizes[size] > 0
    beyond = [each for each, bound in sizes.items() if not bound > 0]
    assert min(beyond) <= max(size * (1 + 1e-4), 1e-9)
    assert len(told.asked) <= 35


def test_each_example_has_its_own():
    roots = torch.tensor([0.1, 0.7, 2.0, 9.0, 1e-4]).double()
    _, gauge = searched(lambda size, y: 1 - size / roots[y], count=5)
    assert bool((gauge < roots).all()) and bool((gauge > roots * (1 - 1e-4)).all())


def test_what_always_holds_stops_at_the_cap_and_what_never_holds_is_0():
    assert float(searched(lambda size, y: 1 + 0 * size)[1]) == CAP
    assert float(searched(lambda size, y: -1 - size)[1]) == 0
    # At x a bound may fail where the margin is a rounding; then nothing is proven.
    assert float(searched(lambda size, y: 0 * size)[1]) == 0


def test_nothing_is_proven_where_the_model_is_wrong():
    told, region = Told(line(2.0)), st.Region(st.Linf(EPSILON), st.Box(-9, 9), torch.zeros(2, 3))
    gauge, _ = proven_gauge(told, region, torch.arange(2), right=torch.tensor([False, True]))
    assert float(gauge[0]) == 0 and float(gauge[1]) > 1.99
