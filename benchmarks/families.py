"""The attacks of every family against the libraries that have them: same network, same steps, same run."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from tests.rivals import advlib
from tests.rivals.libraries import foolbox_model
from torch import Tensor, nn

import steepest as st
from benchmarks.contract import Result, Row
from benchmarks.nets import CASES, Case, images, own_answer
from benchmarks.timing import Contender, in_turns, rounds_of
from steepest.budgets.contract import Budget

STEPS, EPS = 10, 8 / 255
SMALL = replace(CASES[1], name="small CNN, batch 64", batch=(64, 1, 28, 28))
"""Where the searches themselves weigh most beside the network."""

Maker = Callable[[nn.Module, Tensor, Tensor], Contender]

OURS: Mapping[str, tuple[str, Budget]] = {
    "APGD-CE L∞": (f"apgd(steps={STEPS}, objective='ce')", st.Linf(EPS)),
    "MI-FGSM": (f"mi-fgsm(steps={STEPS})", st.Linf(EPS)),
    "NI-FGSM": (f"ni-fgsm(steps={STEPS})", st.Linf(EPS)),
    "SI-NI-FGSM": (f"mi-fgsm(steps={STEPS}, nesterov=True, scales=5)", st.Linf(EPS)),
    "VMI-FGSM": (f"vmi-fgsm(steps={STEPS // 2}, variance=5)", st.Linf(EPS)),
    "DDN": (f"ddn(steps={STEPS})", st.L2(100.0)),
    "FMN L2": (f"fmn(steps={STEPS})", st.L2(100.0)),
    "FMN L∞": (f"fmn(steps={STEPS})", st.Linf(1.0)),
    "DeepFool L2": (f"deepfool(steps={STEPS})", st.L2(100.0)),
    "C&W L2": (f"cw(steps={STEPS}, searches=2)", st.L2(100.0)),
    "EAD": (f"ead(steps={STEPS}, searches=2)", st.L1(1000.0)),
    "sigma-zero": (f"sigma-zero(steps={STEPS})", st.L0(1000)),
    "Square L∞": ("square(queries=100)", st.Linf(EPS)),
}


def _advlib(call: str, **given: object) -> Maker:
    def make(net: nn.Module, x: Tensor, y: Tensor) -> Contender:
        attack = getattr(advlib.attacks(), call)
        return lambda: attack(net, x, y, **given)

    return make


def _torchattacks(call: str, **given: object) -> Maker:
    def make(net: nn.Module, x: Tensor, y: Tensor) -> Contender:
        import torchattacks

        attack = getattr(torchattacks, call)(net, **given)
        return lambda: attack(x, y)

    return make


def _foolbox(call: str, **given: object) -> Maker:
    def make(net: nn.Module, x: Tensor, y: Tensor) -> Contender:
        import foolbox

        attack, model = getattr(foolbox.attacks, call)(**given), foolbox_model(net)
        return lambda: attack(model, x, y, epsilons=None)

    return make


def _art(call: str, **given: object) -> Maker:
    def make(net: nn.Module, x: Tensor, y: Tensor) -> Contender:
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        estimator = PyTorchClassifier(
            net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        attack = getattr(evasion, call)(estimator, batch_size=len(x), verbose=False, **given)
        return lambda: attack.generate(x.numpy(), y.numpy())

    return make


_WALK = {"eps": EPS, "alpha": EPS / STEPS, "steps": STEPS}
THEIRS: Mapping[str, Mapping[str, Maker]] = {
    "APGD-CE L∞": {
        "adv-lib": _advlib("apgd", eps=EPS, norm=float("inf"), n_iter=STEPS, loss_function="ce"),
        "torchattacks": _torchattacks("APGD", eps=EPS, steps=STEPS, loss="ce"),
        "ART": _art(
            "AutoProjectedGradientDescent", eps=EPS, eps_step=2 * EPS, max_iter=STEPS, nb_random_init=1,
            loss_type="cross_entropy",
        ),
    },
    "MI-FGSM": {"torchattacks": _torchattacks("MIFGSM", **_WALK)},
    "NI-FGSM": {"torchattacks": _torchattacks("NIFGSM", **_WALK)},
    "SI-NI-FGSM": {"torchattacks": _torchattacks("SINIFGSM", **_WALK)},
    "VMI-FGSM": {
        "torchattacks": _torchattacks("VMIFGSM", eps=EPS, alpha=2 * EPS / STEPS, steps=STEPS // 2, N=5)
    },
    "DDN": {"adv-lib": _advlib("ddn", steps=STEPS), "Foolbox": _foolbox("DDNAttack", steps=STEPS)},
    "FMN L2": {"adv-lib": _advlib("fmn", norm=2, steps=STEPS), "Foolbox": _foolbox("L2FMNAttack", steps=STEPS)},
    "FMN L∞": {
        "adv-lib": _advlib("fmn", norm=float("inf"), steps=STEPS),
        "Foolbox": _foolbox("LInfFMNAttack", steps=STEPS),
    },
    "DeepFool L2": {
        "adv-lib": _advlib("df", norm=2, steps=STEPS),
        "Foolbox": _foolbox("L2DeepFoolAttack", steps=STEPS),
    },
    "C&W L2": {
        "adv-lib": _advlib("carlini_wagner_l2", binary_search_steps=2, max_iterations=STEPS, abort_early=False),
        "Foolbox": _foolbox("L2CarliniWagnerAttack", binary_search_steps=2, steps=STEPS, abort_early=False),
    },
    "EAD": {"Foolbox": _foolbox("EADAttack", binary_search_steps=2, steps=STEPS, abort_early=False)},
    "sigma-zero": {"adv-lib": _advlib("sigma_zero", num_steps=STEPS)},
    "Square L∞": {
        "torchattacks": _torchattacks("Square", eps=EPS, n_queries=100, resc_schedule=False),
        "ART": _art("SquareAttack", eps=EPS, max_iter=100),
    },
}  # fmt: skip
_MODULES = {"adv-lib": "adv_lib", "torchattacks": "torchattacks", "Foolbox": "foolbox", "ART": "art"}


def families(effort: float = 1.0) -> Result:
    """Wall time of ours over theirs, and the peak of the resident set of each in a process of its own."""
    return Result(
        title="Every family against the libraries that have it",
        note=f"{STEPS} steps ({STEPS // 2} for VMI-FGSM, 100 queries for Square, 2 searches of {STEPS} for C&W and "
        f"EAD), ε = 8/255 where there is one, parameters requiring gradients as users have them. Labels are the "
        "network's own answers. Ours judges every point and drops what is solved; most of the others neither judge "
        "the last point nor drop. Peak: largest resident set of a fresh process that makes the network, the images "
        "and one call, ours over theirs. C&W and EAD of the others run without their early abort, which ends a "
        "whole batch.",
        rows=tuple(_rows(SMALL, effort)),
    )


def _rows(case: Case, effort: float) -> list[Row]:
    rows = []
    for name in OURS:
        libraries = [library for library in THEIRS[name] if find_spec(_MODULES[library])]
        contenders = {who: _made(name, who, case) for who in ("ours", *libraries)}
        times = in_turns(contenders, rounds_of(case.rounds // 3, effort))
        peaks = {who: _peak(name, who) for who in contenders}
        for library in libraries:
            value, spread = times.ratio("ours", library)
            rows.append(Row(what=f"{name}, {case.name}", against=library, value=value, spread=spread))
            rows.append(Row(what=f"{name}, peak memory", against=library, value=peaks["ours"] / peaks[library]))
    return rows


def _made(name: str, who: str, case: Case) -> Contender:
    torch.manual_seed(0)
    net, x = case.network(), images(*case.batch)
    y = own_answer(net, x)
    if who != "ours":
        return THEIRS[name][who](net, x, y)
    call, budget = OURS[name]
    attack, model = st.recipes.ATTACKS.build(call), st.Model(net)
    return lambda: st.attack(attack, model, x, y, budget, objective="ce")


def _peak(name: str, who: str) -> float:
    command = [sys.executable, "-m", "benchmarks.families", name, who]
    asked = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(asked.stdout.split()[-1])


def _resident() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    torch.set_num_threads(1)
    _made(sys.argv[1], sys.argv[2], SMALL)()
    print(_resident())
