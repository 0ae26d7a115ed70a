"""The page's verdict, its findings, and the landscape behind them."""

from __future__ import annotations

import itertools
import re
from html import unescape

import pytest

from steepest.report import diagnosis, findings, page, plots, scenery
from steepest.report.side_by_side import Entry, compare
from tests.app import findings as made
from tests.app.conftest import Opened
from tests.app.test_report_page import NAMES, Outline, manifest, summary, triples


def words(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " "))


@pytest.fixture(scope="module")
def html() -> str:
    return page.render({**summary(NAMES), **made.diagnosed()}, manifest(NAMES), triples(2, (3, 8, 8)))


@pytest.fixture(scope="module")
def alone() -> str:
    record = {
        **made.diagnosed(),
        "n": 32,
        "notes": ["32 are few"],
        "seconds": 3.0,
        "budget": "Linf(0.1)",
        "command": "x",
    }
    return diagnosis.render(record, "0.1.0")


def test_the_word_stands_beside_both_numbers(html: str) -> None:
    head = words(html[html.index("<header") : html.index("</header>")])
    assert "at most 42.3 %" in head and "As first measured 61.5 % (58.4–64.5 %)" in head
    assert "gradients pass through a surrogate" in head
    assert "Verdict: masked" in head and "do not rest on this number" in head
    assert "blind: it breaks" in head and "Next: Attack again" in head


def test_findings_come_worst_first_and_the_rest_is_folded(html: str) -> None:
    why = html[html.index('<section id="why"') : html.index('<section id="landscape"')]
    order = re.findall(r'id="check-(\w+)"', why)
    assert order == ["blind", "shaky", "quiet", "calm", "absent"]
    folds = why.split('<details class="fold">')[1:]
    assert [re.findall(r'id="check-(\w+)"', fold) for fold in folds] == [["quiet", "calm"], ["absent"]]
    text = words(why)
    assert "1 failed, 1 warned, 2 passed, 1 could not run" in text and "never counts as passed" in text
    for shown in ("statistic 0.2812, threshold 0.02", "3, 5, 8; 32 were measured", "expectation(draws=20)"):
        assert shown in text
    for word in ("✕ FAIL", "! WARN", "✓ PASS", "– NOT RUN"):
        assert word in text  # a sign and a word, never colour alone
    assert "the model draws no random numbers" in text.lower() and "Athalye, Carlini & Wagner 2018" in text


@pytest.mark.parametrize("which", ["html", "alone"])
def test_structure_serves_every_reader(which: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(which)
    outline = Outline(text)
    assert not outline.open
    tags = outline.tags
    assert not [tag for tag, _, _ in tags if tag in ("script", "iframe", "form")] and made.HOSTILE not in text
    levels = [int(tag[1]) for tag, _, _ in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [a["id"] for _, a, _ in tags if "id" in a]
    assert len(ids) == len(set(ids))
    named = {a["aria-labelledby"] for _, a, _ in tags if "aria-labelledby" in a}
    links = {str(a["href"])[1:] for tag, a, _ in tags if tag == "a"}
    assert named <= set(ids) and links <= set(ids)
    assert all(a.get("scope") in ("row", "col") for tag, a, _ in tags if tag == "th")
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for tag, a, _ in tags if a.get("role") == "region")
    pictures = [a for tag, a, _ in tags if tag == "svg" and a.get("role") == "img"]
    assert pictures and all(len(a.get("aria-label") or "") > 20 for a in pictures)
    assert all(a.get("aria-hidden") for tag, a, _ in tags if tag == "svg" and a.get("role") != "img")


def test_every_plot_has_the_table_of_its_numbers(html: str) -> None:
    figures = re.findall(r'<figure class="(?:plot|view)".*?</figure>', html, re.S)
    assert len(figures) == 4 + 1 + 2
    assert all('role="img"' in each and "<table>" in each and "<figcaption>" in each for each in figures)


def test_a_run_without_a_diagnosis_says_so() -> None:
    html = page.render(summary(NAMES), manifest(NAMES), [])
    text = words(html)
    assert "Verdict: not diagnosed" in text and "This run was not diagnosed" in text
    assert "kept no pictures of its landscape" in text and not Outline(html).open


def test_tones_follow_failures_and_warnings_not_the_word() -> None:
    verdict = made.diagnosed()["verdict"]
    tones = [
        findings.headline({"verdict": {**verdict, "believable": believable, "reasons": reasons}}).tone
        for believable, reasons in ((False, ["a"]), (True, ["a"]), (True, []))
    ]
    assert tones == ["bad", "warn", "good"] and findings.headline({}).tone == "open"


def test_twenty_five_findings_fit_on_a_page() -> None:
    many = [made.finding(f"check-{n}", "warn" if n % 2 else "pass", picture=made.LINES) for n in range(25)]
    html = page.render({**summary(NAMES), **made.diagnosed(), "findings": many}, manifest(NAMES), [])
    assert len(html.encode()) < 1_000_000 and html.count('class="finding') == 25


def test_the_matrix_counts_what_one_breaks_and_the_other_does_not() -> None:
    found = scenery.scenery({"scenery": made.scenery()})
    assert found is not None and found.ways is not None
    assert [[number for number, _ in row] for row in found.ways.rows] == [[1, 0], [1, 2]]
    assert found.ways.story == "Together they break 2 of 3; the strongest alone, pgd, margin, 2."


def test_views_count_points_and_their_tables_hold_them() -> None:
    found = scenery.scenery({"scenery": made.scenery()})
    assert found is not None
    view = found.views[0]
    # 3 of 8 finite points of the truth and 3 of 9 of the prediction are wrong; they differ by 2 at most.
    story = view.story.replace("\u00a0", " ")
    assert "Wrong on 37.5 % of the plane, by the linear prediction on 33.3 %" in story and "at most 2 " in story
    assert view.tables[0].rows[0] == ("1", "-2", "not measured", "1")  # the upper edge: b = 1
    assert view.truth.count('class="x"') == 1 and 'class="r5"' in view.truth and 'class="w5"' in view.truth
    assert "0 under" not in found.zeros.replace("exactly 0", "") and "1 under ce" in found.zeros


def test_histograms_hold_every_finite_number_once() -> None:
    found = scenery.scenery({"scenery": made.scenery()})
    assert found is not None and found.margins is not None and found.sizes is not None
    sums = [
        [sum(int(float(row[n])) for row in each.tables[0].rows) for n in (1, 2)]
        for each in (found.margins, found.sizes)
    ]
    assert sums == [[3, 3], [2, 3]]


def test_a_plot_says_its_numbers_and_leaves_out_what_is_none() -> None:
    lines = plots.plot(made.LINES, "a")
    assert lines is not None
    assert lines.tables[0].rows[1] == ("10", "0.5", "not measured")
    assert lines.legend == ("pgd", made.HOSTILE) and made.HOSTILE not in lines.drawing
    bars = plots.plot(made.BARS, "b")
    assert bars is not None and bars.legend == ()
    assert bars.tables[0].rows == (("ce", "1"), ("margin", "0.25"))
    widths = [float(wide) for wide in re.findall(r'<rect class="bar"[^>]*width="([\d.]+)"', bars.drawing)]
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.01)
    assert plots.plot(made.picture("lines", ("a", [1.0], [float("nan")])), "c") is None


