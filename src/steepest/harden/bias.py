"""How far the gradient of a training method is from that of the worst case that it stands for."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import final

import torch
from scipy import special
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from steepest.attacks.api import pose
from steepest.attacks.contract import Problem
from steepest.attacks.recipes import ATTACKS
from steepest.basis.errors import ModelError, UsageError
from steepest.basis.tensors import expand, flat
from steepest.budgets.contract import Budget
from steepest.budgets.region import Region
from steepest.harden.contract import Classroom, Lesson, Method
from steepest.harden.library import METHODS
from steepest.models.goals import Never
from steepest.models.model import Model, Network

STRONG = "apgd(steps=100, restarts=5, objective='ce')"


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bias:
    """The bias of a method's gradient: D = ∇θ L(point) − ∇θ L(x*), over minibatches at the same weights.

    Attributes:
        method, strong: the calls that found the points and x*.
        cosine: between the means of ∇θ L(point) and of ∇θ L(x*).
        relative: √max(U, 0) / ‖mean ∇θ L(x*)‖, where U = Σ over i ≠ j of ⟨Dᵢ, Dⱼ⟩ / n(n − 1) is the unbiased ‖E D‖².
        interval: of `relative`, 95 %, from the jackknife of U / ‖mean ∇θ L(x*)‖².
        plain: ‖mean D‖ / ‖mean ∇θ L(x*)‖, which noise between minibatches inflates.
        squared: U itself; below 0 where the bias is smaller than what minibatches tell.
        gap: mean of L(x*) − L(point); at least 0 for points inside the budget.
        gaps: that of each example, float64 [N].
        disagreement: share of the movable coordinates in which point and x* lie on different sides of x, [N].
        moved: what (cosine, relative, gap) changed by when the strong search was given as many restarts again. x* only
            bounds the maximum from below: where these are not small, search longer.
    """

    method: str
    strong: str
    cosine: float
    relative: float
    interval: tuple[float, float]
    plain: float
    squared: float
    gap: float
    gaps: Tensor
    disagreement: Tensor
    moved: tuple[float, float, float]


def training_bias(
    model: Model | nn.Module,
    x: Tensor,
    y: Tensor,
    budget: Budget,
    *,
    method: str | Method = "fgsm",
    batches: int = 10,
    strong: str = STRONG,
    seed: int = 0,
) -> Bias:
    """Measure how far training on a method's points is from descending the largest cross-entropy in the budget.

    If the maximiser x* of the loss is unique, the gradient of the worst case is ∇θ L(x*) with x* held fixed (Danskin).
    A method takes it at its own point, so it descends another function, exactly: the difference is bias, which no
    number of examples averages away. Both gradients are taken on copies of the network in evaluation mode, weights
    unchanged; x* is the point of largest loss that two runs of `strong` find, whether the model errs there or not, and
    the method's own where that is larger and inside the budget. What a method adds to the loss at its point, a
    regulariser or another loss, is not part of this.

    Args:
        model: a module with parameters that require gradients, or its handle; a bare module has the box [0, 1].
        x, y: [N, *features], int64 [N]; cut into `batches` minibatches in this order.
        method: a training method's call.
        batches: minibatches, at least 3; each costs the method's step and two runs of `strong`.
        strong: an attack's call; should ascend "ce".
        seed: of all random streams.

    Raises:
        UsageError: fewer than 3 minibatches or fewer examples than minibatches; an unknown call.
        ModelError: the network is no module, or has no parameter that requires a gradient.

    Source: Danskin 1966; Madry et al. 2018, appendix A; the unbiased square is a U-statistic (Hoeffding 1948).

    >>> import steepest as st
    >>> net, x = nn.Linear(4, 2), torch.rand(12, 4)
    >>> found = training_bias(net, x, (x[:, 0] > 0.5).long(), st.Linf(0.1), batches=3, strong="apgd(steps=10)")
    >>> found.gap, found.relative          # on a linear model FGSM's point is the worst
    (0.0, 0.0)
    """
    if batches < 3 or len(x) < batches:
        raise UsageError(f"batches={batches} of {len(x)} examples: give at least 3, and an example for each.")
    made = METHODS.build(method) if isinstance(method, str) else method
    learner = _Learner.of(model)
    searched = ATTACKS.build(strong)
    parts: list[_Part] = []
    for rows in torch.arange(len(x)).tensor_split(batches):
        problem = pose(learner.model, x[rows], y[rows], budget, objective="ce", goal=Never(), seed=seed, ids=rows)
        parts.append(
            learner.compared(
                problem,
                learner.taught(made, problem),
                [searched.run(problem, seed).point, searched.run(_again(problem), seed + 1).point],
            )
        )
    first, both = _summed(parts, 0), _summed(parts, 1)
    return Bias(
        method=method if isinstance(method, str) else made.call,
        strong=strong,
        cosine=both.cosine,
        relative=both.relative,
        interval=both.interval,
        plain=both.plain,
        squared=both.squared,
        gap=both.gap,
        gaps=torch.cat([part.gaps[1] for part in parts]),
        disagreement=torch.cat([part.disagreement for part in parts]),
        moved=(both.cosine - first.cosine, both.relative - first.relative, both.gap - first.gap),
    )


def mean_square(d: Tensor) -> float:
    """Return U = Σ over i ≠ j of ⟨Dᵢ, Dⱼ⟩ / n(n − 1), unbiased for ‖E D‖², of n independent rows [n, P].

    >>> mean_square(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    0.0
    """
    return float(_unbiased(_products(d, d)))


def jackknife(values: Tensor, whole: float) -> tuple[float, float]:
    """Return a 95 % interval from a statistic of all n minibatches and its `values` [n] with one left out.

    The pseudo-values n·whole − (n − 1)·valueᵢ are taken for independent and normal (Tukey 1958; Student's t).

    >>> low, high = jackknife(torch.tensor([1.0, 1.0, 1.0]), 1.0)
    >>> low, high
    (1.0, 1.0)
    """
    count = len(values)
    pseudo = count * whole - (count - 1) * values.double()
    half = float(special.stdtrit(count - 1, 0.975) * pseudo.std() / count**0.5)
    return float(pseudo.mean()) - half, float(pseudo.mean()) + half


@final
@dataclass(frozen=True, slots=True)
class _Part:
    """One minibatch: gradients [P] at the method's point, and at x* of one run and of both."""

    method: Tensor
    worst: list[Tensor]
    gaps: list[Tensor]
    disagreement: Tensor


@final
@dataclass(frozen=True, slots=True)
class _Numbers:
    cosine: float
    relative: float
    interval: tuple[float, float]
    plain: float
    squared: float
    gap: float


@final
@dataclass(frozen=True, slots=True)
class _Learner:
    """A copy of a network, in evaluation mode, that may be asked for the gradients of its parameters."""

    network: nn.Module
    model: Model

    @classmethod
    def of(cls, model: Network | Model) -> _Learner:
        handle = model if isinstance(model, Model) else Model(model)
        if not isinstance(handle.network, nn.Module):
            raise ModelError(f"{handle!r} is a function: its parameters are unknown; give the nn.Module itself.")
        network = copy.deepcopy(handle.network).eval()
        if not any(each.requires_grad for each in network.parameters()):
            raise ModelError(f"{handle!r} has no parameter that requires a gradient: call .requires_grad_() on those.")
        return cls(network, Model(network, handle.box, facts=handle.facts))

    def taught(self, method: Method, problem: Problem) -> Tensor:
        """Return the points of one step of the method, on a copy that does not move."""
        still = copy.deepcopy(self.network)
        room = Classroom(
            network=still,
            model=Model(still, self.model.box, facts=self.model.facts),
            optimiser=torch.optim.SGD(still.parameters(), lr=0.0),
        )
        lesson = Lesson(region=problem.region, y=_labels(problem), stream=problem.stream, number=0, share=0.0)
        return method.teach(room, lesson).point

    def compared(self, problem: Problem, point: Tensor, found: list[Tensor]) -> _Part:
        """Return gradients and losses at the method's points, and at the best of ever more points."""
        region = problem.region
        gradient, loss = self._descended(point, problem)
        best, best_loss = region.x, torch.full_like(loss, -torch.inf)
        inside = region.contains(point)
        worst, gaps = [], []
        for each, its in ((point, torch.where(inside, loss, -torch.inf)), *((p, None) for p in found)):
            its = self._losses(each, problem) if its is None else its
            better = its > best_loss
            best, best_loss = torch.where(expand(better, each), each, best), torch.maximum(its, best_loss)
            if each is point:
                continue
            slope, _ = self._descended(best, problem)
            worst.append(slope)
            gaps.append(best_loss - loss)
        return _Part(gradient, worst, gaps, _disagreement(region, point, best))

    def _losses(self, point: Tensor, problem: Problem) -> Tensor:
        with torch.no_grad():
            return cross_entropy(self.model.passed(point), _labels(problem), reduction="none").double()

    def _descended(self, point: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """Return the gradient of the mean loss in all parameters, [P], and the losses, [N]."""
        self.network.zero_grad()
        losses = cross_entropy(self.model.passed(point), _labels(problem), reduction="none")
        losses.mean().backward()  # type: ignore[no-untyped-call]
        wanted = [each for each in self.network.parameters() if each.requires_grad]
        parts = [torch.zeros_like(each) if each.grad is None else each.grad.detach() for each in wanted]
        return torch.cat([each.flatten() for each in parts]).clone(), losses.detach().double()


def _labels(problem: Problem) -> Tensor:
    assert isinstance(problem.y, Tensor)
    return problem.y


def _again(problem: Problem) -> Problem:
    """Return the same problem with other random numbers."""
    return replace(problem, stream=problem.stream.split(1))


def _disagreement(region: Region, point: Tensor, worst: Tensor) -> Tensor:
    x, free = region.x, region.movable().expand(region.x.shape)
    differs = ((point - x).sign() != (worst - x).sign()) & free
    return flat(differs).double().sum(1) / flat(free).double().sum(1).clamp_min(1)


def _products(a: Tensor, b: Tensor) -> Tensor:
    return a.double() @ b.double().T


def _unbiased(gram: Tensor) -> Tensor:
    count = len(gram)
    return (gram.sum() - gram.diagonal().sum()) / (count * (count - 1))


def _summed(parts: list[_Part], run: int) -> _Numbers:
    """Return what the minibatches say together, x* being that of the runs up to `run`."""
    method = torch.stack([part.method for part in parts])
    worst = torch.stack([part.worst[run] for part in parts])
    bias = _products(method - worst, method - worst)
    own, true, mixed = _products(method, method), _products(worst, worst), _products(method, worst)

    def share(kept: Tensor) -> float:
        return _over(float(_unbiased(bias[kept][:, kept])), float(true[kept][:, kept].mean()))

    everyone = torch.arange(len(parts))
    whole = share(everyone)
    low, high = jackknife(torch.tensor([share(everyone[everyone != i]) for i in everyone], dtype=torch.float64), whole)
    return _Numbers(
        cosine=_over(float(mixed.mean()), float(own.mean() * true.mean()) ** 0.5),
        relative=max(whole, 0.0) ** 0.5,
        interval=(max(low, 0.0) ** 0.5, max(high, 0.0) ** 0.5),
        plain=_over(float(bias.mean()), float(true.mean())) ** 0.5,
        squared=float(_unbiased(bias)),
        gap=float(torch.cat([part.gaps[run] for part in parts]).mean()),
    )


def _over(a: float, b: float) -> float:
    # 0/0: two gradients that vanish together differ by nothing; a bias beside a vanishing gradient is infinite.
    return a / b if b else (torch.inf if a else 0.0)
