"""On affine models the proven size meets the smallest that breaks; what cannot be certified is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import steepest as st
from steepest.basis.errors import DataError, NoCertificateError, UsageError

COUNT, SIZE = 12, 6
BUDGETS = {"linf": st.Linf(0.05), "l2": st.L2(0.1), "l1": st.L1(0.2)}


def material(classes: int = 2, dtype: torch.dtype = torch.float64):
    torch.manual_seed(0)
    network = nn.Linear(SIZE, classes).to(dtype).eval()
    x = torch.rand(COUNT, SIZE, dtype=dtype)
    return st.Model(network, box=(0, 1)), x, network(x).argmax(1).detach()


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("method", ["linear", "crown"])
def test_on_an_affine_model_the_bracket_closes(budget, method):
    model, x, y = material()
    bound = st.certify(model, x, y, BUDGETS[budget], method=method, tolerance=1e-6)
    far = 40.0
    found = st.attack("bisection(attack='fgsm', rounds=30)", model, x, y, BUDGETS[budget].scaled(far))
    closed = found.won & (bound.gauge < 64)
    assert closed.sum() >= COUNT // 2
    ratio = far * found.gauge[closed] / bound.gauge[closed]
    assert bool((ratio >= 1).all()) and bool((ratio <= 1 + 1e-5).all()), ratio
    # What cannot be broken inside the box at all is proven as far as anybody asks.
    assert bool((bound.gauge[~found.won] >= far).all())


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_margin_is_exact_for_many_classes(budget):
    model, x, y = material(classes=5)
    y[3] = (y[3] + 1) % 5
    bound = st.certify(model, x, y, BUDGETS[budget], method="linear", radius=False)
    region, weight, outputs = st.Region(BUDGETS[budget], model.box, x), model.network.weight.detach(), model.logits(x)
    worst = torch.stack(
        [outputs.gather(1, y[:, None])[:, 0] - outputs[:, k] - region.support(weight[k] - weight[y]) for k in range(5)],
        1,
    )
    worst[torch.arange(COUNT), y] = torch.inf
    torch.testing.assert_close(bound.margin, worst.amin(1), rtol=1e-6, atol=1e-9)
    assert bool((bound.margin <= worst.amin(1)).all())
    assert bound.certified.equal(bound.margin > 0) and bound.gauge.equal(bound.certified.double())
    assert float(bound.gauge[3]) == 0


def searched_for(name):
    """A budget whose maximiser is searched for, of 64 values inside [0, 1], and its true support by other means."""
    torch.manual_seed(0)
    x, g, vectors = torch.rand(20, 64).double(), torch.randn(20, 64).double(), torch.randn(5, 64)
    g = torch.where(torch.arange(20)[:, None] < 10, g, torch.where(torch.rand(20, 64) < 0.1, g, 0.0))
    low, high = -x, 1 - x
    if name == "three members":
        budget = st.Intersection(st.Linf(0.1), st.L1(1.5), st.L2(100.0))
        return budget, x, g, st.L1(1.5).support(g, (low.clamp_min(-0.1), high.clamp_max(0.1)))
    from scipy.optimize import linprog

    budget, most = st.Subspace(st.Linf(0.5), vectors), []
    span = vectors.double().numpy()
    for row, down, up in zip(g, low.clamp_min(-0.5), high.clamp_max(0.5), strict=True):
        sides = np.concatenate([span.T, -span.T]), torch.cat([up, -down]).numpy()
        most.append(-linprog(-span @ row.numpy(), A_ub=sides[0], b_ub=sides[1], bounds=(None, None)).fun)
    return budget, x, g, torch.tensor(most, dtype=torch.float64)


@pytest.mark.parametrize("name", ["three members", "subspace"])
def test_a_search_that_ends_below_the_maximum_is_no_bound(name):
    budget, x, g, most = searched_for(name)
    for method in ("linear", "crown"):
        for row in range(len(x)):
            network = nn.Linear(64, 2, bias=False).double()
            network.weight.data = torch.stack([torch.zeros(64).double(), g[row]])
            model, here = st.Model(network, box=(0, 1)), x[row : row + 1]
            margin = st.certify(model, here, torch.tensor([0]), budget, method=method, radius=False).margin
            truth = -float(g[row] @ x[row] + most[row])
            assert truth - 0.1 * float(most[row]) < float(margin) <= truth


def test_the_smallest_ceiling_is_never_below_a_point_of_the_set():
    torch.manual_seed(0)
    x, g, root = torch.rand(30, 16).double(), torch.randn(30, 16).double(), torch.randn(16, 16).double()
    matrix = root @ root.T + 0.01 * torch.eye(16)
    sets = [st.Ellipsoid(size, matrix) for size in (0.1, 1.0, 10.0)]
    sets += [st.Intersection(st.L1(1.0), st.L2(0.3)), st.Intersection(sets[1], st.Linf(0.1), st.L1(0.8))]
    sets += [st.Masked(sets[1], torch.arange(16) % 2 == 0)]
    for budget in sets:
        region = st.Region(budget, st.Box(0, 1), x)
        support, ceiling = region.support(g), region.ceiling(g)
        assert bool((ceiling >= support * (1 - 1e-12)).all())
        assert float((ceiling / support).median()) < 1 + 1e-6


def test_batches_and_methods_add_nothing_and_lose_nothing():
    model, x, y = material(3)
    options = {"tolerance": 1e-3}
    one = st.certify(model, x, y, st.Linf(0.05), method="linear", **options)
    parts = st.certify(model, x, y, st.Linf(0.05), method="linear", batch_size=5, **options)
    torch.testing.assert_close(one.gauge, parts.gauge)
    both = st.certify(model, x, y, st.Linf(0.05), method=["ibp", "linear"], **options)
    loose = st.certify(model, x, y, st.Linf(0.05), method="ibp", **options)
    torch.testing.assert_close(both.gauge, one.gauge.maximum(loose.gauge))
    assert both.method.startswith("ibp(") and both.method.endswith("linear()") and both.assumptions


def test_radii_are_in_data_units_also_for_an_epsilon_per_example():
    model, x, y = material()
    sizes = torch.linspace(0.01, 0.1, COUNT).double()[:, None]
    each = st.certify(model, x, y, st.Linf(sizes), method="linear", tolerance=1e-6)
    same = st.certify(model, x, y, st.Linf(0.05), method="linear", tolerance=1e-6)
    within = each.gauge < 64
    torch.testing.assert_close(each.radius, each.gauge * sizes[:, 0])
    torch.testing.assert_close(each.radius[within], same.radius[within], rtol=1e-5, atol=0)


def test_no_example_is_no_mistake():
    model, x, y = material()
    bound = st.certify(model, x[:0], y[:0], st.L2(0.1), method="linear")
    assert bound.gauge.shape == bound.margin.shape == bound.certified.shape == (0,)


def test_what_cannot_be_certified_is_refused():
    model, x, y = material()
    with pytest.raises(DataError, match="2 classes"):
        st.certify(model, x, y + 2, st.Linf(0.1), method="linear")
    with pytest.raises(DataError, match="labels"):
        st.certify(model, x, y[:3], st.Linf(0.1), method="linear")
    with pytest.raises(UsageError, match="bounds no value"):
        st.certify(st.Model(model.network, box=None), x, y, st.L0(1), method="linear")
    with pytest.raises(UsageError, match="did you mean"):
        st.certify(model, x, y, st.Linf(0.1), method="liner")
    with pytest.raises(UsageError, match="names none"):
        st.certify(model, x, y, st.Linf(0.1), method=[])
    with pytest.raises(UsageError, match="tolerance"):
        st.certify(model, x, y, st.Linf(0.1), method="linear", tolerance=0.0)
    curved = st.Model(nn.Sequential(nn.Linear(SIZE, 3), nn.ReLU(), nn.Linear(3, 2)).double().eval())
    with pytest.raises(NoCertificateError, match="relu"):
        st.certify(curved, x, y, st.Linf(0.1), method="linear")
