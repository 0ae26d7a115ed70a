"""Transfer attacks: each part against its formula, neutral parts against the plain method; surrogates; ensembles."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.ascent import GradientAscent
from steepest.attacks.momentum import MomentumAscent, smoothed
from steepest.attacks.recipe import Recipe
from steepest.basis.streams import Stream
from steepest.budgets.contract import Budget
from steepest.models.views import Views, resizing
from tests.conformance.cases import Case, case

DTYPE = torch.float64
EPS = 0.1


class Watched(nn.Module):
    """Remembers every batch that it was asked about."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.asked = inner, []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return self.inner(x)


def walk(some: Case, recipe: str | Recipe, budget: Budget | None = None, objective: str = "ce") -> list[Tensor]:
    """All batches that the network sees during one attack."""
    net = Watched(some.network)
    st.attack(recipe, net, some.x, some.y, budget or st.Linf(EPS), objective=objective, drop_solved=False)
    return net.asked


def slope(some: Case, point: Tensor) -> Tensor:
    """∇ of the cross-entropy, without any code of ours."""
    point = point.clone().requires_grad_()
    nn.functional.cross_entropy(some.network(point), some.y, reduction="sum").backward()
    return point.grad


def added(velocity: Tensor, gradient: Tensor) -> Tensor:
    return velocity + gradient / gradient.abs().flatten(1).mean(1).reshape(-1, *[1] * (gradient.ndim - 1))


def clipped(point: Tensor, some: Case) -> Tensor:
    return torch.maximum(torch.minimum(point, some.x + EPS), some.x - EPS).clamp(0, 1)


@pytest.mark.parametrize("name", ["linf", "l2", "masked l1"])
@pytest.mark.parametrize("kind", ["series K=3", "image K=10"])
@pytest.mark.parametrize(
    ("text", "momentum"),
    [
        ("mi-fgsm(steps=6)", 1.0),
        ("mi-fgsm(steps=6, momentum=0.5)", 0.5),
        ("vmi-fgsm(steps=6, variance=0)", 1.0),
        ("di-fgsm(steps=6, diversity=0.0)", 1.0),
        ("ti-fgsm(steps=6, kernel=1)", 1.0),
        ("si-fgsm(steps=6, scales=1)", 1.0),
        ("ni-fgsm(steps=6, momentum=0)", 0.0),
        ("vmi-fgsm(steps=6, variance=0, momentum=0)", 0.0),
    ],
)
def test_neutral_parts_change_nothing_and_cost_nothing(kind, text, momentum, name):
    some = case(kind)
    plain = Recipe(search=GradientAscent(6, 1 / 6, momentum))
    ours, wanted = walk(some, text, some.budget(name)), walk(some, plain, some.budget(name))
    assert len(ours) == len(wanted) == 7
    assert all(torch.equal(a, b) for a, b in zip(ours, wanted, strict=True))


def test_without_momentum_it_is_the_basic_method():
    some = case("image K=10")
    assert torch.equal(walk(some, "mi-fgsm(steps=5, momentum=0)")[-1], walk(some, "bim(steps=5, step=1/5)")[-1])
    resized = walk(some, "di-fgsm(steps=5, resize=1.0, diversity=1.0)")[-1]
    assert torch.allclose(resized, walk(some, "mi-fgsm(steps=5)")[-1], atol=1e-12)


def test_nesterov_looks_ahead_inside_the_region():
    """g at x + α·μ·v, the step from x; the publication does not project the look-ahead."""
    some = case("series K=3")
    seen = walk(some, "ni-fgsm(steps=4)")
    x, velocity, path = some.x, torch.zeros_like(some.x), []
    for number in range(4):
        path += [x] if number else []
        ahead = clipped(x + EPS / 4 * velocity, some)
        path.append(ahead)
        velocity = added(velocity, slope(some, ahead))
        x = clipped(x + EPS / 4 * velocity.sign(), some)
    path.append(x)
    assert len(seen) == len(path) == 8
    assert max(float((a - b).abs().max()) for a, b in zip(seen, path, strict=True)) < 1e-12
    assert float((path[2] - path[1]).abs().max()) > 1e-3  # it does look elsewhere


