"""A recipe: where a search starts, how it moves, how often it starts again; and the catalogue of attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from steepest.attacks.ascent import Jump
from steepest.attacks.best import Best
from steepest.attacks.checks import whole
from steepest.attacks.contract import Attack, AttackResult, Prefer, Problem, Search, Status
from steepest.attacks.fitting import require_fit
from steepest.attacks.loop import judged, require_feasible, run_search, settled
from steepest.attacks.starts import Start, at_x
from steepest.basis.catalogue import Catalogue, call_text
from steepest.basis.errors import UsageError
from steepest.models.contract import Objective, Oracle
from steepest.models.goals import Never
from steepest.models.objectives import Targeted, fallback_notes, objective_of

ATTACKS: Catalogue[Attack] = Catalogue("attack", by_name=True)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A start, a search and a number of restarts; restarts go to the examples that are not solved yet.

    Attributes:
        objective: what is ascended and ranks points within a run; the problem's own if None. Between runs points
            are ranked by the problem's objective, whatever the runs ascended.
        targets: each restart is one run towards each of so many classes, in the order that the problem knows, or else
            the likeliest wrong ones at x first; the goal stays the problem's. 0: no target.
        untargeted: the search leaves the class y and cannot aim at another; a targeted objective is refused.
        prefer: which points are kept.
        once: further runs leave out examples with any success, though a smaller one might exist.
        oracle: how the model is asked during the search; the model's own way if None.
        call, needs, budgets: from the catalogue; see `Attack`.
    """

    search: Search
    start: Start = at_x
    restarts: int = 1
    objective: str | Objective | None = None
    targets: int = 0
    untargeted: bool = False
    prefer: Prefer = Prefer.LARGEST_VALUE
    once: bool = False
    oracle: Oracle | None = None
    call: str = ""
    needs: str = "gradient"
    budgets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        whole("", "restarts", self.restarts, 1)
        whole("", "targets", self.targets, 0)
        whole("", "steps", self.search.steps, 0)

    @property
    def is_fgsm(self) -> bool:
        """See `Attack.is_fgsm`."""
        return isinstance(self.search, Jump) and self.start is at_x and self.objective is None

    def run(self, problem: Problem, seed: int = 0, *, judge_x: bool = False) -> AttackResult:
        """Attack every example of the problem; see `AttackResult`.

        Args:
            judge_x: where a search from elsewhere leaves an example unsolved, ask at x too (one forward), so that
                nothing ends better than it began. Not needed where x has been judged before, as in an audit.

        Raises:
            UsageError: the recipe cannot serve the budget or the model; those that can are named.
            ContractError: the search left the region.
        """
        require_fit(self, problem.region.budget, problem.model.facts.answers, ATTACKS)
        if self.untargeted and isinstance(problem.objective, Targeted):
            raise UsageError(
                f"{self.call or 'the recipe'} leaves the class of an example and cannot aim at another: for a target "
                "take e.g. pgd, apgd, fmn or cw."
            )
        with problem.model.borrowed(seed), torch.no_grad():
            best = self.explore(problem)
            if judge_x and self.start is not at_x and problem.clean is None and not self._targets(problem):
                judge_clean(replace(problem, prefer=self.prefer), best)
        gauge = require_feasible(problem, best.point, self.call or "the search")
        return replace(result_of(problem, best, gauge, self.call, seed), notes=self.notes(problem, best))

    def explore(self, problem: Problem) -> Best:
        """Return the best points that all runs found, and their cost; for protocols that run several recipes."""
        x = problem.region.x
        best = Best.none_yet(x)
        model = problem.model if self.oracle is None else problem.model.asked_by(self.oracle)
        problem = replace(problem, model=model, prefer=self.prefer)
        targets = self._targets(problem)
        if targets and problem.aims is None:
            problem = with_clean_answer(problem, best)
            assert problem.clean is not None
            problem = replace(problem, aims=likeliest_wrong(problem.clean, problem.y))
        for run in range(self.restarts * max(1, targets)):
            untried = best.outputs is None  # so nobody is done: no look at the GPU, which is idle still
            done = best.won if self.once or untried else settled(problem, best)
            live = torch.arange(len(x), device=x.device) if untried else (~done).nonzero().squeeze(1)
            if not live.numel():
                break
            everyone = live.numel() == x.shape[0]
            rest, known = (problem, best) if everyone else (problem.rows(live), best.rows(live))
            part = self._posed(rest, run)
            if part is not None:
                known.merge(rest, run_search(part, self.search, self.start(part, run)))
                best.take(live, known)
        return best

    def notes(self, problem: Problem, best: Best) -> tuple[str, ...]:
        """Return what a reader must know: which objective took the place of one that needs more classes."""
        chosen = problem.objective if self.objective is None else self.objective
        classes = 0 if best.outputs is None else best.outputs.shape[1]
        return fallback_notes(chosen, classes, targeted=self.targets > 0)

    def _posed(self, problem: Problem, run: int) -> Problem | None:
        """Return the problem of one run: its random numbers, its objective; None if there is no such target."""
        posed = replace(problem, stream=problem.stream.split(run), restart=run)
        targets = self._targets(problem)
        if not targets:
            return posed if self.objective is None else replace(posed, objective=self._aimed(problem.objective))
        assert problem.aims is not None
        rank = run % targets
        if rank >= problem.aims.shape[1]:
            return None
        aim = problem.aims[:, rank]
        base = problem.objective if self.objective is None else self.objective
        return replace(posed, objective=Targeted(base, aim))

    def _targets(self, problem: Problem) -> int:
        """Return how many classes each restart aims at in turn; a caller's own target is the only one."""
        return 0 if isinstance(problem.objective, Targeted) else self.targets

    def _aimed(self, asked: Objective) -> Objective:
        """Return the recipe's objective, towards the class that the caller's aims at, if it aims at one."""
        assert self.objective is not None
        return Targeted(self.objective, asked.target) if isinstance(asked, Targeted) else objective_of(self.objective)


