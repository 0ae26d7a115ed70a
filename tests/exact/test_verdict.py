"""The verdict: which word findings add up to, in what order its reasons stand, and what it asks for."""

from __future__ import annotations

import itertools

import pytest

from steepest.diagnose.contract import Family, Finding, Level, Remedy, Verdict
from steepest.diagnose.verdict import CLEAN, UNKNOWN, verdict


def finding(family: Family, level: Level, remedy: str | None = None, check: str = "") -> Finding:
    return Finding(
        check=check or family.name.lower(),
        question="?",
        family=family,
        level=level,
        says="so",
        source="a paper",
        advice="do this",
        remedy=None if remedy is None else Remedy(name=remedy),
    )


@pytest.mark.parametrize("family", [each for each in Family if each is not Family.INFORMATION])
def test_a_failed_check_gives_the_word_of_its_family(family: Family):
    found = verdict([finding(Family.INFORMATION, Level.PASS), finding(family, Level.FAIL)])
    assert (found.word, found.believable) == (family.value, False)


@pytest.mark.parametrize("family", list(Family))
def test_a_warning_is_enough_for_what_is_no_masking(family: Family):
    found = verdict([finding(family, Level.WARN)])
    enough = family in (Family.UNFINISHED, Family.ONE_STEP)
    assert found.word == (family.value if enough else CLEAN)
    assert found.believable
    assert found.reasons == (f"{family.name.lower()}: so",)


def test_the_gravest_word_counts_whatever_the_order():
    bad = [finding(family, Level.FAIL) for family in Family if family is not Family.INFORMATION]
    assert {verdict(order).word for order in itertools.permutations(bad)} == {"masked"}


def test_reasons_of_the_word_come_first_then_fails_then_warnings():
    found = verdict(
        [
            finding(Family.UNFINISHED, Level.FAIL),
            finding(Family.LOSS, Level.WARN),
            finding(Family.MASKED, Level.WARN, check="second"),
            finding(Family.MASKED, Level.FAIL, check="first"),
        ]
    )
    assert found.reasons == ("first: so", "second: so", "unfinished: so", "loss: so")


def test_nothing_that_ran_is_no_verdict():
    assert verdict([finding(Family.MASKED, Level.NOT_RUN)]).word == UNKNOWN
    assert not verdict([]).believable


def test_a_pass_never_says_robust():
    found = verdict([finding(family, Level.PASS) for family in Family])
    assert found.word == CLEAN
    assert "robust" not in found.word
    assert found.believable
    assert not found.reasons


def test_each_remedy_is_asked_for_once():
    found = verdict(
        [finding(Family.MASKED, Level.FAIL, "surrogate"), finding(Family.MASKED, Level.WARN, "surrogate", "b")]
    )
    assert found.remedies == (Remedy(name="surrogate"), Remedy(name="gradient-free first"))
    assert Verdict.from_record(found.to_record()) == found


def test_masked_gradients_are_searched_around_whichever_check_saw_them():
    masked = verdict([finding(Family.MASKED, Level.FAIL, "estimated gradients")])
    assert [each.name for each in masked.remedies] == ["estimated gradients", "surrogate", "gradient-free first"]
    flat = verdict([finding(Family.LOSS, Level.FAIL, "scaled objective")])
    assert [each.name for each in flat.remedies] == ["scaled objective"]
