"""`steepest harden`: weights, history and a page; killed and resumed to the same bytes; what is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from typer.testing import Result

from steepest.report import hardening
from tests.app.conftest import Opened
from tests.app.material import ASK, answered, asked_json, refused, steepest
from tests.architecture.tree import SOURCE

TRAIN = ("--method", "fgsm", "--epochs", "3", "--lr", "0.01", "--batch-size", "8", "--no-sentinel")
AUDIT = ("--preset", "quick", "--no-diagnose")
WORDS = ("harden", *ASK, *TRAIN, *AUDIT)
MORE = '''

def bare():
    """A network that nobody trained, of random weights, with all that draws or has a state."""
    middle = (nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1))
    return nn.Sequential(Slow(), nn.Flatten(), *middle, nn.Linear(24, 3))

class Slow(nn.Module):
    def forward(self, x):
        time.sleep(float(os.environ.get("SLOW_NET", "0")))
        return x
'''


@pytest.fixture
def course(place: Path) -> Path:
    """The newcomer's folder, and a network to train in it."""
    with (place / "net.py").open("a", encoding="utf-8") as file:
        file.write(MORE)
    return place


def run(place: Path, *words: str, slow: str = "0.004") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "SLOW_NET": slow, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "steepest", *words], cwd=place, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def stop(process: subprocess.Popen[str], out: Path, epochs: int, how: signal.Signals, wait: float) -> tuple[int, str]:
    """Wait for the checkpoint of an epoch and a little more, then send a signal."""
    limit = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < limit:
        numbers = [int(path.name.split("-")[1].split(".")[0]) for path in out.glob("checkpoint-*")]
        if max(numbers, default=-1) >= epochs * 6:
            break
        time.sleep(0.002)
    time.sleep(wait)
    process.send_signal(how)
    _, said = process.communicate(timeout=90)
    return process.returncode, said


def test_a_training_ends_in_weights_a_history_and_a_page(course: Path) -> None:
    found = asked_json(*WORDS, "--out", "run", "--seed", "3")
    assert found["start_trained"] and "set aside" in found["audited"]
    assert found["audit"]["n"] == 12 and found["training"]["held_out"] == 6
    assert len(found["training"]["epochs"]) == 3 and found["asked"]["method"].startswith("fgsm(")
    history = json.loads((course / "run" / "history.json").read_text())
    assert history["epochs"] == found["training"]["epochs"]
    best = history["epochs"][history["best_epoch"]]
    assert history["robust_accuracy"] == best["held"]["robust"] == max(e["held"]["robust"] for e in history["epochs"])
    page = (course / "run" / "report.html").read_text(encoding="utf-8")
    for text in ("Accuracy over the training", "the weights it began with", "No sentinel watched", "<svg", "<td>"):
        assert text in page
    assert "<script" not in page
    # The weights are those of the user's own module, and what was audited.
    answered("audit", *ASK, "--preset", "quick", "--weights", "run/hardened.safetensors", "--out", "again")
    assert set(load_file(course / "run" / "hardened.safetensors")) == {"linear.weight", "linear.bias"}
    for name in ("audit", "start"):
        assert (course / "run" / name / "report.html").exists()


def test_the_same_command_again_finds_everything_done(course: Path) -> None:
    words = (*WORDS, "--out", "run")
    first = asked_json(*words)
    result = answered(*words, "--json")
    assert "continuing after 18 of 18 steps" in result.stderr
    again = json.loads(result.stdout)
    assert (
        again["training"] == first["training"]
        and again["audit"]["robust_accuracy"] == first["audit"]["robust_accuracy"]
    )
    refused(*WORDS, "--out", "run", "--weight-decay", "0.1", says=("holds another training", "weight_decay was 0.0005"))
    other = ("harden", "net.py:bare", *ASK[1:], *TRAIN, *AUDIT, "--out", "run")
    refused(*other, says=("holds another training", "model was net.py:make, is net.py:bare", "layers was"))


def test_an_untrained_start_is_called_so(course: Path) -> None:
    result = answered("harden", "net.py:bare", *ASK[1:], *TRAIN, *AUDIT, "--out", "run", "--test", "data.npz")
    assert "before (the untrained start)" in result.stdout and "N=60" in result.stdout
    assert "run/hardened.safetensors" in result.stdout


