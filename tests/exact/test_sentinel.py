"""What the sentinel measures, on networks whose loss is known; what it costs; what it brings back."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.harden.contract import Classroom, Lesson, Taught
from steepest.harden.sentinel import KEPT, Sentinel, look_at
from steepest.harden.watch import Answer, Sign
from steepest.landscape.gradients import participation

SIZE = 0.1


class Wave(nn.Module):
    """Margin cos(2πt/ε)·swing + 1 − swing/2 − slope·t for class 0, t = x − ½: right at x and ±ε, wrong between."""

    def __init__(self, swing: float) -> None:
        super().__init__()
        self.swing, self.slope, self.asked = nn.Parameter(torch.tensor(swing)), nn.Parameter(torch.tensor(0.1)), 0
        self.register_buffer("statistic", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        t = x[:, 0] - 0.5
        margin = self.swing * torch.cos(2 * math.pi * t / SIZE) + 1 - self.swing / 2 - self.slope * t
        return torch.stack([margin, torch.zeros_like(margin)], 1) / 2


def _room(swing: float = 0.0) -> tuple[Classroom, Wave]:
    net = Wave(swing)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    return Classroom(network=net, model=st.Model(net), optimiser=optimiser), net


def _lesson(number: int, count: int = 64) -> Lesson:
    x, ids = torch.full((count, 1), 0.5), torch.arange(count)
    region = Region(st.Linf(SIZE), st.Box(0, 1), x)
    stream = Stream.of(0, ids).split(number)
    return Lesson(region=region, y=torch.zeros(count).long(), stream=stream, number=number, share=0.0)


def _taught(lesson: Lesson, loss: float = 1.0) -> Taught:
    outputs = torch.zeros(len(lesson.y), 2)
    return Taught(loss=loss, point=lesson.x, outputs=outputs, clean=None, forwards=2, backwards=2)


def _watched(sentinel: Sentinel, room: Classroom, steps: range, loss: float = 1.0) -> tuple[int, Sign] | None:
    for number in steps:
        lesson = _lesson(number)
        if sign := sentinel.look(room, lesson, _taught(lesson, loss)):
            return number, sign
    return None


def test_a_wave_is_right_where_fgsm_goes_and_nowhere_between() -> None:
    room, _ = _room(swing=3.0)
    found = look_at(room, _lesson(0), 64)
    assert (found.clean, found.fgsm, found.pgd) == (1.0, 1.0, 0.0)
    # In one dimension a cosine is a sign: of ∇ on either side of x, positive and negative equally often.
    assert abs(found.alignment) < 0.5


def test_on_a_line_one_step_is_all_there_is() -> None:
    room, _ = _room()
    found = look_at(room, _lesson(0), 64)
    assert (found.clean, found.fgsm, found.pgd) == (1.0, 1.0, 1.0)
    assert found.alignment == pytest.approx(1)
    sentinel = Sentinel(check_every=5)
    assert _watched(sentinel, room, range(300)) is None
    assert {entry.action for entry in sentinel.log} == {"none"}


@pytest.mark.parametrize("carried", [1, 3, 8, 60])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_of_equal_coordinates_among_zeros_participates_their_share(carried: int, size: float) -> None:
    gradient = torch.zeros(2, 3, 4, 5)
    gradient.view(2, -1)[0, 60 - carried :] = size
    gradient.view(2, -1)[0, 60 - carried] *= -1
    found = participation(gradient)
    assert float(found[0]) == pytest.approx(carried / 60) and math.isnan(found[1])


def test_participation_lies_between_one_coordinate_and_all() -> None:
    drawn = torch.randn(256, 3072, generator=torch.Generator().manual_seed(0))
    found = participation(drawn)
    assert float(found.mean()) == pytest.approx(2 / math.pi, abs=0.005)
    skewed = participation(drawn**9)
    assert bool((skewed >= 1 / 3072).all()) and bool((skewed < found).all()) and bool((found <= 1).all())


def test_a_look_tells_the_participation_and_accuses_nobody_of_it() -> None:
    net = nn.Linear(4, 2)
    room = Classroom(network=net, model=st.Model(net), optimiser=torch.optim.SGD(net.parameters(), lr=0.1))
    region = Region(st.Linf(SIZE), st.Box(0, 1), torch.full((64, 4), 0.5))
    lesson = replace(_lesson(0), region=region)
    sentinel = Sentinel(check_every=1, examples=8, share=0.5)
    for number, carried in enumerate((4, 4, 1, 0)):
        with torch.no_grad():
            net.weight.zero_()
            net.weight[0, :carried] = 1.0
        assert sentinel.look(room, replace(lesson, number=number), _taught(lesson)) is None
    told = [entry for entry in sentinel.log if entry.sign == "participation"]
    assert [entry.value for entry in told[:-1]] == pytest.approx([1, 1, 0.25]) and math.isnan(told[-1].value)
    assert {(entry.threshold, entry.action) for entry in told} == {(-math.inf, "none")}


def test_a_collapse_is_seen_at_the_next_look_and_undone() -> None:
    room, net = _room()
    sentinel = Sentinel(remedy="n-fgsm", check_every=50, keep=True)
    net.slope.square().backward()  # type: ignore[no-untyped-call]
    room.optimiser.step()
    assert _watched(sentinel, room, range(200)) is None
    good, before = sentinel.good_step, {name: each.clone() for name, each in net.state_dict().items()}
    momentum = room.optimiser.state[net.slope]["momentum_buffer"].clone()
    with torch.no_grad():
        net.swing.fill_(3.0)
        net.get_buffer("statistic").fill_(1.0)
        room.optimiser.state[net.slope]["momentum_buffer"].fill_(7.0)
    fired = _watched(sentinel, room, range(200, 300))
    assert fired is not None and fired[0] <= 250
    sign = fired[1]
    assert (sign.answer, sign.method) == (
        Answer.ROLL_BACK,
        "n-fgsm",
    ) and "100% right and two half steps 0%" in sign.says
    assert [entry.action for entry in sentinel.log[-8:]] == ["looked again"] * 4 + ["rolled back"] * 4
    assert sentinel.log[-1].examples == 64 and sentinel.log[-5].examples == 32
    # Numbers of a sign are written as JSON, which has no infinity.
    assert sign.numbers["participation"] == 1 and all(math.isfinite(each) for each in sign.numbers.values())
    assert sentinel.roll_back(room) == good == sentinel.good_step
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())
    assert torch.equal(room.optimiser.state[net.slope]["momentum_buffer"], momentum)
    assert room.kept == {}


def test_a_loss_that_falls_at_once_is_looked_into_before_its_turn() -> None:
    room, net = _room()
    sentinel = Sentinel(check_every=1000, remedy="stop")
    assert _watched(sentinel, room, range(100)) is None and len(sentinel.log) == 4
    with torch.no_grad():
        net.swing.fill_(3.0)
    fired = _watched(sentinel, room, range(100, 110), loss=0.5)
    assert fired is not None and fired[0] == 100 and fired[1].answer is Answer.STOP and fired[1].method is None


def test_looks_cost_at_most_three_hundredths_of_the_training() -> None:
    room, net = _room()
    sentinel = Sentinel(check_every=1)
    assert _watched(sentinel, room, range(1000)) is None
    looks = len(sentinel.log) // 4
    assert net.asked == 5 * 32 * looks  # and three backwards for them
    assert 0.029 < 8 * 32 * looks / (4 * 64 * 1000) <= 0.03


def test_what_it_remembers_is_in_the_classroom() -> None:
    broken, whole = Sentinel(check_every=7), Sentinel(check_every=7)
    one, other = _room()[0], _room()[0]
    _watched(broken, one, range(200))
    _watched(whole, other, range(100))
    continued = Sentinel(check_every=7)
    other.kept = {KEPT: other.kept[KEPT].clone()}
    _watched(continued, other, range(100, 200))
    assert broken.log == whole.log + continued.log
    assert torch.equal(one.kept[KEPT], other.kept[KEPT])


def test_looking_changes_nothing() -> None:
    net = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    room = Classroom(network=net, model=st.Model(net), optimiser=torch.optim.SGD(net.parameters(), lr=0.1))
    before, drawn = {name: each.clone() for name, each in net.state_dict().items()}, torch.get_rng_state()
    look_at(room, _lesson(0), 64)
    assert torch.equal(drawn, torch.get_rng_state()) and net.training
    assert all(torch.equal(each, before[name]) for name, each in net.state_dict().items())
    assert all(part.grad is None for part in net.parameters())


def test_what_is_not_allowed_is_refused() -> None:
    with pytest.raises(UsageError, match="check_every=0"):
        Sentinel(check_every=0)
    with pytest.raises(UsageError, match=r"share=1\.5"):
        Sentinel(share=1.5)
    with pytest.raises(UsageError, match="keep=True"):
        Sentinel().roll_back(_room()[0])
