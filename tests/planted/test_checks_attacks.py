"""Checks that attack: each flags a sick network, passes its harmless control, and passes three healthy ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest.budgets.contract import Budget
from steepest.budgets.l0 import L0
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from steepest.diagnose.checks import surrogate as through
from steepest.diagnose.contract import Family, Finding, Level
from steepest.diagnose.panel import examine, named
from steepest.diagnose.probe import Climbed, Probe, Traces
from steepest.diagnose.searches import Beyond
from steepest.models.model import Model

COUNT, WIDTH, CLASSES = 48, 16, 4
CHECKS = (
    "gradient-free", "noise", "unbounded", "convergence", "surrogate", "unfinished", "rounding", "indicators", "active",
)  # fmt: skip


def examples() -> Tensor:
    return torch.rand(COUNT, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def network(bend: Callable[[], nn.Module] | None) -> nn.Sequential:
    """Random weights, scores centred so that every class is predicted; without a bend, one affine layer."""
    torch.manual_seed(3)
    inner = [] if bend is None else [nn.Linear(WIDTH, 64), bend()]
    last = nn.Linear(WIDTH if bend is None else 64, CLASSES)
    made = nn.Sequential(nn.Flatten(), *inner, last).eval()
    with torch.no_grad():
        last.bias -= made(examples()).mean(0)
    return made


HEALTHY = {"linear": network(None), "relu": network(nn.ReLU), "tanh": network(nn.Tanh)}


class Rounded(nn.Module):
    """Inputs in so many levels; None: as they are."""

    def __init__(self, f: nn.Module, levels: float | None) -> None:
        super().__init__()
        self.f, self.levels = f, levels

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x if self.levels is None else torch.round(x * self.levels) / self.levels)


class _Bent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float, noise: float) -> Tensor:
        ctx.factor, ctx.noise = factor, noise
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        size = gradient.abs().amax()
        return ctx.factor * gradient + ctx.noise * size * torch.randn_like(gradient), None, None


class Bent(nn.Module):
    """Slopes times a factor, plus noise in units of the largest; the values stay."""

    def __init__(self, f: nn.Module, factor: float, noise: float = 0.0) -> None:
        super().__init__()
        self.f, self.factor, self.noise = f, factor, noise

    def forward(self, x: Tensor) -> Tensor:
        return self.f(_Bent.apply(x, self.factor, self.noise))


def coarse(constant: float) -> Callable[[Tensor], Tensor]:
    """Score 4·mean(x) against 0.9; the constant 2²⁴ leaves even numbers of it, in float32 alone."""

    def scores(x: Tensor) -> Tensor:
        score = (4 * x.flatten(1).mean(1) + constant) - constant
        return torch.stack([score, torch.full_like(score, 0.9)], 1)

    return scores


def probe(net: Any, epsilon: float = 0.1, **more: Any) -> Probe:
    x = more.pop("x", examples())
    model = Model(net, more.pop("box", (0, 1)))
    budget: Budget = more.pop("budget", Linf(epsilon))
    return Probe(model, x, model.logits(x).argmax(1), budget, seconds=0.2, **more)


def found(check: str, *args: Any, **more: Any) -> Finding:
    return examine(probe(*args, **more), named([check]))[0]


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A surrogate of `Rounded` and `Bent`: their inner network."""

    def inner(model: Model) -> Model:
        network: Any = model.network
        return Model(network.f, model.box, oracles=model.oracles)

    monkeypatch.setattr(through, "surrogate", inner)


RELU = HEALTHY["relu"]


@pytest.mark.parametrize("check", ["gradient-free", "noise", "unbounded", "active"])
def test_inputs_in_four_levels_fail(check: str) -> None:
    judged = found(check, Rounded(RELU, 3.0), 0.2)
    assert (judged.level, judged.family) == (Level.FAIL, Family.MASKED)
    assert judged.remedy is not None and judged.advice
    assert judged.examples


@pytest.mark.parametrize("check", ["gradient-free", "noise", "unbounded", "active", "surrogate"])
def test_inputs_as_they_are_pass(check: str, twin: None) -> None:
    assert found(check, Rounded(RELU, None), 0.2).level is Level.PASS


@pytest.mark.parametrize("sick", [Rounded(RELU, 3.0), Bent(RELU, 0.0)], ids=["rounded", "flat"])
def test_a_surrogate_leads_further(sick: nn.Module, twin: None) -> None:
    judged = found("surrogate", sick, 0.1)
    assert judged.level is Level.FAIL
    assert judged.remedy is not None and judged.remedy.name == "surrogate"


def test_what_a_surrogate_finds_is_the_models_own() -> None:
    """A twin that is wrong everywhere breaks nothing of a model that does not repeat it."""
    asked = probe(RELU, 1e-4)
    rows = torch.arange(COUNT)
    asked.once("twin", lambda: through.Model(lambda x: -RELU(x)).asked_by(through.Confirmed(asked.model)))
    assert not through.through_twin(asked, rows).any()


@pytest.mark.parametrize(
    ("held", "level", "late"),
    [
        (0, Level.PASS, True),
        (1, Level.PASS, True),
        (2, Level.WARN, True),
        (3, Level.FAIL, True),
        (20, Level.FAIL, False),
    ],
)
def test_what_longer_gradient_searches_find_too_is_a_lead_in_time(held: int, level: Level, late: bool) -> None:
    seen = Beyond(rows=torch.ones(40).bool(), found=20, asked=20, held=held, survivors=40)
    assert (seen.level, seen.late) == (level, late)
    assert seen.share == held / 40


