"""The provers of an audited model, and what happens where a proof and a success contradict each other."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from steepest.audit.rungs import Rung
from steepest.basis.errors import ContractError, NoCertificateError
from steepest.budgets.region import Region
from steepest.certify.contract import Prover
from steepest.certify.size import hidden_units
from steepest.models.contract import Goal
from steepest.models.model import Model
from steepest.models.traced import traced

CROSSING = 1 - 1e-12
"""A success contradicts a proof where it is smaller than so large a share of the proven size: sizes are rounded too."""


@final
@dataclass(slots=True)
class Certificates:
    """Prepares every certifier once and keeps it, or the reason why it says nothing about the model.

    A shard asks about the same model as the one before; what a certifier computes once is computed once a process.
    """

    _held: dict[str, Prover | str] = field(default_factory=dict)
    _units: int | str | None = None

    def prover(self, rung: Rung, model: Model, shape: tuple[int, ...]) -> Prover | str:
        """Return the prover of a certifier's rung, or in words why there is none."""
        if rung.name not in self._held:
            self._held[rung.name] = self._made(rung, model, shape)
        return self._held[rung.name]

    def _made(self, rung: Rung, model: Model, shape: tuple[int, ...]) -> Prover | str:
        assert rung.certifier is not None
        try:
            if rung.units is not None:
                units = self._counted(model, shape)
                if units > rung.units:
                    return (
                        f"the network has {units:,} hidden units, and more than {rung.units:,} would cost more than "
                        f"the attacks; `steepest certify --method {rung.name}` asks for it"
                    )
            return rung.certifier.prepared(model, shape)
        except NoCertificateError as error:
            return str(error)

    def _counted(self, model: Model, shape: tuple[int, ...]) -> int:
        if self._units is None:
            try:
                self._units = hidden_units(traced(model, shape))
            except NoCertificateError as error:
                self._units = str(error)
        if isinstance(self._units, str):
            raise NoCertificateError(self._units)
        return self._units


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A success inside what was proven.

    Attributes:
        example: its id.
        point: the success, one row.
        gauge, proven: its size and the proven one, in units of the largest budget.
        attack, certifier: the rungs.
    """

    example: int
    point: Tensor
    gauge: float
    proven: float
    attack: str
    certifier: str


def require_rounding(
    model: Model, crossing: Crossing, region: Region, y: Tensor, goal: Goal, prover: Prover | str | None
) -> None:
    """Return if a success inside a proven region is gone in float64, where the proof is valid.

    Args:
        region, y: of the example alone, the largest budget; `prover` is asked again, in float64, about the size of
            the success.

    Raises:
        ContractError: it stays; names the example, the attack and the certifier.
    """
    standing = _in_float64(model, crossing.point, y, goal)
    if standing is False:
        return
    again = "nothing can be asked again"
    if prover is not None and not isinstance(prover, str):
        around = Region(region.budget, region.box, region.x.double()).scaled(crossing.gauge)
        bound = float(prover.lower(around, y)[0])
        again = f"asked again in float64, at the size of the success, the margin is at least {bound:.3g}"
    said = "is repeated in float64" if standing else "cannot be asked again in float64"
    raise ContractError(
        f"{crossing.certifier} and {crossing.attack} contradict each other at example {crossing.example}: it is proven "
        f"that nothing within {crossing.proven:.6g} of the budget breaks it ({again}), and "
        f"{crossing.attack} breaks it at {crossing.gauge:.6g}, which {said}. "
        "Either the certifier is unsound for this network, or the success is none."
    )


def _in_float64(model: Model, point: Tensor, y: Tensor, goal: Goal) -> bool | None:
    """Return whether the network in float64 repeats a success; None where it cannot be asked so."""
    network = model.network
    try:
        wide = copy.deepcopy(network).double() if isinstance(network, nn.Module) else network
        outputs = Model(wide, model.box, facts=model.facts, oracles=model.oracles).logits(point.double())
    except Exception:  # the user's code, in a precision that it was not written for, may raise anything
        return None
    return bool(goal(outputs, y).any()) if outputs.dtype == torch.float64 else None
