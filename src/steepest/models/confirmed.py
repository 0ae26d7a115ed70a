"""Search in a twin, verdict in the original."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from steepest.models.contract import Answer, Count, Evaluation, Need, Question
from steepest.models.model import Model


@final
@dataclass(frozen=True, slots=True, eq=False)
class Confirmed:
    """An oracle through which a twin is asked: what the twin calls a success is a matter for the original.

    The original is asked about exactly those examples, one forward each, and what it answers is the answer: outputs,
    value and verdict; slopes stay the twin's. A success that the original does not repeat is none: the example stays
    in the search, with a value that does not look like a success again, and is counted in `unconfirmed`. An answer
    through a view speaks of a changed copy, never of the point, and so is never a success.

    >>> lying, honest = Model(lambda x: x * 0 + Tensor([0, 1])), Model(lambda x: x)
    >>> from steepest.models.objectives import Margin
    >>> twin, x, y = lying.asked_by(Confirmed(honest)), torch.eye(2), torch.tensor([0, 0])
    >>> found = twin.evaluate(x, y, Margin())
    >>> found.won, found.forwards, found.unconfirmed
    (tensor([False,  True]), tensor([2, 2]), tensor([1, 0]))
    """

    original: Model

    def answer(self, ask: Answer, question: Question) -> Evaluation:
        """See `Oracle.answer`."""
        found = ask(question)
        if question.view is not None:
            return replace(found, won=torch.zeros_like(found.won))
        if found.none_won():
            return found
        rows = found.won.nonzero().squeeze(1)
        return self._asked_again(found, question, rows) if rows.numel() else found

    def _asked_again(self, found: Evaluation, question: Question, rows: Tensor) -> Evaluation:
        again = self.original.answer(
            replace(
                question,
                point=question.point[rows],
                y=None if question.y is None else question.y[rows],
                objective=question.objective.rows(rows),
                goal=question.goal.rows(rows),
                need=Need.VALUE,
                ascent=None,
                classes=None,
                stream=None,
                region=None,
            )
        )
        return replace(
            found,
            outputs=found.outputs.index_copy(0, rows, again.outputs.to(found.outputs.dtype)),
            value=found.value.index_copy(0, rows, again.value.to(found.value.dtype)),
            won=found.won.index_copy(0, rows, again.won),
            finite=found.finite.index_copy(0, rows, again.finite & found.finite[rows]),
            forwards=_plus(found.forwards, rows, again.forwards, len(found.won)),
            unconfirmed=_plus(found.unconfirmed, rows, (~again.won).long(), len(found.won)),
        )


def _plus(count: Count, rows: Tensor, more: Count, total: int) -> Tensor:
    whole = torch.zeros(total, dtype=torch.int64, device=rows.device) + count
    return whole.index_add(0, rows, torch.zeros_like(rows) + more)
