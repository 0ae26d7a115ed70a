"""Properties decided: small networks whose exact minimum a linear program knows, and answers that must not be given."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor, nn

from steepest.audit.verifying import api
from steepest.audit.verifying.api import verify
from steepest.audit.verifying.search import float32_box
from steepest.basis.box import Box
from steepest.basis.errors import UsageError
from steepest.certify.boxes import METHODS, Boxes, conditioned
from steepest.certify.grounds import Product
from steepest.certify.input_splitting import Splitting
from steepest.certify.linear import Bounds
from steepest.certify.network import network_of
from steepest.certify.vnnlib import Property, parse_property
from steepest.models.contract import Facts
from steepest.models.estimated import estimated
from steepest.models.model import Model
from tests.files.model_material import two_layers

UNIT = ((-1.0, 1.0), (-1.0, 1.0))


def net(seed: int, outputs: int = 1, hidden: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, outputs)).eval()
    for part in made.parameters():
        part.requires_grad_(False)
    return made


def model(network: nn.Module) -> Model:
    return Model(network, box=None)


def asked(asserted: str, *, inputs: int = 2, outputs: int = 1, box: tuple[tuple[float, float], ...] = UNIT) -> Property:
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{j}" for j in range(outputs)]
    text = [f"(declare-const {name} Real)" for name in names]
    text += [f"(assert (>= X_{i} {low!r})) (assert (<= X_{i} {high!r}))" for i, (low, high) in enumerate(box)]
    return parse_property("\n".join([*text, asserted]))


def exact_minimum(network: nn.Sequential, row: np.ndarray) -> float:
    """min over the box of row · f by a linear program for every pattern of the hidden units."""
    first, last = network[0], network[2]
    w, b = first.weight.double().numpy(), first.bias.double().numpy()
    v = row @ last.weight.double().numpy()
    best = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(b)):
        on = np.array(pattern)
        sign = 2 * on - 1  # sign · (w x + b) ≥ 0
        found = linprog((v * on) @ w, A_ub=-sign[:, None] * w, b_ub=sign * b, bounds=UNIT)
        if found.status == 0:
            best = min(best, found.fun + (v * on) @ b)
    return float(best + row @ last.bias.double().numpy())


def grid(count: int = 161) -> Tensor:
    line = torch.linspace(-1, 1, count)
    return torch.cartesian_prod(line, line)


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_just_above_and_below_the_true_minimum(seed: int) -> None:
    network = net(seed)
    least = exact_minimum(network, np.ones(1))
    above = verify(model(network), asked(f"(assert (<= Y_0 {least + 2e-4!r}))"), timeout=20)
    below = verify(model(network), asked(f"(assert (<= Y_0 {least - 1e-5!r}))"), timeout=20)
    assert (above.answer, below.answer) == ("sat", "unsat"), (above, below)
    assert above.x is not None and network(above.x)[0].item() <= least + 2e-4
    assert below.x is None and below.y is None


@pytest.mark.parametrize("seed", [pytest.param(at, marks=pytest.mark.full if at >= 16 else ()) for at in range(50)])
def test_never_wrong_against_dense_samples(seed: int) -> None:
    network, draw = net(100 + seed, outputs=3), np.random.default_rng(seed)
    a, b, c = (float(value) for value in draw.normal(0, 0.3, 3).round(3))
    text = f"(assert (or (and (<= Y_0 {a}) (>= Y_1 (+ Y_2 {b}))) (and (>= Y_2 {c}) (<= (- Y_0 Y_1) -0.4))))"
    found = verify(model(network), asked(text, outputs=3), timeout=20)
    (case,) = asked(text, outputs=3).cases
    outputs = network(grid())
    seen = bool(torch.stack([part.holds(outputs) for part in case.either]).any())
    assert found.answer == "sat" if seen else found.answer in ("sat", "unsat")
    if found.answer == "sat":
        assert found.x is not None and found.x.abs().max() <= 1
        assert any(bool(part.holds(network(found.x)[None])) for part in case.either)


def test_both_answers_occur_among_those() -> None:
    answers = {
        verify(model(net(100 + seed, 3)), asked("(assert (<= Y_0 -0.5))", outputs=3)).answer for seed in range(9)
    }
    assert answers == {"sat", "unsat"}


def test_a_counterexample_is_confirmed_by_onnxruntime_inside_the_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = net(3, outputs=2)
    path = two_layers(tmp_path / "net.onnx", network)
    least = exact_minimum(network, np.array([1.0, -1.0]))
    question = asked(f"(assert (<= Y_0 (+ Y_1 {least + 1e-3!r})))", outputs=2)
    found = verify(path, question, timeout=20)
    assert found.answer == "sat" and found.x is not None and found.y is not None
    assert found.x.dtype == torch.float32 and found.x.shape == (2,)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (said,) = session.run(None, {"in": found.x.reshape(1, 1, 2).numpy()})
    assert np.array_equal(said[0], found.y.numpy())
    assert (found.x.double().abs() <= 1).all()
    assert float(said[0, 0]) - float(said[0, 1]) <= least + 1e-3
    assert verify(path, asked(f"(assert (<= Y_0 (+ Y_1 {least - 1e-4!r})))", outputs=2), timeout=20).answer == "unsat"
    # What the converted network believes is not enough.
    monkeypatch.setattr(api.Original, "outputs", lambda self, x: torch.tensor([5.0, 0.0]))
    assert verify(path, question, timeout=0.5).answer == "unknown"


def test_a_side_without_a_float32_number_stands_for_the_nearest_one() -> None:
    low, high = float32_box(torch.tensor([0.1, 0.1, -1.0]).double() * 0 + 0.1, torch.tensor([0.1, 0.7, 2.0]).double())
    assert low[0] == high[0] == torch.tensor(0.1) and low[1].double() >= 0.1 and high[1].double() <= 0.7
    point = asked("(assert (<= Y_0 Y_1))", outputs=2, box=((0.1, 0.1), (0.3, 0.3)))
    network = net(5, outputs=2)
    said = network(torch.tensor([0.1, 0.3]))
    assert verify(model(network), point, timeout=5).answer == ("sat" if said[0] <= said[1] else "unsat")


def test_alternative_boxes_are_all_decided() -> None:
    identity = nn.Linear(2, 2, bias=False)
    identity.weight = nn.Parameter(torch.eye(2), requires_grad=False)
    boxes = "(assert (or (and (<= X_0 -0.5) (>= Y_0 {0})) (and (>= X_0 0.5) (<= Y_0 {1}))))"
    assert verify(model(identity), asked(boxes.format(-0.4, 0.4), outputs=2)).answer == "unsat"
    found = verify(model(identity), asked(boxes.format(-0.4, 0.6), outputs=2))
    assert found.answer == "sat" and found.x is not None and 0.5 <= found.x[0] <= 0.6
    assert verify(model(identity), asked("(assert (>= X_0 2))", outputs=2)).answer == "unsat"
    assert verify(model(identity), asked("", outputs=2)).answer == "sat"


class Bent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.sin(3 * x[:, :1]) + 0 * torch.erfinv(0 * x[:, 1:]), x[:, 1:]], 1)


def test_a_network_without_rules_is_attacked_and_never_proven() -> None:
    found = verify(model(Bent()), asked("(assert (<= Y_0 -0.999))", outputs=2), timeout=5)
    assert found.answer == "sat"
    never = verify(model(Bent()), asked("(assert (<= Y_0 -1.1))", outputs=2), timeout=0.5)
    assert never.answer == "unknown" and "no rule for" in never.reason and never.boxes == 0


def test_a_network_in_float64_takes_the_inputs_of_the_property() -> None:
    whole = Model(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double(), None)
    assert verify(whole, asked("(assert (<= Y_0 1000))", outputs=2), timeout=5).answer == "sat"
    assert verify(whole, asked("(assert (<= Y_0 -1000))", outputs=2), timeout=5).answer == "unsat"


def test_probabilities_are_not_taken_for_the_logits_behind_them() -> None:
    whole = nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)).eval().requires_grad_(False)
    # Probabilities are below 2, logits need not be.
    whole[0].weight.mul_(50)
    found = verify(model(whole), asked("(assert (>= Y_0 2))", outputs=2), timeout=0.5)
    assert found.answer in ("unknown", "unsat")
    assert verify(model(whole), asked("(assert (<= Y_0 0.4))", outputs=2), timeout=5).answer == "sat"


def test_what_is_known_of_the_outputs_does_not_change_them() -> None:
    whole = Model(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)).eval(), None, facts=Facts(outputs="probabilities"))
    assert verify(whole, asked("(assert (>= Y_0 0.2))", outputs=2), timeout=5).answer == "sat"
    assert verify(whole, asked("(assert (<= Y_0 -0.1))", outputs=2), timeout=0.5).answer in ("unknown", "unsat")
    with pytest.raises(UsageError, match="oracle"):
        verify(estimated(model(net(0, 2))), asked("", outputs=2))


def test_a_round_that_cannot_end_in_time_is_cut() -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            time.sleep(len(x) * 1e-4)
            return x.sin()

    found = verify(model(Slow()), asked("(assert (>= Y_0 1))", outputs=2), timeout=1.5)
    assert found.answer == "unknown" and found.seconds < 4


def test_no_gradient_is_no_obstacle() -> None:
    found = verify(model(nn.Sequential(Rounded(), net(0, 2))), asked("(assert (<= Y_0 50))", outputs=2), timeout=1)
    assert found.answer == "sat"
    never = verify(model(nn.Sequential(Rounded(), net(0, 2))), asked("(assert (<= Y_0 -50))", outputs=2), timeout=0.3)
    assert never.answer in ("unknown", "unsat")


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.detach() * 4).round() / 4


def test_time_that_is_up_is_no_answer_and_the_same_seed_is_the_same_point() -> None:
    wide = nn.Sequential(nn.Linear(30, 60), nn.ReLU(), nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 1)).eval()
    torch.manual_seed(0)
    for part in wide.parameters():
        part.data = torch.randn(part.shape) / part.shape[-1] ** 0.5
        part.requires_grad_(False)
    box = ((-1.0, 1.0),) * 30
    lowest = verify(model(wide), asked("(assert (<= Y_0 -40))", inputs=30, box=box), timeout=0.3)
    assert lowest.answer in ("unknown", "unsat") and lowest.seconds < 5
    least = float(wide(2 * torch.rand(4096, 30) - 1).min())
    reached = asked(f"(assert (<= Y_0 {least!r}))", inputs=30, box=box)
    first, second = (verify(model(wide), reached, timeout=10, seed=2) for _ in range(2))
    assert first.answer == "sat" and first.x is not None and second.x is not None and torch.equal(first.x, second.x)


def test_other_numbers_of_inputs_or_outputs_are_refused(tmp_path: Path) -> None:
    path = two_layers(tmp_path / "net.onnx", net(1, 2))
    with pytest.raises(UsageError, match=r"declares 3 inputs, and .*net.onnx takes 2 \(1×2\)"):
        verify(path, asked("", inputs=3, outputs=2, box=(*UNIT, (0.0, 1.0))))
    with pytest.raises(UsageError, match=r"declares 3 outputs, and .* has 2"):
        verify(path, asked("(assert (<= Y_0 Y_2))", outputs=3))
    with pytest.raises(UsageError, match="timeout"):
        verify(path, asked("", outputs=2), timeout=0)


def splitting(network: nn.Module, rows: Tensor, most: Tensor, group: list[int]) -> Splitting:
    low, high = -torch.ones(2).double(), torch.ones(2).double()
    boxes = Boxes(conditioned(model(network), rows, most, Box(low, high)), (2,))
    return Splitting.of(boxes, torch.tensor(group), low, high)


@pytest.mark.parametrize("method", METHODS)
def test_boxes_that_are_left_hold_every_solution(method: str) -> None:
    network, rows = net(8, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]).double()
    outputs = network(grid(81)).double()
    most = (outputs @ rows.T).quantile(0.1, dim=0)
    meets = (outputs @ rows.T <= most)[:, :2].all(1) | (outputs @ rows.T <= most)[:, 2]
    part = splitting(network, rows, most, [0, 0, 1])
    part.bound(method)
    for _ in range(6):
        points = grid(81).double()[meets]
        held = ((part.low[:, None] <= points) & (points <= part.high[:, None])).all(2).any(0)
        assert held.all() and meets.any()
        part.split(method)
    area = (part.high - part.low).prod(1).sum()
    assert area < 3.5 and part.asked > 6  # of 4: something was excluded
    middles = network(part.middles(4).float()).double() @ rows.T - most
    assert (middles[:, 2] <= 0.5).any()  # what bounds exclude least is near to a solution


def test_a_bound_is_below_every_sample_and_closer_methods_are_closer() -> None:
    network, rows, most = net(9, 2), torch.tensor([[1.0, -2.0]]).double(), torch.tensor([0.25]).double()
    low, high = -torch.ones(2).double(), torch.ones(2).double()
    boxes = Boxes(conditioned(model(network), rows, most, Box(low, high)), (2,))
    least = (network(grid()).double() @ rows.T - most).min()
    found = [float(boxes.lower(low[None], high[None], torch.tensor([True]), method).value) for method in METHODS]
    assert all(value <= least for value in found)
    assert found[0] <= found[2] + 1e-9 and found[2] <= found[3] + 1e-9
    middle = torch.zeros(1, 2).double()
    point = boxes.lower(middle, middle, torch.tensor([True]), "crown").value
    assert float(point) == pytest.approx(float(network(middle.float()).double() @ rows[0] - most), abs=1e-6)


def test_many_boxes_at_once_are_bounded_as_each_alone() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 2)).requires_grad_(False)
    centre = torch.rand(5, 2, dtype=torch.float64)
    network = network_of(model(deep), (2,))
    parts = (slice(None), *(slice(row, row + 1) for row in range(5)))
    boxes = [Product(centre[part] - 0.2, centre[part] + 0.2) for part in parts]
    one, *alone = (Bounds.by_intervals(network, box).tightened() for box in boxes)
    for at in network.bent:
        for end, mine in enumerate(one.ranges[network.source(at)]):
            theirs = torch.cat([each.ranges[network.source(at)][end] for each in alone])
            assert torch.allclose(mine, theirs, atol=1e-9)
    inside = deep[:3](2 * 0.2 * torch.rand(1000, 5, 2) - 0.2 + centre.float()).double()
    low, high = one.ranges[network.source(max(network.bent))]
    assert (low <= inside).all() and (inside <= high).all()
