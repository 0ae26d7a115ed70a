"""What findings ask for becomes ways to search: which, in which order, and on which objective."""

from __future__ import annotations

import pytest
import torch

from steepest.attacks.api import attack
from steepest.basis.errors import UsageError
from steepest.basis.streams import Stream
from steepest.budgets.linf import Linf
from steepest.budgets.region import Region
from steepest.diagnose.contract import Remedy
from steepest.diagnose.remedies import Mended, mended
from steepest.models.confirmed import Confirmed
from steepest.models.model import Model

X = torch.full((3, 4), 0.5)


def scores(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([200 * (x.mean(1) - 0.4), 0 * x[:, 0]], 1)


def ways(*names: str, model: Model | None = None, objective: str = "scaled-ce") -> tuple[Mended, ...]:
    region = Region(Linf(0.2), Model(scores, (0, 1)).box, X)
    asked = [Remedy(name=name) for name in names]
    return mended(model or Model(scores, (0, 1)), objective, asked, region, Stream.of(0, torch.arange(3)))


def test_nothing_is_searched_where_nothing_is_asked_for() -> None:
    assert ways() == ways(objective="ce") == ways("scaled objective") == ()


@pytest.mark.parametrize("name", ["scaled objective", "surrogate", "more steps", "gradient-free first"])
def test_no_second_search_ascends_cross_entropy(name: str) -> None:
    assert {each.objective for each in ways(name, objective="ce")} == {"scaled-ce"}
    assert {each.objective for each in ways("surrogate", objective="margin")} == {"margin"}


def test_cheap_ways_come_first() -> None:
    made = ways("estimated gradients", "averaged gradients", "gradient-free first", "surrogate")
    names = ["surrogate", "gradient-free", "averaged gradients", "estimated gradients"]
    assert [each.name for each in made] == names
    assert [each.free for each in made] == [False, True, False, False]


def test_more_steps_follow_the_models_own_gradients_where_no_other_way_leads() -> None:
    assert [each.name for each in ways("more steps")] == ["more steps"]
    assert [each.name for each in ways("more steps", "surrogate")] == ["surrogate"]


def test_probabilities_that_round_are_searched_behind_the_softmax() -> None:
    """softmax of (100, 0) is (1, 0) in float32, without a slope; what enters it has one."""
    sharp = Model(lambda x: (5 * scores(x)).softmax(1), (0, 1))
    y = torch.zeros(3, dtype=torch.int64)
    (way,) = ways("behind the softmax", model=sharp)
    assert way.name == "behind the softmax"
    assert not attack("bim(steps=10)", sharp, X, y, Linf(0.2)).won.any()
    found = attack("bim(steps=10)", way.model.asked_by(Confirmed(sharp)), X, y, Linf(0.2))
    assert found.won.all() and (sharp.logits(found.point).argmax(1) == 1).all()


def test_an_unknown_remedy_is_refused() -> None:
    with pytest.raises(UsageError, match="remedy"):
        ways("prayer")
