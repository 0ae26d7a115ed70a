"""A small model and data on disk, and what it means to be answered or refused by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

from steepest.app.cli import app

COUNT, CLASSES, SIDE = 60, 3, 4
ASK = ("net.py:make", "data.npz", "--budget", "linf:0.1")
QUICK = ("--preset", "quick", "--batch-size", "16")

NET = '''
import os, time
import torch
from torch import nn

PROTOTYPES = {prototypes}

class Net(nn.Module):
    """Nearest prototype, as a linear layer; slow on request, so that a test can interrupt it."""

    def __init__(self, shift=0.0):
        super().__init__()
        prototypes = torch.tensor(PROTOTYPES)
        self.linear = nn.Linear({size}, {classes})
        self.linear.weight = nn.Parameter(prototypes)
        self.linear.bias = nn.Parameter(shift - prototypes.square().sum(1) / 2)

    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW_NET", "0")))
        return 8 * self.linear(x.flatten(1))

def make():
    return Net()

def probabilities():
    net = Net()
    return lambda x: net(x).softmax(1)

def restless():
    net = Net()
    return lambda x: net(x) + 0.3 * torch.rand(x.shape[0], 1)

def one_output():
    net = Net()
    return lambda x: net(x)[:, 0]

def whole():
    return lambda x: x

def broken_off_the_data():
    """Answers NaN wherever a pixel is not a level of 1/255."""
    net = Net()
    levels = lambda x: ((255 * x - (255 * x).round()).abs() < 1e-3).flatten(1).all(1)
    return lambda x: torch.where(levels(x)[:, None], net(x), torch.nan)

def broken_on_some():
    net = Net()
    return lambda x: torch.where(x[:, 0, 0, :1] > 0.5, net(x), torch.nan)

def crashing():
    raise RuntimeError("the factory fails")

def rounded():
    net = Net()
    return lambda x: net((8 * x).round() / 8)

def detached():
    net = Net()
    return lambda x: net(x.detach())

def reversed_classes():
    net = Net()
    return lambda x: -net(x)
'''


def images() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Prototypes [K, d] in [0, 1], images uint8 [N, 4, 4] near them, labels."""
    rng = np.random.default_rng(0)
    prototypes = rng.integers(60, 196, (CLASSES, SIDE * SIDE))
    labels = np.arange(COUNT) % CLASSES
    pixels = (prototypes[labels] + rng.normal(0, 35, (COUNT, SIDE * SIDE))).clip(0, 255).astype(np.uint8)
    return prototypes / 255, pixels.reshape(COUNT, SIDE, SIDE), labels


def furnish(folder: Path) -> Path:
    """Write net.py and data.npz."""
    prototypes, pixels, labels = images()
    text = NET.format(prototypes=prototypes.round(4).tolist(), size=SIDE * SIDE, classes=CLASSES)
    (folder / "net.py").write_text(text, encoding="utf-8")
    np.savez(folder / "data.npz", images=pixels, labels=labels)
    return folder


def steepest(*words: str) -> Result:
    """Answer one command line, in this process."""
    return CliRunner().invoke(app, list(words), prog_name="steepest")


def answered(*words: str) -> Result:
    """The answer to a command that must succeed."""
    result = steepest(*words)
    assert result.exit_code == 0, result.output
    return result


def asked_json(*words: str) -> dict[str, Any]:
    """The one JSON object on stdout."""
    found = json.loads(answered(*words, "--json").stdout)
    assert isinstance(found, dict)
    return found


def refused(*words: str, says: tuple[str, ...], code: int = 2) -> Result:
    """The answer to a command that must fail with one line, without a number, and leave nothing behind."""
    before = tree(Path.cwd())
    result = steepest(*words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    for part in says:
        assert part in line, line
    assert tree(Path.cwd()) == before
    return result


def tree(folder: Path) -> dict[str, int]:
    """Every file and folder below, with its time of change; caches of Python apart."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts and path.is_file()
    }
