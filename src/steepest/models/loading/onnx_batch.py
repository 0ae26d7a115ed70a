"""Opening the batch axis of an ONNX graph that was exported for one fixed batch size."""

from __future__ import annotations

from typing import Any

import numpy as np


def freed(proto: Any, entry: str, size: int) -> tuple[Any, int]:
    """Return a copy of the ONNX model whose batch axis is free, and how many Reshape nodes were rewritten.

    The first axis of the input `entry` and of the outputs becomes symbolic; declared shapes in between are
    dropped. A Reshape of data (not of weights) to a constant shape that begins with `size`, the exported batch,
    gets −1 there, or 0 (copy) if −1 is taken. This is a guess about what that number meant:
    the caller must compare the answers.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    for value in (*(v for v in graph.input if v.name == entry), *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes:
            sizes[0].dim_param = "N"
    del graph.value_info[:]
    rewritten = 0
    reached, constants = _downstream(graph, entry), _constants(graph)
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[0] not in reached or node.input[1] not in constants:
            continue
        shape = _opened(constants[node.input[1]], size)
        if shape is None or any(a.name == "allowzero" and a.i for a in node.attribute):
            continue
        name = f"steepest_batch_free_shape_{number}"
        graph.initializer.append(onnx.numpy_helper.from_array(shape, name))
        node.input[1] = name
        rewritten += 1
    return copy, rewritten


def _opened(shape: np.ndarray[Any, np.dtype[np.int64]], size: int) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    if shape.ndim != 1 or len(shape) < 2 or shape[0] != size:
        return None
    opened = shape.copy()
    opened[0] = 0 if (shape == -1).any() else -1
    return opened


def _downstream(graph: Any, entry: str) -> set[str]:
    """Return the names of all values that depend on the input; the nodes come in topological order."""
    reached = {entry}
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _constants(graph: Any) -> dict[str, Any]:
    from onnx import numpy_helper

    found = {t.name: t for t in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                found[node.output[0]] = attribute.t
    return {name: numpy_helper.to_array(t) for name, t in found.items() if t.data_type == t.INT64 and len(t.dims) < 2}
