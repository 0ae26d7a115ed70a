"""Operator norms from above: never below the singular value, and close to it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.basis.errors import NoCertificateError
from steepest.certify.norms import circular_norm, convolution_norm, gram_bound, matrix_norm, schur
from steepest.certify.steepness import slopes
from steepest.certify.stretching import StepBound, stretching
from steepest.models.traced import Step, traced

F = nn.functional
CONVOLUTIONS = [(1, 1, 1, 1), (1, 0, 1, 1), (2, 1, 1, 1), (3, 2, 1, 2), (2, 1, 1, 2), (1, 2, 2, 1), (2, 2, 2, 2)]
"""Stride, padding, dilation, groups."""


def test_bounds_of_random_matrices_are_above_and_close() -> None:
    generator = torch.Generator().manual_seed(0)
    for number in range(100):
        rows, columns = torch.randint(1, 80, (2,), generator=generator).tolist()
        size = 10.0 ** float(torch.randint(-9, 9, (), generator=generator))
        matrix = size * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        if number % 3 == 0:  # of low rank, where decompositions have little to hold on to
            matrix = matrix[:, :1] @ matrix[:1]
        true = float(torch.linalg.svdvals(matrix)[0])
        assert true <= matrix_norm(matrix) <= true * (1 + 1e-9)
        assert true <= float(gram_bound(matrix, 5)) < 1.01 * true
        assert true <= schur(matrix.abs())
    matrix = torch.randn(60, 40, generator=generator, dtype=torch.float64)
    looser = [float(gram_bound(matrix, t)) for t in range(6)]
    assert looser == sorted(looser, reverse=True)


def test_a_bound_holds_where_the_numbers_are_few_or_strange() -> None:
    assert matrix_norm(torch.zeros(3, 4)) < 1e-12 and matrix_norm(torch.zeros(0, 4)) == 0
    assert float(gram_bound(torch.zeros(3, 4).double(), 5)) < 1e-6
    # Two equal singular values: the worst for iterations that wait for a gap.
    assert 2 <= float(gram_bound(2 * torch.eye(50).double(), 5)) < 2 * 50 ** (1 / 64) + 1e-9
    wide = torch.randn(1500, 1100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    true = float(torch.linalg.svdvals(wide)[0])
    assert true <= matrix_norm(wide) < 1.01 * true


@pytest.mark.parametrize(("smaller", "above"), [(5, 1e-9), (70, 0.01)])
def test_of_many_matrices_the_largest_norm_is_found(smaller: int, above: float) -> None:
    generator = torch.Generator().manual_seed(smaller)
    for spread in (0.0, 0.01, 2.0):  # all alike, nearly, or a few far larger than the rest
        many = torch.randn(50, smaller, 80, 2, generator=generator, dtype=torch.float64)
        many = torch.view_as_complex(many) * torch.rand(50, 1, 1, generator=generator).double() ** spread
        true = float(torch.linalg.svdvals(many)[:, 0].max())
        assert true <= matrix_norm(many) <= (1 + above) * true


def kernel(groups: int) -> Tensor:
    return torch.randn(6, 4 // groups, 3, 3, generator=torch.Generator().manual_seed(groups), dtype=torch.float64)


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), CONVOLUTIONS)
def test_convolutions_against_their_dense_matrices(stride: int, padding: int, dilation: int, groups: int) -> None:
    weight, points = kernel(groups), torch.eye(4 * 36, dtype=torch.float64).reshape(-1, 4, 6, 6)
    rest = {"stride": (stride, stride), "dilation": (dilation, dilation), "groups": groups}
    dense = F.conv2d(points, weight, None, stride, padding, dilation, groups).flatten(1)
    true = float(torch.linalg.svdvals(dense)[0])
    assert true <= convolution_norm(weight, (6, 6), **rest) <= 1.5 * true
    # Around a circle the frequencies say all.
    around = 2 * dilation
    wrapped = torch.cat([points, points[:, :, :around]], 2)
    wrapped = torch.cat([wrapped, wrapped[..., :around]], 3)
    dense = F.conv2d(wrapped, weight, None, stride, 0, dilation, groups).flatten(1)
    assert circular_norm(weight, (6, 6), **rest) == pytest.approx(float(torch.linalg.svdvals(dense)[0]), rel=1e-9)
    # In a network so small a layer is written out, and exact.
    layer = nn.Conv2d(4, 6, 3, stride, padding, dilation, groups).double().eval()
    layer.weight.data.copy_(weight)
    bound = bounds(nn.Sequential(layer, nn.Flatten()).float(), (4, 6, 6))[0]
    assert bound.own == pytest.approx(true, rel=1e-5)


def test_a_convolution_whose_stride_is_seen_is_bounded_closer_than_without() -> None:
    weight = kernel(1)
    seen, unseen = (convolution_norm(weight, (6, 6), stride=(s, s), dilation=(1, 1), groups=1) for s in (2, 1))
    assert seen < 0.8 * unseen


def bounds(network: nn.Module, shape: tuple[int, ...]) -> tuple[StepBound, ...]:
    return stretching(traced(st.Model(network.eval()), shape))


def changes(network: nn.Module, shape: tuple[int, ...]) -> float:
    """The largest stretch of a network among many pairs of points, in float64."""
    generator, wide = torch.Generator().manual_seed(0), network.double()
    x = torch.randn(3000, *shape, generator=generator, dtype=torch.float64)
    step = torch.randn(3000, *shape, generator=generator, dtype=torch.float64)
    step = step * 10.0 ** -torch.randint(0, 4, (3000, *[1] * len(shape)), generator=generator).double()
    found = (wide(x + step) - wide(x)).flatten(1).norm(dim=1) / step.flatten(1).norm(dim=1)
    return float(found.detach().max())


class Applied(nn.Module):
    """A function as a module, its answer flattened."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).flatten(1)


