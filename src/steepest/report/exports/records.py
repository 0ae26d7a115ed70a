"""The summary as one JSON object: what `steepest audit --json` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from steepest.report.contract import Claim


def records(summary: Mapping[str, Any], manifest: Mapping[str, Any], gates: Sequence[Claim] = ()) -> str:
    """Return the summary as JSON text, one value a line; gates are no part of a run."""
    return json.dumps(summary, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
