"""The ladder: what it must find, who enters a rung, and what a lack of memory may not change."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.ranking import nearest_classes
from steepest.attacks.recipes import ATTACKS
from steepest.audit import presets
from steepest.audit.batches import Batches, out_of_memory
from steepest.audit.presets import PRESETS, Preset, rungs_of
from steepest.audit.rungs import Rung, drawn
from steepest.budgets.region import Region
from tests.tables import budgets

RAISED = {"linf": lambda w: w.abs().sum(-1), "l2": lambda w: w.norm(dim=-1), "l1": lambda w: w.abs().amax(-1)}
"""The dual norms: by how much a plane rises within the ball of size 1."""


def linear(classes: int = 6, size: int = 12, count: int = 40):
    torch.manual_seed(3)
    network = nn.Linear(size, classes).eval()
    with torch.no_grad():
        # Rows of different lengths: the likeliest wrong class is often not the nearest.
        network.weight.mul_(torch.logspace(-0.7, 0.7, classes)[:, None])
    x = torch.randn(count, size)
    return network, x, network(x).argmax(1)


def climbed(network, data, budget, name="standard", **options) -> st.AuditRun:
    options = {"allow_chance": True, "batch_size": 16, **options}
    return st.audit(st.Model(network, box=None), data, budget, preset=name, **options)


def distances(network: nn.Linear, x: torch.Tensor, y: torch.Tensor, kind: str) -> torch.Tensor:
    """Return [N, K] the exact distance of every class, ∞ for y itself."""
    with torch.no_grad():
        gap = network(x).gather(1, y[:, None]) - network(x)
        steep = RAISED[kind](network.weight[None] - network.weight[y][:, None])
        return (gap / steep).scatter(1, y[:, None], torch.inf)


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("name", ["quick", "standard"])
def test_on_a_linear_model_exactly_the_breakable_ones_break(kind, classes, name):
    network, x, y = linear(classes)
    near = distances(network, x, y, kind).amin(1)
    epsilon = float(near.median())
    run = climbed(network, (x, y), getattr(st, {"linf": "Linf", "l2": "L2", "l1": "L1"}[kind])(epsilon), name)
    broken = torch.tensor([row["broken"] for row in run.records()])
    sure = (near - epsilon).abs() > 1e-4 * epsilon
    assert torch.equal(broken[sure], (near < epsilon)[sure])


@pytest.mark.parametrize("kind", RAISED)
def test_classes_are_ranked_by_their_exact_distance_where_the_model_is_linear(kind):
    network, x, y = linear()
    far = distances(network, x, y, kind)
    budget = getattr(st, {"linf": "Linf", "l2": "L2", "l1": "L1"}[kind])(0.5)
    classes, reach, found = nearest_classes(pose(st.Model(network, box=None), x, y, budget))
    assert torch.equal(classes[:, 0], far.argmin(1)) and (classes != y[:, None]).all()
    assert not torch.equal(classes[:, 0], network(x).scatter(1, y[:, None], -torch.inf).argmax(1))
    torch.testing.assert_close(reach, far.gather(1, classes).double() / 0.5, rtol=1e-4, atol=1e-6)
    assert (found.forwards, found.backwards) == (2, 6)


def test_of_hundreds_of_classes_the_likeliest_are_ranked():
    network, x, y = linear(classes=300)
    classes, _, found = nearest_classes(pose(st.Model(network, box=None), x, y, st.Linf(0.1)), most=9)
    likeliest = network(x).scatter(1, y[:, None], -torch.inf).topk(9).indices
    assert torch.equal(classes.sort(1).values, likeliest.sort(1).values) and found.backwards == 10


def test_the_more_rungs_the_fewer_robust_and_never_more_than_fgsm_and_pgd():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 6)).eval()
    x = torch.randn(60, 12)
    data, budget = (x, network(x).argmax(1)), st.Linf(0.12)
    run = climbed(network, data, budget)
    left = [stage["entered"] - stage["broken"] for stage in run.summary["stages"] if stage["name"] in ("clean", "fgsm")]
    assert left == sorted(left, reverse=True) and all(stage["broken"] >= 0 for stage in run.summary["stages"])
    for attacks in ("fgsm", "pgd(steps=20)"):
        assert run.robust_accuracy <= climbed(network, data, budget, attacks=attacks).robust_accuracy
    found = [climbed(network, data, budget, name).robust_accuracy for name in ("quick", "standard")]
    assert found == sorted(found, reverse=True)


def test_every_success_is_feasible_and_wrong_one_by_one_in_float64(tmp_path):
    network, x, y = linear()
    run = climbed(network, (x, y), st.L2(0.4), save=True, out=tmp_path / "run")
    wide = nn.Linear(12, 6).double()
    wide.load_state_dict({name: value.double() for name, value in network.state_dict().items()})
    broken, region = 0, Region(st.L2(0.4), st.Box.of(None), x)
    for path in sorted((tmp_path / "run" / "artifacts").glob("adversarial-*.npz")):
        arrays = dict(__import__("numpy").load(path))
        for example, point in zip(arrays["ids"].tolist(), torch.from_numpy(arrays["images"]), strict=True):
            one = region.rows(torch.tensor([example]))
            assert bool(one.contains(point[None])) and int(wide(point[None].double()).argmax()) != int(y[example])
            broken += 1
    assert broken == sum(row["broken"] and row["broken_by"] != "clean" for row in run.records()) > 0


@pytest.mark.parametrize("name", ["linf", "one-sided", "masked l2", "l0", "pixels", "pixel-l2", "stepped"])
def test_every_budget_is_climbed_and_what_does_not_serve_it_is_named(name):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval()
    x = torch.rand(12, 1, 4, 4)
    budget = budgets((1, 4, 4), 0.3)[name]
    run = st.audit(st.Model(network), (x, network(x).argmax(1)), budget, preset="quick", allow_chance=True)
    meant = {rung.name for rung in PRESETS["quick"].rungs}
    ran = {stage["name"] for stage in run.summary["stages"]}
    said = {name for name in meant if any(note.startswith(f"{name} does not serve") for note in run.summary["notes"])}
    unmeant = set() if name in ("l0", "pixels", "stepped") else {"swaps"}
    assert meant - ran == said | unmeant


def test_rungs_that_aim_at_other_classes_are_left_out_of_a_targeted_audit_and_of_few_classes():
    network, x, y = linear(classes=3)
    run = climbed(network, (x, y), st.Linf(0.1), target=2)
    assert any("class 2: left out: the audit aims at one class" in note for note in run.summary["notes"])
    stages = {stage["name"]: stage["entered"] for stage in run.summary["stages"]}
    assert "rank" not in stages and stages["class 1"] > 0  # one more run towards the audit's own class
    run = climbed(network, (x, y), st.Linf(0.1))
    assert any("class 3: left out: the model has only 2 other classes" in note for note in run.summary["notes"])


def test_the_closest_enter_and_the_drawn_are_a_sample():
    margin = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0])
    rung = Rung(name="closers", work=ATTACKS.build("fgsm"), closest=0.5)
    assert rung.entering(torch.tensor([0, 1, 2, 3]), margin).tolist() == [1, 3]
    draw = torch.tensor([0.5, 0.1, 0.9, 0.3])
    first, others = drawn(torch.tensor([0, 1, 3]), draw, 2)
    assert first.tolist() == [1, 3] and others.tolist() == [0]
    assert rung.text.endswith("[closest 0.5]")


def test_where_a_class_is_aimed_at_the_closest_are_those_that_lack_least_to_become_it(monkeypatch):
    # The first is the nearer to being wrong, the second to being of class 2.
    data = torch.tensor([[3.0, 2.9, 0.0], [3.0, 0.0, 2.0]]), torch.tensor([0, 0])
    rungs = (Rung(name="half", work=ATTACKS.build("fgsm"), closest=0.5),)
    monkeypatch.setitem(PRESETS, "half", Preset(name="half", rungs=rungs, factors=(1.0,), cost=""))
    broken = {
        target: [one["broken"] for one in climbed(nn.Identity(), data, st.Linf(0.6), "half", target=target).records()]
        for target in (None, 2)
    }
    assert broken == {None: [True, False], 2: [False, True]}


def test_after_a_rung_that_finds_nothing_only_a_probe_enters(monkeypatch):
    network, x, y = linear()

    def entered(epsilon: float) -> tuple[int, int]:
        rungs = tuple(
            Rung(name=name, work=ATTACKS.build("pgd(steps=2)"), **who)
            for name, who in {"one": {}, "two": {"probe": 0.1, "after": "one"}}.items()
        )
        monkeypatch.setitem(PRESETS, "two rungs", Preset(name="two rungs", rungs=rungs, factors=(1.0,), cost=""))
        run = climbed(network, (x, y), st.Linf(epsilon), "two rungs", batch_size=64)
        _, first, second = run.summary["stages"]
        return first["broken"], second["entered"]

    assert entered(1e-6) == (0, 4)  # a tenth of the forty
    broken, followed = entered(float(distances(network, x, y, "linf").amin(1).median()))
    assert broken > 0 and followed == 40 - broken


class Narrow(nn.Module):
    """Answers at most `most` examples at once; more are too many for its memory, from the third question on."""

    def __init__(self, inner: nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most, self.asked = inner, most, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if self.asked > 40 and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        out: torch.Tensor = self.inner(x)
        return out


def test_out_of_memory_in_the_middle_of_a_run_loses_nothing():
    network, x, y = linear()
    plain = climbed(network, (x, y), st.Linf(0.1), batch_size=32)
    narrow = Narrow(network, 5)
    run = climbed(narrow, (x, y), st.Linf(0.1), batch_size=32)
    assert narrow.asked > 100
    mine, theirs = run.records(), plain.records()
    for name in ("example_id", "broken", "broken_by", "unconfirmed"):
        assert [row[name] for row in mine] == [row[name] for row in theirs], name
    # Later rungs are entered by what is not proven, and this network, which counts what it is asked, has no proof.
    first, second = (
        next(stage for stage in each.summary["stages"] if stage["name"] == "class 1") for each in (run, plain)
    )
    assert first["entered"] == second["entered"]
    said = [note for note in run.summary["notes"] if "memory ran out with batches of" in note]
    assert len(said) == 1 and said[0].endswith("from there on they had 4")


def test_another_shard_size_is_another_run(tmp_path):
    network, x, y = linear()
    climbed(network, (x, y), st.Linf(0.1), "quick", out=tmp_path / "run", shard_size=32)
    climbed(network, (x, y), st.Linf(0.1), "quick", out=tmp_path / "run")  # left out: what the run has
    with pytest.raises(st.UsageError, match="shard_size: 32 → 16"):
        climbed(network, (x, y), st.Linf(0.1), "quick", out=tmp_path / "run", shard_size=16)


def test_batches_halve_and_never_hide_other_errors():
    seen: list[int] = []

    def do(rows: torch.Tensor) -> None:
        if rows.numel() > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        seen.extend(rows.tolist())

    batches = Batches(8)
    batches.each(torch.arange(10), do)
    assert seen == list(range(10)) and batches.size == 2

    def fails(rows: torch.Tensor) -> None:
        raise RuntimeError("out of memory" if rows.numel() == 1 else "shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        Batches(4).each(torch.arange(4), fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        Batches(1).each(torch.arange(4), fails)
    assert out_of_memory(MemoryError()) and not out_of_memory(ValueError("memory"))


def test_presets_name_their_rungs_apart():
    for preset in PRESETS.values():
        names = [rung.name for rung in preset.rungs]
        assert len(set(names)) == len(names)
        assert all(rung.after is None or rung.after in names[: names.index(rung.name)] for rung in preset.rungs)
    fit, notes = rungs_of(None, "standard", st.L0(3), "gradient")
    assert "swaps" in [rung.name for rung in fit] and any("relay does not serve l0" in note for note in notes)
    assert presets.preset_of("thorough").rungs != replace(PRESETS["standard"]).rungs
