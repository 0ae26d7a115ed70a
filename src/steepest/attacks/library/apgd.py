"""Auto-PGD: gradient steps whose size falls by itself, example by example, where they no longer help."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

from steepest.attacks.checks import refused, whole
from steepest.attacks.contract import GRADIENT, Ask, Problem, State
from steepest.attacks.diversified import started
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.starts import Start
from steepest.basis.tensors import expand, flat
from steepest.budgets.contract import is_sparse
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Need
from steepest.models.objectives import DLROrMargin

_FEWEST = 3
"""Steps between two checkpoints at least: of 20 steps the published rule leaves windows of one, which are all luck."""

_HALF_AND_MORE = 0.75
"""So many of a window's steps must rise, or the step size is halved."""


@functools.cache
def checkpoints(steps: int) -> MappingProxyType[int, int]:
    """Return the steps after which the size is reconsidered, each with the length of the window that it ends.

    The first window has 22 % of the steps, each later one 3 % fewer, down to 6 %; none fewer than 3 steps, which
    changes nothing from 50 steps on.

    >>> list(checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    ends: dict[int, int] = {}
    window = max(int(0.22 * steps), _FEWEST)
    end = window
    while end <= steps:
        ends[end] = window
        window = max(window - max(int(0.03 * steps), 1), int(0.06 * steps), _FEWEST)
        end += window
    return MappingProxyType(ends)


def phases(steps: int) -> tuple[int, int]:
    """Return the questions at which twice and once the budget begin; before is three times: 30, 30 and 40 %.

    >>> phases(100)
    (30, 60)
    """
    return 3 * steps // 10, 2 * (3 * steps // 10)


@final
@dataclass(frozen=True, slots=True)
class AutoPGD:
    """Auto-PGD as published; on sparse sets (L1) the published variant for those: see `_Dense` and `_Sparse`.

    Source: Croce & Hein 2020 (arXiv 2003.01690), algorithm 1; 2021 (arXiv 2103.01208) for sparse sets.
    """

    steps: int

    def __post_init__(self) -> None:
        whole("apgd", "steps", self.steps, 0)

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`."""
        return self._rule(problem).init(problem, point)

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return self._rule(problem).ask(problem, state, number)

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        return self._rule(problem).step(problem, found, state, number)

    def _rule(self, problem: Problem) -> _Dense | _Sparse:
        return _Sparse(self.steps) if is_sparse(problem.region.budget) else _Dense(self.steps)


