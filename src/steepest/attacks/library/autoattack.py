"""AutoAttack: the reference protocol, assembled from this catalogue's parts with the published settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from steepest.attacks.best import Best
from steepest.attacks.checks import whole
from steepest.attacks.contract import AttackResult, Problem
from steepest.attacks.fitting import admits, require_fit
from steepest.attacks.library.apgd import apgd
from steepest.attacks.library.fab import fab
from steepest.attacks.library.square import square
from steepest.attacks.loop import require_feasible
from steepest.attacks.recipe import ATTACKS, Recipe, recipe, result_of, with_clean_answer
from steepest.basis.errors import unknown
from steepest.budgets.catalogue import kind_of
from steepest.models.expected import Expected
from steepest.models.objectives import Targeted

VERSIONS = ("standard", "plus", "rand")
DRAWS = 20
"""How many answers of a random model the version for those averages."""

RESTARTS, TARGETS = {"l1": 5}, {"l1": 5}
"""What the standard version does otherwise for some kinds of budget: restarts of APGD-CE, targets of APGD-T."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AutoAttack:
    """Stages in order; each sees the examples that none before it broke. Satisfies `Attack`.

    Attributes:
        version: "standard", "plus" or "rand".
        steps, queries: of the gradient searches and of Square.
        call, needs, budgets: from the catalogue; see `Attack`.
    """

    version: str
    steps: int
    queries: int
    call: str = ""
    needs: str = "gradient"
    budgets: tuple[str, ...] = ()
    is_fgsm: ClassVar[bool] = False

    def stages(self, kind: str) -> tuple[Recipe, ...]:
        """Return the published stages in order, for a kind of budget."""
        n = self.steps
        if self.version == "rand":
            mean = Expected(DRAWS)
            return tuple(replace(apgd(steps=n, objective=name), oracle=mean) for name in ("ce", "dlr"))
        last = square(queries=self.queries)
        if self.version == "plus":
            ce, dlr = (apgd(steps=n, restarts=5, objective=name) for name in ("ce", "dlr"))
            wide, narrow = fab(steps=n, restarts=5, closing=0), fab(steps=n, targets=9, closing=0)
            return (ce, dlr, replace(wide, once=True), last, apgd(steps=n, targets=9), replace(narrow, once=True))
        return (
            apgd(steps=n, restarts=RESTARTS.get(kind, 1), objective="ce"),
            apgd(steps=n, targets=TARGETS.get(kind, 9)),
            replace(fab(steps=n, targets=9, closing=0), once=True),
            last,
        )

    def run(self, problem: Problem, seed: int = 0, *, judge_x: bool = False) -> AttackResult:
        """Attack every example of the problem: one question at x, then the stages; see `Attack.run`."""
        require_fit(self, problem.region.budget, problem.model.facts.answers, ATTACKS)
        kind, best, notes = kind_of(problem.region.budget), Best.none_yet(problem.region.x), list[str]()
        with problem.model.borrowed(seed), torch.no_grad():
            problem = with_clean_answer(problem, best)
            for number, stage in enumerate(self.stages(kind)):
                if not admits(", ".join(stage.budgets) or "any", kind):
                    notes.append(f"{stage.call} does not serve {kind} and was left out")
                    continue
                if stage.untargeted and isinstance(problem.objective, Targeted):
                    notes.append(f"{stage.call} cannot aim at a class and was left out")
                    continue
                live = (~best.won if problem.drop_solved else torch.ones_like(best.won)).nonzero().squeeze(1)
                if not live.numel():
                    break
                part = replace(problem, stream=problem.stream.split(number)).rows(live)
                found, known = stage.explore(part), best.rows(live)
                notes += [note for note in stage.notes(part, found) if note not in notes]
                known.merge(part, found)
                best.take(live, known)
        gauge = require_feasible(problem, best.point, self.call)
        return replace(result_of(problem, best, gauge, self.call, seed), notes=tuple(notes))


@recipe(
    "autoattack",
    needs="gradient",
    cost="standard 7,820 F + 1,900 B; plus 10,950 F + 7,900 B; rand 4,040 F + 4,000 B, for ten classes",
    source="Croce & Hein 2020; 2021 for L1",
)
def autoattack(version: str = "standard", steps: int = 100, queries: int = 5000) -> AutoAttack:
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square in a row, as published; also "plus" and "rand".

    Each stage gets what the ones before it left. With few classes the margin takes the place of dlr (K < 3, targeted
    K < 4) and there are K − 1 targets; stages that do not serve the budget are left out; the notes say both. The
    version "rand" averages 20 answers of a random model. Gradients: one less per run than the published code, which
    asks for a last one that it never uses. `steps` and `queries` are for trying it out; other values are no AutoAttack.
    """
    if version not in VERSIONS:
        raise unknown("version", version, VERSIONS)
    whole("autoattack", "steps", steps, 1)
    whole("autoattack", "queries", queries, 1)
    return AutoAttack(version=version, steps=steps, queries=queries)
