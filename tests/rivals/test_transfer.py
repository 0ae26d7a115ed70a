"""MI, NI, TI, SI and VMI walk the same path as torchattacks', in float64, where it agrees with the papers.

Where it does not: DI and TI are called with decay=1, since its default of 0 leaves the momentum of the papers out; its
TI also resizes at random, which is switched off, and builds its kernel in float32; its SINIFGSM looks ahead, as the
paper's does, so that decay=0 is SI alone. NI's and SI-NI's look-ahead leaves the ball and the box there and is
projected here: they are compared where neither binds. Its VMIFGSM draws from the global generator, so it is compared
on a model whose gradient varies with no neighbour, and without any neighbour.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.momentum import MomentumAscent
from steepest.attacks.recipe import Recipe
from steepest.models.views import Views

pytestmark = pytest.mark.skipif(find_spec("torchattacks") is None, reason="torchattacks is not installed")

STEP, STEPS = 0.01, 6


class Watched(nn.Module):
    """A small smooth network that remembers the last point it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 49, 10)).double()
        self.eval()
        self.asked = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.asked = x.detach().clone()
        return self.net(x)


@pytest.fixture
def material() -> tuple[Watched, Tensor, Tensor]:
    """Images well inside the box."""
    generator = torch.Generator().manual_seed(3)
    levels = torch.randint(90, 160, (16, 3, 14, 14), generator=generator)
    return Watched(), levels.double() / 255, torch.randint(0, 10, (16,), generator=generator)


def walked(net: Watched, x: Tensor, y: Tensor, eps: float, views: Views | None = None, **parts: float) -> Tensor:
    """The last point of our walk; the loop judges it last."""
    search = MomentumAscent(gradients=STEPS, size=STEP / eps, **parts)
    st.attack(Recipe(search=search, oracle=views), net, x, y, st.Linf(eps), objective="ce", drop_solved=False)
    return net.asked


def theirs(name: str, net: Watched, x: Tensor, y: Tensor, eps: float, **options: object) -> Tensor:
    import torchattacks

    attack = getattr(torchattacks, name)(net, eps=eps, alpha=STEP, steps=STEPS, **options)
    if hasattr(attack, "stacked_kernel"):
        attack.stacked_kernel = attack.stacked_kernel.double()
    return attack(x, y).detach()


WIDE, NARROW = 0.34, 0.03
CASES = {
    "MI": ("MIFGSM", {"decay": 1.0}, {}, None, NARROW),
    "MI, half the momentum": ("MIFGSM", {"decay": 0.5}, {"momentum": 0.5}, None, NARROW),
    "NI": ("NIFGSM", {"decay": 1.0}, {"nesterov": True}, None, WIDE),
    "TI": ("TIFGSM", {"decay": 1.0, "diversity_prob": 0.0}, {"kernel": 15}, None, NARROW),
    "SI": ("SINIFGSM", {"decay": 0.0, "m": 5}, {"momentum": 0.0}, Views(scales=5), NARROW),
    "SI-NI": ("SINIFGSM", {"decay": 1.0, "m": 5}, {"nesterov": True}, Views(scales=5), WIDE),
    "DI that never resizes": ("DIFGSM", {"decay": 1.0, "diversity_prob": 0.0}, {}, None, NARROW),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_path(name, material):
    net, x, y = material
    rival, options, parts, views, eps = CASES[name]
    end = theirs(rival, net, x, y, eps, **options)
    ours = walked(net, x, y, eps, views, **parts)
    # Their kernel of float32 turns no sign here; images are compared to 1e-6.
    assert float((ours - end).abs().max()) <= 1e-6
    assert float((end - x).abs().max()) > STEP


@pytest.mark.parametrize(("part", "value"), [("nesterov", True), ("kernel", 15), ("momentum", 0.0)])
def test_the_comparison_can_fail(part, value, material):
    """Each part moves the path: without it the walk ends elsewhere."""
    net, x, y = material
    plain, other = walked(net, x, y, WIDE), walked(net, x, y, WIDE, **{part: value})
    assert float((plain - other).abs().max()) > STEP / 2


def test_variance_on_a_linear_loss(material):
    """Neighbours of a linear model say nothing new: VMI is MI, here and there."""
    net, x, y = material
    flat = Watched()
    flat.net = nn.Sequential(nn.Flatten(), nn.Linear(588, 10)).double()
    end = theirs("VMIFGSM", flat, x, y, NARROW, decay=1.0, N=3)
    with_them = walked(flat, x, y, NARROW, variance=3)
    assert float((with_them - walked(flat, x, y, NARROW)).abs().mean()) < 1e-4
    assert float((with_them - end).abs().mean()) < 1e-4
    none = theirs("VMIFGSM", net, x, y, NARROW, decay=1.0, N=1, beta=0.0)
    assert float((none - walked(net, x, y, NARROW)).abs().max()) <= 1e-6


def test_variance_moves_the_rate_as_theirs_does(material):
    """On a curved model the draws differ; what both gain differs by little."""
    net, x, y = material
    ends = theirs("VMIFGSM", net, x, y, WIDE, decay=1.0, N=20), walked(net, x, y, WIDE, variance=20)
    with torch.no_grad():
        clean, *gained = (float(nn.functional.cross_entropy(net(point), y)) for point in (x, *ends))
    assert gained[0] > clean + 0.05
    assert gained[1] - clean == pytest.approx(gained[0] - clean, rel=0.02)


def test_their_default_leaves_the_momentum_out(material):
    """The papers' μ is 1; `DIFGSM` and `TIFGSM` come with decay=0."""
    net, x, y = material
    end = theirs("TIFGSM", net, x, y, WIDE, diversity_prob=0.0)
    assert float((walked(net, x, y, WIDE, kernel=15, momentum=0.0) - end).abs().max()) <= 1e-6
    assert float((walked(net, x, y, WIDE, kernel=15) - end).abs().max()) > STEP / 2
