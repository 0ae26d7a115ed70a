"""Does an answer depend on anything but its own input?"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from steepest.diagnose.check import check
from steepest.diagnose.contract import Family, Judgement, Level
from steepest.diagnose.probe import Probe
from steepest.diagnose.repeats import Repeats, answer, apart, repeats, stays
from steepest.models.inspection import SAME_ROWS, size_of

ALONE = 8
_SHOWN = 3


@check(
    "batch-dependence",
    "Does an answer depend on its batch, on earlier questions, or on a training mode?",
    Family.STOCHASTIC,
    cost=9,
    source="Carlini et al. 2019; Ioffe & Szegedy 2015, on statistics of the batch",
    steady=False,
)
def batch_dependence(probe: Probe) -> Judgement:
    """FAIL where an answer alone is not that in a shuffled batch, or one question changes the answer to the next.

    Training mode is a FAIL where it shows: where answers depend on the batch or on random numbers. Buffers that change
    without changing an answer are a WARN; other numbers that do, such as a count of the questions, are told.
    """
    found = repeats(probe)
    random = float(found.drawn.max()) > SAME_ROWS and stays(found)
    # Random numbers differ by the place in the batch, so there is nothing to compare.
    off = torch.zeros_like(found.kept) if random else _in_other_batches(probe)
    signs = _signs(found, float(off.max()), _training(probe.model.network) if random or off.max() > SAME_ROWS else [])
    level = Level.FAIL if signs else Level.WARN if found.buffers else Level.PASS
    told = signs or [
        "not compared by batch, as the answers are random" if random else "only its input changes an answer"
    ]
    changed = (*found.buffers, *found.numbers)
    if changed and stays(found):
        told.append(f"asking changes {_listed(changed)}, to no effect within {found.asked} questions")
    worst = max(float(off.max()), float(found.kept.max()))
    flagged = (off > SAME_ROWS) | (found.kept > SAME_ROWS)
    return Judgement(
        level=level,
        says="; ".join(told),
        statistic=worst if math.isfinite(worst) else None,
        threshold=SAME_ROWS,
        flagged=flagged if level is Level.FAIL and flagged.any() else None,
        advice=""
        if level is Level.PASS
        else "Call model.eval(), and take out or put back whatever state the model keeps: otherwise a number depends "
        "on the order of the questions.",
    )


def _signs(found: Repeats, off: float, training: list[str]) -> list[str]:
    """Return what speaks against the model, each in a few words."""
    signs = []
    if off > SAME_ROWS:
        signs.append(
            "an example alone gets no answer, or one that is no number"
            if off == torch.inf
            else f"alone or in a shuffled batch answers differ by up to {off:.2g} of the largest output"
        )
    if not stays(found):
        state = f" ({_listed((*found.buffers, *found.numbers))})" if found.buffers or found.numbers else ""
        signs.append(f"the same question got another answer within {found.asked} questions: it keeps a state{state}")
    if training:
        signs.append(f"in training mode: {_listed(training)}")
    return signs


def _in_other_batches(probe: Probe) -> Tensor:
    """Return how far answers alone, and in a shuffled batch, are from those in the batch; [N], 0 where not asked."""
    whole = answer(probe, 0)
    scale = 1 + size_of(whole)
    order = torch.randperm(probe.count, generator=torch.Generator().manual_seed(probe.seed)).to(probe.y.device)
    off = torch.zeros(probe.count, dtype=torch.float64, device=probe.y.device)
    off[order] = apart(answer(probe, 0, order), whole[order], scale)
    for row in order[:ALONE]:
        try:
            alone = apart(answer(probe, 0, row[None]), whole[row[None]], scale)
        except Exception:  # the user's model may refuse a batch of one in any way: batch normalisation in training does
            alone = torch.full_like(off[:1], torch.inf)
        off[row] = torch.maximum(off[row], alone[0])
    return off


def _training(network: object) -> list[str]:
    """Return the kinds of leaf modules in training mode, those first that are known to act otherwise in it."""
    if not isinstance(network, nn.Module):
        return []
    leaves = (part for part in network.modules() if part.training and not next(part.children(), None))
    kinds = dict.fromkeys(type(part).__name__ for part in leaves)
    return sorted(kinds, key=lambda kind: not any(word in kind for word in ("Norm", "Drop")))


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
