"""Certify in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.basis.errors import DataError, UsageError
from steepest.budgets.catalogue import kind_of
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.certify.contract import Bound, Certifier, Prover
from steepest.certify.grounds import require_bounded
from steepest.certify.library import CERTIFIERS
from steepest.certify.radius import TOLERANCE, proven_gauge
from steepest.models.model import Model, Network

BATCH = 64
"""Examples whose bounds are computed at once."""


def certify(
    model: Model | Network,
    x: Tensor,
    y: Tensor,
    budget: Budget,
    *,
    method: str | Sequence[str] = "crown",
    radius: bool = True,
    tolerance: float = TOLERANCE,
    batch_size: int = BATCH,
) -> Bound:
    """Prove, for every example, how much of the budget no point can use to change the prediction from y.

    gauge = the largest t that was asked about with min over t·budget ∩ box of z_y − max over k ≠ y of z_k > 0 by the
    certifier's bound. It holds against every attack; where nothing is proven it says nothing.

    Args:
        model: a `Model`; a bare module is taken with the box [0, 1].
        x: [N, *features], inside the model's box, float.
        y: true labels, int64 [N].
        budget: what may change; its size is the unit of the gauge, which is searched for up to 64 of them.
        method: a name of `steepest list certifiers`, with arguments if wanted, or several: the best of them, row by
            row.
        radius: also search for the largest size; otherwise the gauge is 1 where the budget itself is proven, else 0.
        tolerance: how close, relative to the gauge, a size lies that could not be proven.
        batch_size: examples whose bounds are computed at once.

    Returns:
        A `Bound`; N = 0 gives an empty one.

    Raises:
        UsageError: an unknown method, one that does not serve the budget, or a count of changes in an open box, which
            bounds nothing.
        DataError: x leaves the box or is not finite; labels do not fit.
        NoCertificateError: an operation of the model has no rule in the only method asked; names it.

    >>> f = Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> from steepest.budgets.linf import Linf
    >>> bound = certify(f, torch.tensor([[0.3, 0.1]]), torch.tensor([1]), Linf(0.1), method="linear")
    >>> round(float(bound.radius), 4), bool(bound.certified)    # it takes (0.5 − 0.4) / 2 of both coordinates
    (0.05, False)
    """
    handle = model if isinstance(model, Model) else Model(model)
    certifiers = _certifiers(method)
    x, y = _admitted(handle, x, y, budget, certifiers)
    if batch_size < 1 or not 0 < tolerance < 1:
        raise UsageError(
            f"batch_size={batch_size}, tolerance={tolerance}: give at least one example, and a share between 0 and 1."
        )
    region = Region(budget, handle.box, x)
    require_bounded(region)
    gauge, margin = torch.zeros(len(y)).double(), torch.full((len(y),), -torch.inf).double()
    gauge, margin = gauge.to(y.device), margin.to(y.device)
    if len(y):
        right = _right(handle, x, y, batch_size)
        for made in certifiers:
            prover = made.prepared(handle, tuple(x.shape[1:]))
            for rows in torch.split(torch.arange(len(y), device=y.device), batch_size):
                found = bounds(prover, region.rows(rows), y[rows], right[rows], tolerance if radius else None)
                gauge[rows], margin[rows] = gauge[rows].maximum(found[0]), margin[rows].maximum(found[1])
    return Bound(
        gauge=gauge,
        radius=gauge * sizes(region),
        margin=margin,
        certified=gauge >= 1,
        method=", ".join(made.call for made in certifiers),
        assumptions=tuple(dict.fromkeys(said for made in certifiers for said in made.assumes)),
    )


def bounds(prover: Prover, region: Region, y: Tensor, right: Tensor, tolerance: float | None) -> tuple[Tensor, Tensor]:
    """Return (gauge, margin at the budget itself), float64 [N], of one prover on one batch.

    Args:
        right: the model is right at x; elsewhere nothing is proven.
        tolerance: of the largest size; None asks about the budget alone, so that the gauge is 1 or 0.
    """
    if tolerance is not None:
        return proven_gauge(prover, region, y, right=right, tolerance=tolerance)
    margin = prover.lower(region, y).double().nan_to_num(nan=-torch.inf)
    return ((margin > 0) & right).double(), margin


def sizes(region: Region) -> Tensor:
    """Return ε in data units, float64 [N]; the smallest one of an example that has several."""
    epsilon = torch.as_tensor(region.budget.epsilon, dtype=torch.float64, device=region.x.device)
    return (epsilon.flatten(1).amin(1) if epsilon.ndim > 1 else epsilon).expand(region.x.shape[0])


def _certifiers(method: str | Sequence[str]) -> tuple[Certifier, ...]:
    calls = [method] if isinstance(method, str) else list(method)
    if not calls:
        raise UsageError(f"method={method!r} names none: give names of `steepest list certifiers`.")
    return tuple(CERTIFIERS.build(call) for call in calls)


def require_served(made: Certifier, budget: Budget) -> None:
    """Refuse a budget that a certifier has no bound for.

    Raises:
        UsageError: names what it serves, and who serves the budget.
    """
    kind = kind_of(budget)
    if made.budgets and kind not in made.budgets:
        able = [entry.name for entry in CERTIFIERS if entry.facts["budgets"] == "any" or kind in entry.facts["budgets"]]
        raise UsageError(
            f"{made.call} serves the budgets {', '.join(made.budgets)}, not {kind}; for {kind} there are "
            f"{', '.join(able)}."
        )


def _admitted(
    model: Model, x: Tensor, y: Tensor, budget: Budget, certifiers: Sequence[Certifier]
) -> tuple[Tensor, Tensor]:
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point or x.ndim < 2:
        raise DataError("x must be a float tensor [N, *features] in the box (images: x.float() / 255).")
    if not hasattr(budget, "fitted"):
        raise UsageError(f"budget={budget!r} is not a budget: give one such as st.Linf(8 / 255), st.L2(0.5).")
    y = torch.as_tensor(y, device=x.device)
    if y.shape != x.shape[:1] or y.dtype.is_floating_point:
        raise DataError(f"{x.shape[0]} examples but labels {y.dtype} {tuple(y.shape)}: give int64 [N].")
    for made in certifiers:
        require_served(made, budget)
    x = model.box.admit(x, "x")
    return x, y.long()


def _right(model: Model, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
    """Return bool [N], the model is right at x.

    Raises:
        DataError: a label is no class of the model.
    """
    outputs = torch.cat([model.logits(part) for part in torch.split(x, batch_size)])
    if int(y.min()) < 0 or int(y.max()) >= outputs.shape[1]:
        raise DataError(
            f"labels run from {int(y.min())} to {int(y.max())}, but the model has {outputs.shape[1]} classes, 0 to "
            f"{outputs.shape[1] - 1}."
        )
    return (outputs.argmax(1) == y) & outputs.isfinite().all(1)
