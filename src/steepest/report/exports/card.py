"""A block for a model card on the Hugging Face Hub: metadata that the Hub indexes, and the account in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from steepest.report.contract import Claim
from steepest.report.exports.markdown import markdown
from steepest.report.findings import headline
from steepest.report.wording import at_most, budget, measured, plain


def card(summary: Mapping[str, Any], manifest: Mapping[str, Any], gates: Sequence[Claim] = ()) -> str:
    """Return a README.md with a `model-index`, accuracies as shares of 1; merge it into a card that exists.

    The robust accuracy is named with its budget, and its verdict stands beside it.
    """
    summary, manifest = plain(summary), plain(manifest)
    return f"---\n{_index(summary, manifest)}---\n\n{markdown(summary, manifest, gates)}"


def _index(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    model, data = manifest.get("model") or {}, manifest.get("data") or {}
    shape, source = data.get("shape") or [], str(data.get("source") or "data")
    image = len(shape) == 3
    lines = [
        "tags:",
        "- adversarial-robustness",
        "model-index:",
        f"- name: {_text(model.get('source') or 'model')}",
        "  results:",
        "  - task:",
        f"      type: {'image-classification' if image else 'tabular-classification'}",
        "    dataset:",
        f"      name: {_text(source)}",
        f"      type: {_text(source)}",
        "    metrics:",
    ]
    lines += _metric("accuracy", "Clean accuracy", summary["clean_accuracy"], "")
    bound, word = " (at most)" if at_most(summary) else "", headline(summary).word
    under = f"Robust accuracy{bound} under {budget(summary)}"
    lines += _metric("robust-accuracy", under, summary["robust_accuracy"], word)
    lines += _metric(
        "certified-accuracy", f"Certified accuracy under {budget(summary)}", summary.get("certified_accuracy"), ""
    )
    return "\n".join(lines) + "\n"


def _metric(kind: str, name: str, value: float | None, word: str) -> list[str]:
    """Nothing where nothing was measured: the Hub would read an empty value as a number."""
    if not measured(value):
        return []
    lines = [f"    - type: {kind}", f"      name: {_text(name)}", f"      value: {value:.6g}"]
    return [*lines, "      args:", f"        verdict: {_text(word)}"] if word else lines


def _text(words: object) -> str:
    """Every JSON string is a YAML string."""
    return json.dumps(str(words), ensure_ascii=False)
