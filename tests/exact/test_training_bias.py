"""The bias of FGSM's gradient in the three cases that have a closed form, and what its statistics promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.basis.errors import ModelError, UsageError
from steepest.harden.bias import Bias, jackknife, mean_square, training_bias

STRONG = "apgd(steps=25, objective='ce')"
SHIFT = 4.0


class Bowl(nn.Module):
    """Logits whose cross-entropy with class 0 is θδ − cδ²/2 + a constant, at x = δ."""

    def __init__(self, theta: float, c: float) -> None:
        super().__init__()
        self.theta, self.c = nn.Parameter(torch.tensor(theta, dtype=torch.float64)), c

    def forward(self, x: Tensor) -> Tensor:
        delta = x[:, 0]
        return _of_loss(self.theta * delta - self.c * delta**2 / 2 + SHIFT)


class Saddle(nn.Module):
    """Logits whose cross-entropy with class 0 is ⟨θ, δ⟩ − hδ₁δ₂ + a constant, at x = δ."""

    def __init__(self, h: float) -> None:
        super().__init__()
        self.theta, self.h = nn.Parameter(torch.tensor([1.0, 0.1], dtype=torch.float64)), h

    def forward(self, x: Tensor) -> Tensor:
        return _of_loss(x @ self.theta - self.h * x[:, 0] * x[:, 1] + SHIFT)


def _of_loss(loss: Tensor) -> Tensor:
    """Logits [N, 2] with log(1 + e^(z₂ − z₁)) = loss."""
    return torch.stack([torch.zeros_like(loss), loss.expm1().log()], 1)


def _bias(net: nn.Module, width: int, size: float, count: int = 3) -> Bias:
    x = torch.zeros(count, width, dtype=torch.float64)
    model = st.Model(net, box=None)
    y = torch.zeros(count, dtype=torch.int64)
    return training_bias(model, x, y, st.Linf(size), batches=3, strong=STRONG)


def test_logistic_regression_has_no_bias_and_the_known_gradient() -> None:
    gen = torch.Generator().manual_seed(0)
    x = torch.rand(30, 5, generator=gen, dtype=torch.float64) * 0.6 + 0.2
    y = torch.randint(0, 2, (30,), generator=gen)
    net = nn.Linear(5, 2).double()
    found = training_bias(net, x, y, st.Linf(0.1), batches=5, strong=STRONG)
    assert found.relative == found.plain == found.squared == found.gap == 0 == found.interval[1]
    assert found.cosine == pytest.approx(1, abs=1e-12) and not found.disagreement.any()
    # L = log(1 + exp(ε‖w‖₁ − s(w·x + b))) with s = ±1, so ∂L/∂w = σ(·)·(ε sign w − s x).
    w = (net.weight[1] - net.weight[0]).detach()
    s = 2.0 * y - 1
    inner = 0.1 * w.abs().sum() - s * (x @ w + (net.bias[1] - net.bias[0]).detach())
    wanted = (inner.sigmoid()[:, None] * (0.1 * w.sign() - s[:, None] * x)).mean(0)
    point = st.fgsm(net, x, y, st.Linf(0.1), objective="ce")
    nn.functional.cross_entropy(net(point), y).backward()  # type: ignore[no-untyped-call]
    assert net.weight.grad is not None
    torch.testing.assert_close(net.weight.grad[1], wanted, atol=1e-6, rtol=0)
    assert nn.functional.cross_entropy(net(point), y).item() == pytest.approx(inner.exp().log1p().mean().item())


@pytest.mark.parametrize(("theta", "true", "gap"), [(0.5, 0.25, 0.5625), (1.5, 0.75, 0.0625), (2.5, 1.0, 0.0)])
def test_a_bowl_has_the_known_bias(theta: float, true: float, gap: float) -> None:
    # c = 2, ε = 1: FGSM's gradient is ε, that of the worst case min(θ/c, ε); the gap (|θ| − cε)²/(2c).
    found = _bias(Bowl(theta, 2.0), 1, 1.0)
    assert found.gap == pytest.approx(gap, abs=1e-4)
    assert found.relative == pytest.approx(1 / true - 1, abs=2e-2)
    assert found.cosine == pytest.approx(1)


@pytest.mark.parametrize(("h", "cosine", "apart"), [(0.05, 1.0, 0.0), (0.2, 0.0, 0.5)])
def test_a_saddle_turns_the_gradient_at_one_tenth(h: float, cosine: float, apart: float) -> None:
    # ε = 1: FGSM goes to (+, +); the largest loss is at (+, −) iff hε > 0.1.
    found = _bias(Saddle(h), 2, 1.0)
    assert found.cosine == pytest.approx(cosine, abs=1e-6)
    assert found.disagreement.tolist() == [apart] * 3
    assert found.gap == pytest.approx(max(0.0, 2 * (h - 0.1)), abs=1e-9)


def test_small_steps_find_the_corner_that_one_step_misses() -> None:
    x, y = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0])
    model = st.Model(Saddle(0.2), box=None)
    small = "bim(steps=40, step=0.1)"
    found = st.attack(small, model, x, y, st.Linf(1.0), objective="ce", drop_solved=False).point
    assert found.flatten().tolist() == pytest.approx([1.0, -1.0])
    assert st.fgsm(model, x, y, st.Linf(1.0), objective="ce").tolist() == [[1.0, 1.0]]


def test_the_mean_square_is_unbiased_and_the_plain_one_is_not() -> None:
    gen = torch.Generator().manual_seed(0)
    truth = torch.full((20,), 0.2)
    drawn = [truth + torch.randn(10, 20, generator=gen) for _ in range(2000)]
    found = torch.tensor([mean_square(each) for each in drawn])
    wanted = float(truth.square().sum())
    assert abs(float(found.mean()) - wanted) < 4 * float(found.std()) / 2000**0.5
    plain = torch.tensor([float(each.mean(0).square().sum()) for each in drawn])
    assert float(plain.mean()) == pytest.approx(wanted + 20 / 10, abs=0.1)  # inflated by the trace over n


@pytest.mark.parametrize("size", [0.0, 0.5])
def test_the_jackknife_interval_covers(size: float) -> None:
    gen, covered = torch.Generator().manual_seed(1), 0
    for _ in range(400):
        d = size + torch.randn(10, 20, generator=gen)
        left = torch.tensor([mean_square(torch.cat([d[:i], d[i + 1 :]])) for i in range(10)])
        low, high = jackknife(left, mean_square(d))
        covered += low <= 20 * size**2 <= high
    assert covered >= 360


def test_a_class_that_is_missed_is_still_made_worse() -> None:
    # Wrong everywhere: a search for mistakes would stop at x.
    net = nn.Linear(2, 3).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        net.bias.copy_(torch.tensor([-9.0, 0.0, 0.0]))
    x, y = torch.full((3, 2), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    found = training_bias(net, x, y, st.Linf(0.25), method="plain", batches=3, strong=STRONG)
    worst = nn.functional.cross_entropy(net(x + torch.tensor([-0.25, 0.25])), y)
    assert found.gap == pytest.approx(float((worst - nn.functional.cross_entropy(net(x), y)).detach()))
    assert found.moved[2] == pytest.approx(0, abs=1e-9)


def test_the_network_stays_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    before = {name: each.clone() for name, each in net.state_dict().items()}
    x = torch.rand(6, 3)
    training_bias(net, x, torch.zeros(6).long(), st.Linf(0.1), batches=3, strong="pgd(steps=2)")
    assert net.training and all(part.grad is None for part in net.parameters())
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())


def test_what_cannot_be_measured_is_refused() -> None:
    x, y = torch.rand(4, 2), torch.zeros(4).long()
    with pytest.raises(UsageError, match="batches=2"):
        training_bias(nn.Linear(2, 2), x, y, st.Linf(0.1), method="plain", batches=2)
    with pytest.raises(ModelError, match="function"):
        training_bias(st.Model(lambda p: p), x, y, st.Linf(0.1), method="plain", batches=3)
    with pytest.raises(ModelError, match="requires_grad_"):
        training_bias(nn.Linear(2, 2).requires_grad_(False), x, y, st.Linf(0.1), method="plain", batches=3)
