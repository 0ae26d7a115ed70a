"""What the panel costs: estimates hold, a slow model is asked less, and float64 only where rounding may show."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.budgets.linf import Linf
from steepest.diagnose.check import SHARED
from steepest.diagnose.checks.surrogate import hides
from steepest.diagnose.contract import Level
from steepest.diagnose.panel import affordable, estimate, examine, named
from steepest.diagnose.precision import clear, doubtful, precise
from steepest.diagnose.probe import Probe
from steepest.diagnose.searches import longer, stronger
from steepest.landscape.linearity import Linearity, linearity
from steepest.landscape.segment import along
from steepest.models.model import Model
from tests.planted.test_checks_attacks import HEALTHY, Bent, Rounded, coarse
from tests.planted.zoo import ZOO, base, digits

RELU = HEALTHY["relu"]
COUNT = 48


def sure(count: int = COUNT) -> Tensor:
    """Points that are far from another class."""
    x = torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    best = RELU(x).detach().topk(2).values
    return x[(best[:, 0] - best[:, 1]).argsort(descending=True)[:count]]


def probe(net: Callable[[Tensor], Tensor], epsilon: float = 0.01, *, pace: float, x: Tensor | None = None) -> Probe:
    """A probe of a model that answers so many examples in a second."""
    x = sure() if x is None else x
    made = Probe(Model(net), x, net(x).argmax(1), Linf(epsilon), seconds=1.0)
    made.once("pace", lambda: pace)
    return made


def test_a_slow_model_is_asked_what_was_foretold() -> None:
    asked, panel = probe(RELU, pace=1.0), named()
    foretold, spent = (estimate(asked, panel) - asked.seconds) * asked.pace, 0
    for each in panel:
        prices = [each.cost, *(SHARED[name] for name in each.uses if not asked.knows(name))]
        found = examine(asked, [each])[0]
        assert found.level is Level.PASS or each.name == "rounding", found.says  # nothing breaks
        assert found.forwards + found.backwards <= 1.1 * sum(price.total(asked) for price in prices), each.name
        spent += found.forwards + found.backwards
    assert spent > foretold / 2


@pytest.mark.parametrize(
    "check, of",
    [("gradient-free", 16), ("noise", 16), ("segment", 16), ("finite-differences", 16), ("objectives", COUNT)],
)
def test_dear_checks_look_at_fewer_examples_of_a_slow_model(check: str, of: int) -> None:
    assert examine(probe(RELU, pace=1.0), named([check]))[0].of == of
    assert examine(probe(RELU, pace=1e9), named([check]))[0].of >= COUNT


def test_what_can_be_afforded_is_the_largest_number_that_fits() -> None:
    asked, panel = probe(RELU, pace=300.0), named()
    whole = estimate(asked, panel)
    most = affordable(asked, panel, 0.8 * whole)
    assert estimate(asked, panel, most) <= 0.8 * whole < estimate(asked, panel, most + 1)
    assert (affordable(asked, panel, whole), affordable(asked, panel, 0.0)) == (COUNT, 16)


def test_forty_more_steps_are_asked_once_and_of_some() -> None:
    asked = probe(RELU, pace=1.0)
    _, convergence, indicators = examine(asked, named(["convergence", "unbounded", "indicators"]))
    assert convergence.says.endswith("; 32 of 48 were asked")
    assert (len(longer(asked).rows), len(longer(asked).values)) == (32, 41)
    assert indicators.backwards == COUNT  # at x


def test_what_few_more_steps_break_stands_for_all_that_were_left() -> None:
    """Four of 32 that were asked are surely over 0.5 % of 48, and two are luck."""
    for wins, level in ((4, Level.WARN), (2, Level.PASS)):
        asked = probe(RELU, pace=1.0)
        longer(asked).won[:wins] = True
        found = examine(asked, named(["convergence"]))[0]
        assert (found.level, found.statistic) == (level, wins / 32)


def test_stronger_searches_are_not_asked_twice() -> None:
    asked, rows = probe(RELU, pace=1e9), torch.arange(6)
    first = stronger(asked, rows[:4])
    spent = asked.asked.backwards
    assert torch.equal(stronger(asked, rows[:4]), first) and asked.asked.backwards == spent
    both = stronger(asked, rows)
    assert torch.equal(both, stronger(probe(RELU, pace=1e9), rows))
    assert asked.asked.backwards - spent == spent // 2


class Watched(nn.Module):
    """A network that counts the gradients asked of it, by precision."""

    seen: dict[torch.dtype, int]

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, {}

    def __deepcopy__(self, memo: object) -> Watched:
        made = Watched(copy.deepcopy(self.inner))
        made.seen = self.seen
        return made.eval()

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            self.seen[x.dtype] = self.seen.get(x.dtype, 0) + len(x)
        return self.inner(x)


@pytest.mark.parametrize("check", ["alignment", "linearity", "curvature", "segment"])
def test_float64_is_asked_where_rounding_may_show(check: str) -> None:
    for epsilon, wide in ((0.05, False), (1e-6, True)):
        network = Watched(RELU).eval()
        assert examine(probe(network, epsilon, pace=1e9), named([check]))[0].level is Level.PASS
        assert (network.seen.get(torch.float64, 0) > 0) == wide


def half_flat(x: Tensor) -> Tensor:
    """Scores whose slope is 1 for odd examples, and lost in rounding for the others."""
    score = x.flatten(1).square().sum(1)
    slope = torch.where(x[:, 0, 0, 0] > 0.5, 1.0, 1e-7).to(x.dtype)
    return torch.stack([slope * score + 1, 0 * score], 1)


def test_doubtful_examples_alone_are_measured_again() -> None:
    x = torch.full((6, 1, 2, 2), 0.75)
    x[::2] = 0.25
    asked = probe(half_flat, 0.1, pace=1e9, x=x)
    assert doubtful(asked).tolist() == [True, False] * 3
    made = clear(asked, torch.arange(6), lambda ground, _: linearity(ground))
    for rows, ground in ((slice(0, None, 2), precise(asked)), (slice(1, None, 2), asked.terrain())):
        expected: Linearity = linearity(ground)
        for name in ("gamma", "relative", "gained", "worst"):
            found = getattr(made, name)[rows]
            assert torch.equal(found, getattr(expected, name)[rows].to(found.dtype))


def test_jumps_of_float32_alone_are_no_residual() -> None:
    """Both ends differ by a multiple of 2 in float32; in float64 gradients explain the change."""
    x = torch.full((20, 1, 2, 2), 0.5)
    asked = probe(coarse(2.0**24), 0.26, pace=1e9, x=x)
    end = asked.region.extreme(asked.at_x().gradient)
    assert along(asked.terrain(), end, points=32).residual.min() > 0.3
    assert examine(asked, named(["segment"]))[0].level is Level.PASS


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = RELU(x.clamp(0.3, 0.7))
        return answer


@pytest.mark.parametrize(
    ("net", "hidden"), [(RELU, False), (Rounded(RELU, 3.0), True), (Bent(RELU, 1.0), True), (Clamped(), True)]
)
def test_what_hides_a_gradient_is_met_at_x_or_where_searches_end(net: nn.Module, hidden: bool) -> None:
    """The clamp touches nothing at x."""
    x = 0.35 + 0.3 * torch.rand(COUNT, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    assert hides(probe(net.eval(), 0.1, pace=1e9, x=x)) == hidden


def test_a_surrogate_of_what_hides_nothing_is_not_asked() -> None:
    asked = probe(RELU, pace=1e9)
    assert asked.white_box is not None
    found = examine(asked, named(["surrogate"]))[0]
    assert (found.level, found.backwards) == (Level.PASS, 0)


def test_batch_norm_in_training_mode_is_diagnosed_in_one_call() -> None:
    x, y = digits().held_out(20)
    network = ZOO["batch-norm-training"].make(base())
    found = st.diagnose(st.Model(network), (x, y), Linf(0.15), checks=["batch-dependence"])
    assert found.findings[0].level is Level.FAIL
