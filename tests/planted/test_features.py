"""What enters the last linear layer, found in networks of modules and in graphs of functions alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn

import steepest as st
from steepest.diagnose.contract import Level, NotRun
from steepest.diagnose.features import features_of
from steepest.diagnose.probe import Probe
from steepest.models.model import Model
from tests.files.model_material import saved
from tests.planted.test_checks_attacks import HEALTHY, examples, found, probe

RELU: Any = HEALTHY["relu"]


def converted(path: Path) -> Model:
    """The same network from an ONNX file: a graph of functions, without a module for a layer."""
    weights = [
        numpy_helper.from_array(getattr(RELU[at], kind).detach().numpy(), f"{kind}{at}")
        for at in (1, 3)
        for kind in ("weight", "bias")
    ]
    nodes = [
        helper.make_node("Flatten", ["in"], ["z"]),
        helper.make_node("Gemm", ["z", "weight1", "bias1"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "weight3", "bias3"], ["out"], transB=1),
    ]
    return st.load(str(saved(path / "relu.onnx", nodes, weights)))


def entering(model: Model) -> Tensor:
    x = examples()
    return features_of(Probe(model, x, torch.zeros(len(x), dtype=torch.int64), st.Linf(0.1))).logits(x)


def test_a_converted_graph_has_the_features_of_its_modules(tmp_path: Path) -> None:
    model = converted(tmp_path)
    assert isinstance(model.network, fx.GraphModule)
    assert not any(isinstance(part, nn.Linear) for part in model.network.modules())
    torch.testing.assert_close(entering(model), RELU[:3](examples()))
    judged = found("active", model.network, 0.06)
    assert (judged.level, judged.statistic) == (Level.PASS, 1.0)


class Twice(nn.Module):
    """A wrapper that changes what enters the graph."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.inner(2 * x)
        return answer


def test_a_graph_inside_a_wrapper_is_given_what_the_wrapper_makes(tmp_path: Path) -> None:
    model = converted(tmp_path)
    torch.testing.assert_close(entering(Model(Twice(model.network))), RELU[:3](2 * examples()))


def attended(x: Tensor, weight: Tensor) -> Tensor:
    """Two products: with weights, and of two computed tensors."""
    z = torch.matmul(x.flatten(1), weight)
    return torch.matmul(z.unsqueeze(1), z.unsqueeze(2)).flatten(1)


class Attended(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(16, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return attended(x, self.weight)


def test_a_product_of_two_computed_tensors_is_no_layer() -> None:
    graph = fx.symbolic_trace(Attended().eval())
    torch.testing.assert_close(entering(Model(graph)), examples().flatten(1))


def test_without_a_layer_the_reason_is_told() -> None:
    class Mean(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :4]

    for network in (Mean().eval(), fx.symbolic_trace(Mean().eval())):
        with pytest.raises(NotRun, match="no linear layer"):
            features_of(probe(network))
