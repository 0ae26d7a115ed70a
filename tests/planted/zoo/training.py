"""Training in seconds: Adam on big batches, on points that may be moved first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.planted.zoo.data import digits

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(network, x, y) → what is minimised, one number."""

BATCH = 128


def plain(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy at the points themselves."""
    return cross_entropy(network(x), y)


def fitted(network: nn.Module, epochs: int, *, seed: int, loss: Loss = plain, rate: float = 3e-3) -> nn.Module:
    """`network`, trained on the digits; the caller's random state is untouched."""
    data = digits()
    shuffles = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * -(-len(data.y_train) // BATCH))
    network.train()
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(data.y_train), generator=shuffles), BATCH):
            optimiser.zero_grad()
            loss(network, data.x_train[rows], data.y_train[rows]).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `make` makes when the random weights start from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def slope(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the cross-entropy with respect to x."""
    point = x.detach().requires_grad_()
    return torch.autograd.grad(cross_entropy(network(point), y, reduction="sum"), point)[0]


def single_step(network: nn.Module, x: Tensor, y: Tensor, size: float) -> Tensor:
    """The fast gradient sign point, clipped into [0, 1]."""
    return (x + size * slope(network, x, y).sign()).clamp(0, 1)


def climbed(network: nn.Module, x: Tensor, y: Tensor, size: float, *, steps: int) -> Tensor:
    """`steps` signed steps of 2.5/steps of the budget from x, clipped into it and into [0, 1]."""
    point = x
    for _ in range(steps):
        point = (point + 2.5 / steps * size * slope(network, point, y).sign()).clamp(x - size, x + size).clamp(0, 1)
    return point
