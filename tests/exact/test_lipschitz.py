"""Lipschitz constants: their order, the cases with closed forms, and margins that are never below the bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.basis.errors import NoCertificateError
from steepest.basis.streams import Stream
from steepest.budgets.extents import absolute_support, coordinate_reach, euclidean_reach
from steepest.certify.contract import Prover
from steepest.certify.eclipse import carried, eclipse_bound, eclipse_bounds
from steepest.certify.library import CERTIFIERS
from steepest.certify.pairs import Pairs, contrasts
from steepest.models.traced import traced
from tests.tables import NAMES, budgets

METHODS = ("lipschitz-product", "lipschitz-pairs", "absolute-product", "eclipse")


def prover(name: str, model: st.Model, shape: tuple[int, ...]) -> Prover:
    return CERTIFIERS.entry(name).factory().prepared(model, shape)


def chain(seed: int, activation: nn.Module | None = None) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 16), activation or nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4)).eval()


class Residual(nn.Module):
    """Convolutions around which the values also go straight, batch norm, pooling, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.last = nn.Linear(16, 3)
        self.norm.running_var.copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first((x - 0.5) / 0.25)).relu()
        h = h + nn.functional.gelu(self.second(h))
        return self.last(nn.functional.max_pool2d(h, 2).flatten(1))


