"""What the weights of a training are worth: accuracy at held-out examples and at what PGD finds around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from steepest.attacks.api import attack
from steepest.basis.errors import UsageError
from steepest.budgets.contract import Budget
from steepest.models.model import Model

SEARCH = "pgd(steps=10)"


def worth(model: Model, x: Tensor, y: Tensor, budget: Budget, *, seed: int, size: int) -> tuple[float, float]:
    """Return the shares of right answers at x and at what PGD with 10 steps found; the network is in evaluation.

    Args:
        budget: fitted to x.
    """
    network = model.network
    assert isinstance(network, nn.Module)
    was = [(part, part.training) for part in network.modules()]
    network.eval()
    clean, robust = 0, 0
    try:
        for rows in torch.split(torch.arange(len(y)), size):
            outputs = model.logits(x[rows])
            found = attack(SEARCH, model, x[rows], y[rows], budget.rows(rows), seed=seed, ids=rows)
            clean += int((outputs.argmax(1) == y[rows]).sum())
            robust += int((~found.won).sum())
    finally:
        for part, training in was:
            part.training = training
    return clean / len(y), robust / len(y)


def require_limits(budget: Budget, model: Model, x: Tensor) -> None:
    """Raise where the budget, fitted to x of one example, allows every step from one end of the box to the other.

    Raises:
        UsageError: no point of the box can then be told from any other, so nothing can be learnt.
    """
    lower, upper = model.box.bounds(x[:1])
    whole = (upper - lower).expand(1, *x.shape[1:]) if bool(torch.isfinite(upper - lower).all()) else None
    if whole is None or not x.numel():
        return
    size = float(budget.gauge(whole)[0])
    if size <= 1:
        raise UsageError(
            f"the budget {budget!r} is larger than {model.box!r}: it turns every input into every other, so nothing "
            "can be learnt. Give a smaller one, in the units of the data (images in [0, 1]: 8/255 rather than 8)."
        )
