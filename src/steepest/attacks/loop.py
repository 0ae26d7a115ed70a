"""The loop: the only code that asks the model on behalf of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.contract import Problem, Search, Status
from steepest.basis.errors import ContractError
from steepest.models.contract import Evaluation, Need


@final
@dataclass(slots=True)
class Best:
    """The best point of each example so far, and what finding it has cost; one row per example, updated in place.

    A point is better if it wins and the other does not, or, among equals, if its value is larger. A value that
    is not finite is never better.
    """

    point: Tensor
    won: Tensor
    value: Tensor
    outputs: Tensor | None
    forwards: Tensor
    backwards: Tensor
    zero: Tensor
    nonfinite: Tensor

    @classmethod
    def none_yet(cls, x: Tensor) -> Best:
        """Return the state before the first question: the clean input, value −∞."""
        count = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        flags = count.bool()
        nothing = torch.full(x.shape[:1], -torch.inf, dtype=torch.float64, device=x.device)
        return cls(x, flags, nothing, None, count, count.clone(), count.clone(), flags.clone())

    def rows(self, index: Tensor) -> Best:
        """Return the state of the examples that `index` selects."""
        outputs = None if self.outputs is None else self.outputs[index]
        return Best(
            self.point[index], self.won[index], self.value[index], outputs, self.forwards[index],
            self.backwards[index], self.zero[index], self.nonfinite[index],
        )  # fmt: skip

    def take(self, index: Tensor, part: Best) -> None:
        """Write the rows `part` into the places `index`."""
        if part.outputs is not None and self.outputs is None:
            self.outputs = part.outputs.new_full((self.won.shape[0], part.outputs.shape[1]), torch.nan)
        for name in ("point", "won", "value", "outputs", "forwards", "backwards", "zero", "nonfinite"):
            mine, new = getattr(self, name), getattr(part, name)
            if new is not None:
                setattr(self, name, new if len(index) == len(mine) else mine.index_copy(0, index, new.to(mine.dtype)))

    def learn(self, found: Evaluation) -> None:
        """Take in one evaluation of every row."""
        self.forwards += 1
        self.nonfinite |= ~found.finite
        if found.gradient is not None and found.size is not None:
            self.backwards += 1
            self.zero += (found.size == 0) & found.finite
        value = found.value.double()
        better = (found.won > self.won) | ((found.won == self.won) & (value > self.value))
        if bool(better.all()):
            # Points are never changed in place, so keeping a reference is keeping the point.
            self.point, self.outputs = found.point, found.outputs
        else:
            self.point = torch.where(better.reshape(-1, *[1] * (found.point.ndim - 1)), found.point, self.point)
            previous = found.outputs if self.outputs is None else self.outputs
            self.outputs = torch.where(better[:, None], found.outputs, previous)
        self.value = torch.where(better, value, self.value)
        self.won = self.won | found.won

    def status(self) -> Tensor:
        """Return `Status` as int64 [N]."""
        status = torch.full_like(self.forwards, Status.EXHAUSTED)
        status[(self.zero > 0) & (2 * self.zero >= self.backwards)] = Status.ZERO_GRADIENT
        status[self.nonfinite] = Status.NONFINITE
        status[self.won] = Status.OK
        return status


def run_search(problem: Problem, search: Search, start: Tensor, best: Best) -> Best:
    """Let `search` ask `search.steps` questions and judge its last point too: steps + 1 forwards at most.

    Examples whose goal is reached leave the batch at once if the problem says so. Returns `best`, updated.
    """
    total, live = best, torch.arange(start.shape[0], device=start.device)
    if not live.numel():
        return total
    point, state = start, search.init(problem, start)
    for step in range(search.steps + 1):
        need = search.need if step < search.steps else Need.VALUE
        found = problem.model.evaluate(point, problem.y, problem.objective, problem.goal, need)
        best.learn(found)
        if step == search.steps:
            break
        if problem.drop_solved and bool(found.won.any()):
            done = found.won
            total.take(live[done], best.rows(done))
            stay = (~done).nonzero().squeeze(1)
            if not stay.numel():
                return total
            problem, found, live, best = problem.rows(stay), found.rows(stay), live[stay], best.rows(stay)
            state = {name: remembered[stay] for name, remembered in state.items()}
        point, state = search.step(problem, found, state)
    total.take(live, best)
    return total


def require_feasible(problem: Problem, point: Tensor, component: str) -> Tensor:
    """Return the gauge of every point, float64 [N]; all are feasible exactly.

    Raises:
        ContractError: names the search and the rows that left the region.
    """
    gauge = problem.region.gauge(point)
    broken = (~((gauge <= 1) & problem.region.box.contains(point))).nonzero().squeeze(1).tolist()
    if broken:
        raise ContractError(
            f"{component} returned infeasible points for rows {broken[:10]}{' …' if len(broken) > 10 else ''}: every "
            "point must pass `region.contains`. Let the search end in `region.project`."
        )
    return gauge
