"""Small networks, inputs and calls that every law is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steepest.attacks.api import attack
from steepest.attacks.contract import AttackResult
from steepest.attacks.fitting import admits
from steepest.attacks.recipe import Recipe
from steepest.attacks.recipes import ATTACKS
from steepest.attacks.starts import at_x
from steepest.budgets.catalogue import kind_of
from steepest.budgets.contract import Budget
from steepest.models.model import Model
from tests.conformance.table import ROWS, asks_for_gradients
from tests.tables import budgets

SHAPES = {"vector K=2": ((4,), 2), "series K=3": ((3, 4), 3), "image K=10": ((2, 5, 5), 10)}
EPSILON = 0.3
NAMES = [name for name in ATTACKS.names() if name in ROWS]
CALLS = {name: ROWS[name].call for name in NAMES}
GRADIENT = [name for name in NAMES if asks_for_gradients(name)]


def serves(attack: str, budget: str, kind: str = "image K=10") -> bool:
    """Whether the catalogue says that an attack serves a budget of the tables, on inputs of a kind."""
    shape = SHAPES[kind][0]
    images = len(shape) == 3 or not ROWS[attack].images
    return images and admits(ATTACKS.entry(attack).facts["budgets"], kind_of(budgets(shape, EPSILON)[budget]))


def kind_for(attack: str, kind: str) -> str:
    """The kind of input asked for, or images where the attack serves nothing else."""
    return "image K=10" if ROWS[attack].images else kind


def starts_at_x(text: str) -> bool:
    made = ATTACKS.build(text)
    return isinstance(made, Recipe) and made.start is at_x


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

    def attack(self, text: str, budget: str | Budget | None = None, **options: Any) -> AttackResult:
        """Attack; the budget is that of the attack's row if left out."""
        budget = ROWS[text.partition("(")[0]].budget if budget is None else budget
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
