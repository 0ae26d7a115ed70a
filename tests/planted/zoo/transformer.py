"""A vision transformer small enough for digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tests.planted.zoo.data import CLASSES

DIM, HEADS, PATCHES = 16, 2, 16


class Block(nn.Module):
    """Attention, then a small network on each token; both add to what they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.ask, self.answer = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        self.each = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.GELU(), nn.Linear(2 * DIM, DIM))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        parts = self.ask(self.first(x)).reshape(n, tokens, 3, HEADS, DIM // HEADS).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(parts[0], parts[1], parts[2])
        x = x + self.answer(seen.transpose(1, 2).reshape(n, tokens, DIM))
        return x + self.each(self.second(x))


class Places(nn.Module):
    """Adds what is learnt of each token's place."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(1, PATCHES, DIM))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2) + self.places


def small_transformer() -> nn.Module:
    """Patches of 2×2, two blocks, an affine layer on all tokens; untrained."""
    return nn.Sequential(
        nn.Conv2d(1, DIM, 2, stride=2),
        Places(),
        Block(),
        Block(),
        nn.LayerNorm(DIM),
        nn.Flatten(),
        nn.Linear(PATCHES * DIM, CLASSES),
    )
