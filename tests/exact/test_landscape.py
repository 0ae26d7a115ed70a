"""What a loss looks like around a point, on grounds whose shape is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.landscape.alignment import gradient_alignment
from steepest.landscape.curvature import curvature
from steepest.landscape.differences import finite_differences
from steepest.landscape.gap import frank_wolfe_gap
from steepest.landscape.gradients import gradient_statistics
from steepest.landscape.linearity import linearity
from steepest.landscape.segment import segment_residual
from steepest.landscape.slices import plane
from steepest.landscape.terrain import Terrain
from steepest.models.objectives import CrossEntropy
from steepest.models.widened import in_float64
from tests.tables import CONVEX, budgets, slow_under_full

EPS = 0.1


def points(count: int = 6, *, kind: torch.dtype = torch.float32, features: int = 8) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(kind)
    return (0.2 + 0.6 * x), torch.arange(count) % 3


def ground(network: object, *, budget: object = None, kind: torch.dtype = torch.float32, **named: object) -> Terrain:
    x, y = points(kind=kind)
    return Terrain.around(st.Model(network), x, y, budget or st.Linf(EPS), **named)


def corner(terrain: Terrain) -> Tensor:
    return terrain.region.corner(terrain.stream, 5)


def mlp(activation: type[nn.Module], *, seed: int = 0, depth: int = 1, width: int = 64) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before in [8, *[width] * (depth - 1)]:
        layers += [nn.Linear(before, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 3)).eval()


def affine(classes: int = 3) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(8, classes)


class Bowl(nn.Module):
    """Two classes whose margin objective is ⟨a, p⟩ + ½·p'Hp."""

    def __init__(self, a: Tensor, h: Tensor) -> None:
        super().__init__()
        self.register_buffer("a", a)
        self.register_buffer("h", h)

    def forward(self, p: Tensor) -> Tensor:
        rise = p @ self.a + 0.5 * ((p @ self.h) * p).sum(1)
        return torch.stack([-rise / 2, rise / 2], 1)


class Quantised(nn.Module):
    def __init__(self, inner: nn.Module, levels: int) -> None:
        super().__init__()
        self.inner, self.levels = inner, levels

    def forward(self, p: Tensor) -> Tensor:
        return self.inner(torch.round(p * self.levels) / self.levels)


