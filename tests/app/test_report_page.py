"""The report page: true to its records, whole without a network, readable by everybody."""

from __future__ import annotations

import base64
import io
import itertools
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steepest.basis.errors import ContractError, DataError, UsageError
from steepest.report import charts, drawing, gallery, page, tables, wording
from steepest.report.contract import Table, Triple
from tests.app.conftest import Opened

EPSILON = 8 / 255
HOSTILE = '<script>alert("1")</script>'
IMG = '"><img src=http://evil.example/x onerror=alert(1)>'
STYLE = Path(page.__file__).parent / "templates" / "style.css"


def summary(names: list[str], n: int = 1000) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    classes = len(names)
    per_class = [
        {
            "label": label,
            "name": name,
            "n": n // classes,
            "clean_accuracy": 0.9,
            "robust_accuracy": 0.2 + 0.5 * label / classes,
            "robust_interval": [0.1 + 0.5 * label / classes, 0.3 + 0.5 * label / classes],
        }
        for label, name in enumerate(names)
    ]
    ledger = [
        ("clean", 0.0, n, 69, n, 0),
        ("fgsm", EPSILON, n - 69, 310, 1862, 931),
        ("pgd", EPSILON, n - 379, 198, 9, 9),
    ]
    keys = ("name", "epsilon", "entered", "broken", "forwards", "backwards")
    return {
        "n": n,
        "classes": classes,
        "clean_accuracy": 0.931,
        "clean_interval": [0.914, 0.945],
        "robust_accuracy": 0.423,
        "robust_interval": [0.391, 0.456],
        "budget": "Linf(0.031373)",
        "epsilon": EPSILON,
        "preset": "quick",
        "objective": "scaled-ce",
        "seed": 7,
        "stages": [{**dict(zip(keys, row, strict=True)), "seconds": 2.5} for row in ledger],
        "per_class": per_class,
        "curve": [{"epsilon": e, "fgsm": 0.9 - 9 * e, "best": 0.9 - 12 * e} for e in (0.01, 0.02, 0.03, 0.04)],
        "confusion": {
            "labels": names,
            "counts": (rng.poisson(3, (classes, classes)) + 40 * np.eye(classes, dtype=int)).tolist(),
        },
        "radius": {
            "median": 0.0178,
            "quartiles": [0.011, 0.024],
            "found": 577,
            "values": [0.01, 0.02, 0.02, None],
        },
        "status": {"zero_gradient": 12, "nonfinite": 0, "ok": 988},
        "blind": {"zero_gradient": 12, "nonfinite": 0},
        "notes": [f"A note about {names[0]}."],
        "run": "runs/a",
        "command": "steepest audit net.onnx images.npz --budget linf:8/255 --seed 7",
        "budget_unit": "data units",
    }


def manifest(names: list[str]) -> dict[str, Any]:
    return {
        "model": {
            "source": names[0],
            "sha256": "ab" * 32,
            "kind": "onnx",
            "deterministic": True,
            "agreement": None,
        },
        "data": {
            "source": "images.npz",
            "sha256": "cd" * 32,
            "shape": [3, 8, 8],
            "class_names": names,
            "notes": [],
        },
        "versions": {"steepest": "0.1.0", "torch": "2.13.0"},
        "machine": {"cpu": "2 cores"},
        "measured": {"batch_size": 256, "threads": 2},
        "created": "2026-01-02 03:04 UTC",
        "plan_hash": "ef" * 32,
    }


def triples(count: int, shape: tuple[int, ...], name: str = "cat") -> list[Triple]:
    rng = np.random.default_rng(1)
    made = []
    for index in range(count):
        clean = rng.random(shape, dtype=np.float32)
        moved = np.clip(clean + np.float32(EPSILON) * np.sign(rng.normal(size=shape)), 0, 1)
        made.append(
            Triple(
                example_id=index,
                label_name=name,
                clean_prediction_name=name,
                adversarial_prediction_name="dog",
                stage="fgsm()",
                radius=0.0123,
                clean=clean,
                adversarial=moved.astype(np.float32),
            )
        )
    return made


