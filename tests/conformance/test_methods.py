"""Every training method keeps the same promises; a new one is one row here."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.harden.contract import Classroom, Lesson, Taught
from steepest.harden.library import METHODS
from steepest.harden.recipe import Training
from tests.tables import budgets


@dataclass(frozen=True)
class Row:
    """A cheap call, the rows × batches it must ask, and what it is exempt from.

    Attributes:
        call: what is asked.
        passes: forwards and backwards over the batch.
        leaves: its points may be outside the budget, by design; "box" and the box is left too.
        updates: how often batch-norm statistics change in one step.
        twice: backwards that are gradients of gradients and reach no output of the network for themselves.
        walks: it goes through the layers one by one, and never asks the network.
    """

    call: str
    passes: tuple[int, int]
    leaves: str = ""
    updates: int = 1
    twice: int = 0
    walks: bool = False


ROWS = {
    "awp": Row(call="awp(method='pgd(steps=2)')", passes=(4, 4)),
    "crown-ibp": Row(call="crown-ibp", passes=(3, 3), walks=True),
    "fgsm": Row(call="fgsm", passes=(2, 2)),
    "fgsm-rs": Row(call="fgsm-rs", passes=(2, 2)),
    "free": Row(call="free(replays=3)", passes=(3, 3), updates=3),
    "grad-align": Row(call="grad-align", passes=(3, 5), twice=1),
    "ibp": Row(call="ibp", passes=(3, 3), walks=True),
    "mart": Row(call="mart(steps=2)", passes=(4, 4)),
    "n-fgsm": Row(call="n-fgsm", passes=(2, 2), leaves="budget"),
    "noise": Row(call="noise", passes=(1, 1), leaves="box"),
    "pgd": Row(call="pgd(steps=3)", passes=(4, 4)),
    "plain": Row(call="plain", passes=(1, 1)),
    "trades": Row(call="trades(steps=2)", passes=(5, 4)),
}
NAMES = METHODS.names()


class Net(nn.Module):
    """A small network with batch norm and dropout; its last layer counts examples that arrive and that flow back."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        head = nn.Linear(8, classes)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), head)
        self.asked, self.back = 0, 0
        head.register_forward_hook(self._count)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def _count(self, layer: nn.Module, given: tuple[Tensor], found: Tensor) -> None:
        self.asked += len(found)
        if found.requires_grad:
            found.register_hook(self._count_back)

    def _count_back(self, slope: Tensor) -> None:
        self.back += len(slope)


def room_of(classes: int = 3, seed: int = 0) -> Classroom:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Net(classes).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    return Classroom(network=network, model=st.Model(network), optimiser=optimiser)


def lesson_of(room: Classroom, *, budget: str = "linf", count: int = 6, seed: int = 0, number: int = 0) -> Lesson:
    x = torch.rand(count, 3, 4, generator=torch.Generator().manual_seed(seed))
    x[0] = 0.0  # on the box's faces
    classes = room.network.body[-1].out_features
    region = Region(budgets((3, 4), 0.2)[budget], room.model.box, x)
    stream = Stream.of(seed, torch.arange(count)).split(number)
    return Lesson(region=region, y=torch.arange(count) % classes, stream=stream, number=number, share=0.5)


def course(name: str, steps: int, seed: int = 0) -> tuple[Classroom, list[Taught]]:
    room, method = room_of(), METHODS.build(ROWS[name].call)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        found = [method.teach(room, lesson_of(room, seed=seed, number=number)) for number in range(steps)]
    return room, found


def test_every_method_has_a_row():
    assert sorted(ROWS) == NAMES
    for entry in METHODS:
        assert all(entry.facts[fact] for fact in ("source", "cost", "when", "budgets")) and entry.summary


