"""Find a batch size once, before the first shard; it is part of the plan because kernels differ by batch size."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from steepest.models.contract import Need, Objective
from steepest.models.model import Model

SIZES = (32, 64, 128, 256, 512)
_PATIENCE = 20.0


def batch_size(model: Model, x: Tensor, y: Tensor, objective: Objective, need: Need = Need.GRADIENT) -> int:
    """Return the smallest size whose answers per second are within 10 % of the best; answers are what `need` says.

    Sizes are tried in rising order, each once after a warm-up, until the examples run out, the rate falls clearly, a
    measurement takes long, or memory is short.
    """
    rates: dict[int, float] = {}
    with model.borrowed():
        for size in SIZES:
            if rates and size >= 2 * x.shape[0]:
                break
            rows = torch.arange(size, device=x.device) % x.shape[0]
            try:
                seconds = min(_seconds(model, x[rows], y[rows], objective.rows(rows), need) for _ in range(2))
            except RuntimeError as error:
                if rates and "memory" in str(error).lower():
                    break
                raise
            rates[size] = size / seconds
            if seconds > _PATIENCE or rates[size] < 0.7 * max(rates.values()):
                break
    return min(size for size, rate in rates.items() if rate >= 0.9 * max(rates.values()))


def _seconds(model: Model, x: Tensor, y: Tensor, objective: Objective, need: Need) -> float:
    begin = time.perf_counter()
    found = model.evaluate(x, y, objective, need=need)
    float(found.value.nansum())  # waits for a device that answers later
    return time.perf_counter() - begin
