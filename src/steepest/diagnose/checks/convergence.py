"""Would more steps have broken more?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.basis.errors import ModelError
from steepest.basis.shares import interval
from steepest.diagnose.check import FURTHER, WHITE, check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Remedy
from steepest.diagnose.probe import WHITE_BOX, Climbed, Probe, Traces
from steepest.diagnose.searches import longer, require_gradient

MORE, LEAST = 0.005, 3
"""A share of the examples that more steps must surely break for a WARN, and so many of them: one or two are luck."""

_LAST = 2
"""So many of an audit's last stages along gradients are judged, and as many must have come before."""


@check(
    "convergence",
    "Would more steps have broken more?",
    Family.UNFINISHED,
    cost=0,
    uses=(WHITE, FURTHER),
    source="Carlini et al. 2019; Pintor et al. 2022, incomplete optimisation",
)
def convergence(probe: Probe) -> Judgement:
    """WARN where as many steps again surely break over 0.5 % of the examples beyond those of 20 steps.

    Inside an audit it is the audit's number that is judged: WARN where its last two stages along gradients still broke
    as much, or where searches of 20 and 40 steps break surely more of the probe than the audit broke of all.
    """
    require_gradient(probe)
    rows = probe.require_right()
    try:
        broken = probe.white_box
        further = longer(probe)
    except ModelError as error:
        raise NotRun(str(error)) from None
    more = torch.zeros_like(broken)
    more[further.rows] = further.won
    if probe.traces is not None:
        return _of_audit(probe.traces, broken | more, rows.numel())
    extra, left, asked = int(more.sum()), int((probe.right & ~broken).sum()), further.rows.numel()
    # Where not all that were left are asked, those asked stand for as many fewer of the examples.
    count = rows.numel() if asked == left else rows.numel() * asked // left
    unfinished = _surely(extra, count, MORE)
    return Judgement(
        level=Level.WARN if unfinished else Level.PASS,
        says=f"40 more steps broke {extra} of {rows.numel()} examples beyond the {int(broken.sum())} of "
        f"{len(WHITE_BOX)} searches of up to 20" + (f"; {asked} of {left} were asked" if asked < left else ""),
        statistic=extra / max(1, count),
        threshold=MORE,
        flagged=more if unfinished else None,
        advice="The number still falls with more steps: take the preset thorough, or more steps and restarts."
        if unfinished
        else "",
        remedy=Remedy(name="more steps") if unfinished else None,
        of=rows.numel(),
    )


def _of_audit(traces: Traces, broken: Tensor, count: int) -> Judgement:
    steps = [rung for rung in traces.rungs if not rung.free and rung.entered]
    last = steps[-_LAST:] if len(steps) >= 2 * _LAST else []
    late = sum(rung.broken for rung in last)
    share = _broken_share(traces.rungs, traces.clean)
    here = int(broken.sum())
    if _surely(late, traces.clean, MORE):
        says = f"the last {_LAST} stages along gradients still broke {late} of {traces.clean} examples"
        statistic, unfinished = late / traces.clean, True
    else:
        says = f"searches of 20 and 40 steps broke {here} of {count} examples, the audit {100 * share:.0f} % of all"
        statistic, unfinished = here / count - share, _surely(here, count, share + MORE)
    return Judgement(
        level=Level.WARN if unfinished else Level.PASS,
        says=says,
        statistic=statistic,
        threshold=MORE,
        flagged=None,
        advice="The number still falls with more effort: take the preset thorough, or more steps and restarts."
        if unfinished
        else "",
        remedy=Remedy(name="more steps") if unfinished else None,
        of=count,
    )


def _surely(broken: int, count: int, share: float) -> bool:
    return broken >= LEAST and interval(broken, count)[0] > share


def _broken_share(rungs: Sequence[Climbed], clean: int) -> float:
    """Return the share of the right examples that did not survive the audit at its largest ε."""
    if not rungs or not clean:
        return 0.0
    return 1 - (rungs[0].entered - sum(rung.broken for rung in rungs)) / clean
