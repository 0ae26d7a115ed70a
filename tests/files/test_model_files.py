"""ONNX files as users have them: what loads answers as onnxruntime does, what is bad is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from steepest.basis.errors import DataError, ModelError, UsageError
from steepest.models.contract import Facts
from steepest.models.inspection import inspected
from steepest.models.loading import fitted_to, load
from steepest.models.loading.adapt import Rebatched, Reshaped
from steepest.models.model import Model
from tests.files.model_material import DATA, alone, convolution, gradient, saved, weight, whole


@pytest.mark.parametrize("shape", [[1, -1], [1, 8], [-1, 8], [0, -1]])
def test_a_frozen_batch_is_opened_and_answers_stay_those_of_onnxruntime(tmp_path: Path, shape: list[int]) -> None:
    path = convolution(tmp_path / "net.onnx", shape)
    model = load(path)
    x = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(model.logits(x), alone(path, x))
    facts = model.facts
    assert facts.kind == "onnx" and facts.input_shape == (1, 4, 4) and facts.classes == 3
    assert facts.agreement is not None and facts.agreement < 1e-5
    assert any("frozen at 1 and is free" in note for note in facts.notes)
    assert any("rewritten" in note for note in facts.notes) == (shape[0] == 1)
    assert not isinstance(model.network, Rebatched)
    parts = list(model.network.modules())  # type: ignore[union-attr]
    assert not any(part.training for part in parts)
    assert not any(weights.requires_grad for part in parts for weights in part.parameters())
    assert float(gradient(model, x).abs().amax((1, 2, 3)).min()) > 0


def test_a_batch_frozen_at_four_is_opened_as_well(tmp_path: Path) -> None:
    frozen, single = convolution(tmp_path / "four.onnx", [4, -1], batch=4), convolution(tmp_path / "one.onnx")
    model, x = load(frozen), torch.rand(6, 1, 4, 4)
    assert not isinstance(model.network, Rebatched)
    torch.testing.assert_close(model.logits(x), alone(single, x))


def test_a_free_batch_with_a_frozen_reshape_inside_is_opened_too(tmp_path: Path) -> None:
    path = convolution(tmp_path / "net.onnx", [1, -1], batch="N")
    x = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(load(path).logits(x), alone(path, x))


def test_where_opening_would_change_answers_examples_are_asked_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["in"], ["flat"], axis=1),
        helper.make_node("ReduceSum", ["flat", "axis"], ["total"], keepdims=1),
        helper.make_node("Mul", ["flat", "total"], ["square"]),
        helper.make_node("Gemm", ["square", "matrix"], ["out"]),
    ]
    path = saved(tmp_path / "net.onnx", nodes, [whole([0], "axis"), weight("matrix", 16, 3)])
    model = load(path)
    assert isinstance(model.network, Rebatched) and any("1 at a time" in note for note in model.facts.notes)
    x = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(model.logits(x), alone(path, x))
    rows = torch.cat([gradient(model, row[None]) for row in x])
    torch.testing.assert_close(gradient(model, x), rows)
    assert model.logits(x[:0]).shape == (0, 3)


def test_a_converter_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    import onnx2fx

    right = onnx2fx.convert
    path = convolution(tmp_path / "net.onnx")

    def wrong(proto: Any) -> nn.Module:
        network = right(proto)
        with torch.no_grad():
            for buffer in network.buffers():
                if buffer.is_floating_point():
                    buffer.mul_(1.01)
        return network

    monkeypatch.setattr(onnx2fx, "convert", wrong)
    with pytest.raises(ModelError, match="disagrees with onnxruntime"):
        load(path)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"not a model at all" * 9])
def test_damaged_onnx_files_are_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = convolution(tmp_path / "net.onnx")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=r"net.onnx.*not a valid ONNX file"):
        load(path)


def test_several_inputs_or_outputs_are_named(tmp_path: Path) -> None:
    add = [helper.make_node("Add", ["left", "right"], ["out"])]
    with pytest.raises(ModelError, match="left, right"):
        load(saved(tmp_path / "two.onnx", add, [], entry=(1, 3), inputs=("left", "right")))
    both = [helper.make_node("Relu", ["in"], ["out"]), helper.make_node("Neg", ["in"], ["other"])]
    with pytest.raises(ModelError, match="out, other"):
        load(saved(tmp_path / "out.onnx", both, [], entry=(1, 3), outputs=("out", "other")))


def test_a_quantised_graph_loads_and_its_zero_gradient_is_said(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.float32(1 / 64), "scale")
    zero = numpy_helper.from_array(np.uint8(0), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["in", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "matrix"], ["out"]),
    ]
    path = saved(tmp_path / "q.onnx", nodes, [scale, zero, weight("matrix", 4, 3)], entry=(1, 4))
    notes = load(path).facts.notes
    assert any("gradient" in note for note in notes)
    assert not any("gradient" in note for note in load(convolution(tmp_path / "net.onnx")).facts.notes)


def test_free_sizes_besides_the_batch_are_allowed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["in"], ["a"]),
        helper.make_node("Flatten", ["a"], ["b"], axis=1),
        helper.make_node("Gemm", ["b", "matrix"], ["out"]),
    ]
    path = saved(tmp_path / "free.onnx", nodes, [weight("matrix", 3, 2)], entry=("N", 3, "H", "W"), batch="N")
    model = load(path)
    assert model.facts.input_shape is None and model.facts.agreement is not None
    assert model.logits(torch.rand(2, 3, 5, 7)).shape == (2, 2)
    assert load(path, input_shape=(3, 8, 8)).facts.input_shape == (3, 8, 8)
    with pytest.raises(UsageError, match="contradicts"):
        load(path, input_shape=(1, 8, 8))


def test_normalisation_is_per_channel_of_the_data_and_comes_before_reshaping(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["in"], ["a"], axis=1),
        helper.make_node("Gemm", ["a", "matrix"], ["out"]),
    ]
    path = saved(tmp_path / "flat.onnx", nodes, [weight("matrix", 12, 3)], entry=(1, 12, 1))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    model = fitted_to(load(path, mean=mean, std=std), (3, 2, 2))
    x = torch.rand(4, 3, 2, 2)
    by_hand = (x - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
    torch.testing.assert_close(model.logits(x), alone(path, by_hand.reshape(4, 12, 1)))
    assert any("3×2×2" in note and "12×1" in note for note in model.facts.notes)
    assert fitted_to(model, (3, 2, 2)) is model
    with pytest.raises(UsageError, match=r"mean has 2 values.*3 channel"):
        fitted_to(load(path, mean=(0.1, 0.2), std=1.0), (3, 2, 2))


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), (1.0, 0.0, 1.0)])
def test_a_standard_deviation_that_cannot_divide_is_refused(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(UsageError, match="std="):
        load(convolution(tmp_path / "net.onnx"), mean=0.5, std=bad)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((32, 32, 3), "permute"),
        ((3, 28, 28), "--resize 32x32"),
        ((1, 32, 32), "3 channel"),
        ((5,), "3×32×32"),
    ],
)
def test_examples_of_another_shape_are_refused_with_both_shapes(shape: tuple[int, ...], remedy: str) -> None:
    model = Model(nn.Flatten(), facts=Facts(input_shape=(3, 32, 32)))
    with pytest.raises(DataError, match=remedy) as caught:
        fitted_to(model, shape)
    assert "×".join(map(str, shape)) in str(caught.value) and "3×32×32" in str(caught.value)


def test_unknown_shapes_pass_and_single_axes_may_come_and_go() -> None:
    unknown = Model(nn.Flatten())
    assert fitted_to(unknown, (9, 9)) is unknown
    fitted = fitted_to(Model(nn.Flatten(), facts=Facts(input_shape=(1, 4, 4))), (4, 4, 1))
    assert isinstance(fitted.network, Reshaped)
    assert fitted.logits(torch.rand(2, 4, 4, 1)).shape == (2, 16)


SRI = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
OVAL = {"mean": (0.485, 0.456, 0.406), "std": (0.225, 0.225, 0.225)}
_ABSENT = (("mean", 0.0), ("std", 1.0))
FILES = [
    ("mnist_fastadv_fgsm", "mnist_test", {}, 9850),
    ("mnistfc_256x2", "mnist_test", {}, 9808),
    ("mnist_kw_eps01", "mnist_test", {}, 9820),
    ("sri_resnet_b", "cifar10_test_2000", SRI, 1585),
    ("oval21_cifar_base_kw", "cifar10_test_2000", OVAL, 1165),
]


def real(name: str, data: str, normalisation: dict[str, Any], limit: int | None) -> tuple[Model, Tensor, Tensor]:
    if not (DATA / f"{name}.onnx").exists():
        pytest.skip("the real files are not here")
    with np.load(DATA / f"{data}.npz", allow_pickle=False) as archive:
        images, labels = (
            torch.from_numpy(archive["images"][:limit]),
            torch.from_numpy(archive["labels"][:limit]),
        )
    x = images.float() / 255
    x = x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2).contiguous()
    return fitted_to(load(DATA / f"{name}.onnx", **normalisation), tuple(x.shape[1:])), x, labels


@pytest.mark.parametrize(("name", "data", "normalisation", "right"), FILES)
def test_real_files_answer_the_first_200_as_onnxruntime_does(
    name: str, data: str, normalisation: Any, right: int
) -> None:
    model, x, _ = real(name, data, normalisation, 200)
    mean, std = (torch.tensor(normalisation.get(key, [whole])).reshape(-1, 1, 1) for key, whole in _ABSENT)
    wanted = load(DATA / f"{name}.onnx").facts.input_shape
    assert wanted is not None
    expected = alone(DATA / f"{name}.onnx", ((x - mean) / std).reshape(-1, *wanted))
    outputs = model.logits(x)
    assert bool((outputs.argmax(1) == expected.argmax(1)).all())
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-4)
    facts = inspected(model, x).facts
    assert (facts.deterministic, facts.batch_independent, facts.outputs) == (True, True, "logits")
    assert not any(isinstance(part, Rebatched) for part in model.network.modules())  # type: ignore[union-attr]


@pytest.mark.full
@pytest.mark.parametrize(("name", "data", "normalisation", "right"), FILES)
def test_real_files_are_right_to_the_last_example(name: str, data: str, normalisation: Any, right: int) -> None:
    model, x, y = real(name, data, normalisation, None)
    blocks = zip(x.split(500), y.split(500), strict=True)
    assert sum(int((model.logits(part).argmax(1) == labels).sum()) for part, labels in blocks) == right
