"""How searches move in a table: whole changes, which rounding cannot take back."""

from __future__ import annotations

from typing import Protocol, Self

import torch
from torch import Tensor

from steepest.basis.tensors import flat
from steepest.budgets import coordinatewise, grid
from steepest.budgets.contract import Limits
from steepest.budgets.onehot import Groups


class Table(Protocol):
    """What a move needs to know of the budget; all of it speaks of flattened examples [N, d]."""

    @property
    def features(self) -> float | Tensor | None:
        """How many features may change in all; None for no limit."""

    def rows(self, index: Tensor) -> Self:
        """Return the budget of the examples that `index` selects."""

    def onehot(self, like: Tensor) -> Groups:
        """Return the one-hot groups."""

    def steps(self, like: Tensor) -> Tensor:
        """Return the step of every column, [d]."""

    def reached(self, like: Tensor, limits: Limits | None) -> Limits:
        """Return how far each number can go."""

    def unit(self, like: Tensor, limits: Limits | None) -> Limits | None:
        """Return the limits, which come from a box that is [0, 1] in one-hot columns."""

    def kept(self, numbers: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Return which features change, given the gain of each."""

    def allowed_changes(self, like: Tensor) -> Tensor:
        """Return how many groups may switch, [N]."""


def advance(budget: Table, delta: Tensor, g: Tensor, size: Tensor | float, limits: Limits | None) -> Tensor:
    """Return the δ that a step of the share `size` along g reaches; see `Discrete.advance`.

    Numbers step towards their corner, stepped ones by at least one step. As many groups as the share of `changes`,
    at least one, go to the state that `extreme` gives them, the largest gains first. With a limit on `features`,
    those that `extreme` would not change go back to x.
    """
    v, here = flat(g), flat(delta).to(g.dtype)
    share = torch.as_tensor(size, dtype=torch.float64, device=g.device).reshape(-1, 1)
    step, groups = budget.steps(g), budget.onehot(g)
    low, high = budget.reached(g, None)
    # The longer side in both directions: what may only grow must also be able to come back.
    move = share * torch.maximum(-low, high)
    least = torch.where((step > 0) & (move > 0), torch.maximum(move, step), move) * v.sign()
    numbers = grid.nearest(budget.reached(g, limits), step, here + least.to(here.dtype))
    switch = groups.best(v, budget.unit(g, limits))
    corner = coordinatewise.extreme(budget.reached(g, limits), v)
    best_numbers, best = budget.kept(grid.gaining(v * corner), grid.gaining(switch.score))
    now, then = groups.sums(v * here), torch.where(best, switch.score, 0.0)
    many = grid.whole(share[:, 0] * budget.allowed_changes(g)).clamp_min(1).expand(len(v))
    going = grid.foremost(grid.gaining(then - now), many)
    stay = groups.spread(~going, True)
    state = switch.write(torch.where(stay, torch.where(groups.owner < 0, 0.0, here), 0.0), going & best)
    if budget.features is not None:
        numbers = torch.where(best_numbers, numbers, 0.0)
        state = torch.where(groups.spread(best, True), state, 0.0)
    return _repaired(budget, numbers + state, v, None).reshape(delta.shape)


def swaps(budget: Table, delta: Tensor, g: Tensor, first: Tensor, count: int, limits: Limits | None) -> Tensor:
    """Return [N, count, *features]: `delta` with one feature changed; see `Discrete.swaps`.

    A number goes to its corner, a group to one category, the clean one included; where that is one change too many,
    the change with the smallest first-order gain is taken back.
    """
    v, here = flat(g), flat(delta).to(g.dtype)
    groups, corner = budget.onehot(g), coordinatewise.extreme(budget.reached(g, limits), v)
    switch = groups.best(v, budget.unit(g, limits))
    state, clean = _states(budget, v, switch.out, switch.score, limits, g)
    member = groups.owner >= 0
    now = groups.sums(v * here)
    there = torch.where(clean, ~groups.spread(groups.switched(here)[0], False), here == 1)
    gain = torch.where(member, state - _of_columns(groups.owner, now), v * (corner - here))
    gain = torch.where(torch.where(member, there, corner == here), -torch.inf, gain)
    order = gain.argsort(dim=1, descending=True, stable=True)
    turn = (first[:, None] + torch.arange(count, device=v.device)) % max(1, v.shape[1])
    column = order.gather(1, turn)
    new = _changed(budget, here, corner, switch.out, column, g)
    rows = torch.arange(len(v), device=v.device).repeat_interleave(count)
    wide = budget.rows(rows)
    repaired = _repaired(wide, new.flatten(0, 1), v[rows], column.flatten()).reshape(new.shape)
    idle = gain.gather(1, column) == -torch.inf
    return torch.where(idle[:, :, None], here[:, None], repaired).reshape(len(v), count, *delta.shape[1:])


def _states(
    budget: Table, v: Tensor, out: Tensor, score: Tensor, limits: Limits | None, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gain over x of giving its group each column's category (−∞: not allowed), and whether it is clean."""
    groups, columns = budget.onehot(g), torch.arange(v.shape[1], device=v.device)
    clean = (groups.owner >= 0) & (columns == _of_columns(groups.owner, out))
    gain = v - _of_columns(groups.owner, v.gather(1, out))
    cut = budget.unit(g, limits)
    enter = clean if cut is None else (cut[1] >= 1) | clean
    can = groups.spread(score > -torch.inf, False) & (enter if cut is not None else torch.ones_like(clean))
    return torch.where(can, torch.where(clean, 0.0, gain), -torch.inf), clean


def _of_columns(owner: Tensor, per_group: Tensor) -> Tensor:
    """Return [N, d]: the entry of each column's group; anything where there is none."""
    if not per_group.shape[1]:
        return per_group.new_zeros(per_group.shape[0], len(owner))
    return per_group[:, owner.clamp_min(0)]


def _changed(budget: Table, here: Tensor, corner: Tensor, out: Tensor, column: Tensor, g: Tensor) -> Tensor:
    """Return [N, Q, d]: `here` with the feature of each column changed to its corner, or to that category."""
    owner = budget.onehot(g).owner
    group = owner[column]
    grouped = group >= 0
    same = (owner == group[:, :, None]) & grouped[:, :, None]
    new = torch.where(same, 0.0, here[:, None])
    end = torch.where(grouped, 0.0, corner.gather(1, column))
    new = torch.where(grouped[:, :, None], new, new.scatter(2, column[:, :, None], end[:, :, None]))
    clean = out.gather(1, group.clamp_min(0)) if out.shape[1] else column
    one = (grouped & (clean != column)).to(here.dtype)[:, :, None]
    return new.scatter_add(2, column[:, :, None], one).scatter_add(2, clean[:, :, None], -one)


def _repaired(budget: Table, delta: Tensor, v: Tensor, newest: Tensor | None) -> Tensor:
    """Return [R, d] with the changes of the smallest gain taken back until the counts allow it; never the newest."""
    groups = budget.onehot(delta)
    numbers = torch.where((delta != 0) & (groups.owner < 0), v * delta, -torch.inf)
    switched = torch.where(groups.switched(delta)[0], groups.sums(v * delta), -torch.inf)
    if newest is not None:
        chosen = torch.zeros_like(delta, dtype=torch.bool).scatter_(1, newest[:, None], True)
        numbers = torch.where(chosen & (numbers > -torch.inf), torch.inf, numbers)
        switched = torch.where((groups.sums(chosen.to(delta.dtype)) > 0) & (switched > -torch.inf), torch.inf, switched)
    keep_numbers, keep = budget.kept(numbers, switched)
    return torch.where(torch.where(groups.owner < 0, keep_numbers, groups.spread(keep, False)), delta, 0.0)
