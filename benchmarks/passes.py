"""What an attack costs beyond the passes that it cannot avoid."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import steepest as st
from benchmarks.contract import Result, Row
from benchmarks.nets import CASES, Case
from benchmarks.timing import in_turns, rounds_of
from steepest.attacks.api import pose

TINY = 1e-6
"""So small a budget breaks no example, so that none leaves the batch and every pass is of full size."""


def input_gradient(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The plain PyTorch that everything is compared with; the parameters are frozen."""
    point = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(net(point), y, reduction="sum"), point)
    return gradient


def forward(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = net(x)
    return outputs


def passes(effort: float = 1.0) -> Result:
    """PGD-10 against 10 input-gradients and 1 forward, FGSM against 1 and 1."""
    return Result(
        title="Attacks against the passes they need",
        note="The passes are plain PyTorch in the same run: parameters frozen, evaluation mode, cross-entropy, "
        "`torch.autograd.grad` for the input alone. No example is ever broken, so none leaves the batch. "
        "`st.attack` also judges x where a search began elsewhere: PGD makes one forward more than it is compared "
        "with; `recipe.run`, which an audit calls, does not. `st.fgsm` returns the point without judging it.",
        rows=tuple(row for case in CASES for row in _rows(case, effort)),
    )


def _rows(case: Case, effort: float) -> list[Row]:
    net, x, y = case.made()
    model, budget = st.Model(net, box=(0, 1)), st.Linf(TINY)
    pgd = st.recipes.pgd(steps=10)
    times = in_turns(
        {
            "PGD-10, st.attack": lambda: st.attack(pgd, model, x, y, budget),
            "PGD-10, recipe.run": lambda: pgd.run(pose(model, x, y, budget)),
            "FGSM, st.attack": lambda: st.attack("fgsm", model, x, y, budget),
            "FGSM, st.fgsm": lambda: st.fgsm(model, x, y, budget),
            "10 G + 1 F": lambda: ([input_gradient(net, x, y) for _ in range(10)], forward(net, x)),
            "1 G + 1 F": lambda: (input_gradient(net, x, y), forward(net, x)),
            "1 G": lambda: input_gradient(net, x, y),
        },
        rounds_of(case.rounds, effort),
    )
    rows = []
    for what, against, target in (
        ("PGD-10, st.attack", "10 G + 1 F", case.target),
        ("PGD-10, recipe.run", "10 G + 1 F", case.target),
        ("FGSM, st.attack", "1 G + 1 F", case.target),
        ("FGSM, st.fgsm", "1 G", None),
    ):
        value, spread = times.ratio(what, against)
        rows.append(Row(what=f"{what}, {case.name}", against=against, value=value, target=target, spread=spread))
    return rows