def test_the_look_ahead_of_a_ball_is_as_long_as_the_step_times_the_velocity():
    """For a gradient of equal entries the length is size · μ · mean|v|, in budgets, in every norm."""
    net = nn.Linear(4, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -1, 1, 1], [-1, 1, -1, -1]]))
    some = Case(net, torch.full((1, 4), 0.5, dtype=DTYPE), torch.zeros(1, dtype=torch.int64))
    for budget in (st.Linf(EPS), st.L2(EPS)):
        asked = walk(some, "ni-fgsm(steps=5)", budget, "margin")
        step, ahead = asked[1], asked[2]
        assert budget.gauge(step - some.x).tolist() == pytest.approx([1 / 5])
        assert budget.gauge(ahead - step).tolist() == pytest.approx([1 / 5])  # v = ∇/mean|∇|: mean|v| = 1


def test_scales_average_gradients_of_the_copies():
    some = case("series K=3")
    seen = walk(some, "si-fgsm(steps=3, scales=3)")
    x, velocity, path = some.x, torch.zeros_like(some.x), []
    for _ in range(3):
        path += [x, x / 2, x / 4]
        mean = sum(slope(some, x / 2**i) / 2**i for i in range(3)) / 3
        velocity = added(velocity, mean)
        x = clipped(x + EPS / 3 * velocity.sign(), some)
    path.append(x)
    assert len(seen) == len(path)
    assert max(float((a - b).abs().max()) for a, b in zip(seen, path, strict=True)) < 1e-12


def test_variance_is_the_neighbours_mean_less_the_points_own():
    some = case("series K=3")
    seen = walk(some, "vmi-fgsm(steps=4, variance=5)")
    x, velocity, variance, asked = some.x, torch.zeros_like(some.x), torch.zeros_like(some.x), iter(seen)
    for number in range(4):
        assert float((next(asked) - x).abs().max()) < 1e-12
        own = slope(some, x)
        velocity = added(velocity, own + variance)
        if number < 3:
            around = next(asked).reshape(6, 5, *x.shape[1:])
            reach = (around - x[:, None]).abs()
            assert 1.4 * EPS < float(reach.max()) <= 1.5 * EPS
            variance = torch.stack([slope(some, around[:, i]) for i in range(5)]).mean(0) - own
        x = clipped(x + EPS / 4 * velocity.sign(), some)
    assert float((next(asked) - x).abs().max()) < 1e-12
    assert next(asked, None) is None


def test_neighbours_are_uniform_and_frozen_features_stay():
    some = case("series K=3", count=4)
    mask = torch.arange(12).reshape(3, 4) > 3
    for budget, size in ((st.Linf(EPS), 12), (st.L2(EPS), 12)):
        asked = walk(some, "vmi-fgsm(steps=2, variance=800)", st.Masked(budget, mask), "margin")
        around = torch.cat([part.reshape(4, -1, 3, 4) for part in asked[1:-2]], 1) - some.x[:, None]
        assert around.shape[1] == 800
        assert (around[:, :, 0] == 0).all()
        moved = around[:, :, 1:].flatten(2) / (1.5 * EPS)
        length = moved.abs().amax(2) if size == 12 and isinstance(budget, st.Linf) else moved.norm(dim=2)
        assert float(length.max()) <= 1
        assert float(length.mean()) == pytest.approx(8 / 9, abs=0.02)  # E = d/(d + 1)
        assert float(moved.mean(1).abs().max()) < 0.1


def test_a_linear_model_has_no_variance_and_one_direction_at_all_scales():
    net = nn.Linear(5, 2).double()
    some = Case(net, torch.rand(3, 5, dtype=DTYPE), torch.zeros(3, dtype=torch.int64))
    plain = walk(some, "mi-fgsm(steps=4)", objective="margin")[-1]
    for text in ("vmi-fgsm(steps=4, variance=3)", "si-fgsm(steps=4)", "ni-fgsm(steps=4)"):
        assert torch.allclose(walk(some, text, objective="margin")[-1], plain, atol=1e-10)


