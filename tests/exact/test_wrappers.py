"""Wrappers of the evaluation: expectation over randomness, straight-through layers, defences in front of a model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.models.contract import Need
from steepest.models.expected import Expected
from steepest.models.objectives import objective_of
from steepest.models.straight_through import through
from tests.conformance.cases import case, layers, line

DTYPE = torch.float64


class Restless(nn.Module):
    """f = (0, (w + σξ)·x), ξ new for every question."""

    def __init__(self, w: Tensor, sigma: float) -> None:
        super().__init__()
        self.w, self.sigma, self.asked = w, sigma, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        score = x @ (self.w + self.sigma * torch.randn(self.w.shape, dtype=self.w.dtype))
        return torch.stack([0 * score, score], 1)


W = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 0.2], dtype=DTYPE)
X = torch.full((1, 6), 0.5, dtype=DTYPE)
Y = torch.zeros(1, dtype=torch.int64)


def slope(draws: int, sigma: float = 5.0, repeats: int = 1) -> Tensor:
    """Gradients of the margin under `draws`, [repeats, d]."""
    model, ask = st.expected(Restless(W, sigma), draws), objective_of("margin")
    with model.borrowed(0):  # outside, each answer would put the generator back and draw the same again
        found = [model.evaluate(X, Y, ask, need=Need.GRADIENT) for _ in range(repeats)]
    assert all(each.forwards == each.backwards == draws for each in found)
    return torch.cat([each.gradient for each in found])


def test_the_mean_gradient_tends_to_the_true_one():
    cosines = [float(torch.cosine_similarity(slope(n)[0], W, 0)) for n in (1, 20, 400, 2000)]
    assert cosines[-1] > 0.99
    assert cosines[0] < 0.8
    few, many = (slope(n, repeats=100) - W for n in (4, 16))
    assert float(few.square().mean().sqrt()) == pytest.approx(5 / 2, rel=0.1)  # σ/√n
    assert float(many.square().mean().sqrt()) == pytest.approx(5 / 4, rel=0.1)


def test_outputs_value_and_goal_are_those_of_the_mean_logits():
    net = Restless(W, 1.0)
    model = st.expected(net, 7)
    torch.manual_seed(3)
    wanted = torch.stack([net(X) for _ in range(7)]).mean(0)
    torch.manual_seed(3)
    found = model.evaluate(X, Y, objective_of("margin"))
    assert torch.allclose(found.outputs, wanted, atol=1e-12)
    assert torch.allclose(found.value, wanted[:, 1] - wanted[:, 0])
    assert bool(found.won) == bool(wanted[0, 1] > wanted[0, 0])
    assert (found.forwards, found.backwards, found.gradient) == (7, 0, None)
    torch.manual_seed(3)
    assert torch.allclose(model.logits(X), wanted, atol=1e-12)


def test_one_draw_is_the_model_itself():
    some = case("image K=10")
    for text in ("pgd(steps=4)", "noise(points=4)"):
        plain = some.attack(text)
        once = st.attack(text, st.expected(some.network, 1), some.x, some.y, some.budget("linf"))
        assert torch.equal(plain.point, once.point)
        assert torch.equal(plain.forwards, once.forwards)
    with pytest.raises(st.UsageError, match="draws=0"):
        st.expected(some.network, 0)


def test_an_attack_on_the_expectation_finds_what_one_draw_misses():
    """w·x gains ε‖w‖₁ at most; a single noisy gradient points elsewhere, the mean of 200 to the corner."""
    best, gain = 0.1 * float(W.abs().sum()), {}
    for draws in (1, 200):
        model = st.expected(Restless(W, 2.0), draws)
        with model.borrowed(0):
            points = torch.cat([st.fgsm(model, X, Y, st.Linf(0.1), objective="margin") for _ in range(40)])
        gain[draws] = float(((points - X) @ W).mean())
    assert gain[1] < 0.85 * best
    assert 0.95 * best < gain[200] <= best + 1e-12


def test_attacks_without_gradients_gain_too():
    """Each value is the mean of the draws, so the best of 30 points is the best more often."""
    gain = {}
    for draws in (1, 30):
        results = []
        for seed in range(8):
            net = Restless(W, 1.0)
            results.append(
                st.attack("noise(points=30)", st.expected(net, draws), X, Y, st.Linf(0.1), objective="margin",
                          drop_solved=False, seed=seed)
            )  # fmt: skip
            assert results[-1].forwards.tolist() == [net.asked]
            assert net.asked in (30 * draws, 31 * draws)  # at x too, where no point was a success
        gain[draws] = sum(float((result.point - X) @ W) for result in results) / 8
    assert gain[30] > 1.1 * gain[1]


def test_randomness_is_seeded_and_the_callers_is_put_back():
    model, before = st.expected(Restless(W, 1.0), 5), torch.get_rng_state()
    first = st.attack("bim(steps=3)", model, X, Y, st.Linf(0.1), seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(17)
    assert torch.equal(first.point, st.attack("bim(steps=3)", model, X, Y, st.Linf(0.1), seed=4).point)


def test_a_sick_draw_is_said():
    calls = iter(range(100))
    model = st.expected(lambda x: torch.stack([x.sum(1), -x.sum(1)], 1) * (math.nan if next(calls) % 3 == 2 else 1), 3)
    result = st.attack("bim(steps=2)", model, X, Y, st.Linf(0.1))
    assert result.status.tolist() == [st.Status.NONFINITE]
    assert not result.won.any()


def test_oracles_further_in_draw_anew():
    """Diverse inputs under an expectation: each draw sees another copy."""
    some, seen = case("image K=10", count=1), []

    class Copies:
        def answer(self, ask, question):
            seen.append(float(question.stream.uniform(question.step, (1,))))
            return ask(question)

    model = st.Model(some.network).asked_by(Copies()).asked_by(Expected(4))
    st.attack("bim(steps=1)", model, some.x, some.y, some.budget("linf"), drop_solved=False)
    assert len(seen) == 8 and len(set(seen)) == 8


def test_jacobians_are_averaged_too():
    net = Restless(W, 1.0)
    model, classes = st.expected(net, 3000), torch.tensor([[1, 0]])
    question = st.models.contract.Question(
        point=X, y=Y, objective=objective_of("margin"), goal=objective_of("margin").goal, need=Need.JACOBIAN,
        classes=classes,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = model.answer(question)
    assert found.jacobian.shape == (1, 2, 6)
    assert torch.allclose(found.jacobian[0, 0], W, atol=0.1)
    assert (found.jacobian[0, 1] == 0).all()
    assert (found.forwards, found.backwards) == (3000, 6000)


def test_an_audit_asks_as_the_handle_does():
    """Data of another shape, and a run's name for itself, keep how the model is asked."""
    some, asked = case("image K=10", count=12), []
    some.network.register_forward_hook(lambda net, args, answer: asked.append(len(answer)))
    model = st.Model(nn.Sequential(nn.Unflatten(1, (2, 5, 5)), some.network))
    model = st.expected(model.with_facts(st.models.contract.Facts(input_shape=(50,))), 3)
    run = st.audit(model, (some.x, some.y), st.Linf(0.1), preset="quick")
    thrice, _ = sum(asked), asked.clear()
    plain = st.audit(some.network, (some.x, some.y), st.Linf(0.1), preset="quick")
    assert run.robust_accuracy == plain.robust_accuracy
    assert thrice > 2.5 * sum(asked)  # nearly all of it: what looks at the bare network first asks once


