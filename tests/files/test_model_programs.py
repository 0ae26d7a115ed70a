"""Exported programs: any batch is answered, and no code of the file runs."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steepest.basis.errors import ModelError, UsageError
from steepest.models.inspection import inspected
from steepest.models.loading import load
from steepest.models.loading.vetting import is_arithmetic, suspicion
from steepest.models.model import Model
from tests.files.model_material import Marker, Small, gradient


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, network = tmp_path_factory.mktemp("pt2"), Small().eval()
    batches = {"frozen": None, "free": torch.export.Dim("n"), "limited": torch.export.Dim("n", max=6)}
    paths = {}
    for name, batch in batches.items():
        shapes = None if batch is None else ({0: batch},)
        paths[name] = folder / f"{name}.pt2"
        torch.export.save(torch.export.export(network, (torch.rand(4, 1, 4, 4),), dynamic_shapes=shapes), paths[name])
    return paths


@pytest.mark.parametrize("name", ["frozen", "free", "limited"])
def test_an_exported_program_answers_any_batch_like_its_module(exported: dict[str, Path], name: str) -> None:
    model, network = load(exported[name]), Small().eval()
    assert model.facts.kind == "pt2" and model.facts.input_shape == (1, 4, 4) and model.facts.classes == 3
    assert bool(model.facts.notes) == (name != "free")
    for count in (0, 1, 4, 7):
        x = torch.rand(count, 1, 4, 4)
        torch.testing.assert_close(model.logits(x), network(x).detach())
    torch.testing.assert_close(gradient(model, x), gradient(Model(network), x))
    assert inspected(model, x).facts.training is False


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_weights_only_is_forced_while_loading_and_restored(
    exported: dict[str, Path], monkeypatch: Any, before: str | None
) -> None:
    seen, read = [], torch.export.load
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    if before is not None:
        monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", before)

    def watched(path: Any) -> Any:
        seen.append(os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD"))
        return read(path)

    monkeypatch.setattr(torch.export, "load", watched)
    load(exported["free"])
    assert seen == ["1"] and os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before


def doctored(source: Path, target: Path, ending: str, change: Callable[[bytes], bytes]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(ending) else content)
    return target


def test_a_doctored_program_runs_nothing(exported: dict[str, Path], tmp_path: Path, capfd: Any) -> None:
    mark = tmp_path / "ran"
    call = f"__import__('pathlib').Path({str(mark)!r}).touch()"

    def in_expression(content: bytes) -> bytes:
        assert b'"expr_str": "' in content
        return content.replace(b'"expr_str": "', f'"expr_str": "{call} or '.encode())

    def in_guard(content: bytes) -> bytes:
        return json.dumps({**json.loads(content), "guards_code": [f"{call} is None"]}).encode()

    def in_name(content: bytes) -> bytes:
        return content.replace(b'"name": "x"', f'"name": "x={call}"'.encode())

    for change in (in_expression, in_guard, in_name):
        path = doctored(exported["free"], tmp_path / f"{change.__name__}.pt2", "models/model.json", change)
        assert suspicion(path) is not None
        with pytest.raises(UsageError, match="--trust-code"):
            load(path)

    def in_pickle(content: bytes) -> bytes:
        torch.save(Marker(mark), tmp_path / "evil.pt")
        return (tmp_path / "evil.pt").read_bytes()

    path = doctored(exported["free"], tmp_path / r"pickle.pt2", "sample_inputs/model.pt", in_pickle)
    with pytest.raises(ModelError, match=r"pickle.pt2"):
        load(path)
    assert not mark.exists()


def test_arithmetic_on_sizes_is_let_through_and_code_is_not() -> None:
    for good in (
        "s0 + 1",
        "Mul(Integer(2), Symbol('s7', positive=True, integer=True))",
        "L['x'].size()[0] >= 2",
    ):
        assert is_arithmetic(good)
    for bad in (
        "eval('1')",
        "L.__class__",
        "(lambda: 0)()",
        "[].append(1)",
        "Symbol('a b()')",
        "x if",
        "open(s0)",
    ):
        assert not is_arithmetic(bad)


def test_a_truncated_program_is_named(exported: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / r"short.pt2"
    path.write_bytes(exported["free"].read_bytes()[:3000])
    with pytest.raises(ModelError, match=r"short.pt2"):
        load(path)