def test_smoothing_is_the_gaussian_of_the_authors():
    image = torch.rand(2, 3, 20, 17, dtype=DTYPE)
    line = torch.distributions.Normal(0, 1).log_prob(torch.linspace(-3, 3, 15, dtype=DTYPE)).exp()
    kernel = torch.outer(line, line) / line.sum() ** 2
    wanted = nn.functional.conv2d(image, kernel.expand(3, 1, 15, 15), padding=7, groups=3)
    assert torch.allclose(smoothed(image, 15), wanted, atol=1e-14)
    variance = (line / line.sum() * torch.arange(-7, 8).double().square()).sum()
    assert math.sqrt(variance) == pytest.approx(7 / 3, rel=0.02)  # in pixels, and not 3
    assert torch.allclose(smoothed(torch.ones(1, 1, 9, 9), 3)[0, 0, 1:-1, 1:-1], torch.ones(7, 7))


def test_translation_invariance_of_a_linear_model_moves_along_the_smoothed_weights():
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 6, 2)).double()
    some = Case(net, torch.full((1, 2, 6, 6), 0.5, dtype=DTYPE), torch.zeros(1, dtype=torch.int64))
    weights = (net[1].weight[1] - net[1].weight[0]).detach().reshape(1, 2, 6, 6)
    last = walk(some, "ti-fgsm(steps=3, kernel=5)", objective="margin")[-1]
    assert torch.allclose(last, some.x + EPS * smoothed(weights, 5).sign(), atol=1e-12)
    assert not torch.equal(smoothed(weights, 5).sign(), weights.sign())


@pytest.mark.parametrize(("length", "size", "start"), [(10, 9, 1), (10, 7, 0), (7, 5, 2), (5, 5, 0), (6, 1, 3)])
def test_resizing_is_interpolation_and_padding(length, size, start):
    image = torch.rand(1, 2, length, length, dtype=DTYPE)
    small = nn.functional.interpolate(image, size=[size, size], mode="bilinear", align_corners=False)
    wanted = nn.functional.pad(small, [start, length - size - start] * 2)
    matrix = resizing(length, torch.tensor([float(size)]), torch.tensor([float(start)]))
    assert torch.allclose(matrix @ image @ matrix.mT, wanted, atol=1e-12)


def test_diverse_inputs_are_drawn_for_each_example_and_step():
    some = case("image K=10", count=6)
    several = Case(some.network, some.x[:1].expand(400, -1, -1, -1).clone(), some.y[:1].expand(400))
    asked = walk(several, "di-fgsm(steps=1, resize=0.5)")
    copies, itself = asked[0], asked[1]
    changed = (copies != itself).flatten(1).any(1)
    assert torch.equal(itself, several.x)
    assert float(changed.double().mean()) == pytest.approx(0.5, abs=0.08)
    # Sizes 2, 3, 4 of 5, so that at least a row and a column are empty; every place occurs.
    empty = (copies[changed] == 0).all(1).all(2).sum(1)
    assert set(empty.tolist()) == {1, 2, 3}
    assert (copies[changed][:, 0] != 0).any(0).all()
    again = walk(several.rows([7]), "di-fgsm(steps=1, resize=0.5)")  # example 0 of its own batch
    assert torch.allclose(again[0][0], copies[0], atol=1e-12)


def test_the_gradient_through_a_copy_is_that_of_the_composition():
    """On w·V x the gradient is Vᵀ w."""
    weights = torch.rand(2, 6, 6, dtype=DTYPE)
    model = st.Model(lambda x: torch.stack([0 * x.flatten(1).sum(1), (x * weights).flatten(1).sum(1)], 1))
    views, seen = Views(diversity=1.0, resize=0.5), []
    x, y = torch.rand(1, 2, 6, 6, dtype=DTYPE), torch.zeros(1, dtype=torch.int64)

    class Spy:
        def answer(self, ask, question):
            seen.append(question)
            return ask(question)

    spied = model.asked_by(Spy()).asked_by(views)
    found = spied.evaluate(x, y, st.Targeted("margin", 1), need=st.models.contract.Need.GRADIENT)
    basis = torch.eye(72, dtype=DTYPE).reshape(72, 2, 6, 6)
    moved = torch.stack([(seen[0].view(each[None]) * weights).sum() for each in basis]).reshape(1, 2, 6, 6)
    assert torch.allclose(found.gradient, moved, atol=1e-12)
    assert (found.forwards, found.backwards) == (2, 1)
    assert float(found.value) == pytest.approx(float((x * weights).sum()))