# ---- straight through ----


class Quantised(nn.Module):
    """Rounds to multiples of 1/levels: no gradient at all."""

    def __init__(self, levels: int = 64) -> None:
        super().__init__()
        self.levels, self.asked = levels, 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return (x * self.levels).round() / self.levels


def guarded(seed: int = 0) -> tuple[nn.Sequential, nn.Module]:
    base = layers((2, 5, 5), 10, seed).double()
    return nn.Sequential(Quantised(), base), base


def test_bpda_recovers_the_attack_on_the_base_model():
    net, _ = guarded()
    some = case("image K=10", count=64)
    x = (some.x * 64).round() / 64
    with torch.no_grad():
        y = net(x).argmax(1)
    budget = st.Linf(0.25)
    base = st.attack("bim", net[1], x, y, budget).won.double().mean()
    blind = st.attack("bim", net, x, y, budget)
    seen = st.attack("bim", st.straight_through(net, {"0": None}), x, y, budget)
    assert float(base) > 0.6
    assert not blind.won.any()
    assert (blind.status == st.Status.ZERO_GRADIENT).all()
    assert float(seen.won.double().mean()) == pytest.approx(float(base), abs=0.05)
    with torch.no_grad():
        assert torch.equal(seen.won, net(seen.point).argmax(1) != y)


