"""Zero-start FGSM with cross-entropy equals the other libraries' to the last bit, wherever their point is feasible.

They round ε to float32, compute x ± ε and clip: where that ends above ε by a rounding, our point is the nearest one
that keeps the budget, one unit in the last place nearer to x. Where float32 rounds ε down, we go to ε itself.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import steepest as st
from tests.rivals.libraries import LIBRARIES, Library

COUNT, BATCH = 1024, 128
"""Some average the loss over the batch: a power of two divides without a rounding, so no gradient's sign can turn."""

EXACT = [float(np.float32(8 / 255)), float(np.float32(0.1)), 0.25]
"""Sizes that float32 holds exactly, so that everybody is asked for the same ε."""


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10)
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Grey levels k/255, about a third of them black or white as in scanned digits."""
    levels = torch.randint(-60, 316, (COUNT, 1, 28, 28), generator=torch.Generator().manual_seed(1))
    return levels.clamp(0, 255).float() / 255


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.randint(0, 10, (COUNT,), generator=torch.Generator().manual_seed(2))


def keeps_the_budget(point: Tensor, x: Tensor, eps: float) -> Tensor:
    """Coordinate by coordinate, in float64, without tolerance."""
    wide = point.double()
    return ((wide - x.double()).abs() <= eps) & (wide >= 0) & (wide <= 1)


def both(library: Library, net: nn.Module, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    if not library.installed:
        pytest.skip(f"{library.name} is not installed")
    model, budget = st.Model(net, box=(0, 1)), st.Linf(eps)
    parts = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
    attack = library.fgsm(net, (BATCH, *x.shape[1:]), eps)
    theirs = torch.cat([attack(*part) for part in parts])
    return theirs, torch.cat([st.fgsm(model, *part, budget, objective="ce") for part in parts])


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
@pytest.mark.parametrize("eps", EXACT)
def test_equal_to_the_last_bit_where_theirs_is_feasible(library, network, images, labels, eps):
    theirs, ours = both(library, network, images, labels, eps)
    feasible = keeps_the_budget(theirs, images, eps)
    assert keeps_the_budget(ours, images, eps).all()
    assert torch.equal(ours[feasible], theirs[feasible])
    assert 0.5 < feasible.double().mean() < 1  # both cases occur
    over = ~feasible
    assert torch.equal(ours[over], torch.nextafter(theirs, images)[over])


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
@pytest.mark.parametrize("eps", [8 / 255, 0.1, 0.3, 0.35])
def test_where_float32_does_not_hold_epsilon(library, network, images, labels, eps):
    theirs, ours = both(library, network, images, labels, eps)
    feasible = keeps_the_budget(theirs, images, eps)
    assert keeps_the_budget(ours, images, eps).all()
    if float(np.float32(eps)) > eps:
        assert torch.equal(ours[feasible], theirs[feasible])
    else:
        assert ((ours - images).abs() >= (theirs - images).abs())[feasible].all()
    rounding = float(np.spacing(np.float32(1.0))) / 2
    assert float((ours.double() - theirs.double()).abs().max()) <= rounding
    assert torch.equal((ours - images).sign(), (theirs - images).sign())


def test_the_comparison_can_fail(network, images, labels):
    """A point of half the size is seen as different: the equality above is no accident of saturated pixels."""
    library = LIBRARIES[1]
    theirs, _ = both(library, network, images[:BATCH], labels[:BATCH], EXACT[0])
    half = st.fgsm(st.Model(network), images[:BATCH], labels[:BATCH], st.Linf(EXACT[0] / 2), objective="ce")
    assert (half != theirs).double().mean() > 0.8
