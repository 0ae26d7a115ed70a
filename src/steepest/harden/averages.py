"""Averages of weights over a training: exponential, and plain with batch-norm statistics computed anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from steepest.basis.errors import UsageError

State = dict[str, Tensor]
"""What `state_dict` of a module returns."""


@final
@dataclass(slots=True)
class EMA:
    """The exponential average w̄ ← τ·w̄ + (1 − τ)·w of everything in a state that is a floating-point number.

    Other entries (counts) are those of the last state. The first state starts it, so there is no bias to correct.

    Args:
        decay: τ in [0, 1); 0 is the last state.

    Attributes:
        state: the average, a copy of its own; save it and give it back to go on.

    >>> average = EMA(0.5)
    >>> for weight in (1.0, 3.0):
    ...     average.add({"w": torch.tensor(weight)})
    >>> average.state
    {'w': tensor(2.)}
    """

    decay: float
    state: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_share("decay", self.decay)

    def add(self, state: State) -> None:
        """Take the state after one more step."""
        _blend(self.state, state, 1 - self.decay)


@final
@dataclass(slots=True)
class SWA:
    """The plain mean of the states that were added.

    A network with batch norm needs `recomputed` statistics for it: those of the states' weights are not of the mean's.

    Attributes:
        state: the mean, a copy of its own, and `count`: of how many; save both and give them back to go on.

    Source: Izmailov et al. 2018.

    >>> average = SWA()
    >>> for weight in (1.0, 2.0, 6.0):
    ...     average.add({"w": torch.tensor(weight)})
    >>> average.state
    {'w': tensor(3.)}
    """

    state: State = field(default_factory=dict)
    count: int = 0

    def add(self, state: State) -> None:
        """Take one more state."""
        self.count += 1
        _blend(self.state, state, 1 / self.count)


def _blend(average: State, state: State, share: float) -> None:
    with torch.no_grad():
        for name, value in state.items():
            kept = average.get(name)
            if kept is None or not value.is_floating_point():
                average[name] = value.detach().clone()
            else:
                # A difference, so that equal states stay what they are; lerp is the last one where its share is 1.
                kept.lerp_(value.to(kept), share)


def recomputed(network: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object] | None = None) -> int:
    """Set the statistics of all batch norms to the mean over `batches`, and return how many batches there were.

    Only these layers are in training mode meanwhile (dropout is not). Without batch norm nothing is asked.

    Args:
        batches: inputs, [N, *features] each.
        forward: how a batch goes through the network; the network itself if left out.

    >>> norm = nn.BatchNorm1d(1, affine=False).eval()
    >>> recomputed(norm, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
    2
    >>> norm.running_mean, norm.running_var
    (tensor([4.]), tensor([2.]))
    """
    norms = [part for part in network.modules() if isinstance(part, _NormBase) and part.running_mean is not None]
    if not norms:
        return 0
    modes = [(part, part.training) for part in network.modules()]
    momenta = [norm.momentum for norm in norms]
    count = 0
    try:
        network.eval()
        for norm in norms:
            norm.reset_running_stats()
            # None averages over all batches instead of forgetting the first ones.
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            for x in batches:
                (forward or network)(x)
                count += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, training in modes:
            part.training = training
    return count


def require_share(name: str, value: float) -> None:
    """Refuse a decay that would never see a new state.

    Raises:
        UsageError: names the value and what is allowed.
    """
    if not 0 <= value < 1:
        raise UsageError(f"{name}={value!r} is not allowed: give the share of the old average that is kept, in [0, 1).")
