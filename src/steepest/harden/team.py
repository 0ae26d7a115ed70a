"""Who trains together: one process alone, or several that share every batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, final

import torch
from torch import Tensor, nn


class Team(Protocol):
    """The processes of one training; each computes a part of every batch, the first one decides."""

    @property
    def first(self) -> bool:
        """Whether this process decides, measures and writes."""

    @property
    def size(self) -> int:
        """How many processes there are."""

    def joined(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return both so that gradients are those of the whole team."""

    @property
    def backward(self) -> Callable[[Tensor], object]:
        """What adds the gradient of a loss to that of the parameters."""

    def part(self, ids: Tensor) -> Tensor:
        """Return the ids of a batch that are this process's, as many for each."""

    def told(self, decided: Any) -> Any:
        """Return what the first process decided."""


@final
class Alone:
    """A team of one."""

    first, size = True, 1

    def joined(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Return both unchanged."""
        return network, optimiser

    @property
    def backward(self) -> Callable[[Tensor], object]:
        """See `Team.backward`."""
        return Tensor.backward

    def part(self, ids: Tensor) -> Tensor:
        """Return all."""
        return ids

    def told(self, decided: Any) -> Any:
        """Return it unchanged."""
        return decided
