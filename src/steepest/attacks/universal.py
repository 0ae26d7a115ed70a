"""The shared perturbation in one call."""

from __future__ import annotations

from torch import Tensor

from steepest.attacks.api import ObjectiveChoice, pose
from steepest.attacks.contract import AttackResult
from steepest.attacks.library.universal import universal as catalogued
from steepest.budgets.contract import Budget
from steepest.models.contract import Goal, Labels
from steepest.models.model import Model, Network


def universal(
    model: Model | Network,
    x: Tensor,
    y: Labels,
    budget: Budget,
    *,
    steps: int = 50,
    step: float = 1 / 8,
    beta: float | None = None,
    objective: ObjectiveChoice = "scaled-ce",
    goal: Goal | None = None,
    seed: int = 0,
) -> tuple[Tensor, AttackResult]:
    """Return one perturbation δ [1, *features] in the budget that breaks as many examples as it can, and the result.

    x + δ, projected into budget and box, is the point of every example that δ makes worse; the others stay at x.
    To turn δ on new data, clip x + δ into the box.

    Args:
        steps, step, beta: as in the catalogue: `universal(steps=50, step=0.125, beta=None)`.
        model, x, y, budget, objective, goal, seed: as for `st.attack`.

    Raises:
        UsageError: ε differs between examples; otherwise as `st.attack`.

    Source: Moosavi-Dezfooli et al. 2017; Shafahi et al. 2020.

    >>> from steepest.budgets.linf import Linf
    >>> f = Model(lambda x: torch.stack([x[:, 0] - x[:, 1], x[:, 1] - x[:, 0]], 1))
    >>> delta, result = universal(f, torch.tensor([[0.6, 0.5], [0.9, 0.5]]), torch.tensor([0, 0]), Linf(0.1))
    >>> delta, result.won
    (tensor([[-0.1000,  0.1000]], dtype=torch.float64), tensor([ True, False]))
    """
    problem = pose(model, x, y, budget, objective=objective, goal=goal, seed=seed)
    return catalogued(steps=steps, step=step, beta=beta).found(problem, seed)
