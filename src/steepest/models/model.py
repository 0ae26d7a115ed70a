"""The handle around a user's network: the only place of the house that calls autograd, but for its recordings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from steepest.basis.box import Bound, Box
from steepest.basis.errors import ModelError
from steepest.basis.tensors import Sight, expand, finite_rows, largest, seen
from steepest.models.contract import Answer, Evaluation, Facts, Goal, Labels, Need, Objective, Oracle, Question
from steepest.models.goals import Never
from steepest.models.objectives import output_itself
from steepest.models.state import untouched

Network = nn.Module | Callable[[Tensor], Tensor]


@final
class Model:
    """A differentiable network f: x [N, *features] → outputs [N, K], with the box that its inputs live in.

    The network is asked in the mode (train or eval) and precision in which it was handed over. Afterwards it is
    as it was, also after an exception: mode, parameters' gradients and `requires_grad`, buffers, and the global
    random state. Gradients are taken with respect to the input alone. Inputs of a network in half precision may be
    float32: they are cast at its door.

    Args:
        network: a module, or any callable on tensors that autograd can follow.
        box: (lower, upper) in data units, a `Box`, or None for no limits.
        facts: what is known of it; filled in by the loaders.
        oracles: how questions are answered, the innermost first; none: by asking once.

    Attributes:
        origin: the call that loads the model again from its file, for another process; None for what was made here.

    Raises:
        ModelError: when asked: the outputs are not [N, K] with K ≥ 2.

    >>> f = Model(nn.Linear(2, 3), box=(0, 1))
    >>> f.logits(torch.zeros(4, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        network: Network,
        box: Box | tuple[Bound, Bound] | None = (0.0, 1.0),
        *,
        facts: Facts | None = None,
        oracles: tuple[Oracle, ...] = (),
    ) -> None:
        if not callable(network):
            raise ModelError(f"{network!r} is no network: give a module, a function on tensors, or use st.load(path).")
        self.network = network
        self.box = Box.of(box)
        self.facts = facts or Facts(source=type(network).__name__)
        self.oracles = oracles
        self.origin: Callable[[], Model] | None = None
        self._borrowed = False
        self._half = half_precision(network)

    def __repr__(self) -> str:
        return f"Model({self.facts.source}, box={self.box!r})"

    def with_facts(self, facts: Facts) -> Model:
        """Return a handle of the same network with other facts."""
        return Model(self.network, self.box, facts=facts, oracles=self.oracles)

    def asked_by(self, oracle: Oracle) -> Model:
        """Return a handle of the same network whose questions also go through `oracle`, outermost."""
        made = Model(self.network, self.box, facts=self.facts, oracles=(*self.oracles, oracle))
        made._borrowed = self._borrowed
        return made

    @contextmanager
    def borrowed(self, seed: int | None = None) -> Iterator[None]:
        """Hold the network still for many questions: state is saved once and put back at the end.

        Inside, parameters need no gradient; with a `seed`, a network that draws random numbers draws the same
        ones each time. Nested use costs nothing.
        """
        if self._borrowed:
            yield
            return
        module = self.network if isinstance(self.network, nn.Module) else None
        with untouched(module, seed):
            self._borrowed = True
            try:
                yield
            finally:
                self._borrowed = False

    def logits(self, x: Tensor) -> Tensor:
        """Return the outputs at `x`, [N, K], detached, at least float32 (the logarithm of probabilities)."""
        if self.oracles:
            return self.answer(Question(point=x, y=None, objective=output_itself(), goal=Never())).outputs
        with self.borrowed(), torch.no_grad():
            return self.passed(x)

    def passed(self, x: Tensor) -> Tensor:
        """Return the outputs at `x` on the graph of the caller, past the oracles: for networks made of models."""
        return self._ask(x)

    def evaluate(
        self, x: Tensor, y: Labels, objective: Objective, goal: Goal | None = None, need: Need = Need.VALUE
    ) -> Evaluation:
        """Answer the plain question about `x`, by the model's oracles: see `answer`; `goal` is the objective's own."""
        return self.answer(Question(point=x, y=y, objective=objective, goal=goal or objective.goal, need=need))

    def slope(self, x: Tensor, y: Labels, objective: Objective) -> tuple[Tensor, Tensor]:
        """Return the outputs and the gradient that `evaluate` finds at `x`, for those who judge nothing there.

        Rows in which an output or the gradient is not finite are zero in the gradient.
        """
        if self.oracles:
            found = self.evaluate(x, y, objective, need=Need.GRADIENT)
            assert found.gradient is not None
            return found.outputs, found.gradient
        point = x.detach().requires_grad_()
        with self.borrowed(), torch.enable_grad():
            outputs = self._ask(point)
            slope = _slope(objective.ascent(outputs, y), point, last=True)
        return outputs.detach(), _usable(outputs.detach(), slope)

    def answer(self, question: Question) -> Evaluation:
        """Ask the network, as the model's oracles do it; without any, once.

        Raises:
            ModelError: no gradient reaches the input (the network detaches it or runs under no_grad).
        """
        ask: Answer = self._once
        for oracle in self.oracles:
            ask = partial(oracle.answer, ask)
        with self.borrowed():
            return ask(question)

    def _once(self, question: Question) -> Evaluation:
        """Answer with one forward, and one backward for a gradient or one for each row of a Jacobian."""
        view = question.view or _as_it_is
        if question.need is Need.VALUE:
            with torch.no_grad():
                return _judged(question, question.point, self._ask(view(question.point)))
        point = question.point.detach().requires_grad_()
        with torch.enable_grad():
            outputs = self._ask(view(point))
            values = list(_differentiated(question, outputs))
            # The verdict before the backward, so that a host can know it while a GPU is at the slopes.
            sight = _seen(question, outputs.detach())
            slopes = [_slope(value, point, last=last) for value, last in values]
        with torch.no_grad():
            return _judged(question, point.detach(), outputs.detach(), slopes, sight)

    def _ask(self, x: Tensor) -> Tensor:
        # A search on the coarse grid of half precision stands still: its points stay in x's own, the network is
        # asked in its own, as its user's pipeline would.
        given = x if self._half is None else x.to(self._half)
        before = given._version
        outputs = self.network(given)
        if given._version != before:
            raise ModelError(
                f"the model changed its input of shape {tuple(x.shape)} in place, which would corrupt the data: let "
                "its first operation make a new tensor (x = x - mean instead of x -= mean, ReLU(inplace=False))."
            )
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or outputs.shape[0] != x.shape[0]:
            raise ModelError(
                f"the model answered {_form(outputs)} to an input of shape {tuple(x.shape)}; allowed is one tensor "
                f"[{x.shape[0]}, K] of logits. Wrap it in a function that returns such a tensor (a single sigmoid "
                "output z becomes torch.stack([-z, z], 1) / 2)."
            )
        outputs = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs
        if self.facts.outputs == "probabilities":
            return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()
        return outputs


def _as_it_is(point: Tensor) -> Tensor:
    return point


def _differentiated(question: Question, outputs: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """Yield each number [N] whose gradient is wanted, and whether it is the last of them."""
    if question.need is Need.GRADIENT:
        yield (question.ascent or question.objective).ascent(outputs, question.y), True
        return
    assert question.classes is not None
    count = question.classes.shape[1]
    for row in range(count):
        yield outputs.gather(1, question.classes[:, row : row + 1]).squeeze(1), row == count - 1


def _slope(value: Tensor, point: Tensor, *, last: bool) -> Tensor:
    if not value.requires_grad:
        raise ModelError(_NO_GRADIENT)
    (gradient,) = torch.autograd.grad(value.sum(), point, allow_unused=True, retain_graph=not last)
    if gradient is None:
        raise ModelError(_NO_GRADIENT)
    return gradient.detach()


def _usable(outputs: Tensor, slope: Tensor) -> Tensor:
    """Return a gradient with zeros in the rows that are not finite."""
    # One number that is not finite makes a sum that is none. On a GPU looking would take longer than choosing.
    if not slope.is_cuda and math.isfinite(float(outputs.sum()) + float(slope.sum())):
        return slope
    finite = finite_rows(outputs) & finite_rows(slope)
    return torch.where(expand(finite, slope), slope, 0)


def _seen(question: Question, outputs: Tensor) -> Sight:
    with torch.no_grad():
        return Sight.of(question.goal(outputs, question.y))


def _judged(
    question: Question,
    point: Tensor,
    outputs: Tensor,
    slopes: list[Tensor] | None = None,
    sight: Sight | None = None,
) -> Evaluation:
    finite = finite_rows(outputs)
    value = question.objective.value(outputs, question.y).masked_fill(~finite, torch.nan)
    sight = sight or _seen(question, outputs)
    size, found = None, []
    if slopes is not None:
        sizes = [largest(slope) if slope.numel() else value for slope in slopes]
        size = sizes[0] if len(sizes) == 1 else torch.stack(sizes, 1).amax(1)
        finite = finite & (size < torch.inf)
        found = slopes if seen(finite) else [torch.where(expand(finite, each), each, 0) for each in slopes]
    jacobian = question.need is Need.JACOBIAN
    return Evaluation(
        point=point,
        outputs=outputs,
        value=value,
        won=sight.mask,
        finite=finite,
        gradient=found[0] if found and not jacobian else None,
        jacobian=torch.stack(found, 1) if jacobian else None,
        size=size,
        backwards=len(found),
        sight=sight,
    )


def half_precision(network: Network) -> torch.dtype | None:
    """Return the type of a network whose numbers are half-precision floats, else None.

    A network of ours that hands points on as they are leaves the cast to its parts.
    """
    if getattr(network, "hands_on", False):
        return None
    parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
    first = next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), None)
    return first if first in (torch.float16, torch.bfloat16) else None


_NO_GRADIENT = (
    "no gradient reaches the model's input: the network detaches it, rounds it to integers, or runs under no_grad. "
    "Remove that, put a straight-through substitute in the place of the layer that does it (st.straight_through), or "
    "use an attack that needs no gradient: `steepest list attacks` says which need scores or labels only (noise, ...)."
)


def _form(outputs: object) -> str:
    if isinstance(outputs, Tensor):
        return f"a tensor of shape {tuple(outputs.shape)}"
    return f"an object of type {type(outputs).__name__}"
