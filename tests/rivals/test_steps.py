"""BIM and PGD walk the same path as the other libraries' when they start at the same point with the same step.

In float64, where a rounding cannot turn the sign of a gradient; the last point of the walk is compared, since they
return the last one and we the best.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.ascent import GradientAscent
from steepest.attacks.recipe import Recipe
from tests.rivals.libraries import LIBRARIES, Library, Walk

EPS, STEP, STEPS = 0.1, 0.03, 7


class Watched(nn.Module):
    """A small network that remembers the last point it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 49, 10)).double()
        self.eval()
        self.asked = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        self.asked = x.detach().clone()
        return self.net(x)


@pytest.fixture
def material() -> tuple[Watched, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    levels = torch.randint(-60, 316, (64, 1, 14, 14), generator=generator).clamp(0, 255)
    return Watched(), levels.double() / 255, torch.randint(0, 10, (64,), generator=generator)


def walked(net: Watched, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
    """The last point of our walk from `start`."""
    recipe = Recipe(search=GradientAscent(STEPS, STEP / EPS), start=lambda problem, _: problem.region.project(start))
    recipe.run(pose(st.Model(net), x, y, st.Linf(EPS), objective="ce", drop_solved=False))
    return net.asked


@pytest.mark.parametrize("library", [each for each in LIBRARIES if each.start], ids=lambda library: library.name)
@pytest.mark.parametrize("random", [False, True], ids=["bim", "pgd"])
def test_the_same_path(library: Library, material, random):
    if not library.installed:
        pytest.skip(f"{library.name} is not installed")
    net, x, y = material
    assert library.start is not None
    torch.manual_seed(7)
    start = library.start(x, EPS) if random else x
    torch.manual_seed(7)
    theirs = library.pgd(net, tuple(x.shape), Walk(eps=EPS, step=STEP, steps=STEPS, random=random))(x, y)
    ours = walked(net, x, y, start)
    assert float((ours - theirs).abs().max()) <= 1e-6
    assert float((theirs - start).abs().max()) > STEP


def test_another_step_is_another_path(material):
    """The comparison can fail: one step fewer ends elsewhere."""
    library = next((each for each in LIBRARIES if each.start and each.installed), None)
    if library is None:
        pytest.skip("no other library is installed")
    net, x, y = material
    theirs = library.pgd(net, tuple(x.shape), Walk(eps=EPS, step=STEP, steps=STEPS - 1))(x, y)
    assert float((walked(net, x, y, x) - theirs).abs().max()) > 0.01
