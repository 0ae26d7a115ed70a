"""The training loop: the same weights again, bit for bit, after any interruption; returns; the best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest.basis.errors import DataError, ModelError, UsageError
from steepest.budgets.linf import Linf
from steepest.harden.api import fitting, harden, hardening
from steepest.harden.contract import Classroom, Lesson, Taught
from steepest.harden.course import Course
from steepest.harden.examples import shuffled, split, varied
from steepest.harden.folder import STATE, Folder
from steepest.harden.judging import worth
from steepest.harden.library import METHODS
from steepest.harden.loop import Hardening
from steepest.harden.moment import tensors_of
from steepest.harden.sentinel import Sentinel
from steepest.harden.trackers import trackers_of
from steepest.harden.watch import Answer, Sign
from steepest.models.model import Model

BUDGET = Linf(0.05)
COUNT = 90


def data() -> tuple[Tensor, Tensor]:
    """Three heaps in the unit square."""
    centres = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]])
    y = torch.arange(COUNT) % 3
    noise = torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(0))
    return (centres[y] + 0.08 * noise).clamp(0, 1), y


def network(seed: int = 0) -> nn.Sequential:
    """A network with all that has a state or draws: batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def loop(net: nn.Module, **more: Any) -> Hardening:
    """A short training: 81 examples to learn from, six batches an epoch."""
    return hardening(
        net, data(), BUDGET, **{"method": "fgsm", "epochs": 4, "batch_size": 15, "lr": 0.1, "watch": None, **more}
    )


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def history(of: Hardening) -> list[dict[str, Any]]:
    return [{**epoch.to_record(), "seconds": 0} for epoch in of.epochs]


class After:
    """A watch that gives its sign once a step; what it remembers, it keeps in the room."""

    def __init__(self, steps: tuple[int, ...], answer: Answer, method: str | None = None) -> None:
        self.steps, self.answer, self.method, self.looked = steps, answer, method, 0

    def __repr__(self) -> str:
        return f"After({self.steps})"

    def look(self, room: Classroom, lesson: Lesson, taught: Taught) -> Sign | None:
        self.looked += 1
        room.kept["watch.count"] = room.kept.get("watch.count", torch.zeros(())) + 1
        if self.looked not in self.steps:
            return None
        return Sign(name="test", says="it was asked for", answer=self.answer, method=self.method)


def test_the_same_training_twice_ends_in_the_same_weights_whatever_else_is_drawn() -> None:
    first, second = network(), network()
    list(loop(first))
    for step in loop(second):
        torch.manual_seed(step.number)  # a loop of one's own may draw what it likes
        torch.rand(3)
    assert same(tensors_of(first), tensors_of(second))
    other = network()
    list(loop(other, seed=1))
    assert not same(tensors_of(first), tensors_of(other))


