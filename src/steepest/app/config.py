"""What was asked, from four places: the command line, the environment, steepest.toml, the defaults, in that order."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from steepest.basis.catalogue import parse_number
from steepest.basis.errors import UsageError, unknown

FILE = "steepest.toml"
_PREFIX = "STEEPEST_"
_COMMAND_LINE_ONLY = "trust_code"
"""A file that came with a download must not be able to switch this on."""
_HANDS = ("executor", "workers", "address", "gpus", "retries", "shard")
"""Who computes: the records do not depend on it."""


def _numbers(value: Any) -> Any:
    """Read "0.1, 0.2", one number, or a list of numbers."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    return tuple(parse_number(part) if isinstance(part, str) else part for part in parts)


def _size(value: Any) -> Any:
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+)\s*[x×,]\s*(\d+)\s*", value)
        if found is None:
            raise UsageError(f"--resize {value!r} is not a size: give height x width, e.g. 32x32.")
        return int(found[1]), int(found[2])
    return value


def _words(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
Size = Annotated[tuple[int, int], BeforeValidator(_size)]
Words = Annotated[str, BeforeValidator(_words)]
Text = Annotated[str, BeforeValidator(_text)]


class Settings(BaseModel):
    """Everything that a command which asks a model can be told; names are those of the options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    data: str
    budget: str | None = None
    preset: str = "standard"
    attacks: Words | None = None
    method: Words | None = None
    objective: str = "scaled-ce"
    target: Text | None = None
    label: Text | None = None
    out: str | None = None
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    batch_size: Text = "auto"
    shard_size: int | None = None
    device: str | None = None
    precision: Literal["auto", "exact"] = "auto"
    mean: Numbers | None = None
    std: Numbers | None = None
    box: Numbers = (0.0, 1.0)
    labels: Words | None = None
    resize: Size | None = None
    weights: str | None = None
    feature_weights: str | None = None
    mask: str | None = None
    trust_code: bool = False
    save: bool = False
    assure: int = 0
    diagnose: bool = True
    allow_chance: bool = False
    gate: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    executor: str = "in-process"
    workers: int | None = None
    address: str | None = None
    gpus: float = 0.0
    retries: int = 3
    shard: str | None = None

    def batch(self) -> int | None:
        """Return the batch size, or None where it is to be measured.

        Raises:
            UsageError: neither "auto" nor a whole number of at least 1.
        """
        if self.batch_size == "auto":
            return None
        if not re.fullmatch(r"[1-9]\d*", self.batch_size):
            raise UsageError(f"--batch-size {self.batch_size!r} is not allowed: give auto, or a number of at least 1.")
        return int(self.batch_size)


AUDIT = "write `steepest audit MODEL DATA --budget linf:8/255`"


def resolve(given: Mapping[str, Any], *, file: Path | None = None, remedy: str = AUDIT) -> tuple[Settings, list[str]]:
    """Return the settings, and a line for each place besides the command line that decided something.

    Args:
        remedy: what to do where model or data are missing.

    Raises:
        UsageError: an unknown or unreadable setting, or model and data are missing.
    """
    found: dict[str, Any] = {}
    notes = []
    for place, values in ((str(file), _from_file(file)), ("the environment", _from_environment())):
        used = {name: value for name, value in values.items() if name not in given}
        if used:
            notes.append(f"from {place}: {', '.join(f'{name}={value}' for name, value in used.items())}")
        found |= used
    found |= given
    for name in ("model", "data"):
        if name not in found:
            raise UsageError(
                f"no {name.upper()} was given: {remedy}, or put them into {FILE} (`steepest init` writes one)."
                if file is not None
                else f"no {name.upper()} was given: {remedy}."
            )
    return _validated(found), notes


def _validated(values: dict[str, Any]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}, received {fault['input']!r}"
            for fault in error.errors()
        )
        raise UsageError(f"{'; '.join(faults)}. See `steepest audit --help`.") from None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}): correct it, or delete it.") from None
    settings = {name.replace("-", "_"): value for name, value in found.items()}
    for name in settings:
        if name not in Settings.model_fields:
            raise unknown(f"setting in {path}", name, Settings.model_fields)
    if _COMMAND_LINE_ONLY in settings:
        raise UsageError(f"{path} sets trust_code, which only the command line may do: give --trust-code there.")
    return settings


def _from_environment() -> dict[str, Any]:
    names = [name for name in Settings.model_fields if name != _COMMAND_LINE_ONLY]
    return {name: os.environ[_PREFIX + name.upper()] for name in names if _PREFIX + name.upper() in os.environ}


def command_line(
    words: Sequence[str], settings: Settings, *, models: Sequence[str] = (), own: Mapping[str, object] | None = None
) -> str:
    """Return the shell line that asks for these settings again, whatever place they came from.

    Args:
        models: of a command that takes several; the data is then an option.
        own: options of the command alone, those that were given.

    >>> command_line(["audit"], Settings(model="a b.onnx", data="digits", budget="linf:0.1", seed=3))
    "steepest audit 'a b.onnx' digits --budget linf:0.1 --seed 3"
    """
    line = ["steepest", *words, *(models or [settings.model]), *(["--data"] if models else []), settings.data]
    for name, value in settings.model_dump(exclude_defaults=True, exclude={"model", "data"}).items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            line.append(option if value else f"--no-{name}")
        elif name == "gate":
            line += [word for rule in value for word in (option, rule)]
        elif isinstance(value, tuple):
            line += [option, ("x" if name == "resize" else ",").join(f"{part:.17g}" for part in value)]
        else:
            line += [option, str(value)]
    for name, value in (own or {}).items():
        line += ["--" + name, str(value)]
    return shlex.join(line)


def default_folder(settings: Settings, model_hash: str) -> Path:
    """Return runs/<model>-<data>-<hash of what was asked>: the same question finds its folder again."""
    asked = settings.model_dump(exclude={"out", "gate", "trust_code", "assure", "diagnose", *_HANDS})
    digest = hashlib.sha256(json.dumps([asked, model_hash], sort_keys=True).encode()).hexdigest()
    names = (_stem(settings.model), _stem(settings.data), digest[:8])
    return Path("runs") / "-".join(names)


def _stem(source: str) -> str:
    text = source.rpartition("/")[2] if ":" not in source else re.sub(r"\.py:", "-", source).rpartition("/")[2]
    return re.sub(r"[^\w.-]+", "-", Path(text).stem if ":" not in source else text)[:40].strip("-.") or "run"
