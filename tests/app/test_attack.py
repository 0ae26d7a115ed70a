"""`steepest attack` and `steepest curve`: points that can be used again, and one gradient's curve."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from steepest.app.eightbit import rounded_inside
from steepest.basis.box import Box
from steepest.budgets.l2 import L2
from steepest.budgets.linf import Linf
from steepest.budgets.masked import Masked
from tests.app.material import ASK, COUNT, answered, asked_json, images, refused, steepest

MODEL, DATA, *_ = ASK
EPS = 0.1


def test_points_in_an_archive_are_data_again(place: Path) -> None:
    found = asked_json("attack", "pgd(steps=5)", *ASK, "-o", "adversarial.npz", "--batch-size", "7")
    with np.load("adversarial.npz", allow_pickle=False) as held:
        arrays = {key: held[key] for key in held.files}
    assert set(arrays) == {"images", "labels", "predictions", "ids", "clean"}
    assert arrays["ids"].tolist() == list(range(COUNT))
    assert arrays["images"].shape == (COUNT, 1, 4, 4) and arrays["images"].dtype == np.float32
    assert np.array_equal(arrays["clean"][:, 0], images()[1].astype(np.float32) / 255)
    assert np.abs(arrays["images"].astype(float) - arrays["clean"].astype(float)).max() <= EPS
    wrong = arrays["predictions"] != arrays["labels"]
    assert found["fooled"] > 0 and wrong.mean() == pytest.approx(1 - found["accuracy"])
    again = asked_json("audit", MODEL, "adversarial.npz", "--budget", "linf:0.01", "--preset", "quick")
    assert again["clean_accuracy"] == pytest.approx(found["accuracy"])


def test_an_attack_with_limits_of_its_own_needs_no_budget(place: Path) -> None:
    result = answered("attack", "spatial(angles=5, shifts=3)", MODEL, DATA, "--json")
    found = json.loads(result.stdout)
    assert (found["budget"], found["epsilon"]) == ("Whole()", None)
    assert found["fooled"] > 0 and found["forwards"] <= COUNT * (45 + 2)
    assert "no --budget was given" not in result.stderr
    said = answered("attack", "spatial(angles=5, shifts=3)", MODEL, DATA).stdout
    assert "within the box" in said
    narrow = asked_json("attack", "spatial(angles=5, shifts=3)", *ASK)
    assert narrow["budget"] == "Linf(0.1)" and narrow["fooled"] < found["fooled"]
    answered("attack", "spatial(angles=5, shifts=3)", MODEL, DATA, "-o", "turned", "--limit", "6")
    refused("attack", "spatial", MODEL, DATA, "--mask", "m.npy", says=("--mask", "--budget"))


def test_an_output_is_not_replaced_unasked(place: Path) -> None:
    answered("attack", "fgsm", *ASK, "-o", "x.npz", "--limit", "3")
    refused("attack", "fgsm", *ASK, "-o", "x.npz", says=("'x.npz' exists already", "--force"))
    assert asked_json("attack", "fgsm", *ASK, "-o", "x.npz", "--force")["n"] == COUNT
    (place / "letters").mkdir()
    (place / "letters" / "a.txt").write_text("dear")
    refused("attack", "fgsm", *ASK, "-o", "letters", "--force", says=("a.txt", "new folder"))


def test_pictures_stay_in_the_budget_and_are_asked_again(place: Path) -> None:
    result = answered("attack", "pgd(steps=5)", *ASK, "-o", "pictures", "--json")
    found = json.loads(result.stdout)
    files = sorted((place / "pictures").rglob("*.png"))
    assert len(files) == COUNT and found["rounded"]["left_out"] == 0
    _, pixels, labels = images()
    for file in files:
        number = int(file.stem)
        moved = np.array(Image.open(file)).astype(int) - pixels[number].astype(int)
        assert np.abs(moved).max() <= 25  # 0.1 is 25.5 levels
        assert file.parent.name == str(labels[number])
    assert 0 < found["rounded"]["fooled"] <= found["fooled"]
    again = asked_json("audit", MODEL, "pictures", "--budget", "linf:0.01", "--preset", "quick")
    assert round(again["clean_accuracy"] * COUNT) == found["right"] - found["rounded"]["fooled"]
    said = answered("attack", "pgd(steps=5)", *ASK, "-o", "pictures", "--force").stdout
    assert f"{found['rounded']['fooled']} of {found['fooled']} stay adversarial after rounding to 8 bits" in said


def test_rounding_goes_towards_x_where_it_must() -> None:
    x = torch.tensor([[100.0, 100.0, 100.0]]) / 255
    point = torch.tensor([[108.0, 92.4, 100.0]]) / 255
    exact, feasible = rounded_inside(x, point, Linf(8 / 255).fitted((1, 3)), Box(0, 1))
    assert exact.tolist() == [[108, 92, 100]] and bool(feasible.all())
    narrow, feasible = rounded_inside(x, point, Linf(7.7 / 255).fitted((1, 3)), Box(0, 1))
    assert narrow.tolist() != exact.tolist() and not bool(feasible.all())  # 108 was outside from the start
    inner = torch.tensor([[107.6, 92.4, 100.0]]) / 255
    narrow, feasible = rounded_inside(x, inner, Linf(7.7 / 255).fitted((1, 3)), Box(0, 1))
    assert narrow.tolist() == [[107, 93, 100]] and bool(feasible.all())
    masked = Masked(Linf(8 / 255), torch.tensor([True, True, False])).fitted((1, 3))
    assert bool(rounded_inside(x, point, masked, Box(0, 1))[1].all())
    between = torch.tensor([[100.5]]) / 255
    assert not bool(rounded_inside(between, between, Linf(0.1 / 255).fitted((1, 1)), Box(0, 1))[1].any())


def test_rounding_of_many_points_never_leaves_a_ball() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (200, 12), generator=generator) / 255
    step = torch.randn(200, 12, generator=generator)
    for budget in (L2(0.05), Linf(0.013)):
        fitted = budget.fitted((200, 12))
        inside = (x.double() + fitted.project(step.double())).clamp(0, 1)
        shades, feasible = rounded_inside(x, inside, fitted, Box(0, 1))
        assert bool(feasible.all())
        levels = shades.double() - (x.double() * 255).round()
        assert bool((fitted.gauge(levels / 255) <= 1).all())


def test_one_image(place: Path) -> None:
    _, pixels, labels = images()
    Image.fromarray(pixels[5]).save("cat.png")
    words = ("attack", "fgsm", MODEL, "cat.png", "--budget", "linf:0.4")
    named = answered(*words, "--labels", "cat,dog,bird", "--label", "bird", "-o", "out.png")
    assert labels[5] == 2 and "cat.png, label bird: the model says bird; after fgsm() it says" in named.stdout
    assert np.abs(np.array(Image.open("out.png")).astype(int) - pixels[5].astype(int)).max() <= 102
    unnamed = answered(*words)
    assert "the model's own answer, 2, is taken as the label" in unnamed.stderr
    assert "nothing was written" in unnamed.stdout
    aimed = asked_json(*words, "--target", "0")
    assert aimed["target"] == 0 and aimed["example"]["after"] == 0
    assert "no --budget was given: linf:8/255" in answered("attack", "fgsm", MODEL, "cat.png", "--label", "2").stderr
    refused(*words, "--label", "7", says=("labels run from 7 to 7", "0 to 2"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("fgms", *ASK), ("'fgms'", "did you mean 'fgsm'")),
        (("fgsm(steps=3)", *ASK), ("'steps'",)),
        (("fgsm", MODEL, DATA, "--budget", "linf:0.1,0.2"), ("2 sizes", "audit")),
        (("fgsm", *ASK, "-o", "x.csv"), ("'.csv'", ".npz")),
        (("fgsm", *ASK, "-o", "x.png"), ("60 examples", "folder/")),
        (("fgsm", *ASK, "-o", "none/x.npz"), ("does not exist",)),
        (("fgsm", MODEL, "flat.npz", "--budget", "linf:0.1", "-o", "pictures"), ("no images", "adversarial.npz")),
    ],
)
def test_what_an_attack_refuses(place: Path, words: tuple[str, ...], says: tuple[str, ...]) -> None:
    _, pixels, labels = images()
    np.savez("flat.npz", x=pixels.reshape(COUNT, -1) / np.float32(255), y=labels)
    refused("attack", *words, says=says)


def test_a_curve_costs_one_backward(place: Path) -> None:
    found = asked_json("curve", *ASK, "--points", "8", "-o", "curve.json")
    assert json.loads((place / "curve.json").read_text(encoding="utf-8")) == found
    assert found["backwards"] == found["n"] == COUNT
    assert [row["epsilon"] for row in found["points"]] == pytest.approx([EPS * k / 8 for k in range(1, 9)])
    shares = [row["accuracy"] for row in found["points"]]
    # On a linear model success is monotone, and FGSM is the strongest attack there is.
    assert shares == sorted(shares, reverse=True) and shares[-1] < found["clean_accuracy"]
    reached = asked_json("attack", "fgsm", *ASK)["accuracy"]
    assert shares[-1] == pytest.approx(reached)
    text = answered("curve", *ASK, "--points", "8").stdout
    assert text.splitlines()[0].split() == ["ε", "FGSM", "accuracy"]
    assert "not monotone" in text and "1 backward" in text and "quartiles" in text
    refused("curve", *ASK, "--points", "0", says=("--points 0",))
    refused("curve", *ASK, "-o", "curve.csv", says=("'.csv'", ".json"))


def test_batches_do_not_matter(place: Path) -> None:
    one, other = (asked_json("attack", "pgd(steps=3)", *ASK, "--batch-size", size) for size in ("60", "11"))
    assert one["fooled"] == other["fooled"] and one["forwards"] == other["forwards"]
    assert steepest("attack", "pgd", *ASK, "--batch-size", "x").exit_code == 2
