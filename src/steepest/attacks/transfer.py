"""Points are found on one model and judged on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from steepest.attacks.best import Best
from steepest.attacks.contract import VALUE, Attack, AttackResult, Prefer, Problem, Status
from steepest.attacks.loop import answered, require_feasible
from steepest.attacks.recipe import judge_clean, result_of
from steepest.basis.errors import UsageError
from steepest.models.ensemble import ensemble
from steepest.models.model import Model, Network

Surrogate = Model | Network | Sequence[Model | Network]
"""The model that is searched in the place of another, or several."""


def transferred(made: Attack, problem: Problem, surrogate: Surrogate, seed: int = 0) -> AttackResult:
    """Search on `surrogate` to its largest value, then ask the problem's own model about the points.

    The search never stops at its first success, since a point that only just fools one model seldom fools another.
    The target is asked once about each point, and about x where that is no success, so that nothing ends better
    than it began. `won`, `value`, `outputs`, `radius` and `status` are the target's; where it is not fooled, a
    search that was blind or met non-finite numbers on the surrogate stays said. `forwards` and `backwards` count
    every question, the surrogate's too.

    Raises:
        UsageError: the attack keeps the smallest success, which lies on the surrogate's boundary.

    Source: the setting of Papernot et al. 2016 and Liu et al. 2017.
    """
    if getattr(made, "prefer", None) is Prefer.SMALLEST_GAUGE:
        raise UsageError(
            f"{made.call.partition('(')[0] or 'this attack'} keeps the smallest perturbation, which only just fools "
            "the surrogate and seldom another model: give one that spends the whole budget, such as mi-fgsm, pgd, "
            "apgd or square."
        )
    searched = replace(problem, model=_handle(surrogate), drop_solved=False, clean=None)
    found = made.run(searched, seed)
    best = Best.none_yet(problem.region.x)
    with problem.model.borrowed(seed), torch.no_grad():
        if len(found.point):
            answered(problem, found.point, VALUE, 0, best)
            judge_clean(problem, best)
    best.forwards += found.forwards
    best.backwards += found.backwards
    result = result_of(problem, best, require_feasible(problem, best.point, made.call), made.call, seed)
    lost = (result.status == Status.EXHAUSTED) & (found.status != Status.OK)
    return replace(
        result,
        status=torch.where(lost, found.status, result.status),
        notes=(*found.notes, "found on a surrogate; success, value and outputs are the target's"),
    )


def _handle(surrogate: Surrogate) -> Model:
    if isinstance(surrogate, Model):
        return surrogate
    return ensemble(surrogate) if isinstance(surrogate, Sequence) else Model(surrogate)
