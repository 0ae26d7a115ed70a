"""How far is the loss from its linear model?"""

from __future__ import annotations

from steepest.diagnose.check import Price, check
from steepest.diagnose.contract import Family, Judgement, Level, NotRun, Picture, Series
from steepest.diagnose.precision import clear
from steepest.diagnose.probe import Probe
from steepest.landscape.linearity import linearity as measured

_COST = Price(passes=24, least=32)


@check(
    "linearity",
    "How far is the loss from its linear model inside the budget?",
    Family.INFORMATION,
    cost=_COST,
    source="Qin et al. 2019",
)
def linearity(probe: Probe) -> Judgement:
    """PASS with the largest departure found from the linear model, in units of the gain that the model promises."""
    rows = probe.require_right()[: _COST.examples(probe)]
    found = clear(probe, rows, lambda ground, _: measured(ground))
    here = found.relative
    here = here[here.isfinite()]
    if not here.numel():
        raise NotRun("no example has a gradient that promises anything")
    middle, most = float(here.median()), float(here.max())
    kept = found.gained / found.predicted
    kept = kept[kept.isfinite()]
    got = f"; one full step gets {100 * float(kept.median()):.0f} % of what its gradient promises" if len(kept) else ""
    ranked = here.sort().values.tolist()
    series = Series(
        name="examples", x=tuple((at + 0.5) / len(ranked) for at in range(len(ranked))), y=tuple(map(float, ranked))
    )
    return Judgement(
        level=Level.PASS,
        says=f"inside the budget the margin leaves its linear model by {100 * middle:.0f} % of the promised gain in "
        f"the median, {100 * most:.0f} % at most{got}",
        statistic=middle,
        picture=Picture(
            kind="lines",
            title="Departure from the linear model",
            x="share of the examples",
            y="departure / promised gain",
            series=(series,),
        ),
        of=here.numel(),
    )
