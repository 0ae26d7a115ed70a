"""The networks of the speed targets, with random weights: the cost of a pass does not depend on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


class Block(nn.Module):
    """Two 3×3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and inner == width
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inner, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def resnet18(classes: int = 10) -> nn.Module:
    """Return a ResNet-18 for 32×32 colour images: width 64, four stages of two blocks, 11.2 million parameters."""
    torch.manual_seed(0)
    stages, inner = [], 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        stages += [Block(inner, width, stride), Block(width, width, 1)]
        inner = width
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), *stages,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes),
    ).eval()  # fmt: skip


class PreActBlock(nn.Module):
    """Normalisation and ReLU before each of two 3×3 convolutions, around a shortcut (He et al. 2016b)."""

    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv1 = nn.Conv2d(inner, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        same = stride == 1 and inner == width
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(inner, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ahead = relu(self.bn1(x))
        out = self.conv2(relu(self.bn2(self.conv1(ahead))))
        return out + (x if isinstance(self.shortcut, nn.Identity) else self.shortcut(ahead))


def preact_resnet18(classes: int = 10) -> nn.Module:
    """Return a PreAct-ResNet-18 for 32×32 colour images, the usual network of adversarial training."""
    torch.manual_seed(0)
    stages, inner = [], 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        stages += [PreActBlock(inner, width, stride), PreActBlock(width, width, 1)]
        inner = width
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1, bias=False), *stages, nn.BatchNorm2d(512), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes),
    )  # fmt: skip


def small_cnn(classes: int = 10) -> nn.Module:
    """Return a small network for 28×28 grey images: conv16, conv32, dense 100, dense `classes`; 166,406 parameters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, classes),
    ).eval()  # fmt: skip


def small_resnet(classes: int = 10) -> nn.Module:
    """Return a ResNet of three blocks for 32×32 colour images, 16×16 inside: widths 16, 32, 64."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


def images(count: int, *shape: int) -> Tensor:
    """Return fixed random images with the 256 values of a photograph, [count, *shape] in [0, 1]."""
    levels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(1))
    return levels.float() / 255


def own_answer(net: nn.Module, x: Tensor) -> Tensor:
    """Return the predicted classes: with these as labels and a tiny ε, no example is ever broken."""
    with torch.no_grad():
        answer: Tensor = net(x).argmax(1)
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network, the batch that it is asked with, and the largest ratio that is promised on it."""

    name: str
    network: Callable[[], nn.Module]
    batch: tuple[int, ...]
    target: float
    rounds: int

    def made(self) -> tuple[nn.Module, Tensor, Tensor]:
        """Return (network with frozen parameters, x, labels that it predicts)."""
        net = self.network().requires_grad_(False)
        x = images(*self.batch)
        return net, x, own_answer(net, x)


CASES = (
    Case(name="ResNet-18, batch 16", network=resnet18, batch=(16, 3, 32, 32), target=1.05, rounds=9),
    Case(name="small CNN, batch 256", network=small_cnn, batch=(256, 1, 28, 28), target=1.10, rounds=41),
)
