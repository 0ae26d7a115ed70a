"""Bad input gets one line that names the value, what is allowed and the remedy; exit code 2; nothing half-written."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from steepest.attacks.recipe import Recipe
from tests.app.material import ASK, COUNT, QUICK, answered, asked_json, images, refused, steepest

MODEL, DATA, *_ = ASK


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--budget", "linff:0.1"), ("'linff'", "did you mean 'linf'", "list budgets")),
        (("--budget", "linf"), ("'linf' has no size", "linf:8/255")),
        (("--budget", "linf:-0.1"), ("-0.1", "at least 0")),
        (("--budget", "linf:a"), ("'a' is not a number", "8/255")),
        ((), ("no --budget", "linf:8/255")),
        (("--budget", "weighted:0.1"), ("--feature-weights",)),
        (("--budget", "linf:0.1", "--mask", "none.npy"), ("none.npy", "does not exist")),
        (("--budget", "linf:0.1", "--mask", "net.py"), ("net.py", "numpy.save")),
        (("--budget", "linf:0.1", "--mask", "data.npz"), ("data.npz", "numpy.save")),
        (("--budget", "linf:0.1", "--preset", "quik"), ("'quik'", "did you mean 'quick'")),
        (("--budget", "linf:0.1", "--attacks", "fgms"), ("'fgms'", "did you mean 'fgsm'")),
        (("--budget", "linf:0.1", "--attacks", "pgd(step=1, stepz=3)"), ("'stepz'", "did you mean 'step")),
        (("--budget", "linf:0.1", "--objective", "cee"), ("'cee'", "did you mean 'ce'")),
        (("--budget", "linf:0.1", "--gate", "robust=0.4"), ("'robust=0.4'", "robust>=0.40")),
        (("--budget", "linf:0.1", "--gate", "robbust>=0.4"), ("'robbust'", "did you mean 'robust'")),
        (("--budget", "linf:0.1", "--gate", "robust>=40"), ("40", "0 to 1")),
        (("--budget", "linf:0.1", "--target", "9"), ("target 9", "0 to 2")),
        (("--budget", "linf:0.1", "--target", "cat"), ("'cat'", "--labels")),
        (("--budget", "linf:0.1", "--labels", "a,b,c", "--target", "d"), ("'d'", "a, b, c")),
        (("--budget", "linf:0.1", "--labels", "names.txt"), ("'names.txt'", "one name a line")),
        (("--budget", "linf:0.1", "--mean", "0.1,0.2"), ("mean has 2 values", "1 channel")),
        (("--budget", "linf:0.1", "--std", "0"), ("positive",)),
        (("--budget", "linf:0.1", "--mean", "a"), ("'a' is not a number",)),
        (("--budget", "linf:0.1", "--box", "1,0"), ("lower before upper",)),
        (("--budget", "linf:0.1", "--box", "1"), ("--box", "0,1")),
        (("--budget", "linf:0.1", "--box", "0,0.5"), ("leaves the box [0, 0.5]",)),
        (("--budget", "linf:0.1", "--resize", "32"), ("--resize '32'", "32x32")),
        (("--budget", "linf:0.1", "--batch-size", "0"), ("'0'", "at least 1")),
        (("--budget", "linf:0.1", "--limit", "0"), ("limit=0", "at least 1")),
        (("--budget", "linf:0.1", "--limit", "3", "--sample", "3"), ("exclude each other",)),
        (("--budget", "linf:0.1", "--weights", "none.pt"), ("none.pt", "does not exist")),
        (("--budget", "linf:0.1", "--label", "1"), ("--label", "single image")),
    ],
    ids=lambda value: " ".join(value) if value and str(value[0]).startswith("--") else "",
)
def test_a_wrong_option(place: Path, words: tuple[str, ...], says: tuple[str, ...]) -> None:
    refused("audit", MODEL, DATA, *words, says=says)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nat.py:make", ("nat.py", "does not exist")),
        ("net.py:mak", ("'mak'", "did you mean 'make'")),
        ("net.py", ("net.py:factory",)),
        ("net.onn", ("'net.onn' does not exist",)),
        ("net.tflite", ("'.tflite'", ".onnx", ".pt2")),
        ("net.pth", ("holds weights without an architecture", "pkg.module:factory --weights net.pth")),
        ("net.pkl", ("pickle", "--trust-code")),
        ("net.onnx", ("net.onnx",)),
        ("net.pt2", ("net.pt2",)),
        ("net.py:one_output", ("(2,)", "[2, K]", "torch.stack")),
        ("net.py:whole", ("(2, 1, 4, 4)", "[2, K]")),
        ("net.py:crashing", ("net.py:crashing", "the factory fails")),
        ("net.py:reversed_classes", ("guessing among 3 classes", "--labels", "--mean", "layout", "--allow-chance")),
    ],
)
def test_a_wrong_model(place: Path, model: str, says: tuple[str, ...]) -> None:
    (place / "net.tflite").write_bytes(b"x")
    torch.save({"w": torch.zeros(2)}, place / "net.pth")
    (place / "net.pkl").write_bytes(pickle.dumps([1]))
    (place / "net.onnx").write_bytes(b"\x08\x08 not whole")
    (place / "net.pt2").write_bytes(b"PK\x03\x04 not whole")
    refused("audit", model, DATA, "--budget", "linf:0.1", says=says)


def _saved(name: str, **arrays: Any) -> str:
    np.savez(name, **arrays)
    return name


def _bad_data(kind: str) -> str:
    _, pixels, labels = images()
    floats = pixels.astype(np.float32) / 255
    holed = floats.copy()
    holed[7, 0, 0] = np.nan
    made: dict[str, dict[str, Any]] = {
        "shape": {"images": np.zeros((COUNT, 5, 5), np.uint8), "labels": labels},
        "empty": {"images": pixels[:0], "labels": labels[:0]},
        "range": {"images": pixels, "labels": labels + 1},
        "length": {"images": pixels, "labels": labels[:-1]},
        "negative": {"images": pixels, "labels": labels - 1},
        "outside": {"images": 3 * floats - 1, "labels": labels},
        "255": {"images": pixels.astype(np.float32), "labels": labels},
        "nan": {"images": holed, "labels": labels},
        "objects": {"images": np.array([[1], [2, 3]], dtype=object), "labels": labels[:2]},
        "keys": {"pictures": pixels, "labels": labels},
        "unlabelled": {"images": pixels},
        "shuffled": {"images": pixels, "labels": np.roll(labels, 1)},
    }
    return _saved(f"{kind}.npz", **made[kind])


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("shape", ("1×5×5", "--resize")),
        ("empty", ("empty.npz", "at least one")),
        ("range", ("labels run from 1 to 3", "3 classes, 0 to 2")),
        ("length", ("59 labels for 60 examples",)),
        ("negative", ("-1", "count classes from 0")),
        ("outside", ("leaves the box [0, 1]", "--mean, --std")),
        ("255", ("divide by 255",)),
        ("nan", ("NaN in 1 example",)),
        ("objects", ("pickled Python objects", "refused")),
        ("keys", ("pictures", "images")),
        ("unlabelled", ("labels or y",)),
        ("shuffled", ("guessing among 3 classes", "--labels")),
    ],
)
def test_wrong_data(place: Path, kind: str, says: tuple[str, ...]) -> None:
    path = _bad_data(kind)
    refused("audit", MODEL, path, "--budget", "linf:0.1", says=says)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dat.npz", ("dat.npz does not exist", "did you mean 'data.npz'")),
        ("data.csv", ("data.csv", "label")),
        ("half.npz", ("half.npz", "truncated")),
        ("half.parquet", ("half.parquet",)),
        ("half.png", ("half.png",)),
        ("nothing", ("nothing", "class folders")),
        ("hollow", ("no image",)),
    ],
)
def test_data_of_a_wrong_kind(place: Path, name: str, says: tuple[str, ...]) -> None:
    (place / "data.csv").write_text("a,b\n1,2\n")
    whole = (place / DATA).read_bytes()
    (place / "half.npz").write_bytes(whole[: len(whole) // 2])
    (place / "half.parquet").write_bytes(b"PAR1 not whole")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(place / "half.png")
    (place / "half.png").write_bytes((place / "half.png").read_bytes()[:40])
    (place / "nothing").mkdir()
    (place / "hollow" / "cat").mkdir(parents=True)
    refused("audit", MODEL, name, "--budget", "linf:0.1", says=says)


def test_an_output_folder_of_something_else(place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "letter.txt").write_text("dear")
    refused("audit", *ASK, *QUICK, "--out", "mine", says=("mine is not empty and is not a run", "--out"))
    refused("audit", *ASK, *QUICK, "--out", "net.py", says=("net.py", "--out"))


def test_what_is_odd_is_said_and_handled(place: Path) -> None:
    soft = answered("audit", "net.py:probabilities", *ASK[1:], *QUICK)
    assert "the outputs are probabilities" in soft.stderr
    restless = answered("audit", "net.py:restless", *ASK[1:], *QUICK)
    assert "the model draws random numbers" in restless.stderr
    plain, logs = (asked_json("audit", f"net.py:{name}", *ASK[1:], *QUICK) for name in ("make", "probabilities"))
    assert plain["robust_accuracy"] == logs["robust_accuracy"]


def test_what_is_not_a_number_is_never_robust(place: Path) -> None:
    off = asked_json("audit", "net.py:broken_off_the_data", *ASK[1:], *QUICK)
    assert off["clean_accuracy"] > 0.9 and off["robust_accuracy"] == 0
    assert off["status"]["nonfinite"] == round(COUNT * off["clean_accuracy"])
    some = answered("audit", "net.py:broken_on_some", *ASK[1:], *QUICK)
    assert "the outputs are not finite for" in some.stderr
    reached = asked_json("attack", "fgsm", "net.py:broken_off_the_data", *ASK[1:])
    assert reached["lost"] > 0 and reached["accuracy"] == 0


def test_an_attack_that_fails_is_a_crash_and_never_a_number(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Recipe, "run", fail)
    for words in (("audit", *ASK, *QUICK, "--json"), ("attack", "fgsm", *ASK, "-o", "x.npz")):
        result = steepest(*words)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "error: unexpected ZeroDivisionError: planted" in result.stderr and "Traceback" in result.stderr
    assert not (place / "x.npz").exists()


def test_no_space_left_in_the_middle(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = pyarrow.parquet.write_table, [0]

    def full(table: Any, stream: IO[bytes], compression: str) -> None:
        calls[0] += 1
        if calls[0] == 3:
            stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, stream, compression=compression)

    monkeypatch.setattr(pyarrow.parquet, "write_table", full)
    words = ("audit", *ASK, *QUICK, "--shard-size", "16", "--out", "run")
    result = steepest(*words)
    assert result.exit_code == 12
    assert "no space left" in result.stderr and "same command" in result.stderr
    assert sorted(p.name for p in (place / "run" / "results").iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    incomplete = answered("runs", "list", ".").stdout
    assert "incomplete (2 of 4 shards)" in incomplete
    refused("report", "run", says=("2 of 4 shards are missing", "same command"), code=12)
    again = answered(*words)
    assert "continuing: 32 of 60" in again.stderr


def test_no_space_left_for_a_page_or_a_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    refused("attack", "fgsm", *ASK, "-o", "x.npz", says=("no space left", "x.npz"))


def test_a_device_that_is_not_there(place: Path) -> None:
    refused("audit", *ASK, "--device", "meta9", says=("'meta9'", "cpu"))
    if not torch.cuda.is_available():
        refused("audit", *ASK, "--device", "cuda", says=("'cuda'", "cpu"))


def test_an_interruption_in_this_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "run", stop)
    result = steepest("audit", *ASK, *QUICK)
    assert result.exit_code == 130 and "the same command continues" in result.stderr
    result = steepest("attack", "fgsm", *ASK, "-o", "x.npz")
    assert result.exit_code == 130 and "nothing was written" in result.stderr
    assert not [path for path in place.iterdir() if "x.npz" in path.name]
