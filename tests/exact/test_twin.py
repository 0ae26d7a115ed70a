"""Twins that are searched in: they answer like the original, and nothing counts that the original does not repeat."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.recipes import ATTACKS
from steepest.models import prepare as preparing
from steepest.models.confirmed import Confirmed
from steepest.models.contract import Need
from steepest.models.folding import folded
from steepest.models.halving import halved
from steepest.models.inspection import inspected
from steepest.models.objectives import Margin
from steepest.models.prepare import ALIKE, CHANGES, GRAPH, SAME, TF32, prepare, prepared

NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


class Residual(nn.Module):
    """Two convolutions around a shortcut, with batch-norm and dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width, affine=False)
        self.drop = nn.Dropout2d(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.drop(self.conv2(torch.relu(self.norm1(self.conv1(x)))))))


def lived(network: nn.Module, *shape: int) -> nn.Module:
    """The network in evaluation mode with batch-norm that has seen data and has learnt something."""
    for part in network.modules():
        if isinstance(part, NORMS) and part.affine:
            nn.init.normal_(part.weight, 1.0, 0.3)
            nn.init.normal_(part.bias, 0.0, 0.3)
    for _ in range(5):
        network(torch.rand(32, *shape))
    return network.eval()


def residual() -> nn.Module:
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 5))
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), Residual(8), Residual(8))
    return lived(nn.Sequential(*body, *head), 3, 12, 12)


def dense() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 16, bias=False), nn.BatchNorm1d(16), nn.Dropout(), nn.ReLU(), nn.Linear(16, 4))
    return lived(net, 10)


def norms(network: nn.Module) -> int:
    return sum(isinstance(part, NORMS) for part in network.modules())


def agree(network: nn.Module, twin: nn.Module, *shape: int) -> None:
    """Outputs and input gradients agree up to rounding."""
    x = torch.rand(9, *shape)
    answers = [
        st.Model(each).evaluate(x, torch.zeros(9).long(), Margin(), need=Need.GRADIENT) for each in (network, twin)
    ]
    torch.testing.assert_close(answers[1].outputs, answers[0].outputs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answers[1].gradient, answers[0].gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("make", "shape"), [(residual, (3, 12, 12)), (dense, (10,))])
