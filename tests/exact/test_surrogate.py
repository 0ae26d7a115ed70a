"""The surrogate answers as its model does, bit by bit, and its gradient passes through what has none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import steepest as st
from steepest.models.contract import Evaluation, Need
from steepest.models.objectives import Margin
from steepest.models.surrogate import Obstacle, found_obstacles
from tests.files.model_material import convolution

EPSILON = 0.1


@cache
def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    return (images / 16).float(), labels.long()


def trained(net: nn.Sequential, steps: int = 150) -> nn.Sequential:
    images, labels = digits()
    adam = torch.optim.Adam([each for each in net.parameters() if each.requires_grad], 0.01)
    for _ in range(steps):
        adam.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        adam.step()
    return net.eval()


class Layer(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@cache
def base() -> nn.Sequential:
    torch.manual_seed(0)
    return trained(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))


def sharpened(function: Callable[[Tensor], Tensor]) -> nn.Sequential:
    """The network with a saturating activation, whose last layer is trained again."""
    net = nn.Sequential(nn.Linear(64, 64), Layer(function), nn.Linear(64, 10))
    net[0].load_state_dict(base()[0].state_dict())
    net[0].requires_grad_(False)
    torch.manual_seed(1)
    return trained(net)


def asked(model: st.Model, x: Tensor, y: Tensor, need: Need = Need.GRADIENT) -> Evaluation:
    return model.evaluate(x, y, Margin(), need=need)


def broken(text: str, model: object, count: int = 100, **options: object) -> float:
    x, y = (part[:count] for part in digits())
    return float(st.attack(text, model, x, y, st.Linf(EPSILON), objective="margin", **options).won.double().mean())


def same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


class Negated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        ctx.mark_non_differentiable()
        ctx.set_materialize_grads(False)
        return z.clone()

    @staticmethod
    def backward(ctx, slope):
        return -slope


class Random(Negated):
    @staticmethod
    def forward(z):
        return 1.0 * z

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.size = inputs[0].shape

    @staticmethod
    def backward(ctx, slope):
        return torch.randn_like(slope)


class Through(Negated):
    """A quantiser of NumPy's, which no graph can follow, with a backward that leads astray."""

    @staticmethod
    def forward(ctx, z):
        return torch.from_numpy((z.numpy() * 16).round() / 16)


class Context(Negated):
    """A forward that cannot be run without the real context: its own backward stands."""

    @staticmethod
    def forward(ctx, z):
        ctx.metadata.clear()
        return z.clone()

    @staticmethod
    def backward(ctx, slope):
        return slope


def without_graph(x: Tensor) -> Tensor:
    with torch.no_grad():
        return base()(x)


def in_inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        h = base()[:2](x)
    return base()[2](h.clone())


def hooked(x: Tensor) -> Tensor:
    h = 1 * x
    if h.requires_grad:
        h.register_hook(torch.neg)
    return base()(h)


def jpeg(x: Tensor) -> Tensor:
    n = torch.arange(8.0)
    waves = torch.cos(torch.pi * (2 * n[None] + 1) * n[:, None] / 16) / 2
    waves[0] /= 2**0.5
    coefficients = waves @ x.reshape(-1, 8, 8) @ waves.T
    steps = 0.1 * (1 + n[:, None] + n[None]) / 4
    return base()((waves.T @ (torch.round(coefficients / steps) * steps) @ waves).flatten(1))


def thermometer(x: Tensor) -> Tensor:
    return base()(torch.stack([(x > (i + 0.5) / 8).float() for i in range(8)]).mean(0))


def coarse(levels: int) -> Callable[[Tensor], Tensor]:
    return lambda x: base()(torch.round(x * levels) / levels)


