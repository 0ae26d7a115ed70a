"""Randomised smoothing: a radius for the vote of a network over Gaussian noise, of which the network itself knows none.

The smoothed classifier is g(x) = argmax over c of P(f(x + σZ) = c), Z standard normal. If its class has a probability
of at least p > ½, then g answers the same at every point closer than σ·Φ⁻¹(p) in L2 (Cohen, Rosenfeld & Kolter 2019).
p is counted: a first few draws choose the class, the others bound its probability from below (Clopper & Pearson).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self, final

import torch
from scipy import special
from torch import Tensor

from steepest.basis.errors import DataError, UsageError
from steepest.basis.streams import Stream
from steepest.basis.tensors import finite_rows
from steepest.models.model import Model, Network

CERTIFIES = "the smoothed classifier g(x) = argmax over c of P(f(x + N(0, σ²)) = c), not f itself"

ASSUMES = (
    "for each example alone, with probability at least 1 − α over the draws; not for all of them together",
    "σ, the number of draws and α were chosen before the counts were looked at",
    "whoever uses g may change the input anywhere, also outside the box: the noise is not clipped",
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often each class was the answer to a noisy copy, one row per example; enough to go on from.

    Attributes:
        selection: int64 [N, K], of the draws that choose the class.
        estimation: int64 [N, K], of those that bound its probability. Answers that are not finite count for no class.
        drawn: int64 [N], how many there were, of both kinds.
    """

    selection: Tensor
    estimation: Tensor
    drawn: Tensor

    @staticmethod
    def none_yet(examples: int, classes: int) -> Counts:
        """Return the counts before the first draw."""
        nothing = torch.zeros(examples, classes, dtype=torch.int64)
        return Counts(selection=nothing, estimation=nothing.clone(), drawn=torch.zeros(examples, dtype=torch.int64))

    def rows(self, index: Tensor) -> Self:
        """Return the counts of the examples that `index` selects."""
        return type(self)(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def take(self, index: Tensor, part: Counts) -> None:
        """Put the counts of some examples in their places."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(part, field.name)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed:
    """What was counted of the smoothed classifier, one row per example.

    Attributes:
        prediction: int64 [N], its class; −1 where it abstains, since no class is proven to have more than half.
        radius: float64 [N], L2, in data units: it answers `prediction` at every closer point; 0 where it abstains.
        p_low: float64 [N], lower bound of the probability of the class that the first draws chose.
        right: bool [N], the prediction is y.
        counts: what was counted; more draws can be added to it.
        most: the radius where every draw agrees: no example can have a larger one.
        certifies: whose radius this is.
        assumptions: what it rests on, one sentence each.

    >>> found = smoothed(lambda x: torch.cat([x, -x], 1), torch.ones(1, 1), torch.zeros(1), sigma=0.25, draws=1000)
    >>> found.radius.item() == found.most, round(found.most, 3)     # all draws agree
    (True, 0.616)
    """

    prediction: Tensor
    radius: Tensor
    p_low: Tensor
    right: Tensor
    counts: Counts
    sigma: float
    alpha: float
    most: float
    certifies: str = CERTIFIES
    assumptions: tuple[str, ...] = ASSUMES

    def certified(self, radii: Sequence[float]) -> list[float]:
        """Return the share of the examples that g gets right with at least each radius; NaN of no examples.

        >>> net = torch.nn.Linear(2, 2, bias=False)
        >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> x, y = torch.tensor([[2.0, 0.0], [-2.0, 0.0]]), torch.tensor([0, 0])
        >>> smoothed(net, x, y, sigma=0.25, draws=1000).certified([0.0, 0.5, 1.0])
        [0.5, 0.5, 0.0]
        """
        return [float((self.right & (self.radius >= radius)).double().mean()) for radius in radii]


def smoothed(
    model: Model | Network,
    x: Tensor,
    y: Tensor,
    *,
    sigma: float,
    draws: int = 100_000,
    first_draws: int = 100,
    alpha: float = 0.001,
    seed: int = 0,
    ids: Tensor | None = None,
    counts: Counts | None = None,
    batch_size: int = 1024,
) -> Smoothed:
    """Return what can be proven of the smoothed classifier: radius σ·Φ⁻¹(p_low), p_low the Clopper-Pearson bound.

    The noise is not clipped to the box: the law of x + σZ is what the proof is about, so the network is asked outside
    its box too. The draws belong to the example and their number, so neither batches nor interruptions change the
    counts (where two outputs differ by a last bit, another batch size may decide otherwise). The certificate is one of
    g: it says nothing about f, and never meets an attack on f.

    Args:
        x: [N, *features], in data units; so is `sigma`.
        y: [N], the labels; −1 for none.
        draws: n, whose votes bound the probability; the largest possible radius is σ·Φ⁻¹(α^(1/n)).
        first_draws: n₀, whose votes choose the class.
        alpha: the probability with which an example may be certified wrongly.
        ids: [N], the examples' numbers, by which their noise is known; 0, 1, ... if left out.
        counts: of an earlier call with the same model, x, sigma, first_draws, seed and ids, to go on from.
        batch_size: noisy copies that are asked about at once.

    Raises:
        UsageError: a parameter out of range; names what is allowed.
        DataError: x and y, ids or counts differ in length.

    Source: Cohen, Rosenfeld & Kolter 2019, theorem 1 and algorithm CERTIFY.

    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    >>> found = smoothed(net, torch.tensor([[0.1, 0.0], [0.0, 5.0]]), torch.tensor([0, 0]), sigma=0.25, draws=1000)
    >>> found.prediction, bool(found.radius[0] <= 0.1)     # the boundary is 0.1 away; the second lies on it
    (tensor([ 0, -1]), True)
    """
    handle = model if isinstance(model, Model) else Model(model, None)
    parts = drawing(
        handle,
        x,
        sigma=sigma,
        draws=draws,
        first_draws=first_draws,
        seed=seed,
        ids=ids,
        counts=counts,
        batch_size=batch_size,
    )
    for part in parts:
        counts = part
    assert counts is not None
    return concluded(counts, y.cpu(), sigma=sigma, draws=draws, first_draws=first_draws, alpha=alpha)


def drawing(
    model: Model,
    x: Tensor,
    *,
    sigma: float,
    draws: int,
    first_draws: int = 100,
    seed: int = 0,
    ids: Tensor | None = None,
    counts: Counts | None = None,
    batch_size: int = 1024,
) -> Iterator[Counts]:
    """Yield the counts after each batch of noisy copies, the last time when all were drawn; see `smoothed`."""
    require(sigma=sigma, draws=draws, first_draws=first_draws, batch_size=batch_size)
    ids = torch.arange(len(x)) if ids is None else ids
    with model.borrowed():
        counts = Counts.none_yet(len(x), model.logits(x[:1]).shape[1]) if counts is None else counts
        if not len(x) == len(ids) == len(counts.drawn):
            raise DataError(f"x, ids and counts have {len(x)}, {len(ids)} and {len(counts.drawn)} rows: give as many.")
        stream, before = Stream.of(seed, ids.to(x.device)), counts.drawn
        ends = (first_draws + draws - before).clamp_min(0).cumsum(0)
        yield counts
        for first in range(0, int(ends[-1]) if len(ends) else 0, batch_size):
            at = torch.arange(first, min(first + batch_size, int(ends[-1])))
            rows = torch.searchsorted(ends, at, right=True)
            # What is left of an example's draws ends where its place in the queue does.
            numbers = first_draws + draws - (ends[rows] - at)
            answers = _answers(model, x[rows.to(x.device)], stream.rows(rows.to(x.device)), numbers, sigma)
            counts = _counted(counts, rows, numbers < first_draws, answers)
            yield counts


def _answers(model: Model, x: Tensor, stream: Stream, numbers: Tensor, sigma: float) -> Tensor:
    """Return the class of each noisy copy, int64 [B]; −1 where an output is not finite."""
    noise = stream.normal(numbers.to(x.device), tuple(x.shape[1:]))
    outputs = model.logits((x.double() + sigma * noise).to(x.dtype))
    return torch.where(finite_rows(outputs), outputs.argmax(1), -1).cpu()


def _counted(counts: Counts, rows: Tensor, choosing: Tensor, answers: Tensor) -> Counts:
    votes = []
    for held, mine in ((counts.selection, choosing), (counts.estimation, ~choosing)):
        valid = mine & (answers >= 0)
        one = torch.ones(int(valid.sum()), dtype=torch.int64)
        votes.append(held.index_put((rows[valid], answers[valid]), one, accumulate=True))
    drawn = counts.drawn + torch.bincount(rows, minlength=len(counts.drawn))
    return Counts(selection=votes[0], estimation=votes[1], drawn=drawn)


def concluded(counts: Counts, y: Tensor, *, sigma: float, draws: int, first_draws: int, alpha: float) -> Smoothed:
    """Return what the counts prove; see `smoothed`.

    Raises:
        UsageError: some example has had another number of draws than was asked for.
    """
    require(sigma=sigma, draws=draws, first_draws=first_draws, alpha=alpha)
    if len(y) != len(counts.drawn):
        raise DataError(f"y has {len(y)} rows, the counts {len(counts.drawn)}: give one label an example.")
    other = counts.drawn[counts.drawn != first_draws + draws]
    if len(other):
        raise UsageError(
            f"{len(other)} example(s) have had {int(other.min())} to {int(other.max())} draws, asked for are "
            f"{first_draws} + {draws}: what was drawn stays, so give at least as many, and let them all be drawn."
        )
    chosen = counts.selection.argmax(1)
    agreed = counts.estimation.gather(1, chosen[:, None]).squeeze(1)
    p_low = lower_share(agreed, draws, alpha)
    sure = p_low > 0.5
    prediction = torch.where(sure, chosen, -1)
    return Smoothed(
        prediction=prediction,
        radius=torch.where(sure, radius_of(p_low, sigma), 0.0),
        p_low=p_low,
        right=sure & (prediction == y),
        counts=counts,
        sigma=float(sigma),
        alpha=float(alpha),
        most=most(sigma, draws, alpha),
    )


def lower_share(successes: Tensor, count: int, alpha: float) -> Tensor:
    """Return Clopper and Pearson's one-sided lower bound of a probability at level 1 − α, float64 [N].

    It is the α-quantile of Beta(k, n − k + 1): the p at which k or more of n successes have probability α.

    >>> lower_share(torch.tensor([0, 5, 10]), 10, 0.05)
    tensor([0.0000, 0.2224, 0.7411], dtype=torch.float64)
    """
    k = successes.double().numpy()
    bound = special.betaincinv(k.clip(1), count - k.clip(1) + 1, alpha)
    return torch.where(successes > 0, torch.as_tensor(bound, dtype=torch.float64), 0.0)


def radius_of(p_low: Tensor, sigma: float) -> Tensor:
    """Return σ·Φ⁻¹(p_low), float64 [N]; not positive where no majority is proven.

    >>> radius_of(torch.tensor([0.5, 0.9], dtype=torch.float64), 0.5)
    tensor([0.0000, 0.6408], dtype=torch.float64)
    """
    quantile: Tensor = torch.special.ndtri(p_low.double())
    return sigma * quantile


def most(sigma: float, draws: int, alpha: float) -> float:
    """Return σ·Φ⁻¹(α^(1/n)), the radius where all n draws agree; below 0 where so few can prove no majority.

    >>> round(most(1.0, 100_000, 0.001), 4)
    3.8115
    """
    return float(sigma * special.ndtri(alpha ** (1 / draws)))


def require(*, sigma: float, draws: int, first_draws: int = 1, alpha: float = 0.5, batch_size: int = 1) -> None:
    """Raise unless the parameters of a smoothing are possible.

    Raises:
        UsageError: names the one that is not, and what is allowed.
    """
    if not 0 < sigma < torch.inf:
        raise UsageError(f"sigma={sigma} is not allowed: give a positive number, in the units of the data, e.g. 0.25.")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha={alpha} is not allowed: give a probability between 0 and 1, e.g. 0.001.")
    for name, value in (("draws", draws), ("first_draws", first_draws), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"{name}={value} is not allowed: give at least 1.")
