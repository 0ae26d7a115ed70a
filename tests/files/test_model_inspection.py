"""What a model is found to be like when it is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.basis.errors import ModelError
from steepest.models.inspection import fingerprint, inspected
from steepest.models.model import Model
from tests.files.model_material import Small


class Counter(nn.Module):
    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.calls: Any = 0
        if buffer:
            del self.calls
            self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1 + 0.1 * self.calls)


class Clumsy(nn.Module):
    """Subtracts the batch's mean, as batch normalisation in training mode does."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


def test_a_healthy_classifier_has_no_notes() -> None:
    facts = inspected(Model(Small().eval()), torch.rand(40, 1, 4, 4)).facts
    assert (facts.outputs, facts.deterministic, facts.batch_independent, facts.training) == (
        "logits",
        True,
        True,
        False,
    )
    assert facts.classes == 3 and facts.notes == () and facts.sha256 == fingerprint(Small().eval())


def test_probabilities_are_told_from_logits_and_from_their_logarithm() -> None:
    x = torch.randn(20, 4)
    found = inspected(Model(nn.Softmax(1), None), x)
    assert found.facts.outputs == "probabilities" and any("probabilities" in note for note in found.facts.notes)
    torch.testing.assert_close(found.logits(x), torch.log_softmax(x, 1))
    assert inspected(found, x).facts.outputs == "probabilities"
    assert inspected(Model(nn.LogSoftmax(1), None), x).facts.outputs == "logits"
    assert inspected(Model(nn.Sigmoid(), None), x).facts.outputs == "logits"


def test_what_answers_differently_is_found_out() -> None:
    x = torch.rand(8, 4)
    noisy = inspected(Model(nn.Dropout(0.5)), x).facts
    assert noisy.deterministic is False and noisy.training is True
    assert any("random" in note for note in noisy.notes)
    for buffer in (False, True):
        counting = inspected(Model(Counter(buffer).eval()), x).facts
        assert counting.deterministic is False
        assert any("changes its answer between calls" in note for note in counting.notes)


def test_dependence_on_batchmates_is_found_out() -> None:
    facts = inspected(Model(Clumsy().eval()), torch.rand(8, 4)).facts
    assert facts.batch_independent is False and facts.deterministic is True
    assert inspected(Model(Clumsy().eval()), torch.rand(1, 4)).facts.batch_independent is None


def test_outputs_that_are_not_finite_are_counted_and_one_class_is_an_error() -> None:
    notes = inspected(Model(torch.sqrt, None), torch.tensor([[1.0, 4.0], [-1.0, 1.0]])).facts.notes
    assert any("not finite for 1 of 2" in note for note in notes)
    with pytest.raises(ModelError, match="K ≥ 2"):
        inspected(Model(nn.Linear(4, 1)), torch.rand(3, 4))


def test_the_fingerprint_follows_weights_and_class() -> None:
    a, b = Small(), Small()
    assert fingerprint(a) == fingerprint(b)
    with torch.no_grad():
        b.layers[1].bias[0] += 1e-6
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint(nn.ReLU()) != fingerprint(nn.Tanh())
    assert fingerprint(nn.Linear(2, 2).half()) and fingerprint(nn.BatchNorm1d(2)) and fingerprint(torch.sqrt)


def test_a_model_that_cannot_be_asked_about_one_example_alone():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3)).train()
    x = torch.rand(20, 4, generator=torch.Generator().manual_seed(0))
    found = inspected(st.Model(net), x).facts
    assert found.batch_independent is False
    assert any("alone" in note for note in found.notes)
    with pytest.raises(st.ModelError, match=r"one example alone.*\.eval\(\)"):
        st.audit(st.Model(net), (x, torch.arange(20) % 3), st.Linf(0.1), preset="quick", allow_chance=True)