def test_steps_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    list(loop(network(), epochs=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("more", [{}, {"ema": 0.9}, {"swa": 0.4}, {"method": "n-fgsm"}, {"method": "free(replays=2)"}])
@pytest.mark.parametrize("at", [3, 6, 13])
def test_a_training_goes_on_from_its_checkpoint_bit_for_bit(more: dict[str, Any], at: int, tmp_path: Path) -> None:
    whole = loop(network(), **more)
    list(whole)
    broken = loop(network(), **more)
    while broken.number < at:
        next(broken)
    Folder(tmp_path).keep(broken.state())
    state = Folder(tmp_path).state()
    assert state is not None
    resumed = loop(network(seed=7), **more)
    resumed.restore(state)
    list(resumed)
    for each in (whole, resumed):
        each.conclude()
    assert same(tensors_of(whole.network), tensors_of(resumed.network))
    assert history(whole) == history(resumed)


def test_a_training_that_went_back_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def watched(net: nn.Module, steps: tuple[int, ...]) -> Hardening:
        return loop(net, watch=After(steps, Answer.ROLL_BACK), remedies=("n-fgsm",))

    whole = watched(network(), (9,))
    list(whole)
    broken = watched(network(), (9,))
    for _ in range(11):  # the return is at the ninth
        next(broken)
    Folder(tmp_path).keep(broken.state())
    resumed, state = watched(network(seed=3), ()), Folder(tmp_path).state()
    assert state is not None
    resumed.restore(state)
    assert resumed.method == METHODS.build("n-fgsm").call
    list(resumed)
    assert same(tensors_of(whole.network), tensors_of(resumed.network))
    assert [each.to_record() for each in whole.seen] == [each.to_record() for each in resumed.seen]


def test_a_return_brings_back_the_weights_of_the_last_epoch_end_and_takes_another_method() -> None:
    net = network()
    asked = loop(net, watch=After((9, 12), Answer.ROLL_BACK), remedies=("fgsm", "n-fgsm"))
    while asked.number < 6:
        next(asked)
    good = tensors_of(net)
    step = next(asked), next(asked), next(asked)
    assert step[-1].sign is not None and asked.number == 6 and same(tensors_of(net), good)
    assert asked.method.startswith("n-fgsm(") and asked.room.kept == {}
    assert [epoch.epoch for epoch in asked.epochs] == [0]
    list(asked)  # no remedy is left at the second sign: "fgsm" was at work
    assert asked.stopped == "it was asked for" and [each.done for each in asked.seen][-1] == "training stopped"
    assert len(asked.seen) == 2 and asked.ended


def test_a_sign_may_name_the_method_or_only_be_written_down() -> None:
    named = loop(network(), watch=After((2,), Answer.ROLL_BACK, "pgd(steps=2)"))
    list(named)
    assert named.method.startswith("pgd(steps=2") and len(named.epochs) == 4
    told = loop(network(), watch=After((2,), Answer.GO_ON))
    list(told)
    assert told.seen[0].done == "training went on" and told.seen[0].step == 1
    plain = loop(network())
    list(plain)
    assert same(tensors_of(told.network), tensors_of(plain.network))


class Sick:
    """Plain descent that meets a loss that is not a number at certain calls."""

    call, budgets = "sick", ()

    def __init__(self, at: set[int]) -> None:
        self.at, self.calls = at, 0

    def teach(self, room: Classroom, lesson: Lesson) -> Taught:
        self.calls += 1
        outputs = room.outputs(lesson.x)
        loss = nn.functional.cross_entropy(outputs, lesson.y) * (math.nan if self.calls in self.at else 1)
        room.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        room.optimiser.step()
        return Taught(
            loss=loss.item(), point=lesson.x, outputs=outputs.detach(), clean=None, forwards=1, backwards=1
        )  # fmt: skip


def sick(monkeypatch: pytest.MonkeyPatch, at: set[int]) -> None:
    once = Sick(at)

    def made() -> Sick:
        """A method for this test."""
        return once

    monkeypatch.setitem(METHODS._entries, "sick", type(METHODS.entry("fgsm"))(name="sick", factory=made))


def test_a_loss_that_is_not_finite_costs_one_return_and_a_slower_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    sick(monkeypatch, {9})
    net = network()
    asked = loop(net, method="sick", schedule="constant")
    rates = [step.lr for step in asked]
    assert rates[:9] == [0.1] * 9 and rates[9:] == [pytest.approx(0.01)] * (len(rates) - 9)
    assert not asked.stopped and len(asked.epochs) == 4 and asked.seen[0].sign.name == "not finite"
    assert all(bool(torch.isfinite(each).all()) for each in net.parameters())


def test_the_second_time_training_ends_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    sick(monkeypatch, {9, 11})
    net = network()
    found = harden(net, data(), BUDGET, method="sick", epochs=4, batch_size=15, lr=0.1)
    assert "nan" in found.stopped and found.best_epoch == 0 and len(found.epochs) == 1
    assert all(bool(torch.isfinite(each).all()) for each in net.parameters()) and not net.training


def test_the_weights_that_remain_are_those_of_the_most_robust_epoch() -> None:
    net = network()
    kept: list[dict[str, Tensor]] = []
    asked = loop(net, epochs=6, held_out=0.3)
    for step in asked:
        if step.held is not None:
            kept.append(tensors_of(net))
    held = [epoch.held for epoch in asked.epochs]
    robust = [each.robust for each in held if each is not None]
    assert asked.best_epoch == robust.index(max(robust))
    asked.conclude()
    assert same(tensors_of(net), kept[asked.best_epoch]) and not net.training
    x, y = data()
    ids = asked.held_out
    assert worth(Model(net), x[ids], y[ids], BUDGET.fitted((len(ids), 2)), seed=0, size=7)[1] == max(robust)


def test_patience_ends_a_training() -> None:
    asked = loop(network(), epochs=30, patience=2, lr=1e-9)
    list(asked)
    assert len(asked.epochs) == 3 and asked.best_epoch == 0 and "patience=2" in asked.stopped


def test_held_out_examples_are_of_every_class_and_never_trained_on() -> None:
    y = torch.tensor([0] * 50 + [1] * 30 + [2] * 2)
    ids, held = split(y, 0.1, seed=0)
    assert torch.equal(torch.cat([ids, held]).sort().values, torch.arange(82))
    assert torch.bincount(y[held], minlength=3).tolist() == [5, 3, 0]
    assert not torch.equal(held, split(y, 0.1, seed=1)[1])
    assert len(split(torch.arange(30000) % 2, 0.5, 0)[1]) == 1000
    met: list[Tensor] = []

    def look(room: Classroom, lesson: Lesson, taught: Taught) -> None:
        met.append(lesson.x)

    asked = loop(network(), epochs=1, watch=type("W", (), {"look": staticmethod(look)})())
    list(asked)
    x = data()[0]
    assert len(torch.cat(met)) == COUNT - len(asked.held_out)
    assert torch.cdist(torch.cat(met), x[asked.held_out]).min() > 0


def test_every_epoch_has_an_order_of_its_own_with_every_example_once() -> None:
    ids = torch.arange(5, 45)
    first, second = shuffled(ids, 0, 0), shuffled(ids, 0, 1)
    assert torch.equal(first.sort().values, ids) and not torch.equal(first, second)
    assert torch.equal(first, shuffled(ids, 0, 0))


def test_crops_and_flips_belong_to_examples_and_epochs() -> None:
    x = torch.arange(2 * 16 * 16).reshape(1, 2, 16, 16).float().expand(200, -1, -1, -1) / 512
    ids = torch.arange(200)
    found = varied(x, ids, 0, 0)
    assert torch.equal(found[7:9], varied(x[7:9], ids[7:9], 0, 0)) and not torch.equal(found, varied(x, ids, 0, 1))
    falling = found[:, 0, 8, 4] > found[:, 0, 8, 8]
    assert 0.35 < float(falling.double().mean()) < 0.65
    # The middle keeps all its neighbours: rows go on by one row, whichever way the columns run.
    assert torch.allclose(found[:, 0, 9, 8] - found[:, 0, 8, 8], torch.tensor(16 / 512))
    moves = (found[:, 1, 8] - found[:, 0, 8])[:, 8]
    assert torch.allclose(moves, torch.tensor(0.5))  # channels move together
    rows = ((found[:, 0, 8, 8] * 512) // 16).unique()
    assert rows.tolist() == [6, 7, 8, 9, 10]
    with pytest.raises(UsageError, match="crop-flip"):
        loop(network(), augment="crop-flip").__next__()


def test_averages_of_weights_are_what_is_judged() -> None:
    plain, averaged = network(), network()
    list(loop(plain, epochs=1))
    asked = loop(averaged, epochs=1, ema=0.0)
    list(asked)
    asked.conclude()
    assert same(tensors_of(plain), tensors_of(averaged))  # no memory: the last weights
    mean = loop(network(), epochs=2, swa=0.1, held_out=0.0, lr=0.05)
    ends = [tensors_of(mean.network) for step in mean if step.number % 6 == 5]
    mean.conclude()
    name = "0.weight"
    assert torch.allclose(tensors_of(mean.network)[name], (ends[0][name] + ends[1][name]) / 2, atol=1e-6)
    with torch.no_grad():
        first = mean.network[0](data()[0])  # type: ignore[operator]
    assert torch.allclose(tensors_of(mean.network)["1.running_mean"], first.mean(0), atol=2e-2)


def test_a_sentinel_watches_where_points_are_searched_for() -> None:
    def asked(method: str, folder: Path | None = None) -> Any:
        return hardening(network(), data(), BUDGET, method=method, epochs=1)._watch

    assert isinstance(asked("n-fgsm"), Sentinel) and asked("plain") is None


def test_learning_rates() -> None:
    course = Course(budget=BUDGET, method="fgsm", lr=0.2, schedule="piecewise")
    assert [course.rate(share) for share in (0, 0.49, 0.5, 0.74, 0.75, 1)] == pytest.approx(
        [0.2, 0.2, 0.02, 0.02, 0.002, 0.002]
    )
    steps = list(loop(network(), epochs=2, schedule="cyclic", lr=0.2))
    assert steps[0].lr == pytest.approx(0.2 / 12) and steps[5].lr == steps[6].lr == max(step.lr for step in steps)


def test_half_precision_and_channels_last_train() -> None:
    def images(**more: Any) -> tuple[nn.Module, Hardening]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        y = (x.mean((1, 2, 3)) > 0.5).long()
        asked = hardening(net, (x, y), Linf(0.02), method="fgsm", epochs=1, batch_size=10, lr=0.01, **more)
        list(asked)
        return net, asked

    plain, last, half = images()[0], images(channels_last=True)[0], images(precision="bf16")[0]
    assert last[0].weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[index]
    for mine, theirs in zip(plain.parameters(), last.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    gaps = [(a - b).abs().max() for a, b in zip(plain.parameters(), half.parameters(), strict=True)]
    assert 0 < max(gaps) < 0.02


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"method": "ngsm"}, "unknown method 'ngsm'"),
        ({"epochs": 0}, "epochs=0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine'"),
        ({"watch": "dog"}, "unknown watch 'dog'"),
        ({"held_out": 1.0}, "held_out=1.0"),
        ({"ema": 0.9, "swa": 0.5}, "two averages"),
        ({"batch_size": 1}, "larger batch_size"),
    ],
)
def test_what_is_not_allowed_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises((UsageError, DataError), match=says.replace("(", r"\(")):
        loop(network(), **more)


