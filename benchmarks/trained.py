"""Two small CIFAR-10 networks that the benchmarks train themselves and keep: one plainly, one against FGSM."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

CACHE = Path(__file__).with_name(".cache")
IMAGES = "cifar10_train_jpeg.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that decides the weights, on one kind of processor.

    Attributes:
        epsilon: of the training attack, 0 for plain training: a uniform start, then one step of 1.25 ε, clipped to
            the ball (Wong, Rice & Kolter 2020).
        width: channels of the first layer; each later layer has twice as many at half the side.
        version: raised when this file trains differently under the same settings.
    """

    name: str
    epsilon: float
    epochs: int
    width: int = 16
    rate: float = 0.2
    batch: int = 128
    decay: float = 5e-4
    seed: int = 0
    version: int = 1

    @property
    def path(self) -> Path:
        """Where the weights lie: the name, and a hash of the settings."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return CACHE / f"{self.name}-{digest[:12]}.pt"


PLAIN = Settings(name="plain", epsilon=0.0, epochs=16)
ADVERSARIAL = Settings(name="adversarial", epsilon=4 / 255, epochs=18, rate=0.15)


def network(width: int = 16) -> nn.Module:
    """Return the untrained network: four 3×3 convolutions with batch-norm, 8.0 MFLOP a forward at width 16."""
    layers: list[nn.Module] = []
    for inner, outer, stride in ((3, 1, 1), (1, 2, 2), (2, 4, 2), (4, 8, 2)):
        inner = inner if not layers else inner * width
        layers += [
            nn.Conv2d(inner, outer * width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer * width),
            nn.ReLU(),
        ]
    return nn.Sequential(Centred(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10))


class Centred(nn.Module):
    """Inputs in [0, 1], brought to about zero mean and unit deviation."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.47) * 4


def trained(settings: Settings, data: Path) -> nn.Module:
    """Return the network in evaluation mode: from the cache, or trained now on one thread and kept there.

    Args:
        data: the folder with cifar10_train_jpeg.npz; not looked at where the cache holds the weights.
    """
    net, path = network(settings.width), settings.path
    if not path.exists():
        print(f"training the {settings.name} network: {settings.epochs} epochs ...", file=sys.stderr, flush=True)
        net = _train(settings, *decoded(data / IMAGES))
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".part")
        torch.save(net.state_dict(), unfinished)
        unfinished.replace(path)
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval()


def decoded(path: Path) -> tuple[Tensor, Tensor]:
    """Return (images [N, 3, 32, 32] in [0, 1], labels [N]) of a file of JPEG bytes."""
    with np.load(path) as file:
        stream, offsets, labels = file["jpeg"].tobytes(), file["offsets"].tolist(), file["labels"]
    images = np.stack([np.asarray(Image.open(io.BytesIO(stream[first:last]))) for first, last in pairwise(offsets)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels).long()


def _train(settings: Settings, images: Tensor, labels: Tensor) -> nn.Module:
    """One-cycle SGD with Nesterov momentum over flips and crops."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(settings.seed)
    net = network(settings.width).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=settings.decay, nesterov=True)
    total = settings.epochs * (len(images) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=total)
    draw, begin = torch.Generator().manual_seed(settings.seed), time.process_time()
    for epoch in range(settings.epochs):
        right = seen = 0
        for x, y in _batches(images, labels, settings.batch, draw):
            x = _fgsm(net, x, y, settings.epsilon, draw) if settings.epsilon else x
            outputs = net(x)
            optimiser.zero_grad()
            cross_entropy(outputs, y).backward()
            optimiser.step()
            schedule.step()
            right, seen = right + int((outputs.argmax(1) == y).sum()), seen + len(y)
        took = time.process_time() - begin
        print(
            f"  epoch {epoch + 1}: {right / seen:.3f} of the training batches, {took:.0f} s of one core",
            file=sys.stderr,
            flush=True,
        )
    torch.set_num_threads(threads)
    return net.to(memory_format=torch.contiguous_format)


def _batches(images: Tensor, labels: Tensor, size: int, draw: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, each image mirrored or not and shifted by up to 4 pixels."""
    around, side = pad(images, (4, 4, 4, 4)), torch.arange(images.shape[-1])
    order = torch.randperm(len(images), generator=draw)
    for chosen in torch.split(order, size)[: len(images) // size]:
        top, left = torch.randint(0, 9, (2, len(chosen), 1), generator=draw)
        mirrored = torch.rand(len(chosen), 1, generator=draw) < 0.5
        columns = left + torch.where(mirrored, side.flip(0), side)
        x = around[chosen[:, None, None], :, (top + side)[:, :, None], columns[:, None, :]]
        yield x.permute(0, 3, 1, 2), labels[chosen]


def _fgsm(net: nn.Module, x: Tensor, y: Tensor, epsilon: float, draw: torch.Generator) -> Tensor:
    delta = epsilon * (2 * torch.rand(x.shape, generator=draw) - 1)
    point = (x + delta).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(net(point), y, reduction="sum"), point)
    delta = (point.detach() - x + 1.25 * epsilon * gradient.sign()).clamp(-epsilon, epsilon)
    return (x + delta).clamp(0, 1)
