"""Training methods against what their formulas give: one decisive test each."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

import steepest as st
from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.harden.alignment import misalignment
from steepest.harden.contract import Classroom, Lesson, Taught
from steepest.harden.descent import WorstWeights, move
from steepest.harden.library import METHODS
from steepest.harden.losses import AtPoint, Mart, Trades
from steepest.harden.recipe import Training

EPS = 0.1


class Line(nn.Module):
    """Logits ±(⟨w, x⟩ + b)/2: binary logistic regression."""

    def __init__(self, w: list[float], b: float = 0.1) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(b, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).sum(1) + self.b
        return torch.stack([score, -score], 1) / 2


def room_of(network: nn.Module, box: Any = (0, 1), lr: float = 0.0) -> Classroom:
    return Classroom(
        network=network, model=st.Model(network, box=box), optimiser=torch.optim.SGD(network.parameters(), lr)
    )


def lesson_of(room: Classroom, x: Tensor, y: Tensor, budget: Budget, *, seed: int = 0, share: float = 0.0) -> Lesson:
    region = Region(budget, room.model.box, x)
    return Lesson(region=region, y=y, stream=Stream.of(seed, torch.arange(len(x))), number=0, share=share)


def taught(call: str, network: nn.Module, x: Tensor, y: Tensor, budget: Budget | None = None, **given: Any) -> Taught:
    room = room_of(network, **given)
    return METHODS.build(call).teach(room, lesson_of(room, x, y, budget or st.Linf(EPS)))


def middle(count: int, size: int, seed: int = 0) -> Tensor:
    """Points away from every face of the box."""
    drawn = torch.rand(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return 0.35 + 0.3 * drawn


def slopes(network: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def small(*sizes: int, norm: bool = False, seed: int = 0) -> nn.Sequential:
    """A smooth network in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts: list[nn.Module] = []
        for into, out in pairwise(sizes):
            parts += [nn.Linear(into, out), *([nn.BatchNorm1d(out)] if norm else []), nn.Tanh()]
        return nn.Sequential(*parts[:-1]).double()


def test_fgsm_on_logistic_regression_is_its_closed_form():
    w, sign = [0.7, -1.3, 0.2], torch.tensor([1.0, -1, 1, -1], dtype=torch.float64)
    network, x, y = Line(w), middle(4, 3), torch.tensor([0, 1, 0, 1])
    found = taught("fgsm", network, x, y)
    own = Line(w)
    worst = softplus(EPS * own.w.abs().sum() - sign * ((x * own.w).sum(1) + own.b)).mean()
    worst.backward()
    assert found.loss == pytest.approx(worst.item(), abs=1e-9)
    for got, exact in zip(slopes(network), slopes(own), strict=True):
        assert torch.allclose(got, exact, atol=1e-6, rtol=0)
    assert found.clean is not None and torch.allclose(found.clean, own(x).detach())


def test_the_random_start_is_dominated_by_a_step_of_two_budgets():
    network, x, y = small(6, 5, 3), middle(8, 6), torch.arange(8) % 3
    room = room_of(network)
    lesson = lesson_of(room, x, y, st.Linf(EPS))
    start = METHODS.build("fgsm-rs(step=0.0)").teach(room, lesson).point
    ended = METHODS.build("fgsm-rs(step=2.0)").teach(room, lesson).point
    at = start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(network(at), y, reduction="sum"), at)
    assert torch.allclose(ended, x + EPS * slope.sign(), atol=1e-9)
    assert 0.02 < float((start - x).abs().mean()) < 0.08  # pure noise: EPS/2 on average
    usual = METHODS.build("fgsm-rs").teach(room, lesson).point
    assert bool(lesson.region.contains(usual).all()) and not torch.equal(usual, ended)


def test_n_fgsm_without_noise_is_fgsm():
    network, x, y = small(6, 5, 3), middle(8, 6), torch.arange(8) % 3
    assert torch.allclose(taught("n-fgsm(noise=0)", network, x, y).point, taught("fgsm", network, x, y).point)


