"""ONNX files: checked, converted, their batch axis opened, and compared with onnxruntime."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steepest.basis.box import Box
from steepest.basis.errors import ModelError
from steepest.models.contract import Facts
from steepest.models.inspection import difference, size_of
from steepest.models.loading.adapt import InPrecision, Normalisation, Rebatched, settled
from steepest.models.loading.files import completed, sha256_of
from steepest.models.loading.onnx_batch import freed
from steepest.models.loading.original import session_of
from steepest.models.loading.probes import gradient_notes, probes
from steepest.models.model import Network

_GUESSED_SIZES = (32, 224)
"""Sizes tried for the free axes of an input when nobody says which to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The one input of a graph.

    Attributes:
        name: in the graph.
        frozen: the fixed batch size, or None if it is free.
        features: the shape of one example; None where an axis is free.
        dtype: its floating type.
    """

    name: str
    frozen: int | None
    features: tuple[int | None, ...]
    dtype: torch.dtype


def from_onnx(
    path: Path, *, box: Box, normalisation: Normalisation | None, input_shape: tuple[int, ...] | None
) -> tuple[Network, Facts]:
    """Return the network of an ONNX file, proven to agree with onnxruntime on random inputs inside the box.

    A frozen batch size is opened where the answers stay right, else examples are asked in blocks of that size.

    Raises:
        ModelError: the file is damaged, has several inputs or outputs, uses an operator that cannot be converted,
            or the converted network disagrees with onnxruntime.
        UsageError: `input_shape` contradicts the file.
    """
    proto = _read(path)
    entry = _entry(proto, path, input_shape)
    x, reference = _reference(path, entry, box, normalisation)
    network, agreement, notes = _converted(proto, path, entry, x, reference)
    if x is not None:
        notes = (*notes, *gradient_notes(network, x))
    facts = Facts(
        source=str(path),
        sha256=sha256_of([path, *_external(proto, path)]),
        kind="onnx",
        input_shape=None if None in entry.features else tuple(size or 0 for size in entry.features),
        classes=None if reference is None else reference.shape[1],
        agreement=agreement,
        notes=notes,
    )
    return network, facts


def _read(path: Path) -> Any:
    import onnx

    try:
        onnx.checker.check_model(str(path))
        return onnx.load(str(path))
    except Exception as error:  # protobuf, the checker and the reader of external weights each raise their own
        raise ModelError(
            f"{str(path)!r} is not a valid ONNX file: {_first_line(error)}. It may be truncated or of another kind; "
            "compare its size with the original and fetch or export it again."
        ) from None


def _entry(proto: Any, path: Path, input_shape: tuple[int, ...] | None) -> Entry:
    weights = {t.name for t in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    for what, values in (("input", inputs), ("output", list(proto.graph.output))):
        if len(values) != 1:
            names = ", ".join(value.name for value in values) or "none"
            raise ModelError(
                f"{str(path)!r} has {len(values)} {what}s ({names}); allowed is exactly one. Export the part of the "
                f"network between one input and the logits (onnx.utils.extract_model cuts it out)."
            )
    kind = inputs[0].type.tensor_type
    dtype = {1: torch.float32, 10: torch.float16, 11: torch.float64}.get(kind.elem_type)
    if dtype is None:
        raise ModelError(
            f"the input {inputs[0].name!r} of {str(path)!r} is not of a floating type (ONNX type {kind.elem_type}), "
            "so it has no gradient. Export the network behind its integer lookup or its casts."
        )
    sizes = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim]
    if not kind.HasField("shape"):
        sizes = [None, *[None] * len(input_shape or ())]
    if not sizes or (len(sizes) == 1 and sizes[0] is not None):
        raise ModelError(
            f"the input {inputs[0].name!r} of {str(path)!r} has shape {sizes}: there is no batch axis. Allowed is "
            "[N, ...]; export the network with one."
        )
    features = tuple(sizes[1:])
    features = completed(features, input_shape, path) or features
    return Entry(name=inputs[0].name, frozen=sizes[0], features=features, dtype=dtype)


def _reference(
    path: Path, entry: Entry, box: Box, normalisation: Normalisation | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return probes and what onnxruntime answers to each alone; (None, None) if no guessed size is accepted."""
    session = session_of(path)
    sizes = (0,) if None not in entry.features else _GUESSED_SIZES
    for size in sizes:
        x = probes(tuple(f or size for f in entry.features), box, normalisation)
        try:
            rows = [_alone(session, entry, row) for row in x]
        except Exception as error:
            if None not in entry.features:
                raise ModelError(f"onnxruntime cannot run {str(path)!r}: {_first_line(error)}.") from None
            continue
        if rows[0].ndim != 2 or rows[0].shape[0] != 1:
            raise ModelError(
                f"{str(path)!r} answers one example with shape {tuple(rows[0].shape)}; allowed is [1, K] logits. "
                "Export the network up to its logits."
            )
        return x, torch.cat(rows)
    return None, None


