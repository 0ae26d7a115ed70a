"""Audits of the zoo as the naive make them: the first number is high, the mended one is that of no defence at all."""

from __future__ import annotations

import pytest

from tests.planted.zoo import HONEST, ZOO, Defence, base, digits
from tests.planted.zoo.measured import LADDERS, audited, audited_on, first, reference

pytestmark = pytest.mark.diagnosed

COUNT, WHOLE = 100, 150
NEAR = 0.02
"""Two points of robust accuracy."""

MENDED = [name for name in ZOO if ZOO[name].group in ("masking", "loss artefact", "overfitted")]
QUICKLY = ("quantised-5", "decision-only", "sharp-probabilities", "overfitted")
"""What every change of the code meets; the others take longer."""

BLIND = ("thermometer", "detached", "nan-gradient", "probabilities")
"""Without a gradient an audit searches through the surrogate from the beginning, and what is NaN counts as broken."""


def mended(defence: Defence, ladder: str, count: int) -> None:
    run = audited(defence.make(base()), defence.epsilon, count, ladder)
    if ladder == "fgsm" and defence.name not in BLIND:
        assert first(run) > 0.35
        assert run.summary["mended"] is not None
    assert run.robust_accuracy <= reference(defence, count) + NEAR


@pytest.mark.parametrize("name", QUICKLY)
def test_a_naive_number_is_mended(name: str) -> None:
    mended(ZOO[name], "fgsm", COUNT)


@pytest.mark.full
@pytest.mark.parametrize("ladder", LADDERS)
@pytest.mark.parametrize("name", [name for name in MENDED if name != "probabilities"])
def test_every_naive_number_is_mended(name: str, ladder: str) -> None:
    mended(ZOO[name], ladder, WHOLE)


@pytest.mark.parametrize("name", ["relu", "noisy-fgsm-trained"])
def test_an_audit_of_the_honest_raises_no_alarm(name: str) -> None:
    alarmed(name, 0, COUNT // 2)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", HONEST)
def test_no_audit_of_the_honest_raises_an_alarm(name: str, seed: int) -> None:
    alarmed(name, seed, WHOLE)


def alarmed(name: str, seed: int, count: int) -> None:
    honest = HONEST[name]
    x, y = digits().held_out(count)
    run = audited_on(honest.make(seed), (x.to(honest.dtype), y), honest.epsilon, "quick", seed=seed)
    assert len(run.findings) > 20
    assert run.verdict.believable, run.verdict.reasons
