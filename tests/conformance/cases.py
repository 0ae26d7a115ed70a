"""Small networks, inputs and calls that every law is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steepest.attacks.api import attack
from steepest.attacks.contract import AttackResult
from steepest.attacks.recipes import ATTACKS, at_x
from steepest.budgets.contract import Budget
from steepest.models.model import Model
from tests.tables import budgets

SHAPES = {"vector K=2": ((4,), 2), "series K=3": ((3, 4), 3), "image K=10": ((2, 5, 5), 10)}
SMALL = {"steps": 4, "restarts": 2, "points": 6}
EPSILON = 0.3


def call(name: str, **given: Any) -> str:
    """The catalogued call with small arguments, where the recipe has them."""
    known = ATTACKS.entry(name).parameters
    # What a recipe does not have is left out, so that one set of arguments serves all.
    chosen = {key: value for key, value in {**SMALL, **given}.items() if key in known}
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in chosen.items())})"


NAMES = ATTACKS.names()
CALLS = {name: call(name) for name in NAMES}
GRADIENT = [entry.name for entry in ATTACKS if entry.facts["needs"] == "gradient"]


def starts_at_x(text: str) -> bool:
    return ATTACKS.build(text).start is at_x


@dataclass(frozen=True)
class Case:
    """A network, inputs in [0, 1] and labels; the model is wrong about the last example."""

    network: nn.Module
    x: Tensor
    y: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def budget(self, name: str, eps: float = EPSILON) -> Budget:
        return budgets(self.shape, eps)[name]

    def attack(self, text: str, budget: str | Budget = "linf", **options: Any) -> AttackResult:
        chosen = self.budget(budget) if isinstance(budget, str) else budget
        return attack(text, Model(self.network), self.x, self.y, chosen, **options)

    def rows(self, index: list[int]) -> Case:
        return Case(self.network, self.x[index], self.y[index])

    def margin(self, x: Tensor) -> Tensor:
        """The negative margin, computed without any code of ours."""
        with torch.no_grad():
            z = self.network(x).float() if x.dtype in (torch.float16, torch.bfloat16) else self.network(x)
        own = torch.nn.functional.one_hot(self.y, z.shape[1]).bool()
        return (z.masked_fill(own, -torch.inf).amax(1) - z[own]).double()


def layers(shape: tuple[int, ...], classes: int, seed: int) -> nn.Sequential:
    """A small smooth network with random weights; images go through a convolution."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        size = int(torch.Size(shape).numel())
        if len(shape) == 3:
            front: list[nn.Module] = [nn.Conv2d(shape[0], 3, 3), nn.Tanh(), nn.Flatten()]
            size = 3 * (shape[1] - 2) * (shape[2] - 2)
        else:
            front = [nn.Flatten()]
        return nn.Sequential(*front, nn.Linear(size, 12), nn.Tanh(), nn.Linear(12, classes)).eval()


def case(kind: str = "series K=3", dtype: torch.dtype = torch.float64, *, seed: int = 0, count: int = 6) -> Case:
    shape, classes = SHAPES[kind]
    network = layers(shape, classes, seed).to(dtype)
    x = torch.rand(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
    with torch.no_grad():
        y = network(x).argmax(1)
    if count:
        y[-1] = (y[-1] + 1) % classes
    return Case(network, x, y)


def line(w: list[float], *, dtype: torch.dtype = torch.float64, reach: float = 0.5, count: int = 3) -> Case:
    """A linear model at x = ½ that is fooled exactly when ⟨w, δ⟩ < −`reach`."""
    weights = torch.tensor(w, dtype=dtype)
    network = nn.Linear(len(w), 2).to(dtype)
    with torch.no_grad():
        network.weight.copy_(torch.stack([weights, -weights]) / 2)
        offset = (reach - 0.5 * float(weights.double().sum())) / 2
        network.bias.copy_(torch.tensor([offset, -offset], dtype=dtype))
    x = torch.full((count, len(w)), 0.5, dtype=dtype)
    return Case(network, x, torch.zeros(count, dtype=torch.int64))