def test_data_and_models_that_cannot_be_trained_are_refused() -> None:
    x, y = data()
    with pytest.raises(UsageError, match="larger than"):
        hardening(network(), (x, y), Linf(8.0))
    with pytest.raises(DataError, match="all have the label 1"):
        hardening(network(), (x, torch.ones_like(y)), BUDGET)
    with pytest.raises(DataError, match="labels go from 0 to 5"):
        hardening(network(), (x, 5 * (y == 0).long()), BUDGET)
    with pytest.raises(DataError, match="divide by 255"):
        hardening(network(), (255 * x, y), BUDGET)
    with pytest.raises(DataError, match="NaN"):
        hardening(network(), (torch.full_like(x, math.nan), y), BUDGET)
    with pytest.raises(DataError, match="float tensor"):
        hardening(network(), ((255 * x).byte().numpy(), y), BUDGET)
    with pytest.raises(ModelError, match="no parameter"):
        hardening(network().requires_grad_(False), (x, y), BUDGET)
    with pytest.raises(ModelError, match="plain function"):
        hardening(Model(lambda x: x), (x, y), BUDGET)
    with pytest.raises(UsageError, match="cannot be trained on"):
        hardening(network(), "digits", BUDGET)


def test_a_method_for_other_budgets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sick(monkeypatch, set())
    monkeypatch.setattr(Sick, "budgets", ("l2",))
    with pytest.raises(UsageError, match="sick serves the budgets l2, not linf"):
        fitting("sick", BUDGET)


