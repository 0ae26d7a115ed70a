"""The cascade: rungs in order of cost on one shard; solved and proven examples leave, every success is asked again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from steepest.attacks.contract import Attack, AttackResult, Problem, Status
from steepest.attacks.curve import trace
from steepest.attacks.fitting import require_fit
from steepest.attacks.ranking import nearest_classes
from steepest.attacks.recipes import ATTACKS
from steepest.audit.batches import Batches
from steepest.audit.certificates import Certificates, require_rounding
from steepest.audit.contract import Stage
from steepest.audit.outcome import FromX, Outcome
from steepest.audit.rungs import Rung, drawn
from steepest.basis.streams import Stream
from steepest.basis.tensors import expand
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.certify.api import BATCH, bounds
from steepest.certify.contract import Prover
from steepest.certify.radius import CAP, TOLERANCE
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
        shape: of one example.
        first: the number of the first rung; rungs of other numbers draw other random numbers.
        certificates: of the model, shared by all shards that this process computes.

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
    shape: tuple[int, ...]
    batch: int = 0
    first: int = 0
    certificates: Certificates = field(default_factory=Certificates)

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

    def run(self, x: Tensor, y: Tensor, ids: Tensor, proven: Tensor | None = None) -> Outcome:
        """Run all rungs on one shard; `ids` name the examples' random streams, `proven` sizes are known already.

        Raises:
            ContractError: an attack left its region, or broke what is proven, and not by rounding. Any exception of an
                attack passes through: what did not run is never counted as robustness.
        """
        batches = Batches(self.batch or max(1, y.numel()))
        with self.model.borrowed(self.seed), self.twin.borrowed(self.seed), torch.no_grad():
            # The curve is no search: it is measured in no twin, and its gradient serves every ε.
            whole = replace(self._problem(self.budgets[-1], x, y, ids), model=self.sloped)
            outcome = self._clean(whole, batches, ids, proven)
            sized = [pair for pair in enumerate(self.rungs, self.first) if pair[1].around]
            for _, rung in sized:
                if rung.certifier is not None:
                    self._climb(rung, whole, outcome, batches, self.epsilons[-1])
            if any(rung.is_fgsm for rung in self.rungs):
                self._measure_curve(whole, outcome, batches)
            for budget, epsilon in zip(self.budgets, self.epsilons, strict=True):
                here = self._problem(budget, x, y, ids)
                outcome.retire(self._share(epsilon))  # a proof holds for the budget it was made for
                for number, rung in enumerate(self.rungs, self.first):
                    # Every rung draws numbers of its own: the same random start twice would be wasted.
                    if not rung.around:
                        self._climb(rung, replace(here, stream=here.stream.split(number)), outcome, batches, epsilon)
            for number, rung in sized:
                if rung.attack is not None:
                    far = replace(here, region=here.region.scaled(CAP), stream=here.stream.split(number))
                    self._approach(rung.name, rung.attack, far, outcome, batches)
            self._settle(outcome, here)
        return outcome

    def _share(self, epsilon: float) -> float:
        """Return a budget's size in units of the largest."""
        return epsilon / self.epsilons[-1] if self.epsilons[-1] > 0 else 1.0

    def _settle(self, outcome: Outcome, here: Problem) -> None:
        """Ask in float64 about every success inside what is proven.

        Raises:
            ContractError: one of them is repeated there.
        """
        for row, crossing in outcome.crossings.items():
            at = torch.tensor([row], device=outcome.y.device)
            rung = next((rung for rung in self.rungs if rung.name == crossing.certifier), None)
            prover = None if rung is None else self._prover(rung)
            y, region = outcome.y[at], outcome.region.rows(at)
            require_rounding(self.model, crossing, region, y, here.goal.rows(at), prover)
            outcome.rounding[row] = True

    def _prover(self, rung: Rung) -> Prover | str:
        """Return a certifier's prover of the user's own model, or why it has none."""
        return self.certificates.prover(rung, self.model, self.shape)

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

    def _clean(self, whole: Problem, batches: Batches, ids: Tensor, proven: Tensor | None) -> Outcome:
        """Ask the model at x; what is wrong or not a number there is broken from the start."""
        begin, size, found = time.perf_counter(), batches.size, list[Tensor]()
        everyone = torch.arange(whole.y.numel(), device=whole.y.device)
        batches.each(everyone, lambda rows: found.append(self.model.logits(whole.region.x[rows])))
        outcome = Outcome.at_x(whole, torch.cat(found), len(self.factors), ids, proven)
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
            stage.certifier = rung.certifier is not None
            if unfit is not None:
                stage.entered, stage.notes = 0, (unfit,)
                return
            if stage.certifier:
                self._certify(rung, here, outcome, rows, stage)
                return
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

    def _certify(self, rung: Rung, here: Problem, outcome: Outcome, rows: Tensor, stage: Stage) -> None:
        """Ask a certifier about the examples `rows`; those that it proves leave."""
        prover, share = self._prover(rung), self._share(stage.epsilon)
        if rung.around:  # the others may have proven less of what one has proven already
            rows = (~outcome.broken).nonzero().squeeze(1)
        assert not isinstance(prover, str)

        def prove(part: Tensor) -> None:
            region, right = here.region.rows(part), ~outcome.broken[part]
            gauge, _ = bounds(prover, region, outcome.y[part], right, TOLERANCE if rung.around else None)
            outcome.prove(part, gauge * share, stage.name)
            stage.proven = (stage.proven or 0) + int((gauge >= 1).sum())

        stage.entered, stage.proven = rows.numel(), 0
        Batches(BATCH).each(rows, prove)
        outcome.retire(share)

    def _approach(self, name: str, attack: Attack, far: Problem, outcome: Outcome, batches: Batches) -> None:
        """Look for the smallest success of all that is right at x, of what is broken or proven too."""

        def near(rows: Tensor) -> None:
            problem = replace(outcome.informed(far, rows, None), model=self._searched(attack))
            found = attack.run(problem, self.seed)
            again = self.model.logits(found.point)
            kept = (found.won & problem.goal(again, problem.y)).nonzero().squeeze(1)
            outcome.reached(rows[kept], found.point[kept], name)
            inside = outcome.region.rows(rows[kept]).contains(found.point[kept]) & ~outcome.broken[rows[kept]]
            outcome.solve(rows[kept[inside]], found.rows(kept[inside]), again[kept[inside]], name)
            outcome.forwards[rows] += found.forwards + 1
            outcome.backwards[rows] += found.backwards
            stage.forwards += int(found.forwards.sum()) + rows.numel()
            stage.backwards += int(found.backwards.sum())
            stage.broken += int(inside.sum())

        with _stage(outcome, name, self.epsilons[-1], batches) as (stage, _):
            right = (outcome.radius_gauge > 0).nonzero().squeeze(1)
            stage.entered = right.numel()
            batches.each(right, near)

    def _unfit(self, rung: Rung) -> str | None:
        """Return why a rung does not apply to this audit, if so."""
        if rung.certifier is not None and isinstance(found := self._prover(rung), str):
            return f"no certificate: {found}"
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
        assert rung.attack is not None
        problem = replace(outcome.informed(here, rows, rung.rank), model=self._searched(rung.attack))
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
