"""Training methods from end to end, on scans of digits: what each is there for, it does."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.audit.data.builtin import open_digits
from steepest.basis.streams import Stream
from steepest.budgets.region import Region
from steepest.certify.library import CERTIFIERS
from steepest.harden.contract import Classroom, Lesson
from steepest.harden.library import METHODS

BATCH = 100
HELD_OUT = 397


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    source = open_digits()
    return source.stored, source.labels


def hardened(call: str, eps: float, *, epochs: int, width: int = 64, seed: int = 0) -> st.Model:
    """A small convolutional network, trained by one method."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, width), nn.ReLU(), nn.Linear(width, 10),
        )  # fmt: skip
        x, y = (each[HELD_OUT:] for each in digits())
        model, method = st.Model(net), METHODS.build(call)
        optimiser = torch.optim.Adam(net.parameters(), 2e-3)
        room, total = Classroom(network=net, model=model, optimiser=optimiser), epochs * (len(x) // BATCH)
        number = 0
        for epoch in range(epochs):
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed * 1000 + epoch))
            for ids in order[: len(x) // BATCH * BATCH].split(BATCH):
                region, stream = Region(st.Linf(eps), model.box, x[ids]), Stream.of(seed, ids).split(number)
                found = method.teach(
                    room, Lesson(region=region, y=y[ids], stream=stream, number=number, share=number / total)
                )
                assert found.loss == found.loss
                number += 1
    net.eval()
    return model


def robust(model: st.Model, eps: float, attack: str = "pgd(steps=20)") -> float:
    x, y = (each[:HELD_OUT] for each in digits())
    return float((~st.attack(attack, model, x, y, st.Linf(eps)).won).double().mean())


def test_pgd_training_holds_where_plain_training_does_not():
    plain, pgd = (robust(hardened(call, 0.2, epochs=4), 0.2) for call in ("plain", "pgd(steps=3, step=0.6)"))
    assert pgd > 5 * max(plain, 0.02)


@pytest.mark.full
@pytest.mark.parametrize(
    "call",
    [
        "n-fgsm", "fgsm-rs", "grad-align", "free(replays=4)", "trades(steps=5, step=0.5)", "mart(steps=5, step=0.5)",
        "awp(method='pgd(steps=3, step=0.5)')",
    ],
)  # fmt: skip
def test_every_method_hardens(call: str):
    model = hardened(call, 0.15, epochs=12)
    assert robust(model, 0.15) > robust(plainly_trained(), 0.15) + 0.25


@functools.cache
def plainly_trained() -> st.Model:
    return hardened("plain", 0.15, epochs=10)


@pytest.mark.full
@pytest.mark.parametrize("call", ["ibp", "crown-ibp"])
def test_certified_training_is_proven(call: str):
    x, y = (each[:HELD_OUT] for each in digits())
    proven = []
    for model in (hardened(call, 0.1, epochs=40), plainly_trained()):
        region = Region(st.Linf(0.1), model.box, x)
        bound = CERTIFIERS.build("ibp").prepared(model, tuple(x.shape[1:])).lower(region, y)
        proven.append(float((bound > 0).double().mean()))
        assert proven[-1] <= robust(model, 0.1)
    assert proven[0] > 0.5
    assert proven[1] < 0.05


@pytest.mark.full
def test_fgsm_training_is_as_good_as_pgd_training_at_a_small_budget():
    fgsm, pgd = (robust(hardened(call, 0.05, epochs=15), 0.05) for call in ("fgsm", "pgd(steps=5, step=0.5)"))
    assert fgsm > pgd - 0.03


@pytest.mark.full
def test_fgsm_training_fits_its_one_step_at_a_large_budget_and_n_fgsm_does_not():
    gaps = {}
    for call in ("fgsm", "n-fgsm"):
        model = hardened(call, 0.25, epochs=30, width=256)
        gaps[call] = robust(model, 0.25, "fgsm") - robust(model, 0.25)
    assert gaps["fgsm"] > 0.2
    assert gaps["n-fgsm"] < 0.15
