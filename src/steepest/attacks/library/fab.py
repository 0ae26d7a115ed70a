"""FAB: to the linearised boundary, from the point and from x, and back towards x after each success."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from steepest.attacks.checks import between, share, whole
from steepest.attacks.contract import GRADIENT, VALUE, Ask, Prefer, Problem, State
from steepest.attacks.recipe import Recipe, recipe
from steepest.attacks.smallest import nearest_plane, own_and_rivals, put
from steepest.basis.tensors import expand, inner
from steepest.budgets.reach import nearest
from steepest.models.contract import Evaluation, Need
from steepest.models.objectives import Margin

_BIAS = 0.05
"""How far beyond the interpolated boundary the closing search asks, as a share of the rest: it must be crossed."""


@final
@dataclass(frozen=True, slots=True)
class AdaptiveBoundary:
    """Two questions per round, the gradients at x_t and the verdict on what is proposed; then the closing ones.

    Without targets a first question, at x, ranks the classes.
    """

    rounds: int
    targets: int
    alpha_max: float
    eta: float
    beta: float
    closing: int
    classes: int

    @property
    def steps(self) -> int:
        """See `Search.steps`; the loop's own last question is one of the closing ones."""
        return self._lead + 2 * self.rounds + max(0, self.closing - 1)

    @property
    def _lead(self) -> int:
        return 0 if self.targets else 1

    def init(self, problem: Problem, point: Tensor) -> State:
        """See `Search.init`: the smallest success, where on the way to it the boundary lies, and the margins there."""
        none = torch.full(point.shape[:1], torch.inf, dtype=torch.float64, device=point.device)
        state = {"near": point, "radius": none, "low": torch.zeros_like(none), "high": torch.ones_like(none)}
        return state | {"under": torch.full_like(none, torch.nan), "over": torch.full_like(none, torch.nan)}

    def ask(self, problem: Problem, state: State, number: int) -> Ask:
        """See `Search.ask`."""
        turn = number - self._lead
        if turn < 0 or turn % 2 or turn >= 2 * self.rounds:
            return VALUE
        return GRADIENT if self.targets else Ask(need=Need.JACOBIAN, classes=state["classes"])

    def step(self, problem: Problem, found: Evaluation, state: State, number: int) -> tuple[Tensor, State]:
        """See `Search.step`."""
        turn = number - self._lead
        margin = Margin().value(found.outputs, problem.y).double()
        if not number:
            state = state | {"under": margin}
        if turn < 0:
            return found.point, state | {"classes": own_and_rivals(found.outputs, problem.y, self.classes)}
        if turn >= 2 * self.rounds:
            state = _narrowed(found, state, margin)
            return _on_the_way(problem, state), state
        state = _remembered(problem, found, state, margin)
        if not turn % 2:
            return self._proposed(problem, found, state, turn), state
        if self.closing and turn == 2 * self.rounds - 1:
            return _on_the_way(problem, state), state
        x = problem.region.x.double()
        back = put(problem.region, x + self.beta * (found.point.double() - x))
        return torch.where(expand(found.won, found.point), back, found.point), state

    def _proposed(self, problem: Problem, found: Evaluation, state: State, turn: int) -> Tensor:
        """Return (1 − α)(x_t + η·d₁) + α(x + η·d₂): d₁, d₂ lead from x_t and from x to the linearised boundary."""
        region, budget, x = problem.region, problem.region.budget, problem.region.x.double()
        if self.targets:
            assert found.gradient is not None
            ahead, w = torch.where(found.finite, found.value.double(), 0.0), found.gradient.double()
        else:
            ahead, w = nearest_plane(problem, found, state["classes"])
        walked = found.point.double() - x
        here = nearest(budget, w, -ahead, region.room(found.point))
        there = nearest(budget, w, inner(w, walked) - ahead, region.limits())
        far_here, far_there = budget.gauge(here), budget.gauge(there)
        if not turn and problem.restart >= max(1, self.targets):
            return region.scaled(far_there / 2).sample(problem.stream, 0)
        total = far_here + far_there
        alpha = torch.where(total > 0, far_here / torch.where(total > 0, total, 1.0), 0.0).clamp_max(self.alpha_max)
        mixed = (1 - expand(alpha, x)) * (walked + self.eta * here) + expand(alpha, x) * (self.eta * there)
        return put(region, x + mixed)


