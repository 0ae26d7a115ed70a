"""Small helpers on tensors whose leading axis counts examples (N)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor


def flat(x: Tensor) -> Tensor:
    """Return `x` as [N, d]; a tensor without features (shape [N]) becomes [N, 1]; N = 0 is allowed.

    >>> flat(torch.zeros(0, 3, 4)).shape
    torch.Size([0, 12])
    """
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def expand(per_example: Tensor, like: Tensor) -> Tensor:
    """Return a tensor [N] as [N, 1, ..., 1], ready to broadcast against `like` [N, ...].

    >>> expand(torch.ones(2), torch.zeros(2, 3, 4)).shape
    torch.Size([2, 1, 1])
    """
    return per_example.reshape(-1, *[1] * (like.ndim - 1))


def seen(mask: Tensor) -> bool:
    """Return whether all of `mask` is true, where looking is free: on a GPU, which would have to be waited for, no.

    For short cuts only: what is done without them must come to the same.

    >>> seen(torch.tensor([True, True])), seen(torch.tensor([True, False]))
    (True, False)
    """
    return mask.device.type == "cpu" and bool(mask.all())


@final
@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """Whether any of `mask` is true: on a GPU known as soon as the mask is, whatever was asked of the GPU afterwards.

    >>> Sight.of(torch.tensor([False, True])).any(), Sight.of(torch.tensor([False])).any()
    (True, False)
    """

    mask: Tensor
    _flag: Tensor
    _known: torch.cuda.Event | None

    @classmethod
    def of(cls, mask: Tensor) -> Self:
        """Return the sight of a mask that does not change any more."""
        flag = mask.any()
        if not flag.is_cuda:
            return cls(mask, flag, None)
        flag, known = flag.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
        known.record(torch.cuda.current_stream(mask.device))
        return cls(mask, flag, known)

    def any(self) -> bool:
        """Return the answer; on a GPU wait for it, and for nothing later."""
        if self._known is not None:
            self._known.synchronize()
        return bool(self._flag)


def number(value: float, like: Tensor) -> Tensor:
    """Return a number in float64 on the device of `like`; `torch.tensor` would copy it there, and wait.

    >>> number(0.5, torch.zeros(2))
    tensor(0.5000, dtype=torch.float64)
    """
    return torch.full((), value, dtype=torch.float64, device=like.device)


def largest(x: Tensor) -> Tensor:
    """Return max |xᵢ| of each example, [N], NaN where one is NaN and 0 where there are no features.

    >>> largest(torch.tensor([[1.0, -3.0], [0.0, 0.0]]))
    tensor([3., 0.])
    """
    rows = flat(x)
    if not rows.shape[1]:
        return rows.sum(1)
    # Two readings, and no |x| in new memory, which costs more than both.
    return torch.maximum(rows.amax(1).abs_(), rows.amin(1).abs_())


def finite_rows(x: Tensor) -> Tensor:
    """Return bool [N]: whether all numbers of an example are finite.

    >>> finite_rows(torch.tensor([[1.0, 2.0], [torch.nan, 2.0]]))
    tensor([ True, False])
    """
    # NaN is not below infinity either; `isfinite` takes twice as many operations.
    return (flat(x).abs() < torch.inf).all(1)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product ⟨aₙ, bₙ⟩ of each example in float64, [N].

    >>> inner(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([11.], dtype=torch.float64)
    """
    return (flat(a).double() * flat(b).double()).sum(1)


def fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether a tensor of `shape` broadcasts to `target` without enlarging it.

    >>> fits((3, 1, 1), (3, 8, 8)), fits((4,), (3, 8, 8))
    (True, False)
    """
    return len(shape) <= len(target) and all(
        size in (1, wanted) for size, wanted in zip(reversed(shape), reversed(target), strict=False)
    )
