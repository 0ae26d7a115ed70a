"""A moment of a training: all that its rest depends on, in tensors and plain values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from steepest.harden.contract import Classroom

State = dict[str, Any]
"""Tensors, numbers and texts in dicts and lists: what `torch.load` reads without running code."""


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers by name, each tensor once."""
    found = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in found.items()}


def put(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors of `tensors_of` back into the network."""
    held = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for name, tensor in tensors.items():
            held[name].copy_(tensor)


def finite(network: nn.Module) -> bool:
    """Return whether every parameter and buffer is finite."""
    tensors = [*network.parameters(), *network.buffers()]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def kept_moment(room: Classroom, network: nn.Module, *, number: int, more: State | None = None) -> State:
    """Return copies of weights, optimiser and what the method keeps, the number of the step, and `more` beside them."""
    return {
        "weights": tensors_of(network),
        "optimiser": copy.deepcopy(room.optimiser.state_dict()),
        "kept": {name: tensor.detach().clone() for name, tensor in room.kept.items()},
        "number": number,
        **(more or {}),
    }


def put_moment(room: Classroom, network: nn.Module, state: State) -> None:
    """Bring weights, optimiser and what the method keeps back to a moment."""
    put(network, state["weights"])
    room.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
    room.kept.clear()
    room.kept.update({name: tensor.clone() for name, tensor in state["kept"].items()})
