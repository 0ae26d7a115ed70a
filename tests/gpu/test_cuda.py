"""On a GPU: recorded passes answer as the network does, attacks stay on their device, the process stays as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.recipes import ATTACKS
from steepest.basis.streams import Stream
from steepest.models import prepare as preparing
from steepest.models.captured import Captured
from steepest.models.contract import Need, Objective, Question
from steepest.models.inspection import inspected
from steepest.models.model import Model
from steepest.models.objectives import Margin, Targeted
from steepest.models.prepare import GRAPH, prepare, prepared
from tests.conformance.cases import CALLS, NAMES, Case, case, kind_for
from tests.conformance.table import ROWS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

MOST = 64


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Convolutions round to TF32 by default, and then no two kernels agree to more than three digits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change that is like the original is kept, however fast it is."""
    monkeypatch.setattr(preparing, "_gain", lambda *given: 2.0)
    monkeypatch.setattr(preparing, "WORTH_ON_A_GPU", 0.0)


def pictures() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2), nn.Tanh(),
        nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
    ).eval().requires_grad_(False).cuda()  # fmt: skip


def batch(network: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, 3, 11, 11, generator=torch.Generator().manual_seed(count)).cuda()
    with torch.no_grad():
        return x, network(x).argmax(1)


def question(x: Tensor, y: Tensor, objective: Objective, need: Need) -> Question:
    classes = torch.stack([y, (y + 1) % 10, (y + 3) % 10], 1) if need is Need.JACOBIAN else None
    return Question(point=x, y=y, objective=objective, goal=objective.goal, need=need, classes=classes)


def close(mine: Tensor | None, other: Tensor | None) -> None:
    assert (mine is None) == (other is None)
    if mine is not None:
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_recorded_answers_gradients_and_jacobians_are_the_networks() -> None:
    network = pictures()
    twin = Captured(network, batch(network, MOST)[0])
    for count in (MOST, 1, 5, 33, MOST, 8, MOST + 1):
        x, y = batch(network, count)
        for objective in (Margin(), Targeted("scaled-ce", (y + 2) % 10)):
            for need in Need:
                own, other = (Model(each).answer(question(x, y, objective, need)) for each in (network, twin))
                assert torch.equal(own.won, other.won)
                for name in ("outputs", "value", "gradient", "jacobian", "size"):
                    close(getattr(other, name), getattr(own, name))
    assert sorted(twin._passes) == [8, 40, MOST] and all(twin._passes.values())


def test_several_forwards_before_their_backwards() -> None:
    network = pictures()
    twin = Captured(network, batch(network, MOST)[0])
    points = [batch(network, count)[0].requires_grad_() for count in (7, MOST, 30)]
    outputs = [twin(point) for point in points]
    for column in (0, 4):
        for point, out in zip(points, outputs, strict=True):
            close(out, network(point))
            wanted = torch.autograd.grad(network(point)[:, column].sum(), point)[0]
            close(torch.autograd.grad(out[:, column].sum(), point, retain_graph=True)[0], wanted)


def process_state() -> list[object]:
    """What a program could notice of its own settings."""
    return [
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        getattr(torch.backends.cuda.matmul, "fp32_precision", None),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.cuda.get_sync_debug_mode(),
        torch.cuda.current_stream().cuda_stream,
        torch.cuda.get_rng_state().sum().item(),
        torch.is_grad_enabled(),
    ]


@pytest.mark.usefixtures("eager")
def test_a_twin_is_recorded_and_nothing_of_the_process_changes() -> None:
    network = pictures()
    x, y = batch(network, MOST)
    model, before = inspected(st.Model(network), x), process_state()
    found = prepare(model, x, y, Margin())
    assert GRAPH in found.changes and process_state() == before
    again = prepared(model, found.changes, x)
    close(again.logits(x), found.model.logits(x))
    problem = pose(found.model, x, y, st.Linf(0.05))
    result = ATTACKS.build("pgd(steps=10)").run(problem)
    with torch.no_grad():
        assert torch.equal(result.won, network(result.point).argmax(1) != y)
    own = ATTACKS.build("pgd(steps=10)").run(pose(model, x, y, st.Linf(0.05)))
    assert int(own.won.sum()) > 0 and abs(int(own.won.sum()) - int(result.won.sum())) <= 3
    assert process_state() == before


