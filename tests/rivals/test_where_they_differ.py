"""Where another library's answer differs from ours, the law of this house that it does not keep, and that ours does."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from tests.rivals import advlib
from tests.rivals.libraries import foolbox_model


class Plane(nn.Module):
    """A linear classifier of two classes with weights w, wrong where ⟨w, x⟩ > level."""

    def __init__(self, w: list[float], level: float) -> None:
        super().__init__()
        self.w, self.level = torch.tensor(w), level

    def forward(self, x: Tensor) -> Tensor:
        over = x.flatten(1) @ self.w - self.level
        return torch.stack([-over, over], 1)


def needs(library: str) -> None:
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def gain(net: Plane, x: Tensor, point: Tensor) -> float:
    return float(((point - x).flatten(1) @ net.w)[0])


def test_a_step_is_taken_and_judged():
    """C1: one step of PGD in adv-lib asks about x, moves, and returns x, since the new point was never asked about."""
    attacks = advlib.attacks()
    net, x, y = Plane([1.0, -1.0], 0.05), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    theirs = attacks.pgd_linf(net, x, y, ε=0.1, steps=1, random_init=False, absolute_step_size=0.1)
    assert torch.equal(theirs, x)
    ours = st.attack("bim(steps=1, step=1.0)", net, x, y, st.Linf(0.1))
    assert ours.won.all()
    assert torch.allclose(ours.point, torch.tensor([[0.6, 0.4]]))


def test_the_l2_step_inside_the_box_is_the_maximiser():
    """Rescaling and then clipping is feasible, but what the box cuts off is not spent elsewhere."""
    needs("foolbox")
    import foolbox

    net, x, y = Plane([1.0, 1.0], 9.0), torch.tensor([[0.9, 0.5]]), torch.tensor([0])
    theirs = foolbox.attacks.L2FastGradientAttack()(foolbox_model_of(net), x, y, epsilons=0.5)[1]
    ours = st.fgsm(st.Model(net), x, y, st.L2(0.5))
    assert gain(net, x, theirs) == pytest.approx(0.1 + 0.5 / 2**0.5, abs=1e-5)
    assert gain(net, x, ours) == pytest.approx(0.1 + (0.25 - 0.01) ** 0.5, abs=1e-5)


def test_the_l1_step_is_the_maximiser():
    """The maximiser over an L1 ball moves the coordinate with the largest slope; g/‖g‖₁ spreads and gains less."""
    needs("foolbox")
    import foolbox

    net, x, y = Plane([1.0, 2.0], 9.0), torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    theirs = foolbox.attacks.L1FastGradientAttack()(foolbox_model_of(net), x, y, epsilons=0.3)[1]
    ours = st.fgsm(st.Model(net), x, y, st.L1(0.3))
    assert gain(net, x, ours) == pytest.approx(0.6, abs=1e-6)
    assert gain(net, x, theirs) < 0.51


def test_the_global_random_state_is_the_callers():
    """C15: APGD of torchattacks reseeds the global generator and leaves it so."""
    needs("torchattacks")
    import torchattacks

    net, x, y = Plane([1.0] * 48, 99.0), torch.rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)

    def state_moves(attack: object) -> bool:
        torch.manual_seed(5)
        before = torch.get_rng_state()
        attack()  # type: ignore[operator]
        return not torch.equal(before, torch.get_rng_state())

    theirs = torchattacks.APGD(net, norm="Linf", eps=0.1, steps=3, n_restarts=1, loss="ce")
    assert state_moves(lambda: theirs(x, y))
    assert not state_moves(lambda: st.attack("apgd(steps=3)", net, x, y, st.Linf(0.1)))


def test_r_fgsm_is_one_step():
    """C6: a famous name with another meaning: RFGSM of torchattacks walks ten steps."""
    needs("torchattacks")
    import torchattacks

    asked = []

    class Counting(Plane):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return super().forward(x)

    net, x, y = Counting([1.0] * 48, 99.0), torch.rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
    torchattacks.RFGSM(net, eps=0.1, alpha=0.05)(x, y)
    assert len(asked) == 10
    asked.clear()
    st.recipes.r_fgsm().run(problem(net, x, y))
    assert len(asked) == 2


def problem(net: nn.Module, x: Tensor, y: Tensor) -> object:
    from steepest.attacks.api import pose

    return pose(net, x, y, st.Linf(0.1))


def foolbox_model_of(net: nn.Module) -> object:
    net.register_parameter("unused", nn.Parameter(torch.zeros(1)))  # the adapter asks a parameter for its device
    return foolbox_model(net.eval())
