"""The six models on which the cascade is measured: four as others trained them, two trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import steepest as st
from benchmarks.trained import ADVERSARIAL, IMAGES, PLAIN, Settings, trained

DATA = Path(__file__).parents[2] / "shared" / "data"
MNIST, CIFAR = "mnist_test.npz", "cifar10_test_2000.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model, its data and the budget that it is audited under.

    Attributes:
        shown: ε as a reader writes it.
        files: of `DATA`, without which it is skipped; the first is the data set.
        opened: gives the model.
        faster: so many times less time than AutoAttack takes are promised on it.
    """

    name: str
    epsilon: float
    shown: str
    files: tuple[str, ...]
    opened: Callable[[], st.Model]
    faster: float = 20.0

    @property
    def missing(self) -> list[str]:
        """The files that are not here."""
        return [name for name in self.files if not (DATA / name).exists()]


def _file(
    name: str, data: str, epsilon: tuple[float, str], normalised: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> Subject:
    def opened() -> st.Model:
        mean, std = normalised or (None, None)
        return st.load(DATA / f"{name}.onnx", mean=mean, std=std)

    return Subject(name=name, epsilon=epsilon[0], shown=epsilon[1], files=(data, f"{name}.onnx"), opened=opened)


def _own(settings: Settings, epsilon: tuple[float, str]) -> Subject:
    def opened() -> st.Model:
        return st.Model(trained(settings, DATA), box=(0, 1))

    files = (CIFAR,) if settings.path.exists() else (CIFAR, IMAGES)
    return Subject(name=f"cifar10_{settings.name}", epsilon=epsilon[0], shown=epsilon[1], files=files, opened=opened)


SUBJECTS = (
    # Its gradient is masked: gradients and gradient-free search must work together.
    replace(_file("mnist_fastadv_fgsm", MNIST, (0.3, "0.3"), None), faster=8.0),
    _own(ADVERSARIAL, (4 / 255, "4/255")),
    replace(_own(PLAIN, (2 / 255, "2/255")), faster=10.0),
    _file("mnist_kw_eps01", MNIST, (0.1, "0.1"), None),
    _file("sri_resnet_b", CIFAR, (2 / 255, "2/255"), ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))),
    _file("oval21_cifar_base_kw", CIFAR, (2 / 255, "2/255"), ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225))),
)
