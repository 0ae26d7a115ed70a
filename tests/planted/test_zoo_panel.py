"""The whole panel on the whole zoo: the sick are named for what they have, controls and the healthy are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steepest.diagnose.contract import Family, Level
from steepest.diagnose.verdict import CLEAN
from tests.planted.zoo import HONEST, ZOO, base
from tests.planted.zoo.measured import Judged, judged, of

SEEDS = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.full) for seed in (1, 2))])
COUNT, WHOLE = 32, 64
"""Examples: of seed 0, which every change of the code meets, and of the others."""

WORDS = {
    "masking": (Family.MASKED,),
    "random or stateful": (Family.STOCHASTIC,),
    "loss artefact": (Family.LOSS,),
    "overfitted": (Family.ONE_STEP,),
}
OTHERS = {
    # The number is one of the logarithm, which the handle takes: nothing is wrong with it.
    "probabilities": (CLEAN,),
    # Where probabilities are exactly 0 and 1, no objective has a gradient.
    "sharp-probabilities": (Family.MASKED,),
}
"""Words of single members."""

QUICKLY = ("linear", "relu", "pooling", "logits-times-10", "noisy-fgsm-trained")
"""Honest networks that every change of the code meets."""


def count(seed: int) -> int:
    return WHOLE if seed else COUNT


@SEEDS
@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].group in WORDS])
def test_the_sick_are_named(name: str, seed: int) -> None:
    defence = ZOO[name]
    found = of(defence, count(seed), seed=seed)
    assert set(defence.flagged_by) <= set(found.flags()), found.flags()
    assert found.verdict.word in OTHERS.get(name, WORDS[defence.group]), found.verdict.reasons
    assert found.verdict.believable <= (name == "probabilities" or defence.group == "overfitted")


@SEEDS
@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].flagged_by])
def test_the_same_checks_leave_the_controls_alone(name: str, seed: int) -> None:
    defence = ZOO[name]
    network, examples = defence.control(base()), count(seed)
    found = judged(network, defence.epsilon, examples, seed=seed, checks=defence.flagged_by)
    assert not found.flags()


@SEEDS
@pytest.mark.parametrize("name", ["straight-through", "median", "rejecting"])
def test_what_is_no_harm_is_a_warning_at_most(name: str, seed: int) -> None:
    found = of(ZOO[name], count(seed), seed=seed)
    assert set(ZOO[name].flagged_by) <= set(found.flags())
    assert Level.FAIL.value not in found.flags().values(), found.verdict.reasons
    assert found.verdict.believable


def healthy(name: str, seed: int, count: int) -> Judged:
    return judged(HONEST[name].make(seed), HONEST[name].epsilon, count, seed=seed, dtype=HONEST[name].dtype)


@pytest.mark.parametrize("name", QUICKLY)
def test_no_check_fails_on_the_honest(name: str) -> None:
    found = healthy(name, 0, COUNT)
    assert found.verdict.believable, found.verdict.reasons
    assert Level.FAIL.value not in found.flags().values()


@pytest.mark.full
def test_false_alarms_are_rare() -> None:
    """No FAIL on any honest network, and a WARN from at most one check of fifty that ran."""
    ran, warned = 0, []
    for name in HONEST:
        for seed in range(3):
            found = healthy(name, seed, WHOLE)
            assert found.verdict.believable, (name, seed, found.verdict.reasons)
            ran += sum(each.level is not Level.NOT_RUN for each in found.findings.values())
            warned += [(name, seed, check) for check in found.flags()]
    assert len(warned) <= 0.02 * ran, warned


def test_the_documented_table_is_of_this_zoo() -> None:
    """What docs/zoo.md shows was measured on these members, and says what is asked of them."""
    kept = json.loads((Path(__file__).parent / "zoo" / "results.json").read_text(encoding="utf-8"))
    assert list(kept["sick"]) == list(ZOO)
    for name, found in kept["sick"].items():
        assert set(ZOO[name].flagged_by) <= set(found["flags"]), name
        if found["numbers"] is not None:
            assert found["numbers"]["mended"] <= found["numbers"]["truth"] + 0.02 or name == "probabilities"
    assert kept["honest"]["networks"] == 3 * len(HONEST)
    assert sum(each["fail"] for each in kept["honest"]["flags"].values()) == 0
