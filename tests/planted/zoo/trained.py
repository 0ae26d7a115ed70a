"""Defences with weights of their own: a base network with other parts, trained further or anew."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, hardtanh

from tests.planted.zoo.bases import WIDTH, layers, trained_with
from tests.planted.zoo.data import CLASSES, digits
from tests.planted.zoo.training import Loss, fitted, plain, seeded, single_step
from tests.planted.zoo.wrappers import MedianFiltered


class WinnersOnly(nn.Module):
    """ReLU, then zero for all but this share of the largest units of each layer; 1: ReLU."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if self.share == 1:
            return torch.relu(x)
        count = max(1, round(self.share * x.shape[1]))
        least = x.topk(count, 1).values[:, -1:]
        return torch.relu(x * (x >= least))


class Saturating(nn.Module):
    """hardtanh(c·x), flat nearly everywhere for a large c; at 0.1 it is never flat here."""

    def __init__(self, steepness: float) -> None:
        super().__init__()
        self.steepness = steepness

    def forward(self, x: Tensor) -> Tensor:
        return hardtanh(self.steepness * x)


class Thermometer(nn.Module):
    """Each input as so many ramps of a width, one above the other; width 0: as indicators."""

    def __init__(self, levels: int, width: float) -> None:
        super().__init__()
        self.levels = levels
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        above = [x - (i + 0.5) / self.levels for i in range(self.levels)]
        if self.width == 0:
            return torch.cat([(part > 0).to(x.dtype) for part in above], 1)
        return torch.cat([(part / self.width + 0.5).clamp(0, 1) for part in above], 1)


@cache
def winners(share: float) -> nn.Module:
    """A wide network with k-winners-take-all."""
    return fitted(seeded(lambda: layers(lambda: WinnersOnly(share), width=2 * WIDTH), 0), 25, seed=0)


@cache
def saturated(network: nn.Module, steepness: float) -> nn.Module:
    """The base with a saturating first layer that is held fixed; what follows is trained on its features."""
    made = copy.deepcopy(network)
    assert isinstance(made, nn.Sequential)
    first = made[1]
    assert isinstance(first, nn.Linear)
    first.requires_grad_(False)
    # Each unit is on for half of the digits, so that signs alone say enough.
    first.bias -= first(digits().x_train.flatten(1)).median(0).values
    made[2] = Saturating(steepness)
    return trained_with(made)


@cache
def thermometer(width: float, levels: int = 8) -> nn.Module:
    """A network on thermometer codes."""
    return fitted(seeded(lambda: nn.Sequential(Thermometer(levels, width), *layers(inputs=64 * levels)), 0), 12, seed=0)


@cache
def distilled(network: nn.Module, temperature: float) -> nn.Module:
    """A student of softmax(teacher/T), the teacher being T times the base, that serves its logits at T = 1."""

    def follow(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            told = network(x).softmax(1)
        return cross_entropy(student(x), told)

    student = fitted(seeded(layers, 1), 20, seed=1, loss=follow)
    assert isinstance(student, nn.Sequential)
    last = student[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        # A student that learnt at temperature T answers T times the logits that it learnt with.
        last.weight *= temperature
        last.bias *= temperature
    return student


@cache
def batch_normalised(network: nn.Module) -> nn.Module:
    """The base with batch normalisation before every ReLU, trained further, in eval mode."""
    assert isinstance(network, nn.Sequential)
    parts: list[nn.Module] = []
    for part in copy.deepcopy(network):
        parts += [nn.BatchNorm1d(network[1].out_features), part] if isinstance(part, nn.ReLU) else [part]
    return trained_with(nn.Sequential(*parts))


def in_training(network: nn.Module, training: bool) -> nn.Module:
    """The batch-normalised relative of the base, left in training mode or not."""
    return copy.deepcopy(batch_normalised(network)).train(training)


def moved(size: float) -> Loss:
    """Cross-entropy at the fast gradient sign points (Goodfellow et al. 2015)."""
    return lambda network, x, y: plain(network, single_step(network, x, y, size), y)


@cache
def overfitted(size: float) -> nn.Module:
    """A small network trained on its own single steps; where they are large, it learns to fool them."""
    return fitted(seeded(lambda: one_layer(16), 0), 30, seed=0, loss=moved(size), rate=3e-2)


@cache
def smoothed_out(network: nn.Module, size: int) -> nn.Module:
    """The base behind a median filter, trained further."""
    return trained_with(MedianFiltered(network, size))


def one_layer(filters: int) -> nn.Sequential:
    """A convolution, a ReLU and an affine layer."""
    return nn.Sequential(nn.Conv2d(1, filters, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * filters, CLASSES))
