"""Other libraries' attacks behind one call each, shared with `benchmarks`.

The network is in evaluation mode and its inputs live in [0, 1]. Each function prepares an attack as the library's
own examples do; the attack is then called with (x, y). A library that is not installed is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # one of them imports GitPython, which wants git

Attack = Callable[[Tensor, Tensor], Tensor]
"""(x, y) → points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """An iterated attack: step size in data units, how many steps, from x or from a random start."""

    eps: float
    step: float
    steps: int
    random: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One library: its module's name, its one-step attack and its iterated one; `shape` is that of x.

    Attributes:
        judges: whether the library asks the network about the final points too, one forward more.
        start: how it draws its random start after torch.manual_seed, where it walks in the precision of x.
    """

    name: str
    module: str
    fgsm: Callable[[nn.Module, tuple[int, ...], float], Attack]
    pgd: Callable[[nn.Module, tuple[int, ...], Walk], Attack]
    judges: bool = False
    start: Callable[[Tensor, float], Tensor] | None = None

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


def foolbox_model(net: nn.Module) -> object:
    import foolbox

    return foolbox.PyTorchModel(net, bounds=(0, 1), device=next(net.parameters()).device)


def _foolbox_fgsm(net: nn.Module, shape: tuple[int, ...], eps: float) -> Attack:
    import foolbox

    model, attack = foolbox_model(net), foolbox.attacks.LinfFastGradientAttack()
    return lambda x, y: attack(model, x, y, epsilons=eps)[1]


def _foolbox_pgd(net: nn.Module, shape: tuple[int, ...], walk: Walk) -> Attack:
    import foolbox

    attack = foolbox.attacks.LinfProjectedGradientDescentAttack(
        abs_stepsize=walk.step, steps=walk.steps, random_start=walk.random
    )
    model = foolbox_model(net)
    return lambda x, y: attack(model, x, y, epsilons=walk.eps)[1]


def _torchattacks_fgsm(net: nn.Module, shape: tuple[int, ...], eps: float) -> Attack:
    import torchattacks

    return torchattacks.FGSM(net, eps=eps)


def _torchattacks_pgd(net: nn.Module, shape: tuple[int, ...], walk: Walk) -> Attack:
    import torchattacks

    return torchattacks.PGD(net, eps=walk.eps, alpha=walk.step, steps=walk.steps, random_start=walk.random)


def _art_classifier(net: nn.Module, shape: tuple[int, ...]) -> object:
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(net, nn.CrossEntropyLoss(), shape[1:], 10, clip_values=(0.0, 1.0), device_type="cpu")


def _art_fgsm(net: nn.Module, shape: tuple[int, ...], eps: float) -> Attack:
    from art.attacks.evasion import FastGradientMethod

    attack = FastGradientMethod(_art_classifier(net, shape), eps=eps, batch_size=shape[0])
    return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def _art_pgd(net: nn.Module, shape: tuple[int, ...], walk: Walk) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    attack = ProjectedGradientDescentPyTorch(
        _art_classifier(net, shape), eps=walk.eps, eps_step=walk.step, max_iter=walk.steps,
        num_random_init=int(walk.random), batch_size=shape[0], verbose=False,
    )  # fmt: skip
    return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def _cleverhans_fgsm(net: nn.Module, shape: tuple[int, ...], eps: float) -> Attack:
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method as attack

    return lambda x, y: attack(net, x, eps, np.inf, clip_min=0.0, clip_max=1.0, y=y, sanity_checks=False).detach()


def _cleverhans_pgd(net: nn.Module, shape: tuple[int, ...], walk: Walk) -> Attack:
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent as attack

    return lambda x, y: attack(
        net, x, walk.eps, walk.step, walk.steps, np.inf,
        clip_min=0.0, clip_max=1.0, y=y, rand_init=walk.random, sanity_checks=False,
    ).detach()  # fmt: skip


def _drawn_in_place(x: Tensor, eps: float) -> Tensor:
    return torch.clamp(x + torch.empty_like(x).uniform_(-eps, eps), 0, 1)


def _drawn_and_scaled(x: Tensor, eps: float) -> Tensor:
    return torch.clamp(x + (torch.rand(x.shape, dtype=x.dtype) * (eps + eps) - eps), 0, 1)


LIBRARIES = (
    Library(
        name="Foolbox", module="foolbox", fgsm=_foolbox_fgsm, pgd=_foolbox_pgd, judges=True, start=_drawn_and_scaled,
    ),
    Library(
        name="torchattacks", module="torchattacks", fgsm=_torchattacks_fgsm, pgd=_torchattacks_pgd,
        start=_drawn_in_place,
    ),
    Library(name="ART", module="art", fgsm=_art_fgsm, pgd=_art_pgd),
    Library(name="CleverHans", module="cleverhans", fgsm=_cleverhans_fgsm, pgd=_cleverhans_pgd),
)  # fmt: skip