def _remembered(problem: Problem, found: Evaluation, state: State, margin: Tensor) -> State:
    """Return the state with the success at hand, where it is the smallest."""
    radius = problem.region.norm(found.point)
    better = found.won & (radius < state["radius"])
    return state | {
        "near": torch.where(expand(better, found.point), found.point, state["near"]),
        "radius": torch.where(better, radius, state["radius"]),
        "over": torch.where(better, margin, state["over"]),
    }


def _narrowed(found: Evaluation, state: State, margin: Tensor) -> State:
    """Return the state with the last point between x and the success as a new end of the interval."""
    at = _share(state)
    return state | {
        "low": torch.where(found.won, state["low"], at),
        "under": torch.where(found.won, state["under"], margin),
        "high": torch.where(found.won, at, state["high"]),
        "over": torch.where(found.won, margin, state["over"]),
    }


def _share(state: State) -> Tensor:
    """Return where between x (0) and the smallest success (1) the margin, interpolated, is just crossed."""
    low, high, under, over = (state[name] for name in ("low", "high", "under", "over"))
    sure = (under < 0) & (over > 0)  # else another goal than misclassification is asked for: halve
    root = torch.where(sure, -under / torch.where(sure, over - under, 1.0), 0.5)
    return low + (high - low) * torch.where(sure, root + _BIAS * (1 - root), root)


def _on_the_way(problem: Problem, state: State) -> Tensor:
    x = problem.region.x.double()
    return put(problem.region, x + expand(_share(state), x) * (state["near"].double() - x))


@recipe(
    "fab",
    needs="gradient",
    cost="restarts × (steps × (2 F + classes × B) + 4 F); with targets restarts × targets × (steps × (2 F + B) + 3 F)",
    source="Croce & Hein 2020",
)
def fab(
    steps: int = 100,
    targets: int = 0,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
    closing: int = 3,
    classes: int = 10,
) -> Recipe:
    """Fast adaptive boundary: project x_t and x onto the linearised boundary, mix, overshoot; go back after a success.

    x_{t+1} = (1 − α)(x_t + η·d₁) + α(x + η·d₂), α = min(‖d₁‖/(‖d₁‖ + ‖d₂‖), alpha_max), where d₁ and d₂ are the
    smallest perturbations, in the budget's own norm and inside the box, that reach the boundary from x_t and from x.
    After a success x_{t+1} is x + beta·(x_{t+1} − x). At last `closing` points between x and the smallest success.

    Untargeted, the boundary is the nearest of those to the `classes` likeliest classes (published: all, as is ours
    for K ≤ 10). With `targets=9` each run goes to one class, by one gradient: that of the margin of the target over
    whatever leads, which before a success is the published z_t − z_y. AutoAttack's FAB-T is `fab(targets=9)`.

    Unlike the publication: any budget; further restarts begin inside half of the linearised distance, not half of the
    best radius or ε, so nothing depends on ε; the closing search asks just beyond the interpolated boundary.

    Args:
        steps: rounds of two questions each.
        alpha_max: how much weight the step from x may get.
        eta: the overshoot.
        beta: how much of the perturbation is kept after a success.
        closing: questions of the closing search; 0 for none.
    """
    for name, given, least in (("steps", steps, 1), ("closing", closing, 0), ("classes", classes, 2)):
        whole("fab", name, given, least)
    between("fab", "alpha_max", alpha_max, 0, 1)
    between("fab", "eta", eta, 1)
    share("fab", "beta", beta, "give a share between 0 and 1 (published: 0.9)")
    search = AdaptiveBoundary(steps, targets, alpha_max, eta, beta, closing, classes)
    return Recipe(
        search=search,
        restarts=restarts,
        objective="margin" if targets else None,
        targets=targets,
        untargeted=not targets,
        prefer=Prefer.SMALLEST_GAUGE,
    )
