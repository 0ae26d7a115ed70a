"""What is known of each example of a batch, and how it is learnt."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, final

import torch
from torch import Tensor

from steepest.attacks.contract import AttackResult, Problem, Status
from steepest.attacks.curve import Curve
from steepest.audit.certificates import CROSSING, Crossing
from steepest.audit.contract import Stage
from steepest.budgets.region import Region
from steepest.certify.api import sizes
from steepest.models.contract import Evaluation, Objective
from steepest.models.objectives import Margin, Targeted


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

    @classmethod
    def nothing(cls, x: Tensor, dtype: torch.dtype) -> Self:
        """Return what is known before the gradient was asked for."""
        count = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        flags = count.bool()
        return cls(
            gradient=torch.zeros_like(x, dtype=dtype), point=x.clone(), stands=flags, finite=~flags, status=count
        )

    def rows(self, index: Tensor) -> Self:
        """Return the part of the examples that `index` selects."""
        return replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self)})


@final
@dataclass(slots=True, kw_only=True)
class Outcome:
    """One row per example of a shard, updated in place as stages report.

    Attributes:
        region: of the largest budget.
        point: the worst point found inside it; x at first.
        prediction, margin: at `point`; the margin is z_y minus the best other logit.
        gap: how far the audit's goal was, where it was nearest: the margin, or what the class aimed at lacks.
        radius, radius_gauge: size of the smallest success in data units, and in units of the largest budget; ∞
            where none.
        clean: the model's answer at x, [N, K].
        proven: a certifier's word that nothing inside the budget at hand breaks the example.
        proven_gauge, witness: the largest size proven, in units of the largest budget, and by whom; 0 where none.
        crossings: by row, the smallest success inside what was proven before.
        rounding: such a success was one of float32 alone.
        curve: what the gradient at x gave, if it was asked.
        aims: int64 [N, R], the wrong classes, the nearest first, if they were ordered.
        tried, blind: gradient searches, and those that met a gradient of exactly zero.
    """

    region: Region
    y: Tensor
    point: Tensor
    clean: Tensor
    clean_prediction: Tensor
    clean_margin: Tensor
    prediction: Tensor
    margin: Tensor
    gap: Tensor
    broken: Tensor
    broken_by: list[str | None]
    proven: Tensor
    proven_gauge: Tensor
    witness: list[str | None]
    radius: Tensor
    radius_gauge: Tensor
    fgsm_broken: Tensor
    forwards: Tensor
    backwards: Tensor
    unconfirmed: Tensor
    nonfinite: Tensor
    tried: Tensor
    blind: Tensor
    rounding: Tensor
    ids: list[int]
    crossings: dict[int, Crossing] = field(default_factory=dict)
    curve: FromX | None = None
    aims: Tensor | None = None
    ledger: list[Stage] = field(default_factory=list)

    @classmethod
    def at_x(cls, problem: Problem, outputs: Tensor, grid: int, ids: Tensor, known: Tensor | None = None) -> Self:
        """Return what one clean answer says; an answer that is not finite is a wrong one.

        Args:
            ids: of the examples.
            known: float64 [N], the size proven before, in units of the largest budget.
        """
        region, y = problem.region, problem.y
        prediction = outputs.argmax(1)
        finite = torch.isfinite(outputs).all(1)
        wrong = (prediction != y) | ~finite
        zeros = torch.zeros_like(y)
        margin = -Margin().value(outputs, y).double()
        return cls(
            region=region,
            y=y,
            point=region.x,
            clean=outputs,
            clean_prediction=prediction,
            clean_margin=margin,
            prediction=prediction,
            margin=margin,
            gap=gap_of(problem.objective, outputs, y),
            broken=wrong,
            broken_by=["clean" if is_wrong else None for is_wrong in wrong.tolist()],
            proven=torch.zeros_like(wrong),
            proven_gauge=torch.zeros_like(margin) if known is None else known.to(margin),
            witness=[None] * len(wrong),
            radius=torch.where(wrong, 0.0, torch.inf).double(),
            radius_gauge=torch.where(wrong, 0.0, torch.inf).double(),
            fgsm_broken=wrong[:, None].repeat(1, grid),
            forwards=torch.ones_like(y),
            backwards=zeros,
            unconfirmed=zeros.clone(),
            nonfinite=~finite,
            tried=zeros.clone(),
            blind=zeros.clone(),
            rounding=torch.zeros_like(wrong),
            ids=ids.tolist(),
        )

    def informed(self, problem: Problem, rows: Tensor, rank: int | None) -> Problem:
        """Return the problem of the examples `rows` with what is known of them; `rank` chooses the class to aim at."""
        aims = None if rank is None or self.aims is None else self.aims[rows, rank][:, None]
        return replace(problem.rows(rows), clean=self.clean[rows], worst=self.point[rows], aims=aims)

    def learn_curve(self, rows: Tensor, at_x: Evaluation, found: Curve, stands: Tensor) -> None:
        """Take in the FGSM curve of the examples `rows`: one gradient each; `stands` marks confirmed successes."""
        assert at_x.gradient is not None
        if self.curve is None:
            self.curve = FromX.nothing(self.region.x, at_x.gradient.dtype)
        self.curve.gradient[rows] = at_x.gradient
        self.curve.point[rows] = found.point
        self.curve.stands[rows] = stands
        self.curve.finite[rows] = at_x.finite
        self.curve.status[rows] = found.status
        self.fgsm_broken[rows] = found.broken
        # A success inside the largest budget counts when the fgsm stage has judged it, one outside never breaks.
        beyond = stands & (found.gauge > 1)
        self.reached(rows[beyond], found.point[beyond], "curve")
        self.unconfirmed[rows[found.gauge.isfinite() & ~stands]] += 1
        self.forwards[rows] += found.forwards + 1
        self.backwards[rows] += found.backwards
        self.tried[rows] += 1
        self.blind[rows] += (found.status == Status.ZERO_GRADIENT).long()
        self.nonfinite[rows] |= ~at_x.finite

    def learn_aims(self, rows: Tensor, classes: Tensor, found: Evaluation) -> None:
        """Take in the order of the wrong classes of the examples `rows`."""
        if self.aims is None:
            self.aims = classes.new_zeros(self.y.shape[0], classes.shape[1])
        self.aims[rows] = classes
        self.forwards[rows] += found.forwards
        self.backwards[rows] += found.backwards

    def learn(self, rows: Tensor, problem: Problem, found: AttackResult, gradients: Tensor) -> None:
        """Take in what an attack on `problem` spent, how its search went, and a lower margin if it found one."""
        self.gap[rows] = self.gap[rows].fmin(gap_of(problem.objective, found.outputs, problem.y))
        margin = -Margin().value(found.outputs, self.y[rows]).double()
        lower = (margin < self.margin[rows]) & ~found.won
        self._move(rows[lower], found.point[lower], found.outputs[lower])
        self.forwards[rows] += found.forwards
        self.backwards[rows] += found.backwards
        self.unconfirmed[rows] += found.unconfirmed
        self.tried[rows] += gradients.long()
        self.blind[rows] += (gradients & (found.status == Status.ZERO_GRADIENT)).long()
        self.nonfinite[rows] |= found.status == Status.NONFINITE

    def solve(self, rows: Tensor, found: AttackResult, outputs: Tensor, stage: str) -> None:
        """Take in confirmed successes; `outputs` is what the model said when asked again."""
        self._move(rows, found.point, outputs)
        self.reached(rows, found.point, stage)
        if self.curve is not None:
            known = rows[self.curve.stands[rows]]
            self.reached(known, self.curve.point[known], "curve")
        self.broken[rows] = True
        for row in rows.tolist():
            self.broken_by[row] = stage

    def prove(self, rows: Tensor, gauge: Tensor, name: str) -> None:
        """Take in the sizes that a certifier has proven for the examples `rows`, in units of the largest budget."""
        larger = gauge > self.proven_gauge[rows]
        self.proven_gauge[rows] = self.proven_gauge[rows].maximum(gauge)
        for row in rows[larger].tolist():
            self.witness[row] = name

    def retire(self, share: float) -> None:
        """Let those leave that are proven for the budget at hand, which is `share` of the largest."""
        self.proven = (self.proven_gauge >= share) & (self.proven_gauge > 0)

    def has_broken(self, name: str, epsilon: float) -> bool:
        """Return whether the rung `name` has broken an example at `epsilon`."""
        return any(stage.broken for stage in self.ledger if (stage.name, stage.epsilon) == (name, epsilon))

    def reached(self, rows: Tensor, point: Tensor, stage: str) -> None:
        """Remember the size of successes that are smaller than those known, and which contradict a proof."""
        around = self.region.rows(rows)
        gauge = around.gauge(point)
        crossed = (gauge < CROSSING * self.proven_gauge[rows]) & (gauge < self.radius_gauge[rows])
        for place in crossed.nonzero().squeeze(1).tolist():
            row = int(rows[place])
            self.crossings[row] = Crossing(
                example=self.ids[row],
                point=point[place : place + 1],
                gauge=float(gauge[place]),
                proven=float(self.proven_gauge[row]),
                attack=stage,
                certifier=self.witness[row] or "an earlier certificate",
            )
        self.radius[rows] = torch.minimum(self.radius[rows], around.norm(point))
        self.radius_gauge[rows] = torch.minimum(self.radius_gauge[rows], gauge)

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
            "proven_by": [
                name if proven else None for name, proven in zip(self.witness, self.proven.tolist(), strict=True)
            ],
            "proven_radius": (self.proven_gauge * sizes(self.region)).tolist(),
            "proven_gauge": self.proven_gauge.tolist(),
            "rounding": self.rounding.tolist(),
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


def gap_of(objective: Objective, outputs: Tensor, y: Tensor) -> Tensor:
    """Return how far outputs are from the goal, float64 [N]: z_y, or where a class is aimed at all others, before it.

    >>> outputs = torch.tensor([[3.0, 2.0, 0.0]])
    >>> gap_of(Margin(), outputs, torch.tensor([0])), gap_of(Targeted("ce", 2), outputs, torch.tensor([0]))
    (tensor([1.], dtype=torch.float64), tensor([3.], dtype=torch.float64))
    """
    asked = Targeted("margin", objective.target) if isinstance(objective, Targeted) else Margin()
    return -asked.value(outputs, y).double()


def _finite(values: Tensor) -> list[float | None]:
    return [value if -torch.inf < value < torch.inf else None for value in values.tolist()]
