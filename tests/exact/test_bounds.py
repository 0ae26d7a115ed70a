"""Interval and linear bounds: exact where that is possible, never above the truth, each at least the weaker one."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.basis.errors import NoCertificateError
from steepest.basis.streams import Stream
from steepest.certify.library import CERTIFIERS

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown(steps=5)")
BUDGETS = (st.Linf(0.05), st.L2(0.2), st.L1(0.4), st.L0(1))


class Residual(nn.Module):
    """A branch, a sum, a constant, a slice and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch = nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.norm, self.end = nn.BatchNorm2d(4), nn.Linear(20, 3)
        self.norm.running_mean.uniform_(-0.1, 0.1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = ((x - 0.4) / 0.3).relu_()
        z = nn.functional.gelu(self.first(nn.functional.pad(z, (1, 1, 1, 1), value=0.1)))
        z = nn.functional.leaky_relu(z + self.norm(self.branch(z)))
        z = torch.cat([nn.functional.avg_pool2d(z, 2).flatten(1), z.mean((2, 3)), 2 * z[:, 1:2].flatten(1)[:, :12]], 1)
        return self.end(z[:, :20])


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    def dense(*bends: nn.Module) -> nn.Module:
        first, second = bends
        return nn.Sequential(nn.Linear(4, 8), first, nn.Linear(8, 8), second, nn.Linear(8, 3))

    torch.manual_seed(0)
    found: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "relu": (dense(nn.ReLU(), nn.ReLU()), (4,)),
        "smooth": (dense(nn.Tanh(), nn.Sigmoid()), (4,)),
        "gelu": (dense(nn.GELU(), nn.SiLU()), (4,)),
        "clamps": (nn.Sequential(dense(nn.ReLU6(), nn.Hardtanh()), nn.LogSoftmax(dim=1)), (4,)),
        "others": (dense(nn.ELU(), nn.Softplus()), (4,)),
        "pools": (
            nn.Sequential(nn.Conv2d(1, 3, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
            .append(nn.Conv2d(3, 3, 3))
            .append(nn.AdaptiveAvgPool2d(1))
            .append(nn.Flatten()),
            (1, 6, 6),
        ),
        "residual": (Residual(), (1, 8, 8)),
    }
    for network, _ in found.values():
        for parameter in network.parameters():
            parameter.data *= 2
        network.eval()
    return found


NETWORKS = networks()


def lows(network: nn.Module, shape: tuple[int, ...], budget: st.L2, count: int = 4) -> tuple[list[Tensor], Tensor]:
    """The bounds of all methods, and the worst margins met at sampled points and corners."""
    model = st.Model(network, box=(0, 1))
    x = torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    y = model.logits(x).argmax(1)
    region = st.Region(budget, model.box, x)
    worst = torch.full((count,), torch.inf, dtype=torch.float64)
    wide = network.double()
    for number in range(60):
        stream = Stream.of(number, torch.arange(count))
        point = region.sample(stream, 0) if number % 2 else region.corner(stream, 0)
        with torch.no_grad():
            logits = wide(point.double())
        others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        worst = worst.minimum(logits.gather(1, y[:, None]).squeeze(1) - others)
    network.float()
    return [CERTIFIERS.build(name).prepared(model, shape).lower(region, y) for name in METHODS], worst


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: type(budget).__name__)
def test_every_bound_is_below_the_truth_and_at_least_the_weaker_one(name, budget):
    found, worst = lows(*NETWORKS[name], budget)
    for weaker, stronger in itertools.pairwise(found):
        assert (weaker <= stronger).all()
    assert (found[-1] <= worst).all() and found[-1].isfinite().all()
    # Not by saying little: a good part of what the budget takes is accounted for.
    assert (found[0] < found[-1]).any()


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: type(budget).__name__)
def test_a_linear_model_is_bounded_exactly(budget):
    network = nn.Linear(5, 3).double()
    model, x = st.Model(network, box=(0, 1)), torch.rand(6, 5, dtype=torch.float64)
    y = network(x).argmax(1)
    region = st.Region(budget, model.box, x)
    slopes = network.weight.detach()[y][:, None] - network.weight.detach()
    gaps = network(x).detach().gather(1, y[:, None]) - network(x).detach()
    truth = torch.stack([gaps[:, k] - region.support(-slopes[:, k]) for k in range(3)], 1)
    truth = truth.scatter(1, y[:, None], torch.inf).amin(1)
    for name in METHODS if isinstance(budget, st.Linf) else METHODS[1:]:
        found = CERTIFIERS.build(name).prepared(model, (5,)).lower(region, y)
        torch.testing.assert_close(found, truth, rtol=0, atol=1e-7)
        assert (found <= truth).all()


