"""The smaller commands: init, list, runs, report, doctor."""

from __future__ import annotations

import json
import sys
import time
import tomllib
from pathlib import Path

import pytest

from steepest.app import console, doctor
from steepest.app.config import Settings
from steepest.app.init import TEXT
from steepest.attacks.recipes import ATTACKS
from steepest.audit.presets import PRESETS
from steepest.basis.errors import UsageError
from steepest.budgets.catalogue import BUDGETS
from steepest.harden.library import METHODS
from steepest.models.objectives import OBJECTIVES
from tests.app.material import ASK, QUICK, answered, asked_json, refused, steepest


def test_names_come_one_on_a_line_for_scripts() -> None:
    named = {"attacks": ATTACKS, "budgets": BUDGETS, "methods": METHODS, "objectives": OBJECTIVES}
    for kind, catalogue in named.items():
        assert answered("list", kind).stdout.splitlines() == catalogue.names()
        rows = asked_json("list", kind)[kind]
        assert [row["name"] for row in rows] == catalogue.names()
        assert all(row["summary"] and row["source"] for row in rows)
    assert ATTACKS.names() == sorted(ATTACKS.names()) == [entry.name for entry in ATTACKS]
    few = answered("list", "attacks", "--budget", "l1").stdout.splitlines()
    assert "pgd" in few and set(few) <= set(ATTACKS.names())
    refused("list", "attacks", "--budget", "l7", says=("'l7'", "l1"))
    refused("list", "budgets", "--budget", "l1", says=("list attacks",))
    assert answered("list", "presets").stdout.splitlines() == list(PRESETS)


def test_a_person_sees_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "on_terminal", lambda: True)
    text = answered("list", "attacks").stdout
    assert "steps" in text and "Madry" in text and len(text.splitlines()) > len(ATTACKS.names())


def test_an_unknown_kind_is_refused(place: Path) -> None:
    refused("list", "attack", says=("'attack'", "did you mean 'attacks'", "presets"))


def test_init_writes_what_audit_reads(place: Path) -> None:
    answered("init")
    text = (place / "steepest.toml").read_text(encoding="utf-8")
    assert text == TEXT
    Settings(**tomllib.loads(text))
    # Every line that is commented out is right too.
    lines = [line.removeprefix("# ") if "=" in line else line for line in text.splitlines()]
    known = [line for line in lines if line.partition(" ")[0].replace("-", "_") in Settings.model_fields]
    settings = Settings(**tomllib.loads("\n".join(known)))
    assert settings.mean == (0.4914, 0.4822, 0.4465) and settings.resize == (32, 32) and settings.box == (0, 1)
    refused("init", says=("'steepest.toml' exists already",))
    refused("init", "nowhere/x.toml", says=("nowhere",))
    (place / "sub").mkdir()
    answered("init", "sub")
    assert (place / "sub" / "steepest.toml").read_text(encoding="utf-8") == TEXT


def test_runs_are_listed_and_shown(place: Path) -> None:
    found = asked_json("audit", *ASK, *QUICK, "--out", "runs/mine")
    (place / "runs" / "other").mkdir()
    (place / "runs" / "broken").mkdir()
    (place / "runs" / "broken" / "manifest.json").write_text("{")
    head, broken, mine = answered("runs", "list").stdout.splitlines()
    assert head.split() == ["folder", "model", "data", "budget", "n", "clean", "robust", "state"]
    assert "damaged" in broken and mine.startswith("runs/mine") and mine.endswith("finished")
    rows = asked_json("runs", "list")["runs"]
    assert rows[1]["robust"] == found["robust_accuracy"] and rows[1]["n"] == found["n"]
    assert asked_json("runs", "show", "runs/mine") == found
    assert "robust accuracy at most" in answered("runs", "show", "runs/mine").stdout
    refused("runs", "show", "runs/other", says=("runs/other is not a run", "steepest runs list"))
    refused("runs", "list", "nowhere", says=("'nowhere' does not exist",))


def test_a_page_is_written_again(place: Path) -> None:
    answered("audit", *ASK, *QUICK, "--out", "run")
    page = place / "run" / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert answered("report", "run").stdout.strip() == "run/report.html"
    assert page.read_bytes() == before
    assert answered("report", "run", "-o", "mine.html").stdout.strip() == "mine.html"
    next((place / "run" / "artifacts").glob("gallery-*.npz")).write_bytes(b"half")
    refused("report", "run", says=("gallery-0000", "is damaged"))


def test_doctor_computes_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked_json("doctor")
    assert found["ok"] and all(found["self_test"].values()) and found["torch"] and found["free disk"]
    assert "failed" not in answered("doctor").stdout
    monkeypatch.setattr(doctor, "fgsm", lambda model, x, y, budget: x)
    result = steepest("doctor")
    assert result.exit_code == 1 and "failed" in result.stdout


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with console.Terminal() as terminal:
        terminal.begin("audit", 100)
        terminal.advance(40)
        for _ in range(6):
            clock[0] += 10
            terminal.advance(10, "note")
    lines = capsys.readouterr().err.replace("\u00a0", " ").splitlines()
    assert lines == ["audit: 70 of 100, about 30.0 s left, note", "audit: 100 of 100, about 0.0 s left, note"]


def test_what_would_steer_a_terminal_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\x1b[2Jb")
    console.show_table(("x",), [("\x1b]0;title\x07",)])
    with console.Terminal() as terminal:
        terminal.say("\x1b[31mred")
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err


def test_settings_know_the_options(place: Path) -> None:
    with pytest.raises(UsageError, match="give auto"):
        Settings(model="a", data="b", batch_size="many").batch()
    assert json.loads(Settings(model="a", data="b", gate="x>1").model_dump_json())["gate"] == ["x>1"]
    assert sys.modules["steepest"].__version__ == answered("--version").stdout.strip()
