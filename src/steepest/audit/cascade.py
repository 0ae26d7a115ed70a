"""The cascade: attacks in order of cost on one batch; solved examples leave, every success is asked again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from steepest.attacks.contract import Attack, AttackResult, Problem, Status
from steepest.attacks.curve import trace
from steepest.attacks.fitting import require_fit
from steepest.attacks.recipes import ATTACKS
from steepest.audit.contract import Stage
from steepest.audit.outcome import FromX, Outcome
from steepest.basis.streams import Stream
from steepest.basis.tensors import expand
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.models.contract import Need, Objective
from steepest.models.estimated import Estimated
from steepest.models.model import Model

CURVE_TOLERANCE = 1e-3
"""Share of the largest ε to which each example's first FGSM success is refined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """What is run on every batch.

    Attributes:
        model: whose answers are the verdicts, at x and about every point found.
        twin: what the attacks search in; the model itself, or a faster one whose successes the model confirms.
        budgets: in rising order of ε and nested; a success at a smaller one counts for the larger ones.
        epsilons: one label per budget: its largest ε over all chosen examples.
        stages: (name, recipe) in order of cost; where `fgsm` is among them its gradient also gives the curve.
        factors: the grid of the FGSM curve, in units of the largest budget.

    Raises:
        UsageError, ModelError: an attack cannot serve the budget or the model.
    """

    model: Model
    twin: Model
    budgets: tuple[Budget, ...]
    epsilons: tuple[float, ...]
    stages: tuple[tuple[str, Attack], ...]
    objective: Objective
    factors: Tensor
    seed: int

    def __post_init__(self) -> None:
        for _, attack in self.stages:
            require_fit(attack, self.budgets[-1], self.model.facts.answers, ATTACKS)

    @property
    def need(self) -> Need:
        """What the stages want to know of a point."""
        return Need.GRADIENT if any(recipe.needs == "gradient" for _, recipe in self.stages) else Need.VALUE

    def rows(self, index: Tensor) -> Self:
        """Return the cascade of the examples that `index` selects."""
        budgets = tuple(budget.rows(index) for budget in self.budgets)
        return replace(self, budgets=budgets, objective=self.objective.rows(index))

    def run(self, x: Tensor, y: Tensor, ids: Tensor) -> Outcome:
        """Run all stages on one batch; `ids` name the examples' random streams.

        Raises:
            ContractError: an attack left its region. Any exception of an attack passes through: what did not run
                is never counted as robustness.
        """
        with self.model.borrowed(self.seed), self.twin.borrowed(self.seed), torch.no_grad():
            # The curve is a measurement of the model itself, and its gradient serves every ε.
            whole = replace(self._problem(self.budgets[-1], x, y, ids), model=self.model)
            outcome = self._clean(whole)
            if any(recipe.is_fgsm for _, recipe in self.stages):
                self._measure_curve(whole, outcome)
            for budget, epsilon in zip(self.budgets, self.epsilons, strict=True):
                here = self._problem(budget, x, y, ids)
                for number, (name, recipe) in enumerate(self.stages):
                    with _stage(outcome, name, epsilon) as (stage, rows):
                        if rows.numel():
                            # Every stage draws numbers of its own: the same random start twice would be wasted.
                            stream, model = here.stream.split(number), self._searched(recipe)
                            problem = replace(here, stream=stream, model=model).rows(rows)
                            curve = outcome.curve if recipe.is_fgsm else None
                            found = (
                                recipe.run(problem, self.seed) if curve is None else _fgsm(problem, curve.rows(rows))
                            )
                            self._absorb(outcome, rows, found, problem, stage)
        return outcome

    def _searched(self, recipe: Attack) -> Model:
        """Return what a recipe searches in; differences over a thousandth would drown in a twin's rounding."""
        return self.model if isinstance(getattr(recipe, "oracle", None), Estimated) else self.twin

    def _problem(self, budget: Budget, x: Tensor, y: Tensor, ids: Tensor) -> Problem:
        return Problem(
            model=self.twin,
            objective=self.objective,
            goal=self.objective.goal,
            region=Region(budget, self.model.box, x),
            y=y,
            stream=Stream.of(self.seed, ids),
        )

    def _clean(self, whole: Problem) -> Outcome:
        """Ask the model at x; what is wrong or not a number there is broken from the start."""
        begin = time.perf_counter()
        outcome = Outcome.at_x(whole.region, whole.y, self.model.logits(whole.region.x), len(self.factors))
        count, broken, seconds = whole.y.numel(), int(outcome.broken.sum()), time.perf_counter() - begin
        stage = Stage(name="clean", epsilon=0.0, entered=count, broken=broken, forwards=count, seconds=seconds)
        outcome.ledger.append(stage)
        return outcome

    def _measure_curve(self, whole: Problem, outcome: Outcome) -> None:
        """Take one gradient at x, and all that it says of every ε; the smallest success is asked again."""
        with _stage(outcome, "curve", self.epsilons[-1]) as (stage, rows):
            problem = whole.rows(rows)
            at_x = problem.gradient(problem.region.x)
            found = trace(problem, at_x, self.factors, CURVE_TOLERANCE)
            again = self.model.evaluate(found.point, problem.y, problem.objective, problem.goal)
            stands = found.gauge.isfinite() & again.won
            outcome.learn_curve(rows, at_x, found, stands)
            stage.forwards += int(found.forwards.sum()) + rows.numel()
            stage.backwards += int(found.backwards.sum())

    def _absorb(self, outcome: Outcome, rows: Tensor, found: AttackResult, problem: Problem, stage: Stage) -> None:
        """Count what the attack spent, ask the model again about each success, and keep what stands.

        Where a twin was searched in, the model is asked about the best failures too: their margin is its own, and
        what the twin took for a failure may be a success.
        """
        stage.forwards += int(found.forwards.sum())
        stage.backwards += int(found.backwards.sum())
        stage.notes = found.notes
        doubtful = found.won if self.twin is self.model else torch.ones_like(found.won)
        asked = doubtful.nonzero().squeeze(1)
        again = self.model.logits(found.point[asked]) if asked.numel() else found.outputs[asked]
        stands = problem.goal.rows(asked)(again, problem.y[asked])
        kept = asked[stands]
        stage.forwards += asked.numel()
        outcome.forwards[rows[asked]] += 1
        outcome.unconfirmed[rows[asked]] += (found.won[asked] & ~stands).long()
        outcome.learn(rows, replace(found, outputs=found.outputs.index_copy(0, asked, again)), found.backwards > 0)
        outcome.solve(rows[kept], found.rows(kept), again[stands], stage.name)
        stage.broken = kept.numel()


