"""The relay: squares leave a plateau, gradients climb from there; neither is enough alone."""

from __future__ import annotations

import pytest
import torch

import steepest as st
from steepest.models.goals import Never

EPSILON = 0.2
N, SIDE = 32, 16


def plateau(x: torch.Tensor) -> torch.Tensor:
    """Two classes; the gap falls with ⟨v, δ⟩ for signs v on the lower half, but only once an upper window has risen.

    Elsewhere the output is constant: its gradient is exactly zero at x and at nearly all points of the ball. To break
    it 85 % of the way along v is needed, which random windows do not go.
    """
    image = x.reshape(-1, SIDE, SIDE)
    window = image[:, :4, :].mean((1, 2)) - 0.5
    gate = ((window / EPSILON - 0.2) * 20).clamp(0, 1)
    v = torch.where(torch.arange(SIDE * SIDE // 2) * 7919 % 13 < 6, -1.0, 1.0).reshape(SIDE // 2, SIDE)
    along = ((image[:, SIDE // 2 :] - 0.5) * v).mean((1, 2)) / EPSILON
    gap = 0.85 - gate * along
    return torch.stack([gap, -gap], 1)


@pytest.fixture
def posed():
    x = torch.full((N, 1, SIDE, SIDE), 0.5)
    return st.Model(plateau), x, torch.zeros(N, dtype=torch.int64), st.Linf(EPSILON)


def test_neither_gradients_nor_squares_leave_the_plateau_and_climb_but_the_relay_does(posed):
    model, x, y, budget = posed
    assert not st.attack("pgd(steps=40, restarts=5, start='uniform')", model, x, y, budget).won.any()
    assert not st.attack("square(queries=300, rescale=True)", model, x, y, budget).won.any()
    found = st.attack("relay(rounds=6, queries=40)", model, x, y, budget)
    assert found.won.sum() > N // 2 and found.forwards.max() <= 6 * 52 + 2


class Downhill:
    """Ranks by the margin and ascends its negative: every climb ends lower than it began."""

    goal = Never()

    def ascent(self, outputs, y):
        return outputs[:, 0] - outputs[:, 1]

    def value(self, outputs, y):
        return -self.ascent(outputs, y)

    def rows(self, index):
        return self


def test_the_chain_goes_on_as_if_there_were_no_climbs(posed):
    _, x, y, budget = posed
    shape = torch.sin(torch.arange(SIDE * SIDE, dtype=torch.float32)).reshape(1, 1, SIDE, SIDE)
    model = st.Model(lambda x: torch.stack([(x * shape).sum((1, 2, 3)), 0 * x.sum((1, 2, 3))], 1))
    squares = st.attack("square(queries=30, rescale=True)", model, x, y, budget, objective=Downhill())
    relay = st.attack("relay(rounds=3, queries=10, climb=2)", model, x, y, budget, objective=Downhill())
    assert torch.equal(squares.point, relay.point) and (relay.backwards == 3).all()
