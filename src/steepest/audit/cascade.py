"""The cascade: attacks in order of cost on one batch; solved examples leave, every success is asked again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steepest.attacks.contract import AttackResult, Problem, Status
from steepest.attacks.curve import trace
from steepest.attacks.recipes import Recipe
from steepest.audit.contract import Stage
from steepest.audit.outcome import Outcome
from steepest.basis.streams import Stream
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation, Need, Objective
from steepest.models.model import Model

CURVE_TOLERANCE = 1e-3
"""Share of the largest ε to which each example's first FGSM success is refined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """What is run on every batch.

    Attributes:
        budgets: fitted to the batch, in rising order of ε; a success at a smaller one counts for the larger ones.
        stages: (name, recipe) in order of cost; `fgsm` also measures the curve, from the same gradient.
        factors: the grid of the FGSM curve, in units of the largest budget.
    """

    model: Model
    budgets: tuple[Budget, ...]
    stages: tuple[tuple[str, Recipe], ...]
    objective: Objective
    factors: Tensor
    seed: int

    def run(self, x: Tensor, y: Tensor, ids: Tensor) -> Outcome:
        """Run all stages on one batch; `ids` name the examples' random streams.

        Raises:
            ContractError: an attack left its region. Any exception of an attack passes through: what did not run
                is never counted as robustness.
        """
        largest = self.budgets[-1]
        with self.model.borrowed(self.seed), torch.no_grad():
            outcome = self._clean(Region(largest, self.model.box, x), y)
            gradient: Evaluation | None = None
            for budget in self.budgets:
                whole = self._problem(Region(budget, self.model.box, x), y, ids)
                for name, recipe in self.stages:
                    with _stage(outcome, name, budget) as stage:
                        rows = (~outcome.broken).nonzero().squeeze(1)
                        stage.entered = rows.numel()
                        if rows.numel():
                            problem = whole.rows(rows)
                            if recipe.is_fgsm:
                                gradient = gradient or self._curve(problem, rows, outcome, stage)
                                found = _fgsm(problem, gradient.rows(outcome.place[rows]))
                            else:
                                found = recipe.run(problem, self.seed)
                            self._absorb(outcome, rows, found, problem, stage)
        return outcome

    def _problem(self, region: Region, y: Tensor, ids: Tensor) -> Problem:
        return Problem(
            model=self.model,
            objective=self.objective,
            goal=self.objective.goal,
            region=region,
            y=y,
            stream=Stream.of(self.seed, ids),
        )

    def _clean(self, region: Region, y: Tensor) -> Outcome:
        """Ask the model at x; what is wrong or not a number there is broken from the start."""
        begin = time.perf_counter()
        outcome = Outcome.at_x(region, y, self.model.logits(region.x), len(self.factors))
        outcome.ledger.append(
            Stage(
                name="clean",
                epsilon=0.0,
                entered=y.numel(),
                broken=int(outcome.broken.sum()),
                forwards=y.numel(),
                seconds=time.perf_counter() - begin,
            )
        )
        return outcome

    def _curve(self, problem: Problem, rows: Tensor, outcome: Outcome, stage: Stage) -> Evaluation:
        """Take the one gradient at x, and all that it says of every ε."""
        at_x = self.model.evaluate(problem.region.x, problem.y, problem.objective, problem.goal, Need.GRADIENT)
        around = replace(problem, region=Region(self.budgets[-1].rows(rows), problem.region.box, problem.region.x))
        found = trace(around, at_x, self.factors, CURVE_TOLERANCE)
        outcome.learn_curve(rows, found)
        stage.forwards += int(found.forwards.sum())
        stage.backwards += int(found.backwards.sum())
        return at_x

    def _absorb(self, outcome: Outcome, rows: Tensor, found: AttackResult, problem: Problem, stage: Stage) -> None:
        """Count what the attack spent, ask the model again about each success, and keep what stands."""
        stage.forwards += int(found.forwards.sum())
        stage.backwards += int(found.backwards.sum())
        outcome.learn(rows, found, gradients=found.backwards > 0)
        won = found.won.nonzero().squeeze(1)
        if not won.numel():
            return
        claimed = found.rows(won)
        again = self.model.logits(claimed.point)
        stage.forwards += won.numel()
        outcome.forwards[rows[won]] += 1
        stands = problem.goal.rows(won)(again, problem.y[won])
        outcome.unconfirmed[rows[won[~stands]]] += 1
        kept = won[stands]
        outcome.solve(rows[kept], found.rows(kept), again[stands], problem.region.rows(kept), stage.name)
        stage.broken = kept.numel()


@contextmanager
def _stage(outcome: Outcome, name: str, budget: Budget) -> Iterator[Stage]:
    """Open a row of the ledger and time it."""
    stage = Stage(name=name, epsilon=largest(budget.epsilon))
    outcome.ledger.append(stage)
    begin = time.perf_counter()
    yield stage
    stage.seconds = time.perf_counter() - begin


def _fgsm(problem: Problem, at_x: Evaluation) -> AttackResult:
    """Judge the FGSM points of a gradient that is known and paid for already: one forward."""
    assert at_x.gradient is not None
    assert at_x.size is not None
    point = problem.region.extreme(at_x.gradient)
    found = problem.model.evaluate(point, problem.y, problem.objective, problem.goal)
    status = torch.full_like(problem.stream.keys, Status.EXHAUSTED)
    status[at_x.size == 0] = Status.ZERO_GRADIENT
    status[~(at_x.finite & found.finite)] = Status.NONFINITE
    status[found.won] = Status.OK
    return AttackResult(
        point=point,
        won=found.won,
        gauge=problem.region.gauge(point),
        value=found.value.double(),
        outputs=found.outputs,
        forwards=torch.ones_like(status),
        backwards=torch.zeros_like(status),
        status=status,
        recipe="fgsm()",
        seed=0,
    )
