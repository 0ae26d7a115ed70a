"""`steepest doctor`: what is installed, and whether it computes what is known in closed form."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import typer

from steepest.app import console
from steepest.app.exits import CRASH
from steepest.attacks.api import fgsm
from steepest.basis.version import VERSION
from steepest.budgets.linf import Linf
from steepest.budgets.region import Region
from steepest.models.model import Model

_PACKAGES = ("torch", "numpy", "scipy", "pyarrow", "pillow", "onnx", "onnx2fx", "onnxruntime", "safetensors", "typer")


def run(*, as_json: bool) -> None:
    """Print facts and the outcome of the self-test; exit with 1 if it failed."""
    facts = _facts()
    tests = self_test("cpu")
    if torch.cuda.is_available():
        tests |= {f"{name}, on CUDA": passed for name, passed in self_test("cuda").items()}
    passed = all(tests.values())
    if as_json:
        console.show_json({**facts, "self_test": tests, "ok": passed})
    else:
        outcome = [(name, "ok" if well else "failed") for name, well in tests.items()]
        console.show_table(("", ""), [*((name, str(value)) for name, value in facts.items()), *outcome])
    if not passed:
        raise typer.Exit(CRASH)


def self_test(device: str) -> dict[str, bool]:
    """Return what holds of FGSM on a linear model, where everything is known.

    With logits (0, w·x) and ε small enough to stay in the box, the margin falls by exactly ε‖w‖₁.
    """
    w = torch.tensor([0.5, -2.0, 0.25, 1.0], device=device)
    model = Model(lambda x: torch.stack([torch.zeros_like(x[:, 0]), x @ w], 1))
    x, y = torch.full((3, 4), 0.5, device=device), torch.zeros(3, dtype=torch.int64, device=device)
    budget = Linf(0.125)
    found = fgsm(model, x, y, budget)
    gain = (found - x) @ w
    again = fgsm(model, x, y, budget)
    return {
        "FGSM gains ε‖w‖₁": bool((gain - 0.125 * w.abs().sum()).abs().max() < 1e-6),
        "its points are feasible exactly": bool(Region(budget, model.box, x).contains(found).all()),
        "the same question, the same answer": torch.equal(found, again),
    }


def _facts() -> dict[str, Any]:
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "not available"
    return {
        "steepest": VERSION,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": cuda,
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