def test_where_all_activations_are_decided_one_pass_is_exact():
    """A ReLU network around a point, with so small a budget that it is affine there."""
    network, shape = NETWORKS["relu"]
    model, x = st.Model(network, box=(0, 1)), torch.rand(5, *shape)
    y = model.logits(x).argmax(1)
    region = st.Region(st.Linf(1e-6), model.box, x)
    found = CERTIFIERS.build("crown").prepared(model, shape).lower(region, y)
    wide = x.double().requires_grad_()
    logits = network.double()(wide)
    for example in range(5):
        margins = logits[example, y[example]] - logits[example]
        for other in set(range(3)) - {int(y[example])}:
            (slope,) = torch.autograd.grad(margins[other], wide, retain_graph=True)
            exact = margins[other].item() - region.support(-slope)[example].item()
            assert found[example] <= exact
            if other == int(margins.detach().scatter(0, y[example], torch.inf).argmin()):
                assert found[example] == pytest.approx(exact, abs=1e-7)
    network.float()


@pytest.mark.parametrize("name", METHODS)
def test_at_no_budget_the_bound_is_the_margin(name):
    network, shape = NETWORKS["gelu"]
    model, x = st.Model(network, box=(0, 1)), torch.rand(4, *shape)
    logits = network.double()(x.double()).detach()
    network.float()
    y = logits.argmax(1)
    margin = logits.amax(1) - logits.scatter(1, y[:, None], -torch.inf).amax(1)
    found = CERTIFIERS.build(name).prepared(model, shape).lower(st.Region(st.Linf(0.0), model.box, x), y)
    torch.testing.assert_close(found, margin, rtol=0, atol=1e-6)


