"""Models side by side: the same examples, the closed forms of a linear network, and who is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import steepest as st
from steepest.audit.anatomy import anatomy
from steepest.audit.data import open_data
from steepest.models.loading import load
from steepest.report.comparison import sentences

EPSILON = 0.1


def test_the_anatomy_of_a_linear_network_is_known() -> None:
    weight = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Hardtanh(-9, 9)).eval()
    net[0].weight.data.copy_(weight)
    x, y = torch.full((5, 2), 0.5), torch.zeros(5, dtype=torch.int64)
    found = anatomy(st.Model(net), x, y, st.Linf(EPSILON))
    margin = found.gradients[0]
    # margin = −x₂ − 2x₁: gradient (−2, −1), first-order gain ε·3; linear, so FGSM keeps its promise.
    assert margin.size == pytest.approx(2) and margin.gain == pytest.approx(3 * EPSILON, rel=1e-5)
    assert margin.zero == 0 and found.curved == pytest.approx(0, abs=1e-5) and found.kept == pytest.approx(1, rel=1e-5)
    # Any corner of the cube is stretched by √(4 + 1)/√2.
    for way in ("fgsm", "pgd", "random"):
        assert getattr(found.layers[0], way) == pytest.approx((5 / 2) ** 0.5, rel=1e-5)
        assert getattr(found.layers[1], way) == pytest.approx(1)
    assert found.layers[1].flat == 0 and found.layers[0].flat is None
    assert found.amplifier is found.layers[0] and found.whole.fgsm == pytest.approx((5 / 2) ** 0.5, rel=1e-5)
    # No two inputs are stretched by more than the largest singular value; the corner of FGSM is none of its vectors.
    bounds = found.ceilings
    assert bounds.product == pytest.approx(2) and bounds.eclipse == pytest.approx(2) and bounds.loose == ()
    assert found.layers[0].norm == pytest.approx(2) and found.layers[1].norm == pytest.approx(1)
    assert (found.layers[0].share, found.layers[1].share, bounds.amplifier) == (1.0, 0.0, "0")
    dlr = next(each for each in found.gradients if each.objective == "dlr")
    assert dlr.size is None and "3" in dlr.reason  # two classes: not measured, and said


def test_what_a_model_does_not_offer_is_not_measured() -> None:
    x, y = 0.1 + 0.2 * torch.arange(8.0).reshape(4, 2) / 2, torch.zeros(4, dtype=torch.int64)
    cut = anatomy(st.Model(lambda p: p.detach()), x, y, st.Linf(EPSILON))
    assert all(each.size is None and each.reason for each in cut.gradients) and cut.curved is None and cut.reason
    assert cut.ceilings.product == pytest.approx(1)
    assert cut.layers == () and cut.amplifier is None and cut.whole.fgsm is None and cut.whole.random is not None
    flat = anatomy(st.Model(nn.Sequential(nn.Hardtanh(-0.1, 0.0))), x, y, st.Linf(0.05))
    assert flat.gradients[0].zero == 1 and flat.layers[0].flat == 1
    assert flat.curved is None and "promises nothing" in flat.reason and flat.layers[0].fgsm is None


def fitted(activation: nn.Module, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """Random features of one activation, and the last layer that fits them best in least squares."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 80), activation, nn.Linear(80, 10)).eval()
    with torch.no_grad():
        features = torch.cat([net[:3](x), torch.ones(len(x), 1)], 1)
        found = torch.linalg.lstsq(features, nn.functional.one_hot(y, 10).float()).solution
        net[3].weight.copy_(found[:-1].T)
        net[3].bias.copy_(found[-1])
    return net


