"""What the layers of a network do to a perturbation, and what their weights guarantee of the loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.landscape.remainder import remainder_bound
from steepest.landscape.saturation import logit_saturation, saturation
from steepest.landscape.stretch import stretch
from steepest.landscape.terrain import Terrain
from steepest.models.loading.adapt import Normalisation, Normalised

ACTIVATIONS = [nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Softplus(beta=3.0, threshold=60)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def image_net(activation: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    layers = [
        nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), activation, nn.AvgPool2d(2), nn.Dropout(),
        nn.Flatten(), nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), activation), nn.Identity(), nn.Linear(8, 3),
    ]  # fmt: skip
    net = nn.Sequential(*layers).double()
    net(drawn(64, 2, 8, 8))  # batch statistics that are not 0 and 1
    return Normalised(net, Normalisation(mean=(0.5,), std=(0.25, 0.5))).eval()


def gap(terrain: Terrain, point: Tensor) -> Tensor:
    here = terrain.gradient(terrain.x)
    promised = (here.gradient * (point - terrain.x)).flatten(1).sum(1)
    return terrain.value(point).value - here.value - promised


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_no_point_is_farther_from_the_linear_model_than_the_bound(activation):
    x, y = drawn(4, 2, 8, 8), torch.arange(4) % 3
    for budget in (st.Linf(0.1), st.L2(0.5)):
        terrain = Terrain.around(st.Model(image_net(activation)), x, y, budget, objective="ce")
        found = remainder_bound(terrain)
        assert found.reason == "" and found.bound is not None and bool((found.bound > 0).all())
        for step in range(5):
            assert bool((gap(terrain, terrain.region.sample(terrain.stream, step)).abs() <= found.bound).all())
            assert bool((gap(terrain, terrain.region.corner(terrain.stream, step)).abs() <= found.bound).all())
        hard = st.attack("pgd(steps=10)", terrain.model, x, y, budget, objective="ce", drop_solved=False).point
        assert bool((gap(terrain, hard).abs() <= found.bound).all())


# Where |s''| is largest: the bound is met there, up to the third derivative.
SHARPEST = [
    (nn.Tanh(), math.atanh(1 / math.sqrt(3))), (nn.Sigmoid(), math.log(2 + math.sqrt(3))), (nn.GELU(), 0.0),
    (nn.SiLU(), 0.0), (nn.Softplus(), 0.0), (nn.Softplus(beta=3.0, threshold=60), 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("activation", "place"), SHARPEST, ids=repr)
def test_the_bound_is_met_by_one_unit_at_its_sharpest_place(activation, place):
    first, last = nn.Linear(3, 1, bias=False), nn.Linear(1, 2, bias=False)
    first.weight.data.copy_(torch.tensor([[1.0, -2.0, 0.5]]))
    last.weight.data.copy_(torch.tensor([[-1.0], [1.0]]))
    net = nn.Sequential(first, activation, last).double()
    x = torch.tensor([[place, 0.0, 0.0]], dtype=torch.float64)
    terrain = Terrain.around(st.Model(net, box=None), x, torch.tensor([0]), st.Linf(1e-3))
    bound = remainder_bound(terrain).bound
    corner = terrain.region.extreme(first.weight.double().detach())
    share = float(gap(terrain, corner).abs() / bound)
    assert 0.99 < share <= 1 + 1e-6


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_slopes_enter_the_bound_squared(activation):
    # Of f = (−s/2, s/2) the margin bends by ℓ·b_f and the cross-entropy by ℓ·b_f + (max |s'|/2)².
    places = torch.linspace(-6, 6, 120_001, dtype=torch.float64)[:, None]
    slope = float((activation(places[1:]) - activation(places[:-1])).abs().max() / (places[1] - places[0]))
    net = nn.Sequential(activation, nn.Linear(1, 2, bias=False)).double()
    net[1].weight.data.copy_(torch.tensor([[-0.5], [0.5]]))
    ce, margin = (
        remainder_bound(
            Terrain.around(st.Model(net, box=None), places[:1], torch.tensor([0]), st.Linf(1.0), objective=o)
        )
        for o in ("ce", "margin")
    )
    assert slope**2 / 4 <= ce.constant - margin.constant <= slope**2 / 4 * 1.01


def test_the_cross_entropy_of_an_affine_map_meets_its_bound():
    # Two classes, z = (−p/2, p/2): L = log(1 + e^p), |L''| ≤ ¼ and the recursion gives b·ℓ² = 1·¼.
    net = nn.Linear(1, 2, bias=False).double()
    net.weight.data.copy_(torch.tensor([[-0.5], [0.5]]))
    x = torch.zeros(1, 1, dtype=torch.float64)
    terrain = Terrain.around(st.Model(net, box=None), x, torch.tensor([0]), st.Linf(1e-2), objective="ce")
    found = remainder_bound(terrain)
    assert found.constant == pytest.approx(0.25, rel=1e-9) and found.constant >= 0.25
    assert float(gap(terrain, x + 1e-2) / found.bound) == pytest.approx(1, rel=1e-3)
    assert remainder_bound(Terrain.around(st.Model(net), x, torch.tensor([0]), st.Linf(0.1))).bound.tolist() == [0.0]


def test_a_normalisation_counts_by_its_smallest_divisor():
    net = nn.Linear(2, 2, bias=False).double()
    net.weight.data.copy_(torch.tensor([[-0.5, 0.0], [0.5, 0.0]]))
    whole = Normalised(net, Normalisation(mean=(0.0,), std=(0.25, 0.5)))
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    found = remainder_bound(Terrain.around(st.Model(whole), x, torch.tensor([0]), st.Linf(0.1), objective="ce"))
    assert found.constant == pytest.approx((0.5 / 0.25) ** 2, rel=1e-9)


def test_the_reach_is_cut_by_the_box():
    net = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double()
    x = torch.tensor([[0.0, 1.0], [0.5, 0.5]], dtype=torch.float64)
    low = Terrain.around(
        st.Model(net), x, torch.zeros(2).long(), st.Weighted(0.5, up=torch.tensor(0.2), down=torch.tensor(1.0))
    )
    assert torch.allclose(remainder_bound(low).reach, torch.tensor([0.5, 0.5]).double())
    sided = Terrain.around(
        st.Model(net),
        x[1:].repeat(2, 1),
        torch.zeros(2).long(),
        st.Weighted(0.5, up=torch.tensor(0.2), down=torch.tensor(0.0)),
    )
    assert torch.allclose(remainder_bound(sided).reach, torch.tensor([0.1, 0.1]).double())


class _Own(nn.Tanh):
    def forward(self, z: Tensor) -> Tensor:
        return 5 * super().forward(z)


class _Branch(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z + z


def _swapped() -> nn.Module:
    part = nn.Tanh()
    part.forward = lambda z: 3 * z
    return part


def _hooked() -> nn.Module:
    part = nn.Tanh()
    part.register_forward_hook(lambda *_: None)
    return part


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (nn.ReLU(), "not smooth"), (nn.LeakyReLU(), "not smooth"), (nn.ELU(), "not smooth"),
        (_Own(), "_Own has no rule"), (_Branch(), "_Branch has no rule"), (nn.LayerNorm(2), "LayerNorm has no rule"),
        (_swapped(), "of its own"),
        (nn.GELU(approximate="tanh"), "no rule"), (_hooked(), "hook"), (nn.BatchNorm1d(2), "call .eval"),
        (nn.Dropout(), "call .eval"), (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "no rule"),
        (nn.Softplus(threshold=1), "no rule"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_what_has_no_rule_gets_no_bound_but_a_reason(part, reason):
    x, y = torch.full((2, 2), 0.5), torch.zeros(2).long()
    found = remainder_bound(Terrain.around(st.Model(nn.Sequential(nn.Linear(2, 2), part)), x, y, st.Linf(0.1)))
    assert found.bound is None and found.constant is None and reason in found.reason
    assert torch.allclose(found.reach, torch.full((2,), 0.1).double())


def test_models_that_cannot_be_read_get_a_reason():
    x, y, net = torch.full((2, 2), 0.5), torch.zeros(2).long(), nn.Linear(2, 3)
    three = remainder_bound(Terrain.around(st.Model(net), x, y, st.Linf(0.1)))
    assert three.bound is None and "rival" in three.reason
    for model, objective in ((st.Model(lambda p: net(p)), "ce"), (st.estimated(st.Model(net)), "ce"),
                             (st.Model(net), "scaled-ce"), (st.scores(lambda a: a), "ce")):  # fmt: skip
        assert remainder_bound(Terrain.around(model, x, y, st.Linf(0.1), objective=objective)).reason


def test_layers_stretch_by_exact_norms():
    torch.manual_seed(2)
    turn = torch.linalg.qr(torch.randn(6, 6).double()).Q
    net = nn.Sequential(*[nn.Linear(6, 6) for _ in range(3)]).double()
    for layer, factor in zip(net, (2.0, 0.5, 3.0), strict=True):
        layer.weight.data.copy_(factor * turn)
    x, point = drawn(5, 6), drawn(5, 6, seed=1)
    found = stretch(st.Model(net), x, point)
    assert [(each.name, each.kind) for each in found] == [("0", "Linear"), ("1", "Linear"), ("2", "Linear")]
    for each, ratio, own in zip(found, (2.0, 1.0, 3.0), (2.0, 0.5, 3.0), strict=True):
        assert torch.allclose(each.ratio, torch.full((5,), ratio).double())
        assert torch.allclose(each.own, torch.full((5,), own).double())
    assert torch.equal(
        stretch(st.Model(net), x[3:4], point[3:4])[2].ratio.round(decimals=9), found[2].ratio[3:4].round(decimals=9)
    )
    assert [len(each.ratio) for each in stretch(st.Model(net), x[:0], point[:0])] == [0, 0, 0]
    assert stretch(st.Model(lambda p: net(p)), x, point) == ()


def test_layers_are_seen_in_the_order_of_calls_before_they_work_in_place():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = nn.Linear(4, 2), nn.ReLU(inplace=True)

        def forward(self, p: Tensor) -> Tensor:
            return self.late(self.early(self.early(p - 0.5) * 2))

    net = Net().eval()
    x, point = torch.tensor([[0.9, 0.9, 0.1, 0.1]]), torch.tensor([[1.0, 0.9, 0.2, 0.1]])
    found = stretch(st.Model(net), x, point)
    assert [each.name for each in found] == ["early", "early", "late"]
    assert torch.allclose(found[0].own, torch.tensor([0.5]).double().sqrt(), rtol=1e-5)
    assert torch.allclose(found[1].own, torch.ones(1).double())


def test_no_hook_stays_when_the_network_fails():
    class Broken(nn.Module):
        def forward(self, p: Tensor) -> Tensor:
            raise ValueError("no")

    net = nn.Sequential(nn.Linear(2, 2), Broken())
    for ask in (lambda m, p: stretch(m, p, p), saturation):
        with pytest.raises(ValueError, match="no"):
            ask(st.Model(net), torch.zeros(1, 2))
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_the_share_of_flat_units_is_counted():
    first = nn.Linear(1, 100, bias=False)
    first.weight.data.copy_(torch.linspace(-1, 1, 100)[:, None])
    net = nn.Sequential(first, nn.Hardtanh(), nn.Linear(100, 2))
    for scale in (0.5, 2.0, 50.0):
        (found,) = saturation(st.Model(scaled(net, scale)), torch.tensor([[1.0], [0.0]]))
        units = (scale * first.weight.detach()).abs()
        assert found.kind == "hardtanh" and found.share.tolist() == [float((units >= 1).double().mean()), 0.0]


def test_units_are_read_before_they_are_changed_in_place():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Hardtanh(0.0, 1.0, inplace=True))
    net[0].weight.data.copy_(torch.eye(2))
    (found,) = saturation(st.Model(net, box=None), torch.tensor([[0.5, 7.0], [-1.0, 0.5]]))
    assert found.share.tolist() == [0.5, 0.5]
    assert [layer.share.tolist() for layer in saturation(st.Model(net), torch.zeros(0, 2))] == [[]]


def scaled(net: nn.Sequential, scale: float) -> nn.Module:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, p: Tensor) -> Tensor:
            return self.net(scale * p)

    return Scaled()


@pytest.mark.parametrize(
    "activation",
    [
        nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-2, 0.5), nn.Mish(), nn.Hardsigmoid(), nn.Hardswish(), nn.Threshold(0.3, 1),
        nn.Hardshrink(), nn.Softshrink(), nn.ELU(), nn.CELU(0.5), nn.SELU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(2.0),
        nn.GELU(), nn.SiLU(),
    ],
    ids=repr,
)  # fmt: skip
def test_flat_units_are_those_that_autograd_finds_flat(activation):
    x = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor([-150.0, -110.0, 110.0, 3.0, -3.0, 6.0])])[None]
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(activation(1 * z).sum(), z)
    (found,) = saturation(st.Model(activation, box=None), x)
    assert float(found.share) == pytest.approx(float((slope == 0).double().mean()), abs=3 / x.numel())


def test_the_gap_of_the_logits_is_the_margin():
    outputs, y = torch.tensor([[20.0, 1.0, 3.0], [0.0, 3.0, 1.0]]), torch.tensor([0, 2])
    assert logit_saturation(outputs, y).tolist() == [17.0, -2.0]
    assert logit_saturation(outputs[:0], y[:0]).shape == (0,)