def test_parts_combine_and_are_counted():
    some = case("image K=10", count=2)
    text = "mi-fgsm(steps=3, nesterov=True, variance=2, diversity=0.5, kernel=3, scales=2)"
    result = some.attack(text, st.Linf(1e-6), drop_solved=False)
    climbs = 3 + 2 * 2  # gradients at the look-aheads, and at two neighbours of two of them
    assert result.backwards.tolist() == [2 * climbs] * 2
    assert result.forwards.tolist() == [3 * climbs + 2 + 1] * 2


@pytest.mark.parametrize(
    "text",
    [
        "mi-fgsm(steps=-1)", "ni-fgsm(momentum=-1)", "vmi-fgsm(variance=-1)",
        "vmi-fgsm(radius=0)", "di-fgsm(diversity=1.5)", "di-fgsm(resize=0)", "ti-fgsm(kernel=4)", "ti-fgsm(kernel=0)",
        "si-fgsm(scales=0)",
    ],
)  # fmt: skip
def test_parameters_outside_their_range_are_refused(text):
    with pytest.raises(st.UsageError, match="is not allowed"):
        case().attack(text)


@pytest.mark.parametrize("text", ["ti-fgsm", "di-fgsm", "mi-fgsm(kernel=3)", "spatial"])
def test_images_are_needed_where_images_are_changed(text):
    with pytest.raises(st.UsageError, match=r"images \[N, C, H, W\].*\(6, 3, 4\)"):
        case("series K=3").attack(text, st.Linf(EPS))


def test_a_search_of_parts_is_made_by_hand_too():
    search = MomentumAscent(gradients=3, size=0.5, momentum=0.9, nesterov=True)
    assert search.steps == 5
    assert case().attack(Recipe(search=search), st.Linf(EPS)).point.shape == (6, 3, 4)


# ---- surrogates ----


def linear(w: list[float], b: float = 0.0) -> nn.Linear:
    """f = (w·x + b, 0)."""
    net = nn.Linear(len(w), 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([w, [0.0] * len(w)]))
        net.bias.copy_(torch.tensor([b, 0.0]))
    return net


def test_points_are_those_of_the_surrogate_and_the_verdict_is_the_targets():
    x, y = torch.full((3, 2), 0.5, dtype=DTYPE), torch.zeros(3, dtype=torch.int64)
    x[1, 1] = 0.9
    target, other = Watched(linear([1.0, 1.0], -0.9)), Watched(linear([1.0, -0.2], -0.2))
    result = st.attack("bim(steps=4, step=1/4)", target, x, y, st.Linf(EPS), surrogate=st.Model(other))
    # The surrogate falls towards (−, +): on the target these moves cancel; only x wrong already could be won.
    assert torch.allclose(result.point[0], torch.tensor([0.4, 0.6], dtype=DTYPE)) or not result.won[0]
    assert [len(batch) for batch in target.asked] == [3, 3]
    assert len(other.asked) == 5
    assert result.forwards.tolist() == [7] * 3
    assert result.backwards.tolist() == [4] * 3
    with torch.no_grad():
        assert torch.equal(result.outputs, target.inner(result.point))
    assert not result.won.any()
    assert (result.status == st.Status.EXHAUSTED).all()
    assert "surrogate" in result.notes[-1]


def test_a_transferred_point_goes_to_the_end_of_the_budget():
    """The surrogate breaks at a tenth of ε, the target only at nine tenths: stopping early would not transfer."""
    x, y = torch.full((2, 2), 0.5, dtype=DTYPE), torch.zeros(2, dtype=torch.int64)
    near, far = linear([1.0, 1.0], -1 + 2 * 0.1 * EPS), linear([1.0, 1.0], -1 + 2 * 0.9 * EPS)
    result = st.attack("bim(steps=10, step=1/10)", far, x, y, st.Linf(EPS), surrogate=near)
    assert result.won.all()
    assert torch.allclose(result.point, x - EPS)
    assert result.forwards.tolist() == [12, 12]
    assert torch.allclose(result.radius, torch.full((2,), EPS, dtype=DTYPE))