def test_three_networks_on_digits(tmp_path: Path) -> None:
    source = open_data("digits")
    x, y = source.fetch(torch.arange(600)), source.labels[:600]
    nets = {"relu": fitted(nn.ReLU(), x, y), "tanh": fitted(nn.Tanh(), x, y)}
    nets["again"] = nets["relu"]
    budgets = [st.Linf(0.05), st.Linf(EPSILON)]
    asked = {"preset": "quick", "sample": 60, "diagnose": False}
    found = st.compare(
        {**nets, "broken": lambda x: x.flatten(1) @ torch.ones(3, 10)}, source, budgets, out=tmp_path, **asked
    )
    assert [each.name for each in found.models] == ["relu", "tanh", "again"]
    ((name, reason),) = found.failed
    assert name == "broken" and "fails on an example" in reason
    # Each audit is the one that `audit` makes, on the same examples.
    alone = st.audit(nets["tanh"], source, budgets, **asked)
    assert alone.robust_accuracy == found.models[1].run.robust_accuracy
    ids = [[row["example_id"] for row in each.run.records()] for each in found.models]
    assert ids[0] == ids[1] == ids[2]
    # Pairs are counted example by example.
    broken = [[row["broken"] for row in each.run.records()] for each in found.models]
    first = found.pairs[0].sizes[-1][1]
    assert first.only_first == sum(b and not a for a, b in zip(broken[0], broken[1], strict=True))
    assert first.only_second == sum(a and not b for a, b in zip(broken[0], broken[1], strict=True))
    assert first.difference == pytest.approx(found.models[0].run.robust_accuracy - found.models[1].run.robust_accuracy)
    same = found.pairs[1]
    assert (same.first, same.second) == ("relu", "again")
    assert same.sizes[-1][1].p == 1 and same.radius.difference in (0, None) and same.clean.interval == (0, 0)
    assert found.models[0].anatomy == found.models[2].anatomy
    assert [layer.kind for layer in found.layers["relu"]] == ["Flatten", "Linear", "ReLU", "Linear"]
    told = sentences(found.to_record())
    assert "relu holds as many as again at ε = 0.1" in told[1]
    assert any(
        line.startswith("relu stretches FGSM's change × ") and line.endswith("most of it in 3.") for line in told
    )


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ({"a": nn.Linear(64, 10)}, "1 model to compare: give at least two"),
        ({}, "0 models to compare"),
        ({"a/b": nn.Linear(64, 10), "c": nn.Linear(64, 10)}, "'a/b'"),
        (
            {name: nn.Sequential(nn.Flatten(), nn.Linear(64, k)).eval() for name, k in (("a", 10), ("b", 12))},
            "a has 10, b has 12",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_before_any_work(
    models: dict[str, nn.Module], says: str, tmp_path: Path
) -> None:
    with pytest.raises(st.UsageError, match=says):
        st.compare(models, "digits", st.Linf(0.1), out=tmp_path, limit=30, allow_chance=True)
    assert list(tmp_path.iterdir()) == []


def test_models_of_other_sizes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text("import torch\ndef make(): return torch.nn.Linear(64, 10)", encoding="utf-8")
    small, large = (load("nets.py:make", input_shape=(size,)) for size in (64, 256))
    with pytest.raises(st.UsageError, match="small takes 64, large takes 256"):
        st.compare({"small": small, "large": large}, "digits", st.Linf(0.1))


def test_where_none_is_left_the_reason_is_raised() -> None:
    def fails(x: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    with pytest.raises(st.ModelError, match="no"):
        st.compare({"a": fails, "b": fails}, "digits", st.Linf(0.1), limit=30)


class Mixed(nn.Module):
    """Two layers, and a product outside of them, which makes matrix products and layers differ in number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.first(x) @ torch.diag(torch.tensor([4.0, 1.0]))))


def test_steps_that_belong_to_no_layer_stand_on_their_own() -> None:
    x, y = torch.full((3, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    found = anatomy(st.Model(Mixed().eval()), x, y, st.Linf(0.1))
    assert [layer.norm is None for layer in found.layers] == [True, False, True]
    assert "mm_1" in [step.name for step in found.ceilings.loose] and found.ceilings.amplifier == "mm_1"
    # What was measured lies below what can be.
    for way in ("fgsm", "pgd", "random"):
        assert getattr(found.whole, way) <= found.ceilings.eclipse <= found.ceilings.product * (1 + 1e-8)
    refused = anatomy(st.Model(lambda p: p * p), x, y, st.Linf(0.1)).ceilings
    assert refused.product is None and "aten.mul" in refused.reason


def test_probabilities_are_measured_as_the_logits_behind_them() -> None:
    torch.manual_seed(0)
    net = nn.Linear(2, 3).eval()
    x, y = torch.rand(4, 2), torch.zeros(4, dtype=torch.int64)
    model = st.Model(nn.Sequential(net, nn.Softmax(1)))
    declared = model.with_facts(type(model.facts)(outputs="probabilities"))
    found = anatomy(declared, x, y, st.Linf(0.1))
    assert found.whole.fgsm <= found.ceilings.product == pytest.approx(float(torch.linalg.svdvals(net.weight.data)[0]))
