"""Lend a module out and take it back exactly as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(module: nn.Module | None, seed: int | None = None) -> Iterator[None]:
    """Restore on exit, also after an exception: modes, `requires_grad`, buffers, global random states.

    Inside, no parameter requires a gradient. With a `seed` the global generators start from it.
    """
    with _random_states(seed):
        if module is None:
            yield
            return
        modes = [(part, part.training) for part in _parts(module)]
        parameters = [each for part, _ in modes for each in part._parameters.values() if each is not None]
        wanted = [(parameter, parameter.requires_grad) for parameter in parameters]
        buffers = [
            (owner, name, buffer, None if buffer is None else buffer.clone())
            for owner, _ in modes
            for name, buffer in owner._buffers.items()
        ]
        try:
            # Looked at before it is set, which takes longer: before the first question a GPU has nothing to do.
            for parameter, flag in wanted:
                if flag:
                    parameter.requires_grad_(False)
            yield
        finally:
            for parameter, flag in wanted:
                if parameter.requires_grad is not flag:
                    parameter.requires_grad_(flag)
            for part, training in modes:
                if part.training is not training:
                    part.training = training
            with torch.no_grad():
                for owner, name, buffer, saved in buffers:
                    owner._buffers[name] = buffer
                    if buffer is not None and saved is not None:
                        buffer.copy_(saved)


def reseed(seed: int) -> None:
    """Start the global generators from a seed; inside `untouched`, which puts them back."""
    # torch.manual_seed asks every backend of the build, which takes longer than all else here together.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def _parts(module: nn.Module) -> list[nn.Module]:
    """Return a module and its parts, each once, as `modules` does, which hands each up through all levels above it."""
    parts, known = [module], {module}
    for part in parts:
        for child in part._modules.values():
            if child is not None and child not in known:
                known.add(child)
                parts.append(child)
    return parts


@contextmanager
def _random_states(seed: int | None) -> Iterator[None]:
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    saved = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002 — the user's global state
    saved_cuda = torch.cuda.get_rng_state_all() if cuda else []
    try:
        if seed is not None:
            reseed(seed)
        yield
    finally:
        torch.set_rng_state(saved[0])
        random.setstate(saved[1])
        np.random.set_state(saved[2])  # noqa: NPY002
        if cuda:
            torch.cuda.set_rng_state_all(saved_cuda)