def test_data_sets_and_their_loaders_are_the_same_examples() -> None:
    x, y = data()
    items = torch.utils.data.TensorDataset(x, y)
    nets = [network() for _ in range(3)]
    for net, given in zip(nets, ((x, y), items, torch.utils.data.DataLoader(items, batch_size=4)), strict=True):
        list(hardening(net, given, BUDGET, method="fgsm", epochs=1, batch_size=30, lr=0.1))
    assert same(tensors_of(nets[0]), tensors_of(nets[1])) and same(tensors_of(nets[0]), tensors_of(nets[2]))


def test_a_finished_training_is_found_again_and_another_is_refused_by_name(tmp_path: Path) -> None:
    def asked(net: nn.Module, **more: Any) -> Any:
        whole = {"method": "fgsm", "epochs": 2, "batch_size": 30, "lr": 0.1, "out": tmp_path / "run", **more}
        return harden(net, data(), BUDGET, **whole)

    first, again = network(), network(seed=5)
    found = asked(first)
    assert asked(again).to_record() == found.to_record() and same(tensors_of(first), tensors_of(again))
    with pytest.raises(UsageError, match=r"holds another training \(epochs was 2, is 3\)"):
        asked(network(), epochs=3)
    with pytest.raises(UsageError, match="layers was"):
        asked(nn.Sequential(nn.Linear(2, 3)))
    with pytest.raises(UsageError, match="budget was"):
        harden(network(), data(), Linf(0.06), method="fgsm", epochs=2, batch_size=30, lr=0.1, out=tmp_path / "run")
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    (checkpoint / STATE).write_bytes(b"PK")
    with pytest.raises(DataError, match="damaged"):
        asked(network())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(UsageError, match="not empty"):
        asked(network(), out=tmp_path / "other")


