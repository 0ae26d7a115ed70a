"""CLEVER: exact where the model is linear, an estimate elsewhere, and refuted where gradients are masked."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.certify.clever import fitted_end
from steepest.certify.library import CERTIFIERS


@pytest.mark.parametrize("budget", [st.Linf(0.1), st.L2(0.3), st.L1(0.5), st.PixelL2(0.2)])
def test_a_linear_model_is_known_exactly(budget: object) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).eval()
    x, model = torch.rand(6, 3, 1, 2), st.Model(net, box=None)
    y = model.logits(x).argmax(1)
    found = st.clever(model, x, y, budget, batches=3, samples=2)
    weight, z = net[1].weight.double(), model.logits(x).double()
    true = torch.stack(
        [
            (z.gather(1, y[:, None])[:, 0] - z[:, k]) / budget.support((weight[y] - weight[k]).reshape(x.shape))
            for k in range(4)
        ],
        1,
    ).nan_to_num(nan=torch.inf)
    assert torch.allclose(found.gauge, true.amin(1).clamp_max(1), rtol=1e-5) and found.believed.all()
    assert torch.allclose(found.radius, found.gauge * budget.epsilon)


def test_where_the_model_is_wrong_it_is_zero() -> None:
    model = st.Model(nn.Flatten(), box=None)
    found = st.clever(model, torch.tensor([[1.0, 0.0]]), torch.tensor([1]), st.L2(0.5), batches=2, samples=1)
    assert found.gauge == 0 and found.radius == 0


def test_a_masked_model_has_a_huge_estimate_which_an_attack_refutes() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 2, bias=False)
    net.weight.data.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]]))

    def quantised(p: Tensor) -> Tensor:
        # Steps of 1/8 with hardly a slope inside: what the gradient sees is a millionth of the truth.
        return net((p * 8).round().detach() / 8 - 0.45 + 1e-6 * p)

    model, x, y = st.Model(quantised), torch.full((3, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    budget = st.Linf(0.2)
    estimate = st.clever(model, x, y, budget, batches=4, samples=8)
    broken = st.attack("square(queries=200)", model, x, y, budget, seed=0)
    assert broken.won.all() and (estimate.gauge == 1).all()  # it says: nothing within ε, which is not so
    assert (estimate.slope * 1e3 < 0.4).all()
    # Nothing that looks like a guarantee comes of it.
    assert "not a bound" in estimate.warning and "estimate" in inspect.getdoc(st.clever).lower()
    assert not any("clever" in name for name in CERTIFIERS.names()) and not hasattr(estimate, "lower")


def test_the_end_of_a_known_law_is_found() -> None:
    generator = np.random.default_rng(0)
    # A reverse Weibull law of shape 3 that ends at 5.
    draws = 5 - generator.weibull(3.0, 400)
    end, believed = fitted_end(draws)
    assert believed and end == pytest.approx(5, abs=0.2) and end >= draws.max()
    # Two heaps are no such law: then the largest sample stands for the end.
    heaps = np.concatenate([1 + 1e-3 * generator.random(300), 5 + 1e-3 * generator.random(300)])
    assert fitted_end(heaps) == (heaps.max(), False)


def test_what_it_cannot_speak_of_is_refused() -> None:
    model, x, y = st.Model(nn.Flatten()), torch.full((1, 2), 0.5), torch.tensor([0])
    with pytest.raises(st.UsageError, match=r"segments.*L0"):
        st.clever(model, x, y, st.L0(1))
    with pytest.raises(st.UsageError, match="batches=1"):
        st.clever(model, x, y, st.L2(1.0), batches=1)
