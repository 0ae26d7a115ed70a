"""The built-in example: scikit-learn's 1,797 scans of handwritten digits."""

from __future__ import annotations

import numpy as np
import torch

from steepest.audit.data.labels import in_order
from steepest.audit.data.memory import TensorSource


def open_digits(*, order: tuple[str, ...] | None = None) -> TensorSource:
    """Return the digits as [1797, 1, 8, 8] in [0, 1] with classes "0" to "9".

    Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", as scikit-learn ships it.

    >>> digits = open_digits()
    >>> len(digits), digits.shape
    (1797, (1, 8, 8))
    """
    # scikit-learn takes a second to import, and only this source needs it.
    from sklearn.datasets import load_digits

    raw = load_digits()
    labels, names, notes = in_order(
        torch.from_numpy(raw.target.astype(np.int64)), tuple("0123456789"), order, where="digits"
    )
    return TensorSource(
        stored=torch.from_numpy(raw.images.astype(np.float32) / 16)[:, None],
        shape=(1, 8, 8),
        labels=labels,
        class_names=names,
        notes=("Gray levels 0 to 16 were divided by 16.", *notes),
        name="digits",
        kind="digits",
    )
