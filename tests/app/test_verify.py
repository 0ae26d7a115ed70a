"""`steepest verify`: files, folders and lists; answers, counterexamples on disk, exit codes."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from tests.app.material import answered, asked_json, refused, steepest
from tests.files.model_material import saved, two_layers, weight

ABSENT = "(assert (<= (+ Y_0 Y_1) -1))"  # |x₀| is never negative
PRESENT = "(assert (>= Y_0 (+ Y_1 0.5)))"


def written(path: Path, asserted: str, inputs: int = 2) -> Path:
    names = [f"X_{i}" for i in range(inputs)] + ["Y_0", "Y_1"]
    box = "".join(f"(assert (>= X_{i} -1)) (assert (<= X_{i} 0.75))\n" for i in range(inputs))
    text = "".join(f"(declare-const {name} Real)\n" for name in names) + box + asserted
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """net.onnx: y = (max(x₀, 0), max(−x₀, 0)); one property that holds somewhere, one that holds nowhere."""
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    for part, values in ((net[0], [[1.0, 0.0], [-1.0, 0.0]]), (net[2], [[1.0, 0.0], [0.0, 1.0]])):
        part.weight.data, part.bias.data = torch.tensor(values), torch.zeros(2)
    two_layers(tmp_path / "net.onnx", net)
    (tmp_path / "net2.onnx.gz").write_bytes(gzip.compress((tmp_path / "net.onnx").read_bytes()))
    written(tmp_path / "present.vnnlib", PRESENT)
    written(tmp_path / "absent.vnnlib", ABSENT)
    return tmp_path


def test_a_counterexample_is_written_as_competitions_read_it(here: Path) -> None:
    said = answered("verify", "net.onnx", "present.vnnlib", "-o", "answer.txt").stdout.splitlines()
    assert said[0] == "sat" and said[1].startswith("by ") and said[-1] == "answer.txt"
    answer, rest = (here / "answer.txt").read_text().split("\n", 1)
    assert answer == "sat" and rest.startswith("((X_0 ") and rest.endswith(")\n")
    held = {name: float(value) for name, value in re.findall(r"\((\w_\d) (\S+?)\)", rest)}
    assert list(held) == ["X_0", "X_1", "Y_0", "Y_1"]
    assert -1 <= held["X_0"] <= 0.75 and held["Y_0"] >= held["Y_1"] + 0.5
    x = torch.tensor([[[held["X_0"], held["X_1"]]]])
    (y,) = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"]).run(None, {"in": x.numpy()})
    assert y[0].astype(float).tolist() == [held["Y_0"], held["Y_1"]]


def test_what_is_proven_says_of_what(here: Path) -> None:
    said = answered("verify", "net.onnx", "absent.vnnlib", "-o", "answer.txt").stdout
    assert said.startswith("unsat\nby ") and "real arithmetic" in said
    assert (here / "answer.txt").read_text() == "unsat\n"
    found = asked_json("verify", "net2.onnx.gz", "absent.vnnlib", "--timeout", "9")
    assert (found["answer"], found["x"], found["timeout"]) == ("unsat", None, 9) and found["boxes"] > 0


def test_a_folder_is_a_table_and_a_summary(here: Path) -> None:
    (here / "asked").mkdir()
    (here / "asked" / "readme.txt").write_text("not a property")
    written(here / "asked" / "a.vnnlib", PRESENT)
    written(here / "asked" / "b.vnnlib.gz", ABSENT)
    result = answered("verify", "net.onnx", "asked")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["network", "property", "answer", "time", "by"]
    assert [line.split()[1:3] for line in lines[1:3]] == [["a.vnnlib", "sat"], ["b.vnnlib.gz", "unsat"]]
    assert lines[-1].startswith("1 sat, 1 unsat, 0 unknown;")
    assert "2 of 2: b.vnnlib.gz unsat" in result.stderr
    found = asked_json("verify", "net.onnx", "asked")
    assert (found["n"], found["sat"], found["unsat"], found["unknown"], found["error"]) == (2, 1, 1, 0, 0)
    assert [row["answer"] for row in found["instances"]] == ["sat", "unsat"]


def test_a_list_counts_paths_from_itself_and_goes_on_after_an_error(here: Path) -> None:
    (here / "deep").mkdir()
    written(here / "deep" / "c.vnnlib.gz", ABSENT)
    written(here / "wide.vnnlib", PRESENT, inputs=3)
    text = "onnx,vnnlib,timeout\n../net.onnx, ../present.vnnlib, 5\n../net2.onnx,c.vnnlib,7.5\n"
    (here / "deep" / "instances.csv").write_text(text)
    found = asked_json("verify", "deep/instances.csv")
    assert [row["answer"] for row in found["instances"]] == ["sat", "unsat"]
    assert [row["timeout"] for row in found["instances"]] == [5, 7.5]
    assert {row["timeout"] for row in asked_json("verify", "deep/instances.csv", "--timeout", "3")["instances"]} == {3}
    (here / "deep" / "instances.csv").write_text(f"{text}../net.onnx,../wide.vnnlib,5\n../no.onnx,c.vnnlib,5\n")
    result = steepest("verify", "deep/instances.csv", "--json")
    assert result.exit_code == 2
    rows = json.loads(result.stdout)["instances"]
    assert [row["answer"] for row in rows] == ["sat", "unsat", "error", "error"]
    assert "3 inputs" in rows[2]["reason"] and "no.onnx" in rows[3]["reason"]


def test_unknown_is_an_answer(here: Path) -> None:
    nodes = [helper.make_node("Gemm", ["in", "matrix"], ["a"]), helper.make_node("Sin", ["a"], ["out"])]
    saved(here / "waves.onnx", nodes, [weight("matrix", 2, 2)], entry=(1, 2))
    written(here / "p.vnnlib", "(assert (>= Y_0 1.01))")
    said = answered("verify", "waves.onnx", "p.vnnlib", "--timeout", "0.5").stdout
    assert said.startswith("unknown\n") and "no rule for" in said and "sin" in said


def test_what_cannot_be_asked_is_refused(here: Path) -> None:
    written(here / "wide.vnnlib", PRESENT, inputs=3)
    written(here / "odd.vnnlib", "(assert (<= (* Y_0 Y_1) 1))")
    written(here / "more.vnnlib", PRESENT + "(declare-const Y_2 Real)")
    (here / "bad.csv").write_text("net.onnx,present.vnnlib\n")
    (here / "none.csv").write_text("\n")
    (here / "empty").mkdir()
    (here / "net3.onnx.gz").write_bytes(b"\x1f\x8bbroken")
    for words, says in (
        (("net.onnx", "wide.vnnlib"), ("declares 3 inputs", "takes 2")),
        (("net2.onnx.gz", "wide.vnnlib"), ("declares 3 inputs, and net2.onnx.gz takes 2",)),
        (("net.onnx", "more.vnnlib"), ("declares 3 outputs", "has 2")),
        (("net.onnx", "odd.vnnlib"), ("odd.vnnlib, line", "(* Y_0 Y_1) is not linear", "allowed are")),
        (("net.onnx", "missing.vnnlib"), ("missing.vnnlib",)),
        (("missing.onnx", "present.vnnlib"), ("missing.onnx",)),
        (("net3.onnx.gz", "present.vnnlib"), ("cannot be unpacked",)),
        (("net.onnx",), ("no PROPERTY", "instances.csv")),
        (("net.onnx", "empty"), ("holds no property", ".vnnlib.gz")),
        (("bad.csv",), ("line 1", "onnx,vnnlib,timeout")),
        (("none.csv",), ("is empty",)),
        (("bad.csv", "present.vnnlib"), ("leave 'present.vnnlib' out",)),
        (("net.onnx", "present.vnnlib", "--timeout", "-1"), ("timeout=-1",)),
        (("net.onnx", "empty", "-o", "x.txt"), ("holds no property",)),
    ):
        refused("verify", *words, says=says)
    (here / "empty" / "a.vnnlib").write_text((here / "present.vnnlib").read_text())
    refused("verify", "net.onnx", "empty", "-o", "x.txt", says=("-o", "one property"))