def _alone(session: Any, entry: Entry, row: Tensor) -> Tensor:
    copies = entry.frozen or 1
    block = row.to(entry.dtype).expand(copies, *row.shape).contiguous()
    answer = torch.as_tensor(session.run(None, {entry.name: block.numpy()})[0])
    return answer[:1] if answer.ndim and answer.shape[0] == copies else answer


def _converted(
    proto: Any, path: Path, entry: Entry, x: Tensor | None, reference: Tensor | None
) -> tuple[Network, float | None, tuple[str, ...]]:
    """Return the first form of the network that agrees with onnxruntime, by how much, and what was adapted."""
    if x is None or reference is None:
        network, note = list(_forms(proto, path, entry))[-1]
        unsure = "not compared with onnxruntime: the input's size is free and no guess was accepted; give input_shape"
        return network, None, (*note, unsure)
    share = 1e-2 if entry.dtype is torch.float16 else 1e-4
    allowed = share * (1 + size_of(reference))
    found = torch.inf
    for network, note in _forms(proto, path, entry):
        found = _disagreement(network, x, reference)
        if found <= allowed:
            return network, found, note
    raise ModelError(
        f"the converted network disagrees with onnxruntime on {str(path)!r}: largest difference {found:.3g}, allowed "
        f"{allowed:.3g}. Its gradients would be of another network; export it with simpler operators, or load the "
        "original as pkg.module:factory."
    )


def _forms(proto: Any, path: Path, entry: Entry) -> Iterator[tuple[Network, tuple[str, ...]]]:
    """Yield the batched form first, then the one that asks in blocks of the exported batch size."""
    size = entry.frozen or 1
    opened, rewritten = freed(proto, entry.name, size)
    notes = [f"the batch size was frozen at {entry.frozen} and is free now"] if entry.frozen else []
    if rewritten:
        notes.append(f"{rewritten} Reshape node(s) with a fixed batch of {size} were rewritten")
    yield _network(opened, path, entry), tuple(notes)
    note = f"the batch axis could not be opened: examples are asked {size} at a time, which is slow"
    yield Rebatched(_network(proto, path, entry), largest=size, smallest=size), (note,)


def _network(proto: Any, path: Path, entry: Entry) -> Network:
    import onnx2fx

    try:
        network = onnx2fx.convert(proto)
    except Exception as error:
        raise ModelError(
            f"{str(path)!r} cannot be converted: {_first_line(error)}. Export it with standard operators, or load the "
            "original as pkg.module:factory."
        ) from None
    # Weights arrive as buffers, which the handle would save and restore at every question.
    for part in network.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.is_floating_point():
                delattr(part, name)
                part.register_parameter(name, nn.Parameter(buffer, requires_grad=False))
    ready = settled(network)
    return ready if entry.dtype is torch.float32 else InPrecision(ready, entry.dtype)


def _disagreement(network: Network, x: Tensor, reference: Tensor) -> float:
    """Return the largest difference over a batch and a single example; ∞ if the network cannot answer."""
    try:
        with torch.no_grad():
            return max(difference(network(x), reference), difference(network(x[:1]), reference[:1]))
    except Exception:  # a graph with a frozen batch fails in as many ways as there are operators
        return torch.inf


def _external(proto: Any, path: Path) -> list[Path]:
    """Return the files that hold the weights of a large model, each once, in order; onnx has checked the paths."""
    import onnx

    bare = onnx.load(str(path), load_external_data=False)
    entries = itertools.chain.from_iterable(t.external_data for t in bare.graph.initializer)
    return [path.parent / name for name in dict.fromkeys(e.value for e in entries if e.key == "location")]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__).rstrip(".")