def test_a_folded_network_answers_as_the_original_which_stays_as_it_was(make, shape):
    network = make()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kinds = [type(part) for part in network.modules()]
    twin = folded(network)
    assert norms(network) > 0 and norms(twin) == 0
    assert not any(isinstance(part, nn.Dropout | nn.Dropout2d) for part in twin.modules())
    agree(network, twin, *shape)
    assert kinds == [type(part) for part in network.modules()]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_double_precision_is_folded_in_double_precision():
    network = residual().double()
    x = torch.rand(5, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(folded(network)(x), network(x), rtol=1e-12, atol=1e-12)


class Twice(nn.Module):
    """What a convolution answers goes to its batch-norm and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 3, 3, 1, 1), nn.BatchNorm2d(3), nn.Linear(108, 4)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.conv(x)
        return self.head((self.norm(seen) + seen).flatten(1))


class Again(Twice):
    """The convolution serves twice, once with batch-norm."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(self.conv(x))).flatten(1))


class Weighed(Twice):
    """The convolution's weights serve elsewhere too."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).flatten(1)) + self.conv.weight.sum()


class Own(nn.Conv2d):
    """A convolution of one's own, which a trace sees through."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Odd(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.conv = Own(3, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).flatten(1))


class Watched(Odd):
    """A hook stands between convolution and batch-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 1, 1)
        self.conv.register_forward_hook(lambda part, args, out: 3 * out)


@pytest.mark.parametrize("make", [Twice, Again, Weighed, Odd, Watched])
def test_what_serves_something_else_too_is_not_folded(make):
    torch.manual_seed(0)
    network = lived(make(), 3, 6, 6)
    twin = folded(network)
    assert twin is None or norms(twin) == 1
    agree(network, network if twin is None else twin, 3, 6, 6)


def test_a_batch_norm_without_statistics_is_not_folded():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval()
    assert folded(network) is None
    assert folded(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()) is None


def test_parts_of_a_network_that_cannot_be_traced_are_folded():
    class Choosing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = dense()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if bool((x >= 0).all()) else -self.inner(x)

    network = Choosing().eval()
    twin = folded(network)
    assert norms(twin) == 0
    agree(network, twin, 10)
    torch.testing.assert_close(twin(torch.full((2, 10), -0.5)), network(torch.full((2, 10), -0.5)))


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
@pytest.mark.filterwarnings("ignore")
def test_files_are_folded(tmp_path: Path, kind: str):
    torch.manual_seed(0)
    network = lived(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
            nn.Linear(96, 7), nn.BatchNorm1d(7), nn.Dropout(), nn.ReLU(), nn.Linear(7, 4),
        ), 3, 6, 6,
    )  # fmt: skip
    path, x = tmp_path / f"net.{kind}", torch.rand(3, 3, 6, 6)
    if kind == "pt2":
        torch.export.save(torch.export.export(network, (x,)), path)
    else:
        kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
        torch.onnx.export(network, (x,), str(path), dynamo=False, **kept)
    model = st.load(path, mean=0.4, std=0.3)
    twin = folded(model.network)
    calls = [str(node.target) for part in twin.modules() for node in getattr(part, "graph", _EMPTY).nodes]
    assert len(calls) > 5 and not any("batch_norm" in call for call in calls)
    batch = torch.rand(3, 3, 6, 6)
    torch.testing.assert_close(twin(batch), model.network(batch), rtol=1e-4, atol=1e-5)


_EMPTY = torch.fx.Graph()


def three(*, folding: bool = False) -> nn.Module:
    """Three layers of weights on pictures of 8 × 8."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16) if folding else nn.Identity(), nn.ReLU(), nn.Conv2d(16, 32, 3),
        nn.ReLU(), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    return lived(net, 3, 8, 8)


def seen(network: nn.Module, twin: nn.Module) -> float:
    """How much of what a step of 1/1024 changes in the answers of a network it changes in those of the twin."""
    # On this grid bfloat16 is exact, and the nearest other numbers that it knows are 1/256 away.
    x = torch.randint(64, 127, (300, 3, 8, 8), generator=torch.Generator().manual_seed(3)) / 128
    y = network(x).argmax(1)
    step = st.Model(network).evaluate(x, y, Margin(), need=Need.GRADIENT).gradient.sign() / 1024
    mine, other = (model.logits(x + step) - model.logits(x) for model in (st.Model(twin), st.Model(network)))
    return float((mine * other).sum() / other.square().sum())


def graph_of_onnx(path: Path, network: nn.Module) -> nn.Module:
    torch.onnx.export(network, (torch.rand(3, 3, 8, 8),), str(path), dynamo=False)
    return st.load(path, mean=(0.4, 0.5, 0.6), std=0.3).network


@pytest.mark.parametrize("kind", ["modules", "graph of modules", "onnx"])
@pytest.mark.filterwarnings("ignore")
def test_steps_below_the_grid_of_half_precision_are_seen(tmp_path: Path, kind: str):
    network = folded(three(folding=True)) if kind == "graph of modules" else three()
    if kind == "onnx":
        network = graph_of_onnx(tmp_path / "net.onnx", network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    twin = halved(network, torch.rand(3, 3, 8, 8))
    assert seen(network, twin) == pytest.approx(1, abs=0.15)
    assert seen(network, copy.deepcopy(network).to(torch.bfloat16)) < 0.1
    kinds = [each.dtype for each in twin.parameters() if each.ndim > 1]
    assert kinds == [torch.float32, torch.bfloat16, torch.float32]
    points = torch.rand(5, 3, 8, 8)
    torch.testing.assert_close(preparing.ChannelsLast(copy.deepcopy(twin))(points), twin(points), rtol=0.02, atol=0.02)
    again = network.state_dict()
    assert before.keys() == again.keys() and all(torch.equal(before[name], again[name]) for name in before)


class Ordered(nn.Module):
    """Layers that are asked in another order than they are named in, after a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.body, self.stem = nn.Linear(16, 4), nn.Linear(16, 16), nn.Linear(10, 16)
        self.inner, self.scale = nn.LayerNorm(16), nn.Parameter(torch.rand(16))
        self.register_buffer("mean", torch.full((10,), 0.4321))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(self.scale * self.inner(self.stem(x - self.mean)))))


def test_the_first_and_the_last_layer_are_those_that_are_asked_first_and_last():
    torch.manual_seed(0)
    network = Ordered().eval()
    twin = halved(network, torch.rand(2, 10))
    kept = {name.removeprefix("inner.") for name, each in twin.state_dict().items() if each.dtype == torch.float32}
    assert kept == {"mean", *(f"{part}.layer.{name}" for part in ("stem", "head") for name in ("weight", "bias"))}
    x = torch.rand(50, 10)
    assert (twin(x) - network(x)).abs().max() < 0.02 * network(x).abs().max()
    assert twin(x).dtype == torch.float32
    assert twin.inner.stem(x).dtype == torch.bfloat16


class InOrder(nn.Module):
    """Layers that are asked in the order given."""

    def __init__(self, *order: str) -> None:
        super().__init__()
        self.order = order
        self.a, self.b, self.c = nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            x = getattr(self, name)(x)
        return x


def test_without_layers_of_its_own_inside_a_network_is_not_halved():
    x = torch.rand(2, 10)
    assert halved(nn.Sequential(nn.Linear(10, 5), nn.LayerNorm(5), nn.Linear(5, 3)).eval(), x) is None
    assert halved(nn.Linear(10, 3).eval(), x) is None
    assert halved(nn.Flatten().eval(), x) is None
    for order in ("abac", "acbc", "aba"):
        assert halved(InOrder(*order).eval(), x) is None, order
    assert halved(InOrder(*"abbc").eval(), x)(x).dtype == torch.float32


@pytest.mark.usefixtures("eager")
def test_weights_shared_between_inside_and_outside_leave_answers_as_they_were():
    network = InOrder(*"abc").eval()
    network.b.weight = network.c.weight
    model, x, y = asked(network, 10)
    found = prepare(model, x, y, Margin())
    assert (found.model.logits(x) - network(x)).abs().max() < 0.02
    assert network.c.weight is network.b.weight and network.c.weight.dtype == torch.float32


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change that is like the original is kept, however fast it is."""
    monkeypatch.setattr(preparing, "_gain", lambda *given: 2.0)
    monkeypatch.setattr(preparing, "_computes_in_half", lambda device: True)
    monkeypatch.setattr(preparing, "WORTH", 0.0)


def asked(network: nn.Module, *shape: int) -> tuple[st.Model, Tensor, Tensor]:
    x = torch.rand(24, *shape)
    return inspected(st.Model(network), x), x, network(x).argmax(1).detach()


@pytest.mark.usefixtures("eager")
def test_a_twin_is_chosen_by_likeness_and_made_again_without_measuring():
    model, x, y = asked(residual(), 3, 12, 12)
    found = prepare(model, x, y, Margin())
    on_a_processor = [name for name in CHANGES if name not in (GRAPH, TF32)]
    assert list(found.changes) == on_a_processor and found.speedup == 8.0
    assert 0 < found.difference < 0.05
    kinds = [each.dtype for each in found.model.network.parameters() if each.ndim > 1]
    assert kinds == [torch.float32, *4 * [torch.bfloat16], torch.float32]
    again = prepared(model, found.changes, x)
    inner = [unconfirmed(each) for each in (found.model, again)]
    assert torch.equal(inner[0].logits(x), inner[1].logits(x))
    assert prepared(model, (), x) is model
    with pytest.raises(st.ModelError, match="'exact'"):
        prepared(model, ("something else",), x)


def unconfirmed(model: st.Model) -> st.Model:
    """The twin alone."""
    return st.Model(model.network, model.box, facts=model.facts)


@pytest.mark.usefixtures("eager")
def test_half_precision_that_changes_predictions_is_refused():
    torch.manual_seed(0)

    class Fine(nn.Module):
        """Classes differ in what half precision cannot hold."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            return 100 + 0.01 * self.inner(x)

    model, x, y = asked(Fine().eval(), 10)
    assert prepare(model, x, y, Margin()).changes == ()
    likeness = preparing.Likeness
    assert likeness(outputs=0.01, changed=0.0, slopes=0.99).within(ALIKE)
    assert not likeness(outputs=0.01, changed=0.2, slopes=0.99).within(ALIKE)
    assert not likeness(outputs=0.01, changed=0.0, slopes=0.5).within(ALIKE)
    assert not likeness(outputs=0.01, changed=0.0, slopes=0.99).within(SAME)


@pytest.mark.usefixtures("eager")
def test_a_substituted_derivative_is_not_lost_to_the_trace():
    """A trace passes hooks by: outputs agree, gradients do not."""

    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (4 * x).round() / 4

    network = nn.Sequential(Rounded(), *dense()).eval()
    through = st.straight_through(network, {"0": None})
    through.network.eval()
    model = inspected(through, torch.rand(24, 10))
    x = torch.rand(24, 10)
    y = network(x).argmax(1)
    found = prepare(model, x, y, Margin())
    mine, other = (each.evaluate(x, y, Margin(), need=Need.GRADIENT).gradient for each in (found.model, model))
    assert torch.nn.functional.cosine_similarity(mine, other).mean() > 0.9


class Drawing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(len(x), 1)


class Counting(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        self.times = getattr(self, "times", 0) + 1
        return super().forward(x) * self.times


class Mixing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


@pytest.mark.usefixtures("eager")
def test_what_is_not_a_function_of_the_point_alone_is_left_alone():
    x, y, margin = torch.rand(24, 10), torch.zeros(24).long(), Margin()
    for network in (
        Drawing(10, 3).eval(),
        Counting(10, 3).eval(),
        Mixing(10, 3).eval(),
        dense().train(),
        dense().forward,
    ):
        model = inspected(st.Model(network), x)
        assert prepare(model, x, y, margin).model is model
    model = inspected(st.Model(dense()), x)
    assert prepare(model, x, y, margin).changes
    assert prepare(model, x, y, margin, exact=True).model is model
    assert prepare(st.Model(dense()), x, y, margin).changes == ()  # not inspected
    assert prepare(st.expected(model, 2), x, y, margin).changes == ()
    assert prepare(model, x[:0], y[:0], margin).changes == ()


def test_small_questions_are_left_alone_and_slow_changes_refused(monkeypatch: pytest.MonkeyPatch):
    model, x, y = asked(dense(), 10)
    assert prepare(model, x, y, Margin()).changes == ()
    monkeypatch.setattr(preparing, "WORTH", 0.0)
    monkeypatch.setattr(preparing, "_gain", lambda *given: 1.04)
    assert prepare(model, x, y, Margin()).changes == ()


class Counted(nn.Module):
    """Counts the rows that it is asked about."""

    def __init__(self, inner) -> None:
        super().__init__()
        self.inner, self.rows = inner, 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.inner(x)


def lie(everywhere: bool):
    """A twin that calls class 1 everywhere, or where the first feature is large."""

    def answer(x: Tensor) -> Tensor:
        score = 1 + 0 * x.sum(1) if everywhere else torch.where(x[:, 0] > 0.5, 1.0, -1.0) + 0.1 * x.sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)

    return answer


def honest(x: Tensor) -> Tensor:
    """Class 1 where the sum is above 2.1; the twin that lies knows nothing of it."""
    score = x.sum(1) - 2.1
    return torch.stack([torch.zeros_like(score), score], 1)


CALLS = (
    "fgsm",
    "pgd(steps=6, restarts=2, start='uniform')",
    "apgd(steps=6)",
    "mi-fgsm(steps=3, scales=2)",
    "noise(points=7)",
    "square(queries=12)",
    "fmn(steps=4)",
    "nes(steps=2, samples=3)",
    "cw(steps=3, searches=1)",
    "vmi-fgsm(steps=2, variance=2)",
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_twin_that_lies_never_makes_a_success(call: str, everywhere: bool):
    torch.manual_seed(0)
    x = torch.rand(8, 4)
    x = x * (1.9 / x.sum(1, keepdim=True)).clamp_max(1)
    y = torch.zeros(8).long()
    original, twin = Counted(honest), Counted(lie(everywhere))
    model = st.Model(twin).asked_by(Confirmed(st.Model(original)))
    budget = st.L2(0.3) if call.startswith("cw") else st.Linf(0.1)
    problem = pose(model, x, y, budget)
    found = ATTACKS.build(call).run(problem)
    wrong = honest(found.point).argmax(1) != 0
    assert (wrong | ~found.won).all()
    assert torch.equal(found.won, wrong) or not everywhere
    assert int(found.forwards.sum()) == original.rows + twin.rows
    if everywhere:
        assert (found.unconfirmed > 0).any()
        assert (found.unconfirmed[~found.won] > 0).all()
    alone = [ATTACKS.build(call).run(problem.rows(torch.tensor([row]))) for row in range(3)]
    for name in ("won", "forwards", "unconfirmed"):
        assert torch.equal(getattr(found, name)[:3], torch.cat([getattr(each, name) for each in alone])), name


def test_an_honest_twin_wins_as_the_original_does():
    x, y = torch.full((6, 4), 0.5), torch.zeros(6).long()
    twin = st.Model(honest).asked_by(Confirmed(st.Model(honest)))
    for call in CALLS[:3]:
        pair = [ATTACKS.build(call).run(pose(model, x, y, st.Linf(0.1))) for model in (st.Model(honest), twin)]
        assert pair[0].won.all() and torch.equal(pair[0].point, pair[1].point)
        assert not pair[1].unconfirmed.any()
        assert torch.equal(pair[1].forwards - pair[0].forwards, pair[0].won.long())
    original, searched = Counted(honest), Counted(honest)
    curves = [
        st.curve(model, x, y, st.Linf(0.1))
        for model in (st.Model(honest), st.Model(searched).asked_by(Confirmed(st.Model(original))))
    ]
    assert torch.equal(curves[0].broken, curves[1].broken) and torch.equal(curves[0].radius, curves[1].radius)
    assert int(curves[1].forwards.sum()) == original.rows + searched.rows > int(curves[0].forwards.sum())
