"""The average of several answers about one point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor

from steepest.basis.tensors import expand, largest
from steepest.models.contract import Evaluation


def with_mean_slopes(answer: Evaluation, parts: Sequence[Evaluation]) -> Evaluation:
    """Return `answer` with the mean gradient (or Jacobian) of `parts` in the place of its own.

    A row that is not finite in any part is not finite, and zero, here. The costs of `parts` are not added.
    """
    finite = reduce(torch.logical_and, (part.finite for part in parts), answer.finite)
    gradient = _mean([part.gradient for part in parts], finite)
    jacobian = _mean([part.jacobian for part in parts], finite)
    slopes = gradient if jacobian is None else jacobian
    size = None if slopes is None else largest(slopes) if slopes[:1].numel() else answer.size
    return replace(answer, finite=finite, gradient=gradient, jacobian=jacobian, size=size)


def costs(parts: Sequence[Evaluation]) -> dict[str, Any]:
    """Return what several answers about the same examples have cost together, as fields of one answer."""
    names = ("forwards", "backwards", "unconfirmed")
    return {name: reduce(add, (getattr(part, name) for part in parts)) for name in names}


def _mean(held: Sequence[Tensor | None], finite: Tensor) -> Tensor | None:
    tensors = [tensor for tensor in held if tensor is not None]
    if not tensors:
        return None
    # In place on a copy, in their order: the sum does not depend on who else is in the batch.
    mean = reduce(Tensor.add_, tensors[1:], tensors[0].clone()).div_(len(tensors))
    return mean if bool(finite.all()) else torch.where(expand(finite, mean), mean, 0)