def test_a_checkpoint_that_cannot_be_written_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = Folder(tmp_path), loop(network())
    next(asked)
    folder.keep(asked.state())
    next(asked)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steepest.harden.folder.torch.save", full)
    with pytest.raises(Exception, match="no space left"):
        folder.keep(asked.state())
    state = folder.state()
    assert state is not None and state["number"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint-000000001"]


class Board:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def begin(self, name: str, asked: Mapping[str, str]) -> None:
        self.told.append(("begin", (name, dict(asked))))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.told.append(("log", (step, dict(numbers))))

    def end(self) -> None:
        self.told.append(("end", None))


def test_a_tracker_hears_of_the_beginning_of_every_epoch_and_of_the_end() -> None:
    board = Board()
    found = harden(network(), data(), BUDGET, method="fgsm", epochs=2, batch_size=15, lr=0.1, trackers=[board])
    assert [kind for kind, _ in board.told] == ["begin", "log", "log", "log", "end"]
    assert board.told[0][1][1]["epochs"] == "2"
    (at, numbers) = board.told[2][1]
    held = found.epochs[0].held
    assert held is not None
    assert at == 6 and numbers["held out/robust"] == held.robust


def test_a_tracker_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    monkeypatch.delitem(__import__("sys").modules, "steepest.harden.trackers.mlflow", raising=False)
    with pytest.raises(UsageError, match=r"steepest\[mlflow\]"):
        trackers_of("mlflow", tmp_path)
    with pytest.raises(UsageError, match="unknown tracker 'wandb'"):
        trackers_of("wandb", tmp_path)


def test_tensorboard_keeps_what_it_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    boards = trackers_of("tensorboard", tmp_path)
    harden(network(), data(), BUDGET, method="fgsm", epochs=1, batch_size=30, lr=0.1, trackers=boards)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert {"loss", "held out/robust"} <= set(read.Tags()["scalars"])


def test_mlflow_keeps_what_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'runs'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # no server, no database: a test's board
    for epochs in (1, 1):
        boards = trackers_of("mlflow", tmp_path)
        harden(network(), data(), BUDGET, method="fgsm", epochs=epochs, batch_size=30, lr=0.1, trackers=boards)
    (run,) = MlflowClient().search_runs(["0"])
    assert run.data.params["epochs"] == "1" and "held out/robust" in run.data.metrics


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    pytest.importorskip("lightning.fabric")

    def small() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))

    one, two = small(), small()
    more: dict[str, Any] = {"method": "fgsm", "epochs": 2, "batch_size": 20, "lr": 0.1, "held_out": 0.2}
    alone = harden(one, data(), BUDGET, **more)
    shared = harden(two, data(), BUDGET, **more, devices=2, out=tmp_path / "run")
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)  # the mean of two halves is the mean of the whole
    assert shared.best_epoch == alone.best_epoch and len(shared.epochs) == 2


def test_lightnings_own_trainer_trains_on_worst_points(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from steepest.harden.batches import adversarial_batch
    from steepest.harden.lightning import Adversarial

    met: list[Tensor] = []

    class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Any:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            met.append(batch[0].clone())
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    torch.manual_seed(0)
    net, (x, y) = Net(), data()
    wanted = adversarial_batch(net, x[:30], y[:30], BUDGET, method="fgsm")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=30)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=[Adversarial(BUDGET, method="fgsm")],
    )  # fmt: skip
    trainer.fit(net, loader)
    assert len(met) == 3 and torch.equal(met[0], wanted) and not torch.equal(met[0], x[:30])
