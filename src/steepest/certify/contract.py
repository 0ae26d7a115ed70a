"""What a certifier promises, and the bound that comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from steepest.budgets.region import Region
from steepest.models.model import Model


class Prover(Protocol):
    """A certifier that has looked at one model: what it could compute once is computed."""

    def lower(self, region: Region, y: Tensor) -> Tensor:
        """Return a lower bound of min over the region of z_y − max over k ≠ y of z_k, float64 [N].

        −∞ says nothing. Where it is above 0, no point of the region is classified otherwise than y. Rows are
        independent, and a smaller region never has a smaller bound, but where a certifier stops by the clock.
        """


@runtime_checkable
class Certifier(Protocol):
    """A way of proving that nothing inside a region breaks an example, of any model that it has rules for."""

    @property
    def call(self) -> str:
        """The catalogue's call that makes it again, with every argument."""

    @property
    def budgets(self) -> tuple[str, ...]:
        """The kinds of budget that it serves; none named: all."""

    @property
    def assumes(self) -> tuple[str, ...]:
        """What its word rests on, one sentence each."""

    def prepared(self, model: Model, shape: tuple[int, ...]) -> Prover:
        """Return the prover for one model and examples of one shape.

        Raises:
            NoCertificateError: an operation of the model has no rule, or what it does cannot be seen.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """So far, nothing breaks: a guaranteed lower bound of the smallest adversarial size, one row per example.

    Attributes:
        gauge: float64 [N], the proven size in units of the budget; 0 where the model is wrong at x or nothing is
            proven. It may exceed 1.
        radius: float64 [N], the same in data units: gauge times ε (the smallest ε of an example with several).
        margin: float64 [N], the bound of the worst margin inside the budget itself; −∞ where none is known.
        certified: bool [N], nothing inside the budget is classified otherwise than y.
        method: the certifier's call.
        assumptions: what it rests on, one sentence each.

    >>> import torch, steepest as st
    >>> f = st.Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1), box=(0, 1))
    >>> bound = st.certify(f, torch.tensor([[0.3, 0.1]]), torch.tensor([1]), st.Linf(0.04), method="crown")
    >>> bound.certified, bound.radius.round(decimals=3)
    (tensor([True]), tensor([0.0500], dtype=torch.float64))
    """

    gauge: Tensor
    radius: Tensor
    margin: Tensor
    certified: Tensor
    method: str
    assumptions: tuple[str, ...]