def test_of_many_found_the_share_is_that_of_those_asked_again() -> None:
    seen = Beyond(rows=torch.ones(40).bool(), found=20, asked=8, held=4, survivors=40)
    assert seen.share == 0.25 and "4 of 8 asked again" in seen.text


def test_indicators_fire_on_rounded_inputs_and_say_which() -> None:
    judged = found("indicators", Rounded(RELU, 3.0), 0.1)
    assert judged.level is Level.WARN
    assert judged.picture is not None
    values = {each.name: each.y[0] for each in judged.picture.series}
    assert values["unavailable gradients"] == 1
    assert values["unconstrained failure"] > 0.9
    assert values["silent success"] == 0
    assert found("indicators", Rounded(RELU, None), 0.1).level is Level.PASS


def test_a_negated_slope_ends_where_everything_is_left_to_gain() -> None:
    judged = found("unfinished", Bent(RELU, -1.0), 0.05)
    assert judged.level is Level.WARN and judged.statistic is not None and judged.statistic > 0.9
    assert found("unfinished", Bent(RELU, 1.0), 0.05).level is Level.PASS


def test_noisy_slopes_need_more_steps() -> None:
    levels = [found("convergence", Bent(RELU, 1.0, noise), 0.1).level for noise in (4.0, 0.0)]
    assert levels == [Level.WARN, Level.PASS]


def test_successes_of_float32_alone_fail() -> None:
    x = torch.full((20, 1, 2, 2), 0.5)
    judged = found("rounding", coarse(2.0**24), 0.26, x=x)
    assert judged.level is Level.FAIL and judged.statistic == 1
    plain = found("rounding", coarse(0.0), 0.3, x=x)
    assert plain.level is Level.PASS and plain.statistic == 0


def test_rounding_to_images_is_towards_x() -> None:
    """A budget of half a level rounds back to x: all successes are lost as images, which is information only."""
    x = torch.full((20, 1, 2, 2), 58 / 255)  # 4·mean is 0.9098 against 0.9: a third of a level breaks it
    judged = found("rounding", coarse(0.0), 0.7 / 255, x=x)
    assert judged.picture is not None
    assert [each.y for each in judged.picture.series] == [(0.0,), (1.0,)]
    assert (judged.level, judged.family) == (Level.PASS, Family.INFORMATION)


def test_other_boxes_have_no_images() -> None:
    judged = found("rounding", HEALTHY["linear"], 0.3, box=(-1, 1))
    assert judged.picture is not None and len(judged.picture.series) == 1


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_networks_pass(name: str) -> None:
    findings = examine(probe(HEALTHY[name], 0.06), named(CHECKS))
    assert {each.check: each.level for each in findings} == dict.fromkeys((f.check for f in findings), Level.PASS)
    assert len(findings) == len(CHECKS)


@pytest.mark.parametrize("budget", [L1(0.5), L2(0.3), L0(2)], ids=str)
@pytest.mark.parametrize("name", HEALTHY)
def test_the_whole_box_holds_another_class_whatever_the_budget(name: str, budget: Budget) -> None:
    assert found("unbounded", HEALTHY[name], budget=budget).level is Level.PASS


def stages(*broken: int, free: bool, entered: int = 100) -> tuple[Climbed, ...]:
    last = Climbed(name="relay" if free else "ascent", entered=entered, broken=broken[-1], free=free)
    return (
        *(Climbed(name=f"class {at}", entered=200, broken=each, free=False) for at, each in enumerate(broken[:-1])),
        last,
    )


@pytest.mark.parametrize(("late", "level"), [(40, Level.FAIL), (5, Level.PASS)])
def test_what_a_stage_without_gradients_broke_is_read(late: int, level: Level) -> None:
    traces = Traces(count=200, clean=200, rungs=stages(90, 10, late, free=True), curve=())
    assert found("gradient-free", HEALTHY["linear"], 0.02, traces=traces).level is level


def test_a_stage_without_gradients_before_any_with_proves_nothing() -> None:
    first = Climbed(name="square", entered=200, broken=90, free=True)
    traces = Traces(count=200, clean=200, rungs=(first, *stages(0, 0, free=False)), curve=())
    assert found("gradient-free", HEALTHY["linear"], 0.02, traces=traces).level is Level.PASS


@pytest.mark.parametrize(("late", "level"), [(12, Level.WARN), (1, Level.PASS)])
def test_the_last_stages_of_an_audit_are_read(late: int, level: Level) -> None:
    traces = Traces(count=200, clean=200, rungs=stages(90, 5, 0, late, free=False), curve=())
    judged = found("convergence", HEALTHY["linear"], 0.02, traces=traces)
    assert (judged.level, judged.family) == (level, Family.UNFINISHED)


def test_an_audit_that_broke_less_than_short_searches_is_not_finished() -> None:
    rungs = (Climbed(name="fgsm", entered=200, broken=2, free=False),)
    judged = found("convergence", HEALTHY["relu"], 0.1, traces=Traces(count=200, clean=200, rungs=rungs, curve=()))
    assert judged.level is Level.WARN


def test_what_does_not_apply_says_why() -> None:
    open_box = found("unbounded", HEALTHY["linear"], box=None)
    frozen = found("unbounded", HEALTHY["linear"], budget=Masked(Linf(0.1), torch.eye(4)[None] > 0))
    plain = found("active", lambda x: x.flatten(1)[:, :4])
    constant = found("unbounded", lambda x: x.flatten(1)[:, :4] * torch.tensor([1.0, 0, 0, 0]))
    assert {each.level for each in (open_box, frozen, plain, constant)} == {Level.NOT_RUN}
    assert "open" in open_box.says and "freezes" in frozen.says
    assert "function" in plain.says and "one class" in constant.says
