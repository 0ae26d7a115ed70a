"""The folder of a training: what was asked, and the last checkpoint; files appear whole or not at all."""

from __future__ import annotations

import json
import pickle
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from steepest.basis.disks import flushed, writing
from steepest.basis.errors import DataError, UsageError
from steepest.harden.course import differences
from steepest.harden.moment import State

ASKED, START, WEIGHTS, BEST, STATE = (
    "hardening.json",
    "start.safetensors",
    "weights.safetensors",
    "best.safetensors",
    "state.pt",
)
FORM = 1
_PREFIX, _BESIDE = "checkpoint-", ".new-"


def on_disk(out: str | Path) -> Path:
    """Return the folder that was named for a training.

    Raises:
        UsageError: it is a url: checkpoints are renamed into place, which object stores cannot do.

    >>> on_disk("runs/h")
    PosixPath('runs/h')
    """
    if "://" in str(out):
        raise UsageError(f"{str(out)!r} is no place for a training: give a folder on a disk, and copy it at its end.")
    return Path(out)


@final
class Folder:
    """Reads and writes a training on a disk.

    A checkpoint is a folder `checkpoint-<step>` with weights.safetensors, best.safetensors and state.pt (optimiser
    and loop, tensors and plain values). It is written beside, flushed and renamed; only then the previous one goes.

    Raises:
        UsageError: the folder holds something else, or another training; names the differences.
        IncompleteError: the disk is full; the last checkpoint stays.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def claim(self, asked: Mapping[str, str]) -> None:
        """Take the folder for a training: a new or empty one, or that of the same training."""
        if self.path.is_dir() and (self.path / ASKED).exists():
            different = differences(asked, self.asked())
            if different:
                raise UsageError(
                    f"{self.path} holds another training ({'; '.join(different)}). Give another --out (out=); delete "
                    "that folder only if its checkpoints are not needed."
                )
            return
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file: give a new or empty folder as --out (out=).")
        if self.path.exists() and any(not entry.name.startswith(".") for entry in self.path.iterdir()):
            raise UsageError(f"{self.path} is not empty and holds no training: give a new or empty folder as --out.")
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
        self.write(ASKED, json.dumps({"form": FORM, "asked": dict(asked)}, indent=1, ensure_ascii=False).encode())

    def asked(self) -> dict[str, str]:
        """Return what was asked of the training in this folder."""
        path = self.path / ASKED
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["form"] != FORM:
                raise DataError(f"{path} was written by another version: give another --out.")
            return dict(found["asked"])
        except FileNotFoundError:
            raise UsageError(f"{self.path} holds no training: it has no {ASKED}.") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(f"{path} is damaged: delete the folder and train again.") from None

    def keep(self, state: State) -> None:
        """Write a checkpoint, then delete those before it."""
        name = f"{_PREFIX}{state['number']:09d}"
        beside = self.path / f"{_BESIDE}{secrets.token_hex(4)}"
        files = {WEIGHTS: save(_portable(state["weights"])), BEST: save(_portable(state["best"] or {}))}
        rest = {key: value for key, value in state.items() if key not in ("weights", "best")}

        rest["judged"] = state["best"] is not None
        try:
            with self._writing():
                beside.mkdir()
                for file, content in files.items():
                    flushed(beside / file, content)
                flushed(beside / STATE, lambda stream: torch.save(rest, stream))
                if (self.path / name).exists():
                    # The same step again, as after a return: until the rename its predecessor has another name.
                    (self.path / name).rename(self.path / f"{name}.old")
                beside.rename(self.path / name)
                for entry in self.path.iterdir():
                    if entry.name != name and entry.name.startswith((_PREFIX, _BESIDE)):
                        shutil.rmtree(entry, ignore_errors=True)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def state(self) -> State | None:
        """Return the last checkpoint, or None where there is none.

        Raises:
            DataError: it is damaged.
        """
        last = self._last()
        if last is None:
            return None
        with _whole(last):
            rest = _rest(last)
            best = load_file(last / BEST) if rest.pop("judged") else None
            return {**rest, "weights": load_file(last / WEIGHTS), "best": best}

    def progress(self) -> State | None:
        """Return what the last checkpoint knows of the course (`epochs`, `stopped`, `method`), its weights unread.

        Raises:
            DataError: it is damaged.
        """
        last = self._last()
        if last is None:
            return None
        with _whole(last):
            rest = _rest(last, mmap=True)
            return {name: rest[name] for name in ("epochs", "stopped", "method")}

    def start(self) -> dict[str, Tensor] | None:
        """Return the tensors that training began with, or None where they are not written yet.

        Raises:
            DataError: the file is damaged.
        """
        path = self.path / START
        try:
            return load_file(path) if path.exists() else None
        except (OSError, SafetensorError):
            raise DataError(f"{path} is damaged: delete the folder and train again.") from None

    def write(self, name: str, content: bytes) -> Path:
        """Write a file of the training: a reader sees the old one or the whole new one."""
        beside = self.path / f"{_BESIDE}{secrets.token_hex(4)}"
        try:
            with self._writing():
                flushed(beside, content)
                beside.replace(self.path / name)
        finally:
            beside.unlink(missing_ok=True)
        return self.path / name

    def write_weights(self, name: str, state: Mapping[str, Tensor]) -> Path:
        """Write a state dict as safetensors."""
        return self.write(name, save(_portable(state)))

    def _last(self) -> Path | None:
        found = self.path.glob(f"{_PREFIX}*")
        return max(found, key=lambda each: (each.stat().st_mtime_ns, each.name), default=None)

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.path, "the last checkpoint")


def _rest(checkpoint: Path, *, mmap: bool = False) -> State:
    """Return what a checkpoint holds beside the weights; `mmap`: tensors stay on the disk until they are looked at."""
    rest: State = torch.load(checkpoint / STATE, map_location="cpu", weights_only=True, mmap=mmap)
    return rest


@contextmanager
def _whole(checkpoint: Path) -> Iterator[None]:
    """Name the checkpoint that cannot be read."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, KeyError, EOFError) as error:
        said = str(error).partition("\n")[0]
        raise DataError(
            f"the checkpoint {checkpoint} is damaged ({said}): delete it, and training starts anew."
        ) from None


def _portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own memory each, as safetensors wants them."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