@final
@dataclass(frozen=True, slots=True)
class _Dense:
    """x ← P(x + ¾(P(x + η·ascend(∇)) − x) + ¼(x − x₋₁)), η = 2 budgets at first; the first step has no memory.

    At a checkpoint η is halved, and the search returns to its best point and that point's stored gradient, where
    (i) at most 3/4 of the window's steps rose, or (ii) η was not halved at the checkpoint before and the best value
    is still the same. Unlike the published code the first window counts the first rise as one, and the two projections
    are exact inside the box.
    """

    steps: int

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`."""
        lowest = torch.full(point.shape[:1], -torch.inf, dtype=torch.float64, device=point.device)
        return {
            "before": point,
            "best": point,
            "gradient": torch.zeros_like(point),
            "value": lowest,
            "last": -lowest,
            "checked": lowest,
            "rises": torch.zeros_like(lowest),
            "halved": torch.zeros_like(lowest, dtype=torch.bool),
            "size": torch.full_like(lowest, 2.0),
        }

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return GRADIENT

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        rises = state["rises"] + (found.value.double() > state["last"])
        state = {**_better(found, state), "rises": rises, "last": found.value.double()}
        point, gradient = found.point, found.gradient
        assert gradient is not None
        if number == 0:
            state["checked"] = state["value"]
        if number in checkpoints(self.steps):
            stuck = ~state["halved"] & (state["value"] <= state["checked"])
            halve = (rises <= _HALF_AND_MORE * checkpoints(self.steps)[number]) | stuck
            point, gradient = _back(halve, point, gradient, state)
            state["size"] = torch.where(halve, state["size"] / 2, state["size"])
            state.update(halved=halve, checked=state["value"], rises=torch.zeros_like(rises))
        target = problem.region.ascend(point, gradient, state["size"])
        if number > 0:
            target = problem.region.project(point.lerp(target, 0.75) + 0.25 * (point - state["before"]))
        return target, {**state, "before": point}


@final
@dataclass(frozen=True, slots=True)
class _Sparse:
    """Equal steps on the largest |∇ᵢ| alone, as many as the best point suggests, in three phases of 3, 2 and 1 budgets.

    A step moves the share s of the coordinates, the signs of ∇ scaled to gauge η (1 at first). Every 4 % of a
    phase's steps s becomes the best point's number of changed coordinates over 1.5·d. Where that number fell by more
    than 5 %, η is reset to 1 and the search returns to its best point; elsewhere η is divided by 1.5, down to 1/10.
    Each phase starts at the best point of the one before, projected; the points of the first two only inform.
    The projection takes the place of each later phase's first step, so that the passes are those of `_Dense`.
    """

    steps: int

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`."""
        return self._begun(problem.region, point)

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        return GRADIENT if self._phase(number) == 2 else Ask(need=Need.GRADIENT, judged=0)

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        phase, after = self._phase(number), self._phase(number + 1)
        state = _better(found, state)
        if after != phase:
            point = _times(problem.region, 3 - after).project(state["best"])
            return point, self._begun(problem.region, point)
        begin, end = (0, *phases(self.steps), self.steps)[phase : phase + 2]
        point, gradient = found.point, found.gradient
        assert gradient is not None
        if number > begin and (number - begin) % max(int(0.04 * (end - begin)), 1) == 0:
            count = _changed(problem.region, state["best"])
            fewer = count < 0.95 * state["count"]
            point, gradient = _back(fewer, point, gradient, state)
            state["size"] = torch.where(fewer, 1.0, (state["size"] / 1.5).clamp_min(0.1))
            state.update(count=count, share=_share(problem.region, count))
        region = _times(problem.region, 3 - phase)
        return region.project(point + _signs(region, gradient, state["share"], state["size"])), state

    def _phase(self, number: int) -> int:
        """Return 0, 1 or 2; an early phase without a single question is passed over."""
        return sum(number >= begin for begin in phases(self.steps))

    def _begun(self, region: Region, point: Tensor) -> State:
        count = _changed(region, point)
        return {
            "best": point,
            "gradient": torch.zeros_like(point),
            "value": torch.full_like(count, -torch.inf),
            "size": torch.ones_like(count),
            "count": count,
            "share": _share(region, count),
        }


def _better(found: Evaluation, state: State) -> State:
    """Return the state with the best point, its gradient and its value brought up to date."""
    assert found.gradient is not None
    value = found.value.double()
    better = value > state["value"]
    wide = expand(better, found.point)
    return {
        **state,
        "value": torch.where(better, value, state["value"]),
        "best": torch.where(wide, found.point, state["best"]),
        "gradient": torch.where(wide, found.gradient, state["gradient"]),
    }


def _back(rows: Tensor, point: Tensor, gradient: Tensor, state: State) -> tuple[Tensor, Tensor]:
    wide = expand(rows, point)
    return torch.where(wide, state["best"], point), torch.where(wide, state["gradient"], gradient)


def _times(region: Region, factor: int) -> Region:
    return region if factor == 1 else region.scaled(factor)


def _changed(region: Region, point: Tensor) -> Tensor:
    return flat(point != region.x).double().sum(1)


def _share(region: Region, count: Tensor) -> Tensor:
    return count / (1.5 * max(flat(region.x).shape[1], 1))


def _signs(region: Region, gradient: Tensor, share: Tensor, size: Tensor) -> Tensor:
    """Return the signs of the `share` largest |∇ᵢ| that can move at all, scaled to the gauge `size`."""
    free = flat(torch.where(region.movable(), gradient, 0).double())
    width = free.shape[1]
    if not width:
        return torch.zeros_like(gradient)
    rank = ((1 - share) * width).clamp(0, width - 1).long()
    least = free.abs().sort(1).values.gather(1, rank[:, None])
    signs = torch.where(free.abs() >= least, free.sign(), 0).reshape(gradient.shape)
    gauge = region.budget.gauge(signs)
    # Nothing to move, or no budget to move in.
    scale = torch.where((gauge > 0) & gauge.isfinite(), size / gauge, 0)
    return (signs * expand(scale, signs)).to(gradient.dtype)


def _noise(steps: int, otherwise: Start) -> Start:
    """Return the published start: for sparse sets normal noise projected onto the first phase's multiple of the set.

    The noise is in sides of the box: published for inputs in [0, 1].
    """

    def start(problem: Problem, restart: int) -> Tensor:
        region = problem.region
        if not is_sparse(region.budget):
            return otherwise(problem, restart)
        noise = region.box.side(region.x) * problem.stream.normal(0, tuple(region.x.shape[1:]))
        first = 3 - sum(begin <= 0 for begin in phases(steps))
        return _times(region, first).project((region.x.double() + noise).to(region.x.dtype))

    return start


@recipe(
    "apgd",
    needs="gradient",
    cost="restarts × max(targets, 1) × (steps × (F + B) + F), and 1 F at x for targets",
    source="Croce & Hein 2020, 2021",
)
def apgd(
    steps: int = 100, restarts: int = 1, objective: str | None = None, start: str = "uniform", targets: int = 0
) -> Recipe:
    """Auto-PGD: momentum steps, twice the budget at first, halved where they no longer help; no step to choose.

    `objective` is "ce", "dlr", "margin", or None for the caller's own. `targets=9` is APGD-T: each restart is one run
    towards each of the nine likeliest wrong classes, on the targeted dlr unless `objective` says otherwise. "dlr" falls
    back to the margin where the model has too few classes for it, and the result's notes say so.
    `start` is as in `pgd`, by default "uniform", in the place of which sparse sets (L1) start at normal noise projected
    onto three times the budget, as published. One gradient less per run than the published code, which never uses it.
    """
    chosen = "dlr" if objective is None and isinstance(targets, int) and targets > 0 else objective
    if chosen not in (None, "ce", "dlr", "margin", "scaled-ce"):
        raise refused("apgd", "objective", objective, "give 'ce', 'dlr', 'margin', 'scaled-ce' or None")
    search, at = started(AutoPGD(steps), start)
    return Recipe(
        search=search,
        start=_noise(steps, at) if start == "uniform" else at,
        restarts=restarts,
        objective=DLROrMargin() if chosen == "dlr" else chosen,
        targets=targets,
    )