def killed_and_resumed(course: Path, moments: list[int], seed: int) -> None:
    draw = random.Random(seed)
    words = ("harden", "net.py:bare", *ASK[1:], *TRAIN, *AUDIT, "--epochs", "8", "--method", "n-fgsm")
    reference = run(course, *words, "--out", "reference", slow="0")
    for epochs in moments:
        process = run(course, *words, "--out", "run")
        code, said = stop(process, course / "run", epochs, signal.SIGKILL, draw.uniform(0, 0.05))
        assert code == -signal.SIGKILL, said
    result = answered(*words, "--out", "run")
    assert "continuing after" in result.stderr
    _, said = reference.communicate(timeout=90)
    assert reference.returncode == 0, said
    names = ("hardened.safetensors", "start.safetensors")
    mine, theirs = ([(course / out / name).read_bytes() for name in names] for out in ("run", "reference"))
    assert mine == theirs
    runs = [json.loads((course / out / "history.json").read_text()) for out in ("run", "reference")]
    for found in runs:
        for epoch in found["epochs"]:
            del epoch["seconds"]
    assert runs[0] == runs[1]


def test_a_training_killed_at_any_moment_ends_in_the_same_bytes(course: Path) -> None:
    killed_and_resumed(course, [2], seed=int(time.time()) % 1000)


@pytest.mark.full
def test_a_training_killed_often_ends_in_the_same_bytes(course: Path) -> None:
    killed_and_resumed(course, [0, 1, 3, 6], seed=1)


def test_ctrl_c_gives_130(course: Path) -> None:
    process = run(course, *WORDS, "--out", "run", "--epochs", "500", slow="0.02")
    code, said = stop(process, course / "run", 1, signal.SIGINT, 0.05)
    assert code == 130 and "the same command continues where it stopped" in said
    assert "Traceback" not in said


def test_a_training_that_breaks_off_says_so_and_gives_12(course: Path) -> None:
    result: Result = steepest(*WORDS, "--out", "run", "--lr", "1e30", "--schedule", "constant")
    assert result.exit_code == 12, result.output
    assert "not finite" in result.stdout and "robust accuracy" in result.stdout and "after epoch" not in result.stdout
    page = (course / "run" / "report.html").read_text(encoding="utf-8")
    assert "Training ended early" in page and "back to the start of epoch 1, then at 0.1 of the learning rate" in page
    weights = load_file(course / "run" / "hardened.safetensors")
    assert all(bool(each.isfinite().all()) for each in weights.values())


def test_signs_and_bias_are_on_the_page(course: Path) -> None:
    words = ("harden", *ASK, *AUDIT, "--epochs", "2", "--lr", "0.01", "--batch-size", "8", "--bias-every", "2")
    found = asked_json(*words, "--out", "run")
    numbers = [epoch["numbers"] for epoch in found["training"]["epochs"]]
    assert numbers[0] == {} and abs(numbers[1]["cosine of both gradients"]) <= 1 + 1e-9
    page = (course / "run" / "report.html").read_text(encoding="utf-8")
    assert "Bias of the training gradient" in page and "Nothing was seen" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("net.onnx", "data.npz"), ("cannot be trained", "net.py:factory")),
        (("net.pth", "data.npz"), ("'net.pth' cannot be trained", "holds weights", "--weights")),
        (("net.py", "data.npz"), ("'net.py' is code", "net.py:make")),
        (("net.py:make", "data.npz", "--out", "s3://bucket/h"), ("'s3://bucket/h' is no place", "folder on a disk")),
        (("net.py:whole", "data.npz"), ("plain function",)),
        (("net.py:make", "data.npz", "--method", "ngsm"), ("unknown method 'ngsm'", "n-fgsm")),
        (("net.py:make", "data.npz", "--budget", "linf:8"), ("larger than", "8/255")),
        (("net.py:make", "data.npz", "--budget", "linf:0.1,0.2"), ("2 sizes",)),
        (("net.py:make", "data.npz", "--epochs", "0"), ("epochs=0",)),
        (("net.py:make", "data.npz", "--lr", "nan"), ("lr=nan",)),
        (("net.py:make", "one.npz"), ("all have the label 1",)),
        (("net.py:make", "data.npz", "--track", "wandb"), ("unknown tracker 'wandb'",)),
        (("net.py:make", "data.npz", "--remedy", "nothing"), ("unknown method 'nothing'",)),
        (("net.py:make", "data.npz", "--test", "digits"), ("shape",)),
        (("net.py:make", "data.npz", "--augment", "crop-flip"), ("crop-flip", "8×8")),
        (("net.py:make", "data.npz", "--devices", "0"), ("devices=0",)),
        (("net.py:make", "data.npz", "--out", "net.py"), ("is a file",)),
    ],
)
def test_what_is_refused(course: Path, words: tuple[str, ...], says: tuple[str, ...]) -> None:
    np.savez(course / "one.npz", images=np.zeros((30, 4, 4), np.uint8), labels=np.ones(30, int))
    budget = () if "--budget" in words else ("--budget", "linf:0.1")
    refused("harden", *words, *budget, says=says)


