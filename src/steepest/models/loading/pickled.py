"""Files that run code when they are opened: whole pickled modules and TorchScript; opened only on request."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from steepest.basis.errors import ModelError, UsageError
from steepest.models.contract import Facts
from steepest.models.loading import weights
from steepest.models.loading.adapt import settled
from steepest.models.loading.files import sha256_of
from steepest.models.model import Network

ENDINGS = (".pkl", ".pickle", ".joblib")
"""Pickles by name; `weights.ENDINGS` may hold one too."""


def from_pickled(path: Path, *, trust_code: bool) -> tuple[Network, Facts]:
    """Return the module or callable in a trusted pickle or TorchScript file.

    Raises:
        UsageError: it is not trusted, or holds weights without an architecture.
        ModelError: it is damaged, or holds no module.
    """
    found = _opened(path, trust_code=trust_code)
    if isinstance(found, Mapping):
        raise UsageError(
            f"{str(path)!r} holds weights without an architecture. Name the code that builds the network: "
            f"pkg.module:factory --weights {path}"
        )
    if not callable(found):
        raise ModelError(
            f"{str(path)!r} holds a {type(found).__name__}, which cannot be called on a tensor; allowed is a "
            "torch module. Export the model to ONNX."
        )
    facts = Facts(
        source=str(path),
        sha256=sha256_of([path]),
        kind="module",
        notes=("loaded from a pickle or TorchScript file: code in it was run on request (--trust-code)",),
    )
    return settled(found), facts


def _opened(path: Path, *, trust_code: bool) -> Any:
    if not trust_code and path.suffix.lower() in ENDINGS:
        raise weights.refused(path)
    try:
        if trust_code and path.suffix.lower() == ".joblib":
            import joblib  # type: ignore[import-untyped]

            return joblib.load(path)
        if trust_code and weights.is_torchscript(path):
            return torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        if trust_code and path.suffix.lower() in ENDINGS and not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return pickle.load(file)
    except Exception as error:  # code of the file runs here and may raise anything
        raise ModelError(f"{str(path)!r} cannot be opened: {type(error).__name__}: {error}.") from None
    return weights.read(path, trust_code=trust_code)