def test_points_lie_where_their_numbers_say() -> None:
    drawn = plots.plot(made.picture("lines", ("a", [1, 10, 1000], [0.0, 0.5, 1.0])), "a")
    assert drawn is not None
    xs, ys = (
        [float(at) for at in re.findall(rf'<circle[^>]*{side}="([\d.]+)"', drawn.drawing)] for side in ("cx", "cy")
    )
    # Three decades, so the axis is logarithmic; upwards is smaller y.
    assert xs[1] - xs[0] == pytest.approx((xs[2] - xs[0]) / 3, abs=0.2)
    assert ys[1] == pytest.approx((ys[0] + ys[2]) / 2, abs=0.2) and ys[2] < ys[0]


def test_bars_stand_on_zero_whatever_their_sign() -> None:
    drawn = plots.plot(made.picture("bars", ("a", [1, 2], [-4.0, -2.0]), ("b", [1, 2], [2.0, 4.0])), "a")
    assert drawn is not None
    found = re.findall(r'<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', drawn.drawing)
    tops, heights = ([float(pair[side]) for pair in found] for side in (0, 1))
    zero = tops[0]
    assert tops[1] == zero and [heights[1], heights[2]] == pytest.approx([heights[0] / 2] * 2, abs=0.2)
    assert [tops[n] + heights[n] for n in (2, 3)] == pytest.approx([zero] * 2, abs=0.2)
    alone = plots.plot(made.picture("bars", ("a", [1], [-0.5]), ("b", [1], [1.0])), "b")
    assert alone is not None and 'class="bar below"' in alone.drawing and ">-0.5<" in alone.drawing


def entry(name: str, broken: list[bool], hashes: str = "abcd", **more: object) -> Entry:
    records = [
        {"example_id": n, "pixel_hash": key, "broken": b} for n, (key, b) in enumerate(zip(hashes, broken, strict=True))
    ]
    whole = {**summary(NAMES), **made.diagnosed(), **more}
    return Entry(name=name, link=f"/run/{name}", summary=whole, manifest=manifest(NAMES), records=records)


def test_runs_are_compared_example_by_example() -> None:
    first = entry("one", [True, True, False, False])
    html = compare([first, entry("two", [True, False, True, True])], [("three", "2 of 4 shards are missing")])
    assert not Outline(html).open
    text = words(html)
    assert "3 of 4 shared examples changed." in text
    assert "broken in one alone 1 1" in text and "broken in two alone 2 2, 3" in text and "three: 2 of 4" in text
    assert "at most 42.3 % (39.1–45.6 %)" in text and "blind FAIL FAIL" in text
    other = compare([first, entry("two", [True] * 4, "wxyz")])
    assert "share no example" in other
    assert "1 run" in words(compare([first])) and "0 runs" in words(compare([]))


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "dark"), (360, "light")])
def test_browser_shows_it_in_silence(html: str, opened: Opened, width: int, scheme: str) -> None:
    with opened(html, width, scheme) as view:
        view.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        drawn = view.evaluate(
            "[...document.querySelectorAll('.plot svg[role], .view svg[role]')].map(s => s.clientWidth)"
        )
        label = view.evaluate("getComputedStyle(document.querySelector('.level.fail')).color")
        view.emulate_media(media="print")
        hidden = view.evaluate("getComputedStyle(document.querySelector('nav')).display")
        before = view.evaluate("getComputedStyle(document.querySelector('#why')).breakBefore")
        view.emulate_media(media="screen")
    assert len(drawn) == 8 and min(drawn) > 60
    assert label == ("rgb(255, 143, 133)" if scheme == "dark" else "rgb(179, 38, 30)")
    assert hidden == "none" and before == "page"  # on paper the first page is the summary
