"""AutoAttack: the reference protocol, assembled from this catalogue's parts with the published settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from steepest.attacks.best import Best
from steepest.attacks.contract import AttackResult, Problem
from steepest.attacks.fitting import require_fit
from steepest.attacks.loop import require_feasible
from steepest.attacks.recipe import ATTACKS, recipe, result_of
from steepest.basis.errors import unknown
from steepest.budgets.catalogue import kind_of

PROTOCOLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "standard": {
        "": (
            "apgd(steps=100, objective='ce')",
            "apgd(steps=100, objective='dlr', targets=9)",
            "fab(steps=100, targets=9)",
            "square(queries=5000)",
        ),
        "l1": (
            "apgd(steps=100, restarts=5, objective='ce')",
            "apgd(steps=100, objective='dlr', targets=5)",
            "fab(steps=100, targets=9)",
            "square(queries=5000)",
        ),
    },
    "plus": {
        "": (
            "apgd(steps=100, restarts=5, objective='ce')",
            "apgd(steps=100, restarts=5, objective='dlr')",
            "fab(steps=100, restarts=5)",
            "square(queries=5000)",
            "apgd(steps=100, objective='dlr', targets=9)",
            "fab(steps=100, targets=9)",
        ),
    },
    "rand": {
        "": ("apgd(steps=100, objective='ce', draws=20)", "apgd(steps=100, objective='dlr', draws=20)"),
    },
}
"""Version → kind of budget ("" for all that have no line of their own) → stages in order, as published."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AutoAttack:
    """Stages in order; each sees the examples that none before it broke. Satisfies `Attack`.

    Attributes:
        version: which of `PROTOCOLS`.
        call, needs, budgets: from the catalogue; see `Attack`.
    """

    version: str
    call: str = ""
    needs: str = "gradient"
    budgets: tuple[str, ...] = field(default=())
    is_fgsm: bool = False

    def stages(self, kind: str) -> tuple[str, ...]:
        """Return the calls of the stages for a kind of budget; those that do not serve it are left out."""
        lines = PROTOCOLS[self.version]
        return lines.get(kind, lines[""])

    def run(self, problem: Problem, seed: int = 0, *, judge_x: bool = False) -> AttackResult:
        """Attack every example of the problem: one question at x, then the stages; see `Attack.run`."""
        kind, x = kind_of(problem.region.budget), problem.region.x
        require_fit(self, problem.region.budget, problem.model.facts.answers, ATTACKS)
        best, notes = Best.none_yet(x), list[str]()
        with problem.model.borrowed(seed), torch.no_grad():
            problem = self._judged_at_x(problem, best)
            for number, text in enumerate(self.stages(kind)):
                stage = ATTACKS.build(text)
                if stage.budgets and kind not in stage.budgets:
                    notes.append(f"{text} does not serve {kind} and was left out")
                    continue
                live = (~best.won if problem.drop_solved else torch.ones_like(best.won)).nonzero().squeeze(1)
                if not live.numel():
                    break
                part = replace(problem, stream=problem.stream.split(number)).rows(live)
                found = stage.run(part, seed)
                notes += [note for note in found.notes if note not in notes]
                known = best.rows(live)
                known.merge(part, _as_best(found))
                best.take(live, known)
        gauge = require_feasible(problem, best.point, self.call)
        return replace(result_of(problem, best, gauge, self.call, seed), notes=tuple(notes))

    def _judged_at_x(self, problem: Problem, best: Best) -> Problem:
        if problem.clean is not None:
            return problem
        found = problem.model.evaluate(problem.region.x, problem.y, problem.objective, problem.goal)
        best.spend(found)
        best.learn(problem, found)
        return replace(problem, clean=found.outputs)


def _as_best(found: AttackResult) -> Best:
    """Return a stage's result as the state that the next stage continues."""
    nothing = torch.zeros_like(found.forwards)
    blind = (found.status == 2).long()
    return Best(
        point=found.point, won=found.won, value=found.value.double().nan_to_num(-torch.inf),
        outputs=found.outputs if found.outputs.shape[1] else None, gauge=found.gauge, radius=found.radius,
        forwards=found.forwards, backwards=found.backwards, asked=_asked(found), zero=blind,
        nonfinite=(found.status == 3) | nothing.bool(),
    )  # fmt: skip


def _asked(found: AttackResult) -> Tensor:
    return (found.backwards > 0).long()


@recipe(
    "autoattack",
    needs="gradient",
    cost="standard: 6,900 F + 1,900 B; plus: about 3 times; rand: 4,000 F + 4,000 B",
    source="Croce & Hein 2020, 2021",
)
def autoattack(version: str = "standard") -> AutoAttack:
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square in a row, as published; also "plus" and "rand"."""
    if version not in PROTOCOLS:
        raise unknown("version of autoattack", version, PROTOCOLS)
    return AutoAttack(version=version)
