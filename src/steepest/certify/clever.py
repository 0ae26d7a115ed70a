"""CLEVER: an estimate of how far the nearest adversarial point lies. It proves nothing, and is no certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.models.contract import Need, Question
from steepest.models.model import Model
from steepest.models.objectives import checked, objective_of

_SAMPLES = 1 << 22
"""The examples' stream of sampled points."""

_SHAPES = (0.1, 1.0, 5.0, 10.0, 20.0, 50.0, 100.0)
_PENALTY = 0.01
_DOUBTED = 1e-3
"""A fit with a smaller p-value (Kolmogorov-Smirnov) is not believed: then the largest sample stands for its end."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clever:
    """An estimate of the smallest adversarial size, one row per example: NOT a bound in either direction.

    Attributes:
        gauge: float64 [N], in units of the budget: at most 1, since nothing was looked at beyond it; 0 where the model
            is wrong at x.
        radius: float64 [N], gauge times ε (the largest ε of an example with several).
        slope: float64 [N, R], the estimated largest dual norm of ∇(z_y − z_k), per unit of gauge.
        rivals: int64 [N, R], the classes k.
        believed: bool [N, R], whether the fit was; else the largest sample stands in its place.
        warning: in words, what the number is not.

    >>> import steepest as st
    >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    >>> st.clever(st.Model(torch.nn.Flatten(), box=None), x, y, st.Linf(1.0), batches=2, samples=2).warning[:26]
    'an estimate, not a bound: '
    """

    gauge: Tensor
    radius: Tensor
    slope: Tensor
    rivals: Tensor
    believed: Tensor
    warning: str = (
        "an estimate, not a bound: a model whose gradients are masked looks robust to it, and an attack that succeeds "
        "below it refutes it"
    )


def clever(
    model: Model,
    x: Tensor,
    y: Tensor,
    budget: Budget,
    *,
    batches: int = 50,
    samples: int = 128,
    rivals: int = 9,
    seed: int = 0,
) -> Clever:
    """Estimate how far the nearest adversarial point is, from the sizes of gradients sampled in the budget.

    In each batch the largest dual norm of ∇(z_y − z_k) is kept; a reverse Weibull law is fitted to these maxima, and
    its right end stands for the local Lipschitz constant: gauge = min over k of (z_y − z_k)/end. Exact for linear
    models. Costs batches · samples · (F + (1 + R)·B) an example.

    Never shown as a guarantee: masked gradients inflate it without limit (Goodfellow 2018).

    Args:
        batches, samples: Nb and Ns of the paper, which takes 500 and 1,024; its R is the budget's ε here.
        rivals: how many classes besides y, the nearest at x first.

    Raises:
        UsageError: the budget is not convex; `batches` or `samples` below 2 or 1.
        ModelError: no gradient reaches the input.

    Source: Weng et al. 2018; the fit's starts and its penalty on the shape as in their program. Points are uniform in
    the budget inside the box, any convex budget.

    >>> import steepest as st
    >>> f = st.Model(lambda x: x * torch.tensor([3.0, 4.0]), box=None)
    >>> found = st.clever(f, torch.tensor([[1.0, 0.5]]), torch.tensor([0]), st.L2(0.5), batches=2, samples=2)
    >>> found.radius          # the distance to 3x₁ = 4x₂ is 1/5
    tensor([0.2000], dtype=torch.float64)
    """
    if not budget.convex:
        raise UsageError(f"CLEVER rests on segments from x to every point, which {budget!r} does not hold: use Linf.")
    if batches < 2 or samples < 1:
        raise UsageError(f"batches={batches}, samples={samples}: give at least 2 batches of at least 1 sample.")
    region = Region(budget, model.box, model.box.admit(x, "x"))
    logits = model.logits(region.x).double()
    labels = checked(y, logits)
    count = min(rivals, logits.shape[1] - 1)
    nearest = logits.scatter(1, labels[:, None], -torch.inf).topk(count, dim=1).indices
    maxima = _maxima(model, region, torch.cat([labels[:, None], nearest], 1), (batches, samples), seed)
    ends, believed = _ends(maxima)
    margin = (logits.gather(1, labels[:, None]) - logits).gather(1, nearest)
    gauge = torch.where(margin > 0, margin / ends, 0.0).amin(1).clamp_max(1.0) if count else torch.ones_like(ends[:, 0])
    return Clever(
        gauge=gauge,
        radius=gauge * _epsilon(region.budget, gauge),
        slope=ends,
        rivals=nearest,
        believed=believed,
    )


def _maxima(model: Model, region: Region, classes: Tensor, counts: tuple[int, int], seed: int) -> Tensor:
    """Return the largest dual norms of each batch, float64 [N, R, batches]."""
    batches, samples = counts
    stream = Stream.of(seed, torch.arange(len(classes), device=classes.device)).split(_SAMPLES)
    margin = objective_of("margin")
    found = torch.zeros(len(classes), classes.shape[1] - 1, batches, dtype=torch.float64, device=classes.device)
    with model.borrowed(seed):
        for number in range(batches * samples):
            point = region.sample(stream, number)
            question = Question(
                point=point, y=classes[:, 0], objective=margin, goal=margin.goal, need=Need.JACOBIAN, classes=classes
            )
            rows = model.answer(question).jacobian
            assert rows is not None
            sizes = [region.budget.support((rows[:, 0] - rows[:, k]).double()) for k in range(1, rows.shape[1])]
            if sizes:
                batch = found[:, :, number // samples]
                torch.maximum(batch, torch.stack(sizes, 1), out=batch)
    return found


def _ends(maxima: Tensor) -> tuple[Tensor, Tensor]:
    """Return the right end of the law fitted to each row of maxima [N, R, batches], and whether it is believed."""
    ends, believed = maxima.amax(2), torch.zeros(maxima.shape[:2], dtype=torch.bool)
    for example in range(maxima.shape[0]):
        for rival in range(maxima.shape[1]):
            end, sure = fitted_end(maxima[example, rival].cpu().numpy())
            ends[example, rival], believed[example, rival] = end, sure
    return ends, believed


def fitted_end(maxima: np.ndarray) -> tuple[float, bool]:
    """Return the right end of the reverse Weibull law most likely to have given the maxima, and whether it fits.

    Of the fits from seven starts that whose Kolmogorov-Smirnov p-value is largest; where that is below 0.001, and where
    all maxima are the same, the largest of them.

    >>> fitted_end(np.full(10, 3.0))
    (3.0, True)
    """
    top = float(maxima.max())
    spread = top - float(maxima.min())
    if not spread > 1e-6 * top:
        return top, True
    from scipy import stats

    scaled = maxima / top
    best_end, best_p = top, 0.0
    for start in _SHAPES:
        law = _fit(scaled, start)
        if law is None:
            continue
        p = float(stats.kstest(scaled, stats.weibull_max(law[0], law[1], law[2]).cdf).pvalue)
        if p > best_p:
            best_end, best_p = law[1] * top, p
    return (best_end, True) if best_p >= _DOUBTED else (top, False)


def _fit(values: np.ndarray, start: float) -> tuple[float, float, float] | None:
    """Return (shape, end, scale) of the law, or None where the search failed."""
    from scipy import optimize

    def loss(free: np.ndarray) -> float:
        shape, end, scale = np.exp(free[0]), 1 + np.exp(free[1]), np.exp(free[2])
        below = (end - values) / scale
        with np.errstate(all="ignore"):
            likely = np.log(shape / scale) + (shape - 1) * np.log(below) - below**shape
        return float(-likely.sum() + _PENALTY * shape**2) if np.isfinite(likely).all() else math.inf

    gap = max(1 - float(values.mean()), 1e-6)
    options = {"maxiter": 400, "xatol": 1e-3, "fatol": 1e-4}
    found = optimize.minimize(loss, np.log([start, 0.1 * gap, gap]), method="Nelder-Mead", options=options)
    if not math.isfinite(found.fun):
        return None
    shape, end, scale = np.exp(found.x)
    return float(shape), float(1 + end), float(scale)


def _epsilon(budget: Budget, gauge: Tensor) -> Tensor:
    """Return ε of each example, the largest where it has several."""
    given = budget.epsilon
    if not isinstance(given, Tensor):
        return gauge.new_full(gauge.shape, float(given))
    wide = given.to(gauge)
    return (wide.flatten(1).amax(1) if wide.ndim > 1 else wide).expand(gauge.shape)
