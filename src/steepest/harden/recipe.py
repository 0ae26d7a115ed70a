"""A training method as its parts: how points are found, what is descended there, and with which weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Protocol, TypeVar, final

import torch
from torch import Tensor

from steepest.basis.catalogue import call_text
from steepest.basis.errors import UsageError
from steepest.harden.catalogue import METHODS
from steepest.harden.contract import Classroom, Lesson, Method, Taught
from steepest.harden.crafts import Craft, Found
from steepest.harden.descent import WorstWeights, advance, differentiate
from steepest.harden.losses import Loss


class Regulariser(Protocol):
    """A term beside the loss; its passes are one forward and three backwards."""

    def of(self, room: Classroom, lesson: Lesson, slope: Tensor) -> Tensor:
        """Return the term for one batch, on the graph, given the gradient at x."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A training method that is made of parts; see `Method`.

    One step: find the points with the weights as they are; move the weights, where that is asked for; one forward at
    the points (beside x, where the loss compares) and one backward; put the weights back; let the optimiser step.

    Attributes:
        craft: how the points are found.
        loss: what is descended there.
        regulariser: what is added to it, or None; it needs a craft that asks for the gradient at x.
        weights: where the weights are meanwhile, or None for where they are.
    """

    craft: Craft
    loss: Loss
    regulariser: Regulariser | None = None
    weights: WorstWeights | None = None
    call: str = ""
    budgets: tuple[str, ...] = ()

    def teach(self, room: Classroom, lesson: Lesson) -> Taught:
        """See `Method.teach`."""
        with room.computing():
            found = self.craft.find(room.model, lesson)

        def loss() -> Tensor:
            return self.asked(room, lesson, found)[0]

        with nullcontext() if self.weights is None else self.weights.moved(room, loss):
            objective, outputs, clean = self.asked(room, lesson, found)
            value = differentiate(room, objective)
        advance(room, value)
        forwards, backwards = self._passes()
        rounds = 1 if self.weights is None else 2
        return Taught(
            loss=value,
            point=found.point,
            outputs=outputs.detach(),
            clean=found.clean if clean is None else clean.detach(),
            forwards=found.forwards + rounds * forwards,
            backwards=found.backwards + rounds * backwards,
        )

    def asked(self, room: Classroom, lesson: Lesson, found: Found) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what is descended at the points, and the outputs there and at x (None where nobody asked)."""
        clean: Tensor | None = None
        if self.loss.compares:
            # One forward of both: batch statistics are those of all that is trained on, and change once.
            outputs, clean = room.outputs(torch.cat([found.point, lesson.x])).chunk(2)
        else:
            outputs = room.outputs(found.point)
            clean = outputs if found.point is lesson.x else None
        objective = self.loss.of(outputs, clean, lesson.y)
        if self.regulariser is not None:
            assert found.slope is not None
            objective = objective + self.regulariser.of(room, lesson, found.slope)
        return objective, outputs, clean

    def _passes(self) -> tuple[int, int]:
        """Return forwards and backwards of one `asked` and its differentiation."""
        own = 2 if self.loss.compares else 1
        added = (0, 0) if self.regulariser is None else (1, 3)
        return own + added[0], own + added[1]


Made = TypeVar("Made", bound=Method)


def method(
    name: str, *, source: str, cost: str, says: str, budgets: tuple[str, ...] = ()
) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Return a decorator that catalogues a training method and makes it remember its call.

    Args:
        source: author and year.
        cost: of one step in forwards F and backwards B over the batch, as text.
        says: when to take it.
        budgets: the kinds of budget that it serves; none named: all.
    """

    def enter(factory: Callable[..., Made]) -> Callable[..., Made]:
        def remember(made: Made, text: str) -> Made:
            known: dict[str, Any] = {"call": text, "budgets": budgets}
            return replace(made, **known)  # type: ignore[type-var]

        @wraps(factory)
        def named(*args: Any, **kwargs: Any) -> Made:
            try:
                return factory(*args, **kwargs)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None

        remembering = call_text(name, named, remember)
        facts = {"budgets": ", ".join(budgets) or "any", "cost": cost, "when": says, "source": source}
        METHODS.add(name, facts)(remembering)
        return remembering

    return enter