def likeliest_wrong(outputs: Tensor, y: Tensor) -> Tensor:
    """Return int64 [N, K − 1]: the classes other than y, the likeliest first."""
    others = outputs.scatter(1, y.long()[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, :-1]


def with_clean_answer(problem: Problem, best: Best) -> Problem:
    """Return the problem with the model's answer at x; where it must be asked for, that is also judged."""
    if problem.clean is not None:
        return problem
    return replace(problem, clean=judged(problem, problem.region.x, best).outputs)


def judge_clean(problem: Problem, best: Best) -> None:
    """Ask about x where no success is known yet, so that nothing ends better than it began."""
    rest = (~best.won).nonzero().squeeze(1)
    if rest.numel():
        kept = best.rows(rest)
        part = problem.rows(rest)
        judged(part, part.region.x, kept)
        best.take(rest, kept)


def result_of(problem: Problem, best: Best, gauge: Tensor, call: str, seed: int) -> AttackResult:
    """Return what became of every example, from the best points and their gauges."""
    value = best.value.masked_fill(best.value.isneginf(), torch.nan)
    status = best.status()
    if isinstance(problem.goal, Never):
        status = torch.where(status == Status.EXHAUSTED, int(Status.OK), status)
    outputs = best.point.new_full((best.won.shape[0], 0), torch.nan) if best.outputs is None else best.outputs
    radius = best.radius
    if bool(best.won.any()):
        radius = radius.minimum(torch.where(best.won, problem.region.norm(best.point), torch.inf))
    return AttackResult(
        point=best.point,
        won=best.won,
        gauge=gauge,
        radius=radius,
        value=value,
        outputs=outputs,
        forwards=best.forwards,
        backwards=best.backwards,
        status=status,
        unconfirmed=best.unconfirmed,
        recipe=call,
        seed=seed,
    )


Made = TypeVar("Made", bound=Attack)


def recipe(
    name: str, *, needs: str, cost: str, source: str, budgets: tuple[str, ...] = ()
) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Return a decorator that catalogues an attack, tells it what it needs, and makes it remember its call.

    Args:
        needs: "gradient", "scores" (any outputs that rank classes) or "labels" (the predicted class alone).
        cost: in forwards F and backwards B per example, as text.
        source: author and year.
        budgets: the kinds of `steepest list budgets` that it serves; none named: every set that keeps the contract;
            ("any", "none"): it also works without a budget, and the command line then assumes none.
    """

    def enter(factory: Callable[..., Made]) -> Callable[..., Made]:
        def remember(made: Made, text: str) -> Made:
            known: dict[str, Any] = {"call": text, "needs": needs, "budgets": budgets}
            return replace(made, **known)  # type: ignore[type-var]

        @wraps(factory)
        def named(*args: Any, **kwargs: Any) -> Made:
            try:
                return factory(*args, **kwargs)
            except UsageError as error:
                # A search that several attacks share cannot know which of them was asked for.
                if str(error).startswith(f"{name}: "):
                    raise
                raise UsageError(f"{name}: {error}") from None

        remembering = call_text(name, named, remember)
        facts = {"needs": needs, "budgets": ", ".join(budgets) or "any", "cost": cost, "source": source}
        ATTACKS.add(name, facts)(remembering)
        return remembering

    return enter
