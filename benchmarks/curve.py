"""Accuracy at 32 values of ε: one backward for all of them, against one for each."""

from __future__ import annotations

from tests.rivals.libraries import LIBRARIES, foolbox_model
from torch import Tensor, nn

import steepest as st
from benchmarks.contract import Result, Row
from benchmarks.nets import CASES, Case
from benchmarks.timing import in_turns, rounds_of

COUNT = 32
LARGEST = 0.02


def curve(effort: float = 1.0) -> Result:
    """The whole curve against Foolbox's FGSM with 32 epsilons; and what bisection to 1/1000 of the range adds."""
    installed = any(library.name == "Foolbox" and library.installed for library in LIBRARIES)
    return Result(
        title=f"Accuracy at {COUNT} values of ε",
        note="`st.curve` with cross-entropy and without bisection against Foolbox's `LinfFastGradientAttack` with "
        "the same 32 epsilons, whose 32 backwards it does not need. Accuracies are compared at every ε, in examples. "
        "The network is as users have it, its parameters requiring gradients, which Foolbox then computes; and once "
        "more with frozen parameters, where 32 forwards alone are nearly a third of what Foolbox does. Bisection is "
        "counted in forwards per example beyond the grid's."
        + ("" if installed else " Foolbox is not installed here, so only the bisection was counted."),
        rows=tuple(row for case in CASES for row in _rows(case, installed, effort)),
    )


def _rows(case: Case, installed: bool, effort: float) -> list[Row]:
    net, x, y = case.made()
    model, budget = st.Model(net, box=(0, 1)), st.Linf(LARGEST)
    rows = []
    for state, gradients in (("", True), (", parameters frozen", False)):
        net.requires_grad_(gradients)
        rows += _compared(case.name + state, (net, x, y), rounds_of(case.rounds, effort / 3)) if installed else []
    for name, factors in (("a grid of 32", None), ("one value of ε", [1.0])):
        refined = st.curve(model, x, y, budget, factors=factors, tolerance=1e-3)
        more = float((refined.forwards - 1 - len(refined.factors)).max())
        what = f"bisection to 1/1000 from {name}, {case.name}"
        rows.append(Row(what=what, against="the grid alone", value=more, target=12, unit="forwards more"))
    return rows


def _compared(name: str, material: tuple[nn.Module, Tensor, Tensor], rounds: int) -> list[Row]:
    import foolbox

    net, x, y = material
    model, budget = st.Model(net, box=(0, 1)), st.Linf(LARGEST)
    epsilons = [LARGEST * (k / COUNT) for k in range(1, COUNT + 1)]
    attack, theirs = foolbox.attacks.LinfFastGradientAttack(), foolbox_model(net)

    def one_gradient() -> st.Curve:
        return st.curve(model, x, y, budget, objective="ce", tolerance=None)

    def many_gradients() -> Tensor:
        broken: Tensor = attack(theirs, x, y, epsilons=epsilons)[2]
        return broken

    times = in_turns({"ours": one_gradient, "theirs": many_gradients}, rounds)
    value, spread = times.ratio("theirs", "ours")
    apart = (one_gradient().broken.T.sum(1) - many_gradients().sum(1)).abs().max()
    end = float(one_gradient().accuracy[-1])
    return [
        Row(what=f"Foolbox, {name}", against="st.curve", value=value, target=3, at_least=True, spread=spread),
        Row(what=f"accuracies apart, {name} (from 1 to {end:.2f})", against="Foolbox", value=float(apart),
            target=0, unit="examples"),
    ]  # fmt: skip
