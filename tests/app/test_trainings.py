"""Folders of trainings in `steepest runs list`, `runs show` and `view`: finished, interrupted, damaged, foreign."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from steepest.app.view import Shelf, _front, runs_in
from steepest.harden.records import Step
from steepest.harden.training import _Board
from tests.app.material import ASK, QUICK, answered, asked_json, refused, steepest

WORDS = ("harden", *ASK, "--preset", "quick", "--no-diagnose", "--no-sentinel", "--method", "fgsm", "--lr", "0.01")
SHORT = ("--batch-size", "8", "--epochs", "3")


def interrupted(monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    """A training that Ctrl-C ended after its first epoch."""
    tell = _Board.tell

    def once(board: _Board, step: Step) -> None:
        if step.epoch == 1:
            raise KeyboardInterrupt
        tell(board, step)

    with monkeypatch.context() as patch:
        patch.setattr(_Board, "tell", once)
        assert steepest(*WORDS, *SHORT, "--out", out).exit_code == 130


@pytest.fixture
def shelves(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished training, one that was interrupted, a damaged one, folders of others, and an audit."""
    answered("audit", *ASK, *QUICK, "--no-diagnose", "--out", "runs/a")
    answered(*WORDS, *SHORT, "--out", "runs/done")
    interrupted(monkeypatch, "runs/cut")
    for name, text in {"bad": '{"form": 1, "asked": {}}', "foreign": '{"epochs": 3}'}.items():
        (place / "runs" / name).mkdir()
        (place / "runs" / name / "hardening.json").write_text(text)
    (place / "runs" / "other").mkdir()
    (place / "runs" / "other" / "history.json").write_text("{}")
    return place / "runs"


def test_trainings_are_listed_by_what_is_known_of_them(shelves: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row["folder"].partition("/")[2]: row for row in asked_json("runs", "list")["runs"]}
    assert list(rows) == ["a", "bad", "cut", "done", "foreign"]
    assert {name: row["kind"] for name, row in rows.items() if row["kind"] != "training"} == {"a": "audit"}
    audit = asked_json("runs", "show", "runs/done/audit")
    done, cut = rows["done"], rows["cut"]
    assert (done["model"], done["method"], done["state"]) == ("net.py:make", "fgsm", "finished")
    assert (done["epochs"], done["epochs_asked"], done["n"]) == (3, 3, audit["n"])
    assert (done["clean"], done["robust"]) == (audit["clean_accuracy"], audit["robust_accuracy"])
    history = json.loads((shelves / "done" / "history.json").read_text())
    assert done["held_out"] == history["robust_accuracy"]
    # The first epoch of both is the same, and nothing was audited of the one that was interrupted.
    held = history["epochs"][0]["held"]["robust"]
    assert (cut["epochs"], cut["held_out"], cut["clean"], cut["robust"]) == (1, held, None, None)
    assert cut["state"].replace("\u00a0", " ") == f"incomplete (epoch 1 of 3, {100 * held:.1f} % robust held out)"
    assert rows["bad"]["state"] == "damaged (KeyError)" and rows["foreign"]["state"] == "damaged (DataError)"
    lines = answered("runs", "list").stdout.splitlines()
    assert lines[0].split()[:7] == ["folder", "kind", "model", "data", "budget", "method", "epochs"]
    assert len(lines) == 6 and lines[4].endswith("finished")
    monkeypatch.chdir(shelves)
    (shelves / "done" / "report.html").unlink()
    assert asked_json("runs", "list", "done")["runs"][0]["state"] == "trained, no page"
    (shelves / "done" / "audit" / "manifest.json").unlink()
    assert asked_json("runs", "list", "done")["runs"][0]["state"] == "trained, not audited"
    next((shelves / "cut").glob("checkpoint-*/state.pt")).write_bytes(b"half")
    assert asked_json("runs", "list", "cut")["runs"][0]["state"] == "damaged (DataError)"


def test_a_training_names_its_runs_and_shows_its_page(shelves: Path) -> None:
    for command in (("runs", "show"), ("report",)):
        refused(*command, "runs/done", says=("runs/done holds a training", "runs/done/audit", "runs/done/report.html"))
    shelf = Shelf(runs_in("runs/done"))
    assert shelf.says() == "2 runs and 1 training" and _front(["runs/done"]) == "/training/0/report.html"
    page = shelf.page("/training/0/report.html")
    assert page == (shelves / "done" / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([\w/]+\.html)"', page or "")
    assert links == ["audit/report.html", "start/report.html"]
    for link in links:
        assert shelf.page(f"/training/0/{link}") == (shelves / "done" / link).read_text(encoding="utf-8")
    assert shelf.page("/training/0/history.json") is None and shelf.page("/training/0/../a/report.html") is None

    shelf = Shelf(runs_in("runs"))
    assert shelf.says() == "1 run and 4 trainings" and _front(["runs"]) == _front(["runs/cut"]) == "/"
    listed = shelf.page("/") or ""
    assert "1 run, 4 trainings" in listed and "incomplete (epoch 1 of 3" in listed and "damaged (KeyError)" in listed
    assert re.findall(r'href="(/training/\d)', listed) == ["/training/2"]

    # The same command again ends what was interrupted, as if it had not been.
    assert "continuing after 6 of 18 steps" in answered(*WORDS, *SHORT, "--out", "runs/cut").stderr
    done, cut = (asked_json("runs", "list", f"runs/{name}")["runs"][0] for name in ("done", "cut"))
    assert {**cut, "folder": done["folder"]} == done and done["state"] == "finished"
