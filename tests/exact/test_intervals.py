"""Interval training: bounds that hold, meet the certifier's, and have the right gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import steepest as st
from steepest.basis.errors import NoCertificateError, UsageError
from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.certify.library import CERTIFIERS
from steepest.harden.contract import Classroom, Lesson
from steepest.harden.intervals import Span, Walk, margins
from steepest.harden.library import METHODS
from steepest.harden.relaxed import tight_margins


class Skip(nn.Module):
    """A residual block with batch norm, through functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.head = nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm(self.conv(x)))
        return self.head((x + inner).view(x.size(0), -1))


class Normalised(nn.Module):
    """A network that subtracts a mean and divides by a spread, and joins two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.6]).reshape(1, 2, 1, 1).double())
        self.pool, self.head = nn.AvgPool2d(2, 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool((x - self.mean) / -0.5)
        return self.head(torch.cat([x.flatten(1), torch.tanh(x).flatten(1)], 1))


NETWORKS = {
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(18, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(),
                                   nn.Linear(9, 3)),
    "convolutional": lambda: nn.Sequential(nn.Conv2d(2, 4, 2, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
                                           nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3)),
    "residual": Skip,
    "normalised": Normalised,
    "pooled": lambda: nn.Sequential(nn.Conv2d(2, 3, 2, groups=1), nn.LeakyReLU(0.2), nn.MaxPool2d(2),
                                    nn.Flatten(), nn.Linear(3, 3), nn.Sigmoid()),
}  # fmt: skip
RELAXED = ["dense", "convolutional", "residual"]
EPS = 0.06


def network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return NETWORKS[name]().double()


def data(count: int = 7) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return x, torch.arange(count) % 3


def span(x: Tensor, eps: float = EPS) -> Span:
    return Span(x, (x - eps).clamp_min(0), (x + eps).clamp_max(1))


def margins_at(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    z = net(x)
    return z.gather(1, y[:, None]) - z


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_inside_leaves_the_bounds(name: str):
    net, (x, y) = network(name).eval(), data()
    walk = Walk(net, span(x))
    low, bounds = margins(walk, y), walk.last
    assert torch.allclose(bounds.value, net(x)) and bool((bounds.low < bounds.high).all())
    tight = tight_margins(walk, y) if name in RELAXED else low
    gain = torch.Generator().manual_seed(0)
    for number in range(300):
        share = torch.rand(x.shape, dtype=torch.float64, generator=gain)
        inside = span(x).low.lerp(span(x).high, share.round() if number % 2 else share)
        z = net(inside)
        assert bool(((z >= bounds.low - 1e-9) & (z <= bounds.high + 1e-9)).all())
        assert bool((margins_at(net, inside, y) >= tight - 1e-9).all())
    assert bool((tight >= low).all())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_certifier_finds_the_same_bound_on_its_own_way(name: str):
    """Another walk, through the traced operators in double precision, and the same interval arithmetic."""
    net, (x, y) = network(name).eval(), data()
    model = st.Model(net)
    proven = CERTIFIERS.build("ibp").prepared(model, (2, 3, 3)).lower(Region(st.Linf(EPS), model.box, x), y)
    own = margins(Walk(net, span(x)), y).scatter(1, y[:, None], torch.inf).amin(1)
    if name not in RELAXED:  # the certifier has whole rows from the last activation on
        assert bool((own <= proven + 1e-6).all())
    else:
        assert torch.allclose(own, proven, atol=1e-6)


def test_the_linear_pass_is_better_than_intervals_where_values_move_together():
    net, (x, y) = network("dense").eval(), data()
    walk = Walk(net, span(x, 0.02))
    gained = (tight_margins(walk, y) - margins(walk, y)).scatter(1, y[:, None], torch.inf).amin(1)
    assert gained.median().item() > 0.01


def test_one_affine_layer_is_bounded_exactly():
    net, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).double(), data()
    region = Region(st.Linf(EPS), st.Box(0, 1), x)
    w = net[1].weight
    rows = (w[y][:, None] - w[None]).detach()
    worst = torch.stack([margins_at(net, region.extreme(-rows[:, k].reshape(x.shape)), y)[:, k] for k in range(3)], 1)
    assert torch.allclose(margins(Walk(net, span(x)), y), worst, atol=1e-9)
    assert torch.allclose(tight_margins(Walk(net, span(x)), y), worst, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_budget_the_bounds_are_the_network(name: str):
    net, (x, y) = network(name).eval(), data()
    walk = Walk(net, span(x, 0.0))
    exact = margins_at(net, x, y)
    assert torch.allclose(margins(walk, y), exact, atol=1e-9)
    if name in RELAXED:
        assert torch.allclose(tight_margins(walk, y), exact, atol=1e-9)


@pytest.mark.parametrize("name", ["convolutional", "residual"])
def test_batch_norm_in_training_takes_the_statistics_of_x_once(name: str):
    net, twin, (x, y) = network(name), network(name), data()
    for each in (net, twin):
        for part in each.modules():
            part.p = 0.0 if isinstance(part, nn.Dropout) else getattr(part, "p", None)
    walk = Walk(net, span(x))
    assert torch.allclose(walk.last.value, twin(x))
    assert all(torch.allclose(a, b) for a, b in zip(net.buffers(), twin.buffers(), strict=True))
    assert torch.equal(margins(Walk(net, span(x, 0.0)), y).argmin(1), (margins_at(twin, x, y)).argmin(1))


@pytest.mark.parametrize("bound", [margins, tight_margins])
@pytest.mark.parametrize("name", RELAXED)
def test_the_gradient_in_the_weights_is_that_of_the_bound(name: str, bound):
    net, (x, y) = network(name).eval(), data(3)

    def loss() -> Tensor:
        return cross_entropy(-bound(Walk(net, span(x)), y), y)

    loss().backward()
    weight = max(net.parameters(), key=lambda p: p.numel())
    direction = torch.sin(torch.arange(weight.numel()).double()).reshape(weight.shape)
    assert weight.grad is not None
    told, h, ends = (weight.grad * direction).sum().item(), 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * h * direction)
            ends.append(loss().item())
            weight.sub_(sign * h * direction)
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(told, rel=1e-4, abs=1e-7)


def lesson_in(net: nn.Module, share: float) -> tuple[Classroom, Lesson]:
    model, (x, y) = st.Model(net), data()
    room = Classroom(network=net, model=model, optimiser=torch.optim.SGD(net.parameters(), 0.0))
    stream = Stream.of(0, torch.arange(len(x)))
    return room, Lesson(region=Region(st.Linf(EPS), model.box, x), y=y, stream=stream, number=0, share=share)


@pytest.mark.parametrize("name", ["ibp", "crown-ibp"])
def test_budget_and_weight_of_the_bound_grow_along_the_ramp(name: str):
    net, (x, y) = network("dense"), data()
    losses = [METHODS.build(name).teach(*lesson_in(net, share)).loss for share in (0.0, 0.25, 0.5, 1.0)]
    assert losses[0] == pytest.approx(cross_entropy(net(x), y).item())
    assert losses[0] < losses[1] < losses[2] == losses[3]
    whole = Walk(net, span(x))
    by_hand = (cross_entropy(net(x), y) + cross_entropy(-margins(whole, y), y)) / 2
    assert losses[3] == pytest.approx(by_hand.item())
    half = Walk(net, span(x, EPS / 2))
    bound = margins(half, y) if name == "ibp" else (margins(half, y) + tight_margins(half, y)) / 2
    by_hand = 0.75 * cross_entropy(net(x), y) + 0.25 * cross_entropy(-bound, y)
    assert losses[1] == pytest.approx(by_hand.item())


def test_training_on_bounds_proves_what_plain_training_does_not():
    x = torch.rand(200, 18, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0.5).long()
    x[:, 0] = torch.where(y == 1, 0.8, 0.2)
    proven = {}
    for call in ("plain", "ibp(ramp=0.3)"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(18, 16), nn.ReLU(), nn.Linear(16, 2))
        model, method = st.Model(net), METHODS.build(call)
        room = Classroom(network=net, model=model, optimiser=torch.optim.Adam(net.parameters(), 0.02))
        region = Region(st.Linf(0.15), model.box, x)
        for number in range(80):
            stream = Stream.of(0, torch.arange(200)).split(number)
            method.teach(room, Lesson(region=region, y=y, stream=stream, number=number, share=number / 80))
        bound = CERTIFIERS.build("ibp").prepared(model, (18,)).lower(region, y)
        proven[call] = float((bound > 0).double().mean())
    assert proven["ibp(ramp=0.3)"] > 0.95
    assert proven["plain"] < 0.5


class Curious(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(18, 4), nn.GELU(), nn.Linear(4, 3)), r"layer 2 \(GELU\) has no rule"),
        (nn.Sequential(nn.Flatten(), Curious(), nn.Linear(18, 3)), "cannot be traced"),
    ],
)
def test_a_layer_without_a_rule_is_named(net: nn.Module, words: str):
    room, lesson = lesson_in(net.double(), 1.0)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(NoCertificateError, match=words):
        METHODS.build("ibp").teach(room, lesson)
    assert all(torch.equal(before[key], net.state_dict()[key]) for key in before)


def test_what_the_linear_pass_does_not_know_is_named():
    with pytest.raises(NoCertificateError, match="linear last layer"):
        METHODS.build("crown-ibp").teach(*lesson_in(network("pooled"), 0.1))
    with pytest.raises(NoCertificateError, match=r"truediv.*has no rule for crown-ibp|cat.*has no rule for crown-ibp"):
        METHODS.build("crown-ibp").teach(*lesson_in(network("normalised"), 0.1))
    with pytest.raises(UsageError, match="ibp: kappa=2"):
        METHODS.build("ibp(kappa=2.0)")