@contextmanager
def _stage(outcome: Outcome, name: str, epsilon: float) -> Iterator[tuple[Stage, Tensor]]:
    """Open a row of the ledger for the examples that nothing broke yet, and time it."""
    rows = (~outcome.broken).nonzero().squeeze(1)
    stage = Stage(name=name, epsilon=epsilon, entered=rows.numel())
    outcome.ledger.append(stage)
    begin = time.perf_counter()
    yield stage, rows
    stage.seconds = time.perf_counter() - begin


def _fgsm(problem: Problem, known: FromX) -> AttackResult:
    """Judge FGSM points from a gradient that is paid for already: one forward.

    Where the curve met a success that lies inside this budget, that point is judged; any point on the way counts.
    """
    inside = known.stands & problem.region.contains(known.point)
    point = torch.where(expand(inside, known.point), known.point, problem.region.extreme(known.gradient))
    found = problem.model.evaluate(point, problem.y, problem.objective, problem.goal)
    status = torch.where(known.finite & found.finite, known.status, int(Status.NONFINITE))
    return AttackResult(
        point=point,
        won=found.won,
        gauge=problem.region.gauge(point),
        radius=torch.where(found.won, problem.region.norm(point), torch.inf),
        value=found.value.double(),
        outputs=found.outputs,
        forwards=torch.zeros_like(status) + found.forwards,
        backwards=torch.zeros_like(status),
        status=torch.where(found.won, int(Status.OK), status),
        unconfirmed=torch.zeros_like(status) + found.unconfirmed,
        recipe="fgsm()",
        seed=0,
    )
