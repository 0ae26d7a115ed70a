"""Networks from the user's own code, weights, and files that are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from steepest.basis.errors import ModelError, UsageError
from steepest.models.loading import load
from tests.files.model_material import Marker, Small, convolution

CODE = """
import torch
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3), torch.nn.Dropout())
def wants(width, depth=2):
    return build()
def number():
    return 7
def fails():
    raise RuntimeError("no licence")
def function():
    return lambda x: x.flatten(1)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: Any) -> Path:
    here = tmp_path / "home"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "net.py").write_text(CODE)
    (here / f"pkg_{tmp_path.name}").mkdir()
    (here / f"pkg_{tmp_path.name}" / "nets.py").write_text(CODE)
    return here


def test_a_factory_is_named_by_file_or_by_module(home: Path, tmp_path: Path) -> None:
    for source in ("net.py:build", f"pkg_{tmp_path.name}.nets:build", str(home / "net.py") + ":build"):
        model = load(source)
        assert model.facts.kind == "factory" and model.facts.source == source and len(model.facts.sha256) == 64
        assert not any(part.training for part in model.network.modules())  # type: ignore[union-attr]
        assert not any(p.requires_grad for p in model.network.parameters())  # type: ignore[union-attr]
        assert model.logits(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    assert load("net.py:function").logits(torch.rand(2, 1, 4, 4)).shape == (2, 16)


def test_code_outside_the_working_directory_needs_trust_and_does_not_run_before(home: Path, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(CODE)
    source = str(tmp_path / "other.py") + ":build"
    with pytest.raises(UsageError, match="--trust-code"):
        load(source)
    with pytest.raises(UsageError, match="--trust-code"):
        load("json:loads")
    (home / "link.py").symlink_to(tmp_path / "other.py")
    with pytest.raises(UsageError, match="--trust-code"):
        load("link.py:build")
    assert not (tmp_path / "other.ran").exists()
    assert load(source, trust_code=True).logits(torch.rand(1, 1, 4, 4)).shape == (1, 3)


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("net.py:wants", ModelError, "width"),
        ("net.py:number", ModelError, "int"),
        ("net.py:fails", ModelError, "no licence"),
        ("net.py:biuld", UsageError, "'build'"),
        ("nett.py:build", UsageError, "net.py"),
        ("no_such_package.nets:build", UsageError, "no module"),
        ("net.py", UsageError, "net.py:factory"),
    ],
)
def test_bad_factories_are_named(home: Path, source: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load(source)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
def test_weights_are_loaded_into_the_factorys_module(home: Path, ending: str) -> None:
    from safetensors.torch import save_file

    state = {"1.weight": torch.full((3, 16), 0.25), "1.bias": torch.arange(3.0)}
    file = home / f"weights{ending}"
    if ending == ".safetensors":
        save_file(state, file)
    elif ending == ".pt":
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    else:
        torch.save(state, file)
    model = load("net.py:build", weights=file)
    torch.testing.assert_close(model.logits(torch.ones(1, 1, 4, 4)), 4 + torch.arange(3.0)[None])
    assert any("weights" in note for note in model.facts.notes)


def test_weights_that_do_not_fit_or_are_not_weights_are_named(home: Path) -> None:
    torch.save({"1.weight": torch.zeros(3, 16), "head": torch.zeros(2)}, home / "odd.pt")
    with pytest.raises(ModelError, match=r"1 missing in the file: 1.bias; 1 not in the module: head"):
        load("net.py:build", weights="odd.pt")
    torch.save({"1.weight": torch.zeros(3, 9), "1.bias": torch.zeros(3)}, home / "shape.pt")
    with pytest.raises(ModelError, match=r"\(3, 9\) for \(3, 16\)"):
        load("net.py:build", weights="shape.pt")
    torch.save(Marker(home / "ran"), home / "evil.pt")
    with pytest.raises(UsageError, match="--trust-code"):
        load("net.py:build", weights="evil.pt")
    (home / "noise.pt").write_bytes(b"noise" * 20)
    (home / "noise.safetensors").write_bytes(b"noise" * 20)
    for name in ("noise.pt", "noise.safetensors"):
        with pytest.raises(ModelError, match=name):
            load("net.py:build", weights=name)
    assert not (home / "ran").exists()


def test_weights_without_an_architecture_name_the_remedy(tmp_path: Path) -> None:
    torch.save(Small().state_dict(), tmp_path / "small.pth")
    with pytest.raises(UsageError, match=r"pkg.module:factory --weights .*small.pth"):
        load(tmp_path / "small.pth")


def test_pickles_and_torchscript_are_refused_unless_trusted(tmp_path: Path) -> None:
    network, x = Small().eval(), torch.rand(3, 1, 4, 4)
    torch.save(network, tmp_path / "whole.pt")
    torch.jit.trace(network, x).save(str(tmp_path / "script.pt"))
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(network))
    for name in ("whole.pt", "script.pt", "plain.pkl"):
        with pytest.raises(UsageError, match="--trust-code"):
            load(tmp_path / name)
        model = load(tmp_path / name, trust_code=True)
        torch.testing.assert_close(model.logits(x), network(x).detach())
        assert any("--trust-code" in note for note in model.facts.notes)
    for name in ("evil.pt", "evil.pkl", "evil.joblib"):
        (tmp_path / name).write_bytes(pickle.dumps(Marker(tmp_path / "ran")))
        with pytest.raises(UsageError, match="--trust-code"):
            load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_missing_and_unknown_files_are_named_with_near_matches(tmp_path: Path) -> None:
    path = convolution(tmp_path / "classifier.onnx")
    with pytest.raises(UsageError, match=r"clasifier.onnx.*does not exist.*classifier.onnx"):
        load(tmp_path / "clasifier.onnx")
    path.rename(tmp_path / "classifier.onx")
    with pytest.raises(UsageError, match=r"'.onx'.*'.onnx'"):
        load(tmp_path / "classifier.onx")
    with pytest.raises(UsageError, match="folder"):
        load(tmp_path)
    with pytest.raises(UsageError, match=r"pkg.module:factory"):
        load(convolution(tmp_path / "net.onnx"), weights="some.pt")