def test_nothing_ends_better_than_it_began():
    x, y = torch.full((2, 2), 0.5, dtype=DTYPE), torch.zeros(2, dtype=torch.int64)
    wrong, mirrored = linear([1.0, 1.0], -1.01), linear([-1.0, -1.0], 1.5)
    result = st.attack("fgsm", wrong, x, y, st.Linf(EPS), surrogate=mirrored)
    assert result.won.all()
    assert torch.equal(result.point, x)


def test_a_blind_surrogate_is_said():
    x, y = torch.full((2, 2), 0.5, dtype=DTYPE), torch.zeros(2, dtype=torch.int64)
    result = st.attack("bim", linear([1.0, 1.0]), x, y, st.Linf(EPS), surrogate=linear([0.0, 0.0], 1.0))
    assert (result.status == st.Status.ZERO_GRADIENT).all()
    sick = st.attack(
        "bim", lambda p: linear([1.0, 1.0])(p) * math.nan, x, y, st.Linf(EPS), surrogate=linear([1.0, 1.0])
    )
    assert (sick.status == st.Status.NONFINITE).all()
    assert not sick.won.any()
    assert (
        len(st.attack("bim", linear([1.0, 1.0]), x[:0], y[:0], st.Linf(EPS), surrogate=linear([1.0, 1.0])).point) == 0
    )


def test_the_own_model_as_surrogate_is_the_attack_itself():
    some = case("image K=10")
    plain = some.attack("pgd(steps=5)", st.Linf(EPS), drop_solved=False, seed=3)
    by_itself = some.attack("pgd(steps=5)", st.Linf(EPS), surrogate=some.network, seed=3)
    assert torch.equal(plain.won, by_itself.won)
    right = some.margin(some.x) < 0
    assert torch.equal(plain.point[right], by_itself.point[right])


@pytest.mark.parametrize("text", ["fmn(steps=3)", "fab(steps=3)", "cw(steps=3)", "deepfool", "bisection"])
def test_the_smallest_success_on_a_surrogate_is_no_point_to_transfer(text):
    """It lies on the surrogate's boundary, whatever the budget."""
    some = case("image K=10")
    with pytest.raises(st.UsageError, match=r"smallest perturbation.*mi-fgsm, pgd"):
        some.attack(text, st.L2(EPS), surrogate=some.network)


def test_several_surrogates_are_one_ensemble():
    some, others = case("image K=10"), [case("image K=10", seed=seed).network for seed in (5, 6)]
    several = some.attack("bim", st.Linf(EPS), surrogate=others)
    fused = some.attack("bim", st.Linf(EPS), surrogate=st.ensemble(others))
    assert torch.equal(several.point, fused.point)


