"""The same network in float64, where rounding hides nothing: for differences of nearly equal values."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from steepest.models.inspection import SAME_ROWS, difference, size_of
from steepest.models.model import Model

_TRIED = 32


def in_float64(model: Model, x: Tensor) -> Model | None:
    """Return the model in float64, or None where there is no such twin.

    A module is copied, and the copy's parameters and buffers are widened; a plain function is asked with float64
    points. The twin must answer in float64, and within 1e−4 of the largest output like the original on at most 32 of
    the real inputs `x` [N, ...]. None: models that are asked by an oracle, that cannot be copied, that compute in
    a precision of their own, or whose answers depend on it.

    >>> wide = in_float64(Model(nn.Linear(2, 3)), torch.zeros(1, 2))
    >>> wide.logits(torch.zeros(1, 2, dtype=torch.float64)).dtype
    torch.float64
    """
    if model.oracles:
        return None
    try:
        network = copy.deepcopy(model.network).double() if isinstance(model.network, nn.Module) else model.network
        wide = Model(network, model.box, facts=model.facts)
        some = x[:_TRIED]
        with model.borrowed(seed=0):
            expected = model.logits(some)
        with wide.borrowed(seed=0):
            found = wide.logits(some.double())
    except Exception:  # the user's code, in a precision that it was not written for, may raise anything
        return None
    alike = difference(found, expected) <= SAME_ROWS * size_of(expected)
    return wide if found.dtype == torch.float64 and alike else None
