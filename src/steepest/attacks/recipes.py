"""Named recipes: where a search starts, how it moves, how often it starts again.

>>> pgd(steps=5).call
"pgd(steps=5, step=None, restarts=1, start='clipped')"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from steepest.attacks.ascent import GradientAscent, Jump
from steepest.attacks.contract import AttackResult, Problem, Search, Status
from steepest.attacks.loop import Best, require_feasible, run_search
from steepest.attacks.noise import RandomPoints, random_point
from steepest.basis.catalogue import Catalogue, call_text
from steepest.basis.errors import UsageError, unknown
from steepest.models.goals import Never

Start = Callable[[Problem, int], Tensor]
"""(problem, number of the restart) → the first point, inside the region."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A start, a search and a number of restarts; restarts go to the examples that are not solved yet.

    Attributes:
        call: the catalogue's call that makes it again, with every argument.
    """

    search: Search
    start: Start
    restarts: int = 1
    call: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.restarts, int) or self.restarts < 1 or self.search.steps < 0:
            raise UsageError(
                f"{self.call or 'recipe'}: restarts={self.restarts} and steps={self.search.steps} are not allowed; "
                "restarts must be a whole number of at least 1, steps at least 0."
            )

    @property
    def is_fgsm(self) -> bool:
        """Whether it is the one jump from x, whose gradient serves every ε."""
        return isinstance(self.search, Jump) and self.start is at_x

    def run(self, problem: Problem, seed: int = 0, *, judge_x: bool = False) -> AttackResult:
        """Attack every example of the problem; see `AttackResult`.

        Args:
            judge_x: where a search from a random start leaves an example unsolved, ask at x too (one forward), so
                that nothing ends better than it began. Not needed where x has been judged before, as in an audit.

        Raises:
            ContractError: the search left the region.
        """
        x = problem.region.x
        best = Best.none_yet(x)
        with problem.model.borrowed(seed), torch.no_grad():
            for restart in range(self.restarts):
                live = (~best.won if problem.drop_solved else torch.ones_like(best.won)).nonzero().squeeze(1)
                if not live.numel():
                    break
                whole = live.numel() == x.shape[0]
                part = problem if whole else problem.rows(live)
                part = replace(part, stream=part.stream.split(restart))
                found = run_search(part, self.search, self.start(part, restart), best if whole else best.rows(live))
                best.take(live, found)
            if judge_x and self.start is not at_x:
                _judge_x(problem, best)
        gauge = require_feasible(problem, best.point, self.call or "the search")
        return _result(problem, best, gauge, self.call, seed)


def _judge_x(problem: Problem, best: Best) -> None:
    rest = (~best.won).nonzero().squeeze(1)
    if rest.numel():
        part, kept = problem.rows(rest), best.rows(rest)
        kept.learn(part.model.evaluate(part.region.x, part.y, part.objective, part.goal))
        best.take(rest, kept)


def _result(problem: Problem, best: Best, gauge: Tensor, call: str, seed: int) -> AttackResult:
    value = best.value.masked_fill(best.value.isneginf(), torch.nan)
    status = best.status()
    if isinstance(problem.goal, Never):
        status = torch.where(status == Status.EXHAUSTED, int(Status.OK), status)
    outputs = best.point.new_full((best.won.shape[0], 0), torch.nan) if best.outputs is None else best.outputs
    return AttackResult(
        point=best.point,
        won=best.won,
        gauge=gauge,
        value=value,
        outputs=outputs,
        forwards=best.forwards,
        backwards=best.backwards,
        status=status,
        recipe=call,
        seed=seed,
    )


def at_x(problem: Problem, restart: int) -> Tensor:
    """Start at the clean input."""
    return problem.region.x


def uniform(problem: Problem, restart: int) -> Tensor:
    """Start at a uniform point of the region."""
    return problem.region.sample(problem.stream, 0)


def clipped(problem: Problem, restart: int) -> Tensor:
    """Start at a uniform point of the budget, clipped into the box, as published evaluations do."""
    return problem.region.sample_clipped(problem.stream, 0)


STARTS: dict[str, Start] = {"uniform": uniform, "clipped": clipped}

ATTACKS: Catalogue[Recipe] = Catalogue("attack")


def recipe(
    name: str, *, needs: str, cost: str, source: str
) -> Callable[[Callable[..., Recipe]], Callable[..., Recipe]]:
    """Return a decorator that catalogues a recipe and makes it remember its call."""

    def enter(factory: Callable[..., Recipe]) -> Callable[..., Recipe]:
        remembering = call_text(name, factory, lambda made, text: replace(made, call=text))
        ATTACKS.add(name, {"needs": needs, "cost": cost, "source": source})(remembering)
        return remembering

    return enter


@recipe("fgsm", needs="gradient", cost="1 F + 1 B, and 1 F to judge", source="Goodfellow, Shlens & Szegedy 2015")
def fgsm() -> Recipe:
    """One step to the maximiser of the linearised objective: x + extreme(∇), in any budget."""
    return Recipe(search=Jump(), start=at_x)


@recipe("r-fgsm", needs="gradient", cost="1 F + 1 B, and 1 F to judge", source="Tramèr et al. 2018")
def r_fgsm(noise: float = 0.5) -> Recipe:
    """A random corner of the share `noise` of the budget, then one gradient step of the rest."""
    if not 0 <= noise < 1:
        raise UsageError(f"r-fgsm: noise={noise} is not allowed; it is a share of the budget, from 0 up to below 1.")

    def start(problem: Problem, restart: int) -> Tensor:
        return problem.region.scaled(noise).corner(problem.stream, 0)

    return Recipe(search=GradientAscent(1, 1 - noise), start=start)


@recipe("bim", needs="gradient", cost="steps × (F + B) + F", source="Kurakin, Goodfellow & Bengio 2017")
def bim(steps: int = 10, step: float = 1 / 8) -> Recipe:
    """Small gradient steps from x, each of the share `step` of the budget (1/255 where ε is 8/255)."""
    return Recipe(search=GradientAscent(steps, step), start=at_x)


@recipe("pgd", needs="gradient", cost="restarts × (steps × (F + B) + F)", source="Madry et al. 2018")
def pgd(steps: int = 20, step: float | None = None, restarts: int = 1, start: str = "clipped") -> Recipe:
    """Gradient steps with projection from random starts; a step is 2.5/steps of the budget by default.

    `start` is "clipped" (uniform in the budget, then clipped into the box, as published) or "uniform" (over the part
    of the budget inside the box), which is the stronger one where many values lie on the box's faces.
    """
    if start not in STARTS:
        raise unknown("start of pgd", start, STARTS)
    size = 2.5 / max(steps, 1) if step is None else step
    return Recipe(search=GradientAscent(steps, size), start=STARTS[start], restarts=restarts)


@recipe("mi-fgsm", needs="gradient", cost="steps × (F + B) + F", source="Dong et al. 2018")
def mi_fgsm(steps: int = 10, momentum: float = 1.0) -> Recipe:
    """Gradient steps of 1/steps of the budget from x, along a running sum of normalised gradients."""
    return Recipe(search=GradientAscent(steps, 1 / max(steps, 1), momentum), start=at_x)


@recipe("noise", needs="outputs", cost="points × F", source="a control, Carlini et al. 2019")
def noise(points: int = 100) -> Recipe:
    """Random points of the region, uniform ones and corners in turn, without any gradient."""
    if not isinstance(points, int) or points < 1:
        raise UsageError(f"noise: points={points} is not allowed; give a whole number of at least 1.")
    return Recipe(search=RandomPoints(points - 1), start=lambda problem, restart: random_point(problem, 0))
