"""The logits behind a softmax: the same predictions, and slopes where probabilities have none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import steepest as st
from steepest.models.contract import Need
from steepest.models.objectives import Margin
from steepest.models.peeled import behind_softmax

with torch.random.fork_rng():
    torch.manual_seed(0)  # the gaps between the outputs decide whether a softmax is saturated
    BODY = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
X = torch.rand(9, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(9) % 3
ENDS = {
    "module": nn.Sequential(BODY, nn.Softmax(dim=1)),
    "function": lambda x: torch.softmax(BODY(x), 1),
    "method": lambda x: BODY(x).softmax(dim=-1),
    "functional": lambda x: nn.functional.softmax(BODY(x), dim=1),
}


@pytest.mark.parametrize("name", ENDS)
def test_it_is_the_logarithm_of_the_probabilities(name):
    model = st.Model(ENDS[name])
    seen = behind_softmax(model, X)
    torch.testing.assert_close(seen.logits(X), BODY(X).log_softmax(1).detach())
    assert (seen.logits(X).argmax(1) == model.logits(X).argmax(1)).all()


def test_a_saturated_softmax_has_no_slope_and_what_is_behind_it_has():
    sure = st.Model(lambda x: (1e6 * BODY(x)).softmax(1))
    seen = behind_softmax(sure, X)
    own = BODY(X).detach().argmax(1)
    assert (sure.evaluate(X, own, Margin(), need=Need.GRADIENT).gradient == 0).all()
    slopes = seen.evaluate(X, own, Margin(), need=Need.GRADIENT).gradient
    plain = st.Model(BODY).evaluate(X, own, Margin(), need=Need.GRADIENT).gradient
    torch.testing.assert_close(slopes, 1e6 * plain, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "network", [BODY, lambda x: BODY(x).softmax(1) * 1.0, lambda x: BODY(x.softmax(1)), lambda x: BODY(x).sigmoid()]
)
def test_what_does_not_end_in_a_softmax_is_left_alone(network):
    assert behind_softmax(st.Model(network), X) is None


def test_networks_in_half_precision():
    half = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(dim=1)).to(torch.bfloat16).eval()
    seen = behind_softmax(st.Model(half), X)
    assert seen is not None
    assert (seen.logits(X).argmax(1) == st.Model(half).logits(X).argmax(1)).all()
