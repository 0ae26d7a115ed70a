"""Attacks on decisions alone against Foolbox's at about equal queries, which are counted for both."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from tests.rivals.libraries import foolbox_model

QUERIES = 1500


class Counted(nn.Module):
    """A fixed smooth network that counts the points that it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 3)).eval()
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return 3 * self.net(4 * (x - 0.5))


def theirs(name: str, net: Counted, x: Tensor, y: Tensor) -> Tensor:
    """The L2 distances of Foolbox's attack from its own random start, and no success ∞."""
    import foolbox

    start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(steps=50)
    attack = (
        foolbox.attacks.HopSkipJumpAttack(init_attack=start, steps=6)
        if name == "hopskipjump"
        else foolbox.attacks.BoundaryAttack(init_attack=start, steps=QUERIES)
    )
    torch.manual_seed(0)
    _, points, won = attack(foolbox_model(net), x, y, epsilons=None)
    return (points - x).norm(dim=1).masked_fill(~won, torch.inf)


@pytest.mark.skipif(find_spec("foolbox") is None, reason="Foolbox is not installed")
@pytest.mark.parametrize("name", ["hopskipjump", pytest.param("boundary", marks=pytest.mark.full)])
def test_the_median_distance_is_at_most_a_tenth_larger(name):
    net = Counted()
    x = torch.rand(8, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = net(x).argmax(1)
    net.asked = 0
    distances = theirs(name, net, x, y)
    asked = net.asked / len(x)
    ours = st.attack(f"{name}(queries={int(asked)}, starts=25)", st.Model(net), x, y, st.L2(10.0))
    assert (ours.forwards <= asked).all()
    assert ours.won.all()
    assert float(ours.radius.median()) <= 1.1 * float(distances.double().median())