def test_answers_are_the_models_own_bit_by_bit():
    net, _ = guarded()
    some = case("image K=10")
    model = st.straight_through(net, {"0": None})
    plain = st.Model(net).evaluate(some.x, some.y, objective_of("margin"))
    for need in (Need.VALUE, Need.GRADIENT):
        assert torch.equal(model.evaluate(some.x, some.y, objective_of("margin"), need=need).outputs, plain.outputs)
    assert torch.equal(model.logits(some.x), plain.outputs)
    big = torch.tensor([1e9, -3.3, 1e-9])
    assert torch.equal(through(big, big + 0.1, "it"), big)


def test_the_derivative_is_the_substitutes():
    """Forward sign, backward tanh: ∇ = w ⊙ (1 − tanh²)."""

    class Sign(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sign()

    net = nn.Sequential(Sign(), nn.Linear(4, 2, bias=False)).double()
    x, y = torch.randn(3, 4, dtype=DTYPE), torch.zeros(3, dtype=torch.int64)
    model = st.straight_through(st.Model(net, None), {"0": torch.tanh})
    found = model.evaluate(x, y, objective_of("margin"), need=Need.GRADIENT)
    w = (net[1].weight[1] - net[1].weight[0]).detach()
    assert torch.allclose(found.gradient, w * (1 - torch.tanh(x) ** 2), atol=1e-12)
    assert torch.allclose(found.outputs, net(x).detach())
    assert model.facts.answers == "gradient"


def hooks(net: nn.Module) -> list[int]:
    return [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules()]


def test_the_module_is_as_it_was_also_after_an_exception():
    net, _ = guarded()
    some = case("image K=10")
    before = [name for name, _ in net.named_modules()]
    st.attack("bim(steps=2)", st.straight_through(net, {"0": None}), some.x, some.y, st.Linf(0.1))
    assert [name for name, _ in net.named_modules()] == before
    assert hooks(net) == [0] * len(hooks(net))

    class Failing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError

    broken = nn.Sequential(Quantised(), Failing())
    with pytest.raises(ZeroDivisionError):
        st.attack("bim(steps=2)", st.straight_through(broken, {"0": None}), some.x, some.y, st.Linf(0.1))
    assert hooks(broken) == [0] * 3


class Awkward(nn.Module):
    """Goes through numpy, in place, and is used twice."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy((x.numpy() * 8).round() / 8)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.step, self.flip, self.last = Awkward(), nn.ReLU(inplace=True), nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.flip(self.step(self.step(x) * 2) + 1))


def test_layers_outside_torch_in_place_and_used_twice():
    net, x = Twice(), torch.rand(3, 4, dtype=DTYPE)
    model = st.straight_through(net, {"step": None, "flip": None})
    found = model.evaluate(x, torch.zeros(3, dtype=torch.int64), objective_of("margin"), need=Need.GRADIENT)
    w = (net.last.weight[1] - net.last.weight[0]).detach()
    assert torch.allclose(found.gradient, (2 * w).expand(3, 4), atol=1e-12)
    with torch.no_grad():
        assert torch.equal(found.outputs, net(x))


def test_what_cannot_be_put_through_is_refused():
    net, _ = guarded()
    with pytest.raises(st.UsageError, match=r"did you mean '1\.0'"):
        st.straight_through(net, {"1.00": None})
    with pytest.raises(st.UsageError, match="no layer was named"):
        st.straight_through(net, {})
    with pytest.raises(st.UsageError, match=r"st\.defended"):
        st.straight_through(st.Model(lambda x: x), {"a": None})
    some = case("image K=10")
    with pytest.raises(st.ModelError, match=r"the layer '1\.0' answers"):
        st.attack("fgsm", st.straight_through(net, {"1.0": None}), some.x, some.y, st.Linf(0.1))
    assert hooks(net) == [0] * len(hooks(net))


# ---- defences in front ----


def test_a_defence_is_differentiated_as_asked():
    some = line([1.0, -2.0, 0.5])

    def double(x: Tensor) -> Tensor:
        return 2 * x - 0.5

    slopes = {}
    for backward in (None, "identity", lambda x: 5 * x):
        model = st.defended(some.network, double, backward)
        found = model.evaluate(some.x, some.y, objective_of("margin"), need=Need.GRADIENT)
        slopes[str(backward)[:8]] = found.gradient[0]
        with torch.no_grad():
            assert torch.allclose(found.outputs, some.network(double(some.x)))
    w = (some.network.weight[1] - some.network.weight[0]).detach()
    assert [float((each / w).mean()) for each in slopes.values()] == pytest.approx([2, 1, 5])


def test_a_defence_that_keeps_its_gradient_to_itself():
    some = case("image K=10", count=32)
    quantiser = Quantised()
    with torch.no_grad():
        y = some.network(quantiser(some.x)).argmax(1)
    blind = st.attack("bim", st.defended(some.network, quantiser), some.x, y, st.Linf(0.25))
    seen = st.attack("bim", st.defended(some.network, quantiser, "identity"), some.x, y, st.Linf(0.25))
    assert not blind.won.any()
    assert float(seen.won.double().mean()) > 0.6
    assert quantiser.training  # as it was


def test_defences_keep_what_the_handle_knows():
    probabilities = st.Model(lambda x: torch.stack([x[:, 0], 1 - x[:, 0]], 1), (0, 2))
    probabilities = probabilities.with_facts(st.models.contract.Facts(outputs="probabilities"))
    model = st.defended(probabilities, lambda x: x / 2)
    assert model.box.upper == 2
    assert torch.allclose(model.logits(torch.tensor([[1.0]])).exp(), torch.tensor([[0.5, 0.5]]))
    half = st.defended(nn.Linear(2, 2).bfloat16(), lambda x: x + 0 * (x.dtype == torch.float32))
    assert half.logits(torch.rand(1, 2)).dtype == torch.float32
    random = st.defended(st.expected(lambda x: torch.cat([x, -x], 1), 3), lambda x: x + 0.1 * torch.randn(x.shape))
    assert st.attack("bim(steps=2)", random, torch.full((1, 1), 0.5), Y, st.Linf(0.1)).forwards.tolist() == [9]
    with pytest.raises(st.UsageError, match="backward='none'"):
        st.defended(probabilities, lambda x: x, backward="none")
    with pytest.raises(st.ModelError, match="the defence answers"):
        st.attack("fgsm", st.defended(lambda x: torch.cat([x, -x], 1), lambda x: x[:, :1], "identity"),
                  torch.full((1, 2), 0.5), Y, st.Linf(0.1))  # fmt: skip
