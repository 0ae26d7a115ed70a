"""What an audit was asked, in a form that another process can repeat: the same order opens the same job."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, final

import torch
from torch import Tensor

from steepest.attacks.api import ObjectiveChoice
from steepest.audit.cascade import Cascade
from steepest.audit.contract import Plan
from steepest.audit.data import Source, open_data, select
from steepest.audit.presets import preset_of, rungs_of, sized
from steepest.audit.subject import Subject, aimed, prepare
from steepest.basis.errors import NoCertificateError, UsageError
from steepest.basis.fingerprints import describe, ids_digest
from steepest.basis.version import VERSION
from steepest.budgets.contract import Budget
from steepest.budgets.epsilon import largest
from steepest.budgets.region import Region
from steepest.certify.grounds import require_bounded
from steepest.models.contract import Objective
from steepest.models.model import Model, Network
from steepest.models.objectives import OBJECTIVES, Targeted, objective_of
from steepest.models.prepare import prepared

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened(Generic[T]):
    """Something that is open here, and the call that opens it again: what is sent to another process is the call."""

    here: T
    again: Callable[[], T]

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.again,)


def _reopened(again: Callable[[], T]) -> Reopened[T]:
    return Reopened(here=again(), again=again)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The arguments of `st.audit` that decide its records; see there."""

    model: Reopened[Model] | Model | Network | str | Path
    data: object
    budget: Budget | Sequence[Budget]
    preset: str
    attacks: str | None
    certify: str | None
    objective: ObjectiveChoice
    target: int | None
    limit: int | None
    sample: int | None
    labels: Sequence[str] | None
    resize: tuple[int, int] | None
    seed: int
    batch_size: int | None
    shard_size: int | None
    device: str | None
    precision: str
    save: bool
    assure: int
    diagnose: bool
    allow_chance: bool

    def packed(self) -> bytes:
        """Return the order as bytes for another process.

        Raises:
            UsageError: a part of it exists in the memory of this process only; names it and the remedy.
        """
        try:
            return pickle.dumps(self)
        except Exception:  # the user's objects may raise anything
            self._name_culprit()
            raise

    def _name_culprit(self) -> None:
        for field in fields(self):
            try:
                pickle.dumps(getattr(self, field.name))
            except Exception as error:
                raise UsageError(
                    f"{field.name} cannot be sent to another process ({type(error).__name__}: {error}). "
                    f"{_REMEDIES.get(field.name, _IMPORTABLE)} Or leave the executor in-process."
                ) from None