CASES = {
    "average": (nn.AvgPool2d(2), 0.5),
    "overlapping averages": (nn.AvgPool2d(3, 1), 1.0),
    "global average": (nn.AdaptiveAvgPool2d(1), 1 / 6),
    "maximum": (nn.MaxPool2d(2), 1.0),
    "overlapping maxima": (nn.MaxPool2d(3, 1), 3.0),
    "maximum, padded": (nn.MaxPool2d(3, 2, 1), 2.0),
    "mean": (lambda x: x.mean((2, 3)), 1 / 6),
    "sum": (lambda x: x.sum(1), math.sqrt(2)),
    "largest": (lambda x: x.amax((2, 3)), 1.0),
    "scale": (lambda x: -3 * x / 2 + 1, 1.5),
    "repeat": (lambda x: x[:, [0, 0, 1]], math.sqrt(2)),
    "put together": (lambda x: torch.cat([x, 2 * x], 1), math.sqrt(5)),
    "residual": (lambda x: x + 0.5 * torch.relu(x), 1.5),
    "reflection": (nn.ReflectionPad2d(1), 2.0),
    "zeros around": (nn.ZeroPad2d(1), 1.0),
    "moved": (lambda x: x.transpose(2, 3)[:, :, 1:].flip(1), 1.0),
    "batch norm": (nn.BatchNorm2d(2), 1 / math.sqrt(1 + 1e-5)),
    "softmax": (lambda x: x.flatten(1).softmax(1) * 2, 1.0),
    "the larger": (lambda x: torch.maximum(x, 0 * x), 1.0),
    "transposed": (nn.ConvTranspose2d(2, 3, 2, 2), None),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_step_can_do_is_never_exceeded(name: str) -> None:
    layer, known = CASES[name]
    network = Applied(layer).eval()
    found = bounds(network, (2, 6, 6))[-1].total
    assert changes(network, (2, 6, 6)) <= found
    if known is not None:
        assert found == pytest.approx(known, rel=1e-6)


def test_slopes_hold_on_a_dense_grid() -> None:
    z = torch.linspace(-30, 30, 600_001, dtype=torch.float64).requires_grad_()
    steps: dict[str, dict[str, object]] = {
        name: {}
        for name in (
            "relu tanh sigmoid abs gelu silu hardsigmoid hardswish mish softplus elu celu sin cos atan"
        ).split()
    }
    steps |= {"leaky_relu": {"negative_slope": 0.2}, "hardtanh": {"min_val": -1.0, "max_val": 2.0}}
    for name, given in steps.items():
        call = getattr(torch.ops.aten, name)
        found = slopes(Step(op=f"aten.{name}", given={"self": 0, **given}, sources=(0,), shape=(1,), name=name))
        assert found is not None
        (slope,) = torch.autograd.grad(call(z, **given).sum(), z)
        low, high = float(slope.min()), float(slope.max())
        assert found[0] <= low and high <= found[1], name
        # And close, so that nothing is given away.
        assert high > 0.999 * found[1] and low < found[0] + 2e-3, name
    (slope,) = torch.autograd.grad(F.gelu(z, approximate="tanh").sum(), z)
    assert float(slope.max()) <= 1.1290
    for alpha, scale in ((2.0, 1.0), (0.5, 1.0), (1.6733, 1.0507)):
        found = slopes(
            Step(op="aten.elu", given={"alpha": alpha, "scale": scale}, sources=(0,), shape=(1,), name="elu")
        )
        (slope,) = torch.autograd.grad(torch.ops.aten.elu(z, alpha, scale).sum(), z)
        assert found is not None and float(slope.max()) <= found[1] < float(slope.max()) * 1.001


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (lambda x: x * x, "aten.mul"),
        (lambda x: x.exp(), "aten.exp"),
        (nn.LayerNorm((2, 6, 6)), "aten.native_layer_norm"),
        (lambda x: x / (1 + x.abs()), "aten.div"),
        (lambda x: (x > 0).double(), "aten.gt"),
        (lambda x: torch.bmm(x[:, 0], x[:, 1]).softmax(1), "aten.bmm"),
    ],
)
def test_an_operation_without_a_rule_is_named(layer: object, named: str) -> None:
    with pytest.raises(NoCertificateError, match=named):
        bounds(Applied(layer), (2, 6, 6))


