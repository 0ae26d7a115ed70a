"""`.pt2` files: programs written by torch.export."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steepest.basis.errors import ModelError, UsageError
from steepest.models.contract import Facts
from steepest.models.loading.adapt import InPrecision, Rebatched, settled
from steepest.models.loading.files import completed, sha256_of
from steepest.models.loading.vetting import suspicion
from steepest.models.model import Network


def from_exported(path: Path, *, input_shape: tuple[int, ...] | None, trust_code: bool) -> tuple[Network, Facts]:
    """Return the network of a `.pt2` file; unless trusted, a file in which code was found is refused.

    A frozen or limited batch size is opened by asking in blocks, the last one padded with copies of a row.

    Raises:
        ModelError: the file is damaged or holds more than weights and a program, or the program has several
            inputs or outputs.
        UsageError: `input_shape` contradicts the file, or code was found in it.
    """
    program = _program(path, trust_code)
    question, answer = _ends(program, path)
    network = settled(program.module())
    notes: tuple[str, ...] = ()
    smallest, largest = _limits(program, question)
    if smallest > 1 or largest is not None:
        network = Rebatched(network, largest=largest or 1 << 30, smallest=smallest)
        limits = f"frozen at {largest}" if smallest == largest else f"limited: at least {smallest}"
        limits += f", at most {largest}" if largest is not None and smallest != largest else ""
        notes = (f"the batch size was {limits}; examples are asked in blocks, short ones padded and cut",)
    if question.dtype is not torch.float32:
        network = InPrecision(network, question.dtype)
    features = tuple(size if isinstance(size, int) else None for size in question.shape[1:])
    shape = completed(features, input_shape, path)
    facts = Facts(
        source=str(path),
        sha256=sha256_of([path]),
        kind="pt2",
        input_shape=shape,
        classes=int(answer.shape[1]) if answer.ndim == 2 and isinstance(answer.shape[1], int) else None,
        notes=notes,
    )
    return network, facts


def _program(path: Path, trust_code: bool) -> Any:
    try:
        found = None if trust_code else suspicion(path)
        if found is not None:
            raise UsageError(
                f"{str(path)!r} holds {found}, which torch would run; it is refused. Export it again with "
                "torch.export.save, or, if you trust whoever made it, add --trust-code (trust_code=True)."
            )
        with _weights_only():
            return torch.export.load(path)
    except UsageError:
        raise
    except Exception as error:  # zip, json, pickle and schema errors each have their own type
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise ModelError(
            f"{str(path)!r} cannot be read as a torch.export program: {reason}. It may be truncated, hold a pickle "
            "(refused), or come from a newer torch; export it again with torch.export.save."
        ) from None


@contextmanager
def _weights_only() -> Iterator[None]:
    """Force every unpickling inside torch to weights only; a doctored `.pt2` ran code when it was not."""
    force, waive = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    saved = {name: os.environ.pop(name, None) for name in (force, waive)}
    os.environ[force] = "1"
    try:
        yield
    finally:
        os.environ.pop(force, None)
        os.environ.update({name: value for name, value in saved.items() if value is not None})


def _ends(program: Any, path: Path) -> tuple[Tensor, Tensor]:
    """Return the example values that describe the program's only input and only output."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = []
    for what, names in (
        ("input", program.graph_signature.user_inputs),
        ("output", program.graph_signature.user_outputs),
    ):
        if len(names) != 1 or not isinstance(values.get(names[0]), Tensor):
            listed = ", ".join(map(str, names)) or "none"
            raise ModelError(
                f"{str(path)!r} has {len(names)} {what}(s) ({listed}); allowed is exactly one tensor. Export a "
                "wrapper whose forward takes x and returns the logits."
            )
        found.append(values[names[0]])
    question, answer = found
    if not question.is_floating_point() or question.ndim < 1:
        raise ModelError(
            f"the input of {str(path)!r} is {question.dtype} of shape {tuple(question.shape)}; allowed is a floating "
            "tensor [N, ...]. Export the network behind its integer lookup."
        )
    return question, answer


def _limits(program: Any, question: Tensor) -> tuple[int, int | None]:
    """Return the smallest and the largest batch that the program accepts; None: no limit."""
    batch: Any = question.shape[0]
    if isinstance(batch, int):
        return batch, batch
    known = program.range_constraints.get(batch.node.expr)
    if known is None:
        return 1, None
    lower, upper = (int(end) if end.is_Integer else None for end in (known.lower, known.upper))
    return max(lower or 1, 1), upper
