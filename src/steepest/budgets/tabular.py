"""Mixed features of a table: numbers, whole steps, one-hot categories, one-sided and frozen columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.basis.rounding import towards
from steepest.basis.streams import Stream
from steepest.basis.tensors import fits, flat, inner
from steepest.budgets import coordinatewise, grid, tabular_moves
from steepest.budgets import epsilon as eps
from steepest.budgets.contract import Limits
from steepest.budgets.onehot import Groups, checked, groups_of, require_unit_box

Weights = float | Sequence[float] | Tensor


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Tabular:
    """The set of δ that change a row of a table as its columns allow.

    A number moves by −ε·downᵢ ≤ δᵢ ≤ ε·upᵢ, and where stepᵢ > 0 by a whole multiple of it. A one-hot group keeps
    its category or switches it, δ = e_b − e_a; at most `changes` groups switch. At most `features` features change
    in all, a group being one. `extreme` and `project` are exact: the best change of every feature, then the best
    features; `extreme` of a group is the switch with the largest ⟨g, e_b − e_a⟩.

    The category a of a row is read from the limits, so the model's box must be [0, 1] in one-hot columns; a group
    that is not one-hot in a row does not change there. Switches are exact. A stepped number is x + k·step, exactly
    where the precision of x holds it (whole numbers), otherwise rounded towards x by less than one unit in the last
    place (k/255, standardised whole numbers).

    `scaled(f)` multiplies ε, `changes` and `features` (rounded down when used): the sets are nested, and 0 freezes
    all. Nothing is convex here, unless there are numbers alone, without steps. Searches that step and project move
    each stepped number and at least one group by one whole change per step (`advance`).

    Args:
        epsilon: a number or one per example [N], in data units where the weight is 1.
        up, down: weights ≥ 0 of the numbers that broadcast against one example; 1 for all if left out, and down as
            up. 0 freezes a column, down = 0 lets it only grow.
        step: the unit of numbers that move in whole steps; 0 for all others.
        groups: the columns of each one-hot feature, counted in the flattened example.
        changes: how many categorical features may switch.
        features: how many features may change in all; None for no limit.

    Raises:
        UsageError: a weight, step or group that cannot be; columns that the input does not have; a box that is not
            [0, 1] in one-hot columns.

    Source: Ebrahimi et al. 2018 (HotFlip) for the gain of a switch.

    >>> budget = Tabular(0.5, step=[0.0, 0.2, 0.0, 0.0], groups=[[2, 3]])
    >>> budget.extreme(torch.tensor([[1.0, -1.0, 0.0, 2.0]]))
    tensor([[ 0.5000, -0.4000, -1.0000,  1.0000]])
    """

    epsilon: float | Tensor
    up: Weights = 1.0
    down: Weights | None = None
    step: Weights = 0.0
    groups: Sequence[Sequence[int]] = ()
    changes: float | Tensor = 1.0
    features: float | Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilon", eps.checked(self.epsilon, "Tabular"))
        object.__setattr__(self, "groups", checked(self.groups))
        for name in ("up", "down", "step"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _weights(value, name))
        for name in ("changes", "features"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, Tensor) and not 0 <= value < math.inf:
                raise UsageError(f"Tabular: {name}={value!r} is not allowed; give a whole number of at least 0.")

    def __repr__(self) -> str:
        said = [f"{eps.text(self.epsilon)}"]
        said += [f"{len(self.groups)} one-hot groups, {eps.text(self.changes)} may change"] if self.groups else []
        said += [] if self.features is None else [f"{eps.text(self.features)} features may change"]
        return f"Tabular({'; '.join(said)})"

    @property
    def convex(self) -> bool:
        """Whether only numbers without steps may change, any number of them."""
        return not self.groups and self.features is None and not bool((_tensor(self.step) > 0).any())

    @property
    def separable(self) -> bool:
        """Likewise: then the set is a product of intervals."""
        return self.convex

    @property
    def monotone(self) -> bool:
        """Likewise: half a switch, or half a step, is none."""
        return self.convex

    def fitted(self, shape: tuple[int, ...]) -> Self:
        """See `Budget.fitted`."""
        features = tuple(shape[1:])
        for name in ("up", "down", "step"):
            value = getattr(self, name)
            if value is not None and not fits(tuple(value.shape), features):
                raise UsageError(
                    f"Tabular: {name} of shape {tuple(value.shape)} does not fit examples of shape {features}. Give "
                    "one number per column, those of one-hot groups included (they are not used)."
                )
        last = max((column for members in self.groups for column in members), default=-1)
        if last >= math.prod(features):
            raise UsageError(f"Tabular: a group names column {last}; examples have {math.prod(features)}, from 0.")
        resolved = eps.resolved(self.epsilon, shape, "Tabular")
        eps.per_example(resolved, torch.empty(shape[0], 0), "Tabular")
        return replace(self, epsilon=resolved)

    def rows(self, index: Tensor) -> Self:
        """See `Budget.rows`."""
        return self._with(lambda size: eps.rows(size, index))

    def scaled(self, factor: float | Tensor) -> Self:
        """Return the budget with ε, `changes` and `features` times `factor`."""
        return self._with(lambda size: eps.scaled(size, factor))

    def _with(self, change: Any) -> Self:
        features = None if self.features is None else change(self.features)
        return replace(self, epsilon=change(self.epsilon), changes=change(self.changes), features=features)

    def extreme(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.extreme`."""
        v = flat(g)
        corner = coordinatewise.extreme(self.reached(g, limits), v)
        switch = self.onehot(g).best(v, self.unit(g, limits))
        numbers, groups = self.kept(grid.gaining(v * corner), grid.gaining(switch.score))
        return switch.write(torch.where(numbers, corner, 0), groups).reshape(g.shape)

    def support(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """See `Budget.support`."""
        return inner(g, self.extreme(g.double(), limits))

    def project(self, delta: Tensor, limits: Limits | None = None) -> Tensor:
        """Return the nearest point of B; of equally near ones that which changes more."""
        v = flat(delta)
        near = grid.nearest(self.reached(delta, limits), self.steps(delta), v)
        switch = self.onehot(delta).best(v, self.unit(delta, limits))
        # What a feature's change takes off the squared distance, compared with leaving it: v² − (v − near)².
        gain, saved = near * (2 * v - near), 2 * (switch.score - 1)
        numbers, groups = self.kept(gain, torch.where(saved >= 0, saved, -torch.inf))
        return switch.write(torch.where(numbers, near, 0), groups).reshape(delta.shape)

    def ascend(self, g: Tensor, limits: Limits | None = None) -> Tensor:
        """Return the extreme point: the best change of the best features."""
        return self.extreme(g, limits)

    def advance(self, delta: Tensor, g: Tensor, size: Tensor | float, limits: Limits | None = None) -> Tensor:
        """See `Discrete.advance`."""
        return tabular_moves.advance(self, delta, g, size, limits)

    def swaps(self, delta: Tensor, g: Tensor, first: Tensor, count: int, limits: Limits | None = None) -> Tensor:
        """See `Discrete.swaps`."""
        return tabular_moves.swaps(self, delta, g, first, count, limits)

    def sample(self, like: Tensor, stream: Stream, step: int, limits: Limits | None = None) -> Tensor:
        """Return random points, float64: every number uniform over its interval or its steps, independently.

        How many groups switch is uniform over 0 … `changes` (or the number that can), which ones and to which
        categories likewise; with a limit on `features`, so is how many and which of these changes stay.
        """
        narrow = flat(like)
        near = grid.sample(self.reached(like, limits), self.steps(like), narrow, stream.split(0), step)
        switch = self.onehot(like).best(stream.split(1).uniform(step, narrow.shape[1:]), self.unit(like, limits))
        order = torch.where(
            (switch.score > -torch.inf) & (switch.into != switch.out),
            stream.split(2).uniform(step, (len(self.groups),)),
            -torch.inf,
        )
        count = self._drawn((order > -torch.inf).sum(1), self.changes, stream.split(3), step)
        groups = grid.foremost(order, count)
        numbers = near != 0
        if self.features is not None:
            every = stream.split(4).uniform(step, (narrow.shape[1] + len(self.groups),))
            every = every.masked_fill(~torch.cat([numbers, groups], 1), -torch.inf)
            some = grid.foremost(every, self._drawn((every > -torch.inf).sum(1), self.features, stream.split(5), step))
            numbers, groups = some[:, : narrow.shape[1]], some[:, narrow.shape[1] :]
        return switch.write(torch.where(numbers, near, 0.0), groups).reshape(like.shape)

    def settled(self, x: Tensor, delta: Tensor) -> Tensor:
        """Return x + δ, every coordinate rounded towards x: exact for switches and for whole numbers."""
        return towards(x, delta)

    def gauge_within(self, delta: Tensor, ulp: Tensor) -> Tensor:
        """Return the gauge; a multiple of a step may be off by `ulp`, a switch and a limit by nothing."""
        numbers, shares = self._sizes(delta, None, flat(ulp))
        return torch.maximum(numbers, shares)

    def norm(self, delta: Tensor) -> Tensor:
        """Return the ε whose scaled set would just hold δ: max δᵢ/weightᵢ, or ε times the shares of the counts."""
        epsilon = eps.per_example(self.epsilon, delta, "Tabular")
        numbers, shares = self._sizes(delta, 1.0, torch.inf)
        return torch.maximum(numbers, torch.where(shares == 0, shares, shares * epsilon))

    def gauge(self, delta: Tensor) -> Tensor:
        """Return the largest of |δᵢ|/(ε·weightᵢ), switches/`changes`, changes/`features`; ∞ for what is no change."""
        numbers, shares = self._sizes(delta, None, 0.0)
        return torch.maximum(numbers, shares)

    def hull(self, like: Tensor) -> Limits:
        """Return the reach of every number, and ±1 for the columns of groups."""
        low, high = self.reached(like, None)
        one = (self.onehot(like).owner >= 0) & (grid.whole(eps.per_example(self.changes, like, "Tabular")) > 0)[:, None]
        return torch.where(one, -1.0, low).reshape(like.shape), torch.where(one, 1.0, high).reshape(like.shape)

    # The parts, on flattened examples [N, d] ----------------------------------------------------------------------

    def onehot(self, like: Tensor) -> Groups:
        """Return the groups as tensors on the device of `like`."""
        return groups_of(self.groups, math.prod(like.shape[1:]), like.device)

    def steps(self, like: Tensor) -> Tensor:
        """Return the step of every column, [d]."""
        return _spread(self.step, like)

    def reached(self, like: Tensor, limits: Limits | None) -> Limits:
        """Return how far each number can go, float64 [N, d]; 0 in the columns of groups."""
        return grid.reach(self._interval(like, None), self.steps(like), _flat_limits(like, limits))

    def unit(self, like: Tensor, limits: Limits | None) -> Limits | None:
        """Return the limits [N, d], which come from a box that is [0, 1] in one-hot columns."""
        cut = _flat_limits(like, limits)
        if cut is not None and self.groups:
            require_unit_box(cut, self.onehot(like))
        return cut

    def kept(self, numbers: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Return which features change, given the gain of each: the best that the counts allow; never those of −∞.

        At most so many groups, and at most so many features in all, is a laminar matroid: greedy is exact.
        """
        some = grid.foremost(groups, self._whole(self.changes, groups))
        if self.features is None:
            return numbers > -torch.inf, some
        every = torch.cat([numbers, groups.masked_fill(~some, -torch.inf)], 1)
        first = grid.foremost(every, self._whole(self.features, groups))
        return first[:, : numbers.shape[1]], first[:, numbers.shape[1] :]

    def allowed_changes(self, like: Tensor) -> Tensor:
        """Return how many groups may switch, float64 [N]."""
        return self._whole(self.changes, like)

    def _interval(self, like: Tensor, epsilon: float | None) -> Limits:
        up = _spread(self.up, like)
        down = up if self.down is None else _spread(self.down, like)
        free = (self.onehot(like).owner < 0).double()
        size = epsilon if epsilon is not None else eps.per_example(self.epsilon, like, "Tabular")[:, None]
        return -size * down * free, size * up * free

    def _sizes(self, delta: Tensor, epsilon: float | None, slack: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the size of the numbers in units of `epsilon` (None: the budget's own) and of the counts, [N]."""
        wide, step, groups = flat(delta).double(), self.steps(delta), self.onehot(delta)
        low, high = self._interval(delta, epsilon)
        numbers = torch.where(groups.owner < 0, wide, 0.0)
        count, fair = grid.counts(numbers, step, slack)
        # One step in units of what is allowed; a stored number may be off its multiple by a rounding.
        moved = torch.where(step > 0, count * step, numbers)
        ratio = torch.where(moved >= 0, eps.ratio(moved, high), eps.ratio(-moved, -low))
        if epsilon is None:
            unit = torch.where(step > 0, step, 1.0)
            most = grid.whole(torch.where(moved >= 0, high, -low) / unit)
            ratio = torch.where((step > 0) & (count.abs() <= most), ratio.clamp_max(1), ratio)
        ratio = torch.where(fair | numbers.isnan(), ratio, torch.inf)
        proper, broken = groups.switched(wide)
        share = self._share(proper.sum(1), self.changes, delta)
        if self.features is not None:
            total = proper.sum(1) + (moved != 0).sum(1)
            share = torch.maximum(share, self._share(total, self.features, delta))
        return _largest(ratio), share.masked_fill(broken.any(1), torch.inf)

    @staticmethod
    def _share(count: Tensor, most: float | Tensor, like: Tensor) -> Tensor:
        allowed = eps.per_example(most, like, "Tabular")
        share = eps.ratio(count.double(), allowed)
        return torch.where(count <= grid.whole(allowed), share.clamp_max(1), share)

    @staticmethod
    def _whole(most: float | Tensor, like: Tensor) -> Tensor:
        return grid.whole(eps.per_example(most, like, "Tabular"))

    @classmethod
    def _drawn(cls, possible: Tensor, most: float | Tensor, stream: Stream, step: int) -> Tensor:
        allowed = torch.minimum(possible.double(), cls._whole(most, possible))
        return (stream.uniform(step, ()) * (allowed + 1)).floor()


def _largest(size: Tensor) -> Tensor:
    return size.amax(1) if size.shape[1] else size.sum(1)


def _flat_limits(like: Tensor, limits: Limits | None) -> Limits | None:
    return None if limits is None else (flat(limits[0].expand_as(like)), flat(limits[1].expand_as(like)))


def _tensor(weight: Weights) -> Tensor:
    return torch.as_tensor(weight, dtype=torch.float64)


def _spread(weight: Weights, like: Tensor) -> Tensor:
    return _tensor(weight).to(like.device).expand(like.shape[1:]).reshape(-1)


def _weights(given: Weights, name: str) -> Tensor:
    try:
        wide = _tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"Tabular: {name}={given!r}; give a number, or one for each column.") from None
    bad = wide[~(torch.isfinite(wide) & (wide >= 0))]
    if bad.numel():
        raise UsageError(
            f"Tabular: {name} holds {float(bad.flatten()[0])}; give finite numbers of at least 0 (up = 0 and down = 0 "
            "freeze a column, step = 0 is a continuum)."
        )
    return wide
