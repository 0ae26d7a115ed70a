"""One perturbation for all examples."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from steepest.attacks.best import Best
from steepest.attacks.contract import AttackResult, Problem
from steepest.attacks.fitting import require_fit
from steepest.attacks.loop import require_feasible
from steepest.attacks.recipe import ATTACKS, recipe, result_of
from steepest.basis.errors import UsageError
from steepest.budgets.contract import Budget, Limits
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Need, Question


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Universal:
    """The attack whose points are the projections of x + δ, with one δ in the budget for all examples of the call.

    δ ← P(δ + step · ascend(Σ ∇Lₙ)), the sum over the examples whose value has not reached β, which is the gradient
    of Σ min(Lₙ, β). Every δ on the way is judged by how many examples it breaks, then by Σ min(Lₙ, β); the best is
    kept. No example leaves when it is solved.

    Attributes:
        steps: gradients of the sum over all examples.
        step: the share of the budget that one moves.
        beta: None: examples stop pulling once their goal is reached.
        call, needs, budgets: from the catalogue; see `Attack`.
    """

    steps: int
    step: float
    beta: float | None = None
    call: str = ""
    needs: str = "gradient"
    budgets: tuple[str, ...] = ()
    is_fgsm: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 0:
            raise UsageError(f"universal: steps={self.steps!r} is not allowed; give a whole number of at least 0.")
        if not 0 < self.step < math.inf:
            raise UsageError(f"universal: step={self.step!r} is not allowed; give a positive share of the budget.")
        if self.beta is not None and math.isnan(self.beta):
            raise UsageError("universal: beta=nan is not allowed; give a value of the objective, or None.")

    def run(self, problem: Problem, seed: int = 0, *, judge_x: bool = False) -> AttackResult:
        """See `Attack.run`: for each example the worse of x and of x with the shared perturbation."""
        return self.found(problem, seed)[1]

    def found(self, problem: Problem, seed: int = 0) -> tuple[Tensor, AttackResult]:
        """Return the shared δ [1, *features], float64, inside the budget, and the result.

        Raises:
            UsageError: the budget is not the same for all examples.
        """
        require_fit(self, problem.region.budget, problem.model.facts.answers, ATTACKS)
        x = problem.region.x
        shared, limits = _shared(problem.region.budget, len(x)), _room(problem.region)
        delta = torch.zeros_like(x[:1], dtype=torch.float64) if len(x) else x.new_zeros(1, *x.shape[1:]).double()
        spent, best, kept = Best.none_yet(x), Best.none_yet(x), delta
        if not len(x):
            return delta, result_of(problem, best, best.value, self.call, seed)
        with problem.model.borrowed(seed), torch.no_grad():
            chosen: Evaluation | None = None
            score = (-1, -math.inf)
            for number in range(self.steps + 1):
                need = Need.VALUE if number == self.steps else Need.GRADIENT
                found = problem.model.answer(_question(problem, delta, need, number))
                spent.spend(found)
                spent.learn(problem, found)
                if not number:
                    best.learn(problem, found)
                reached = self._score(found)
                if chosen is None or reached > score:
                    chosen, kept, score = found, delta, reached
                if need is Need.GRADIENT:
                    delta = self._moved(shared, limits, delta, found)
            assert chosen is not None
            best.learn(problem, chosen)
        for name in ("forwards", "backwards", "asked", "zero", "nonfinite", "unconfirmed"):
            setattr(best, name, getattr(spent, name))
        gauge = require_feasible(problem, best.point, self.call)
        return kept, result_of(problem, best, gauge, self.call, seed)

    def _score(self, found: Evaluation) -> tuple[int, float]:
        value = found.value.double().nan_to_num(-torch.inf)
        if self.beta is not None:
            value = value.clamp_max(self.beta)
        known = value[value > -torch.inf]
        return int(found.won.sum()), float(known.sum())

    def _moved(self, shared: Budget, limits: Limits | None, delta: Tensor, found: Evaluation) -> Tensor:
        assert found.gradient is not None
        idle = found.won if self.beta is None else found.value >= self.beta
        pull = found.gradient.double()[~idle].sum(0, keepdim=True)
        left = None if limits is None else (limits[0] - delta, limits[1] - delta)
        return shared.project(delta + self.step * shared.ascend(pull, left), limits)


def _question(problem: Problem, delta: Tensor, need: Need, number: int) -> Question:
    region = problem.region
    return Question(
        point=region.project((region.x.double() + delta).to(region.x.dtype)),
        y=problem.y,
        objective=problem.objective,
        goal=problem.goal,
        need=need,
        stream=problem.stream,
        step=number,
    )


def _room(region: Region) -> Limits | None:
    """Return how far values of δ may go that no budget bounds: as far as the box lets any example; points are cut."""
    limits = region.bounding(region.x)
    return limits if limits is None or not len(region.x) else (limits[0].amin(0, True), limits[1].amax(0, True))


def _shared(budget: Budget, count: int) -> Budget:
    """Return the budget of the one δ, which must be that of each of the `count` examples."""
    epsilon = budget.epsilon
    if isinstance(epsilon, Tensor) and epsilon.ndim and epsilon.shape[0] > 1:
        raise UsageError(
            f"universal needs one budget for all examples, and ε has {epsilon.shape[0]} rows: give a number, or one "
            "per feature [1, *features]."
        )
    first = budget.rows(torch.zeros(1, dtype=torch.int64))
    for row in range(1, count):
        if not _alike(first, budget.rows(torch.tensor([row]))):
            raise UsageError(
                f"universal needs one budget for all examples, and that of example {row} differs from the first's: "
                "give masks, weights and limits without an axis of examples, or attack the examples in groups."
            )
    return first


def _alike(one: object, other: object) -> bool:
    """Whether two rows of a budget hold the same numbers, however deep."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if is_dataclass(one) and not isinstance(one, type):
        return all(_alike(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    held, others = (getattr(each, "__dict__", None) for each in (one, other))
    if held and others:
        return held.keys() == others.keys() and all(_alike(held[name], others[name]) for name in held)
    return bool(one == other)


@recipe(
    "universal",
    needs="gradient",
    cost="steps × (F + B) + F",
    source="Moosavi-Dezfooli et al. 2017; Shafahi et al. 2020",
)
def universal(steps: int = 50, step: float = 1 / 8, beta: float | None = None) -> Universal:
    """One perturbation for all examples of a call, by signed gradients of the sum of their clipped losses.

    `beta` clips the objective's value (published: 9, of cross-entropy); None: at the goal, whatever the scale.
    `st.universal` returns the perturbation too. Examples of one call share it: on the command line, and in an audit,
    there is one per batch, so that `--batch-size` decides how many share.
    """
    return Universal(steps=steps, step=step, beta=beta)