def test_a_network_of_two_inputs_on_a_fine_grid():
    """2-2-2: never above the minimum over a million points, and the gap closes with the budget."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    model, x = st.Model(network, box=(0, 1)), torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    y = network(x).argmax(1)
    gaps = []
    for epsilon in (0.4, 0.1, 0.01):
        side = torch.linspace(0.5 - epsilon, 0.5 + epsilon, 1001, dtype=torch.float64)
        with torch.no_grad():
            logits = network(torch.cartesian_prod(side, side))
        truth = (logits[:, y[0]] - logits[:, 1 - y[0]]).min()
        region = st.Region(st.Linf(epsilon), model.box, x)
        for name in METHODS:
            bound = CERTIFIERS.build(name).prepared(model, (2,)).lower(region, y)[0]
            assert bound <= truth
        split = CERTIFIERS.build("splitting(seconds=5)").prepared(model, (2,)).lower(region, y)[0]
        assert split <= truth and (split > 0) == (truth > 0)
        gaps.append(float(truth - bound))
    assert gaps[2] < 1e-6


def test_splitting_decides_small_networks_completely():
    """One hidden layer, thresholds just above and just below what brute force finds."""
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    hidden[0].weight.data *= 4
    hidden[0].bias.data -= hidden[0].weight.data.sum(1) / 2  # the kinks lie inside the budget
    x = torch.tensor([[0.45, 0.55]], dtype=torch.float64)
    side = torch.linspace(-0.3, 0.3, 1001, dtype=torch.float64)
    with torch.no_grad():
        logits = hidden(x + torch.cartesian_prod(side, side))
        least = (logits[:, 0] - logits[:, 1]).min()
    for shift, proven in ((1e-3 - least, True), (-1e-3 - least, False)):
        hidden[2].bias.data[0] += shift
        model, y = st.Model(hidden, box=(0, 1)), torch.tensor([0])
        region = st.Region(st.Linf(0.3), model.box, x)
        split, alone = (
            CERTIFIERS.build(name).prepared(model, (2,)).lower(region, y) for name in ("splitting", "crown")
        )
        assert bool(split > 0) == proven and not alone > 0
        hidden[2].bias.data[0] -= shift


@pytest.mark.parametrize("large", [1.5e8, 1e10])
def test_what_cancels_beyond_rounding_is_refused(large):
    """In real arithmetic the first output is relu(x); in float64 it is 0."""
    network = nn.Sequential(nn.Linear(1, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    network[0].weight.data = torch.tensor([[large], [1.0], [large]])
    network[2].weight.data = torch.tensor([[large, 1.0, -large], [0.0, 0.0, 0.0]])
    for name in ("crown", "linear", "lipschitz-pairs"):
        with pytest.raises(NoCertificateError, match="rounding"):
            CERTIFIERS.build(name).prepared(st.Model(network, box=(0.3, 0.4)), (1,))


@pytest.mark.parametrize("seed", [2, 7, 10])
def test_programs_prove_what_they_say_in_any_unit_of_the_input(seed):
    """In units of 10⁻⁹ the slopes lie below the tolerances of the solver, which cut off the minimum."""
    scale = 1e9
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    for parameter in network.parameters():
        parameter.data *= 2
    network[0].weight.data /= scale
    side = torch.linspace(0, scale, 301, dtype=torch.float64)
    with torch.no_grad():
        outputs = network(torch.cartesian_prod(side, side))
    y = outputs.mean(0).argmax()[None]
    least = (outputs[:, y[0]] - outputs[:, 1 - y[0]]).min()
    network[4].bias.data[y[0]] -= least + 1e-3
    model, x = st.Model(network, box=(0, scale)), torch.full((1, 2), scale / 2, dtype=torch.float64)
    found = CERTIFIERS.build("splitting(seconds=20, steps=2)").prepared(model, (2,))
    assert found.lower(st.Region(st.Linf(scale), model.box, x), y) <= -1e-3 + 1e-9


class Mixed(nn.Module):
    """A ReLU behind a step that cannot be split, and beside it a value of the input."""

    def __init__(self, bend: nn.Module, share: float, shift: float) -> None:
        super().__init__()
        self.bend, self.share, self.shift = bend, share, shift

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.cat([self.bend(x), x[:, :1] + self.shift], 1).relu()
        return torch.stack([torch.zeros_like(x[:, 0]), self.share - hidden[:, 0] + 2 * hidden[:, 1]], 1)


class Steep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(5 * x[:, :1])


class Larger(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x[:, None, None], (1, 2)).flatten(1)


@pytest.mark.parametrize("network", [Mixed(Steep(), 0.2, 0.0), Mixed(Larger(), 0.5, 0.5)], ids=["tanh", "maximum"])
def test_splitting_is_sound_behind_steps_that_stay_relaxed(network):
    """What a split demands of a relaxed value must cut off no point of its part."""
    model, x, y = st.Model(network, box=(-1, 1)), torch.zeros(1, 2, dtype=torch.float64), torch.tensor([1])
    side = torch.linspace(-1, 1, 401, dtype=torch.float64)
    outputs = network(torch.cartesian_prod(side, side))
    truth = (outputs[:, 1] - outputs[:, 0]).min()
    assert truth < -0.1
    found = CERTIFIERS.build("splitting(seconds=2)").prepared(model, (2,))
    assert found.lower(st.Region(st.Linf(1.0), model.box, x), y) <= truth


def test_numbers_of_python_keep_their_precision():
    weight = torch.tensor([[1e6, 0.0]], dtype=torch.float64)
    model = st.Model(lambda x: (x * 0.3) @ weight.to(x), box=(0, 2))
    x, y = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0])
    found = CERTIFIERS.build("ibp").prepared(model, (1,)).lower(st.Region(st.Linf(0.0), model.box, x), y)
    assert 3e5 - 0.01 < found <= 3e5


@pytest.mark.parametrize(
    "parts",
    [
        lambda x: torch.cat(x.split(2, 1)[::-1], 1),
        lambda x: torch.cat(x.split([1, 3], -1)[::-1], 1),
        lambda x: torch.cat([x.chunk(2, 1)[1], x.chunk(2, 1)[0]], 1),
        lambda x: torch.stack(x.unbind(1)[::-1], 1),
    ],
)
def test_every_part_of_a_value_is_followed(parts):
    torch.manual_seed(0)
    network, x = nn.Linear(4, 3), torch.rand(5, 4)
    model = st.Model(lambda x: network(parts(x)), box=None)
    with torch.no_grad():
        y = network(parts(x)).argmax(1)
    matrix = network.weight.detach() @ parts(torch.eye(4)).mT
    plain = nn.Linear(4, 3)
    plain.weight.data, plain.bias.data = matrix, network.bias.data
    both = [st.certify(each, x, y, st.L2(0.1), method="linear").gauge for each in (model, st.Model(plain, box=None))]
    torch.testing.assert_close(*both)
    assert bool((both[0] > 0).all())


def test_a_smaller_region_never_has_a_smaller_bound():
    network, shape = NETWORKS["residual"]
    model, x = st.Model(network, box=(0, 1)), torch.rand(3, *shape)
    y = model.logits(x).argmax(1)
    prover = CERTIFIERS.build("crown").prepared(model, shape)
    region = st.Region(st.L2(0.3), model.box, x)
    found = torch.stack([prover.lower(region.scaled(factor), y) for factor in (0.25, 0.5, 0.75, 1.0)])
    assert (found.diff(dim=0) <= 0).all()


def test_rows_do_not_know_each_other_and_none_is_no_problem():
    network, shape = NETWORKS["pools"]
    model, x = st.Model(network, box=(0, 1)), torch.rand(5, *shape)
    y = model.logits(x).argmax(1)
    prover = CERTIFIERS.build("alpha-crown(steps=3)").prepared(model, shape)
    region = st.Region(st.Linf(0.02), model.box, x)
    whole = prover.lower(region, y)
    for row in range(5):
        index = torch.tensor([row])
        torch.testing.assert_close(prover.lower(region.rows(index), y[index]), whole[index])
    none = torch.zeros(0, dtype=torch.int64)
    assert prover.lower(region.rows(none), y[none]).shape == (0,)


class Levels(nn.Module):
    def forward(self, x):
        return (x > 0.5).to(x.dtype)


@pytest.mark.parametrize(
    ("network", "shape", "word"),
    [
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), (3, 8), "mixed"),
        (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 3)), (4,), "native_layer_norm"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3).train()), (4,), "batch-norm layer in training mode"),
        (lambda x: x[:, :3] * x[:, 1:4], (4,), "aten.mul"),
        (lambda x: x[:, :3] if x.sum() > 0 else -x[:, :3], (4,), "traced"),
        (lambda x: x[:, :3] + torch.rand(3), (4,), "differently on different inputs"),
        (lambda x: x[:, :3] - x[:, :3].mean(0), (4,), "mixed"),
        (lambda x: x[:, :3] / x[:, 1:4], (4,), "aten.div"),
        (nn.Linear(4, 3).half(), (4,), "float16"),
        (lambda x: torch.zeros(len(x), 3), (4,), "do not depend"),
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(0)), (4,), "mixes examples"),
        (nn.Sequential(Levels(), nn.Linear(4, 3)), (4,), "aten.gt"),
        (nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(0)), (4,), "mixes examples"),
        (nn.Sequential(nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 3)), (4, 2, 2), "native_group_norm"),
    ],
)
def test_what_has_no_rule_is_named(network, shape, word):
    for name in ("ibp", "linear"):
        with pytest.raises(NoCertificateError, match=word if name == "ibp" else None):
            CERTIFIERS.build(name).prepared(st.Model(network, box=(0, 1)), shape)


def test_an_open_box_is_refused_where_the_budget_bounds_nothing():
    model = st.Model(nn.Linear(4, 3), box=None)
    prover = CERTIFIERS.build("ibp").prepared(model, (4,))
    x, y = torch.rand(2, 4), torch.zeros(2, dtype=torch.int64)
    assert prover.lower(st.Region(st.Linf(0.1), model.box, x), y).isfinite().all()
    with pytest.raises(st.UsageError, match="box=\\(0, 1\\)"):
        prover.lower(st.Region(st.L0(2), model.box, x), y)
