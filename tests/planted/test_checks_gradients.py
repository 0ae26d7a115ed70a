"""Each check of gradients, losses and repeatability on what it is for, on its harmless control, and on the honest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest.budgets.linf import Linf
from steepest.diagnose.checks.batch_dependence import ALONE
from steepest.diagnose.contract import Family, Finding, Level
from steepest.diagnose.panel import examine, named
from steepest.diagnose.probe import Probe, Traces
from steepest.models.inspection import inspected
from steepest.models.model import Model
from tests.planted.zoo import HONEST, ZOO, base, digits

COUNT = 32
CHECKS = (
    "saturation", "objectives", "output-range", "randomness", "batch-dependence", "segment", "finite-differences",
    "single-step", "linearity", "alignment", "curvature",
)  # fmt: skip
Network = Callable[[Tensor], Tensor]


def judged(
    names: tuple[str, ...],
    network: Network,
    epsilon: float,
    data: tuple[Tensor, Tensor] | None = None,
    **given: Any,
) -> tuple[Finding, ...]:
    """What the checks find, in the order of `names`; every finding can be kept as JSON."""
    x, y = data or digits().held_out(COUNT)
    probe = Probe(inspected(Model(network), x), x, y, Linf(epsilon), **given)
    found = {each.check: each for each in examine(probe, named(names))}
    for each in found.values():
        assert Finding.from_record(json.loads(json.dumps(each.to_record(), allow_nan=False))).says == each.says
        assert (each.level in (Level.WARN, Level.FAIL)) == bool(each.advice)
    return tuple(found[name] for name in names)


def one(
    name: str, network: Network, epsilon: float, data: tuple[Tensor, Tensor] | None = None, **given: Any
) -> Finding:
    return judged((name,), network, epsilon, data, **given)[0]


def sick(name: str, check: str, *data: tuple[Tensor, Tensor], **given: Any) -> Finding:
    return one(check, ZOO[name].make(base()), ZOO[name].epsilon, *data, **given)


def control(name: str, check: str, *data: tuple[Tensor, Tensor], **given: Any) -> Finding:
    return one(check, ZOO[name].control(base()), ZOO[name].epsilon, *data, **given)


@pytest.mark.parametrize("name", ["relu", "tanh", "batch-normalised", "pooling"])
def test_the_honest_pass(name: str) -> None:
    honest = HONEST[name]
    for found in judged(CHECKS, honest.make(0), honest.epsilon):
        assert found.level is Level.PASS, found.says


def affine(factor: float) -> tuple[Network, tuple[Tensor, Tensor]]:
    """Two classes, and twenty inputs with a margin of 5·factor that a step of over 0.25 undoes."""
    slope = torch.tensor([5.0, -5.0, 5.0, -5.0])

    def network(x: Tensor) -> Tensor:
        z = factor * ((x - 0.5) @ slope + 5) / 2
        return torch.stack([z, -z], 1)

    return network, (torch.full((20, 4), 0.5), torch.zeros(20, dtype=torch.int64))


@pytest.mark.parametrize(
    ("factor", "objective", "level"),
    [
        (1, "ce", Level.PASS),
        (5, "ce", Level.WARN),
        (25, "ce", Level.FAIL),
        (1, "scaled-ce", Level.PASS),
        (5, "scaled-ce", Level.PASS),
        (25, "scaled-ce", Level.WARN),
    ],
)
def test_saturation_knows_where_cross_entropy_ends(factor: float, objective: str, level: Level) -> None:
    network, data = affine(factor)
    found = one("saturation", network, 0.3, data, objective=objective)
    assert (found.level, found.family) == (level, Family.LOSS)
    assert f"median margin is {5 * factor}" in found.says
    assert (found.remedy is not None) == (objective == "ce" and level is not Level.PASS)


@pytest.mark.parametrize(
    ("factor", "objective", "level"),
    [
        (1, "ce", Level.PASS),
        (5, "ce", Level.PASS),
        (1000, "ce", Level.FAIL),
        (1000, "margin", Level.WARN),
        (1000, "scaled-ce", Level.WARN),
    ],
)
def test_objectives_differ_where_cross_entropy_has_no_gradient(factor: float, objective: str, level: Level) -> None:
    network, data = affine(factor)
    found = one("objectives", network, 0.26, data, objective=objective)  # no random start gets near the boundary
    assert (found.level, found.family) == (level, Family.LOSS)
    if level is not Level.PASS:
        assert found.statistic == 1 and found.examples == tuple(range(20))
        assert "0 % with ce, 100 % with margin, 100 % with scaled-ce" in found.says
    assert (found.remedy is not None) == (level is Level.FAIL)


@pytest.mark.parametrize("name", ["tempered-1e3", "distilled-20"])
def test_a_temperature_is_seen_whatever_is_ascended(name: str) -> None:
    for objective, level in (("ce", Level.FAIL), ("scaled-ce", Level.WARN)):
        assert sick(name, "saturation", objective=objective).level is level
        assert sick(name, "objectives", objective=objective).level is level
    assert control(name, "saturation").level is control(name, "objectives").level is Level.PASS


def test_a_flat_cross_entropy_matters_where_it_is_ascended() -> None:
    network = HONEST["logits-times-10"].make(0)
    flat, fine = (one("zero-gradient", network, 0.1, objective=each) for each in ("ce", "scaled-ce"))
    assert (flat.level, flat.family, fine.level) == (Level.WARN, Family.LOSS, Level.PASS)
    assert sick("tempered-1e3", "zero-gradient").level is Level.WARN  # over half of them, so it is told anyway


def test_probabilities_are_told() -> None:
    mild, sharp = (sick(name, "output-range") for name in ("probabilities", "sharp-probabilities"))
    assert (mild.level, mild.family, mild.statistic, mild.examples) == (Level.WARN, Family.LOSS, 0.0, ())
    assert sharp.level is Level.WARN and sharp.statistic is not None and sharp.statistic > 0.9
    assert mild.remedy is None and sharp.remedy is not None and sharp.remedy.text == "behind the softmax"
    assert control("probabilities", "output-range").level is Level.PASS


def test_noise_is_random_and_its_expectation_is_asked_for() -> None:
    found = sick("noisy", "randomness")
    assert (found.level, found.family) == (Level.FAIL, Family.STOCHASTIC)
    assert found.remedy is not None and found.remedy.text == "expectation(draws=20)"
    assert control("noisy", "randomness").level is Level.PASS


def test_a_count_of_the_questions_is_found_and_no_average_mends_it() -> None:
    random, batch = judged(("randomness", "batch-dependence"), ZOO["counting"].make(base()), 0.15)
    assert random.level is batch.level is Level.FAIL and random.remedy is None
    assert "seen" in batch.says
    assert control("counting", "batch-dependence").level is Level.PASS
    assert control("counting", "randomness").level is Level.PASS


def test_training_mode_shows_in_the_batch_and_is_left_as_it_was() -> None:
    network = ZOO["batch-norm-training"].make(base())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch, slopes = judged(("batch-dependence", "finite-differences"), network, 0.15)
    assert (batch.level, batch.family) == (Level.FAIL, Family.STOCHASTIC) and "BatchNorm1d" in batch.says
    assert slopes.level is Level.NOT_RUN and "batch-dependence" in slopes.says
    assert network.training and all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert control("batch-norm-training", "batch-dependence").level is Level.PASS
    dropping = sick("dropping", "batch-dependence")
    assert dropping.level is Level.FAIL and "Dropout" in dropping.says
    assert control("dropping", "batch-dependence").level is Level.PASS


class Centred(nn.Module):
    """Answers the distance from the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return base()(x - x.mean(0, keepdim=True))


