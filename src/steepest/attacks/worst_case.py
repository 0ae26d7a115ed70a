"""Beyond classifiers: the worst input of any differentiable function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from steepest.attacks.api import pose
from steepest.attacks.contract import Attack, AttackResult, Status
from steepest.attacks.recipes import ATTACKS
from steepest.basis.box import Bound, Box
from steepest.basis.errors import ModelError
from steepest.budgets.contract import Budget
from steepest.models.model import Model
from steepest.models.objectives import output_itself


@final
class _Outputs(nn.Module):
    """fn as a network with one output; a module inside it is seen, so it is handed back as it was."""

    def __init__(self, fn: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, points: Tensor) -> Tensor:
        value = self.fn(points)
        if not isinstance(value, Tensor) or value.shape != points.shape[:1]:
            form = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(f"fn returned {form} for {points.shape[0]} inputs; it must return one number each, [N].")
        return value[:, None]


def worst_case(
    fn: Callable[[Tensor], Tensor],
    x: Tensor,
    budget: Budget,
    *,
    box: Box | tuple[Bound, Bound] | None = None,
    recipe: str | Attack = "pgd(steps=50)",
    seed: int = 0,
) -> AttackResult:
    """Return the largest value of `fn` that was found within the budget around x, and the input that causes it.

    One FGSM step is tried first: it is exact where fn is linear. Then `recipe` searches from random starts, which
    also helps where the gradient vanishes at x (a squared deviation from fn(x) does). Ask for −fn too if both
    signs matter. Nothing is ever "won", so all steps are taken.

    Args:
        fn: differentiable, [N, *features] → [N], rows independent.
        x: the nominal inputs.
        budget: what may change.
        box: limits of the inputs themselves; None for no limits.
        recipe: the search after FGSM.
        seed: of its random starts.

    Returns:
        `AttackResult`: `value` [N] and `point`; status ZERO_GRADIENT or NONFINITE as everywhere.

    Raises:
        ModelError: fn does not return one number per example.

    >>> from steepest.budgets.linf import Linf
    >>> a = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    >>> worst_case(lambda x: x @ a, torch.zeros(1, 3, dtype=torch.float64), Linf(0.5)).value
    tensor([3.], dtype=torch.float64)
    """

    problem = pose(Model(_Outputs(fn), box), x, None, budget, objective=output_itself(), seed=seed, drop_solved=False)
    first = ATTACKS.build("fgsm").run(problem, seed)
    made = ATTACKS.build(recipe) if isinstance(recipe, str) else recipe
    second = made.run(problem, seed)
    better = (second.value > first.value) | first.value.isnan()
    lost = (first.status == Status.NONFINITE) | (second.status == Status.NONFINITE)
    pick = better.reshape(-1, *[1] * (x.ndim - 1))
    return replace(
        second,
        point=torch.where(pick, second.point, first.point),
        value=torch.where(better, second.value, first.value),
        gauge=torch.where(better, second.gauge, first.gauge),
        radius=torch.minimum(first.radius, second.radius),
        outputs=torch.where(better[:, None], second.outputs, first.outputs),
        forwards=first.forwards + second.forwards,
        backwards=first.backwards + second.backwards,
        unconfirmed=first.unconfirmed + second.unconfirmed,
        status=torch.where(lost, int(Status.NONFINITE), torch.where(better, second.status, first.status)),
        recipe=f"{first.recipe} then {second.recipe}",
    )
