"""Audits whose answer is known: what counts as broken, what a record says, what a plan remembers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import steepest as st
from steepest.basis.fingerprints import describe

HALF = torch.full((40, 4), 0.5)


def two(score: torch.Tensor) -> torch.Tensor:
    """Logits of two classes: class 1 where the score is positive."""
    return torch.stack([torch.zeros_like(score), score], 1)


def labelled(x: torch.Tensor, network) -> tuple[torch.Tensor, torch.Tensor]:
    return x, network(x).argmax(1)


def linear(classes: int = 5, size: int = 6, dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    network = nn.Linear(size, classes, dtype=dtype).eval()
    x = torch.rand(60, size)
    return network, (x, network(x.to(dtype)).argmax(1))


def audited(network, data, budget, **options) -> st.AuditRun:
    options = {"preset": "quick", "batch_size": 16, "allow_chance": True, **options}
    return st.audit(st.Model(network, box=(0, 1)), data, budget, **options)


def test_a_success_of_the_curve_inside_the_budget_counts():
    """Class 1 only in a thin slab that full-size FGSM jumps over: any point on the way counts."""
    network = lambda x: two(0.0004 - (x.mean(1) - 0.55) ** 2)  # noqa: E731
    run = audited(network, (HALF, torch.zeros(40, dtype=torch.int64)), st.Linf(0.1), attacks="fgsm")
    assert run.robust_accuracy == 0
    assert all(row["broken"] and row["radius"] < 0.06 for row in run.records())
    assert run.summary["curve"][-1]["best"] == 0
    assert run.summary["curve"][-1]["fgsm"] == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_networks_are_attacked_on_a_fine_grid(dtype):
    """δ far below half an ulp of x moves nothing if the points themselves are kept in half precision."""
    torch.manual_seed(0)
    network = nn.Linear(3072, 2, dtype=dtype).eval()
    x = 0.5 + 0.3 * torch.rand(48, 3072)
    y = network(x.to(dtype)).argmax(1)
    budget = st.L2(0.15)
    wide = nn.Linear(3072, 2).eval()
    wide.load_state_dict({name: value.float() for name, value in network.state_dict().items()})
    narrow, reference = audited(network, (x, y), budget), audited(wide, (x, y), budget)
    assert reference.robust_accuracy < 0.9
    # The narrow network rounds its inputs, so single examples may differ; the search itself must not stand still.
    assert narrow.robust_accuracy <= reference.robust_accuracy + 0.25
    assert max(row["gauge"] for row in narrow.records()) > 0.99


def test_a_target_per_example_stays_with_its_example():
    network, (x, y) = linear()
    target = (y + 1 + torch.arange(60) % 4) % 5
    target[:7] = y[:7]  # already there: left out
    runs = [
        audited(network, (x, y), st.Linf(0.3), objective=st.Targeted("margin", target), batch_size=size)
        for size in (7, 64)
    ]
    first, second = (run.records() for run in runs)
    assert [row["example_id"] for row in first] == list(range(7, 60))
    for one, other in zip(first, second, strict=True):
        assert one["broken"] == other["broken"]
        if one["broken"]:
            assert one["adversarial_prediction"] == target[one["example_id"]]
    assert describe(st.Targeted("ce", target)) != describe(st.Targeted("ce", target.flip(0)))


def test_budgets_that_are_not_nested_are_refused():
    network, data = linear()
    mask = torch.arange(6) < 3
    for pair in (
        [st.Masked(st.Linf(0.1), mask), st.Masked(st.Linf(0.2), ~mask)],
        [st.Masked(st.L2(0.1), mask), st.Masked(st.Linf(0.2), mask)],
        [st.Weighted(0.1, torch.ones(6)), st.Weighted(0.2, torch.arange(6))],
        [st.Linf(torch.tensor([[0.1, 0.3, 0.1, 0.1, 0.1, 0.1]])), st.Linf(torch.full((1, 6), 0.2))],
        [st.Linf(0.1), st.L2(0.2)],
        # Nested, but a success of .1 is all of the larger one for some examples and a tenth of it for others.
        [st.Linf(torch.full((60,), 0.1)), st.Linf(torch.where(torch.arange(60) < 30, 0.2, 1.0))],
    ):
        with pytest.raises(st.UsageError, match="sizes of one kind"):
            audited(network, data, pair)
    sizes = audited(network, data, [st.Linf(0.2), st.Linf(0.05)]).summary["sizes"]
    assert [row["epsilon"] for row in sizes] == [0.05, 0.2]
    assert sizes[0]["robust_accuracy"] >= sizes[1]["robust_accuracy"]


def test_another_function_or_mode_is_another_run(tmp_path):
    network, data = linear()
    audited(network, data, st.Linf(0.05), out=tmp_path / "run")
    with pytest.raises(st.UsageError, match="another run"):
        audited(lambda x: -network(x), data, st.Linf(0.05), out=tmp_path / "run")
    network.train()
    with pytest.raises(st.UsageError, match="another run"):
        audited(network, data, st.Linf(0.05), out=tmp_path / "run")


def test_code_is_told_apart_by_what_it_does():
    outer = 3
    texts = {
        describe(function)
        for function in (
            lambda z, y: z.amax(1),
            lambda z, y: z.amin(1),
            lambda z, y: z.amax(1) * outer,
            lambda z, y, k=2: z.amax(1) * k,
        )
    }
    assert len(texts) == 4
    nested = lambda z, y: torch.stack([row.sum() for row in z])  # noqa: E731
    assert "0x" not in describe(nested)


def test_the_curve_does_not_depend_on_the_order_of_stages():
    network, data = linear()
    forth = audited(network, data, st.Linf(0.1), attacks="fgsm, pgd(steps=5)").summary["curve"]
    back = audited(network, data, st.Linf(0.1), attacks="pgd(steps=5), fgsm").summary["curve"]
    assert [row["fgsm"] for row in forth] == [row["fgsm"] for row in back]
    none = audited(network, data, st.Linf(0.1), attacks="pgd(steps=5)").summary["curve"]
    assert all(row["fgsm"] is None for row in none)


def test_successes_that_are_not_repeated_are_said_and_do_not_count():
    class Noisy(nn.Module):
        def forward(self, x):
            return two(torch.randn(len(x)) - 1.0 + 0 * x.sum(1))

    run = audited(Noisy(), (HALF, torch.zeros(40, dtype=torch.int64)), st.Linf(0.1))
    assert run.summary["unconfirmed"] > 0
    assert any("not repeated" in note for note in run.summary["notes"])
    assert sum(row["broken"] for row in run.records()) == 40 - run.summary["robust_count"]
    assert run.summary["curve"][-1]["best"] == pytest.approx(run.robust_accuracy)


def test_a_nan_gradient_is_never_robust_and_clean_accuracy_stays():
    def network(x):
        score = x.sum(1)
        return two(score - 1 + 0 * torch.sqrt(0 * score))

    run = audited(network, labelled(HALF, network), st.Linf(0.1))
    assert run.clean_accuracy == 1
    assert run.robust_accuracy == 0
    assert run.summary["blind"]["nonfinite"] == 40
    assert run.summary["curve"][0] == {"epsilon": 0.0, "fgsm": 1.0, "best": 1.0, "certified": None}


def test_a_flat_model_is_said_to_be_blind():
    run = audited(lambda x: two(0 * x.sum(1) - 1), (HALF, torch.zeros(40, dtype=torch.int64)), st.Linf(0.1))
    assert run.summary["blind"]["zero_gradient"] == 40


def test_gradient_free_stages_need_no_gradient():
    network = lambda x: two((x.detach().sum(1) - 2.05).sign())  # noqa: E731
    run = audited(network, (HALF, torch.zeros(40, dtype=torch.int64)), st.Linf(0.1), attacks="noise", batch_size=None)
    assert run.robust_accuracy < 1
    # No gradient reaches x: the preset takes them through a surrogate, says so, and the model judges what it finds.
    through = audited(network, (HALF, torch.zeros(40, dtype=torch.int64)), st.Linf(0.1))
    assert through.robust_accuracy == 0
    assert any("through a surrogate" in note for note in through.summary["notes"])


def test_sizes_per_example_and_per_feature():
    network, (x, y) = linear()
    each = torch.linspace(0.01, 0.2, 60)
    run = audited(network, (x, y), st.Linf(each), limit=40)
    assert [stage["name"] for stage in run.summary["stages"]] == [
        "clean", "curve", "fgsm", "ascent", "rank", "class 1", "relay",
    ]  # fmt: skip
    assert run.summary["epsilon"] == pytest.approx(float(each[39]))
    for row in run.records():
        if row["broken"] and row["radius"]:
            assert row["radius"] <= float(each[row["example_id"]])
    feature = torch.tensor([[0.2, 0.02, 0.02, 0.02, 0.02, 0.02]])
    curve = audited(network, (x, y), st.Linf(feature)).summary["curve"]
    assert all(row["best"] <= row["fgsm"] + 1e-12 for row in curve)


def test_float32_data_on_a_bound_that_float32_does_not_hold():
    network, _ = linear()
    x = torch.full((20, 6), 0.3)  # 0.3 in float32 lies above 0.3
    model = st.Model(network, box=(0, 0.3))
    run = st.audit(model, labelled(x, network), st.Linf(0.1), preset="quick", allow_chance=True)
    assert run.clean_accuracy == 1
    point = st.fgsm(model, x, network(x).argmax(1), st.Linf(0.1))
    assert (point.double() <= 0.3).all()


@pytest.mark.parametrize(
    "call", ["bim(step=-0.2)", "bim(step=0)", "mi-fgsm(momentum=-1)", "noise(points=0)", "pgd(50)"]
)
def test_recipes_that_would_stand_still_are_refused(call):
    with pytest.raises(st.UsageError):
        audited(*linear(), st.Linf(0.1), attacks=call)


@pytest.mark.diagnosed
def test_what_could_not_be_measured_is_robust_at_no_size():
    """The gradient at x is not a number; nothing inside 0.01 breaks it, and noise does inside 0.1."""
    network = lambda x: two((x - 0.5).abs().sqrt().mean(1) - 0.15)  # noqa: E731
    data = (HALF, torch.zeros(40, dtype=torch.int64))
    run = audited(network, data, [st.Linf(0.01), st.Linf(0.1)], attacks="fgsm, noise(points=5)", diagnose=False)
    assert all(row["broken"] and row["broken_by"] == "noise" for row in run.records())
    assert [size["robust_accuracy"] for size in run.summary["sizes"]] == [0, 0]
    small = {"budget": st.Linf(0.01), "attacks": "fgsm, noise(points=5)"}
    assert audited(network, data, **small, diagnose=False).robust_accuracy == 0
    mended = audited(network, data, **small)
    assert mended.verdict.word == "masked"
    assert mended.summary["mended"]["first"]["robust_accuracy"] == 0
    assert mended.robust_accuracy == 1  # a search that met no such point: |x − ½| ≤ 0.01 gives at most 0.1 < 0.15
