"""Paired statistics against their laws: binomial, multinomial, order statistics."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from steepest.audit.paired import DRAWS, holm, mcnemar, medians, shares
from steepest.audit.pairs import Held, pairs


def answers(only_first: int, only_second: int, both: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, False, True, False], [only_first, only_second, both, neither])
    second = np.repeat([False, True, True, False], [only_first, only_second, both, neither])
    return first, second


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 0), (5, 0), (3, 3), (2, 9), (40, 12), (300, 350)])
def test_mcnemar_is_the_sign_test_on_those_who_differ(one: int, other: int) -> None:
    assert mcnemar(one, other) == pytest.approx(binomtest(one, one + other, 0.5).pvalue, rel=1e-12)
    assert mcnemar(one, other) == mcnemar(other, one) <= 1.0


def test_examples_on_which_both_agree_say_nothing_to_the_test() -> None:
    few, many = (shares(*answers(9, 2, both, 5)) for both in (3, 300))
    assert few.p == many.p and (few.only_first, few.only_second) == (9, 2)
    assert few.difference == 7 / 19 and many.difference == 7 / 316


def test_the_interval_is_that_of_the_bootstrap_law() -> None:
    # Where only the first ever differs, the count drawn anew is binomial: its quantiles are known.
    found = shares(*answers(60, 0, 100, 40), seed=3)
    law = binom(200, 0.3)
    for end, tail in zip(found.interval, (0.025, 0.975), strict=True):
        error = 4 * (0.025 * 0.975 / DRAWS) ** 0.5
        assert law.ppf(tail - error) <= round(200 * end) <= law.ppf(tail + error)
    # Differing both ways: the variance is that of a difference of multinomial counts, not of two samples apart.
    both = shares(*answers(30, 30, 100, 40), seed=3)
    spread = (both.interval[1] - both.interval[0]) / 2 / 1.96
    assert spread == pytest.approx((60 / 200 / 200) ** 0.5, rel=0.06)


def test_the_same_seed_draws_the_same() -> None:
    first, second = answers(9, 2, 30, 5)
    assert shares(first, second, seed=1) == shares(first, second, seed=1)
    alike = shares(first, first)
    assert (alike.difference, alike.interval, alike.p) == (0.0, (0.0, 0.0), 1.0)
    empty = np.zeros(0, dtype=bool)
    assert shares(empty, empty).interval == (-1.0, 1.0)


def test_holm_by_hand_and_never_below_what_was_given() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]


def test_the_median_of_draws_follows_the_law_of_order_statistics() -> None:
    count = 101
    values = np.arange(1.0, count + 1)
    found = medians(np.random.default_rng(0).permutation(values), np.zeros(count), seed=5)
    assert (found.first, found.second, found.difference) == (51.0, 0.0, 51.0)
    assert found.interval is not None
    # The median of a draw is at most k where more than half of it is: P = P(Bin(N, k/N) >= 51).
    below = np.array([binom(count, k / count).sf(50) for k in range(1, count + 1)])
    for end, tail in zip(found.interval, (0.025, 0.975), strict=True):
        error = 4 * (0.025 * 0.975 / DRAWS) ** 0.5
        low, high = (1 + int(np.searchsorted(below, tail + sign * error)) for sign in (-1, 1))
        assert low <= end <= high


def test_pairs_are_drawn_together() -> None:
    values = np.random.default_rng(0).normal(size=300)
    found = medians(values + 0.25, values)
    assert found.interval is not None
    assert found.interval == pytest.approx((0.25, 0.25)) and found.difference == pytest.approx(0.25)


def test_what_is_beyond_all_that_was_tried_is_no_number() -> None:
    far = np.array([1.0, np.inf, np.inf, np.inf])
    found = medians(far, np.ones(4))
    assert (found.first, found.second, found.difference, found.interval) == (None, 1.0, None, None)
    half = medians(np.array([1.0, 1.0, np.inf, np.inf]), np.zeros(4))  # the lower of the middle two
    assert half.first == 1.0 and half.interval is None  # some draws have no median
    assert medians(np.zeros(0), np.zeros(0)).first is None


def test_p_is_adjusted_for_the_pairs_of_one_question() -> None:
    radius = np.zeros(40)
    made = {
        name: Held(clean=np.arange(40) < right, sizes=((0.1, np.arange(40) < right - 5),), radius=radius)
        for name, right in (("a", 40), ("b", 33), ("c", 28))
    }
    found = pairs(made)
    assert [(each.first, each.second) for each in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for shown in ([each.clean for each in found], [each.sizes[0][1] for each in found]):
        assert [each.adjusted for each in shown] == holm([each.p for each in shown])
    assert found[1].sizes[0][0] == 0.1 and found[1].clean.difference == 12 / 40
