"""Gradients estimated from values, so that every search runs on a model that answers scores alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from steepest.basis.box import Box
from steepest.basis.errors import ModelError, UsageError
from steepest.basis.streams import Stream
from steepest.basis.tensors import flat
from steepest.models.contract import Answer, Evaluation, Need, Question, added
from steepest.models.model import Model

_DRAWS = ("normal", "signs")
_REACH = {"normal": 3.0, "signs": 1.0}
_PAIRS = 256
"""So many pairs of points are asked about at once, of all examples together."""

_NUMBERS = {"cpu": 2**18}
"""And so many numbers per side at most: on a processor they should stay in its cache."""
_SALT = 0x5E


@final
@dataclass(frozen=True, slots=True)
class Estimated:
    """An oracle: a gradient is answered from the values at `samples` pairs of points p ± σu.

    ĝ = Σ (v(p + σu) − v(p − σu)) u / (2·samples·σ·E u²), whose mean for an affine v is the gradient itself. v is the
    objective's *value*: what ranks points, since an ascent may hold parts of itself fixed, which differences cannot.
    A Jacobian is estimated likewise, from the same points.

    No question leaves the box and none moves what is frozen: u is cut at ±3, p is first drawn inwards by that much,
    and σ shrinks for a feature whose limits are nearer together. Where the estimate does not know the region, only
    its own `box` limits it.

    Args:
        samples: pairs per gradient.
        sigma: in data units.
        in_sides: sigma is a share of the box's widest side instead, as are published ones, for inputs in [0, 1].
        draw: u has independent coordinates, "normal" (NES) or "signs", ±1 (SPSA).
        box: used where a question does not say where points may move.

    Raises:
        UsageError: no positive whole number of samples, no positive σ, an unknown draw.

    Source: Ilyas et al. 2018 and Salimans et al. 2017 (normal), Spall 1992 and Uesato et al. 2018 (signs).
    """

    samples: int = 50
    sigma: float = 1e-3
    draw: str = "normal"
    box: Box | None = None
    in_sides: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1:
            raise UsageError(f"samples={self.samples!r} is not allowed; give a whole number of pairs, at least 1.")
        if not 0 < self.sigma < math.inf:
            raise UsageError(f"sigma={self.sigma!r} is not allowed; give a positive finite distance, e.g. 0.001.")
        if self.draw not in _DRAWS:
            raise UsageError(f"draw={self.draw!r} is not allowed; give one of {', '.join(_DRAWS)}.")

    def answer(self, ask: Answer, question: Question) -> Evaluation:
        """See `Oracle.answer`: 1 + 2·samples values."""
        base = ask(replace(question, need=Need.VALUE, ascent=None, classes=None))
        if question.need is Need.VALUE or not question.point.shape[0]:
            return base if question.need is Need.VALUE else _with_slopes(question, base, _nothing(question))
        middle, scale = self._around(question)
        slopes, spent, refused = _nothing(question), base.forwards, base.unconfirmed
        finite = base.finite
        for numbers in self._chunks(question.point):
            u = self._drawn(question, numbers)
            rise, found = _differences(ask, question, middle, u * scale[:, None])
            spent = spent + added(found.forwards, 2 * len(numbers))
            refused = refused + added(found.unconfirmed, 2 * len(numbers))
            finite = finite & torch.isfinite(rise).all(2).all(1)
            # One after the other: a sum must not depend on how many examples share the chunk.
            for at in range(len(numbers)):
                slopes += rise[:, at, :, None] * flat(u[:, at])[:, None]
        weight = 2 * self.samples * self._second_moment() * flat(scale)[:, None]
        slopes = torch.where(weight > 0, slopes / weight, 0)
        slopes = torch.where(finite[:, None, None], slopes, 0)
        answer = _with_slopes(question, base, slopes)
        return replace(answer, finite=finite, forwards=spent, unconfirmed=refused)

    def _around(self, question: Question) -> tuple[Tensor, Tensor]:
        """Return the middle of the pairs and σ per coordinate, 0 where it is frozen, both float64."""
        point = question.point.double()
        box = self.box if question.region is None else question.region.box
        reach = _REACH[self.draw]
        scale = torch.full_like(point, self.sigma)
        middle = point
        if box is not None:
            lower, upper = box.bounds(point)
            scale = scale * box.side(point) if self.in_sides else scale
            scale = torch.minimum(scale, (upper - lower) / (2 * reach))
            middle = torch.clamp(point, lower + reach * scale, upper - reach * scale)
        if question.region is not None:
            free = question.region.movable()
            middle, scale = torch.where(free, middle, point), torch.where(free, scale, 0)
        return middle, scale

    def _chunks(self, point: Tensor) -> Iterator[range]:
        numbers = _NUMBERS.get(point.device.type, 2**24)
        width = max(1, min(_PAIRS // point.shape[0], numbers // max(1, point.numel())))
        for first in range(0, self.samples, width):
            yield range(first, min(first + width, self.samples))

    def _drawn(self, question: Question, numbers: range) -> Tensor:
        """Return u for some of the pairs, float64 [N, pairs, *features]; each pair has numbers of its own."""
        point = question.point
        count, shape = point.shape[0], tuple(point.shape[1:])
        stream = question.stream or Stream.of(0, torch.arange(count, device=point.device))
        keys = stream.split(_SALT).keys.repeat_interleave(len(numbers))
        first = question.step * self.samples
        steps = torch.arange(first + numbers.start, first + numbers.stop, device=point.device).repeat(count)
        draw = Stream(keys).normal if self.draw == "normal" else Stream(keys).signs
        reach = _REACH[self.draw]
        return draw(steps, shape).clamp_(-reach, reach).reshape(count, len(numbers), *shape)

    def _second_moment(self) -> float:
        """Return E u²; for a normal number cut at ±r it is r² + (1 − r²)·erf(r/√2) − r·√(2/π)·exp(−r²/2)."""
        if self.draw == "signs":
            return 1.0
        r = _REACH["normal"]
        tail = r * math.sqrt(2 / math.pi) * math.exp(-r * r / 2)
        return r * r + (1 - r * r) * math.erf(r / math.sqrt(2)) - tail


def estimated(model: Model, samples: int = 50, sigma: float = 1e-3, draw: str = "normal") -> Model:
    """Return the model with gradients estimated from its scores, for every search that follows gradients.

    A gradient costs 1 + 2·samples forwards and no backward; its error falls like √(d/samples), d the features.

    Args:
        samples: pairs of points per gradient.
        sigma: their distance from the point, in data units; large enough that the scores differ there.
        draw: "normal" (NES) or "signs" (SPSA).

    Raises:
        ModelError: the model answers labels only, whose differences are zero nearly everywhere.
        UsageError: as `Estimated`.

    >>> f = Model(lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1).detach(), box=(0, 1))
    >>> from steepest.attacks.api import attack
    >>> from steepest.budgets.linf import Linf
    >>> found = attack("fgsm", estimated(f), torch.tensor([[0.3, 0.3]]), torch.tensor([0]), Linf(0.1))
    >>> found.won, found.forwards, found.backwards
    (tensor([True]), tensor([102]), tensor([0]))
    """
    if not isinstance(model, Model):
        raise ModelError(f"estimated({type(model).__name__}): give a Model, e.g. st.scores(function, box=(0, 1)).")
    if model.facts.answers == "labels":
        raise ModelError(
            "the model answers labels only, and differences of labels are zero nearly everywhere; use an attack that "
            "needs labels only (`steepest list attacks`)."
        )
    made = model.asked_by(Estimated(samples, sigma, draw, model.box))
    note = f"gradients are estimated from {samples} pairs of scores"
    return made.with_facts(replace(model.facts, answers="gradient", notes=(*model.facts.notes, note)))


def _nothing(question: Question) -> Tensor:
    """Return zeros, float64 [N, rows, d]: one row for a gradient, one per class for a Jacobian."""
    point = flat(question.point)
    rows = question.classes.shape[1] if question.need is Need.JACOBIAN and question.classes is not None else 1
    return point.new_zeros(point.shape[0], rows, point.shape[1], dtype=torch.float64)


def _differences(ask: Answer, question: Question, middle: Tensor, move: Tensor) -> tuple[Tensor, Evaluation]:
    """Return what each pair differs by, float64 [N, pairs, rows], and the answers about both sides of all pairs."""
    count, pairs = move.shape[:2]
    sides = torch.stack([middle[:, None] + move, middle[:, None] - move], 2).to(question.point.dtype)
    rows = torch.arange(count, device=middle.device).repeat_interleave(2 * pairs)
    objective = question.ascent or question.objective
    found = ask(
        replace(
            question,
            point=sides.flatten(0, 2),
            y=None if question.y is None else question.y[rows],
            objective=objective.rows(rows),
            goal=question.goal.rows(rows),
            need=Need.VALUE,
            ascent=None,
            classes=None,
            stream=None if question.stream is None else question.stream.rows(rows),
            region=None,
        )
    )
    if question.need is Need.JACOBIAN and question.classes is not None:
        told = found.outputs.gather(1, question.classes[rows])
    else:
        told = found.value[:, None]
    told = told.double().reshape(count, pairs, 2, -1)
    return told[:, :, 0] - told[:, :, 1], found


def _with_slopes(question: Question, base: Evaluation, slopes: Tensor) -> Evaluation:
    """Return the answer at the point itself with gradients [N, rows, d] in the precision of the point."""
    point = question.point
    shaped = slopes.to(point.dtype).reshape(point.shape[0], slopes.shape[1], *point.shape[1:])
    size = slopes.abs().flatten(1)
    jacobian = question.need is Need.JACOBIAN
    return replace(
        base,
        gradient=None if jacobian else shaped[:, 0],
        jacobian=shaped if jacobian else None,
        size=size.amax(1) if size.numel() else base.value,
    )
