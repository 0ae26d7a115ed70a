"""Averages of weights: their laws, and batch-norm statistics that belong to them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from steepest.basis.errors import UsageError
from steepest.harden.averages import EMA, SWA, recomputed


def states(count: int = 5) -> list[dict[str, Tensor]]:
    drawn = torch.Generator().manual_seed(0)
    return [
        {"w": torch.randn(3, 2, generator=drawn), "half": torch.randn(2, generator=drawn).half(), "n": torch.tensor(k)}
        for k in range(count)
    ]


def test_an_exponential_average_is_its_sum():
    average, wanted, all_states = EMA(0.9), states()[0]["w"], states()
    for number, state in enumerate(all_states):
        average.add(state)
        wanted = wanted if number == 0 else 0.9 * wanted + 0.1 * state["w"]
    assert torch.allclose(average.state["w"], wanted, atol=1e-6)
    assert int(average.state["n"]) == 4 and average.state["half"].dtype == torch.float16


def test_without_a_decay_it_is_the_last_state():
    average = EMA(0.0)
    for state in states():
        average.add(state)
    assert all(torch.equal(average.state[key], states()[-1][key]) for key in average.state)


@pytest.mark.parametrize("average", [EMA(0.9), SWA()])
def test_the_average_of_equal_states_is_that_state_bit_by_bit(average: EMA | SWA):
    for _ in range(7):
        average.add(states()[0])
    assert all(torch.equal(average.state[key], states()[0][key]) for key in average.state)


def test_the_plain_average_is_the_mean():
    average = SWA()
    for state in states():
        average.add(state)
    assert average.count == 5
    assert torch.allclose(average.state["w"], torch.stack([s["w"] for s in states()]).mean(0), atol=1e-6)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_that_was_saved_goes_on_as_if_it_had_not_been(kind: str):
    unbroken, first = (EMA(0.7), EMA(0.7)) if kind == "ema" else (SWA(), SWA())
    for state in states():
        unbroken.add(state)
    for state in states()[:2]:
        first.add(state)
    saved = copy.deepcopy(first.state)
    second = EMA(0.7, saved) if isinstance(first, EMA) else SWA(saved, first.count)
    for state in states()[2:]:
        second.add(state)
    assert all(torch.equal(unbroken.state[key], second.state[key]) for key in saved)


def test_an_average_owns_its_numbers():
    average, state = EMA(0.5), states()[0]
    average.add(state)
    kept = average.state["w"].clone()
    state["w"].add_(1)
    assert torch.equal(average.state["w"], kept)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_never_learns_is_refused(decay: float):
    with pytest.raises(UsageError, match=r"decay=.* in \[0, 1\)"):
        EMA(decay)


def test_statistics_are_those_of_the_averaged_weights():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.9), nn.Linear(3, 2))
    batches = [torch.randn(8, 4) + k for k in range(3)]
    before, momentum = copy.deepcopy(net.state_dict()), net[1].momentum
    net.train()
    net[3].eval()
    assert recomputed(net, batches) == 3
    hidden = [net[0](x).detach() for x in batches]
    assert torch.allclose(net[1].running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0), atol=1e-5)
    assert torch.allclose(net[1].running_var, torch.stack([h.var(0) for h in hidden]).mean(0), atol=1e-5)
    assert [part.training for part in net] == [True, True, True, False] and net[1].momentum == momentum
    assert all(torch.equal(before[key], net.state_dict()[key]) for key in before if not key.startswith("1."))
    assert all(p.grad is None for p in net.parameters())


def test_where_there_are_no_statistics_nothing_is_asked():
    asked: list[Tensor] = []
    assert recomputed(nn.Linear(2, 2), iter([torch.zeros(1, 2)]), asked.append) == 0 and not asked
