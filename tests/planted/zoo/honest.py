"""Networks with nothing to hide: no check may fail on them, however little they withstand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

from tests.planted.zoo.bases import base, layers
from tests.planted.zoo.data import CLASSES
from tests.planted.zoo.training import Loss, climbed, fitted, plain, seeded, single_step
from tests.planted.zoo.transformer import small_transformer
from tests.planted.zoo.wrappers import Probabilities, Tempered

SIZE = 0.1
"""What the hardened ones are trained to withstand, in L∞."""


@dataclass(frozen=True, kw_only=True)
class Honest:
    """A healthy network.

    Attributes:
        make: from a seed, the network; the same object each time.
        epsilon: of the L∞ budget that it is judged at.
        dtype: of the inputs that it takes.
    """

    name: str
    make: Callable[[int], nn.Module]
    epsilon: float = SIZE
    dtype: torch.dtype = torch.float32


def _plainly(make: Callable[[], nn.Module], epochs: int, *, loss: Loss = plain) -> Callable[[int], nn.Module]:
    return cache(lambda seed: fitted(seeded(make, seed), epochs, seed=seed, loss=loss, rate=1e-2))


def _small(bend: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    return _plainly(lambda: layers(bend, width=64), 15)


def _convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, CLASSES),
    )


def _pooling() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, CLASSES)
    )


def _adversarially(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Madry et al. 2018."""
    return plain(network, climbed(network, x, y, SIZE, steps=4), y)


def _traded(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Zhang et al. 2019 (TRADES), with points that climb the cross-entropy in the place of the divergence."""
    found, asked = network(x), network(climbed(network, x, y, SIZE, steps=4))
    apart = kl_div(asked.log_softmax(1), found.softmax(1), reduction="batchmean")
    return cross_entropy(found, y) + 3 * apart


def _noisily(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """de Jorge et al. 2022 (N-FGSM): noise of twice the budget, a full step, no clipping into the budget."""
    generator = torch.Generator().manual_seed(int(y.sum()))
    noise = 2 * SIZE * (2 * torch.rand(x.shape, generator=generator) - 1)
    return plain(network, single_step(network, (x + noise).clamp(0, 1), y, SIZE), y)


def _softly(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(network(x), y, label_smoothing=0.1)


def _scaled(factor: float) -> Callable[[int], nn.Module]:
    return cache(lambda seed: Tempered(base(seed), factor))


@cache
def _in_float64(seed: int) -> nn.Module:
    return copy.deepcopy(base(seed)).double()


@cache
def _eight_bit(seed: int) -> nn.Module:
    """Weights rounded to 255 levels of a layer's range, held in float."""
    made = copy.deepcopy(base(seed))
    with torch.no_grad():
        for weights in made.parameters():
            step = weights.abs().max() / 127
            weights.copy_(torch.round(weights / step) * step)
    return made


_RELATIVES = (
    Honest(name="linear", make=_plainly(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)), 20)),
    Honest(name="relu", make=base),
    Honest(name="gelu", make=_small(nn.GELU)),
    Honest(name="silu", make=_small(nn.SiLU)),
    Honest(name="tanh", make=_small(nn.Tanh)),
    Honest(name="batch-normalised", make=_plainly(_convolutional, 6)),
    Honest(name="pooling", make=_plainly(_pooling, 10)),
    Honest(name="transformer", make=_plainly(small_transformer, 8)),
    Honest(name="pgd-trained", make=_plainly(partial(layers, width=64), 15, loss=_adversarially)),
    Honest(name="trades-trained", make=_plainly(partial(layers, width=64), 15, loss=_traded)),
    Honest(name="noisy-fgsm-trained", make=_plainly(partial(layers, width=64), 15, loss=_noisily)),
    Honest(name="label-smoothed", make=_plainly(partial(layers, width=64), 15, loss=_softly)),
    Honest(name="logits-times-10", make=_scaled(10.0)),
    Honest(name="logits-over-10", make=_scaled(0.1)),
    Honest(name="logits-over-million", make=_scaled(1e-6)),
    Honest(name="log-probabilities", make=cache(lambda seed: Probabilities(base(seed), None))),
    Honest(name="float64", make=_in_float64, dtype=torch.float64),
    Honest(name="eight-bit-weights", make=_eight_bit),
    Honest(name="all-broken", make=base, epsilon=0.3),
)

HONEST = {network.name: network for network in _RELATIVES}
