"""What a model is like, found out by asking it: each answer is a fact that the report shows."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import torch
from torch import Tensor, nn

from steepest.basis.errors import ModelError
from steepest.models.model import Model, Network

REPEATABLE = 1e-5
"""Two answers to one question are the same up to this share of the largest output."""

SAME_ROWS = 1e-4
"""Kernels differ by batch size, so answers in different batches agree up to this share of 1 + the largest output."""

_ASKED, _ALONE = 32, 4


def inspected(model: Model, x: Tensor) -> Model:
    """Return the model with facts found by asking it at most 32 of the real inputs `x` [N, ...].

    Found: the number of classes; logits or probabilities; whether the same question gets the same answer (with
    other random numbers, and asked again); whether an answer depends on batchmates; submodules in training mode;
    outputs that are not finite. Facts that could not be measured are None.

    Raises:
        ModelError: the outputs are not [N, K] with K ≥ 2.
    """
    x = x[:_ASKED]
    raw = model.with_facts(replace(model.facts, outputs="logits"))
    first = _answer(raw, x, 1)
    if first.shape[1] < 2:
        raise ModelError(
            f"the model answered {tuple(first.shape)}; allowed are [N, K] with K ≥ 2 classes. "
            "A single output z becomes torch.stack([-z, z], 1) / 2."
        )
    notes = list(model.facts.notes)
    deterministic = _repeats(raw, x, first, notes) if len(x) else None
    if not bool(torch.isfinite(first).all()):
        rows = int((~torch.isfinite(first).all(1)).sum())
        notes.append(f"the outputs are not finite for {rows} of {len(x)} inputs asked")
    known = model.facts.answers == "labels"  # ones and zeros, which only look like certain probabilities
    probabilities = model.facts.outputs == "probabilities" or (not known and looks_like_probabilities(first))
    if known:
        notes.append("the model answers labels only")
    elif probabilities and model.facts.answers == "scores":
        notes.append("the outputs are probabilities; attacks see their logarithm")
    elif probabilities:
        notes.append(
            "the outputs are probabilities; their logarithm is attacked. A softmax that saturates hides gradients: "
            "prefer a model that ends in logits"
        )
    training = isinstance(model.network, nn.Module) and any(part.training for part in model.network.modules())
    if training:
        notes.append("some submodules are in training mode (dropout, batch statistics); call .eval() unless meant")
    independent = _rows_alone(raw, x, first, notes) if deterministic else None
    facts = replace(
        model.facts,
        classes=first.shape[1],
        outputs="probabilities" if probabilities else "logits",
        deterministic=deterministic,
        batch_independent=independent,
        training=training,
        sha256=model.facts.sha256 or fingerprint(model.network),
        notes=tuple(dict.fromkeys(notes)),
    )
    return model.with_facts(facts)


def looks_like_probabilities(outputs: Tensor) -> bool:
    """Return whether every row of `outputs` [N, K] lies in [0, 1] and sums to 1; never for logarithms of them."""
    if not len(outputs) or not bool(torch.isfinite(outputs).all()):
        return False
    inside = bool((outputs >= -1e-5).all() and (outputs <= 1 + 1e-5).all())
    return inside and bool(((outputs.double().sum(1) - 1).abs() <= 1e-4).all())


def difference(a: Tensor, b: Tensor) -> float:
    """Return max |a − b|; equal infinities and NaN in the same place count as equal, other non-finite pairs as ∞.

    >>> difference(torch.tensor([1.0, torch.nan]), torch.tensor([1.5, torch.nan]))
    0.5
    """
    if a.shape != b.shape:
        return torch.inf
    if not a.numel():
        return 0.0
    a, b = a.double(), b.double()
    same = (a == b) | (a.isnan() & b.isnan())
    return float(torch.where(same, 0.0, (a - b).abs().nan_to_num(torch.inf, torch.inf)).max())


def size_of(outputs: Tensor) -> float:
    """Return the largest finite |output|, 0 if there is none."""
    return float(outputs.double().nan_to_num(0, 0, 0).abs().max()) if outputs.numel() else 0.0


def fingerprint(network: Network) -> str:
    """Return a sha256 (hexadecimal) of the class's name and every tensor of the state; equal weights, equal hash.

    A plain callable has no state to read: only its name is hashed.
    """
    named = network if hasattr(network, "__qualname__") else type(network)
    digest = hashlib.sha256(f"{named.__module__}.{named.__qualname__}".encode())
    state = network.state_dict() if isinstance(network, nn.Module) else {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            digest.update(f"|{name}|{value.dtype}|{tuple(value.shape)}|".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(f"|{name}|{value!r}|".encode())
    return digest.hexdigest()


def _answer(model: Model, x: Tensor, seed: int) -> Tensor:
    with model.borrowed(seed=seed):
        return model.logits(x)


def _repeats(model: Model, x: Tensor, first: Tensor, notes: list[str]) -> bool:
    with model.borrowed(seed=1):
        model.logits(x)
        again = model.logits(x)
    other, third = _answer(model, x, 2), _answer(model, x, 1)
    near = REPEATABLE * size_of(first)
    drawn = difference(first, other) > near
    kept = difference(first, third) > near or (not drawn and difference(first, again) > near)
    if kept:
        notes.append("the model changes its answer between calls: it keeps a state of its own")
    elif drawn:
        notes.append("the model draws random numbers: the same question gets different answers")
    return not (drawn or kept)


def _rows_alone(model: Model, x: Tensor, first: Tensor, notes: list[str]) -> bool | None:
    if len(x) < 2:
        return None
    rows = range(0, len(x), max(1, len(x) // _ALONE))
    try:
        alone = torch.cat([_answer(model, x[i : i + 1], 1) for i in rows])
    except Exception as error:  # the user's model may refuse a batch of one in any way: it answered a larger one
        notes.append(f"the model does not answer an example alone ({type(error).__name__}), only in a batch")
        return False
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1)).to(x.device)
    shuffled = _answer(model, x[order], 1)
    largest = max(difference(alone, first[list(rows)]), difference(shuffled, first[order]))
    independent = largest <= SAME_ROWS * (1 + size_of(first))
    if not independent:
        notes.append(f"an answer depends on the other examples of its batch (by up to {largest:.3g})")
    return independent