_IMPORTABLE = "Define it in a module that can be imported."
_REMEDIES = {
    "model": "Save it as .onnx or .pt2, or write a factory, and give the file or file.py:factory, or st.load of it.",
    "data": "Save it, numpy.savez('data.npz', images=..., labels=...), and give the path.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An order opened: what is attacked, by what, and the plan that both add up to."""

    subject: Subject
    cascade: Cascade
    plan: Plan

    def planned(self, plan: Plan) -> Self:
        """Return the job as a whole plan has it: its batch size, and its twin made without measuring.

        Raises:
            ModelError: the twin cannot be made here.
        """
        sloped, x = self.subject.sloped, self.subject.first[1][self.first_batch(plan.batch_size)]
        twin = prepared(sloped, plan.prepared, x) if plan.prepared else sloped
        return replace(self, plan=plan, cascade=replace(self.cascade, twin=twin, batch=plan.batch_size))

    @property
    def objective(self) -> ObjectiveChoice:
        """What is ascended: its name where it has one and no class is aimed at, which says more than the object."""
        named = self.plan.target is None and self.plan.objective in OBJECTIVES.names()
        return self.plan.objective if named else self.cascade.objective

    def first_batch(self, size: int) -> Tensor:
        """Return which of the subject's first examples make a batch of the audit's size, some of them several times."""
        ids, x, _ = self.subject.first
        return torch.arange(min(size, len(self.subject.ids)), device=x.device) % len(ids)


def opened(order: Order) -> Job:
    """Open data and model, look at both, and say what will be done.

    Raises:
        UsageError, DataError, ModelError: what was asked, the data or the model do not fit.
    """
    source, objective, target, seed = _source(order), order.objective, order.target, order.seed
    chosen = objective_of(objective) if target is None else Targeted(objective, target)
    ids = _attackable(source, select(source, limit=order.limit, sample=order.sample, seed=seed), chosen)
    model = order.model.here if isinstance(order.model, Reopened) else order.model
    subject = prepare(model, source, ids, order.device, allow_chance=order.allow_chance)
    subject = subject if target is None else aimed(subject, target)
    budgets = _budgets(order.budget, (len(source), *source.shape))
    epsilons, factors = _grid(preset_of(order.preset).factors, [one.rows(ids) for one in budgets])
    rungs, left_out = rungs_of(order.attacks, order.preset, budgets[-1], subject.model.facts.answers)
    if order.certify is not None:
        rungs = sized(rungs, order.certify, budgets[-1])
    cascade = Cascade(
        model=subject.model,
        twin=subject.sloped,
        sloped=subject.sloped,
        budgets=budgets,
        epsilons=epsilons,
        rungs=rungs,
        objective=chosen,
        shape=tuple(source.shape),
        factors=torch.tensor(factors, dtype=torch.float64),
        seed=seed,
    )
    plan = Plan(
        model=subject.model.facts.sha256,
        data=source.sha256(),
        input=subject.usage(),
        ids_hash=ids_digest(subject.ids),
        count=len(subject.ids),
        budgets=tuple(describe(one) for one in budgets),
        objective=objective if isinstance(objective, str) else describe(chosen),
        preset=order.preset if order.attacks is None else "custom",
        attacks=tuple(rung.text for rung in rungs),
        factors=factors,
        target=target,
        seed=seed,
        save=order.save,
        assure=order.assure,
        diagnose=order.diagnose,
        version=VERSION,
        batch_size=order.batch_size or 0,
        shard_size=order.shard_size or 0,
        precision=order.precision,
    )
    if order.certify is not None:
        _require_proofs(cascade, subject)
    return Job(subject=replace(subject, notes=(*subject.notes, *left_out)), cascade=cascade, plan=plan)


def _require_proofs(cascade: Cascade, subject: Subject) -> None:
    """Refuse what was asked to be certified and cannot be.

    Raises:
        UsageError: budget and box bound nothing.
        NoCertificateError: no certifier has rules for the model; names what the first of them met.
    """
    ids, x, _ = subject.first
    require_bounded(Region(cascade.budgets[-1].rows(ids), subject.model.box, x))
    asked = [rung for rung in cascade.rungs if rung.certifier is not None]
    found = [cascade.certificates.prover(rung, subject.model, cascade.shape) for rung in asked]
    reasons = [f"{rung.name}: {why}" for rung, why in zip(asked, found, strict=True) if isinstance(why, str)]
    if len(reasons) == len(asked):
        raise NoCertificateError(" ".join(dict.fromkeys(reasons)))


def _source(order: Order) -> Source:
    if isinstance(order.data, Reopened):
        return open_data(order.data.here)
    return open_data(order.data, labels=order.labels, resize=order.resize)


def _attackable(source: Source, ids: Tensor, objective: Objective) -> Tensor:
    """Leave out what already has the label that the attacks aim at."""
    if not isinstance(objective, Targeted):
        return ids
    target = torch.as_tensor(objective.target).expand(len(source)).cpu()
    left = ids[source.labels[ids] != target[ids]]
    if not left.numel():
        raise UsageError("no example is left to attack: all have the target's label. Give another target.")
    return left


def _grid(factors: Sequence[float], budgets: Sequence[Budget]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the audited ε, and the curve's grid with each of them on it, in units of the largest."""
    epsilons = tuple(largest(one.epsilon) for one in budgets)
    audited = [epsilon / epsilons[-1] for epsilon in epsilons if epsilons[-1] > 0]
    return epsilons, tuple(sorted({round(factor, 12): factor for factor in (*audited, *factors)}.values()))


def _budgets(budget: Budget | Sequence[Budget], shape: tuple[int, ...]) -> tuple[Budget, ...]:
    """Return the budgets in rising order; a success at one must be a success at the next, so they must be nested."""
    given = list(budget) if isinstance(budget, Sequence) else [budget]
    if not given:
        raise UsageError("no budget was given: give one such as st.Linf(8 / 255), or several sizes of one kind.")
    for one in given:
        if not hasattr(one, "fitted"):
            raise UsageError(f"budget={one!r} is not a budget: give one such as st.Linf(8 / 255), st.L2(0.5).")
    fitted = sorted((one.fitted(shape) for one in given), key=lambda one: largest(one.epsilon))
    for small, large in pairwise(fitted):
        alike = describe(small.scaled(0.0)) == describe(large.scaled(0.0))
        if not alike or not _proportional(small.epsilon, large.epsilon):
            raise UsageError(
                f"{small!r} and {large!r} are not sizes of one kind: with several budgets each must hold the one "
                "before, and be the same multiple of it for every example and feature. Audit them one by one."
            )
    return tuple(fitted)


def _proportional(small: float | Tensor, large: float | Tensor) -> bool:
    """Whether the larger ε is one multiple of the smaller everywhere: only then one number orders successes."""
    few, many = (torch.as_tensor(each, dtype=torch.float64) for each in (small, large))
    few, many = few + torch.zeros_like(many), many + torch.zeros_like(few)
    if not many.numel():
        return True
    top = int(many.argmax())
    apart = (few * many.flatten()[top] - many * few.flatten()[top]).abs()
    return bool((few <= many).all()) and bool((apart <= 1e-6 * many.flatten()[top] * many).all())
