"""A verdict with findings of every level and every kind of picture, hostile names among them."""

from __future__ import annotations

from typing import Any

HOSTILE = '<script>alert("1")</script>|`x`'


def picture(kind: str, *series: tuple[str, list[float], list[float]]) -> dict[str, Any]:
    made = [{"name": name, "x": x, "y": y} for name, x, y in series]
    return {"kind": kind, "title": f"Picture of {kind}", "x": "steps", "y": "share", "series": made}


LINES = picture("lines", ("pgd", [1, 10, 100], [0.8, 0.5, 0.4]), (HOSTILE, [1, 10, 100], [0.7, float("nan"), 0.3]))
BARS = picture("bars", ("ce", [0], [1.0]), ("margin", [1], [0.25]))
GROUPS = {**picture("bars", ("fixed", [1, 2], [3, 4]), ("averaged", [1, 2], [5, 8])), "title": "Picture of groups"}
HISTOGRAM = picture("histogram", ("all", [0.0, 0.1, 0.2], [1, 5, 2]))


def finding(check: str, level: str, **more: Any) -> dict[str, Any]:
    ran = level != "not run"
    return {
        "check": check,
        "question": f"Is {check} as it should be?",
        "family": "masked" if ran else "information",
        "level": level,
        "says": f"{check} breaks 9 of 32 {HOSTILE}" if ran else "the model draws no random numbers",
        "source": "Athalye, Carlini & Wagner 2018",
        "statistic": 0.28125 if ran else None,
        "threshold": 0.02 if ran else None,
        "examples": [3, 5, 8] if level in ("fail", "warn") else [],
        "of": 32,
        "advice": "Attack through a surrogate." if level in ("fail", "warn") else "",
        "remedy": {"name": "expectation", "parameters": {"draws": 20}} if level == "fail" else None,
        "picture": None,
        "forwards": 32,
        "backwards": 64,
        "seconds": 0.5,
        **more,
    }


def findings() -> list[dict[str, Any]]:
    """In the panel's order, which is not that of their weight."""
    return [
        finding("quiet", "pass", picture=HISTOGRAM),
        finding("absent", "not run"),
        finding("shaky", "warn", picture=GROUPS),
        finding("blind", "fail", picture=LINES),
        finding("calm", "pass", picture=BARS),
    ]


def scenery() -> dict[str, Any]:
    shares = [-1.0, 0.0, 1.0]
    value = [[-2.0, -2.0, -2.0], [-1.0, -1.0, None], [1.0, 2.0, 1.0]]
    linear = [[-2.0, -2.0, -2.0], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]]
    return {
        "ids": [4, 6, 7],
        "objectives": ["ce", "margin", "scaled-ce"],
        "sizes": {"ce": [0.0, 0.1, 10.0], "margin": [1.0, 1.0, 1.0], "scaled-ce": [1.0, 2.0, None]},
        "margins": {"at x": [-3.0, -2.0, -1.0], "ce": [-3.0, -2.0, 0.5]},
        "ways": {"fgsm, ce": [True, False, False], "pgd, margin": [True, True, False]},
        "planes": {"objective": "margin", "shares": shares, "examples": [{"id": 4, "value": value, "linear": linear}]},
        "notes": ["a note"],
    }


def diagnosed() -> dict[str, Any]:
    """What a diagnosis and a mending add to a summary."""
    return {
        "verdict": {
            "word": "masked",
            "believable": False,
            "reasons": [f"blind: it breaks 9 of 32 {HOSTILE}", "shaky: it wavers"],
            "next": "Attack again without trusting the gradient.",
            "remedies": [],
        },
        "findings": findings(),
        "diagnosis_notes": ["32 examples are few"],
        "scenery": scenery(),
        "mended": {
            "changes": ["gradients pass through a surrogate"],
            "first": {"robust_accuracy": 0.615, "robust_interval": [0.584, 0.645], "robust_count": 615},
        },
    }
