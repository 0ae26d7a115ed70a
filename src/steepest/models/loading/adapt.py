"""Wrappers between the user's data and the network as its file has it; each is differentiable and stateless."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from steepest.basis.errors import DataError, UsageError
from steepest.models.model import Model, Network

Channels = float | Sequence[float] | Tensor | None
"""One number for all channels, or one per channel."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """The map x ↦ (x − mean) / std per channel (axis 1 of [N, C, ...]); one number serves all channels.

    Raises:
        UsageError: a value is not finite, or a standard deviation is not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not values or not all(map(math.isfinite, values)):
                raise UsageError(f"{name}={values} must be finite numbers: one, or one per channel, in data units.")
        if min(self.std) <= 0:
            raise UsageError(f"std={self.std} must be positive: give the divisor per channel, e.g. 0.2.")

    @staticmethod
    def of(mean: Channels, std: Channels) -> Normalisation | None:
        """Return the normalisation; an absent mean is 0, an absent std is 1, and None if both are absent."""
        if mean is None and std is None:
            return None
        return Normalisation(mean=_numbers(mean, 0.0), std=_numbers(std, 1.0))

    def require(self, shape: tuple[int, ...]) -> None:
        """Raise unless examples of `shape` have as many channels as there are values.

        Raises:
            UsageError: names the lengths received and the channels of the data.
        """
        channels = shape[0] if shape else 1
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise UsageError(
                    f"{name} has {len(values)} values, but examples of shape {shape} have {channels} channel(s): "
                    f"give 1 value or {channels}."
                )

    def applied(self, x: Tensor) -> Tensor:
        """Return (x − mean) / std for x [N, C, ...] in the precision of `x`."""
        self.require(tuple(x.shape[1:]))
        mean, std = (
            torch.tensor(values, dtype=x.dtype, device=x.device).reshape(-1, *[1] * max(x.ndim - 2, 0))
            for values in (self.mean, self.std)
        )
        return (x - mean) / std


@final
class Normalised(nn.Module):
    """The network after a normalisation of its input: x [N, C, ...] ↦ network((x − mean) / std)."""

    def __init__(self, network: Network, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        self.normalisation = normalisation
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs at the normalised input."""
        return self.network(self.normalisation.applied(x))


@final
class Reshaped(nn.Module):
    """The network on examples of another shape with the same number of values, taken in row-major order."""

    def __init__(self, network: Network, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.shape = shape
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs at x [N, ...] read as [N, *shape]."""
        return self.network(x.reshape(x.shape[0], *self.shape))


@final
class InPrecision(nn.Module):
    """The network asked in its own floating type; the gradient comes back in the caller's."""

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs at `x` cast to its type."""
        return self.network(x.to(self.dtype))


@final
class Rebatched(nn.Module):
    """A network that takes only batches of `smallest` to `largest` rows, opened to any number of rows.

    The batch is cut into blocks; a block that is too short repeats its last row, and the answers to repeated rows
    are cut off, so they receive no gradient either. No row at all is answered by [0, K].
    """

    def __init__(self, network: Network, *, largest: int, smallest: int = 1) -> None:
        super().__init__()
        self.network = network
        self.largest = largest
        self.smallest = smallest
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs [N, K], block by block."""
        if not x.shape[0]:
            return self._block(x.new_zeros(1, *x.shape[1:]))[:0]
        blocks = [self._block(block) for block in torch.split(x, self.largest)]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def _block(self, x: Tensor) -> Tensor:
        missing = self.smallest - x.shape[0]
        if missing <= 0:
            return self.network(x)
        return self.network(torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]))[: x.shape[0]]


def settled(network: Network) -> Network:
    """Return the network in evaluation mode, its parameters asking for no gradient; a plain callable unchanged."""
    if isinstance(network, nn.Module):
        try:
            network.eval()
        except NotImplementedError:  # exported programs refuse the call, and their modes decide nothing
            for part in network.modules():
                part.training = False
        for parameter in network.parameters():
            parameter.requires_grad_(False)
    return network


def fitted_to(model: Model, shape: tuple[int, ...]) -> Model:
    """Return the model ready for examples of `shape`: normalised as data, then reshaped as the network wants.

    A model of unknown input shape passes unchanged. The same number of values in another shape is read in
    row-major order, which the facts note; a mere permutation of the axes is an error, since it would scramble.

    Raises:
        DataError: the shapes do not match; names both and the remedy.
        UsageError: mean or std have neither 1 value nor one per channel of the data.
    """
    shape, wanted, network = tuple(shape), model.facts.input_shape, model.network
    normalisation = network.normalisation if isinstance(network, Normalised) else None
    if normalisation:
        normalisation.require(shape)
    if wanted is None or shape == wanted:
        return model
    _require_same_values(shape, wanted)
    core = Reshaped(network.network if isinstance(network, Normalised) else network, wanted)
    note = f"examples of shape {_times(shape)} are read row by row as the {_times(wanted)} that the model wants"
    facts = replace(model.facts, input_shape=shape, notes=(*model.facts.notes, note))
    network = Normalised(core, normalisation) if normalisation else core
    return Model(network, model.box, facts=facts, oracles=model.oracles)


def _require_same_values(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    proper, expected = ([size for size in sizes if size != 1] for sizes in (shape, wanted))
    if math.prod(shape) == math.prod(wanted) and (proper == expected or sorted(proper) != sorted(expected)):
        return
    if len(shape) == 3 and shape[-1:] + shape[:-1] == wanted:
        remedy = "The data is channels-last: transpose it to [N, C, H, W], e.g. x.permute(0, 3, 1, 2)."
    elif sorted(proper) == sorted(expected):
        remedy = "The axes are in another order: transpose the data."
    elif len(shape) == len(wanted) == 3 and shape[0] == wanted[0]:
        remedy = f"Resize the images before saving them (image files: --resize {wanted[1]}x{wanted[2]})."
    elif len(shape) == len(wanted) == 3 and shape[1:] == wanted[1:]:
        remedy = f"Convert the images to {wanted[0]} channel(s)."
    else:
        remedy = "Give data with as many values per example as the model takes (images: --resize HxW)."
    raise DataError(f"the data's examples have shape {_times(shape)}, the model expects {_times(wanted)}. {remedy}")


def _numbers(values: Channels, absent: float) -> tuple[float, ...]:
    if values is None:
        return (absent,)
    try:
        return tuple(torch.as_tensor(values, dtype=torch.float64).reshape(-1).tolist())
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"{values!r} is not a list of numbers: give one, or one per channel.") from None


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"
