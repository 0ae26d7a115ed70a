"""Branch and bound over the inputs: a box that a bound cannot decide is halved, and each half is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.certify.boxes import Bounded, Boxes

FEWEST, MOST = 8, 4096
"""Boxes halved in one step, at least and at most."""


@final
@dataclass(slots=True, kw_only=True, eq=False)
class Splitting:
    """The part of a box in which some conjunction of conditions may still hold.

    A conjunction is excluded from a box as soon as one of its conditions holds nowhere in it; a box leaves when all are
    excluded. When none is left, no input of the first box meets any conjunction: the halves of a box are closed
    sets that cover it.

    Attributes:
        boxes: what bounds the conditions.
        group: int64 [R], the conjunction that each condition belongs to.
        low, high: float64 [B, *shape], the boxes that are left.
        open: bool [B, C], the conjunctions not excluded from each.
        score: float64 [B], how far the most stubborn conjunction is from being excluded, at most 0.
        axis: int64 [B], the coordinate to be halved; −1 where no number lies between the ends of any.
        asked: how many boxes have been bounded.
        together: how many are halved in one step.
    """

    boxes: Boxes
    group: Tensor
    low: Tensor
    high: Tensor
    open: Tensor
    score: Tensor
    axis: Tensor
    asked: int = 0
    together: int = 64

    @classmethod
    def of(cls, boxes: Boxes, group: Tensor, low: Tensor, high: Tensor) -> Splitting:
        """Return the whole box [low, high], of shape [*shape], of which nothing is known yet."""
        count = int(group.max()) + 1 if len(group) else 0
        return cls(
            boxes=boxes,
            group=group,
            low=low[None],
            high=high[None],
            open=torch.ones(1, count, dtype=torch.bool),
            score=torch.full((1,), -torch.inf, dtype=torch.float64),
            axis=torch.zeros(1, dtype=torch.int64),
        )

    @property
    def left(self) -> int:
        """How many boxes are left."""
        return len(self.score)

    @property
    def stuck(self) -> bool:
        """Whether no box that is left can be halved: float64 has no number between its ends."""
        return bool((self.axis < 0).all())

    def middles(self, count: int) -> Tensor:
        """Return the middles of the boxes that are farthest from being excluded, float64 [≤ count, *shape]."""
        worst = self.score.argsort(stable=True)[:count]
        return (self.low[worst] + self.high[worst]) / 2

    def bound(self, method: str) -> None:
        """Ask about every box that is left by another method."""
        self._keep(*self._judged(self.low, self.high, self.open, method))

    def search(self, seconds: float) -> None:
        """Split activations instead of inputs, in each box that is left, for so many seconds together.

        One condition stands for its conjunction: the one whose bound is nearest to excluding it.
        """
        share = seconds / max(1, self.left)
        for at in range(self.left):
            numbers = self.open[at].nonzero().squeeze(1)
            found = self.boxes.lower(self.low[at : at + 1], self.high[at : at + 1], self.open[at][self.group], "crown")
            by_group = found.value.masked_fill(self.group[None] != numbers[:, None], -torch.inf)
            values, rows = by_group.max(1)
            # Where a conjunction has several conditions, one of them that can hold must not end the search for others.
            single = bool((self.group.bincount()[numbers] == 1).all())
            blocks = (torch.arange(len(rows)),) if single else torch.split(torch.arange(len(rows)), 1)
            for block in blocks:
                low, high = self.low[at], self.high[at]
                known, time = values[block], share / len(blocks)
                values[block] = self.boxes.searched(low, high, rows[block], known, time)
            self.open[at, numbers[values > 0]] = False
        self.asked += self.left
        self._keep(self.low, self.high, self.open, self.score, self.axis)

    def split(self, method: str) -> None:
        """Halve the boxes that are farthest from being excluded, and ask about their halves."""
        order = self.score.masked_fill(self.axis < 0, torch.inf).argsort(stable=True)
        count = min(self.together, int((self.axis >= 0).sum()))
        worst, rest = order[:count], order[count:]
        low, high, axis = self.low[worst].flatten(1), self.high[worst].flatten(1), self.axis[worst]
        rows = torch.arange(len(worst))
        middle = (low[rows, axis] + high[rows, axis]) / 2
        below, above = high.clone(), low.clone()
        below[rows, axis], above[rows, axis] = middle, middle
        shape = self.low.shape[1:]
        lows, highs = (torch.cat(pair).reshape(-1, *shape) for pair in ((low, above), (below, high)))
        halves = self._judged(lows, highs, self.open[worst].repeat(2, 1), method)
        left = (self.low[rest], self.high[rest], self.open[rest], self.score[rest], self.axis[rest])
        self._keep(*(torch.cat(pair) for pair in zip(left, halves, strict=True)))

    def _judged(self, low: Tensor, high: Tensor, open_: Tensor, method: str) -> tuple[Tensor, ...]:
        """Return (low, high, open, score, axis) of boxes after a bound; rows without anything open come too."""
        wanted = open_.any(0)[self.group]
        found = self.boxes.lower(low, high, wanted, method)
        self.asked += len(low)
        by_group = torch.full(open_.shape, -torch.inf, dtype=torch.float64)
        by_group.scatter_reduce_(1, self.group.expand(len(low), -1), found.value, "amax")
        open_ = open_ & ~(by_group > 0)
        worst = by_group.masked_fill(~open_, torch.inf)
        score, stubborn = worst.min(1) if worst.shape[1] else (torch.full((len(low),), torch.inf), worst.new_zeros(0))
        return low, high, open_, score.double(), self._axis(low, high, found, stubborn)

    def _axis(self, low: Tensor, high: Tensor, found: Bounded, stubborn: Tensor) -> Tensor:
        """Return the coordinate along which the most stubborn conjunction's nearest condition changes most."""
        other = self.group[None] != stubborn[:, None]
        nearest = found.value.masked_fill(other, -torch.inf).argmax(1)
        slope = found.slope[torch.arange(len(low)), nearest].flatten(1).abs()
        width = (high - low).flatten(1)
        middle = (low + high).flatten(1) / 2
        can = (low.flatten(1) < middle) & (middle < high.flatten(1))
        gain = torch.where(slope.amax(1, keepdim=True) > 0, slope * width, width)
        return torch.where(can.any(1), gain.masked_fill(~can, -1.0).argmax(1), -1)

    def _keep(self, low: Tensor, high: Tensor, open_: Tensor, score: Tensor, axis: Tensor) -> None:
        stay = open_.any(1)
        self.low, self.high, self.open = low[stay], high[stay], open_[stay]
        self.score, self.axis = score[stay], axis[stay]
