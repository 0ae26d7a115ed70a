"""Tables that many laws share: a new budget or model is one row here and arrives tested."""

from __future__ import annotations

import numpy as np
import torch

from steepest.budgets.contract import Budget
from steepest.budgets.l1 import L1
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from steepest.budgets.weighted import Weighted


def budgets(shape: tuple[int, ...], eps: float) -> dict[str, Budget]:
    """One budget of every kind for examples of `shape`; a new budget is a row here."""
    size = int(np.prod(shape))
    weights = torch.linspace(0, 2, size).reshape(shape)
    mask = (torch.arange(size) % 2 == 0).reshape(shape)
    return {
        "linf": Linf(eps),
        "linf per feature": Linf(eps * weights[None]),
        "l2": L2(eps),
        "l1": L1(eps),
        "weighted": Weighted(eps, up=weights, down=weights.flip(0)),
        "one-sided": Weighted(eps, up=weights, down=torch.zeros(shape)),
        "masked linf": Masked(Linf(eps), mask),
        "masked l2": Masked(L2(eps), mask),
        "masked l1": Masked(L1(eps), mask),
    }


NAMES = list(budgets((2,), 1.0))