class Remembering(nn.Module):
    """Counts in a buffer, to no effect."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return base()(x)


def test_batchmates_that_matter_fail_and_a_buffer_that_does_not_is_a_warning() -> None:
    mixed = one("batch-dependence", Centred(), 0.1)
    assert mixed.level is Level.FAIL and len(mixed.examples) == ALONE
    kept = one("batch-dependence", Remembering(), 0.1)
    assert kept.level is Level.WARN and "asked" in kept.says


def test_segments_tell_jumps_from_surrogates_that_work() -> None:
    winners, rounded, through = (sick(name, "segment") for name in ("winners-only", "quantised-5", "straight-through"))
    assert (winners.level, rounded.level, through.level) == (Level.FAIL, Level.FAIL, Level.WARN)
    assert winners.remedy is not None and winners.remedy.name == "estimated gradients"
    assert rounded.remedy is not None and rounded.remedy.name == "surrogate" and rounded.statistic == 1
    assert through.remedy is None and "all the same" in through.says
    negated = sick("negated-slope", "segment")
    assert negated.level is Level.FAIL and negated.remedy is not None and negated.remedy.name == "surrogate"
    assert sick("shattered", "segment").level is sick("hash-gated", "segment").level is Level.WARN
    for name in ("winners-only", "quantised-5", "straight-through", "hash-gated"):
        assert control(name, "segment").level is Level.PASS


@pytest.mark.parametrize("name", ["quantised-5", "negated-slope", "random-slope", "shattered", "saturated"])
def test_differences_find_gradients_that_are_no_slopes(name: str) -> None:
    found = sick(name, "finite-differences")
    assert (found.level, found.family) == (Level.FAIL, Family.MASKED)
    assert found.remedy is not None and found.remedy.name == "estimated gradients"
    assert control(name, "finite-differences").level is Level.PASS


def test_differences_allow_a_surrogate_and_curvature() -> None:
    assert sick("straight-through", "finite-differences").level is Level.WARN
    assert sick("median", "finite-differences").level is Level.PASS

    def bent(x: Tensor) -> Tensor:  # the slope at 0.45 is the opposite of that of a secant over 0.4
        return torch.stack([1 - (x[:, 0] - 0.5) ** 2 + 4 * (x[:, 0] - 0.5) ** 3, 0 * x[:, 0]], 1)

    data = torch.full((20, 1), 0.45), torch.zeros(20, dtype=torch.int64)
    assert one("finite-differences", bent, 0.4, data).level is Level.PASS


class _BackFromTheGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward((x * 16 == (x * 16).round()).flatten(1).all(1))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (on,) = ctx.saved_tensors
        return gradient * torch.where(on, 1.0, -1.0).reshape(-1, 1, 1, 1)


def test_one_step_that_beats_twenty_is_masking() -> None:
    found = one("single-step", lambda x: base()(_BackFromTheGrid.apply(x)), 0.15)
    assert (found.level, found.family) == (Level.FAIL, Family.MASKED)
    assert found.examples and found.advice


def test_a_network_fitted_to_one_step_is_named() -> None:
    many = digits().held_out(120)
    for check in ("single-step", "alignment"):
        found = sick("overfitted", check, many)
        assert (found.level, found.family) == (Level.WARN, Family.ONE_STEP)
        assert control("overfitted", check, many).level is Level.PASS


def test_a_curve_that_rises_over_a_whole_audit_counts() -> None:
    def seen(far: float, count: int) -> Level:
        traces = Traces(count=count, clean=count, rungs=(), curve=((0.0, 1.0), (0.125, 0.5), (0.25, 0.4), (1.0, far)))
        return one("single-step", base(), 0.1, traces=traces).level

    assert seen(0.55, 1000) is Level.WARN
    assert seen(0.44, 1000) is seen(0.55, 20) is Level.PASS


@pytest.mark.parametrize("name", ["shattered", "shattered-logit"])
def test_shattered_ground_has_no_direction(name: str) -> None:
    found = sick(name, "alignment")
    assert (found.level, found.family) == (Level.WARN, Family.MASKED)
    assert control(name, "alignment").level is Level.PASS


def test_linearity_and_curvature_are_exact_on_a_parabola() -> None:
    def parabola(x: Tensor) -> Tensor:  # the loss is p² − 1 at 0.5: g = 1, and (p − x)² is what a line misses
        return torch.stack([1 - x[:, 0] ** 2, 0 * x[:, 0]], 1)

    data = torch.full((20, 1), 0.5), torch.zeros(20, dtype=torch.int64)
    line, bend = judged(("linearity", "curvature"), parabola, 0.25, data)
    assert line.level is bend.level is Level.PASS and line.family is Family.INFORMATION
    assert line.statistic == pytest.approx(0.25) and "125 %" in line.says
    assert "+50 %" in bend.says and bend.statistic == 0

    def peak(x: Tensor) -> Tensor:  # a full step of 0.25 from 0.4 passes the peak of the loss at 0.5
        return torch.stack([1 + (x[:, 0] - 0.5) ** 2, 0 * x[:, 0]], 1)

    assert one("curvature", peak, 0.25, (data[0] - 0.1, data[1])).statistic == 1


def test_what_the_weights_guarantee_is_told_beside_what_was_met() -> None:
    found = one("curvature", HONEST["tanh"].make(0), 0.1)
    assert "at most anywhere" in found.says and "contradiction" not in found.says
    assert "anywhere" not in one("curvature", HONEST["relu"].make(0), 0.1).says
