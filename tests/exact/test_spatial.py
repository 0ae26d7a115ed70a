"""Rotations and translations: whole pixels and right angles exactly, the grid's worst, and no budget or a real one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.library.spatial import Transforms, spaced, transformed
from steepest.budgets.whole import Whole
from tests.conformance.cases import Case, layers

DTYPE = torch.float64
ZERO = torch.tensor(0.0, dtype=DTYPE)


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """Translation by whole pixels, zeros around, without interpolation."""
    _, _, height, width = image.shape
    wide = nn.functional.pad(image, [4] * 4)
    return wide[:, :, 4 - down : 4 - down + height, 4 - right : 4 - right + width]


def material(count: int = 24) -> Case:
    net = layers((2, 6, 6), 10, 0).double()
    x = torch.rand(count, 2, 6, 6, dtype=DTYPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return Case(net, x, net(x).argmax(1))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, 0), (0, -2), (-3, 2), (1, 3)])
def test_whole_pixels_are_exact(down, right):
    for shape in ((1, 2, 6, 6), (2, 1, 5, 8)):
        image = torch.rand(shape, dtype=DTYPE)
        assert torch.allclose(transformed(image, (0, down, right), ZERO), shifted(image, down, right), atol=1e-12)


def test_right_angles_are_exact_and_rotation_comes_before_translation():
    image = torch.rand(2, 3, 6, 6, dtype=DTYPE)
    for quarter in (1, 2, -1):
        wanted = torch.rot90(image, quarter, (2, 3))
        assert torch.allclose(transformed(image, (90.0 * quarter, 0, 0), ZERO), wanted, atol=1e-12)
        assert torch.allclose(transformed(image, (90.0 * quarter, 1, -2), ZERO), shifted(wanted, 1, -2), atol=1e-12)


def test_angles_are_those_of_pixels_also_where_images_are_not_square():
    """A pixel at (2, 0) from the centre of 5×9 goes to (2·cos, −2·sin) seen in (right, down)."""
    rows, columns = torch.meshgrid(torch.arange(5).double() - 2, torch.arange(9).double() - 4, indexing="ij")
    dot = torch.zeros(1, 1, 5, 9, dtype=DTYPE)
    dot[0, 0, 2, 6] = 1
    turned = transformed(dot, (30.0, 0, 0), ZERO)[0, 0]
    across, along = (float((turned * place).sum() / turned.sum()) for place in (columns, rows))
    assert across == pytest.approx(2 * 0.8660254, abs=0.12)
    assert along == pytest.approx(-2 * 0.5, abs=0.12)


def test_the_grid():
    assert len(Transforms(30.0, 3.0, 31, 5).grid) == 774  # and x itself
    assert spaced(3, 5) == [-3, -1.5, 0, 1.5, 3]
    assert len(Transforms(0.0, 3.0, 31, 3).grid) == 8
    assert Transforms(0.0, 0.0, 1, 1).steps == 0
    for wrong in ({"degrees": 200}, {"pixels": -1}, {"angles": 4}, {"shifts": 0}):
        with pytest.raises(st.UsageError, match="is not allowed"):
            st.recipes.spatial(**wrong)


def test_the_worst_of_the_grid_is_found_for_every_example():
    some = material()
    result = st.attack(
        "spatial(degrees=90, pixels=2, angles=3, shifts=3)", some.network, some.x, some.y, None, drop_solved=False
    )
    every = [
        shifted(torch.rot90(some.x, turn, (2, 3)), down, right)
        for turn in (-1, 0, 1)
        for down in (-2, 0, 2)
        for right in (-2, 0, 2)
    ]
    margins = torch.stack([some.margin(each) for each in every])
    assert result.won.double().mean() > 0.3
    assert torch.equal(result.won, (margins > 0).any(0))
    assert torch.allclose(result.value, margins.amax(0), atol=1e-9)
    best = torch.stack(every)[margins.argmax(0), torch.arange(len(some.x))]
    assert torch.allclose(result.point, best, atol=1e-9)
    assert (result.gauge == 0).all()
    assert result.forwards.tolist() == [27] * len(some.x)
    assert not result.backwards.any()


def test_solved_examples_leave():
    some = material()
    text = "spatial(degrees=90, pixels=2, angles=3, shifts=3)"
    stopping = st.attack(text, some.network, some.x, some.y, None)
    going = st.attack(text, some.network, some.x, some.y, None, drop_solved=False)
    assert torch.equal(stopping.won, going.won)
    assert (stopping.forwards[stopping.won] < 27).any()
    assert (stopping.forwards[~stopping.won] == 27).all()
    alone = st.attack(text, some.network, some.x[3:4], some.y[3:4], None)
    assert torch.equal(alone.forwards, stopping.forwards[3:4])


def test_within_a_budget_only_what_lies_inside_counts():
    some = material()
    some.x[:12] = 0.5 + 0.01 * some.x[:12]  # nearly flat, but the zeros that come in are far
    with torch.no_grad():
        some.y[:] = some.network(some.x).argmax(1)
    text = "spatial(degrees=90, pixels=1, angles=3, shifts=3)"
    free = st.attack(text, some.network, some.x, some.y, None, drop_solved=False)
    for budget in (st.Linf(0.02), st.Linf(0.6), st.L2(3.0), st.Masked(st.Linf(1.0), torch.tensor(False))):
        result = st.attack(text, some.network, some.x, some.y, budget, drop_solved=False)
        assert (result.gauge <= 1).all()
        assert (result.value <= free.value + 1e-12).all()
        assert free.won[result.won].all()
    tight = st.attack(text, some.network, some.x, some.y, st.Linf(0.02), drop_solved=False)
    turned = (tight.point != some.x).flatten(1).any(1)
    assert turned[:12].any() and not turned[12:].any()
    quarters = [torch.rot90(some.x, turn, (2, 3)) for turn in (-1, 0, 1)]
    best = torch.stack([some.margin(each) for each in quarters]).amax(0)[:12]
    assert torch.allclose(tight.value[:12], best, atol=1e-9)


def test_what_comes_in_is_the_darkest_of_the_box():
    torch.manual_seed(4)  # with other weights no shift may raise the margin
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    x, y = torch.rand(2, 1, 6, 6) * 2 - 1, torch.zeros(2, dtype=torch.int64)
    for box, dark in (((-1, 1), -1.0), (None, 0.0), ((-2, 2), -2.0)):
        result = st.attack(
            "spatial(degrees=0, pixels=3, angles=1, shifts=3)", st.Model(net, box), x, y, None, drop_solved=False
        )
        moved = (result.point != x).flatten(1).any(1)
        assert moved.any()
        assert ((result.point[moved] - dark).abs() < 1e-6).flatten(1).sum(1).min() >= 18


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_precision(dtype):
    some = material(4)
    x = some.x.to(dtype)
    network = some.network.to(dtype)
    result = st.attack("spatial(angles=3, shifts=3)", network, x, some.y, None, drop_solved=False)
    assert result.point.dtype == dtype
    assert float(result.point.min()) >= 0 and float(result.point.max()) <= 1


def test_other_attacks_want_a_budget():
    some = material(2)
    for text in ("fgsm", "pgd", "noise", "universal"):
        with pytest.raises(st.UsageError, match=r"needs a budget.*spatial"):
            st.attack(text, some.network, some.x, some.y, None)
    assert Whole().scaled(2.0).gauge(torch.ones(2, 3)).tolist() == [0, 0]
