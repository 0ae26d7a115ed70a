"""The search for a counterexample: random points, then gradient steps from random starts, longer each time."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Self, final

import torch
from torch import Tensor, nn

from steepest.attacks.api import attack
from steepest.basis.errors import ModelError
from steepest.basis.rounding import inside
from steepest.basis.streams import Stream
from steepest.basis.tensors import finite_rows
from steepest.budgets.linf import Linf
from steepest.models.contract import Facts, Goal
from steepest.models.model import Model, Network

_RANDOM = 256
"""Random points of the first round."""

_CONFIRMED = 3
"""Points of a round that are asked of the judge: its arithmetic is not that of a batch."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """−max over the conditions of a conjunction of rows · y − most: at least 0 exactly where all of them hold.

    Of outputs that are the conditions themselves (`Conditions`); `mine` bool [N, R] are those of each example.
    """

    mine: Tensor

    @property
    def goal(self) -> Goal:
        """At least 0."""
        return Met(self)

    def ascent(self, outputs: Tensor, y: object) -> Tensor:
        """See `Objective`."""
        return -outputs.masked_fill(~self.mine, -torch.inf).amax(1)

    def value(self, outputs: Tensor, y: object) -> Tensor:
        """See `Objective`."""
        return self.ascent(outputs, y)

    def rows(self, index: Tensor) -> Gap:
        """See `Objective.rows`."""
        return Gap(self.mine[index])


@final
@dataclass(frozen=True, slots=True, eq=False)
class Met:
    """All conditions of the conjunction hold."""

    gap: Gap

    def __call__(self, outputs: Tensor, y: object) -> Tensor:
        """See `Goal`."""
        return (self.gap.value(outputs, y) >= 0) & finite_rows(outputs)

    def rows(self, index: Tensor) -> Self:
        """See `Goal.rows`."""
        return replace(self, gap=self.gap.rows(index))


@final
class _Unit(nn.Module):
    """t in [0, 1] ↦ network(low + t · (high − low)): every side of a box is as long as the others."""

    def __init__(self, network: Network, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.network, self.low, self.high = network, low, high
        self.training = False

    def place(self, t: Tensor) -> Tensor:
        """Return the input, inside the box also after rounding."""
        return torch.maximum(torch.minimum(self.low + t * (self.high - self.low), self.high), self.low)

    def forward(self, t: Tensor) -> Tensor:
        """Return the network's outputs there."""
        return self.network(self.place(t))


def float32_box(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the float32 numbers of a box, rounded inwards; where a side holds none, the one nearest to its middle.

    >>> low, high = float32_box(torch.tensor([0.1, 0.1]).double() * 0 + 0.1, torch.tensor([0.1, 0.9]).double())
    >>> low == high, bool(low[1] >= 0.1)
    (tensor([ True, False]), True)
    """
    like = low.float()
    below, above = inside(low, like, upper=False), inside(high, like, upper=True)
    nearest = ((low + high) / 2).float()
    return torch.where(below > above, nearest, below), torch.where(below > above, nearest, above)


@final
class Seeker:
    """Rounds of search in one box for inputs whose outputs meet one of several conjunctions.

    Args:
        model: answers the conditions (`conditioned`).
        low, high: float32 [*shape], the box.
        group: int64 [R], the conjunction of each condition.
    """

    def __init__(self, model: Model, low: Tensor, high: Tensor, group: Tensor, seed: int) -> None:
        self.low, self.high, self.group, self.seed = low, high, group, seed
        self._model = model
        self._unit = _Unit(model.network, low, high)
        self._unit_model = Model(self._unit, (0, 1), facts=Facts(source=model.facts.source))
        self.round = 0
        self.points = 0
        self.pace = 1e-9
        self.sloped = True

    def candidates(self, open_: Tensor, seconds: float) -> Tensor:
        """Return the best inputs of one more round, float32 [≤ 3, *shape], for the conjunctions open bool [C].

        A round that would take longer than so many seconds, at the pace of the one before, has fewer starts and steps.
        """
        began, before = time.monotonic(), self.points
        found = self._sought(open_, max(1.0, min(seconds / self.pace, 1e9)))
        self.pace = (time.monotonic() - began) / max(1, self.points - before)
        return found

    def _sought(self, open_: Tensor, most: float) -> Tensor:
        wanted = open_.nonzero().squeeze(1)
        number, self.round = self.round, self.round + 1
        if number == 0 or not self.sloped:
            return self.best_of(self._unit.place(self._random(number)), open_)
        steps = int(max(1, min(10 * 2**number, 100, most / len(wanted))))
        copies = int(max(1, min(2 ** (number + 2), 128, most / steps) // len(wanted)))
        mine = self.group[None] == wanted.repeat_interleave(copies)[:, None]
        start = torch.full((len(mine), *self.low.shape), 0.5)
        recipe = f"pgd(steps={steps}, start='uniform')"
        try:
            found = attack(
                recipe, self._unit_model, start, None, Linf(0.5), objective=Gap(mine), seed=self.seed + number
            )
        except ModelError:  # no gradient reaches the input
            self.sloped = False
            return self.best_of(self._unit.place(self._random(number)), open_)
        self.points += int(found.forwards.sum())
        order = found.value.nan_to_num(-torch.inf).argsort(descending=True, stable=True)
        return self._unit.place(found.point[order[:_CONFIRMED]])

    def best_of(self, x: Tensor, open_: Tensor) -> Tensor:
        """Return the most promising of given inputs [N, *shape], cast into the box."""
        x = torch.maximum(torch.minimum(x.float(), self.high), self.low)
        self.points += len(x)
        outputs = self._model.logits(x).nan_to_num(torch.inf)
        by_group = torch.full((len(x), len(open_)), -torch.inf, dtype=outputs.dtype)
        by_group.scatter_reduce_(1, self.group.expand(len(x), -1), outputs, "amax")
        missed = by_group.masked_fill(~open_, torch.inf).amin(1)
        return x[missed.argsort(stable=True)[:_CONFIRMED]]

    def _random(self, number: int) -> Tensor:
        """Return uniform points of the unit box, half of them moved to its corners, and the middle."""
        stream = Stream.of(self.seed, torch.arange(_RANDOM))
        t = stream.uniform(number, tuple(self.low.shape)).float()
        t[1::2] = t[1::2].round()
        t[0] = 0.5
        return t