def test_n_fgsm_leaves_the_budget_in_half_of_all_coordinates():
    """The start u is uniform in ±2 budgets, the step s = ±1: P(|u + s| > 1) = 1/2."""
    network, x, y = small(200, 5, 3), middle(30, 200), torch.arange(30) % 3
    point = taught("n-fgsm", network, x, y, st.Linf(0.05)).point
    size = ((point - x) / 0.05).abs()
    assert 1 < float(size.max()) <= 3 + 1e-9
    assert float((size > 1).double().mean()) == pytest.approx(0.5, abs=0.03)  # 4.6 standard deviations
    assert bool(taught("n-fgsm", network, x, y, st.Linf(0.5)).point.aminmax()[0] >= 0)  # the box does cut


def test_grad_align_is_nothing_for_logistic_regression():
    """The gradient of a linear model never turns."""
    network, x, y = Line([0.7, -1.3, 0.2]), middle(4, 3), torch.tensor([0, 1, 0, 1])
    with_it, without = Line([0.7, -1.3, 0.2]), network
    a, b = taught("grad-align(weight=5.0)", with_it, x, y), taught("fgsm", without, x, y)
    assert a.loss == pytest.approx(b.loss, abs=1e-7)
    for got, exact in zip(slopes(with_it), slopes(without), strict=True):
        assert torch.allclose(got, exact, atol=1e-6)
    assert (a.forwards, a.backwards) == (3, 5)


