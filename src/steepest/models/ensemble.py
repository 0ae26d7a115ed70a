"""Several models as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from steepest.basis.box import Box
from steepest.basis.errors import ModelError, UsageError, unknown
from steepest.models.contract import Facts
from steepest.models.model import Model, Network

FUSES = ("logits", "probabilities")
"""What the members' answers may be averaged as."""

_ANSWERS = ("labels", "scores", "gradient")


@final
class _Fused(nn.Module):
    """The weighted mean of the members' answers; members that are modules are seen, so they are kept as they were."""

    hands_on: ClassVar[bool] = True

    def __init__(self, members: Sequence[Model], weights: Tensor, fuse: str) -> None:
        super().__init__()
        self.parts = nn.ModuleList(m.network for m in members if isinstance(m.network, nn.Module))
        self.members, self.weights, self.fuse = tuple(members), weights, fuse

    def forward(self, x: Tensor) -> Tensor:
        answers = [member.passed(x) for member in self.members]
        if len({answer.shape for answer in answers}) > 1:
            shapes = ", ".join(str(tuple(answer.shape)) for answer in answers)
            raise ModelError(f"the members of the ensemble answer {shapes}: they must have the same classes.")
        stacked = torch.stack(answers)
        share = self.weights.to(stacked).reshape(-1, 1, 1)
        if self.fuse == "logits":
            return (share * stacked).sum(0)
        return torch.logsumexp(share.log() + stacked.log_softmax(2), 0)


def ensemble(models: Sequence[Model | Network], weights: Sequence[float] | None = None, fuse: str = "logits") -> Model:
    """Return the model that answers with the weighted mean of what `models` answer.

    "logits": z = Σ wᵢ·zᵢ (Dong et al. 2018). "probabilities": z = log Σ wᵢ·softmax(zᵢ) (Liu et al. 2017), whose
    softmax is the mean of the members'. The weights are divided by their sum. One forward of it is one of each member.

    Args:
        models: handles or bare networks (box [0, 1]) that share box and classes.
        weights: one per model, not negative; equal if left out.
        fuse: "logits" or "probabilities".

    Raises:
        UsageError: no model, other boxes, weights that do not fit, an unknown fuse, a member with an oracle of its own.
        ModelError: when asked: the members have different classes.

    >>> a, b = (lambda x: torch.tensor([[2.0, 0.0]])), (lambda x: torch.tensor([[0.0, 1.0]]))
    >>> ensemble([a, b], weights=[3, 1]).logits(torch.zeros(1, 5))
    tensor([[1.5000, 0.2500]])
    """
    if not models:
        raise UsageError("ensemble: no model was given; give at least one.")
    members = [each if isinstance(each, Model) else Model(each) for each in models]
    if fuse not in FUSES:
        raise unknown("fuse of ensemble", fuse, FUSES)
    if any(member.oracles for member in members):
        raise UsageError(
            "ensemble: a member is itself asked in a special way (st.expected, ...); wrap the ensemble instead: "
            "st.expected(st.ensemble([...]))."
        )
    if any(not _same(members[0].box, member.box) for member in members):
        raise UsageError(f"ensemble: the members live in {', '.join(repr(m.box) for m in members)}; give one box.")
    facts = Facts(
        source=f"ensemble of {len(members)}",
        input_shape=next((m.facts.input_shape for m in members if m.facts.input_shape is not None), None),
        classes=members[0].facts.classes,
        answers=min((member.facts.answers for member in members), key=_ANSWERS.index),
    )
    return Model(_Fused(members, _shares(weights, len(members)), fuse), members[0].box, facts=facts)


def _shares(weights: Sequence[float] | None, count: int) -> Tensor:
    given = torch.ones(count, dtype=torch.float64) if weights is None else torch.as_tensor(weights).double()
    if given.shape != (count,) or not bool(torch.isfinite(given).all() & (given >= 0).all() & (given.sum() > 0)):
        raise UsageError(
            f"ensemble: weights={weights!r} are not allowed; give one number of at least 0 for each of the {count} "
            "models, not all 0."
        )
    return given / given.sum()


def _same(a: Box, b: Box) -> bool:
    pairs = [(torch.as_tensor(p), torch.as_tensor(q)) for p, q in ((a.lower, b.lower), (a.upper, b.upper))]
    return all(p.shape == q.shape and bool((p.double() == q.double()).all()) for p, q in pairs)
