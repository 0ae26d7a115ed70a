"""Adam's moments as state tensors, so that rows may leave."""

from __future__ import annotations

from torch import Tensor

from steepest.attacks.contract import State

_MEAN, _SQUARE = 0.9, 0.999


def at_rest(like: Tensor) -> State:
    """Return the moments before the first gradient: "mean" and "square", zeros of the shape of `like`."""
    return {"mean": like.new_zeros(like.shape), "square": like.new_zeros(like.shape)}


def adam_step(
    gradient: Tensor, state: State, count: int, rate: float | Tensor, floor: float = 1e-8
) -> tuple[Tensor, State]:
    """Return the move −rate · m/(√v + floor) against a gradient, and the new moments alone.

    m and v are the running means of the gradient and of its square (decay 0.9 and 0.999), freed from the bias of
    their start; coordinates whose gradients were all zero do not move.

    Args:
        count: how many gradients came before; the same for all rows.
        floor: 0 for moves that do not depend on the scale of the gradients.

    Source: Kingma & Ba 2015.

    >>> import torch
    >>> move, state = adam_step(torch.tensor([[4.0, 0.0]]), at_rest(torch.zeros(1, 2)), 0, 0.01)
    >>> [round(each, 6) + 0 for each in move[0].tolist()]
    [-0.01, 0.0]
    """
    mean = state["mean"] * _MEAN + gradient * (1 - _MEAN)
    square = state["square"] * _SQUARE + gradient.square() * (1 - _SQUARE)
    length = (square / (1 - _SQUARE ** (count + 1))).sqrt_().add_(floor)
    length = length.masked_fill_(length == 0, 1)
    return (mean / length).mul_(-rate / (1 - _MEAN ** (count + 1))), {"mean": mean, "square": square}
