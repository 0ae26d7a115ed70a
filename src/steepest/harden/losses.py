"""What is descended at the training points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from steepest.basis.errors import UsageError
from steepest.harden.crafts import divergence, require_least


class Loss(Protocol):
    """A number to descend, from outputs on the graph."""

    @property
    def compares(self) -> bool:
        """Whether the outputs at x are asked for as well, in the same forward."""

    def of(self, outputs: Tensor, clean: Tensor | None, y: Tensor) -> Tensor:
        """Return the mean over the batch, given the outputs [N, K] at the training points and those at x."""


@final
@dataclass(frozen=True, slots=True)
class AtPoint:
    """Cross-entropy at the training point, with the share `smoothing` of the label spread over all classes."""

    smoothing: float = 0.0
    compares: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_smoothing(self.smoothing)

    def of(self, outputs: Tensor, clean: Tensor | None, y: Tensor) -> Tensor:
        """See `Loss.of`."""
        return cross_entropy(outputs, y, label_smoothing=self.smoothing)


@final
@dataclass(frozen=True, slots=True)
class Trades:
    """CE(x) + β·KL(p ‖ p′): right at x, and the same in the neighbourhood (Zhang et al. 2019)."""

    beta: float
    smoothing: float = 0.0
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_least("beta", self.beta, 0)
        require_smoothing(self.smoothing)

    def of(self, outputs: Tensor, clean: Tensor | None, y: Tensor) -> Tensor:
        """See `Loss.of`."""
        assert clean is not None
        right = cross_entropy(clean, y, label_smoothing=self.smoothing)
        return right + self.beta * divergence(outputs, clean).mean()


@final
@dataclass(frozen=True, slots=True)
class Mart:
    """CE(x′) − log(1.0001 − max over k ≠ y of p′ₖ) + β·KL(p ‖ p′)·(1 − p_y) (Wang et al. 2020)."""

    beta: float
    compares: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_least("beta", self.beta, 0)

    def of(self, outputs: Tensor, clean: Tensor | None, y: Tensor) -> Tensor:
        """See `Loss.of`."""
        assert clean is not None
        own = y[:, None]
        rival = log_softmax(outputs, 1).exp().scatter(1, own, -torch.inf).amax(1)
        boosted = cross_entropy(outputs, y) - (1.0001 - rival).log().mean()
        doubt = 1 - log_softmax(clean, 1).exp().gather(1, own).squeeze(1)
        return boosted + self.beta * (divergence(outputs, clean) * doubt).mean()


def require_smoothing(value: float) -> None:
    """Refuse a share that is none.

    Raises:
        UsageError: names the value and what is allowed.
    """
    if not 0 <= value < 1:
        raise UsageError(f"smoothing={value!r} is not allowed: give the share of the label to spread, in [0, 1).")
