"""ECLipsE-Fast: one matrix carried from layer to layer in place of the layers' norms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steepest.basis.errors import NoCertificateError
from steepest.basis.tensors import flat
from steepest.certify.affine import affine_of
from steepest.certify.norms import matrix_norm
from steepest.certify.steepness import slopes
from steepest.models.traced import Graph, Step

WIDEST = 4096
"""Values a layer may have: matrices of that side are factorised."""

_ROUNDING = 1e-9
"""The carried matrices have condition numbers of at most 2, so that rounding stays far below it."""


def carried(graph: Graph) -> tuple[Tensor, Tensor]:
    """Return (W, X): for rows w of differences of outputs, |w·Δz| ≤ √(wW X⁻¹ Wᵀwᵀ)·‖Δx‖₂, float64.

    With slopes in [0, 1], X₀ = I, Aᵢ = Wᵢ Xᵢ₋₁⁻¹ Wᵢᵀ, λ = 2/λmax(Aᵢ) and Xᵢ = λI − (λ²/4)Aᵢ; W is the last layer.
    A slope in [0, s] is one in [0, 1] whose next layer is s times as large.

    Raises:
        NoCertificateError: the network is no chain, a layer has more than 4,096 values, or an activation falls.

    Source: Xu & Sivaranjani 2024, ECLipsE-Fast.
    """
    inverse: Tensor | None = None
    weight = torch.eye(_size(graph.steps[0]), dtype=torch.float64)
    for at in range(1, len(graph.steps)):
        step, affine = graph.steps[at], affine_of(graph, at)
        if step.sources != (at - 1,):
            raise _refused(step, "makes the network no chain of layers")
        if affine is not None:
            weight = _applied(weight, graph, at)
            continue
        steep = slopes(step)
        if steep is None or steep[0] < 0:
            raise _refused(step, "is no activation that only rises")
        grown = _symmetric(weight @ (weight.mT if inverse is None else inverse @ weight.mT))
        largest = matrix_norm(grown)
        if largest == 0:  # the layer is constant, and so is everything behind it
            return weight.new_zeros(graph.outputs, len(weight)), torch.eye(len(weight), dtype=torch.float64)
        scale = 2 / largest
        inverse = _inverse(scale * torch.eye(len(weight), dtype=torch.float64) - scale**2 / 4 * grown, step)
        weight = steep[1] * torch.eye(len(weight), dtype=torch.float64)
    return weight, torch.eye(weight.shape[1], dtype=torch.float64) if inverse is None else inverse


def eclipse_bounds(weight: Tensor, inverse: Tensor, rows: Tensor) -> Tensor:
    """Return √(rX⁻¹rᵀ), r = row·W, for each row [M, K] over outputs, float64 [M]: what `carried` promises."""
    pulled = rows @ weight
    return ((pulled @ inverse) * pulled).sum(1).clamp_min(0).sqrt() * (1 + _ROUNDING)


def eclipse_bound(weight: Tensor, inverse: Tensor) -> float:
    """Return the L2 constant of the whole network, √λmax(W X⁻¹ Wᵀ)."""
    return math.sqrt(matrix_norm(_symmetric(weight @ inverse @ weight.mT))) * (1 + _ROUNDING)


def _applied(weight: Tensor, graph: Graph, at: int) -> Tensor:
    """Return the matrix of an affine step after that of the steps before it."""
    affine = affine_of(graph, at)
    assert affine is not None
    _size(graph.steps[at])
    columns = affine.value(weight.mT.reshape(-1, *affine.shapes[0]))
    return flat(columns if affine.bias is None else columns - affine.bias).mT


def _size(step: Step) -> int:
    size = int(torch.Size(step.shape).numel())
    if size > WIDEST:
        raise _refused(step, f"has {size:,} values, more than the {WIDEST:,} for which matrices are carried")
    return size


def _inverse(matrix: Tensor, step: Step) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(_symmetric(matrix))
    if bool(failed):
        raise _refused(step, "follows a layer so large or small that its matrix is not positive in float64")
    return _symmetric(torch.cholesky_solve(torch.eye(len(matrix), dtype=torch.float64), factor))


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _refused(step: Step, why: str) -> NoCertificateError:
    return NoCertificateError(
        f"eclipse: {step.op} (step {step.name!r}) {why}. It serves chains of linear layers and convolutions with "
        "activations that only rise (ReLU, LeakyReLU, tanh, sigmoid, softplus, ELU); for others use `lipschitz-pairs`."
    )