@pytest.mark.parametrize("name", NAMES)
def test_passes_are_counted_and_statistics_change_once(name: str):
    row, room = ROWS[name], room_of()
    network, lesson = room.network, lesson_of(room)
    before = copy.deepcopy(network.state_dict())
    modes, x = [part.training for part in network.modules()], lesson.x.clone()
    found = METHODS.build(row.call).teach(room, lesson)
    assert (found.forwards, found.backwards) == row.passes
    assert row.walks or network.asked == row.passes[0] * len(x)
    assert row.walks or network.back == (row.passes[1] - row.twice) * len(x)
    norm = network.body[2]
    assert int(norm.num_batches_tracked) - int(before["body.2.num_batches_tracked"]) == row.updates
    assert not torch.equal(norm.running_mean, before["body.2.running_mean"])
    assert [part.training for part in network.modules()] == modes and torch.equal(lesson.x, x)
    assert all(p.requires_grad for p in network.parameters())
    assert not torch.equal(network.body[1].weight, before["body.1.weight"])
    assert found.loss == found.loss and found.point.shape == x.shape and len(found.outputs) == len(x)
    for each in (found.point, found.outputs, found.clean):
        assert each is None or not each.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_weights(name: str):
    states = [course(name, 3)[0].network.state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("fgsm", "plain", "free", "ibp", "crown-ibp")])
def test_every_step_has_random_numbers_of_its_own(name: str):
    room, method = room_of(), METHODS.build(ROWS[name].call)
    for group in room.optimiser.param_groups:
        group["lr"] = 0.0
    first, second = (method.teach(room, lesson_of(room, number=number)) for number in range(2))
    assert not torch.equal(first.point, second.point) or first.loss != second.loss


@pytest.mark.parametrize("budget", ["linf", "l2", "l1", "masked linf", "l0"])
@pytest.mark.parametrize("name", NAMES)
def test_points_are_feasible(name: str, budget: str):
    row, room = ROWS[name], room_of()
    lesson = lesson_of(room, budget=budget)
    found = METHODS.build(row.call).teach(room, lesson)
    if not row.leaves:
        assert bool(lesson.region.contains(found.point).all())
    if row.leaves == "budget":
        assert bool(lesson.region.scaled(3.0).contains(found.point).all())
        assert float(lesson.region.gauge(found.point).max()) > 1
    moved = (found.point - lesson.x).flatten(1).abs().amax(1)
    assert found.clean is not None or bool((moved > 0).any())


@pytest.mark.parametrize("name", NAMES)
def test_one_example_and_two_classes(name: str):
    room = room_of(2)
    room.network.body[2].eval()  # one example has no batch statistics
    found = METHODS.build(ROWS[name].call).teach(room, lesson_of(room, count=1))
    assert found.outputs.shape == (1, 2) and found.loss == found.loss


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_that_is_no_number_moves_nothing(name: str):
    room, method = room_of(), METHODS.build(ROWS[name].call)
    method.teach(room, lesson_of(room))  # momentum that would move the weights by itself
    with torch.no_grad():
        room.network.body[5].bias[0] = torch.nan
    before = [p.detach().clone() for p in room.network.parameters()]
    momenta = copy.deepcopy(room.optimiser.state_dict())["state"]
    found = method.teach(room, lesson_of(room, number=1))
    assert found.loss != found.loss
    for was, now in zip(before, room.network.parameters(), strict=True):
        assert torch.equal(was.nan_to_num(-7), now.nan_to_num(-7))
    for key, kept in room.optimiser.state_dict()["state"].items():
        assert torch.equal(kept["momentum_buffer"], momenta[key]["momentum_buffer"])
    assert bool(found.point.isfinite().all())


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(METHODS.build(ROWS[name].call), Training)])
def test_a_batch_for_other_loops_is_what_the_method_trains_on(name: str):
    room = room_of()
    lesson = lesson_of(room)
    before = copy.deepcopy(room.network.state_dict())
    torch.manual_seed(3)
    points = st.adversarial_batch(
        room.network, lesson.x, lesson.y, st.Linf(0.2), method=ROWS[name].call, seed=0, step=0
    )
    after = room.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before) and room.network.training
    assert all(p.grad is None for p in room.network.parameters())
    torch.manual_seed(3)
    assert torch.equal(points, METHODS.build(ROWS[name].call).teach(room, lesson).point)


def test_a_batch_from_a_method_without_points_is_refused():
    x, y = torch.rand(2, 3, 4), torch.tensor([0, 1])
    with pytest.raises(UsageError, match=r"free.* finds no points before it trains; for batches there are"):
        st.adversarial_batch(room_of().network, x, y, st.Linf(0.1), method="free")