class OneUnit(nn.Module):
    """z = ±(tanh⟨a, x⟩ + ⟨c, x⟩)/2: the gradient's direction is sech²⟨a, x⟩·a + c."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.5, 0.3], dtype=torch.float64))
        self.c = nn.Parameter(torch.tensor([-0.2, 0.9], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        score = torch.tanh((x * self.a).sum(1)) + (x * self.c).sum(1)
        return torch.stack([score, -score], 1) / 2


def test_grad_align_is_one_minus_the_cosine_by_hand():
    network, x, p = OneUnit(), torch.tensor([[0.2, 0.1]]).double(), torch.tensor([[0.9, -0.4]]).double()
    room, y = room_of(network, box=None), torch.tensor([0])

    def direction(at: Tensor) -> Tensor:
        return (1 - torch.tanh(at @ network.a) ** 2) * network.a + network.c

    fixed, other = direction(x[0]).detach(), direction(p[0])
    by_hand = 1 - (fixed @ other) / (fixed.norm() * other.norm())
    by_hand.backward()
    exact = slopes(network)
    network.zero_grad()
    found = misalignment(room, p, y, -fixed[None] * 3.0)  # only the direction counts
    found.backward()
    assert found.item() == pytest.approx(by_hand.item(), abs=1e-9)
    assert all(torch.allclose(g, h, atol=1e-9) for g, h in zip(slopes(network), exact, strict=True))


def test_rows_without_a_direction_do_not_count_in_grad_align():
    network, p = OneUnit(), torch.tensor([[0.9, -0.4]] * 2).double()
    room, y = room_of(network, box=None), torch.tensor([0, 0])
    slope = torch.tensor([[1.0, 0.5], [0.0, 0.0]]).double()
    both, one = misalignment(room, p, y, slope), misalignment(room, p[:1], y[:1], slope[:1])
    assert both.item() == pytest.approx(one.item())
    none = misalignment(room, p, y, torch.zeros_like(slope))
    none.backward()
    assert none.item() == 0 and all(bool(g.isfinite().all()) for g in slopes(network))


@pytest.mark.parametrize("replays", [1, 3])
def test_free_makes_one_backward_of_both_and_carries_delta(replays: int):
    network, x, y = small(6, 5, 3), middle(8, 6), torch.arange(8) % 3
    room = room_of(network, lr=0.1)
    passes = []
    network.register_forward_hook(lambda _, __, out: passes.append(out.register_hook(lambda g: passes.append(-1))))
    method, points, weights = METHODS.build(f"free(replays={replays})"), [], []
    for number in range(2):
        found = method.teach(room, lesson_of(room, x, y, st.Linf(EPS), seed=number))
        points.append(found.point)
        weights.append([p.detach().clone() for p in network.parameters()])
        assert (found.forwards, found.backwards) == (replays, replays)
    assert len(passes) == 2 * 2 * replays  # epochs × replays × batches, a forward and a backward each
    assert torch.equal(points[0], x) is (replays == 1)
    assert float((points[1] - x).abs().amax(1).min()) == pytest.approx(EPS)  # each example moved by a whole budget
    assert not torch.equal(weights[0][0], weights[1][0])


def test_free_with_one_replay_trains_at_the_point_of_the_last_gradient():
    network, x, y = small(6, 5, 3), middle(8, 6), torch.arange(8) % 3
    room = room_of(network)  # a rate of 0: the gradient at x stays what it is
    method = METHODS.build("free(replays=1)")
    for number in range(2):
        found = method.teach(room, lesson_of(room, x, y, st.Linf(EPS), seed=number))
    assert torch.allclose(found.point, taught("fgsm", network, x, y).point)
    shorter = method.teach(room, lesson_of(room, x[:3], y[:3], st.Linf(EPS)))
    assert len(shorter.point) == 3 and len(room.kept["free: delta"]) == 8


class Bowl(nn.Module):
    """Cross-entropy with class 0 rises with θ·d − c·d²/2, d = x − ½: the worst point is d = θ/c."""

    def __init__(self, theta: float, c: float) -> None:
        super().__init__()
        self.theta, self.c = nn.Parameter(torch.tensor(theta).double()), c

    def forward(self, x: Tensor) -> Tensor:
        d = x[:, 0] - 0.5
        score = self.theta * d - self.c * d**2 / 2
        return torch.stack([-score, score], 1)


def test_pgd_finds_the_inner_maximum_that_one_step_passes_over():
    x, y = torch.full((3, 1), 0.5).double(), torch.zeros(3).long()
    assert torch.allclose(taught("fgsm", Bowl(0.1, 2.0), x, y).point, x + EPS)
    point = taught("pgd(steps=400, step=0.005)", Bowl(0.1, 2.0), x, y).point
    assert torch.allclose(point, x + 0.05, atol=0.005 * EPS * 1.01)
    assert torch.allclose(taught("pgd", Bowl(0.5, 2.0), x, y).point, x + EPS)


def test_trades_without_its_term_is_plain_training():
    a, b, x, y = small(6, 5, 3), small(6, 5, 3), middle(8, 6), torch.arange(8) % 3
    one, other = taught("trades(beta=0)", a, x, y), taught("plain", b, x, y)
    assert one.loss == pytest.approx(other.loss)
    assert all(torch.allclose(g, h) for g, h in zip(slopes(a), slopes(b), strict=True))
    assert one.clean is not None and torch.allclose(one.clean, other.outputs)
    still = taught("trades(beta=100.0)", a, x, y, st.Linf(0.0))
    assert torch.equal(still.point, x) and still.loss == pytest.approx(other.loss)


def test_trades_starts_beside_x_where_its_divergence_has_a_slope():
    network, x, y = small(6, 5, 3), middle(8, 6), torch.arange(8) % 3
    started = taught("trades(steps=0)", network, x, y).point
    assert 5e-4 < float((started - x).std()) < 2e-3
    moved = taught("trades", network, x, y).point
    assert float((moved - x).abs().amax(1).min()) > 0.5 * EPS


def test_mart_with_two_classes_is_twice_the_cross_entropy():
    outputs, clean = middle(8, 2) * 6 - 3, middle(8, 2, seed=1)
    y = torch.arange(8) % 2
    assert float(Mart(0).of(outputs, clean, y)) == pytest.approx(2 * float(cross_entropy(outputs, y)), rel=1e-3)


def test_mart_by_hand():
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.7, 0.1]).double()
    kl = sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(p, q, strict=True))
    by_hand = -math.log(0.2) - math.log(1.0001 - 0.7) + 6 * kl * 0.5
    found = Mart(6).of(q.log()[None], p.log()[None], torch.tensor([0]))
    assert float(found) == pytest.approx(by_hand)
    right = Trades(6).of(q.log()[None], p.log()[None], torch.tensor([0]))
    assert float(right) == pytest.approx(-math.log(0.5) + 6 * kl)


def test_label_smoothing_by_hand():
    outputs, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    logs = outputs.log_softmax(1)[0]
    by_hand = -(0.7 * logs[0] + 0.1 * logs.sum())
    assert float(AtPoint(0.3).of(outputs, None, y)) == pytest.approx(float(by_hand))


def test_awp_moves_matrices_by_their_own_size_and_puts_them_back_bit_by_bit():
    network, x, y = small(6, 5, 3, norm=True), middle(8, 6), torch.arange(8) % 3
    room = room_of(network)
    before = [p.detach().clone() for p in network.parameters()]
    with WorstWeights(0.01).moved(room, lambda: cross_entropy(room.outputs(x), y)):
        for was, now in zip(before, network.parameters(), strict=True):
            size = float((now - was).norm())
            assert size == (pytest.approx(0.01 * float(was.norm())) if was.ndim > 1 else 0)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    with pytest.raises(ZeroDivisionError), WorstWeights(0.5).moved(room, lambda: cross_entropy(room.outputs(x), y)):
        1 / 0  # noqa: B018
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_awp_descends_the_gradient_of_the_moved_weights():
    x, y, gamma = middle(8, 6), torch.arange(8) % 3, 0.05
    network, own = small(6, 5, 3), small(6, 5, 3)
    found = taught(f"awp(method='fgsm', gamma={gamma})", network, x, y)
    first = taught("fgsm", own, x, y)
    with torch.no_grad():
        for weight in own.parameters():
            if weight.ndim > 1 and weight.grad is not None:
                weight += gamma * weight.norm() * weight.grad / weight.grad.norm()
    own.zero_grad()
    worse = cross_entropy(own(first.point), y)
    worse.backward()
    assert found.loss == pytest.approx(float(worse)) and found.loss > first.loss
    assert all(torch.allclose(g, h) for g, h in zip(slopes(network), slopes(own), strict=True))
    assert (found.forwards, found.backwards) == (first.forwards + 1, first.backwards + 1)


def test_a_flat_loss_moves_no_weight():
    assert torch.equal(move(torch.ones(2, 2), torch.zeros(2, 2), 0.1), torch.zeros(2, 2))
    assert torch.equal(move(torch.ones(2, 2), torch.full((2, 2), torch.nan), 0.1), torch.zeros(2, 2))


def test_gaussian_noise_has_its_size_and_no_walls():
    network, x, y = small(200, 5, 3), middle(30, 200), torch.arange(30) % 3
    noise = taught("noise(sigma=0.4)", network, x, y).point - x
    assert float(noise.std()) == pytest.approx(0.4, abs=0.02) and abs(float(noise.mean())) < 0.02
    assert float((x + noise).max()) > 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("pgd(steps=-1)", "pgd: steps=-1"),
        ("n-fgsm(noise=-1.0)", "n-fgsm: noise=-1.0"),
        ("fgsm(craft_mode='test')", "give 'train'"),
        ("plain(smoothing=1.0)", r"smoothing=1.0 is not allowed: .* \[0, 1\)"),
        ("awp(method='free')", "takes no weight perturbation"),
        ("awp(method='awp')", "takes no weight perturbation"),
        ("free(replays=0)", "free: replays=0"),
        ("trades(beta=-1.0)", "trades: beta=-1.0"),
        ("pdg", "did you mean 'pgd'"),
    ],
)
def test_what_makes_no_method_is_refused_by_name(call: str, words: str):
    with pytest.raises(UsageError, match=words):
        METHODS.build(call)


def test_a_method_remembers_its_call():
    made = METHODS.build("n-fgsm(noise=3.0)")
    assert made.call == "n-fgsm(noise=3.0, step=1.0, smoothing=0.0, craft_mode='train')"
    nested = METHODS.build("awp(method='trades(beta=3.0)', gamma=0.005)")
    assert isinstance(nested, Training) and nested.loss == Trades(3.0)
    assert METHODS.build(nested.call) == nested