def residual(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return Residual().eval()


class Maxima(nn.Module):
    """Overlapping windows, a largest value over an axis, the larger of two, slopes that were learned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.slopes, self.last = nn.Conv2d(1, 4, 2), nn.PReLU(4, 0.3), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.max_pool2d(self.slopes(self.first(x)), 2, 1)
        h = torch.maximum(h, 0.5 * h.flip(1))
        return self.last(torch.cat([h.amax(2), h.mean(3) - 1], 1).flatten(1)[:, :16])


class Scalars(nn.Module):
    """Steps that answer one number for an example, without an axis of features."""

    def forward(self, x: Tensor) -> Tensor:
        one = (x * torch.tensor([1.0, -2.0, 0.5])).sum(1)
        two = x[:, 0].tanh()
        return torch.stack([one.relu() - two, two, one + 0.1], 1)


def maxima() -> nn.Module:
    torch.manual_seed(3)
    return Maxima().eval()


NETS = {
    "scalars": (Scalars().eval(), (3,)),
    "maxima": (maxima(), (1, 4, 4)),
    "chain": (chain(0), (5,)),
    "elu": (chain(1, nn.ELU()), (5,)),
    "residual": (residual(0), (1, 4, 4)),
    "convolutions": (
        nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.LeakyReLU(0.1), nn.Conv2d(3, 4, 2, stride=2), nn.Sigmoid(), nn.Flatten(),
            nn.Linear(4, 3),
        ).eval(),
        (2, 4, 4),
    ),
}  # fmt: skip


NO_CHAINS = ("scalars", "maxima", "residual")


def exact_margin(weight: Tensor, z: Tensor, y: Tensor, region: st.Region, budget: st.Region) -> Tensor:
    """The smallest margin of a linear network over a region, by the support of every difference of rows."""
    found = []
    for k in range(len(weight)):
        gap = (weight[y] - weight[k]).reshape(region.x.shape)
        found.append(z.gather(1, y[:, None])[:, 0] - z[:, k] - region.support(-gap))
    return torch.stack(found, 1).scatter(1, y[:, None], torch.inf).amin(1)


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("lipschitz-pairs", st.L2(0.1)),
        ("eclipse", st.L2(0.1)),
        ("absolute-product", st.Linf(0.1)),
        ("absolute-product", st.L1(0.1)),
        ("absolute-product", st.L2(0.1)),
        ("absolute-product", st.Weighted(0.1, up=torch.tensor([1.0, 2.0, 0.0, 0.5]))),
        ("absolute-product", st.PixelL2(0.1)),
    ],
)
def test_a_linear_model_closes_exactly(name: str, budget: object) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Linear(6, 3)).eval()
    x = torch.rand(8, 4) if not isinstance(budget, st.PixelL2) else torch.rand(8, 2, 1, 2)
    model = st.Model(net, box=None)
    y = model.logits(x).argmax(1)
    region = st.Region(budget, model.box, x)
    weight = (net[2].weight.double() @ net[1].weight.double()).detach()
    bias = (net[2].weight.double() @ net[1].bias.double() + net[2].bias.double()).detach()
    true = exact_margin(weight, x.flatten(1).double() @ weight.T + bias, y, region, budget)
    found = prover(name, model, tuple(x.shape[1:])).lower(region, y)
    assert (found <= true).all() and torch.allclose(found, true, rtol=1e-8, atol=1e-9)


def test_one_hidden_layer_in_closed_form() -> None:
    # W₁ = diag(3, 1), w = (0, 2): the steep direction of the first layer is not that of the second.
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)).eval()
    net[0].weight.data.copy_(torch.diag(torch.tensor([3.0, 1.0])))
    net[2].weight.data.copy_(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    graph = traced(st.Model(net), (2,))
    # A = diag(9, 1), λ = 2/9, X = diag(2/9 − 9/81, 2/9 − 1/81) = diag(9, 17)/81: L² = 4·81/17.
    weight, inverse = carried(graph)
    assert torch.allclose(inverse, torch.diag(torch.tensor([81 / 9, 81 / 17]).double()))
    assert eclipse_bound(weight, inverse) == pytest.approx(math.sqrt(4 * 81 / 17), rel=1e-8)
    pairs = Pairs.of_graph(graph)
    assert pairs.totals[-1] == pytest.approx(6.0) and pairs.steepest == pytest.approx(6 * math.sqrt(2))
    assert float(pairs.of(torch.tensor([0]))[0, 1]) == pytest.approx(6.0)
    # |w|ᵀ|W₁| = (0, 2): the true constant, since ReLU is the identity where values are positive.
    model = st.Model(net, box=None)
    region = st.Region(st.L2(0.1), model.box, torch.ones(1, 2))
    assert float(prover("absolute-product", model, (2,)).lower(region, torch.tensor([0]))) == pytest.approx(2 - 0.2)
    assert float(prover("lipschitz-pairs", model, (2,)).lower(region, torch.tensor([0]))) == pytest.approx(2 - 0.6)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_the_constants(seed: int) -> None:
    graph = traced(st.Model(chain(seed)), (5,))
    pairs, (weight, inverse) = Pairs.of_graph(graph), carried(graph)
    assert eclipse_bound(weight, inverse) <= pairs.totals[-1] * (1 + 1e-8)
    for label in range(4):
        own = pairs.of(torch.tensor([label]))[0]
        closer = eclipse_bounds(weight, inverse, contrasts(label, 4))
        assert own[label] == 0 and closer[label] == 0
        assert (closer <= own * (1 + 1e-8)).all() and (own <= pairs.steepest).all()
        assert (closer <= math.sqrt(2) * eclipse_bound(weight, inverse) * (1 + 1e-8)).all()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_no_point_of_the_region_has_a_smaller_margin(method: str, name: str) -> None:
    net, shape = NETS[name]
    model = st.Model(net)
    if method == "eclipse" and name in NO_CHAINS:
        with pytest.raises(NoCertificateError, match=r"eclipse: aten\.\w+ .* no (chain|activation)"):
            prover(method, model, shape)
        return
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    y = model.logits(x).argmax(1)
    ready = prover(method, model, shape)
    wide, tried = net.double(), 1250
    for budget in (st.Linf(0.05), st.L2(0.3), st.L1(0.5), st.L0(2)):
        region = st.Region(budget, model.box, x)
        bound = ready.lower(region, y)
        rows = torch.arange(2).repeat_interleave(tried)
        many = region.rows(rows)
        points = torch.cat(
            [
                many.sample(Stream.of(0, torch.arange(len(rows))), 0),
                many.corner(Stream.of(1, torch.arange(len(rows))), 0),
            ]
        )
        z, owner = wide(points.double()).detach(), rows.repeat(2)
        gaps = z.gather(1, y[owner][:, None]) - z
        worst = gaps.scatter(1, y[owner][:, None], torch.inf).amin(1)
        assert (worst >= bound[owner]).all(), budget
    net.float()


@pytest.mark.parametrize("method", METHODS)
def test_a_smaller_region_never_has_a_smaller_bound_and_none_has_the_margin(method: str) -> None:
    net, shape = NETS["chain"]
    model, x = st.Model(net), torch.rand(5, *NETS["chain"][1], generator=torch.Generator().manual_seed(1))
    y = model.logits(x).argmax(1)
    ready = prover(method, model, shape)
    region = st.Region(st.L2(0.2), model.box, x)
    found = torch.stack([ready.lower(region.scaled(share), y) for share in (0.0, 0.01, 0.3, 0.5, 1.0, 4.0)])
    assert (found.diff(dim=0) <= 0).all()
    z = model.logits(x).double()
    true = (z.gather(1, y[:, None]) - z).scatter(1, y[:, None], torch.inf).amin(1)
    assert torch.allclose(found[0], true, atol=1e-5) and not torch.allclose(found[1], true, atol=1e-5)
    # Rows do not know each other, in any number.
    assert torch.equal(ready.lower(region.rows(torch.tensor([3])), y[3:4]), found[4][3:4])
    assert ready.lower(region.rows(torch.tensor([], dtype=torch.int64)), y[:0]).shape == (0,)


def test_gelu_is_refused_by_eclipse_by_its_name() -> None:
    with pytest.raises(NoCertificateError, match=r"eclipse: aten\.gelu .*lipschitz-pairs"):
        prover("eclipse", st.Model(chain(0, nn.GELU())), (5,))


@pytest.mark.parametrize("name", NAMES)
def test_no_point_is_farther_than_the_reach(name: str) -> None:
    shape = (2, 2, 3)
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    region = st.Region(budgets(shape, 0.4)[name], st.Box(0, 1), x)
    reach, sides = euclidean_reach(region), coordinate_reach(region)
    weights = torch.rand(3, sides.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    against = absolute_support(region, weights)
    for step in range(4):
        stream = Stream.of(step, torch.arange(6))
        for point in (region.sample(stream, 0), region.corner(stream, 0)):
            moved = (point.double() - x.double()).flatten(1).abs()
            slack = 1e-6  # subspaces keep points to a unit in the last place
            assert (moved.norm(dim=1) <= reach + slack).all() and (moved <= sides + slack).all()
            assert (moved @ weights.T <= against + slack).all()


def test_the_reach_of_known_sets() -> None:
    x, free, box = torch.full((1, 4), 0.5), st.Box.of(None), st.Box(0, 1)

    def reach(budget: object, within: st.Box = free, around: Tensor = x) -> float:
        return float(euclidean_reach(st.Region(budget, within, around)))

    assert reach(st.Linf(0.1)) == pytest.approx(0.2) and reach(st.L2(0.1)) == pytest.approx(0.1)
    assert reach(st.L1(0.1)) == pytest.approx(0.1) and reach(st.L0(1)) == math.inf
    assert reach(st.L0(2), box) == pytest.approx(math.sqrt(2) / 2) and reach(st.L2(5.0), box) == pytest.approx(1.0)
    assert reach(st.Linf(torch.tensor([0.1, 0.0, 0.0, 0.0]))) == pytest.approx(0.1)
    assert reach(st.Masked(st.Linf(0.1), torch.tensor([True, False, False, False]))) == pytest.approx(0.1)
    assert reach(st.Intersection(st.L2(0.1), st.Linf(0.09))) == pytest.approx(0.1)
    assert reach(st.Ellipsoid(0.1, torch.diag(torch.tensor([4.0, 25.0, 4.0, 4.0])))) == pytest.approx(0.05)
    assert reach(st.PixelSum(0.1), around=x.reshape(1, 2, 1, 2)) == pytest.approx(0.1)
    # One ε for each example.
    two = st.Region(st.L2(torch.tensor([0.1, 0.3])), free, torch.zeros(2, 4))
    assert torch.allclose(euclidean_reach(two), torch.tensor([0.1, 0.3]).double())


def test_what_cannot_change_the_margin_may_go_anywhere() -> None:
    net = nn.Linear(2, 2, bias=False).eval()
    net.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    model = st.Model(net, box=None)
    frozen = st.Masked(st.L0(1), torch.tensor([False, True]))
    region = st.Region(frozen, model.box, x)
    assert float(prover("absolute-product", model, (2,)).lower(region, y)) == pytest.approx(1.0)
    assert float(prover("lipschitz-pairs", model, (2,)).lower(region, y)) == -math.inf
    # The whole space around a network that does not look at its input.
    net.weight.data.zero_()
    assert float(prover("lipschitz-pairs", model, (2,)).lower(region, y)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", NETS)
def test_what_was_seen_lies_below_what_was_proven(name: str) -> None:
    net, shape = NETS[name]
    x = torch.rand(4, *shape, generator=torch.Generator().manual_seed(2))
    model = st.Model(net)
    y = model.logits(x).argmax(1)
    found = st.lipschitz(model, x, y, st.L2(0.5), samples=6, steps=4)
    seen, ceiling = found.found, found.ceiling
    assert ceiling is not None and found.pairs is not None and found.radius is not None
    assert (seen.sampled > 0).all() and (seen.sampled <= seen.ascended).all() and (seen.ascended <= found.pairs).all()
    assert (seen.whole_sampled <= seen.whole_ascended).all() and (seen.whole_ascended <= ceiling.best).all()
    assert (found.radius <= found.attainable).all() and (found.radius > 0).all()
    assert (found.pairs <= math.sqrt(2) * ceiling.product).all()
    assert (ceiling.eclipse is None) == (name in NO_CHAINS) == ("eclipse" in ceiling.why)
    assert sum(layer.share for layer in ceiling.layers) == pytest.approx(1.0)
    # Climbing finds more than sampling somewhere, or nothing was climbed.
    assert name != "chain" or (seen.ascended > 1.001 * seen.sampled).any()


def test_a_linear_model_is_known_from_both_sides() -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 4).eval()
    x, model, wide = torch.rand(5, 6), st.Model(net), net.weight.detach().double()
    y = model.logits(x).argmax(1)
    found = st.lipschitz(model, x, y, st.Linf(0.1), samples=2, steps=1)
    assert found.pairs is not None and found.radius is not None and found.ceiling is not None
    true = torch.stack([(wide[a] - wide[b]).norm(dim=1) for a, b in zip(y, found.rivals, strict=True)])
    assert torch.allclose(found.pairs, true, rtol=1e-9) and torch.allclose(found.found.ascended, true, rtol=1e-9)
    assert torch.allclose(found.radius, found.attainable, rtol=1e-9)
    whole = float(torch.linalg.svdvals(wide)[0])
    assert found.ceiling.product == pytest.approx(whole) == pytest.approx(found.ceiling.eclipse)
    # Nothing of Euclidean length radius breaks it, and a little more does.
    nearest = st.attack("fab", model, x, y, st.L2(9.0)).radius
    assert torch.allclose(nearest.double(), found.radius, rtol=1e-3)


@pytest.mark.parametrize("declared", [False, True])
def test_of_probabilities_the_logits_behind_are_meant(declared: bool) -> None:
    net = chain(0)
    x = torch.rand(3, 5, generator=torch.Generator().manual_seed(2))
    y = st.Model(net).logits(x).argmax(1)
    asked = {"samples": 4, "steps": 2}
    plain = st.lipschitz(st.Model(net), x, y, st.L2(0.5), **asked)
    model = st.Model(nn.Sequential(net, nn.Softmax(1)))
    model = model.with_facts(model.facts if not declared else type(model.facts)(outputs="probabilities"))
    found = st.lipschitz(model, x, y, st.L2(0.5), **asked)
    assert torch.allclose(found.pairs, plain.pairs) and torch.allclose(found.found.ascended, plain.found.ascended)
    assert torch.allclose(found.margin, plain.margin, atol=1e-5)
    assert (found.found.whole_ascended <= found.ceiling.best).all()


def test_a_model_without_a_rule_still_has_lower_bounds() -> None:
    x, y = torch.tensor([[0.5, 0.2]]), torch.tensor([0])
    found = st.lipschitz(st.Model(lambda p: p * p), x, y, st.L2(0.1))
    assert found.ceiling is None and found.pairs is None and found.radius is None and "aten.mul" in found.reason
    # ∇(x₁² − x₂²) = (2x₁, −2x₂) is longest at a point of the circle, and at most 2(‖x‖ + 0.1) long.
    longest = 2 * (math.hypot(0.5, 0.2) + 0.1)
    assert 0.99 * longest < float(found.found.ascended) <= longest


@pytest.mark.parametrize("name", ["chain", "residual"])
def test_no_attack_succeeds_below_the_radius(name: str) -> None:
    net, shape = NETS[name]
    model, x = st.Model(net), torch.rand(6, *shape, generator=torch.Generator().manual_seed(3))
    y = model.logits(x).argmax(1)
    found = st.lipschitz(model, x, y, st.L2(2.0), samples=2, steps=1)
    assert found.radius is not None
    broken = st.attack("ddn(steps=30)", model, x, y, st.L2(2.0))
    assert broken.won.any() and (broken.radius[broken.won].double() > found.radius[broken.won]).all()


@pytest.mark.parametrize("name", NETS)
def test_no_examples_have_no_bounds(name: str) -> None:
    net, shape = NETS[name]
    x, y = torch.zeros(0, *shape), torch.zeros(0, dtype=torch.int64)
    found = st.lipschitz(st.Model(net), x, y, st.L2(0.1), samples=1, steps=1)
    assert found.radius is not None and found.radius.shape == found.attainable.shape == (0,)
    assert found.ceiling is not None and found.ceiling.product > 0
