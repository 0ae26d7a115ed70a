"""Attack in one call."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from steepest.attacks.contract import Attack, AttackResult, Problem
from steepest.attacks.recipes import ATTACKS
from steepest.attacks.transfer import Surrogate, transferred
from steepest.basis.errors import DataError, UsageError
from steepest.basis.streams import Stream
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.budgets.whole import Whole
from steepest.models.contract import Goal, Labels, Objective
from steepest.models.model import Model, Network
from steepest.models.objectives import Function, objective_of

ObjectiveChoice = str | Objective | Function


def attack(
    recipe: str | Attack,
    model: Model | Network,
    x: Tensor,
    y: Labels,
    budget: Budget | None,
    *,
    objective: ObjectiveChoice = "scaled-ce",
    goal: Goal | None = None,
    seed: int = 0,
    ids: Tensor | None = None,
    drop_solved: bool = True,
    surrogate: Surrogate | None = None,
) -> AttackResult:
    """Search, for every example, the worst input that the budget allows, by the rule of one recipe.

    Every returned point is feasible exactly. Examples that the model already gets wrong count as won: at x if the
    recipe starts there; otherwise at the first wrong point that it meets, and at x if it meets none.

    Args:
        recipe: a catalogued name with arguments ("pgd(steps=20)"), or a recipe from `st.recipes`.
        model: a `Model`; a bare module is taken with the box [0, 1].
        x: [N, *features], inside the model's box, float.
        y: true labels, int64 [N] (or whatever the objective understands).
        budget: what may change; None for attacks that bring limits of their own ("spatial"): the box alone limits.
        objective: what is ascended and what ranks points: a name, an object, or a function (outputs, y) → [N].
        goal: when an example counts as won; the objective's own goal if left out.
        seed: of the random streams; the same seed gives the same points.
        ids: int64 [N], names of the examples for the random streams; 0 … N − 1 if left out.
        drop_solved: stop at the first success; False goes on to the largest value within the steps.
        surrogate: another model, or several (fused as by `st.ensemble`), on which points are searched; `model` is
            then asked for its answers alone, once at the point found, and at x where that is no success. All but
            the point and the passes of the search speaks of `model`; see `steepest.attacks.transfer`.

    Raises:
        UsageError: unknown recipe or objective, or a budget that does not fit.
        DataError: x leaves the box or is not finite; labels do not fit.
        ModelError: the model does not answer [N, K], or gives no gradient.

    >>> f = Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> from steepest.budgets.linf import Linf
    >>> attack("fgsm", f, torch.tensor([[0.3, 0.3]]), torch.tensor([0]), Linf(0.1)).won
    tensor([True])
    """
    made = ATTACKS.build(recipe) if isinstance(recipe, str) else recipe
    if not hasattr(made, "run"):
        raise UsageError(f"attack={recipe!r}: give a name ({', '.join(ATTACKS.names())}) or a recipe of st.recipes.")
    allowed = Whole() if budget is None else budget
    problem = pose(model, x, y, allowed, objective=objective, goal=goal, seed=seed, ids=ids, drop_solved=drop_solved)
    if surrogate is not None:
        return transferred(made, problem, surrogate, seed)
    return made.run(problem, seed, judge_x=True)


def fgsm(
    model: Model | Network, x: Tensor, y: Labels, budget: Budget, *, objective: ObjectiveChoice = "scaled-ce"
) -> Tensor:
    """Return the point of the Fast Gradient Sign Method, x + extreme(∇ₓ), for any budget and objective.

    It is the exact maximiser of the linearised objective over the budget and the box: one forward, one backward.
    The point is returned whatever the model says of it; `attack("fgsm", ...)` also judges it and keeps the better
    of x and the point.

    Args, raises: as `attack`. A gradient that is zero or not finite leaves x unchanged and warns.

    Source: Goodfellow, Shlens & Szegedy 2015 (L∞, without the box).

    >>> f = Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> from steepest.budgets.linf import Linf
    >>> fgsm(f, torch.tensor([[0.5, 0.05]]), torch.tensor([0]), Linf(0.1))
    tensor([[0.4000, 0.0000]])
    """
    problem = pose(model, x, y, budget, objective=objective)
    found = problem.gradient(problem.region.x)
    assert found.gradient is not None
    assert found.size is not None
    lost, flat = int((~found.finite).sum()), int(((found.size == 0) & found.finite).sum())
    if lost or flat:
        warnings.warn(
            f"fgsm: of {x.shape[0]} examples {lost} have an output or gradient that is not finite and {flat} a "
            "gradient of exactly zero; they stay at x, which says nothing about robustness. `attack` reports them "
            "as a status; for flat gradients try objective='margin' or 'scaled-ce'.",
            RuntimeWarning,
            stacklevel=2,
        )
    return problem.region.extreme(found.gradient)


def pose(
    model: Model | Network,
    x: Tensor,
    y: Labels,
    budget: Budget,
    *,
    objective: ObjectiveChoice = "scaled-ce",
    goal: Goal | None = None,
    seed: int = 0,
    ids: Tensor | None = None,
    drop_solved: bool = True,
) -> Problem:
    """Check what was asked and bundle it into the `Problem` that searches are given; raises as `attack`."""
    handle = model if isinstance(model, Model) else Model(model)
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        form = f"type {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise DataError(f"x is of {form}; give a float tensor [N, *features] in the box (images: x.float() / 255).")
    if not hasattr(budget, "fitted"):
        raise UsageError(f"budget={budget!r} is not a budget: give one such as st.Linf(8 / 255), st.L2(0.5).")
    wanted = handle.facts.input_shape
    if wanted is not None and tuple(x.shape[1:]) != tuple(wanted):
        raise DataError(f"x has examples of shape {tuple(x.shape[1:])}, the model takes {tuple(wanted)}.")
    if isinstance(y, list | tuple | int | np.ndarray):
        y = torch.as_tensor(y)
    if x.ndim < 1 or (ids is not None and ids.shape != x.shape[:1]):
        raise UsageError(f"x has shape {tuple(x.shape)}, ids {None if ids is None else tuple(ids.shape)}: give [N, …].")
    if isinstance(y, Tensor) and y.shape[:1] != x.shape[:1]:
        raise DataError(f"{x.shape[0]} examples but {tuple(y.shape)} labels: give one label per example, shape [N].")
    x = handle.box.admit(x, "x")
    y = y.to(x.device) if isinstance(y, Tensor) else y
    chosen = objective_of(objective)
    return Problem(
        model=handle,
        objective=chosen,
        goal=goal or chosen.goal,
        region=Region(budget, handle.box, x),
        y=y,
        stream=Stream.of(seed, torch.arange(x.shape[0], device=x.device) if ids is None else ids.to(x.device)),
        drop_solved=drop_solved,
    )
