"""Weights without code: safetensors and state dicts, read so that nothing in the file runs."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steepest.basis.errors import ModelError, UsageError
from steepest.models.loading.files import require_file

ENDINGS = (".safetensors", ".pt", ".pth", ".bin")
"""What a weights file may end in."""

_NESTED = ("state_dict", "model_state_dict", "model", "net")
"""Where training scripts keep the state dict inside a checkpoint."""


def state_of(path: Path, *, trust_code: bool = False) -> dict[str, Tensor]:
    """Return the state dict in a weights file; a checkpoint that holds one under a usual name is opened.

    Raises:
        UsageError: no such file, an ending that is no weights file, or a pickle that needs `trust_code`.
        ModelError: the file is damaged or holds no state dict.
    """
    require_file(path, "weights")
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{str(path)!r} is not a weights file; allowed endings: {', '.join(ENDINGS)}.")
    found = read(path, trust_code=trust_code)
    if isinstance(found, nn.Module):
        return found.state_dict()
    for key in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(
            f"{str(path)!r} holds no state dict (a mapping of names to tensors), but {_described(found)}. Save "
            "model.state_dict() with safetensors or torch.save."
        )
    return dict(found)


def read(path: Path, *, trust_code: bool = False) -> Any:
    """Return what is in a weights file; without `trust_code`, only tensors and plain containers.

    Raises:
        UsageError: it is a pickle that holds more than weights.
        ModelError: it is damaged.
    """
    if not trust_code and is_torchscript(path):  # torch.load would hand it on to torch.jit.load
        raise refused(path)
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=not trust_code)
    except pickle.UnpicklingError:
        if not trust_code and _pickled(path):
            raise refused(path) from None
        raise _damaged(path) from None
    except Exception:  # zip, header and storage errors each have their own type
        raise _damaged(path) from None


def refused(path: Path) -> UsageError:
    """Return the error for a file that would run code when opened."""
    return UsageError(
        f"{str(path)!r} is a pickle or TorchScript: opening it can run any code in it, so it is refused. Allowed "
        "are weights alone (safetensors, or a state dict) with pkg.module:factory, .onnx and .pt2. If you trust "
        "whoever made the file, add --trust-code (trust_code=True)."
    )


def is_torchscript(path: Path) -> bool:
    """Return whether the file is a TorchScript archive (it carries compiled code)."""
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def load_into(module: nn.Module, path: Path, *, trust_code: bool = False) -> tuple[str, ...]:
    """Load the weights file into the module, every name matched exactly; return notes on what was adapted.

    Raises:
        ModelError: names or shapes do not match; lists a few.
    """
    state = state_of(path, trust_code=trust_code)
    notes: tuple[str, ...] = ()
    if all(name.startswith("module.") for name in state) and not all(
        name.startswith("module.") for name in module.state_dict()
    ):
        state = {name.removeprefix("module."): value for name, value in state.items()}
        notes = ("the prefix 'module.' of a parallel training was removed from the weights' names",)
    own = module.state_dict()
    problems = [
        ("missing in the file", [n for n in own if n not in state]),
        ("not in the module", [n for n in state if n not in own]),
        (
            "of another shape",
            [_shapes(n, state[n], own[n]) for n in own if n in state and _differ(state[n], own[n])],
        ),
    ]
    if any(names for _, names in problems):
        told = "; ".join(f"{len(names)} {what}: {_few(names)}" for what, names in problems if names)
        raise ModelError(
            f"the weights {str(path)!r} do not fit {type(module).__name__}: {told}. Give the factory of the "
            "architecture that they were saved from."
        )
    module.load_state_dict(state)
    return notes


def _pickled(path: Path) -> bool:
    import zipfile

    if zipfile.is_zipfile(path):
        return True
    with path.open("rb") as file:
        head = file.read(2)
    return head[:1] == b"\x80" and head[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")


def _damaged(path: Path) -> ModelError:
    return ModelError(
        f"the weights file {str(path)!r} cannot be read: it is truncated or of another kind. Allowed are safetensors "
        "or a state dict saved by torch.save; copy or save it again."
    )


def _described(found: object) -> str:
    if isinstance(found, Mapping):
        return f"a mapping with {_few([str(key) for key in found]) or 'nothing'}"
    return f"a {type(found).__name__}"


def _differ(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape != b.shape


def _shapes(name: str, received: Tensor, wanted: Tensor) -> str:
    return f"{name} {tuple(received.shape)} for {tuple(wanted.shape)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
