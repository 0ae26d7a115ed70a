"""Recorded passes answer as the network does, though all replays share one memory. The recorder is a stand-in here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.recipes import ATTACKS
from steepest.models import captured as capturing
from steepest.models import prepare as preparing
from steepest.models.captured import Captured, Passes, filled
from steepest.models.contract import Answer, Evaluation, Goal, Need, Question
from steepest.models.goals import Misclassified
from steepest.models.inspection import inspected
from steepest.models.objectives import Margin, Targeted
from steepest.models.prepare import GRAPH, TF32, prepare, prepared


class Tape:
    """Passes as a GPU has them: static buffers, and one memory for all, in which the last forward lies."""

    def __init__(self, fails_below: int = 0) -> None:
        self.fails_below, self.recorded = fails_below, list[int]()
        self.replays = {"forward": 0, "backward": 0}
        self.memory: Tensor | None = None

    def __call__(self, network: nn.Module, point: Tensor, *, pool: Any, tf32: bool) -> Passes:
        if len(point) < self.fails_below:
            raise RuntimeError("out of memory")
        self.recorded.append(len(point))
        static, outputs = point.clone(), network(point).detach()
        cotangent, slope = torch.zeros_like(outputs), torch.full_like(point, torch.nan)

        def forward() -> None:
            self.replays["forward"] += 1
            self.memory = static.clone()
            outputs.copy_(network(static).detach())

        def backward() -> None:
            self.replays["backward"] += 1
            assert self.memory is not None and self.memory.shape == static.shape
            with torch.enable_grad():
                inner = self.memory.clone().requires_grad_()
                slope.copy_(torch.autograd.grad(network(inner), inner, cotangent)[0])

        return Passes(
            point=static, outputs=outputs, cotangent=cotangent, slope=slope, forward=forward, backward=backward
        )


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 5)).eval().requires_grad_(False)


MOST = 40


def taped(tape: Tape | None = None) -> tuple[nn.Module, Captured, Tape]:
    network, tape = smooth(), tape or Tape()
    return network, Captured(network, torch.rand(MOST, 6), record=tape), tape


def test_batches_are_filled_up_to_eighths_of_the_largest():
    for most in (1, 3, 8, 10, 40, 257):
        sizes = [filled(count, most) for count in range(1, most + 1)]
        assert all(count <= size <= most for count, size in enumerate(sizes, 1))
        assert len(set(sizes)) <= 8 and sizes[-1] == most


@pytest.mark.parametrize("count", [1, 4, 5, 6, 39, 40, 41])
def test_answers_gradients_and_jacobians_are_the_networks(count: int):
    network, twin, tape = taped()
    x = torch.rand(count, 6)
    y = network(x).argmax(1)
    aims = Targeted("margin", (y + 1) % 5)
    for objective in (Margin(), aims):
        own, other = (st.Model(each).evaluate(x, y, objective, need=Need.GRADIENT) for each in (network, twin))
        assert torch.equal(own.won, other.won)
        for mine, theirs in ((own.outputs, other.outputs), (own.gradient, other.gradient), (own.value, other.value)):
            torch.testing.assert_close(theirs, mine)
        twin(torch.rand(3, 6))
    question = Question(
        point=x,
        y=y,
        objective=Margin(),
        goal=Margin().goal,
        need=Need.JACOBIAN,
        classes=torch.stack([y, (y + 2) % 5, (y + 1) % 5], 1),
    )
    own, other = (st.Model(each).answer(question).jacobian for each in (network, twin))
    torch.testing.assert_close(other, own)
    assert (count > MOST) == (tape.recorded in ([MOST], [MOST, 5]) and tape.replays["backward"] == 0)


def test_two_forwards_before_their_backwards_do_not_disturb_each_other():
    network, twin, tape = taped()
    points = [torch.rand(7, 6).requires_grad_(), torch.rand(9, 6).requires_grad_(), torch.rand(7, 6).requires_grad_()]
    outputs = [twin(point) for point in points]
    for point, out in zip(points, outputs, strict=True):
        torch.testing.assert_close(out, network(point))
        for column in (0, 3):
            wanted = torch.autograd.grad(network(point)[:, column].sum(), point)[0]
            found = torch.autograd.grad(out[:, column].sum(), point, retain_graph=True)[0]
            torch.testing.assert_close(found, wanted)
    # Three forwards, and again those two that others had replaced in memory; the last had been replaced by them too.
    assert tape.replays == {"forward": 6, "backward": 6}


def test_replayed_answers_are_no_ones_memory():
    _, twin, _ = taped()
    first = twin(torch.zeros(5, 6))
    kept = first.clone()
    twin(torch.ones(5, 6))
    assert torch.equal(first, kept)


def test_other_shapes_types_and_sizes_are_asked_of_the_network():
    network, twin, tape = taped(Tape(fails_below=20))
    begun = dict(tape.replays)
    for x in (torch.rand(MOST + 1, 6), torch.rand(3, 6), torch.rand(0, 6)):
        torch.testing.assert_close(twin(x), network(x))
    assert tape.replays == begun and tape.recorded == [MOST]
    twin(torch.rand(3, 6))
    assert twin._passes[5] is None and len(twin._passes) == 2  # what failed once is not tried again
    twin.double()
    assert twin(torch.rand(4, 6).double()).dtype == torch.float64
    with pytest.raises(RuntimeError, match="memory"):
        Captured(network, torch.rand(10, 6), record=Tape(fails_below=20))


@pytest.mark.parametrize("call", ["pgd(steps=6)", "apgd(steps=6, targets=3)", "fab(steps=3)", "vmi-fgsm(steps=2)"])
def test_a_search_finds_the_same_where_examples_leave(call: str):
    network, twin, tape = taped()
    x = torch.rand(MOST, 6)
    y = network(x).argmax(1)
    own, other = (ATTACKS.build(call).run(pose(st.Model(each), x, y, st.Linf(0.3))) for each in (network, twin))
    assert torch.equal(own.won, other.won) and 0 < int(own.won.sum()) < MOST
    torch.testing.assert_close(other.point, own.point, atol=1e-5, rtol=1e-5)
    assert torch.equal(own.forwards, other.forwards) and torch.equal(own.backwards, other.backwards)
    assert tape.replays["backward"] > 0


def test_no_precision_that_was_allowed_in_a_recording_is_allowed_afterwards():
    def state() -> list[object]:
        switch = torch.backends.cuda.matmul
        newer = [getattr(each, "fp32_precision", None) for each in (switch, torch.backends.mkldnn.matmul)]
        return [torch.get_float32_matmul_precision(), switch.allow_tf32, torch.backends.cudnn.allow_tf32, *newer]

    before = state()
    with capturing._tf32(True):
        assert torch.backends.cuda.matmul.allow_tf32
    assert state() == before
    with pytest.raises(KeyError), capturing._tf32(True):
        raise KeyError
    assert state() == before
    with capturing._tf32(False):
        assert state() == before


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change that is like the original is kept, and recording is possible."""
    monkeypatch.setattr(preparing, "_gain", lambda *given: 2.0)
    monkeypatch.setattr(preparing, "WORTH", 0.0)
    monkeypatch.setitem(preparing.CHANGES, GRAPH, lambda net, x: Captured(net, x, record=Tape()))
    monkeypatch.setitem(preparing.CHANGES, TF32, lambda net, x: Captured(net.inner, x, tf32=True, record=Tape()))