def test_the_shares_say_which_layer_makes_the_network_stretchy() -> None:
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    first.weight.data.copy_(torch.diag(torch.tensor([8.0, 1.0])))
    second.weight.data.copy_(torch.diag(torch.tensor([2.0, 0.5])))
    found = bounds(nn.Sequential(first, nn.ReLU(), second), (2,))
    assert [each.share for each in found] == pytest.approx([0.75, 0.0, 0.25])
    assert found[-1].total == pytest.approx(16) and [each.largest for each in found] == pytest.approx([8, 1, 2])


@pytest.mark.parametrize("kind", ["convolution", "matrix"])
def test_a_scale_of_channels_is_bounded_together_with_what_it_scales(kind: str) -> None:
    torch.manual_seed(0)
    # Channels that are strong are scaled down: the product of the two norms forgets it.
    if kind == "convolution":
        layer, norm, shape = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), (2, 6, 6)
    else:
        layer, norm, shape = nn.Linear(5, 3), nn.BatchNorm1d(3), (5,)
    strength = torch.tensor([9.0, 1.0, 0.1])
    layer.weight.data.mul_(strength.reshape(-1, *[1] * (layer.weight.ndim - 1)))
    norm.running_var.copy_(strength.square())
    norm.weight.data.copy_(torch.tensor([1.0, -2.0, 0.5]))
    network = nn.Sequential(layer, norm, nn.Flatten()).eval()
    found = bounds(network, shape)
    points = torch.eye(math.prod(shape)).double().reshape(-1, *shape)
    wide = network.double()
    dense = (wide(points) - wide(torch.zeros_like(points))).detach().flatten(1)
    true = float(torch.linalg.svdvals(dense)[0])
    assert true <= found[-1].total <= true * (1 + 1e-5)
    own = {each.op: each.own for each in found}
    product = math.prod(own.values())
    assert product > 3 * found[-1].total  # each alone is still told alone
    assert own["aten.native_batch_norm"] == pytest.approx(5, rel=1e-3)
