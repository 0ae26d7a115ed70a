"""Tiny models and files for the tests of loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from steepest.models.contract import Need
from steepest.models.goals import Never
from steepest.models.model import Model

DATA = Path(__file__).parents[2].parent / "shared" / "data"


class First:
    """The first output, so that gradients of single rows can be compared."""

    goal = Never()

    def ascent(self, outputs: Tensor, y: object) -> Tensor:
        return outputs[:, 0]

    value = ascent

    def rows(self, index: Tensor) -> First:
        return self


def gradient(model: Model, x: Tensor) -> Tensor:
    found = model.evaluate(x, None, First(), need=Need.GRADIENT).gradient
    assert found is not None
    return found


def weight(name: str, *shape: int) -> TensorProto:
    seed = sum(map(ord, name))
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def whole(values: list[int], name: str) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def saved(
    path: Path,
    nodes: list[Any],
    weights: list[TensorProto],
    entry: tuple[Any, ...] = (1, 1, 4, 4),
    outputs: tuple[str, ...] = ("out",),
    inputs: tuple[str, ...] = ("in",),
    batch: Any = 1,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, entry) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, None]) for name in outputs],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(path))
    return path


def convolution(path: Path, shape: list[int] | None = None, batch: Any = 1) -> Path:
    """1×4×4 → conv → relu → reshape (its batch frozen) → gemm → 3."""
    nodes = [
        helper.make_node("Conv", ["in", "kernel"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Reshape", ["b", "shape"], ["c"]),
        helper.make_node("Gemm", ["c", "matrix"], ["out"]),
    ]
    weights = [weight("kernel", 2, 1, 3, 3), whole(shape or [1, -1], "shape"), weight("matrix", 8, 3)]
    return saved(path, nodes, weights, entry=(batch, 1, 4, 4), batch=batch)


def two_layers(path: Path, network: nn.Sequential) -> Path:
    """Linear, ReLU, Linear on two inputs, as a file whose input is 1×1×2."""
    nodes = [
        helper.make_node("Reshape", ["in", "shape"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["z"]),
        helper.make_node("Gemm", ["z", "v", "c"], ["out"], transB=1),
    ]
    held = {"w": network[0].weight, "b": network[0].bias, "v": network[2].weight, "c": network[2].bias}
    weights = [numpy_helper.from_array(value.detach().numpy(), name) for name, value in held.items()]
    weights.append(numpy_helper.from_array(np.array([-1, 2], np.int64), "shape"))
    ends = (("in", [1, 1, 2]), ("out", [1, len(network[2].bias)]))
    entry, leave = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    graph = helper.make_graph(nodes, "tiny", [entry], [leave], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


def alone(path: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return torch.cat([torch.as_tensor(session.run(None, {name: row[None].numpy()})[0]) for row in x])


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Marker:
    """Unpickling it writes a file: the proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)