def record() -> dict[str, Any]:
    """A record with everything that a page may show, some of it hostile."""
    summary: dict[str, Any] = {
        "n": 100,
        "clean_accuracy": 0.9,
        "robust_accuracy": 0.4,
        "robust_interval": [0.3, 0.5],
        "robust_count": 40,
        "certified_count": 20,
        "certified_accuracy": 0.2,
        "budget": "Linf(0.1)",
        "epsilon": 0.1,
        "budget_unit": "largest change of any value",
        "sizes": [{"epsilon": 0.1, "robust_accuracy": 0.4, "robust_interval": [0.3, 0.5]}],
        "curve": [{"epsilon": 0.0, "best": 0.9, "fgsm": 0.9}, {"epsilon": 0.1, "best": 0.4, "fgsm": 0.5}],
        "verdict": {"word": "no sign of masking found", "believable": True, "reasons": [], "next": "go on"},
        "findings": [],
        "mended": None,
        "blind": {},
        "assured": None,
    }
    epochs = [
        {
            "epoch": at, "steps": 10 * (at + 1), "loss": 1.0, "robust": 0.1 * at, "clean": None, "lr": 0.1,
            "forwards": 20, "backwards": 20, "seconds": 1.5, "method": "fgsm()",
            "held": {"clean": 0.5, "robust": 0.3, "best": at == 1}, "numbers": {"<b>bias</b>": -0.08 * at},
        }
        for at in range(3)
    ]  # fmt: skip
    sign = {"step": 14, "epoch": 1, "name": "gap", "says": "<script>x</script>", "done": "back", "numbers": {}}
    return {
        "model": "<img src=x>",
        "command": "steepest harden",
        "version": "1",
        "folder": "runs/h",
        "audited": "set aside",
        "notes": [],
        "watched": True,
        "asked": {"method": "fgsm()"},
        "training": {
            "method": "fgsm()", "best_epoch": 1, "stopped": "", "held_out": 10, "robust_accuracy": 0.3,
            "epochs": epochs, "seen": [{**sign, "answer": "stop", "method": None}],
        },
        "audit": summary,
        "start": {**summary, "robust_accuracy": 0.0, "certified_accuracy": None},
        "start_trained": False,
        "files": {"weights": "runs/h/hardened.safetensors"},
    }  # fmt: skip


def test_the_page_holds_every_number_and_runs_nothing() -> None:
    page = hardening.render(record())
    assert "<script" not in page and "<img src" not in page and "<b>bias" not in page
    for text in ("40.0\u00a0%", "30.0–50.0\u00a0%", "20.0\u00a0%", "gap", "the untrained start", "weights of epoch 2"):
        assert text in page, text
    assert page == hardening.render(record())


@pytest.mark.parametrize("change", [{"epochs": [], "best_epoch": -1}, {"held_out": 0}, {"stopped": "nan"}])
def test_a_page_of_what_went_wrong(change: dict[str, Any]) -> None:
    found = record()
    found["training"] |= change
    if "held_out" in change:
        for epoch in found["training"]["epochs"]:
            epoch["held"] = None
    page = hardening.render(found)
    assert "Know this first" in page and hardening.sentences(found)


OVERLAPPING = """[...document.querySelectorAll('svg')].filter(each => each.clientWidth).flatMap(svg => {
    const boxes = [...svg.querySelectorAll('text')].map(each => [each.textContent, each.getBoundingClientRect()]);
    return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
        p.left < q.right && q.left < p.right && p.top < q.bottom && q.top < p.bottom).map(([b]) => [a, b]));
})"""


@pytest.mark.browser
def test_browser_shows_the_page_in_silence_with_and_without_scripts(opened: Opened) -> None:
    html = hardening.render(record())
    for width, scheme, scripts in ((1200, "light", False), (360, "dark", True)):
        with opened(html, width, scheme, java_script_enabled=scripts) as view:
            drawn = "[...document.querySelectorAll('svg[role=img]')].filter(s => s.clientWidth > 0).length"
            assert view.evaluate(drawn) == 3 and view.evaluate(OVERLAPPING) == []
            ink = view.evaluate("getComputedStyle(document.querySelector('h1')).color")
            assert ink == {"light": "rgb(28, 32, 36)", "dark": "rgb(232, 234, 236)"}[scheme]
