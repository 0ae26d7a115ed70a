"""`make demo`: two small networks on scanned digits, one hardened by FGSM examples, audited side by side."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from steepest.app import console
from steepest.attacks.api import fgsm
from steepest.audit.api import AuditRun, audit
from steepest.audit.data import open_data
from steepest.budgets.linf import Linf
from steepest.models.model import Model
from steepest.report.run import report
from steepest.report.wording import percent

FOLDER = Path("demo-runs")
BUDGET = Linf(0.2)
HELD_OUT = 500
EPOCHS, BATCH, RATE = 12, 64, 3e-3


def main() -> None:
    """Train, audit, print both results side by side, and say where the reports are."""
    begin = time.perf_counter()
    torch.set_num_threads(1)  # networks this small only lose by sharing their work
    shutil.rmtree(FOLDER, ignore_errors=True)
    source = open_data("digits")
    x, y = source.fetch(torch.arange(len(source))), source.labels
    # The scans come in the writers' order: hold out every fourth one, so that no writer is missing in either part.
    held = torch.arange(len(y)) % (len(y) // HELD_OUT + 1) == 0
    console.say(f"{int((~held).sum())} digits of 8×8 to learn from, {int(held.sum())} held out; budget: {BUDGET!r}")
    found = {}
    with console.Terminal() as terminal:
        for name, budget in (("plain", None), ("hardened", BUDGET)):
            terminal.begin(f"training {name}", EPOCHS)
            network = trained(x[~held], y[~held], budget, terminal)
            terminal.end()
            found[name] = audit(
                Model(network), (x[held], y[held]), BUDGET, preset="quick", out=FOLDER / name, progress=terminal
            )
    pages = [report(run) for run in found.values()]
    show(found)
    console.say(f"\n{time.perf_counter() - begin:.0f} seconds. The reports:")
    for page in pages:
        console.say(str(page))


def trained(x: Tensor, y: Tensor, budget: Linf | None, progress: console.Terminal) -> nn.Module:
    """Return a small CNN trained on x, and with a budget also on the FGSM points of every batch.

    Source of the second: Goodfellow, Shlens & Szegedy 2015, section 6.
    """
    torch.manual_seed(0)
    network = small_cnn()
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(y)), BATCH):
            seen, wanted = x[rows], y[rows]
            if budget is not None:
                seen = torch.cat([seen, fgsm(Model(network), seen, wanted, budget, objective="ce")])
                wanted = torch.cat([wanted, wanted])
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(seen), wanted).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        progress.advance(1)
    return network.eval()


def small_cnn() -> nn.Sequential:
    """Return an untrained network for images of 1×8×8 and ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def show(found: dict[str, AuditRun]) -> None:
    """Print the two results side by side."""
    rows = []
    for name, run in found.items():
        (after_fgsm,) = [row["fgsm"] for row in run.summary["curve"] if row["epsilon"] == run.summary["epsilon"]]
        rows.append((name, percent(run.clean_accuracy), percent(after_fgsm), percent(run.robust_accuracy)))
    console.say()
    console.show_table(("network", "clean accuracy", "after FGSM", "robust accuracy at most"), rows)


if __name__ == "__main__":
    main()