ZOO: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "quantised to 6": (coarse(6), "round no gradient"),
    "quantised to 8": (coarse(8), "round no gradient"),
    "quantised to 16": (coarse(16), "round no gradient"),
    "floor of a quotient": (lambda x: base()((x + 0.03) // 0.06 * 0.06), "floordiv no gradient"),
    "whole numbers": (lambda x: base()((x * 16 + 0.5).long().float() / 16), "long no gradient"),
    "quantised type": (
        lambda x: base()(torch.quantize_per_tensor(x, 1 / 16, 0, torch.quint8).dequantize()),
        "quantize_per_tensor no gradient",
    ),
    "in place": (lambda x: base()((x * 8).round_().div_(8).clamp_(0, 1)), "round no gradient"),
    "straight-through": (lambda x: base()(x + ((8 * x).round() / 8 - x).detach()), "detach graph cut"),
    "thermometer": (thermometer, "gt no gradient"),
    "where": (lambda x: base()(sum(torch.where(x > (i + 0.5) / 8, 0.125, 0.0) for i in range(8))), "gt no gradient"),
    "detach": (lambda x: base()(x.detach()), "detach graph cut"),
    "data": (lambda x: base()(x.data), "data graph cut"),
    "no_grad": (without_graph, "no_grad graph cut"),
    "inference": (in_inference, "no_grad graph cut"),
    "argmax": (lambda x: F.one_hot(base()(x).argmax(1), 10).float(), "argmax no gradient"),
    "scatter": (lambda x: torch.zeros(len(x), 10).scatter_(1, base()(x).argmax(1, True), 1.0), "argmax no gradient"),
    "NaN": (lambda x: base()(x) + 0 * torch.sqrt(0 * x).sum(1, keepdim=True), ""),
    "JPEG": (jpeg, "round no gradient"),
    "negated": (lambda x: base()(Negated.apply(x)), "Negated custom backward"),
    "random backward": (lambda x: base()(Random.apply(x)), "Random custom backward"),
    "context": (lambda x: base()(Context.apply(x)), "Context custom backward"),
    "hook": (hooked, "register_hook custom backward"),
}
"""Defences in front of the network or behind it, with what is found there."""


@pytest.mark.parametrize("name", ZOO)
def test_a_defence_without_a_gradient_is_passed_as_if_it_were_not_there(name: str) -> None:
    network, obstacle = ZOO[name]
    x, y = (part[:100] for part in digits())
    model = st.Model(network)
    seen = st.surrogate(model)
    with torch.enable_grad():
        own = network(x.clone().requires_grad_()).detach()
    found = asked(seen, x, y)
    assert same_bits(found.outputs, own)
    assert same_bits(seen.logits(x), model.logits(x))
    assert found.finite.all() and (found.size > 0).all()
    assert broken("pgd(steps=10)", seen) > 0.9 * broken("pgd(steps=10)", base()) > 0.6
    met = {f"{each.name} {each.kind}" for each in found_obstacles(model, x)}
    assert obstacle in met if obstacle else not met


@pytest.mark.parametrize("name", ["quantised to 6", "NaN", "negated", "random backward", "hook"])
def test_their_own_gradient_leads_nowhere(name: str) -> None:
    """Else the law above would say nothing of the surrogate."""
    assert broken("bim(steps=10)", ZOO[name][0]) < 0.4 * broken("bim(steps=10)", base())


@pytest.mark.parametrize("steepness", [50, 200, 1000])
@pytest.mark.parametrize("bend", [F.hardtanh, torch.tanh, F.hardsigmoid, lambda z: z.clamp(-1, 1)])
def test_a_saturated_layer_says_in_which_direction_it_leaves(bend: Callable[[Tensor], Tensor], steepness: int) -> None:
    net = sharpened(lambda z: bend(steepness * z))
    x, y = (part[:100] for part in digits())
    seen = st.surrogate(net)
    found = asked(seen, x, y)
    assert same_bits(found.outputs, net(x).detach())
    assert (found.size > 0).all()
    own, through = broken("pgd(steps=10)", net), broken("pgd(steps=10)", seen)
    assert through > own + 0.2
    assert through > 0.6
    assert {(each.kind, each.module) for each in found_obstacles(net, x)} == {("saturates", "1")}


class Winners(nn.Module):
    """Keeps the k largest of each row."""

    def __init__(self, k: int, way: str) -> None:
        super().__init__()
        self.k, self.way = k, way

    def forward(self, h: Tensor) -> Tensor:
        best, where = h.topk(self.k, 1)
        if self.way == "compared":
            return h * (h >= best[:, -1:])
        return h * torch.zeros_like(h).scatter(1, where, 1.0)


@pytest.mark.parametrize("way", ["compared", "scattered"])
def test_winners_that_take_all_also_gain_by_who_wins(way: str) -> None:
    torch.manual_seed(0)
    net = trained(nn.Sequential(nn.Linear(64, 64), Winners(6, way), nn.Linear(64, 10)))
    x, y = (part[:100] for part in digits())
    assert same_bits(asked(st.surrogate(net), x, y).outputs, net(x).detach())
    assert broken("pgd(steps=20)", st.surrogate(net)) > broken("pgd(steps=20)", net) + 0.1


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 16), nn.Linear(16, 10)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x.reshape(-1, 8, 8))).mean(1))


