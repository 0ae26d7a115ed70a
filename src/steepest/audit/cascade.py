"""The cascade: rungs in order of cost on one shard; solved and proven examples leave, every success is asked again."""

from __future__ import annotations

import math
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
from steepest.attacks.ranking import nearest_classes
from steepest.attacks.recipes import ATTACKS
from steepest.audit.batches import Batches
from steepest.audit.contract import Stage
from steepest.audit.outcome import FromX, Outcome
from steepest.audit.rungs import Rung, drawn
from steepest.basis.streams import Stream
from steepest.basis.tensors import expand
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.models.contract import Count, Need, Objective
from steepest.models.estimated import Estimated
from steepest.models.model import Model
from steepest.models.objectives import Targeted

CURVE_TOLERANCE = 1e-3
"""Share of the largest ε to which each example's first FGSM success is refined."""

_PROBES = 1 << 20
"""The examples' stream from which probes are drawn; rungs count up from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """What is run on every shard.

    Attributes:
        model: whose answers are the verdicts, at x and about every point found.
        twin: what the attacks search in; the model itself, or a faster one whose successes the model confirms.
        sloped: whose gradients are measured: the model, or its surrogate where none reaches its input.
        budgets: in rising order of ε and nested; a success at a smaller one counts for the larger ones.
        epsilons: one label per budget: its largest ε over all chosen examples.
        rungs: in order of cost; where `fgsm` is among them its gradient also gives the curve.
        factors: the grid of the FGSM curve, in units of the largest budget.
        batch: so many examples are asked about at once; 0: all.
        first: the number of the first rung; rungs of other numbers draw other random numbers.

    Raises:
        UsageError, ModelError: an attack cannot serve the budget or the model.
    """

    model: Model
    twin: Model
    sloped: Model
    budgets: tuple[Budget, ...]
    epsilons: tuple[float, ...]
    rungs: tuple[Rung, ...]
    objective: Objective
    factors: Tensor
    seed: int
    batch: int = 0
    first: int = 0

    def __post_init__(self) -> None:
        for rung in self.rungs:
            if rung.attack is not None:
                require_fit(rung.attack, self.budgets[-1], self.model.facts.answers, ATTACKS)

    @property
    def need(self) -> Need:
        """What the rungs want to know of a point."""
        asked = any(rung.attack is not None and rung.attack.needs == "gradient" for rung in self.rungs)
        return Need.GRADIENT if asked else Need.VALUE

    def rows(self, index: Tensor) -> Self:
        """Return the cascade of the examples that `index` selects."""
        budgets = tuple(budget.rows(index) for budget in self.budgets)
        return replace(self, budgets=budgets, objective=self.objective.rows(index))

    def run(self, x: Tensor, y: Tensor, ids: Tensor) -> Outcome:
        """Run all rungs on one shard; `ids` name the examples' random streams.

        Raises:
            ContractError: an attack left its region. Any exception of an attack passes through: what did not run
                is never counted as robustness.
        """
        batches = Batches(self.batch or max(1, y.numel()))
        with self.model.borrowed(self.seed), self.twin.borrowed(self.seed), torch.no_grad():
            # The curve is no search: it is measured in no twin, and its gradient serves every ε.
            whole = replace(self._problem(self.budgets[-1], x, y, ids), model=self.sloped)
            outcome = self._clean(whole, batches)
            if any(rung.is_fgsm for rung in self.rungs):
                self._measure_curve(whole, outcome, batches)
            for budget, epsilon in zip(self.budgets, self.epsilons, strict=True):
                here = self._problem(budget, x, y, ids)
                outcome.unprove()  # a proof holds for the budget it was made for
                for number, rung in enumerate(self.rungs, self.first):
                    # Every rung draws numbers of its own: the same random start twice would be wasted.
                    self._climb(rung, replace(here, stream=here.stream.split(number)), outcome, batches, epsilon)
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

    def _clean(self, whole: Problem, batches: Batches) -> Outcome:
        """Ask the model at x; what is wrong or not a number there is broken from the start."""
        begin, size, found = time.perf_counter(), batches.size, list[Tensor]()
        everyone = torch.arange(whole.y.numel(), device=whole.y.device)
        batches.each(everyone, lambda rows: found.append(self.model.logits(whole.region.x[rows])))
        outcome = Outcome.at_x(whole, torch.cat(found), len(self.factors))
        count, broken, seconds = whole.y.numel(), int(outcome.broken.sum()), time.perf_counter() - begin
        stage = Stage(name="clean", epsilon=0.0, entered=count, broken=broken, forwards=count, seconds=seconds)
        stage.notes = batches.halved_from(size)
        outcome.ledger.append(stage)
        return outcome

    def _measure_curve(self, whole: Problem, outcome: Outcome, batches: Batches) -> None:
        """Take one gradient at x, and all that it says of every ε; the smallest success is asked again."""

        def measure(rows: Tensor) -> None:
            problem = whole.rows(rows)
            at_x = problem.gradient(problem.region.x)
            found = trace(problem, at_x, self.factors, CURVE_TOLERANCE)
            again = self.model.evaluate(found.point, problem.y, problem.objective, problem.goal)
            outcome.learn_curve(rows, at_x, found, stands=found.gauge.isfinite() & again.won)
            stage.forwards += int(found.forwards.sum()) + rows.numel()
            stage.backwards += int(found.backwards.sum())

        with _stage(outcome, "curve", self.epsilons[-1], batches) as (stage, rows):
            batches.each(rows, measure)

    def _climb(self, rung: Rung, here: Problem, outcome: Outcome, batches: Batches, epsilon: float) -> None:
        """Let the unbroken examples enter one rung, as its rule says."""
        unfit = self._unfit(rung)
        if unfit is None and rung.rank is not None:
            self._rank(here, outcome, batches, epsilon)
        with _stage(outcome, rung.name, epsilon, batches) as (stage, rows):
            if unfit is not None:
                stage.entered, stage.notes = 0, (unfit,)
                return
            stage.proven = None if rung.certifier is None else 0
            rows = rung.entering(rows, outcome.gap)
            first, others = rows, rows[:0]
            if rung.probe is not None and not (rung.after and outcome.has_broken(rung.after, epsilon)):
                first, others = drawn(
                    rows, here.stream.split(_PROBES).uniform(0, ()), math.ceil(rung.probe * rows.numel())
                )
            stage.entered = first.numel()
            batches.each(first, lambda part: self._ask(rung, here, outcome, part, stage))
            if others.numel() and stage.broken:
                stage.entered += others.numel()
                batches.each(others, lambda part: self._ask(rung, here, outcome, part, stage))

    def _unfit(self, rung: Rung) -> str | None:
        """Return why a rung does not apply to this audit, if so."""
        if isinstance(self.objective, Targeted) and (rung.rank or getattr(rung.work, "untargeted", False)):
            return "left out: the audit aims at one class, and this at others"
        classes = self.model.facts.classes
        if rung.rank is not None and classes is not None and rung.rank >= classes - 1:
            return f"left out: the model has only {classes - 1} other classes"
        return None

    def _rank(self, here: Problem, outcome: Outcome, batches: Batches, epsilon: float) -> None:
        """Order the classes of the unbroken examples by linearised distance, once."""
        if outcome.aims is not None or isinstance(self.objective, Targeted):
            return

        def ask(rows: Tensor) -> None:
            classes, _, found = nearest_classes(outcome.informed(here, rows, None))
            outcome.learn_aims(rows, classes, found)
            stage.forwards += _total(found.forwards, rows)
            stage.backwards += _total(found.backwards, rows)

        with _stage(outcome, "rank", epsilon, batches) as (stage, _):
            # Those proven at a small ε too: at a larger one they are back.
            unbroken = (~outcome.broken).nonzero().squeeze(1)
            stage.entered = unbroken.numel()
            batches.each(unbroken, ask)

    def _ask(self, rung: Rung, here: Problem, outcome: Outcome, rows: Tensor, stage: Stage) -> None:
        """Run a rung on one batch, ask the model again about each success, and keep what stands.

        Where a twin was searched in, the model is asked about the best failures too: their margin is its own, and
        what the twin took for a failure may be a success.
        """
        problem = outcome.informed(here, rows, rung.rank)
        if rung.attack is None:
            assert rung.certifier is not None
            outcome.prove(rows[rung.certifier.prove(problem)], stage)
            return
        problem = replace(problem, model=self._searched(rung.attack))
        known = outcome.curve if rung.is_fgsm else None
        found = rung.attack.run(problem, self.seed) if known is None else _fgsm(problem, known.rows(rows))
        doubtful = found.won if self.twin is self.model else torch.ones_like(found.won)
        asked = doubtful.nonzero().squeeze(1)
        again = self.model.logits(found.point[asked]) if asked.numel() else found.outputs[asked]
        stands = problem.goal.rows(asked)(again, problem.y[asked])
        kept = asked[stands]
        # What can run out of memory comes first, and does no harm twice; the counts come last.
        outcome.solve(rows[kept], found.rows(kept), again[stands], stage.name)
        answered = replace(found, outputs=found.outputs.index_copy(0, asked, again))
        outcome.learn(rows, problem, answered, found.backwards > 0)
        outcome.forwards[rows[asked]] += 1
        outcome.unconfirmed[rows[asked]] += (found.won[asked] & ~stands).long()
        stage.forwards += int(found.forwards.sum()) + asked.numel()
        stage.backwards += int(found.backwards.sum())
        stage.broken += kept.numel()
        stage.notes = tuple(dict.fromkeys((*stage.notes, *found.notes)))


def _total(count: Count, rows: Tensor) -> int:
    """Return the sum over `rows` of a count that is one for all or one for each."""
    return int(torch.as_tensor(count).expand(rows.shape).sum())


@contextmanager
def _stage(outcome: Outcome, name: str, epsilon: float, batches: Batches) -> Iterator[tuple[Stage, Tensor]]:
    """Open a row of the ledger for the examples that are neither broken nor proven yet; time it, note a halving."""
    rows = (~(outcome.broken | outcome.proven)).nonzero().squeeze(1)
    stage = Stage(name=name, epsilon=epsilon, entered=rows.numel())
    outcome.ledger.append(stage)
    begin, size = time.perf_counter(), batches.size
    yield stage, rows
    stage.seconds = time.perf_counter() - begin
    stage.notes += batches.halved_from(size)


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
