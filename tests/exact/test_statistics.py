"""Intervals and the rule of chance against the closed forms of scipy.stats."""

from __future__ import annotations

from itertools import combinations

import pytest
from scipy.stats import binom, binomtest, hypergeom

from steepest.audit.statistics import looks_like_chance, most_missed
from steepest.basis.shares import interval


@pytest.mark.parametrize("count", [1, 2, 20, 1000])
def test_the_interval_is_clopper_and_pearsons(count: int) -> None:
    for successes in sorted({0, 1, count // 3, count - 1, count}):
        exact = binomtest(successes, count).proportion_ci(0.95, method="exact")
        assert interval(successes, count) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("count", "classes"), [(20, 2), (60, 3), (256, 10), (256, 1000)])
def test_chance_is_what_guessing_gives_in_99_of_100_cases(count: int, classes: int) -> None:
    most = int(binom.ppf(0.99, count, 1 / classes))
    assert [looks_like_chance(right, count, classes) for right in range(count + 1)] == [
        right <= most for right in range(count + 1)
    ]
    assert not looks_like_chance(0, 19, classes)


def likely(found: int, drawn: int, marked: int, count: int) -> float:
    """P(at most `found` marked ones in a sample), by counting all samples."""
    things = [index < marked for index in range(count)]
    samples = list(combinations(things, drawn))
    return sum(sum(sample) <= found for sample in samples) / len(samples)


def test_what_a_sample_does_not_rule_out_by_counting_all_samples() -> None:
    for count in range(1, 9):
        for drawn in range(1, count + 1):
            for found in range(drawn + 1):
                possible = range(found, count - (drawn - found) + 1)
                truth = max(w for w in possible if w == found or likely(found, drawn, w, count) >= 0.05)
                assert most_missed(found, drawn, count) == truth, (found, drawn, count)


@pytest.mark.parametrize(("found", "drawn", "count"), [(0, 60, 500), (3, 60, 500), (60, 60, 500), (7, 700, 10_000)])
def test_the_bound_is_the_last_that_the_law_of_the_sample_allows(found: int, drawn: int, count: int) -> None:
    most = most_missed(found, drawn, count)
    assert hypergeom(count, most, drawn).cdf(found) >= 0.05 - 1e-9
    if most < count - (drawn - found):
        assert hypergeom(count, most + 1, drawn).cdf(found) < 0.05


def test_limits_of_the_bound() -> None:
    assert most_missed(0, 0, 0) == 0
    assert most_missed(0, 0, 9) == 9  # nothing drawn, nothing ruled out
    for found in (0, 1, 17, 40):
        assert most_missed(found, 40, 40) == found  # all drawn: exactly what was seen
    for drawn in (1, 20, 60):  # a large population: independent draws, Clopper and Pearson's one-sided bound
        assert most_missed(0, drawn, 10**7) / 10**7 == pytest.approx(1 - 0.05 ** (1 / drawn), abs=1e-5)
    assert most_missed(0, 60, 10**6) / 10**6 == pytest.approx(0.0487, abs=1e-4)
    least = binomtest(3, 60, alternative="less").proportion_ci(0.95, method="exact").high
    assert most_missed(3, 60, 10**7) / 10**7 == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("marked", [0, 1, 12, 40, 79, 80])
def test_the_bound_covers_the_truth_in_19_of_20_draws(marked: int) -> None:
    count, drawn = 80, 20
    law = hypergeom(count, marked, drawn)
    covered = sum(law.pmf(found) for found in range(drawn + 1) if most_missed(found, drawn, count) >= marked)
    assert covered >= 0.95 - 1e-9
