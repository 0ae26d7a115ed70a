"""The panel: every check in order of cost, each on its own feet; what cannot run says why."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import torch

from steepest.basis.errors import SteepestError
from steepest.basis.progress import Progress, Silent
from steepest.diagnose.check import SHARED, Check
from steepest.diagnose.checks import CHECKS
from steepest.diagnose.contract import Family, Finding, Judgement, Level, NotRun
from steepest.diagnose.probe import Probe

FEW = 16
"""Fewer examples than this say little."""

_SHOWN = 100

_LATE = "left out: the time given was spent; `steepest diagnose` takes as long as it needs"
_RANDOM = "the model answers the same question differently each time: see the check randomness"


def named(names: Iterable[str] | None = None) -> list[Check]:
    """Return the checks called `names`, all if None, cheap ones first.

    Raises:
        UsageError: an unknown name; near matches are offered.
    """
    chosen = CHECKS.names() if names is None else list(names)
    return sorted((CHECKS.build(name) for name in chosen), key=lambda each: each.alone)


def estimate(probe: Probe, panel: Iterable[Check], count: int | None = None) -> float:
    """Return about how many seconds the panel takes, from the time of one forward and the checks' costs.

    What several checks read is counted once; searches without gradients take what is left of the probe's seconds. A
    model that hides something takes longer.

    Args:
        count: so many examples in the place of the probe's.
    """
    listed = list(panel)
    shared = {name for each in listed for name in each.uses}
    prices = [*(each.cost for each in listed), *(SHARED[name] for name in shared)]
    return max(sum(price.total(probe, count) for price in prices) / probe.pace, probe.seconds)


def affordable(probe: Probe, panel: Sequence[Check], seconds: float) -> int:
    """Return how many of the probe's examples the panel can examine in so many seconds; at least `FEW` if there are."""
    fitting = (count for count in range(probe.count, FEW, -1) if estimate(probe, panel, count) <= seconds)
    return next(fitting, min(FEW, probe.count))


def _seconds(probe: Probe, check: Check) -> float:
    """Return about how many seconds a check takes after those before it."""
    missing = sum(SHARED[name].total(probe) for name in check.uses if not probe.knows(name))
    return (check.cost.total(probe) + missing) / probe.pace


def examine(
    probe: Probe, panel: Sequence[Check], progress: Progress | None = None, *, until: float | None = None
) -> list[Finding]:
    """Let every check judge, cheap ones first; a check that fails to run, whatever it raises, is NOT_RUN.

    Args:
        until: checks that by their estimate would end after this moment of `time.perf_counter` are left out, and say
            so; None: none is.
    """
    told, listed = progress or Silent(), panel
    told.begin("diagnose", len(listed))
    found = []
    with probe.model.borrowed(probe.seed):
        for each in listed:
            late = until is not None and time.perf_counter() + _seconds(probe, each) > until
            found.append(_finding(each, probe, _LATE if late else None))
            told.advance(1, f"{each.name}: {found[-1].level.value}")
    told.end()
    return found


def _finding(check: Check, probe: Probe, left_out: str | None) -> Finding:
    begin, forwards, backwards = time.perf_counter(), probe.asked.forwards, probe.asked.backwards
    # What a check finds does not depend on which ran before it, also where the model draws random numbers.
    torch.manual_seed(probe.seed)  # inside `borrowed`, which puts the global state back
    judged = _judged(check, probe) if left_out is None else _not_run(left_out)
    flagged = judged.flagged
    return Finding(
        check=check.name,
        question=check.question,
        family=judged.family or check.family,
        level=judged.level,
        says=judged.says,
        source=check.source,
        statistic=judged.statistic,
        threshold=judged.threshold,
        examples=() if flagged is None else tuple(sorted(probe.ids[flagged].tolist())[:_SHOWN]),
        of=probe.count if judged.of is None else judged.of,
        advice=judged.advice,
        remedy=judged.remedy,
        picture=judged.picture,
        forwards=probe.asked.forwards - forwards,
        backwards=probe.asked.backwards - backwards,
        seconds=time.perf_counter() - begin,
    )


def _judged(check: Check, probe: Probe) -> Judgement:
    if check.steady and probe.model.facts.deterministic is False:
        return _not_run(_RANDOM)
    try:
        return check.judge(probe)
    except NotRun as reason:
        return _not_run(str(reason))
    except SteepestError as error:
        return _not_run(str(error))
    except Exception as error:  # the user's model may raise anything, and the other checks go on
        first = str(error).strip().splitlines()
        return _not_run(f"the check met {type(error).__name__}: {first[0] if first else 'no message'}")


def _not_run(reason: str) -> Judgement:
    return Judgement(level=Level.NOT_RUN, says=reason, family=Family.INFORMATION, of=0)