def test_points_of_a_surrogate_transfer_where_noise_does_not():
    """On two networks that learnt the same task from other weights and other examples."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = (torch.as_tensor(part) for part in datasets.load_digits(return_X_y=True))
    x, y = (x / 16).float(), y.long()

    def trained(seed: int, rows: slice) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
            steps = torch.optim.Adam(net.parameters(), 0.01)
            for _ in range(120):
                steps.zero_grad()
                nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
                steps.step()
        return net.eval()

    target, other = trained(0, slice(0, 700)), trained(1, slice(700, 1400))
    held = (x[1400:1600], y[1400:1600])
    rate = {
        text: float(st.attack(text, target, *held, st.Linf(0.15), surrogate=other).won.double().mean())
        for text in ("noise(points=1)", "bim", "mi-fgsm", "vmi-fgsm(steps=5, variance=5)")
    }
    clean = float((target(held[0]).argmax(1) != held[1]).double().mean())
    assert rate["noise(points=1)"] < clean + 0.1
    assert min(rate["bim"], rate["mi-fgsm"], rate["vmi-fgsm(steps=5, variance=5)"]) > clean + 0.3


# ---- ensembles ----


def test_an_ensemble_of_linear_models_is_the_linear_model_of_the_mean_weights():
    first, second = linear([1.0, -2.0], 0.3), linear([3.0, 1.0], -0.1)
    x, y = torch.rand(4, 2, dtype=DTYPE), torch.zeros(4, dtype=torch.int64)
    mean = linear([0.75 * 1 + 0.25 * 3, 0.75 * -2 + 0.25 * 1], 0.75 * 0.3 - 0.25 * 0.1)
    fused = st.ensemble([first, st.Model(second)], weights=[3, 1])
    assert torch.allclose(fused.logits(x), mean(x), atol=1e-12)
    point = st.fgsm(fused, x, y, st.L2(0.05), objective="margin")
    assert torch.allclose(point, st.fgsm(mean, x, y, st.L2(0.05), objective="margin"))


def test_fused_probabilities_are_the_mean_of_the_members():
    some, other = case("image K=10"), case("image K=10", seed=4)
    fused = st.ensemble([some.network, other.network], [1, 3], fuse="probabilities")
    wanted = 0.25 * some.network(some.x).softmax(1) + 0.75 * other.network(some.x).softmax(1)
    assert torch.allclose(fused.logits(some.x).softmax(1), wanted, atol=1e-12)
    far = st.ensemble([lambda x: 1e4 * some.network(x), other.network], fuse="probabilities")
    assert torch.isfinite(far.logits(some.x)).all()
    soft = st.Model(nn.Sequential(some.network, nn.Softmax(1)))
    soft = soft.with_facts(st.models.contract.Facts(outputs="probabilities"))
    assert torch.allclose(
        st.ensemble([soft, other.network], fuse="probabilities").logits(some.x).softmax(1),
        (some.network(some.x).softmax(1) + other.network(some.x).softmax(1)) / 2,
    )


def test_members_are_handed_back_as_they_were():
    members = [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train() for _ in range(2)]
    before = [{name: value.clone() for name, value in member.state_dict().items()} for member in members]
    x, y = torch.rand(5, 3), torch.zeros(5, dtype=torch.int64)
    st.attack("bim", st.ensemble(members), x, y, st.Linf(0.1), drop_solved=False)
    for member, kept in zip(members, before, strict=True):
        assert all(torch.equal(kept[name], value) for name, value in member.state_dict().items())
        assert all(parameter.requires_grad and parameter.grad is None for parameter in member.parameters())


def test_members_may_differ_in_precision():
    half, full = linear([1.0, 2.0]).bfloat16(), linear([1.0, 2.0]).float()
    found = st.ensemble([half, full]).logits(torch.tensor([[0.5, 0.25]]))
    assert torch.allclose(found, torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize(
    ("models", "options", "says"),
    [
        ([], {}, "no model"),
        ([linear([1.0])], {"fuse": "votes"}, "logits"),
        ([linear([1.0])], {"weights": [1, 2]}, "one number of at least 0"),
        ([linear([1.0])], {"weights": [0]}, "not all 0"),
        ([st.expected(linear([1.0]), 2)], {}, "wrap the ensemble instead"),
        ([st.Model(linear([1.0])), st.Model(linear([1.0]), (-1, 1))], {}, "one box"),
    ],
)
def test_what_cannot_be_fused_is_refused(models, options, says):
    with pytest.raises(st.UsageError, match=says):
        st.ensemble(models, **options)
    with pytest.raises(st.ModelError, match="same classes"):
        st.ensemble([linear([1.0]), nn.Linear(1, 3).double()]).logits(torch.zeros(1, 1, dtype=DTYPE))


def test_a_stream_does_not_know_how_many_columns_went_together():
    """What an oracle draws for a neighbour is the same in a batch of one and of many."""
    some = case("image K=10", count=5)
    text = "mi-fgsm(steps=3, variance=200, diversity=0.5)"
    ids = torch.arange(5) + 3
    whole = some.attack(text, st.Linf(EPS), ids=ids, drop_solved=False)
    alone = some.rows([2]).attack(text, st.Linf(EPS), ids=ids[[2]], drop_solved=False)
    assert torch.allclose(alone.point, whole.point[[2]], atol=1e-8)
    assert Stream.of(0, ids).keys.shape == (5,)
