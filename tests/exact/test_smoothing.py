"""Randomised smoothing, where everything is known: linear classifiers, binomial laws, tables by hand."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import beta, binom, norm

from steepest.basis.errors import DataError, UsageError
from steepest.certify.smoothing import (
    Counts,
    Smoothed,
    concluded,
    drawing,
    lower_share,
    most,
    radius_of,
    smoothed,
)
from steepest.models.model import Model

SIGMAS = (0.12, 0.25, 0.5, 1.0)
W, B = torch.tensor([3.0, -4.0]), 0.5


def linear(x: torch.Tensor) -> torch.Tensor:
    """sign(w·x + b) as two logits; ‖w‖ = 5."""
    side = x @ W.to(x) + B
    return torch.stack([side, -side], 1)


def distance(x: torch.Tensor) -> torch.Tensor:
    return (x.double() @ W.double() + B).abs() / 5


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_radius_of_a_linear_classifier_is_its_distance_whatever_the_noise(sigma: float) -> None:
    exact = torch.linspace(0.0, 2 * sigma, 9, dtype=torch.float64)
    share = torch.as_tensor(norm.cdf(exact.numpy() / sigma))
    assert torch.allclose(radius_of(share, sigma), exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_counted_radii_stay_below_the_distance_and_come_near_it(sigma: float) -> None:
    x = torch.tensor([[0.3, 0.1], [-0.4, 0.2], [0.0, 0.125 + 0.5 * sigma], [0.1, -0.3]])
    found = smoothed(linear, x, torch.zeros(4, dtype=torch.int64), sigma=sigma, draws=4000, alpha=1e-6)
    truth = distance(x)
    assert (found.radius <= truth).all()
    share = norm.cdf(truth.numpy() / sigma)
    # Six standard deviations of the count, on top of what the bound itself gives away.
    least = lower_share(torch.as_tensor((4000 * share - 6 * (4000 * share * (1 - share)) ** 0.5).clip(0)), 4000, 1e-6)
    assert (found.p_low >= least).all()
    sure = found.prediction >= 0
    assert sure.any() and torch.equal(found.prediction[sure], linear(x).argmax(1)[sure])


def test_no_radius_exceeds_that_of_draws_which_all_agree() -> None:
    assert most(1.0, 100_000, 0.001) == pytest.approx(3.8115, abs=5e-5)
    assert most(0.25, 100_000, 0.001) == pytest.approx(0.953, abs=5e-4)
    assert most(0.5, 100_000, 0.001) == pytest.approx(1.906, abs=5e-4)
    assert most(1.0, 1, 0.001) < 0
    x = torch.tensor([[100.0, 0.0]])
    found = smoothed(linear, x, torch.tensor([0]), sigma=0.5, draws=500)
    assert float(found.radius) == pytest.approx(found.most, rel=1e-12) == pytest.approx(0.5 * norm.ppf(0.001**0.002))


def test_the_lower_bound_is_the_beta_quantile_and_covers_every_binomial() -> None:
    n, alpha = 60, 0.05
    k = torch.arange(n + 1)
    bound = lower_share(k, n, alpha)
    assert bound[0] == 0
    assert torch.allclose(bound[1:], torch.as_tensor(beta.ppf(alpha, k[1:].numpy(), n - k[1:].numpy() + 1)))
    for p in torch.linspace(0.01, 0.999, 200).tolist():
        missed = binom.pmf(k.numpy(), n, p)[bound.numpy() > p].sum()
        assert missed <= alpha
    # Not loose either: where p is a bound, the chance to be above it is α itself.
    assert binom.sf(40 - 1, n, float(bound[40])) == pytest.approx(alpha, rel=1e-9)


def test_it_abstains_where_no_majority_is_proven() -> None:
    x = torch.tensor([[0.0, 0.125], [2.0, 0.0]])  # the first lies on the boundary
    found = smoothed(linear, x, torch.tensor([0, 0]), sigma=0.5, draws=1000)
    assert found.prediction.tolist() == [-1, 0] and found.radius[0] == 0
    assert found.right.tolist() == [False, True]
    few = smoothed(linear, x, torch.tensor([0, 0]), sigma=0.5, draws=9)  # 0.001^(1/9) < ½
    assert few.prediction.tolist() == [-1, -1] and few.most < 0


def test_interrupted_draws_end_where_unbroken_ones_do() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)) / 4
    y = torch.zeros(5, dtype=torch.int64)
    whole = smoothed(linear, x, y, sigma=0.3, draws=300, first_draws=20, batch_size=64, seed=3)
    parts = drawing(Model(linear, None), x, sigma=0.3, draws=300, first_draws=20, batch_size=7, seed=3)
    for _ in range(40):
        held = next(parts)
    assert 0 < int(held.drawn.sum()) < 5 * 320
    rest = smoothed(linear, x, y, sigma=0.3, draws=300, first_draws=20, batch_size=1000, seed=3, counts=held)
    fewer = smoothed(linear, x, y, sigma=0.3, draws=100, first_draws=20, seed=3)
    more = smoothed(linear, x, y, sigma=0.3, draws=300, first_draws=20, seed=3, counts=fewer.counts)
    for found in (rest, more):
        assert torch.equal(found.counts.selection, whole.counts.selection)
        assert torch.equal(found.counts.estimation, whole.counts.estimation)
        assert torch.equal(found.radius, whole.radius)
    assert whole.counts.selection.sum(1).tolist() == [20] * 5 and whole.counts.estimation.sum(1).tolist() == [300] * 5
    other = smoothed(linear, x, y, sigma=0.3, draws=300, first_draws=20, seed=4)
    assert not torch.equal(other.counts.estimation, whole.counts.estimation)


def test_an_example_does_not_know_its_batchmates() -> None:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(1)) / 4
    y = torch.zeros(6, dtype=torch.int64)
    whole = smoothed(linear, x, y, sigma=0.3, draws=200)
    pick = torch.tensor([4, 1])
    part = smoothed(linear, x[pick], y[pick], sigma=0.3, draws=200, ids=pick, batch_size=3)
    assert torch.equal(part.counts.estimation, whole.counts.estimation[pick])
    none = smoothed(linear, x[:0], y[:0], sigma=0.3, draws=200)
    assert none.radius.shape == (0,) and math.isnan(none.certified([0.0])[0])


def test_the_noise_is_not_cut_by_the_box_and_has_the_law_that_is_claimed() -> None:
    seen: list[torch.Tensor] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return linear(x)

    smoothed(Model(watched, (0, 1)), torch.full((2, 2), 0.9), torch.tensor([0, 0]), sigma=0.5, draws=20_000)
    noise = (torch.cat(seen[1:]).double() - 0.9) / 0.5  # the first question asks how many classes there are
    assert (torch.cat(seen[1:]) > 1).double().mean() > 0.3
    assert noise.mean(0).abs().max() < 0.03 and (noise.std(0) - 1).abs().max() < 0.03
    assert abs(float(torch.corrcoef(noise.T)[0, 1])) < 0.03
    assert len(noise.unique(dim=0)) > 0.999 * len(noise)  # the choosing draws are not counted again


def test_answers_that_are_not_finite_count_for_nobody() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x[:, :1] > 0, linear(x + 10 * W), torch.nan)

    found = smoothed(broken, torch.zeros(1, 2), torch.tensor([0]), sigma=1.0, draws=1000)
    assert 400 < int(found.counts.estimation.sum()) < 600 and found.prediction.tolist() == [-1]


def test_tables_of_certified_accuracy_match_those_by_hand() -> None:
    radius = torch.tensor([0.0, 0.3, 0.3, 0.7, 0.9], dtype=torch.float64)
    right = torch.tensor([False, True, False, True, True])
    found = Smoothed(
        prediction=torch.tensor([-1, 0, 1, 0, 0]),
        radius=radius,
        p_low=radius,
        right=right,
        counts=Counts.none_yet(5, 2),
        sigma=0.25,
        alpha=0.001,
        most=0.953,
    )
    assert found.certified([0.0, 0.3, 0.31, 0.7, 0.9, 1.0]) == pytest.approx([0.6, 0.6, 0.4, 0.4, 0.2, 0.0])
    assert "smoothed classifier" in found.certifies and "not f itself" in found.certifies


def test_what_is_impossible_is_refused_by_name() -> None:
    x, y = torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64)
    for wrong, word in (
        ({"sigma": 0.0}, "sigma=0"),
        ({"sigma": math.nan}, "sigma=nan"),
        ({"draws": 0}, "draws=0"),
        ({"first_draws": 0}, "first_draws=0"),
        ({"alpha": 1.0}, "alpha=1"),
        ({"batch_size": 0}, "batch_size=0"),
    ):
        with pytest.raises(UsageError, match=word):
            smoothed(linear, x, y, **({"sigma": 0.1, "draws": 10} | wrong))
    with pytest.raises(DataError, match="2, 2 and 3 rows"):
        smoothed(linear, x, y, sigma=0.1, draws=10, counts=Counts.none_yet(3, 2))
    with pytest.raises(UsageError, match="draws"):
        concluded(Counts.none_yet(2, 2), y, sigma=0.1, draws=10, first_draws=1, alpha=0.1)
