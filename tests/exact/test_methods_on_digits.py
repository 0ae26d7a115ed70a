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
        "awp(method='pgd(steps=5, step=0.5)')", "ibp", "crown-ibp",
    ],
)  # fmt: skip
def test_every_method_hardens(call: str):
    plain = robust(hardened("plain", 0.15, epochs=10), 0.15)
    epochs = 40 if "ibp" in call else 20
    assert robust(hardened(call, 0.15, epochs=epochs), 0.15) > max(5 * plain, plain + 0.3)


@pytest.mark.full
def test_fgsm_training_is_as_good_as_pgd_training_at_a_small_budget():
    fgsm, pgd = (robust(hardened(call, 0.05, epochs=15), 0.05) for call in ("fgsm", "pgd(steps=5, step=0.5)"))
    assert fgsm > pgd - 0.03


@pytest.mark.full
def test_fgsm_training_overfits_at_a_large_budget_and_n_fgsm_does_not():
    gaps = {}
    for call in ("fgsm", "n-fgsm"):
        model = hardened(call, 0.4, epochs=60, width=256)
        gaps[call] = robust(model, 0.4, "fgsm") - robust(model, 0.4)
    assert gaps["fgsm"] > 0.3
    assert gaps["n-fgsm"] < 0.15