class Branches(nn.Module):
    """Masks that no input decides, ties broken by maxima, norms and quotients: all of it honest."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.arange(64) % 3 > 0)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.where(self.mask, x, -x).masked_fill(~self.mask, 0.3).clamp(0, 1)
        h = h.reshape(-1, 32, 2).max(2)[0]
        return self.head(h / h.norm(dim=1, keepdim=True)) + (h**2).sum(1, keepdim=True).sqrt().log()


def honest(name: str) -> nn.Module:
    torch.manual_seed(0)
    smooth: list[nn.Module] = [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid(), nn.ReLU6(), nn.ReLU(True)]
    mlp = dict(zip([*"relu gelu silu tanh sigmoid relu6".split(), "in place"], smooth, strict=True))
    if name in mlp:
        return nn.Sequential(nn.Linear(64, 32), mlp[name], nn.Linear(32, 10)).eval()
    if name == "softmax":
        return nn.Sequential(nn.Linear(64, 10), nn.LogSoftmax(1)).eval()
    if name == "attention":
        return Attention().eval()
    if name == "branches":
        return Branches().eval()
    layers = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(6, 10)).eval()
    return torch.fx.symbolic_trace(net) if name == "traced" else net


HONEST = [*"relu gelu silu tanh sigmoid relu6 softmax attention branches convolution traced".split(), "in place"]


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_network_keeps_its_own_gradient(name: str) -> None:
    net, (x, y) = honest(name), (part[:16] for part in digits())
    model = st.Model(net)
    own, seen = asked(model, x, y), asked(st.surrogate(model), x, y)
    assert same_bits(own.outputs, seen.outputs)
    assert torch.equal(own.gradient, seen.gradient)
    assert found_obstacles(model, x) == ()


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_files_are_seen_through_as_well(suffix: str, tmp_path: Path) -> None:
    """Once as they are, and once with a rounding inside, which the program holds as an operation."""
    x = torch.rand(4, 3, 4, 4)
    if suffix == "onnx":
        path = convolution(tmp_path / "net.onnx")
        x = torch.rand(4, *st.load(path).facts.input_shape)
        model = st.load(path)
        own, seen = asked(model, x, torch.zeros(4).long()), asked(st.surrogate(model), x, torch.zeros(4).long())
        assert same_bits(own.outputs, seen.outputs) and torch.equal(own.gradient, seen.gradient)
        return
    for rounding in (False, True):
        inner = Layer(lambda z: (4 * z).round() / 4 if rounding else z.tanh())  # noqa: B023 — used at once
        net = nn.Sequential(inner, nn.Flatten(), nn.Linear(48, 3)).eval()
        path = tmp_path / f"{rounding}.pt2"
        torch.export.save(torch.export.export(net, (x,)), path)
        model = st.load(path)
        own, seen = asked(model, x, torch.zeros(4).long()), asked(st.surrogate(model), x, torch.zeros(4).long())
        assert same_bits(own.outputs, seen.outputs)
        assert torch.equal(own.gradient, seen.gradient) != rounding
        assert (own.size > 0).all() != rounding and (seen.size > 0).all()


def test_rows_do_not_depend_on_each_other() -> None:
    x, y = (part[:8] for part in digits())
    net = nn.Sequential(base()[0], Layer(lambda z: F.hardtanh(9 * z) + (z > 0.2)), base()[2])
    seen = st.surrogate(net)
    rows = torch.cat([asked(seen, x[i : i + 1], y[i : i + 1]).gradient for i in range(8)])
    assert torch.allclose(asked(seen, x, y).gradient, rows, rtol=1e-4, atol=1e-4)


def test_a_rounding_is_the_identity_and_a_mask_a_step_of_known_slope() -> None:
    def slope(function: Callable[[Tensor], Tensor], *values: float) -> list[float]:
        x = torch.tensor([values])
        model = st.surrogate(st.Model(lambda x: torch.cat([0 * x[:, :1], function(x).sum(1, keepdim=True)], 1), None))
        return asked(model, x, torch.tensor([0])).gradient[0].tolist()

    assert slope(torch.round, 0.3, 5.5) == [1, 1]
    assert slope(lambda x: 3 * x.floor() - x.detach(), 0.3, 5.5) == [2, 2]
    # w = 0.1·mean|x| = 0.2; slope of the soft step w/(w + |x|)²/2
    assert slope(lambda x: (x > 0).float(), 1.0, -3.0) == pytest.approx([0.1 / 1.2**2, 0.1 / 3.2**2])
    assert slope(lambda x: ~(x > 0) * 2.0, 1.0, -3.0) == pytest.approx([-0.2 / 1.2**2, -0.2 / 3.2**2])
    assert slope(lambda x: x * (x > 0), 1.0, -3.0) == pytest.approx([1 + 0.1 / 1.2**2, -0.3 / 3.2**2])
    assert slope(lambda x: torch.where(x > 0, 5.0, x), 1.0, -3.0) == pytest.approx([0.4 / 1.2**2, 1 + 0.8 / 3.2**2])
    # half of it is outside; w = mean|x| = 2, one beyond the end: ½·(2/(2 + 2))²
    assert slope(lambda x: x.clamp(-1, 1), 1.0, -3.0) == pytest.approx([1, 0.5 / 4])
    assert slope(torch.sqrt, 0.0, 4.0) == [0, 0.25]


def test_nothing_stays_behind() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(64))
            self.last, self.fail = torch.zeros(1, 64), False

        def forward(self, x: Tensor) -> Tensor:
            self.last = 0.5 * self.last + x.detach()
            with torch.no_grad():
                self.mean.copy_(x.mean(0))
            if self.fail:
                raise KeyError("on purpose")
            return base()(Negated.apply(x - 0.1 * self.last.mean(0)))

    net, (x, y) = Keeping(), (part[:8] for part in digits())
    seen, own = st.surrogate(net), torch.autograd.Function.__dict__["apply"]
    for net.fail in (False, False, True):  # the second asks the graph of the first, if it is still there
        if net.fail:
            with pytest.raises(KeyError):
                asked(seen, x, y)
        else:
            asked(seen, x, y)
        assert torch.autograd.Function.__dict__["apply"] is own
        assert torch._C._len_torch_function_stack() == 0
        assert net.last.grad_fn is None and net.mean.grad_fn is None and not net.mean.requires_grad
    point = x.clone().requires_grad_()
    Negated.apply(point).sum().backward()
    assert torch.equal(point.grad, -torch.ones_like(x))
    found_obstacles(base(), x)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in base().modules())


def test_values_are_asked_of_the_model_alone() -> None:
    watched = []

    def network(x: Tensor) -> Tensor:
        watched.append(torch._C._len_torch_function_stack())
        return base()(x)

    x, y = (part[:4] for part in digits())
    seen = st.surrogate(network)
    seen.logits(x), asked(seen, x, y, Need.VALUE), asked(seen, x, y)
    assert watched == [0, 0, 1]


def test_oracles_and_borrowing_and_facts() -> None:
    noisy = Layer(lambda x: base()((8 * (x + 0.02 * torch.randn_like(x))).round() / 8))
    seen = st.surrogate(st.expected(noisy, draws=4))
    assert seen.facts.answers == "gradient" and seen.facts.source.endswith(", through its surrogate")
    assert "inner.function" not in dict(seen.network.named_modules())
    assert dict(seen.network.named_modules())["inner"] is noisy
    x, y = (part[:20] for part in digits())
    result = st.attack("pgd(steps=5)", seen, x, y, st.Linf(EPSILON))
    assert result.backwards.max() == 4 * 5 and result.won.double().mean() > 0.5
    again = st.attack("pgd(steps=5)", st.expected(st.surrogate(noisy), draws=4), x, y, st.Linf(EPSILON))
    assert torch.equal(result.point, again.point)
    assert [(each.name, each.kind) for each in found_obstacles(noisy, x)] == [
        ("randn_like", "random"),
        ("round", "no gradient"),
    ]
    deep = st.attack("deepfool", st.surrogate(coarse(16)), x, y, st.Linf(0.3))  # Jacobians pass as well
    assert deep.won.double().mean() > 0.8


def test_plain_functions_are_refused_and_what_leaves_torch_is_said() -> None:
    with pytest.raises(st.ModelError, match=r"st\.estimated"):
        st.surrogate(st.scores(lambda x: x))
    blind = st.Model(lambda x: base()(torch.from_numpy(x.detach().numpy().round(1))))
    x, y = (part[:4] for part in digits())
    assert found_obstacles(blind, x)[-1] == Obstacle(name="numpy", kind="graph cut", module="", count=1)
    with pytest.raises(st.ModelError, match="no gradient reaches"):
        asked(st.surrogate(blind), x, y)
    inside = st.surrogate(lambda x: base()(Through.apply(x)))
    assert (asked(inside, x, y).size > 0).all()


def test_a_clamp_whose_bound_is_a_tensor():
    bound = torch.tensor(0.5)
    model = st.surrogate(st.Model(lambda x: torch.stack([x.clamp(max=bound).sum(1), 1 - x.sum(1)], 1)))
    found = model.evaluate(torch.full((2, 3), 0.25), torch.tensor([0, 1]), Margin(), need=Need.GRADIENT)
    assert (found.gradient != 0).all()