class Outline(HTMLParser):
    """Every start tag with its attributes, and the tags that surround it."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), tuple(self.open)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"<{tag}> is not closed in order"


NAMES = [HOSTILE, IMG, "bird\x00\ud800\u202e", "cat", "cat"]


@pytest.fixture(scope="module")
def html() -> str:
    return page.render(summary(NAMES), manifest(NAMES), triples(3, (3, 8, 8), HOSTILE))


@pytest.fixture(scope="module")
def many() -> str:
    names = [f"class {label}" for label in range(200)]
    return page.render(summary(names, 4000), manifest(names), triples(48, (3, 224, 224)))


def test_hostile_names_are_text(html: str) -> None:
    outline = Outline(html)
    assert not outline.open
    assert not [tag for tag, _, _ in outline.tags if tag in ("script", "iframe", "object", "base", "form")]
    assert not [name for _, attributes, _ in outline.tags for name in attributes if name.startswith("on")]
    assert HOSTILE not in html and "&lt;script&gt;" in html
    assert not re.search("[\x00-\x08\u202e\ud800-\udfff]", html)
    html.encode()


def test_nothing_is_asked_of_the_outside(html: str) -> None:
    for _, attributes, _ in Outline(html).tags:
        for name in ("src", "href", "srcset", "action", "xlink:href", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), attributes
    assert not re.search(r"url\(|@import|javascript:", html)
    assert "default-src 'none'" in html


def test_every_chart_is_named_and_has_its_table_twin(html: str) -> None:
    pieces = re.findall(r'<figure class="chart".*?</figure>', html, re.S)
    assert len(pieces) == 3
    for piece in pieces:
        assert re.search(r"<details>.*<table>.*</table>.*</details>", piece, re.S)
        pictures = re.findall(r'<svg[^>]*role="img".*?</svg>', piece, re.S)
        assert len(pictures) == 2
        assert all(re.search(r'aria-label="[^"]{20,}"', svg) and "<title>" in svg for svg in pictures)


def test_structure_serves_every_reader(html: str) -> None:
    tags = Outline(html).tags
    levels = [int(tag[1]) for tag, _, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {"header", "nav", "main", "footer"} <= {tag for tag, _, _ in tags}
    assert all(a.get("scope") in ("row", "col") for tag, a, _ in tags if tag == "th")
    assert all((a.get("alt") or "").startswith("Example") for tag, a, _ in tags if tag == "img")
    ids = [a["id"] for _, a, _ in tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"] for tag, a, _ in tags if tag == "a"]
    assert links and {str(link)[1:] for link in links} <= set(ids)


def test_numbers_are_those_of_the_summary(html: str) -> None:
    text = unescape(re.sub(r"<[^>]+>", "", html)).replace("\u00a0", " ")
    text = re.sub(r"\s+", " ", text)
    assert "Robust accuracy at most 42.3 % (95 % interval 39.1–45.6 %) under Linf 8/255" in text
    for shown in (
        "93.1 %",
        "91.4–94.5 %",
        "423 kept",
        "577 of 1,000",
        "0.0178",
        "1,862",
        "62.1 %",
        "12 examples",
    ):
        assert shown in text, shown
    assert "not monotone in ε" in text and "which is not robustness" in text
    assert summary(NAMES)["command"] in text and "ab" * 32 in text and "steepest 0.1.0" in text


def test_curve_table_starts_at_the_clean_accuracy() -> None:
    chart = charts.curve(summary(["a", "b"]))
    assert chart is not None
    lines = [(row[0], row[1], row[3]) for row in chart.table.rows]
    assert lines[0] == ("0", "93.1\u00a0%", "93.1\u00a0%")
    assert lines[1:] == [
        (f"{e}", f"{90 - 900 * e:.1f}\u00a0%", f"{90 - 1200 * e:.1f}\u00a0%") for e in (0.01, 0.02, 0.03, 0.04)
    ]


def test_curve_has_the_exact_interval_at_every_size() -> None:
    found = {**summary(["a", "b"], 100), "clean_accuracy": 1.0}
    found["curve"] = [{"epsilon": 0.01, "fgsm": 0.4, "best": None}]
    chart = charts.curve(found)
    assert chart is not None
    # Clopper & Pearson 1934: of 100, all 100 and 40.
    assert [row[2] for row in chart.table.rows] == ["96.4–100.0\u00a0%", "30.3–50.3\u00a0%"]
    assert chart.table.rows[1][3:] == ("not measured", "not measured")


def test_histogram_counts_every_radius_once() -> None:
    found = summary(["a", "b"])
    found["radius"]["values"] = [*np.linspace(0, 0.05, 101).tolist(), None, float("nan")]
    chart = charts.radii(found)
    assert chart is not None
    assert sum(int(row[2]) for row in chart.table.rows) == 101


def test_stages_show_the_share_that_nothing_broke_so_far() -> None:
    found = summary(["a", "b"])
    after = 4
    first = tables.stages(found)
    assert first is not None
    assert [row[after] for row in first.rows] == ["93.1\u00a0%", "62.1\u00a0%", "42.3\u00a0%"]
    assert first.rows[1][-1] == f"{(1862 + 931) / 310:.1f}"
    # A rung that a share enters, at a smaller ε: what it broke is broken at the larger ones, what stayed out is not.
    found["stages"].insert(2, {"name": "closer", "epsilon": 0.01, "entered": 60, "broken": 9, "forwards": 1})
    second = tables.stages(found)
    assert second is not None
    assert [row[after] for row in second.rows] == ["93.1\u00a0%", "62.1\u00a0%", "61.2\u00a0%", "41.4\u00a0%"]
    found["blind"] = {"nonfinite": 10}
    third = tables.stages(found)
    assert third is not None
    assert [row[after] for row in third.rows] == ["92.1\u00a0%", "61.1\u00a0%", "60.2\u00a0%", "40.4\u00a0%"]


def test_many_classes_give_worst_and_pairs(many: str) -> None:
    assert "200 classes; the 20 least robust are drawn, the table has all." in many
    assert "The 20 most frequent of" in many and 'class="heat"' not in many
    names = [f"class {label}" for label in range(200)]
    chart = charts.classes(summary(names), 1000)
    assert chart is not None and len(chart.table.rows) == 200
    assert "class 19<" in chart.wide and "class 20<" not in chart.wide


def test_page_stays_below_five_megabytes_and_says_what_it_left_out(many: str) -> None:
    assert len(many.encode()) < 5_000_000
    shown = many.count('class="card"')
    assert 0 < shown < 48
    assert f"{shown} of 48 broken examples; the others do not fit" in many


def test_at_most_48_examples_and_no_room_means_none() -> None:
    small = triples(50, (1, 8, 8))
    assert len(gallery.cards(small, 10**7)) == 48
    assert gallery.cards(small, 100) == []


def decoded(uri: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_difference_is_scaled_exactly() -> None:
    clean = np.full((3, 4, 4), 0.5)
    moved = clean.copy()
    moved[0, 0, 0] += 8 / 255
    moved[1, 0, 0] -= 4 / 255
    triple = triples(1, (3, 4, 4))[0]
    triple = Triple(
        **{name: getattr(triple, name) for name in triple.__slots__} | {"clean": clean, "adversarial": moved}
    )
    shades, factor = gallery.difference(triple)
    assert shades[0, 0, 0] == 255 and shades[1, 0, 0] in (64, 65) and (shades[:, 1:] == 128).all()
    assert factor == pytest.approx(127 / 8, rel=1e-12)
    assert "difference × 15.9, grey = 0" in gallery.cards([triple], 10**6)[0].scale


def test_pictures_are_lossless() -> None:
    triple = triples(1, (3, 5, 9))[0]
    card = gallery.cards([triple], 10**6)[0]
    exact = np.rint(255 * triple.clean.astype(np.float64)).astype(np.uint8).transpose(1, 2, 0)
    assert (decoded(card.pictures[0].uri) == exact).all()
    assert (decoded(card.pictures[2].uri) == gallery.difference(triple)[0].transpose(1, 2, 0)).all()
    assert card.pictures[0].width == 9 * 13 and card.pictures[0].height == 5 * 13


def test_vectors_show_their_most_changed_features() -> None:
    triple = triples(1, (20,))[0]
    card = gallery.cards([triple], 100)[0]
    assert not card.pictures and card.features is not None
    change = triple.adversarial.astype(float) - triple.clean.astype(float)
    assert card.features.rows[0][0] == str(int(np.abs(change).argmax()))
    assert "8 most changed of 20" in page.render(summary(["a", "b"]), manifest(["a", "b"]), [triple])


def test_what_was_not_measured_is_not_zero() -> None:
    bare = {"n": 0, "clean_accuracy": None, "robust_accuracy": None}
    html = page.render(bare, {}, [])
    assert (
        "not measured" in html
        and "0.0\u00a0%" not in html
        and "at most" not in html.split("<body>")[0].split("<title>")[1]
    )
    assert not Outline(html).open


def test_missing_key_is_named() -> None:
    with pytest.raises(DataError, match="no 'robust_accuracy'"):
        page.render({"n": 1, "clean_accuracy": 1.0}, {}, [])


def test_triples_that_cannot_be_drawn_are_refused() -> None:
    good = triples(1, (1, 4, 4))[0]
    fields = {name: getattr(good, name) for name in good.__slots__}
    for wrong in ({"clean": good.clean[0]}, {"adversarial": good.clean * np.nan}, {"lower": 1.0}):
        with pytest.raises(DataError, match="gallery's example 0"):
            Triple(**fields | wrong)


def test_chart_lets_no_foreign_element_through() -> None:
    spec = {
        "data": {"values": [{"u": "data:,x"}]},
        "mark": {"type": "image", "width": 9, "height": 9},
        "encoding": {"url": {"field": "u", "type": "nominal"}},
    }
    with pytest.raises(ContractError, match="<image>"):
        drawing.chart("x", "t", "s", Table(caption="", head=(), rows=()), spec, (50, 50))


def test_written_page_equals_the_rendered_one_and_leaves_nothing_beside(tmp_path: Path) -> None:
    bare = {"n": 4, "clean_accuracy": 1.0, "robust_accuracy": 0.5}
    target = tmp_path / "report.html"
    assert page.write(target, bare, {}, []) == target
    assert target.read_text(encoding="utf-8") == page.render(bare, {}, []) == page.render(bare, {}, [])
    with pytest.raises(UsageError, match="Make the folder"):
        page.write(tmp_path / "no" / "report.html", bare, {}, [])
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UsageError, match="choose another path"):
        page.write(tmp_path / "folder.html", bare, {}, [])
    assert {entry.name for entry in tmp_path.iterdir()} == {"report.html", "folder.html"}


def test_sizes_read_as_fractions_where_the_decimal_is_long() -> None:
    assert [wording.size(k / 255) for k in (1, 8, 51)] == ["1/255", "8/255", "0.2"]
    assert wording.size(float(np.float32(8 / 255))) == "8/255"
    assert wording.size(None) == wording.size(float("nan")) == "not measured"


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_contrast_is_aa(theme: int) -> None:
    block = re.findall(r":root \{[^}]*--paper[^}]*\}", STYLE.read_text(encoding="utf-8"))[theme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    for text in ("ink", "soft", "best", "fgsm", "good", "fail", "s2", "s3", "s4", "s5"):
        for ground in ("paper", "card", *(("warn",) if text == "ink" else ())):
            light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (360, "dark")])
def test_browser_opens_it_offline_in_silence(html: str, opened: Opened, width: int, scheme: str) -> None:
    with opened(html, width, scheme) as view:
        pictures = view.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
        drawn = view.evaluate("[...document.querySelectorAll('svg[role=img]')].filter(s => s.clientWidth > 0).length")
    assert pictures == [8] * 9 and drawn == 3


def test_what_could_not_be_measured_is_neither_robust_nor_at_most() -> None:
    html = page.render({**summary(NAMES), "blind": {"zero_gradient": 0, "nonfinite": 7}}, manifest(NAMES), [])
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", "", html)).replace("\u00a0", " "))
    assert "and 7 could not be measured" in text
    assert "7 examples could not be measured because their output or gradient is NaN" in text
    assert not text.lstrip().startswith("Robust accuracy at most")
