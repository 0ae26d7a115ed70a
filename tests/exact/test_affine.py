"""On affine models FGSM is exact: it equals brute force, and its gain is `support`, for every budget."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from steepest.attacks.api import attack, fgsm, pose
from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.models.model import Model
from steepest.models.objectives import Targeted
from tests.conformance.cases import case
from tests.tables import CLOSED, NAMES, budgets, needs_a_box, slow_under_full

DTYPE = torch.float64
BOXES = {"cut": (0.0, 1.0), "free": None}


def affine(size: int, seed: int, shape: tuple[int, ...]) -> tuple[Model, Tensor, Tensor]:
    """A two-class affine model, inputs partly at the box's border, and the gradient of the negative margin."""
    draw = torch.Generator().manual_seed(seed)
    w = torch.randn(size, dtype=DTYPE, generator=draw)
    w[0] = 0.0  # a feature without influence
    x = torch.rand(3, *shape, dtype=DTYPE, generator=draw)
    x.view(3, -1)[1, : size // 2] = 1.0
    x.view(3, -1)[2, size // 2 :] = 0.0
    return lambda p: torch.stack([-p.reshape(len(p), -1) @ w / 2, p.reshape(len(p), -1) @ w / 2 + 0.1], 1), x, w


def gain(network, x: Tensor, point: Tensor) -> Tensor:
    z, clean = network(point), network(x)
    return (z[:, 1] - z[:, 0]) - (clean[:, 1] - clean[:, 0])


def corners(region: Region) -> Tensor:
    """All 2^d corners of the hull cut by the box, [2^d, N, d]."""
    lower, upper = region.bounds
    size = lower[0].numel()
    picks = torch.tensor(list(itertools.product([False, True], repeat=size))).reshape(-1, 1, *lower.shape[1:])
    return torch.where(picks, upper, lower)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("objective", "shape"), [("scaled-ce", (6,)), ("ce", (2, 3)), ("margin", (1, 2, 3))])
def test_fgsm_gains_exactly_the_support_and_nothing_feasible_gains_more(name, box, objective, shape):
    for seed in (0, 1):
        network, x, w = affine(6, seed, shape)
        budget, y = budgets(shape, 0.3)[name], torch.zeros(3, dtype=torch.int64)
        model = Model(network, BOXES[box])
        if BOXES[box] is None and needs_a_box(budget, x):
            return  # refused, as the laws of regions say
        point = fgsm(model, x, y, budget, objective=objective)
        region, g = Region(budget, model.box, x), w.reshape(shape).expand_as(x)
        found = gain(network, x, point)
        missing = getattr(budget, "accuracy", 0.0)  # where the answer is iterated, and pulled back inside
        assert torch.allclose(found, region.support(g), rtol=1e-11 + missing, atol=1e-11)
        if budget.monotone:
            assert torch.equal(point.reshape(3, -1)[:, 0], x.reshape(3, -1)[:, 0])  # no influence, no move
        judged = attack("fgsm", model, x, y, budget, objective=objective, drop_solved=False)
        assert torch.equal(judged.point, torch.where((found > 0).reshape(3, *[1] * len(shape)), point, x))
        for step in range(16):
            other = (region.sample if step % 2 else region.corner)(Stream.of(seed, torch.arange(3)), step)
            assert (gain(network, x, other) <= found + 1e-12 + missing).all()


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", ["linf", "linf per feature", "weighted", "one-sided", "masked linf"])
@pytest.mark.parametrize("size", [1, 4, pytest.param(10, marks=pytest.mark.full)])
def test_fgsm_equals_brute_force_over_all_corners(name, box, size):
    network, x, _ = affine(size, 5, (size,)) if size > 1 else (lambda p: torch.cat([-p, p], 1), torch.rand(3, 1), None)
    x = x.to(DTYPE)
    model, y = Model(network, BOXES[box]), torch.zeros(3, dtype=torch.int64)
    region = Region(budgets((size,), 0.3)[name], model.box, x)
    best = torch.stack([gain(network, x, corner) for corner in corners(region)]).amax(0)
    assert torch.allclose(gain(network, x, fgsm(model, x, y, region.budget)), best, rtol=1e-12, atol=1e-14)


def test_fgsm_equals_brute_force_over_the_corners_of_a_free_cross():
    network, x, _ = affine(6, 6, (6,))
    budget, y = budgets((6,), 0.3)["l1"], torch.zeros(3, dtype=torch.int64)
    cross = 0.3 * torch.cat([torch.eye(6, dtype=DTYPE), -torch.eye(6, dtype=DTYPE)])
    best = torch.stack([gain(network, x, x + corner) for corner in cross]).amax(0)
    assert torch.allclose(gain(network, x, fgsm(Model(network, None), x, y, budget)), best, rtol=1e-11)


def test_the_gain_in_linf_is_epsilon_times_the_sum_of_the_weights():
    network, x, w = affine(6, 7, (6,))
    y = torch.zeros(3, dtype=torch.int64)
    for eps in (1e-3, 8 / 255, 0.5):
        point = fgsm(Model(network, None), x, y, budgets((6,), eps)["linf"])
        assert torch.allclose(gain(network, x, point), eps * w.abs().sum().expand(3), rtol=1e-10)


def test_a_target_is_approached_where_misclassification_leaves_its_own_class():
    """C17: towards the only other class is the same step; towards the own class is the opposite one."""
    network, x, _ = affine(6, 8, (6,))
    model, y, budget = Model(network, None), torch.zeros(3, dtype=torch.int64), budgets((6,), 0.3)["linf"]
    away = fgsm(model, x, y, budget, objective="margin") - x
    assert torch.allclose(fgsm(model, x, y, budget, objective=Targeted("margin", 1)) - x, away)
    assert torch.allclose(fgsm(model, x, y, budget, objective=Targeted("margin", 0)) - x, -away)


IDENTITIES = [
    ("bim(steps=1, step=1)", "fgsm"),
    ("r-fgsm(noise=0)", "fgsm"),
    ("mi-fgsm(steps=1)", "fgsm"),
    ("mi-fgsm(steps=8, momentum=0)", "bim(steps=8, step=1/8)"),
    ("pgd(steps=1, step=2)", "fgsm"),
    ("pgd(steps=6, step=0.5)", "fgsm"),
    ("apgd(steps=3)", "fgsm"),
    ("frank-wolfe(steps=1)", "fgsm"),
    ("frank-wolfe(steps=7)", "fgsm"),
]


def holds(one: str, name: str, box: str) -> bool:
    """Where the gradient step is the maximiser: not on a cut sphere; from anywhere only in a product of intervals."""
    if one.startswith("frank-wolfe"):
        return True
    return name != "l2" or (box == "free" and "pgd" not in one)


@pytest.mark.parametrize(
    ("one", "other", "name", "box"),
    [
        (one, other, name, box)
        for one, other in IDENTITIES
        for name in ("linf", "weighted", "one-sided", "masked linf", "l2")
        for box in BOXES
        if holds(one, name, box)
    ],
)
def test_identities_between_recipes(one, other, name, box):
    """On affine models."""
    network, x, _ = affine(6, 9, (2, 3))
    y, budget = torch.zeros(3, dtype=torch.int64), budgets((2, 3), 0.2)[name]
    first, second = (attack(text, Model(network, BOXES[box]), x, y, budget, drop_solved=False) for text in (one, other))
    assert torch.allclose(first.value, second.value, atol=1e-10)
    if "pgd" not in one:  # a random start also moves the feature that has no influence
        assert torch.allclose(first.point, second.point, atol=1e-10)


@pytest.mark.parametrize("name", slow_under_full(NAMES))
def test_without_momentum_mi_fgsm_is_bim_on_curved_models_in_every_budget(name):
    for kind in ("vector K=2", "series K=3", "image K=10"):
        some = case(kind)
        first = some.attack("mi-fgsm(steps=8, momentum=0)", name, drop_solved=False)
        second = some.attack("bim(steps=8, step=1/8)", name, drop_solved=False)
        assert torch.allclose(first.point, second.point, atol=1e-10)
        assert torch.equal(first.won, second.won)


@pytest.mark.parametrize("name", ["l2", "masked l2", "l1", "masked l1"])
def test_one_full_step_in_a_free_ball_is_the_extreme_point(name):
    """ε·g/‖g‖₂; of L1 the one coordinate with the largest |gᵢ|, since 1 % of six coordinates is one."""
    network, x, w = affine(6, 9, (6,))
    y, budget = torch.zeros(3, dtype=torch.int64), budgets((6,), 0.2)[name]
    found = attack("bim(steps=1, step=1)", Model(network, None), x, y, budget, drop_solved=False, objective="margin")
    region = Region(budget, Model(network, None).box, x)
    assert torch.allclose(gain(network, x, found.point), region.support(w.expand_as(x)), rtol=1e-10)
    assert torch.allclose(found.point, region.extreme(w.expand_as(x)), atol=1e-10)


@pytest.mark.parametrize("text", ["bim(steps=120)", "pgd(steps=120, step=0.2, start='corner')"])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("name", slow_under_full(CLOSED))
def test_many_steps_reach_the_support_on_affine_models_in_every_budget(name, box, text):
    """The projection inside the box is exact, so that the fixed points of step and projection are the maximisers."""
    network, x, w = affine(6, 3, (6,))
    y, budget = torch.zeros(3, dtype=torch.int64), budgets((6,), 0.5)[name]
    found = attack(text, Model(network, BOXES[box]), x, y, budget, drop_solved=False, objective="margin")
    best = Region(budget, Model(network, BOXES[box]).box, x).support(w.expand_as(x))
    assert torch.allclose(gain(network, x, found.point), best, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("one", ["bim(steps=1, step=1)", "r-fgsm(noise=0)", "mi-fgsm(steps=1)"])
def test_one_full_step_is_fgsm_on_curved_models_too(one):
    for kind in ("vector K=2", "series K=3", "image K=10"):
        some = case(kind)
        for name in ("linf", "weighted", "one-sided", "masked linf"):
            first, second = (some.attack(text, name, drop_solved=False) for text in (one, "fgsm"))
            assert torch.allclose(first.point, second.point, atol=1e-10)
            assert torch.equal(first.won, second.won)


def test_a_region_is_posed_once_and_its_random_start_is_inside():
    network, x, _ = affine(6, 10, (6,))
    problem = pose(Model(network), x, torch.zeros(3, dtype=torch.int64), budgets((6,), 0.2)["l2"])
    assert problem.region.contains(problem.region.sample(problem.stream, 0)).all()