def test_recordings_may_round_to_tf32_and_the_process_does_not() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)).eval().requires_grad_(False).cuda()
    x = torch.rand(MOST, 512).cuda()
    before = process_state()
    plain, rough = Captured(network, x), Captured(network, x, tf32=True)
    assert process_state()[:6] == before[:6]
    wanted = copy.deepcopy(network).double()(x.double())  # recordings point to the network's own memory
    errors = [float((each(x) - wanted).abs().max()) for each in (plain, rough)]
    assert errors[0] < 1e-5 < errors[1] < 1e-2, errors


class Waiting(nn.Module):
    """It looks at a number on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = pictures()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out if float(out.sum()) > -1e9 else -out


class Changing(nn.Module):
    """How many kernels it launches depends on numbers that it copies from the GPU."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        return rows[:, :10] * rows[:, (rows.sum(0) > -1).nonzero().squeeze(1)].sum(1, keepdim=True)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("make", [Waiting, Changing])
def test_what_cannot_be_recorded_is_searched_in_as_it_is(make: type[nn.Module]) -> None:
    network = make().eval().requires_grad_(False)
    x, y = batch(network, MOST)
    before = process_state()
    with pytest.raises(RuntimeError):
        Captured(network, x)
    found = prepare(inspected(st.Model(network), x), x, y, Margin())
    assert GRAPH not in found.changes
    assert process_state() == before
    wanted = network(x)
    assert float((found.model.logits(x) - wanted).abs().max()) < 0.02 * float(wanted.abs().max())  # bfloat16
    assert Captured(pictures(), x)._passes  # and records others


@pytest.mark.parametrize("attack", NAMES)
def test_every_attack_is_feasible_and_stays_on_its_device(attack: str) -> None:
    home = case(kind_for(attack, "series K=3"))
    here = Case(home.network.cuda(), home.x.cuda(), home.y.cuda())
    result = here.attack(CALLS[attack])
    for name in ("point", "won", "gauge", "radius", "value", "outputs", "forwards", "backwards", "status"):
        assert getattr(result, name).device == here.x.device, name
    assert torch.equal(result.won, here.margin(result.point) > 0)
    problem = pose(here.network, here.x, here.y, here.budget(ROWS[attack].budget))
    assert ROWS[attack].beyond or attack == "spatial" or bool(problem.region.contains(result.point).all())


def test_random_numbers_are_those_of_the_processor() -> None:
    ids = torch.arange(5)
    here, there = Stream.of(3, ids), Stream.of(3, ids.cuda())
    assert torch.equal(there.uniform(2, (4, 3)).cpu(), here.uniform(2, (4, 3)))
    assert torch.equal(there.signs(1, (7,)).cpu(), here.signs(1, (7,)))


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("precision", ["auto", "exact"])
def test_an_audit_finds_what_it_finds_on_the_processor(precision: str) -> None:
    network = pictures()
    x, y = (part.cpu() for part in batch(network, 100))
    found = st.audit(
        st.Model(network), (x, y), st.Linf(0.05), preset="quick", device="cuda", precision=precision, batch_size=MOST
    )
    own = st.audit(st.Model(network.cpu()), (x, y), st.Linf(0.05), preset="quick", batch_size=MOST, precision="exact")
    assert found.clean_accuracy == own.clean_accuracy
    assert abs(found.robust_accuracy - own.robust_accuracy) <= 0.03


def waits(call: str, model: st.Model, x: Tensor, y: Tensor) -> int:
    """How often the host waits for all that the GPU was asked, while an attack runs in which nothing is broken."""
    problem, attack = pose(model, x, y, st.Linf(1e-6)), ATTACKS.build(call)
    attack.run(problem)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            attack.run(problem)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in said)


@pytest.mark.usefixtures("eager")
def test_a_step_waits_for_no_more_than_its_verdict() -> None:
    network = pictures()
    x, y = batch(network, MOST)
    model = inspected(st.Model(network), x)
    twin = prepare(model, x, y, Margin()).model
    for asked in (model, twin):
        few, many = (waits(f"pgd(steps={steps})", asked, x, y) for steps in (5, 15))
        assert many == few, f"{few} and {many} waits for 5 and 15 steps"
        assert waits("fgsm", asked, x, y) <= 8