@pytest.mark.usefixtures("on_a_gpu")
def test_recordings_are_chosen_and_made_again_and_an_audit_searches_in_them():
    network = smooth()
    x = torch.rand(MOST, 6)
    model, y = inspected(st.Model(network), x), network(x).argmax(1)
    found = prepare(model, x, y, Margin())
    assert found.changes[-2:] == (GRAPH, TF32) and isinstance(found.model.network, Captured)
    again = prepared(model, found.changes, x)
    torch.testing.assert_close(again.logits(x), network(x), atol=0.05, rtol=0.05)
    runs = [
        st.audit(st.Model(network), (x, y), st.Linf(0.1), preset="quick", precision=precision, batch_size=MOST)
        for precision in ("auto", "exact")
    ]
    assert runs[0].robust_accuracy == runs[1].robust_accuracy


@pytest.mark.usefixtures("on_a_gpu")
def test_a_network_that_cannot_be_recorded_is_searched_in_as_it_is(monkeypatch: pytest.MonkeyPatch):
    network = smooth()
    x = torch.rand(MOST, 6)
    monkeypatch.setitem(preparing.CHANGES, GRAPH, lambda net, x: Captured(net, x, record=Tape(fails_below=99)))
    monkeypatch.setitem(preparing.CHANGES, TF32, preparing._rounded)
    found = prepare(inspected(st.Model(network), x), x, network(x).argmax(1), Margin())
    assert GRAPH not in found.changes and TF32 not in found.changes
    assert preparing._captured(network, x) is None  # no GPU here


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize(("gain", "kept"), [(1.0, (GRAPH,)), (0.9, ())])
def test_a_recording_is_kept_unless_it_is_slower_and_every_trial_is_told(
    monkeypatch: pytest.MonkeyPatch, gain: float, kept: tuple[str, ...]
):
    network = smooth()
    x = torch.rand(MOST, 6)
    monkeypatch.setattr(preparing, "_gain", lambda *given: gain)
    monkeypatch.setitem(preparing.CHANGES, "batch-norm folded", lambda net, x: Captured(net, x, record=failing))
    monkeypatch.setitem(preparing.CHANGES, preparing.HALF, lambda net, x: nn.Sequential(net, nn.Softmax(1)))
    found = prepare(inspected(st.Model(network), x), x, network(x).argmax(1), Margin())
    assert found.changes == kept
    folded, half, *others = map(str, found.trials)
    assert folded == "batch-norm folded failed (RuntimeError: no such kernel)"
    assert half.startswith("bfloat16 inside left out (not timed, outputs within ")
    assert f"CUDA graph {'kept' if kept else 'left out'} ({gain:.2f} times as fast, outputs within" in " ".join(others)


