"""Expectation over randomness: a model that answers differently each time, asked several times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import final

import torch
from torch import Tensor

from steepest.basis.errors import UsageError
from steepest.models.averages import costs, with_mean_slopes
from steepest.models.contract import Answer, Evaluation, Question
from steepest.models.model import Model, Network


@final
@dataclass(frozen=True, slots=True)
class Expected:
    """The oracle that averages answers over `draws` of the model's randomness.

    Outputs are the mean of what the handle answers: of logits (of log-probabilities for a model of
    probabilities). Value and goal are those of the mean outputs. The gradient is the mean of the draws' gradients,
    which is the gradient of the expected loss, not a mean of signs.
    """

    draws: int = 20

    def __post_init__(self) -> None:
        if not isinstance(self.draws, int) or self.draws < 1:
            raise UsageError(f"expected: draws={self.draws!r} is not allowed; give a whole number of at least 1.")

    def answer(self, ask: Answer, question: Question) -> Evaluation:
        """See `Oracle.answer`."""
        parts = [ask(_drawn(question, draw)) for draw in range(self.draws)]
        outputs = reduce(Tensor.add_, (part.outputs for part in parts[1:]), parts[0].outputs.clone()).div_(self.draws)
        first = with_mean_slopes(parts[0], parts)
        finite = torch.isfinite(outputs).all(1)
        return replace(
            first,
            outputs=outputs,
            value=question.objective.value(outputs, question.y).masked_fill(~finite, torch.nan),
            won=question.goal(outputs, question.y),
            **costs(parts),
        )


def _drawn(question: Question, draw: int) -> Question:
    """Return the question with random numbers of its own, for oracles further in that draw from the stream."""
    return question if question.stream is None or not draw else replace(question, stream=question.stream.split(draw))


def expected(model: Model | Network, draws: int = 20) -> Model:
    """Return a model whose every answer is the mean over `draws` answers of a random model.

    Gradients average too (expectation over transformation), so every attack works on it, those without gradients
    included. Outputs are mean logits; `forwards` and `backwards` count every draw. The model draws from the global
    generators, which every attack seeds and puts back.

    Args:
        model: a random network, e.g. one with noise, dropout or random resizing in front.
        draws: how many answers are averaged; the error of the gradient falls with the square root.

    Raises:
        UsageError: draws below 1.

    Source: Athalye, Engstrom, Ilyas & Kwok 2018.

    >>> from steepest.attacks.api import attack
    >>> from steepest.budgets.linf import Linf
    >>> noisy = lambda x: torch.stack([x.sum(1), 1 - x.sum(1)], 1) + 0.1 * torch.randn(len(x), 2)
    >>> result = attack("bim(steps=5)", expected(noisy), torch.full((1, 2), 0.3), torch.tensor([0]), Linf(0.01))
    >>> result.forwards, result.backwards
    (tensor([120]), tensor([100]))
    """
    handle = model if isinstance(model, Model) else Model(model)
    return handle.asked_by(Expected(draws))
