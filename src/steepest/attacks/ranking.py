"""Which classes are nearest: linearised at x, how much of the budget it takes to reach each."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.attacks.contract import Ask, Problem
from steepest.attacks.recipe import likeliest_wrong
from steepest.models.contract import Evaluation, Need


def nearest_classes(problem: Problem, most: int = 9) -> tuple[Tensor, Tensor, Evaluation]:
    """Return (classes [N, R], reach [N, R], the answer at x): the wrong classes, the nearest first, R ≤ `most`.

    The reach of class k is ρ_k = (z_y − z_k) / sup over the region of ⟨∇(z_k − z_y), δ⟩, both at x: the multiple of
    the region's own first-order gain that is needed, ∞ where nothing is gained. On a linear model the example can be
    moved to class k exactly where ρ_k ≤ 1. Candidates are the `most` likeliest wrong classes by the answer at x, which
    the problem must know; one forward and a backward for each of them and for y give the gradients.

    Source: ordering targets by linearised distance is Melamed et al. 2024 (MALT); the region's support takes the
    place of a norm, so that every budget and the box count.
    """
    assert problem.clean is not None
    rivals = likeliest_wrong(problem.clean, problem.y)[:, :most]
    classes = torch.cat([problem.y.long()[:, None], rivals], 1)
    found = problem.model.answer(problem.question(problem.region.x, Ask(need=Need.JACOBIAN, classes=classes)))
    assert found.jacobian is not None
    gaps = found.outputs.gather(1, classes[:, :1]) - found.outputs.gather(1, rivals)
    gains = [problem.region.support(found.jacobian[:, k + 1] - found.jacobian[:, 0]) for k in range(rivals.shape[1])]
    gain = torch.stack(gains, 1).double() if gains else gaps.double()
    reach = torch.where(
        (gain > 0) & gaps.isfinite(), gaps.double() / gain.clamp_min(torch.finfo(gain.dtype).tiny), torch.inf
    )
    order = reach.argsort(dim=1, stable=True)
    return rivals.gather(1, order), reach.gather(1, order), found
