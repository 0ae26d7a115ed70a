"""What the panel and an audit say of a network of the zoo: the tests judge it, and the documentation shows it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

import steepest as st
from steepest.audit.api import AuditRun
from steepest.budgets.linf import Linf
from steepest.diagnose.contract import Finding, Level, Verdict
from steepest.diagnose.panel import examine, named
from steepest.diagnose.probe import Probe
from steepest.diagnose.verdict import verdict
from steepest.models.inspection import inspected
from steepest.models.model import Model
from tests.planted.zoo.bases import base
from tests.planted.zoo.data import digits
from tests.planted.zoo.record import Defence

LADDERS = {"fgsm": {"attacks": "fgsm", "objective": "ce"}, "quick": {"preset": "quick"}}
"""How the naive measure: one step on the cross-entropy, or a short ladder."""

NAIVE = {"masking": "ce", "loss artefact": "ce"}
"""What the naive ascend, by group; elsewhere the default."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The findings by check, and what they add up to."""

    findings: dict[str, Finding]
    verdict: Verdict

    def flags(self) -> dict[str, str]:
        """Return the checks that raise their hand, with how bad it is."""
        return {
            name: found.level.value for name, found in self.findings.items() if found.level in (Level.WARN, Level.FAIL)
        }


def judged(
    network: nn.Module,
    epsilon: float,
    count: int,
    *,
    checks: tuple[str, ...] | None = None,
    objective: str = "scaled-ce",
    seed: int = 0,
    seconds: float = 2.0,
    dtype: torch.dtype = torch.float32,
) -> Judged:
    """Return what checks, all if left out, find on `count` held-out digits."""
    x, y = digits().held_out(count)
    x = x.to(dtype)
    model = inspected(Model(network), x)
    probe = Probe(model, x, y, Linf(epsilon), objective=objective, seed=seed, seconds=seconds)
    findings = tuple(examine(probe, named(checks)))
    return Judged(findings={each.check: each for each in findings}, verdict=verdict(findings))


def of(defence: Defence, count: int, *, seed: int = 0) -> Judged:
    """Return what the panel finds of a defence that is measured as the naive measure its group."""
    objective = NAIVE.get(defence.group, "scaled-ce")
    return judged(defence.make(base()), defence.epsilon, count, objective=objective, seed=seed)


def audited_on(
    network: nn.Module,
    data: tuple[Tensor, Tensor],
    epsilon: float,
    ladder: str,
    *,
    diagnose: bool = True,
    seed: int = 0,
) -> AuditRun:
    """Return an audit by a naive ladder or a preset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of gradients that are zero or not finite: they are meant
        return st.audit(
            Model(network),
            data,
            Linf(epsilon),
            batch_size=len(data[1]),
            diagnose=diagnose,
            seed=seed,
            **LADDERS.get(ladder, {"preset": ladder}),
        )


def audited(network: nn.Module, epsilon: float, count: int, ladder: str, *, diagnose: bool = True) -> AuditRun:
    """Return an audit of `count` held-out digits."""
    return audited_on(network, digits().held_out(count), epsilon, ladder, diagnose=diagnose)


@cache
def undefended(epsilon: float, count: int) -> float:
    """Return the robust accuracy of the base network, which hides nothing."""
    return audited(base(), epsilon, count, "standard", diagnose=False).robust_accuracy


def reference(defence: Defence, count: int) -> float:
    """Return what a mended number should reach: that of the base, or of weights of its own after a thorough audit."""
    if not defence.own_weights:
        return undefended(defence.epsilon, count)
    return audited(defence.make(base()), defence.epsilon, count, "thorough", diagnose=False).robust_accuracy


def first(run: AuditRun) -> float:
    """Return the robust accuracy as the ladder itself measured it."""
    mended = run.summary["mended"]
    return float(run.robust_accuracy if mended is None else mended["first"]["robust_accuracy"])
