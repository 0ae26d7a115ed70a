"""What the pictures of a diagnosis show, on models whose numbers are known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from steepest.budgets.linf import Linf
from steepest.diagnose.api import diagnose
from steepest.diagnose.probe import Probe
from steepest.diagnose.scenery import RESOLUTION, scenery
from steepest.models.model import Model

WEIGHT = torch.tensor([3.0, -4.0])
X = torch.tensor([[0.5, 0.4], [0.6, 0.3], [0.5, 0.35], [0.2, 0.9]])


def affine(x: Tensor) -> Tensor:
    """Outputs (s, 0) with s = ⟨w, x⟩: the margin of class 0 is −s, its gradient −w."""
    score = x.flatten(1) @ WEIGHT
    return torch.stack([score, 0 * score], 1)


def probe(network=affine, y: tuple[int, ...] = (1, 0, 0, 1)) -> Probe:
    return Probe(Model(network), X, torch.tensor(y), Linf(0.05), ids=torch.tensor([7, 8, 9, 11]))


def test_an_affine_model_keeps_what_its_gradient_promises() -> None:
    found = scenery(probe())
    # s = −0.1, 0.6, 0.1, −3.0: all are right; by rising margin of safety 0.1 (twice), 0.6, 3.
    assert found["ids"] == [7, 8, 9, 11] and found["notes"] == []
    assert sorted(each["id"] for each in found["planes"]["examples"]) == [7, 8, 9, 11]
    assert found["planes"]["examples"][-1]["id"] == 11
    for each in found["planes"]["examples"]:
        truth, linear = (torch.tensor(each[key]) for key in ("value", "linear"))
        assert truth.shape == (RESOLUTION, RESOLUTION)
        assert torch.allclose(truth, linear, atol=2e-3)
        # Along FGSM's direction the margin rises by ε·‖w‖₁ = 0.35 a budget.
        middle = truth[:, RESOLUTION // 2]
        assert torch.allclose(middle.diff(), torch.full((RESOLUTION - 1,), 0.35 / 6), atol=2e-3)
    shares = found["planes"]["shares"]
    assert {-1.5, -1.0, 0.0, 1.0, 1.5} <= set(shares)


def test_sizes_margins_and_who_breaks_whom_are_the_closed_forms() -> None:
    found = scenery(probe())
    assert found["sizes"]["margin"] == [5.0] * 4
    # ∂ce/∂s = −p(other) = −1/(1 + e^|s|), times ‖w‖ = 5.
    expected = [5 / (1 + math.exp(abs(s))) for s in (-0.1, 0.6, 0.1, -3.0)]
    assert found["sizes"]["ce"] == pytest.approx(expected, rel=1e-3)
    assert found["margins"]["at x"] == pytest.approx([-0.1, -0.6, -0.1, -3.0], abs=1e-3)
    # A search stops at its first success; where there is none, it ends at the corner: ε·‖w‖₁ = 0.35 nearer.
    first, second, third, last = found["margins"]["margin"]
    assert 0 < first <= 0.25 and 0 < third <= 0.25
    assert (second, last) == (pytest.approx(-0.25, abs=1e-3), pytest.approx(-2.65, abs=1e-3))
    for name, broken in found["ways"].items():
        if name != "noise":
            assert broken == [True, False, True, False], name


def test_only_examples_that_are_right_are_looked_at() -> None:
    found = scenery(probe(y=(1, 1, 0, 1)))
    assert found["ids"] == [7, 9, 11] and len(found["sizes"]["ce"]) == 3
    none = scenery(probe(y=(0, 1, 1, 0)))
    assert none["ids"] == [] and none["planes"] is None and none["ways"] is None


def test_what_is_late_or_impossible_is_said_and_left_out() -> None:
    late = scenery(probe(), until=0.0)
    assert all(late[name] is None for name in ("sizes", "planes", "margins", "ways")) and len(late["notes"]) == 4
    blind = scenery(probe(lambda x: affine(x).detach()))
    assert blind["sizes"] is None and any("gradient" in note for note in blind["notes"])


def test_numbers_stay_small_and_nan_is_no_number() -> None:
    found = scenery(probe(lambda x: torch.where(x[:, :1] > 0.62, math.nan, affine(x))))
    text = json.dumps(found, allow_nan=False)
    assert len(text) < 200_000 and "null" in text


def test_some_checks_alone_bring_no_pictures() -> None:
    y = torch.tensor([1, 0, 0, 1])
    assert diagnose(Model(affine), (X, y), Linf(0.05), checks=["gradients"]).scenery is None