def failing(network: nn.Module, point: Tensor, *, pool: Any, tf32: bool) -> Passes:
    raise RuntimeError("no such kernel")


def test_the_verdict_is_known_before_the_backward():
    """On a GPU the host then goes on while the slopes are being computed."""
    order: list[str] = []

    class Said:
        def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
            order.append("verdict")
            return Misclassified()(outputs, y)

        def rows(self, index: Tensor) -> Goal:
            return self

    network, x = smooth(), torch.rand(4, 6)
    y = network(x).argmax(1)
    network.register_full_backward_hook(lambda *given: order.append("backward"))
    for labels, none in ((y, True), ((y + 1) % 5, False)):
        found = st.Model(network).evaluate(x, labels, Margin(), Said(), Need.GRADIENT)
        assert found.none_won() is none and order == ["verdict", "backward"]
        order.clear()


def test_of_a_changed_verdict_nothing_is_known_beforehand():
    network, x = smooth(), torch.rand(4, 6)
    y = network(x).argmax(1)
    found = st.Model(network).evaluate(x, y, Margin())
    assert found.none_won()
    changed = replace(found, won=torch.ones_like(found.won))
    assert not changed.none_won() and not found.rows(torch.tensor([0])).none_won()

    class Winning:
        def answer(self, ask: Answer, question: Question) -> Evaluation:
            return replace(ask(question), won=torch.ones(len(question.point), dtype=torch.bool))

    result = st.attack("pgd(steps=3)", st.Model(network).asked_by(Winning()), x, y, st.Linf(0.1))
    assert bool(result.won.all()) and result.backwards.tolist() == [1] * 4
