"""Worst-case batches for other people's training loops."""

from __future__ import annotations

from torch import Tensor

from steepest.attacks.api import pose
from steepest.basis.errors import UsageError
from steepest.budgets.contract import Budget
from steepest.harden.contract import Lesson, Method
from steepest.harden.library import METHODS
from steepest.harden.recipe import Training
from steepest.models.model import Model, Network


def adversarial_batch(
    model: Model | Network,
    x: Tensor,
    y: Tensor,
    budget: Budget,
    *,
    method: str | Method = "n-fgsm",
    seed: int = 0,
    step: int = 0,
    ids: Tensor | None = None,
) -> Tensor:
    """Return the points that one step of a training method would train on, and leave the model as it is.

    Nothing is trained: weights, their gradients, batch-norm statistics and modes are untouched, so any loop may go on
    with the batch. Points are inside budget and box, except those of `n-fgsm` (noise + step budgets, inside the box)
    and `noise` (anywhere), by design.

    Args:
        model: the network that is being trained, in its training mode; a bare module is taken with the box [0, 1].
        x: [N, *features], inside the box, float.
        y: int64 [N].
        method: a name of `steepest list methods` with arguments, or such an object.
        seed, step: of the random numbers; count `step` up, or every batch has the same noise.
        ids: int64 [N], names of the examples for the random numbers; 0 … N − 1 if left out.

    Raises:
        UsageError: an unknown method, one that finds its points while it trains (free), or one without points.
        DataError: x leaves the box or is not finite; labels do not fit.

    >>> from steepest.budgets.linf import Linf
    >>> net = lambda x: torch.stack([x.sum(1), -x.sum(1)], 1)
    >>> x, y = torch.tensor([[0.5, 0.25]]), torch.tensor([0])
    >>> adversarial_batch(net, x, y, Linf(0.125), method="fgsm")
    tensor([[0.3750, 0.1250]])
    """
    made = METHODS.build(method) if isinstance(method, str) else method
    if not isinstance(made, Training):
        known = ", ".join(entry.name for entry in METHODS if isinstance(entry.factory(), Training))
        raise UsageError(f"method={method!r} finds no points before it trains; for batches there are {known}.")
    problem = pose(model, x, y, budget, objective="ce", seed=seed, ids=ids)
    lesson = Lesson(region=problem.region, y=problem.y, stream=problem.stream.split(step), number=step, share=0.0)
    return made.craft.find(problem.model, lesson).point