class Winners(nn.Module):
    """The largest tenth of the units; the others are 0."""

    def forward(self, z: Tensor) -> Tensor:
        least = z.topk(max(1, z.shape[1] // 10), 1).values[:, -1:]
        return z * (z >= least)


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(context: object, z: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def backward(context: object, g: Tensor) -> Tensor:
        return -g


class Turned(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return _Turned.apply(z)


def bowl(h: Tensor) -> Terrain:
    torch.manual_seed(4)
    x, _ = points(kind=torch.float64)
    return Terrain.around(st.Model(Bowl(torch.randn(8).double(), h)), x, torch.zeros(6).long(), st.Linf(EPS))


def test_affine_ground_is_what_its_gradient_says():
    labels = torch.arange(6) % 2
    for budget in (st.Linf(EPS), st.L2(0.3), st.L1(0.4), st.Masked(st.L2(0.3), torch.arange(8) < 5)):
        # Two classes: with more the margin has a kink where the rival changes.
        terrain = Terrain.around(st.Model(affine(classes=2).double()), points(kind=torch.float64)[0], labels, budget)
        end = terrain.region.extreme(terrain.gradient(terrain.x).gradient)
        assert segment_residual(terrain, corner(terrain)).max() < 1e-9
        found, bend = linearity(terrain), curvature(terrain, end)
        assert found.gamma.max() < 1e-12 and found.relative.max() < 1e-10
        assert torch.allclose(found.gained, found.predicted) and torch.equal(bend.overshoots, torch.zeros(6).bool())
        assert bend.second.abs().max() < 1e-12 and torch.allclose(bend.gained, bend.first)
        assert torch.allclose(gradient_alignment(terrain), torch.ones(6, 4).double())
        assert frank_wolfe_gap(terrain, end).max() < 1e-6
        assert torch.allclose(frank_wolfe_gap(terrain, terrain.x), torch.ones(6).double())
        assert frank_wolfe_gap(terrain, corner(terrain)).min() > 0.05
        picture = plane(terrain, resolution=5)
        assert torch.allclose(picture.value, picture.linear)


def test_the_statistics_of_a_gradient_are_its_own():
    layer = affine()
    terrain = ground(layer, objective="ce")
    found = gradient_statistics(terrain)
    slope = torch.softmax(layer(terrain.x), 1)
    slope[torch.arange(6), terrain.y] -= 1
    g = (slope @ layer.weight).detach()
    assert torch.allclose(found.size, g.abs().amax(1).double())
    assert torch.allclose(found.gain, EPS * g.abs().sum(1).double(), atol=1e-7)
    assert found.available and bool(found.finite.all()) and not bool(found.zero.any())
    # Logits far apart: the cross-entropy is flat in float32, the margin is not.
    hot = ground(lambda p: 1e4 * layer(p))
    right = hot.value(hot.x).outputs.argmax(1)
    hot = Terrain.around(hot.model, hot.x, right, st.Linf(EPS))
    assert bool(gradient_statistics(hot.with_objective(CrossEntropy())).zero.all())
    assert not bool(gradient_statistics(hot).zero.any())


def test_an_absent_gradient_is_an_answer_and_a_wrong_model_an_error():
    found = gradient_statistics(ground(lambda p: p[:, :3].detach()))
    assert not found.available and "no gradient" in found.reason and not bool(found.zero.any() | found.finite.any())
    broken = gradient_statistics(ground(lambda p: p[:, :3] + torch.sqrt(0 * p[:, :3])))
    assert broken.available and not bool(broken.finite.any()) and bool(broken.size.isnan().all())
    with pytest.raises(st.ModelError, match="allowed is one tensor"):
        gradient_statistics(ground(lambda p: p.sum()))


def test_quadratic_ground_is_known_to_second_order():
    diagonal = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0, 4.0, 3.0, 2.0, 1.0]).double())
    terrain = bowl(diagonal)
    found = linearity(terrain)
    # ½·Σ hᵢδᵢ² is largest at every corner, and nowhere else.
    most = 0.5 * EPS**2 * diagonal.trace().item()
    assert torch.allclose(found.gamma, torch.full((6,), most).double(), rtol=1e-9)
    assert torch.allclose((found.worst - terrain.x).abs(), torch.full((6, 8), EPS).double())
    assert torch.allclose(found.gained - found.predicted, torch.full((6,), most).double())
    generator = torch.Generator().manual_seed(5)
    full = torch.randn(8, 8, generator=generator).double()
    hollow = bowl(full + full.T)
    end = corner(hollow)
    bend, d = curvature(hollow, end), end - hollow.x
    assert torch.allclose(bend.second, ((d @ (full + full.T)) * d).sum(1))
    assert torch.allclose(bend.predicted, bend.gained)
    assert linearity(hollow).gamma.max() <= 0.5 * EPS**2 * (full + full.T).abs().sum() * (1 + 1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_worst_point_of_a_ridge_is_found_from_anywhere(sign):
    # |R| = ½·⟨v, δ⟩² is largest at the corner ±ε·sign(v) alone, whatever the slope.
    v = torch.tensor([3.0, -1.0, 2.0, 1.0, -2.0, 1.0, 1.0, -1.0]).double()
    found = linearity(bowl(sign * torch.outer(v, v)))
    assert torch.allclose(found.gamma, torch.full((6,), 0.5 * (EPS * v.abs().sum().item()) ** 2).double())


def test_a_step_over_the_peak_is_seen():
    x = torch.full((1, 8), 0.5).double()
    for peak, over in ((0.7, False), (0.61, False), (0.55, True), (0.51, True)):
        top = Terrain.around(
            st.Model(lambda p, peak=peak: torch.stack([(p[:, 0] - peak) ** 2, 0 * p[:, 0]], 1)),
            x, torch.zeros(1).long(), st.Linf(EPS),
        )  # fmt: skip
        end = top.region.extreme(top.gradient(x).gradient)
        assert curvature(top, end).overshoots.tolist() == [over]


def test_the_residual_of_kinks_falls_and_that_of_jumps_stays():
    shares = (8, 32, 128)
    kinked = ground(mlp(nn.ReLU))
    few, more = (float(segment_residual(kinked, corner(kinked), points=n).mean()) for n in shares[:2])
    assert 0 < more <= few / 2 < 0.05
    smooth = ground(mlp(nn.Tanh))
    assert segment_residual(smooth, corner(smooth)).max() < 1e-3
    jumps = ground(mlp(Winners, depth=3))
    assert all(float(segment_residual(jumps, corner(jumps), points=n).median()) > 0.5 for n in shares)
    steps = ground(Quantised(mlp(nn.ReLU), 8))
    assert segment_residual(steps, corner(steps)).tolist() == [1.0] * 6
    wrong = ground(nn.Sequential(Turned(), mlp(nn.Tanh)))
    assert segment_residual(wrong, corner(wrong)).min() > 0.99


def test_the_residual_knows_no_scale_and_no_change_is_none():
    for scale in (1e-6, 1e6):
        kinked, plain = ground(lambda p, s=scale: s * mlp(nn.ReLU)(p)), ground(mlp(nn.ReLU))
        end = corner(plain)
        assert segment_residual(kinked, end).max() < 0.05
        steps = ground(lambda p, s=scale: s * Quantised(affine(), 8)(p))
        assert segment_residual(steps, end).tolist() == [1.0] * 6
    level = ground(lambda p: 0 * p[:, :3] + 0.1)
    assert segment_residual(level, corner(level)).tolist() == [0.0] * 6
    layer = affine()
    rounded = ground(lambda p: 1e3 + 1e-3 * layer(p))  # refuses float64, and moves by single roundings
    assert segment_residual(rounded, corner(rounded)).tolist() == [0.0] * 6
    broken = ground(lambda p: p[:, :3] / (p[:, :3] - p[:, :3]))
    assert bool(segment_residual(broken, corner(broken)).isnan().all())


def moves(terrain: Terrain) -> Tensor:
    ends = [terrain.region.corner(terrain.stream, step) for step in range(2)]
    return torch.stack([end.double() - terrain.x.double() for end in ends], 1)


def test_differences_agree_with_a_right_backward_and_show_a_wrong_one():
    right = ground(mlp(nn.Tanh))
    found = finite_differences(right, moves(right))
    assert torch.allclose(found.measured[..., 0], found.autograd, rtol=1e-4, atol=1e-8)
    assert found.measured.shape == (6, 2, 3) and float(found.noise.max()) < 1e-8
    wrong = ground(nn.Sequential(Turned(), mlp(nn.Tanh)))
    turned = finite_differences(wrong, moves(wrong))
    assert torch.allclose(turned.measured[..., 0], -turned.autograd, rtol=1e-4, atol=1e-8)
    masked = finite_differences(ground(Quantised(mlp(nn.Tanh), 16)), moves(right))
    assert bool((masked.autograd == 0).all()) and bool((masked.measured[..., 2].abs() > 1e-5).all())


def test_where_the_box_ends_the_difference_has_one_side():
    seen: list[Tensor] = []

    def square(p: Tensor) -> Tensor:
        seen.append(p.detach())
        return torch.stack([0 * p[:, 0], p[:, 0] ** 2], 1)

    x, y = torch.tensor([[0.0], [0.5]]).double(), torch.zeros(2).long()
    terrain = Terrain.around(st.Model(square), x, y, st.Linf(0.2))
    found = finite_differences(terrain, torch.full((2, 1, 1), 0.2).double(), scales=(0.1, 1.0))
    assert torch.allclose(found.measured[0, 0], torch.tensor([0.004, 0.04]).double())
    assert torch.allclose(found.measured[1, 0], torch.tensor([0.2, 0.2]).double())
    assert all(bool(terrain.model.box.contains(p).all()) for p in seen)


def test_alignment_of_a_turning_gradient():
    # L = ½‖p‖² from x = c·1: ∇L(p) = p, so the cosine is that of x and p.
    terrain = bowl(torch.eye(8).double())
    terrain.model.network.a.zero_()
    found = gradient_alignment(terrain, radii=(0.01, 1.0))
    stream = terrain.stream.split(2)
    for step, r in enumerate((0.01, 1.0)):
        point = terrain.region.scaled(r).sample(stream, step)
        assert torch.allclose(found[:, step], torch.cosine_similarity(terrain.x, point), atol=1e-12)
    assert bool((found[:, 0] > 0.9999).all()) and bool((found[:, 1] < found[:, 0]).all())
    assert bool(gradient_alignment(ground(Quantised(affine(), 8))).isnan().all())
    assert torch.allclose(gradient_alignment(ground(lambda p: 1e-30 * affine()(p))), torch.ones(6, 4).double())


def test_the_gap_counts_the_box():
    # From the upper bound of the box nothing can be gained upwards, so x itself is done.
    x = torch.tensor([[1.0], [0.5]])
    rising = Terrain.around(st.Model(lambda p: torch.cat([0 * p, p], 1)), x, torch.zeros(2).long(), st.Linf(0.25))
    assert frank_wolfe_gap(rising, x).tolist() == [0.0, 1.0]
    assert frank_wolfe_gap(rising, torch.tensor([[0.75], [0.25]])).tolist() == [math.inf, 2.0]
    assert frank_wolfe_gap(ground(Quantised(affine(), 8)), points()[0]).tolist() == [0.0] * 6


def test_a_plane_holds_what_the_model_says_at_its_points():
    x = torch.full((2, 8), 0.95)
    terrain = Terrain.around(st.Model(mlp(nn.Tanh)), x, torch.tensor([0, 1]), st.Linf(EPS))
    found = plane(terrain, resolution=5, reach=2.0)
    assert found.fgsm.tolist() == [-2, -1, 0, 1, 2] and found.value.shape == (2, 5, 5)
    here = terrain.gradient(x)
    fast = terrain.region.extreme(here.gradient)
    assert torch.allclose(found.value[:, 2, 2], here.value.double()) and torch.allclose(
        found.value[:, 3, 2], terrain.value(fast).value.double()
    )
    gain = linearity(terrain).predicted
    assert torch.allclose(found.linear[:, 3, 2], here.value.double() + gain, atol=1e-6)
    # Half of the steps of 0.1 from 0.95 end at 1: the linear model is asked at the same cut points.
    assert torch.allclose(found.linear, found.value, atol=0.2)


def everything(terrain: Terrain) -> dict[str, Tensor]:
    """Every measure of a terrain, by name, leading axis N."""
    end = corner(terrain)
    stats, line, bend = gradient_statistics(terrain), linearity(terrain, steps=2), curvature(terrain, end)
    return {
        "size": stats.size, "gain": stats.gain, "residual": segment_residual(terrain, end, points=5),
        "differences": finite_differences(terrain, moves(terrain)).measured, "gamma": line.gamma, "worst": line.worst,
        "second": bend.second, "alignment": gradient_alignment(terrain), "gap": frank_wolfe_gap(terrain, end),
        "plane": plane(terrain, resolution=3).value,
    }  # fmt: skip


@pytest.mark.parametrize("name", slow_under_full(CONVEX))
def test_every_convex_budget_is_served_and_no_example_knows_the_others(name):
    x, y = points(3, kind=torch.float64)
    network = nn.Sequential(nn.Flatten(), mlp(nn.Tanh)).double()
    terrain = Terrain.around(st.Model(network), x.reshape(3, 2, 2, 2), y, budgets((2, 2, 2), EPS)[name])
    whole, alone = everything(terrain), everything(terrain.rows(torch.tensor([2])))
    for key, found in whole.items():
        assert bool(torch.isfinite(found).all()), key
        assert torch.allclose(found[2:], alone[key], rtol=1e-6, atol=1e-9), key
    assert bool(terrain.region.contains(whole["worst"]).all())


def test_no_examples_are_no_error():
    x, y = points()
    terrain = Terrain.around(st.Model(mlp(nn.Tanh)), x[:0], y[:0], st.Linf(EPS))
    assert {len(found) for found in everything(terrain).values()} == {0}
    assert finite_differences(terrain, moves(terrain)).measured.shape == (0, 2, 3)
    assert plane(terrain, resolution=3).value.shape == (0, 3, 3)


def test_the_twin_in_float64_answers_alike_or_is_none():
    x, _ = points()
    model = st.Model(mlp(nn.Tanh))
    wide = in_float64(model, x)
    assert wide is not None and wide.logits(x.double()).dtype == torch.float64
    assert torch.allclose(wide.logits(x.double()).float(), model.logits(x), atol=1e-6)
    assert next(model.network.parameters()).dtype == torch.float32
    assert in_float64(st.Model(lambda p: p[:, :3] ** 2), x) is not None
    inner = mlp(nn.Tanh)
    for network in (
        lambda p: inner(p),  # refuses float64
        lambda p: inner(p.float()),  # computes in float32 whatever it is given
        lambda p: p[:, :3] * (2.0 if p.dtype == torch.float64 else 1.0),
    ):
        assert in_float64(st.Model(network), x) is None
    assert in_float64(st.estimated(model), x) is None
