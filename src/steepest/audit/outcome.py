"""What is known of each example of a batch, and how it is learnt."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, final

import torch
from torch import Tensor

from steepest.attacks.contract import AttackResult, Status
from steepest.attacks.curve import Curve
from steepest.audit.contract import Stage
from steepest.budgets.region import Region
from steepest.models.contract import Evaluation
from steepest.models.objectives import Margin


@dataclass(frozen=True, slots=True, kw_only=True)
class FromX:
    """What the one gradient at x gave, one row per example of the batch.

    Attributes:
        gradient: zero where it was not finite.
        point: of the smallest success of the curve; x where there is none.
        stands: the model, asked again, repeated that success.
        finite, status: of the gradient and the curve.
    """

    gradient: Tensor
    point: Tensor
    stands: Tensor
    finite: Tensor
    status: Tensor

    def rows(self, index: Tensor) -> Self:
        """Return the part of the examples that `index` selects."""
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self)})


@final
@dataclass(slots=True, kw_only=True)
class Outcome:
    """One row per example of a batch, updated in place as stages report.

    Attributes:
        region: of the largest budget.
        point: the worst point found inside it; x at first.
        prediction, margin: at `point`; the margin is z_y minus the best other logit.
        radius, radius_gauge: size of the smallest success in data units, and in units of the largest budget; ∞
            where none.
        curve: what the gradient at x gave, if it was asked.
        tried, blind: gradient searches, and those that met a gradient of exactly zero.
    """

    region: Region
    y: Tensor
    point: Tensor
    clean_prediction: Tensor
    clean_margin: Tensor
    prediction: Tensor
    margin: Tensor
    broken: Tensor
    broken_by: list[str | None]
    radius: Tensor
    radius_gauge: Tensor
    fgsm_broken: Tensor
    forwards: Tensor
    backwards: Tensor
    unconfirmed: Tensor
    nonfinite: Tensor
    tried: Tensor
    blind: Tensor
    curve: FromX | None = None
    ledger: list[Stage] = field(default_factory=list)

    @classmethod
    def at_x(cls, region: Region, y: Tensor, outputs: Tensor, grid: int) -> Self:
        """Return what one clean answer says; an answer that is not finite is a wrong one."""
        prediction = outputs.argmax(1)
        finite = torch.isfinite(outputs).all(1)
        wrong = (prediction != y) | ~finite
        zeros = torch.zeros_like(y)
        margin = -Margin().value(outputs, y).double()
        return cls(
            region=region,
            y=y,
            point=region.x,
            clean_prediction=prediction,
            clean_margin=margin,
            prediction=prediction,
            margin=margin,
            broken=wrong,
            broken_by=["clean" if is_wrong else None for is_wrong in wrong.tolist()],
            radius=torch.where(wrong, 0.0, torch.inf).double(),
            radius_gauge=torch.where(wrong, 0.0, torch.inf).double(),
            fgsm_broken=wrong[:, None].repeat(1, grid),
            forwards=torch.ones_like(y),
            backwards=zeros,
            unconfirmed=zeros.clone(),
            nonfinite=~finite,
            tried=zeros.clone(),
            blind=zeros.clone(),
        )

    def learn_curve(self, rows: Tensor, at_x: Evaluation, found: Curve, stands: Tensor) -> None:
        """Take in the FGSM curve of the examples `rows`: one gradient each; `stands` marks confirmed successes."""
        assert at_x.gradient is not None
        x = self.region.x
        self.curve = FromX(
            gradient=torch.zeros_like(x, dtype=at_x.gradient.dtype).index_copy(0, rows, at_x.gradient),
            point=x.index_copy(0, rows, found.point),
            stands=torch.zeros_like(self.broken).index_copy(0, rows, stands),
            finite=torch.ones_like(self.broken).index_copy(0, rows, at_x.finite),
            status=torch.zeros_like(self.y).index_copy(0, rows, found.status),
        )
        self.fgsm_broken[rows] = found.broken
        # A success inside the largest budget counts when the fgsm stage has judged it, one outside never breaks.
        beyond = stands & (found.gauge > 1)
        self._reached(rows[beyond], found.point[beyond])
        self.unconfirmed[rows[found.gauge.isfinite() & ~stands]] += 1
        self.forwards[rows] += found.forwards + 1
        self.backwards[rows] += found.backwards
        self.tried[rows] += 1
        self.blind[rows] += (found.status == Status.ZERO_GRADIENT).long()
        self.nonfinite[rows] |= ~at_x.finite

    def learn(self, rows: Tensor, found: AttackResult, gradients: Tensor) -> None:
        """Take in what an attack spent, how its search went, and a lower margin if it found one."""
        self.forwards[rows] += found.forwards
        self.backwards[rows] += found.backwards
        self.unconfirmed[rows] += found.unconfirmed
        self.tried[rows] += gradients.long()
        self.blind[rows] += (gradients & (found.status == Status.ZERO_GRADIENT)).long()
        self.nonfinite[rows] |= found.status == Status.NONFINITE
        margin = -Margin().value(found.outputs, self.y[rows]).double()
        lower = (margin < self.margin[rows]) & ~found.won
        self._move(rows[lower], found.point[lower], found.outputs[lower])

    def solve(self, rows: Tensor, found: AttackResult, outputs: Tensor, stage: str) -> None:
        """Take in confirmed successes; `outputs` is what the model said when asked again."""
        self._move(rows, found.point, outputs)
        self._reached(rows, found.point)
        if self.curve is not None:
            known = rows[self.curve.stands[rows]]
            self._reached(known, self.curve.point[known])
        self.broken[rows] = True
        for row in rows.tolist():
            self.broken_by[row] = stage

    def _reached(self, rows: Tensor, point: Tensor) -> None:
        """Remember the size of successes that are smaller than those known."""
        around = self.region.rows(rows)
        self.radius[rows] = torch.minimum(self.radius[rows], around.norm(point))
        self.radius_gauge[rows] = torch.minimum(self.radius_gauge[rows], around.gauge(point))

    def _move(self, rows: Tensor, point: Tensor, outputs: Tensor) -> None:
        self.point = self.point.index_copy(0, rows, point)
        self.prediction = self.prediction.index_copy(0, rows, outputs.argmax(1))
        self.margin = self.margin.index_copy(0, rows, -Margin().value(outputs, self.y[rows]).double())

    def status(self) -> list[str]:
        """Return how far each search can be trusted: ok, exhausted, zero_gradient or nonfinite."""
        blind = (self.tried > 0) & (self.blind == self.tried) & ~self.broken
        words = [Status.OK.name if broken else Status.EXHAUSTED.name for broken in self.broken.tolist()]
        for flag, word in ((blind, Status.ZERO_GRADIENT), (self.nonfinite, Status.NONFINITE)):
            for row in flag.nonzero().squeeze(1).tolist():
                words[row] = word.name
        return [word.lower() for word in words]

    def columns(self, ids: Tensor, pixel_hashes: list[str], seed: int) -> dict[str, list[Any]]:
        """Return the batch as columns of `contract.RECORD`; a number that does not exist is None."""
        count = ids.numel()
        return {
            "example_id": ids.tolist(),
            "label": self.y.tolist(),
            "pixel_hash": pixel_hashes,
            "clean_prediction": self.clean_prediction.tolist(),
            "clean_margin": _finite(self.clean_margin),
            "broken": self.broken.tolist(),
            "broken_by": list(self.broken_by),
            "adversarial_prediction": self.prediction.tolist(),
            "radius": _finite(self.radius),
            "radius_gauge": _finite(self.radius_gauge),
            "gauge": self.region.gauge(self.point).tolist(),
            "margin": _finite(self.margin),
            "forwards": self.forwards.tolist(),
            "backwards": self.backwards.tolist(),
            "status": self.status(),
            "seed": [seed] * count,
            "fgsm_broken": self.fgsm_broken.tolist(),
            "unconfirmed": self.unconfirmed.tolist(),
        }


def _finite(values: Tensor) -> list[float | None]:
    return [value if -torch.inf < value < torch.inf else None for value in values.tolist()]
