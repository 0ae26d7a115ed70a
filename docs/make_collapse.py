"""Train the task that collapses in four ways, draw docs/img/collapse.svg, and write the table of docs/collapse.md.

`python docs/make_collapse.py` takes a few minutes on one processor: three seeds; the picture is of the first.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the task is one of the tests'

from tests.planted.collapse import STEPS, Run, trained

from steepest.harden.sentinel import Sentinel

PAGE = Path(__file__).parent / "collapse.md"
PICTURE = Path(__file__).parent / "img" / "collapse.svg"
SEEDS = 3
WAYS = {"fgsm": "#d55e00", "n-fgsm": "#0072b2", "grad-align(weight=2)": "#009e73", "fgsm + sentinel": "#7a3e8e"}
"""Ways of training, and their colours."""
WIDE, HIGH, LEFT, TOP = 300, 220, 44, 34
BETWEEN, LABELS = 60, 150


def run(way: str, seed: int) -> Run:
    """Train in one of the ways."""
    if way == "fgsm + sentinel":
        return trained("fgsm", seed, sentinel=Sentinel(remedy="n-fgsm", keep=True))
    return trained(way, seed)


def picture(runs: dict[str, Run]) -> str:
    """Return two panels of accuracy over steps: after FGSM, and after PGD."""
    second = LEFT + WIDE + BETWEEN
    panels = [_panel(runs, "fgsm", LEFT, "right after FGSM"), _panel(runs, "pgd", second, "right after PGD")]
    names = _labels(runs, second + WIDE + 8)
    width, height = second + WIDE + LABELS, TOP + HIGH + 46
    style = "text{font:12px system-ui,sans-serif;fill:#222}.g{stroke:#ddd}.l{fill:none;stroke-width:2}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Accuracy over training steps, after FGSM and after PGD, for four ways of training">'
        f'<style>{style}</style><rect width="{width}" height="{height}" fill="#fff"/>{"".join(panels)}{names}</svg>\n'
    )


def _panel(runs: dict[str, Run], what: str, left: int, title: str) -> str:
    parts = [f'<text x="{left}" y="{TOP - 14}" font-weight="600">{title}</text>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(share)
        parts.append(f'<line class="g" x1="{left}" x2="{left + WIDE}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for step in range(0, STEPS + 1, 200):
        x = left + WIDE * step / STEPS
        parts.append(f'<text x="{x:.1f}" y="{TOP + HIGH + 18}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{left + WIDE / 2}" y="{TOP + HIGH + 38}" text-anchor="middle">step</text>')
    for way, found in runs.items():
        at = " ".join(f"{left + WIDE * p.step / STEPS:.1f},{_y(getattr(p, what)):.1f}" for p in found.points)
        parts.append(f'<polyline class="l" stroke="{WAYS[way]}" points="{at}"/>')
        for step, _ in found.signs:
            x = left + WIDE * step / STEPS
            parts.append(
                f'<line stroke="{WAYS[way]}" stroke-dasharray="3 3" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" '
                f'y2="{TOP + HIGH}"/>'
            )
    return "".join(parts)


def _labels(runs: dict[str, Run], left: int) -> str:
    """Return the names at the ends of the lines after PGD, apart from each other."""
    parts, last = [], -100.0
    for way, found in sorted(runs.items(), key=lambda each: -each[1].end.pgd):
        y = max(_y(found.end.pgd) + 4, last + 15)
        parts.append(f'<text x="{left}" y="{y:.1f}" style="fill:{WAYS[way]}">{way}</text>')
        last = y
    return "".join(parts)


def _y(share: float) -> float:
    return TOP + HIGH * (1 - share)


def main() -> None:
    """Train, draw, and write the table."""
    rows = ["| training | seed | PGD, best | PGD, end | FGSM, end | clean, end | sign after step |", "|" + "---|" * 7]
    for seed in range(SEEDS):
        runs = {way: run(way, seed) for way in WAYS}
        if not seed:
            PICTURE.write_text(picture(runs), encoding="utf-8")
        for way, found in runs.items():
            end, signs = found.end, ", ".join(str(step) for step, _ in found.signs) or "–"
            shares = " | ".join(f"{100 * share:.0f} %" for share in (found.best, end.pgd, end.fgsm, end.clean))
            rows.append(f"| {way} | {seed} | {shares} | {signs} |")
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition("<!-- measured -->\n")
    _, end_mark, after = rest.partition("<!-- end -->")
    PAGE.write_text(before + begin + "\n".join(rows) + "\n" + end_mark + after, encoding="utf-8")


if __name__ == "__main__":
    main()
