"""No certifier proves more than any attack leaves: every one of the catalogue against every other, on every network."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from steepest.attacks.recipes import ATTACKS
from steepest.basis.streams import Stream
from steepest.certify.library import CERTIFIERS
from tests.conformance.table import ROWS
from tests.sandwich.cases import (
    BUDGETS,
    CALLS,
    LONG,
    NETWORKS,
    PAIRS,
    broken,
    case,
    certified,
    prover,
    proves,
    region,
    serves,
)

CLOSE = 1 + 1e-6
NAMES = [name for name in ATTACKS.names() if name in ROWS]
SAMPLED = [("linear K=5", "l1"), ("linear K=5", "l2"), ("MLP ReLU", "linf"), ("MLP ReLU", "l2")]


def smallest(network: str, budget: str, attacks: list[str]) -> tuple[torch.Tensor, list[str]]:
    """The gauge of the smallest success of every example, and the attacks that could be asked."""
    found = {name: size for name in attacks if (size := broken(name, network, budget)) is not None}
    return torch.stack(list(found.values())).amin(0), list(found)


def crossed(network: str, budget: str, attacks: list[str]) -> list[str]:
    """Every certifier that proves the smallest size at which some attack succeeds, one line each.

    A larger region has no larger bound, so whoever proves more than any success does so just beyond the smallest.
    """
    best, asked = smallest(network, budget, attacks)
    size = torch.where(best.isfinite(), best * CLOSE, 1e6)
    names = [name for name in CERTIFIERS.names() if serves(name, network, budget)]
    wrong = [name for name in names if bool((proves(name, network, budget, size) & best.isfinite()).any())]
    return [f"{name} proves {best.tolist()}, which one of {asked} breaks" for name in wrong]


def share_of_attacks(network: str, budget: str) -> list[str]:
    """A third of the attacks for each pair, so that each meets every network."""
    turn = list(NETWORKS).index(network) + list(BUDGETS).index(budget)
    return NAMES[turn % 3 :: 3]


@pytest.mark.parametrize(("network", "budget"), PAIRS)
def test_no_attack_breaks_what_a_certifier_proves(network: str, budget: str) -> None:
    assert crossed(network, budget, share_of_attacks(network, budget)) == []


@pytest.mark.full
@pytest.mark.parametrize(("network", "budget"), PAIRS)
def test_no_attack_at_all_breaks_what_a_certifier_proves(network: str, budget: str) -> None:
    assert crossed(network, budget, NAMES) == []


@pytest.mark.parametrize("network", [name for name in NETWORKS if name not in LONG])
def test_both_sides_have_something_to_say(network: str) -> None:
    best, _ = smallest(network, "linf", share_of_attacks(network, "linf"))
    assert bool(best.isfinite().all()) and bool((best > 0.5).all()), best
    proven = [proves(name, network, "linf", best / 3) for name in ("crown", "linear") if serves(name, network, "linf")]
    assert bool(torch.stack(proven).any(0).all()), best


@pytest.mark.parametrize("certifier", [name for name in CERTIFIERS.names() if name not in CALLS])
def test_a_larger_region_never_has_a_larger_bound_and_rows_are_alone(certifier: str) -> None:
    spoke = 0
    for network in ("linear K=5", "MLP ReLU"):
        made, y = prover(certifier, network), case(network)[2]
        for budget in BUDGETS:
            if made is None or not serves(certifier, network, budget):
                continue
            around = region(network, budget)
            bounds = [made.lower(around.scaled(share), y) for share in (0.0, 0.3, 1.0, 4.0)]
            assert all(bool((later <= earlier + 1e-9).all()) for earlier, later in pairwise(bounds))
            alone = torch.cat([made.lower(around.rows(torch.tensor([row])), y[row : row + 1]) for row in range(len(y))])
            torch.testing.assert_close(alone, bounds[2], rtol=1e-9, atol=1e-9)
            spoke += 1
    assert spoke


@pytest.mark.parametrize("certifier", CERTIFIERS.names())
def test_no_sampled_point_of_a_certified_ball_is_misclassified(certifier: str) -> None:
    pairs = [(network, budget) for network, budget in SAMPLED if serves(certifier, network, budget)]
    assert pairs
    for network, budget in pairs:
        gauge, (model, _, y) = certified(certifier, network, budget), case(network)
        rows = (gauge > 0).nonzero().squeeze(1).repeat_interleave(2_000)
        ball = region(network, budget).rows(rows).scaled(gauge[rows])
        for step in range(-(-100_000 // len(pairs) // len(rows)) if len(rows) else 0):
            points = ball.sample(Stream.of(0, torch.arange(len(rows))), step)
            assert bool((model.logits(points).argmax(1) == y[rows]).all())
