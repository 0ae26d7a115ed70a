"""`steepest audit`, from a file and data to numbers, records and a page."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import steepest as st
from steepest.audit import assurance
from tests.app.material import ASK, CLASSES, COUNT, QUICK, answered, asked_json, refused, steepest

KEYS = {
    "n", "clean_accuracy", "robust_accuracy", "robust_interval", "budget", "preset", "seed", "stages", "per_class",
    "curve", "run",
}  # fmt: skip
STAGES = ["clean", "curve", "fgsm", "ascent", "rank", "class 1", "relay"]


def test_json_is_one_object_with_what_was_promised(place: Path) -> None:
    found = asked_json("audit", *ASK, *QUICK, "--seed", "3")
    assert set(found) >= KEYS
    assert found["n"] == COUNT and found["preset"] == "quick" and found["seed"] == 3
    low, high = found["robust_interval"]
    assert 0 <= low <= found["robust_accuracy"] <= high <= 1
    assert found["robust_accuracy"] < found["clean_accuracy"]
    assert [stage["name"] for stage in found["stages"]] == STAGES
    for stage in found["stages"]:
        assert set(stage) >= {"name", "entered", "broken", "forwards", "backwards", "seconds"}
    assert found["stages"][0]["entered"] == COUNT
    broken = sum(stage["broken"] for stage in found["stages"])
    assert found["robust_accuracy"] == pytest.approx(1 - broken / COUNT)
    assert all(set(row) == {"epsilon", "fgsm", "best", "certified"} for row in found["curve"])
    assert [row["n"] for row in found["per_class"]] == [COUNT // CLASSES] * CLASSES
    assert (Path(found["run"]) / "report.html").exists()


def test_the_terminal_says_what_was_found(place: Path) -> None:
    result = answered("audit", *ASK, *QUICK)
    assert "net.py:make on 60 of 60 examples of shape 1×4×4, 3 classes" in result.stderr
    assert "uint8 values were divided by 255." in result.stderr.splitlines()
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["stage", "ε", "entered", "broken", "forwards", "backwards", "seconds"]
    assert any(line.startswith("robust accuracy at most") and "of N=60" in line for line in lines)
    page = Path(lines[-1])
    assert page.name == "report.html" and page.parent.parent == Path("runs")
    assert page.parent.name.startswith("net-make-data-")
    assert "Example " in page.read_text(encoding="utf-8")


def test_the_same_question_finds_its_folder_and_another_does_not(place: Path) -> None:
    first = asked_json("audit", *ASK, *QUICK)
    again = answered("audit", *ASK, *QUICK, "--json")
    assert json.loads(again.stdout) == first
    assert f"continuing: {COUNT} of {COUNT} examples are done already" in again.stderr
    assert asked_json("audit", *ASK, *QUICK, "--seed", "1")["run"] != first["run"]
    refused("audit", *ASK, *QUICK, "--seed", "2", "--out", first["run"], says=("holds another run", "seed", "--out"))


def test_the_command_in_the_run_repeats_it(place: Path) -> None:
    words = ["--limit", "20", "--mean", "0.1", "--std", "0.5", "--box=0,1", "--labels", "a b,c,d", "--target", "c"]
    found = asked_json("audit", *ASK, *QUICK, *words, "--allow-chance", "--save")
    verb, *rest = shlex.split(found["command"])[1:]
    again = asked_json(verb, *rest)
    assert again == found
    assert found["target"] == 1 and found["n"] == 13  # of 20 examples 7 are of class c already
    assert list((Path(found["run"]) / "artifacts").glob("adversarial-*.npz"))


def test_outputs_by_their_ending(place: Path) -> None:
    words = ("-o", "page.html", "-o", "numbers.json")
    found = asked_json("audit", *ASK, *QUICK, *words)
    assert json.loads((place / "numbers.json").read_text(encoding="utf-8")) == found
    assert (place / "page.html").read_bytes() == (Path(found["run"]) / "report.html").read_bytes()
    refused("audit", *ASK, "-o", "page.htm", says=("'.htm'", "'.html'"))
    refused("audit", *ASK, "-o", "nowhere/page.html", says=("nowhere", "does not exist"))


def test_several_sizes_attacks_and_masks(place: Path) -> None:
    np.save(place / "mask.npy", np.arange(16).reshape(1, 4, 4) < 8)
    np.save(place / "weights.npy", np.linspace(0, 2, 16, dtype=np.float32).reshape(1, 4, 4))
    model, data, *_ = ASK
    many = asked_json("audit", model, data, "--budget", "linf:0.05,0.1", "--attacks", "fgsm, bim(steps=2)", *QUICK)
    assert many["epsilon"] == 0.1 and many["preset"] == "custom"
    assert [stage["name"] for stage in many["stages"]] == ["clean", "curve", "fgsm", "bim", "fgsm", "bim"]
    half = asked_json("audit", model, data, "--budget", "linf:0.1", "--mask", "mask.npy", *QUICK)
    assert many["robust_accuracy"] <= half["robust_accuracy"]
    weighted = asked_json("audit", model, data, "--budget", "weighted:0.1", "--feature-weights", "weights.npy", *QUICK)
    assert weighted["budget"].startswith("Weighted(0.1")
    counts = answered("audit", model, data, "--budget", "l0:1,3", "--mask", "mask.npy", "--attacks", "fgsm", *QUICK)
    assert all(f"under Masked(L0({k}), 8 of 16 free)" in counts.stdout for k in (1, 3))
    assert "8 of 16 free" in answered("runs", "list").stdout
    few = asked_json("audit", model, data, "--budget", "l0:3", "--attacks", "pgd(steps=2)", *QUICK)
    assert few["budget"] == "L0(3)"
    assert "L0 3" in (Path(few["run"]) / "report.html").read_text(encoding="utf-8")
    # A run that was begun before the texts were kept goes on, and shows those of its plan.
    manifest = Path(few["run"]) / "manifest.json"
    manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "budgets"}))
    again = asked_json("audit", model, data, "--budget", "l0:3", "--attacks", "pgd(steps=2)", *QUICK)
    assert again["run"] == few["run"] and again["budget"].startswith("L0(3.0")


def test_the_built_in_digits(place: Path) -> None:
    (place / "linear.py").write_text(
        "import torch\nfrom sklearn.datasets import load_digits\n"
        "def make():\n"
        "    x, y = (torch.tensor(a) for a in load_digits(return_X_y=True))\n"
        "    means = torch.stack([x[y == k].mean(0) for k in range(10)]).float() / 16\n"
        "    net = torch.nn.Linear(64, 10)\n"
        "    net.weight.data, net.bias.data = means, -means.square().sum(1) / 2\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), net)\n"
    )
    found = asked_json("audit", "linear.py:make", "digits", "--budget", "linf:0.1", "--sample", "100", *QUICK)
    assert found["n"] == 100 and found["clean_accuracy"] > 0.8 > found["robust_accuracy"]


def test_settings_come_from_four_places(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "steepest.toml").write_text(
        'model = "net.py:make"\ndata = "data.npz"\nbudget = "linf:0.1"\npreset = "standard"\nseed = 5\nlimit = 9\n'
        "batch-size = 16\n"
    )
    monkeypatch.setenv("STEEPEST_PRESET", "quick")
    monkeypatch.setenv("STEEPEST_SEED", "6")
    result = answered("audit", "--seed", "7", "--json")
    found = json.loads(result.stdout)
    assert (found["seed"], found["preset"], found["n"]) == (7, "quick", 9)
    assert "from steepest.toml:" in result.stderr and "from the environment: preset=quick" in result.stderr
    monkeypatch.setenv("STEEPEST_LIMIT", "many")
    refused("audit", says=("limit", "valid integer", "'many'"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modle = 'net.onnx'", ("'modle'", "did you mean 'model'")),
        ("model = ", ("steepest.toml cannot be read",)),
        ("trust_code = true", ("trust_code", "command line")),
        ("seed = 'x'\nmodel = 'a'\ndata = 'b'", ("seed", "'x'")),
        ("seed = 1", ("no MODEL was given", "steepest init")),
    ],
)
def test_a_wrong_file_of_settings_is_refused(place: Path, text: str, says: tuple[str, ...]) -> None:
    (place / "steepest.toml").write_text(text)
    refused("audit", says=says)


def test_report_is_in_the_face_too(place: Path) -> None:
    found = asked_json("audit", *ASK, *QUICK)
    page = st.report(found["run"], place / "again.html")
    assert page.read_bytes() == (Path(found["run"]) / "report.html").read_bytes()


def test_a_bound_on_what_was_missed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(assurance.PROTOCOLS, "deterministic", "autoattack(steps=2, queries=2)")
    words = ("audit", *ASK, "--attacks", "noise(points=1)", "--batch-size", "32")
    plain = asked_json(*words)
    result = answered(*words, "--assure", "9", "--json")
    found = json.loads(result.stdout)
    assert plain["assured"] is None and found["run"] == plain["run"]
    assert f"continuing: {COUNT} of {COUNT}" in result.stderr
    assert found["assured"]["drawn"] == 9 and found["assured"]["accuracy_at_least"] < found["robust_accuracy"]
    assert found["command"].endswith("--assure 9")
    bound = f"{100 * found['assured']['accuracy_at_least']:.1f}"
    sentence = f"With 95 % confidence the full protocol would not go below {bound} %: autoattack("
    said = answered("runs", "show", found["run"]).stdout.replace("\u00a0", " ")
    page = (Path(found["run"]) / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert sentence in said and f"never raise it. {sentence}" in page
    part = Path(found["run"]) / "results" / "assured.parquet"
    part.unlink()
    assert "incomplete (1 of 1 shards, no sample of survivors)" in answered("runs", "list").stdout
    refused("audit", *ASK, "--assure=-1", says=("assure=-1", "60"))


def test_a_gate_decides_the_exit_code(place: Path) -> None:
    found = asked_json("audit", *ASK, *QUICK)
    share, low = found["robust_accuracy"], found["robust_interval"][0]
    assert steepest("audit", *ASK, *QUICK, "--gate", f"robust>={share}", "--gate", "clean>0.5").exit_code == 0
    assert steepest("audit", *ASK, *QUICK, "--gate", f"robust_low>={low}").exit_code == 0
    failed = steepest("audit", *ASK, *QUICK, "--gate", f"clean>0.5, robust>{share}")
    assert failed.exit_code == 10
    assert f"gate failed: robust>{share}" in failed.stderr and "robust accuracy at most" in failed.stdout
    assert steepest("audit", *ASK, *QUICK, "--gate", "robust_low>=0.99", "--json").exit_code == 10
