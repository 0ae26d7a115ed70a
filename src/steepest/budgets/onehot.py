"""One-hot groups of columns: which category may become which, and what a switch gains."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.budgets.contract import Limits


@final
@dataclass(frozen=True, slots=True, eq=False)
class Switch:
    """The best switch δ = e_into − e_out of every group: its score, and the two columns; all [N, G]."""

    score: Tensor
    out: Tensor
    into: Tensor

    def write(self, values: Tensor, on: Tensor) -> Tensor:
        """Return `values` [N, d] with the switches added where `on` [N, G]."""
        one = on.to(values.dtype)
        return values.scatter_add(1, self.into, one).scatter_add(1, self.out, -one)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Groups of columns as tensors: `index` and `valid` [G, K] (padded), `owner` [d] (the group; −1 for none)."""

    index: Tensor
    valid: Tensor
    owner: Tensor

    def best(self, v: Tensor, limits: Limits | None) -> Switch:
        """Return, for each group, the switch e_b − e_a inside the limits with the largest v_b − v_a; −∞ for none.

        In the box [0, 1] the limits of a one-hot row say which category it has: only there may a column fall by 1.
        """
        parts = v[:, self.index]
        leave = enter = self.valid.expand(parts.shape)
        if limits is not None:
            low, high = (side[:, self.index] for side in limits)
            leave, enter = leave & (low <= -1), enter & (high >= 1)
        top, into = parts.masked_fill(~enter, -torch.inf).max(2)
        bottom, out = parts.masked_fill(~leave, torch.inf).min(2)
        return Switch(top - bottom, self._columns(out), self._columns(into))

    def _columns(self, place: Tensor) -> Tensor:
        return self.index.expand(place.shape[0], *self.index.shape).gather(2, place[:, :, None]).squeeze(2)

    def switched(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return bool [N, G] twice: the group is switched; the group is neither that nor unchanged."""
        parts = delta[:, self.index].masked_fill(~self.valid, 0.0)
        up, down, moved = ((test).sum(2) for test in (parts == 1, parts == -1, parts != 0))
        proper = (up == 1) & (down == 1) & (moved == 2)
        return proper, (moved > 0) & ~proper

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over each group's columns, [N, G]."""
        return values[:, self.index].masked_fill(~self.valid, 0.0).sum(2)

    def spread(self, per_group: Tensor, other: bool) -> Tensor:
        """Return [N, d]: what is said of a group [N, G] said of its columns, `other` of the columns of no group."""
        padded = torch.cat([per_group, torch.full_like(per_group[:, :1], other)], 1) if per_group.shape[1] else None
        if padded is None:
            return per_group.new_full((per_group.shape[0], len(self.owner)), other)
        return padded[:, self.owner]


@functools.lru_cache(maxsize=64)
def groups_of(groups: tuple[tuple[int, ...], ...], columns: int, device: torch.device) -> Groups:
    """Return the groups of column numbers as tensors."""
    width = max([1, *map(len, groups)])
    index = torch.zeros(len(groups), width, dtype=torch.int64)
    valid = torch.zeros(len(groups), width, dtype=torch.bool)
    owner = torch.full((columns,), -1)
    for number, members in enumerate(groups):
        index[number, : len(members)] = torch.tensor(members)
        valid[number, : len(members)] = True
        owner[list(members)] = number
    return Groups(index.to(device), valid.to(device), owner.to(device))


def require_unit_box(limits: Limits, groups: Groups) -> None:
    """Refuse limits that do not come from the box [0, 1]: from others the category of a row cannot be read.

    Raises:
        UsageError: names the columns and the remedy.
    """
    wide = ((limits[1] - limits[0] > 1) & (groups.owner >= 0)).any(0)
    if bool(wide.any()):
        columns = wide.nonzero().squeeze(1).tolist()
        raise UsageError(
            f"Tabular: the one-hot columns {columns[:10]} may take values outside [0, 1], so the category of a row "
            "cannot be known. Give the model a box per feature, with 0 and 1 there: box=(lower, upper), tensors [d]."
        )


def checked(groups: object) -> tuple[tuple[int, ...], ...]:
    """Return groups of column numbers as tuples.

    Raises:
        UsageError: a group of fewer than two columns, a column twice, a number that is no column.
    """
    try:
        found = tuple(tuple(int(column) for column in members) for members in groups)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise UsageError(
            f"Tabular: groups={groups!r}; give lists of column numbers, such as [[3, 4, 5], [6, 7]]."
        ) from None
    listed = [column for members in found for column in members]
    twice = sorted({column for column in listed if listed.count(column) > 1})
    if twice or any(len(members) < 2 for members in found) or any(column < 0 for column in listed):
        raise UsageError(
            f"Tabular: groups={groups!r}; every group has two or more columns, counted from 0, and no column is in "
            f"two places{f' ({twice} are)' if twice else ''}."
        )
    return found
