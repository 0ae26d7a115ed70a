"""Intervals and the rule of chance against the closed forms of scipy.stats."""

from __future__ import annotations

import pytest
from scipy.stats import binom, binomtest

from steepest.audit.statistics import interval, looks_like_chance


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
