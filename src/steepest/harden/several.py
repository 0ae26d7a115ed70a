"""A training on several devices, by Lightning Fabric: every batch is shared, gradients are averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from steepest.basis.errors import UsageError
from steepest.harden.team import Team


@final
class Several:
    """A `Team` on Fabric. Batch statistics are each process's own; what a method keeps is not in checkpoints but of
    the first.

    Worst-case points are searched in the network itself, past Fabric's wrapper; only its training forward is wrapped.
    """

    def __init__(self, fabric: Any) -> None:
        self._fabric = fabric

    @property
    def first(self) -> bool:
        """See `Team.first`."""
        return bool(self._fabric.global_rank == 0)

    @property
    def size(self) -> int:
        """See `Team.size`."""
        return int(self._fabric.world_size)

    @property
    def backward(self) -> Callable[[Tensor], object]:
        """See `Team.backward`."""
        found: Callable[[Tensor], object] = self._fabric.backward
        return found

    def joined(self, network: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """See `Team.joined`."""
        made: tuple[nn.Module, torch.optim.Optimizer] = self._fabric.setup(network, optimiser)
        return made

    def part(self, ids: Tensor) -> Tensor:
        """See `Team.part`."""
        return ids[: len(ids) // self.size * self.size][self._fabric.global_rank :: self.size]

    def told(self, decided: Any) -> Any:
        """See `Team.told`."""
        return self._fabric.broadcast(decided, 0)


def launch(devices: int, work: Callable[[Team], object]) -> None:
    """Let `devices` processes work together, on GPUs where there are any, and wait for them.

    Raises:
        UsageError: Lightning is not installed; names the extra.
    """
    try:
        from lightning.fabric import Fabric
    except ImportError:
        raise UsageError(
            f"devices={devices} needs Lightning Fabric: pip install 'steepest[fabric]'; one device does without."
        ) from None
    place = "cuda" if torch.cuda.is_available() else "cpu"
    fabric = Fabric(accelerator=place, devices=devices, strategy="ddp_fork")
    fabric.launch(_worked, work)


def _worked(fabric: Any, work: Callable[[Team], object]) -> None:
    work(Several(fabric))
