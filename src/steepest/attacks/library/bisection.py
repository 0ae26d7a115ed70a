"""The smallest ε at which an attack with a fixed ε succeeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from steepest.attacks.best import Best
from steepest.attacks.checks import whole
from steepest.attacks.contract import Attack, AttackResult, Prefer, Problem, Status
from steepest.attacks.fitting import require_fit
from steepest.attacks.loop import judged, require_feasible
from steepest.attacks.recipe import ATTACKS, Recipe, recipe, result_of
from steepest.attacks.starts import at_x


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bisection:
    """Ask an attack for the whole budget, then for shares of it, half-way from the last failure to the best success.

    Success of a search is not monotone in ε, so the smallest success ever met is what counts, by its own size and
    not by the ε at which it was found; where it is smaller than an ε that failed, the bracket opens down to 0. Before
    the attack runs at a smaller ε, the best success is projected there, which costs one forward; where that is a
    success too, the attack is spared. Otherwise a recipe that would start at random starts its first run there. Every
    round has its own random numbers.

    Attributes:
        inner: the attack, of any kind.
        rounds: how often the bracket is halved.
        call, needs, budgets: see `Attack`; needs and budgets are those of `inner`.
        prefer: it keeps the smallest success.
    """

    inner: Attack
    rounds: int
    call: str = ""
    needs: str = "gradient"
    budgets: tuple[str, ...] = ()
    is_fgsm: ClassVar[bool] = False
    prefer: ClassVar[Prefer] = Prefer.SMALLEST_GAUGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", self.inner.needs)
        object.__setattr__(self, "budgets", self.inner.budgets)

    def run(self, problem: Problem, seed: int = 0, *, judge_x: bool = False) -> AttackResult:
        """See `Attack.run`; x is always judged."""
        require_fit(self.inner, problem.region.budget, problem.model.facts.answers, ATTACKS)
        problem = replace(problem, prefer=Prefer.SMALLEST_GAUGE, drop_solved=True)
        best = Best.none_yet(problem.region.x)
        with problem.model.borrowed(seed), torch.no_grad():
            # A copy: a model that writes into its input is refused, but only after it has written.
            judged(problem, problem.region.x.clone(), best)
            problem = replace(problem, clean=best.outputs)
            share = torch.ones_like(best.gauge)
            self._attempt(problem, best, (~best.won).nonzero().squeeze(1), share, 0, self.inner)
            failed = torch.zeros_like(best.gauge)
            for number in range(1, self.rounds + 1):
                rows = (best.won & (best.gauge > failed)).nonzero().squeeze(1)
                if not rows.numel():
                    break
                share = (failed + best.gauge.nan_to_num(posinf=1.0)) / 2
                self._try_smaller(problem, best, rows, share, number)
                failed = torch.where(best.won & (best.gauge > share), share, failed)
                # A success below what failed shows that the failure says nothing about smaller budgets.
                failed = torch.where(best.gauge <= failed, 0.0, failed)
        gauge = require_feasible(problem, best.point, self.call or "the search")
        return result_of(problem, best, gauge, self.call, seed)

    def _try_smaller(self, problem: Problem, best: Best, rows: Tensor, share: Tensor, number: int) -> None:
        """Look for successes of gauge at most `share`: the best one projected, and where that fails the attack."""
        part, known = problem.rows(rows), best.rows(rows)
        near = part.region.scaled(share[rows]).project(known.point)
        judged(part, near, known)
        best.take(rows, known)
        left = known.gauge > share[rows]
        self._attempt(problem, best, rows[left], share, number, _starting(self.inner, near[left]))

    def _attempt(self, problem: Problem, best: Best, rows: Tensor, share: Tensor, number: int, attack: Attack) -> None:
        """Run the attack inside `share` of the budget, for the rows named."""
        if not rows.numel():
            return
        part = problem.rows(rows)
        # The first attempt is the attack itself, with its own random numbers.
        stream = part.stream.split(number) if number else part.stream
        posed = replace(part, region=part.region.scaled(share[rows]), stream=stream)
        known = best.rows(rows)
        # The network is borrowed already, with the seed; random numbers come from the problem's stream.
        known.merge(part, _as_best(part, attack.run(posed)))
        best.take(rows, known)


def _starting(attack: Attack, near: Tensor) -> Attack:
    """Return the attack with its first run started at `near`, if it is a recipe that would start at random."""
    if not isinstance(attack, Recipe) or attack.start is at_x:
        return attack
    own = attack.start

    def start(problem: Problem, run: int) -> Tensor:
        return own(problem, run) if run else near

    return replace(attack, start=start)


def _as_best(problem: Problem, found: AttackResult) -> Best:
    """Return a result as what a search of `problem` has found: its gauge is in units of that budget."""
    blind = (found.status == Status.ZERO_GRADIENT).long()
    return Best(
        point=found.point,
        won=found.won,
        value=found.value.double().nan_to_num(-torch.inf),
        outputs=found.outputs if found.outputs.shape[1] else None,
        gauge=torch.where(found.won, problem.region.gauge(found.point), torch.inf),
        radius=found.radius,
        forwards=found.forwards,
        backwards=found.backwards,
        asked=torch.ones_like(blind),
        zero=blind,
        nonfinite=found.status == Status.NONFINITE,
        unconfirmed=found.unconfirmed,
    )


@recipe(
    "bisection",
    needs="gradient",
    cost="at most (1 + rounds) × (the attack + F)",
    source="the search of AttackBench, Cinà et al. 2025",
)
def bisection(attack: str = "pgd(steps=20)", rounds: int = 10) -> Bisection:
    """The smallest ε inside the budget at which a fixed-ε attack succeeds, by bisection, for each example.

    `attack` is any call of the catalogue; it decides which models and budgets are served.
    """
    whole("bisection", "rounds", rounds, 0)
    return Bisection(inner=ATTACKS.build(attack), rounds=rounds)
