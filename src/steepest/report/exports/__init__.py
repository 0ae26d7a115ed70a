"""A run as files that other tools read: pure functions of the summary, the manifest and the gates.

>>> sorted(EXPORTS)
['.card.md', '.json', '.md', '.sarif', '.xml']
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steepest.report.contract import Claim
from steepest.report.exports.card import card
from steepest.report.exports.junit import junit
from steepest.report.exports.markdown import markdown
from steepest.report.exports.records import records
from steepest.report.exports.sarif import sarif

Export = Callable[[Mapping[str, Any], Mapping[str, Any], Sequence[Claim]], str]

EXPORTS: dict[str, Export] = {
    ".json": records,
    ".xml": junit,
    ".sarif": sarif,
    ".md": markdown,
    ".card.md": card,
}
"""What the ending of an output asks for."""
