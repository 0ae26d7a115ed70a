"""Searches that see scores alone: their schedule and windows, corners they must reach, gradients they estimate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import steepest as st
from steepest.attacks.api import pose
from steepest.attacks.contract import Status
from steepest.attacks.library.square import share_of, sides_of
from steepest.basis.streams import Stream
from steepest.models.contract import Need, Question
from steepest.models.estimated import Estimated
from steepest.models.objectives import Margin
from tests.conformance.cases import Case, case, layers, line
from tests.tables import budgets


class Watched(nn.Module):
    """Remembers every point that it is asked about; the value never rises, so the start stays the best point."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.clone())
        zero = 0 * x.flatten(1).sum(1)
        return torch.stack([1 + zero, zero], 1)


def asked(text: str, x: Tensor, budget: st.Linf | st.L2 | st.L1, box: tuple[float, float] | None = None) -> Tensor:
    """[questions, N, ...] of an attack that finds nothing, without the question about x."""
    network = Watched()
    model = network if box is None else st.Model(network, box=box)
    st.recipes.ATTACKS.build(text).run(pose(model, x, torch.zeros(len(x), dtype=torch.int64), budget))
    return torch.stack(network.asked)


def test_the_share_of_the_area_halves_at_the_published_breaks():
    breaks = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
    shares = [share_of(0.8, n, 10**4) for n in range(10**4)]
    for k, last in enumerate(breaks):
        assert shares[last] == 0.8 / 2**k
        assert shares[last + 1] == 0.8 / 2 ** (k + 1)
    assert len(set(shares)) == 10
    # Unless asked to, it does not shrink with the number of queries; if asked to, it is the same function of the share.
    assert share_of(0.8, 300, 1000) == 0.8 / 8
    assert share_of(0.05, 300, 1000, rescale=True) == share_of(0.05, 3000, 10**4)


def test_windows_keep_their_area_where_a_side_is_too_short():
    assert sides_of(32, 32, 0.8 * 1024) == (29, 29)
    for height, width in [(1, 100), (100, 1), (3, 64), (7, 5), (1, 1)]:
        for share in (0.8, 0.4, 0.1, 0.01):
            high, wide = sides_of(height, width, share * height * width)
            assert 1 <= high <= height
            assert 1 <= wide <= width
            assert abs(high * wide - share * height * width) <= max(high, wide, 1)


@pytest.mark.parametrize("shape", [(3, 6, 9), (1, 8, 8), (2, 12, 4)], ids=str)
def test_linf_starts_in_stripes_and_repaints_one_window(shape):
    x, eps = torch.full((4, *shape), 0.5, dtype=torch.float64), 0.1
    points = asked("square(queries=300)", x, st.Linf(eps)) - 0.5
    start, moved = points[0], points[1:]
    assert torch.allclose(points.abs(), torch.full_like(points, eps))
    assert (start == start[:, :, :1]).all()  # a stripe is one number from top to bottom
    assert len({tuple(row.tolist()) for row in start[:, 0, 0].sign()}) > 1
    seen = torch.zeros(shape[1:], dtype=torch.bool)
    for number, point in enumerate(moved):
        high, wide = sides_of(*shape[1:], share_of(0.8, number, 300) * shape[1] * shape[2])
        for row in range(len(x)):
            changed = point[row] != start[row]
            rows, columns = changed.any(0).nonzero().unbind(1) if changed.any() else ([], [])
            if not len(rows):
                continue
            seen |= changed.any(0)
            assert int(rows.max() - rows.min()) < high
            assert int(columns.max() - columns.min()) < wide
            if high == shape[1]:
                continue
            inside = point[row][:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert all(len(channel.unique()) == 1 for channel, c in zip(inside, changed, strict=True) if c.any())
    assert seen.all(), "the last row or column is never in a window"


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 9), (20,), (3, 7), (1,)], ids=str)
@pytest.mark.parametrize("ball", [st.L2(0.3), st.L1(0.3)], ids=repr)
def test_in_a_ball_every_point_uses_the_whole_length(shape, ball):
    x = torch.full((3, *shape), 0.5, dtype=torch.float64)
    points = asked("square(queries=60)", x, ball)
    length = torch.stack([ball.norm(point - 0.5) for point in points])
    assert torch.allclose(length, torch.full_like(length, 0.3), rtol=1e-9)
    assert (length <= 0.3).all()


@pytest.mark.parametrize("ball", [st.L2(0.3), st.L1(0.3)], ids=repr)
def test_what_is_frozen_does_not_take_its_share_of_the_length(ball):
    x, mask = torch.full((3, 1, 6, 6), 0.5, dtype=torch.float64), torch.arange(36).reshape(1, 6, 6) % 3 > 0
    points = asked("square(queries=30)", x, st.Masked(ball, mask)) - 0.5
    assert (points[..., ~mask] == 0).all()
    length = torch.stack([ball.norm(point) for point in points])
    assert torch.allclose(length, torch.tensor(0.3, dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize(("eps", "peak", "foot"), [(20.0, 0.4, 0.0), (25.25, 1.01 * 17 / 36, 1.01 / 36)])
@pytest.mark.parametrize("shape", [(1, 10, 10), (10, 10)], ids=str)
@pytest.mark.parametrize("unit", [1.0, 255.0])
def test_in_l1_the_start_is_the_projection_of_tiles_of_length_one(eps, peak, foot, shape, unit):
    """25 tiles of 2×2 have two peaks of 17/36 and two feet of 1/36 each: 25 in all, of which 5 are taken away."""
    x = torch.full((4, *shape), 0.5 * unit, dtype=torch.float64)
    start = (asked("square(queries=0)", x, st.L1(eps * unit), (0, unit))[0] / unit - 0.5).flatten(1)
    sizes = start.abs().sort(1).values
    assert torch.allclose(sizes[:, :50], torch.full((4, 50), foot, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(sizes[:, 50:], torch.full((4, 50), peak, dtype=torch.float64), atol=1e-9)
    assert (start.sum(1).abs() < 1e-9).all()  # a hill beside a valley
    assert len({tuple(row.tolist()) for row in start.sign()}) == 4  # every example draws its own


@pytest.mark.parametrize(("value", "eps"), [(0.5, 0.2), (0.0, 12.5)])
def test_in_l1_a_window_gets_pattern_and_length_channel_by_channel(value, eps):
    """Windows of 3×3 in images of 3×3: all eight moves from the start, by hand; from 0 the start leaves ε in part."""
    x = torch.full((1, 2, 3, 3), value, dtype=torch.float64)
    region = st.Region(st.L1(eps), st.Box(0, 1), x)
    start, *moves = asked("square(queries=80)", x, region.budget, (0, 1)) - x
    used = start.abs().sum((2, 3), keepdim=True)
    unused = eps - used.sum()
    assert bool(unused > 1) == (value == 0)
    above = torch.tensor([[1, 17, 1], [0, 0, 0], [0, 0, 0]]).double() / 38
    above[1:] = -torch.tensor([[1, 1, 1], [1, 17, 1]]).double() / 44
    allowed = []
    for pattern in (above, above.T):
        for signs in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)]:
            mixed = torch.tensor(signs).double().reshape(1, 2, 1, 1) * pattern + start / used
            mixed = mixed / mixed.abs().sum((2, 3), keepdim=True)
            # Each of the two channels gets twice its share, and the projection takes the surplus away.
            allowed.append(region.project(x + mixed * 2 * (unused / 2 + used)) - x)
    gaps = torch.stack([(torch.stack(moves) - each).abs().amax((1, 2, 3, 4)) for each in allowed])
    assert (gaps.amin(0) < 1e-9).all(), gaps.amin(0)
    assert (gaps.amin(1) < 1e-9).all(), "a pattern or sign is never drawn"


@pytest.mark.parametrize("seed", range(4))
def test_simba_reaches_the_corner_of_a_linear_model_in_two_trials_a_coordinate(seed):
    weights = [1.0, -2.0, 0.5, 0.25, -0.125]
    some = line(weights)
    result = some.attack("simba(queries=10)", st.Linf(0.25), drop_solved=False, seed=seed)
    assert torch.allclose(result.value - some.margin(some.x), torch.tensor(0.25 * 3.875, dtype=torch.float64))
    # One-sided limits: what cannot go down is tried all the same, what cannot move never is.
    up, down = torch.tensor([1.0, 1.0, 0.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0])
    budget = st.Weighted(0.1, up=up, down=down)
    result = some.attack("simba(queries=6)", budget, drop_solved=False, seed=seed)
    direction = some.network.weight[1] - some.network.weight[0]
    best = st.Region(budget, st.Box(0, 1), some.x).support(direction.detach().expand(3, -1))
    assert torch.allclose(result.value - some.margin(some.x), best)


def test_simba_nears_the_best_point_of_a_ball():
    some = line([1.0, -2.0, 0.5, 0.25])
    length = math.hypot(1, 2, 0.5, 0.25)
    for step, share in [(0.2, 0.95), (0.05, 0.995)]:
        result = some.attack(f"simba(queries=300, step={step})", st.L2(0.2), drop_solved=False)
        gain = result.value - some.margin(some.x)
        assert (gain <= 0.2 * length + 1e-9).all()
        assert (gain >= share * 0.2 * length).all(), gain


@pytest.mark.parametrize("seed", range(2))
def test_square_reaches_the_corner_of_a_linear_model(seed):
    weights = [1.0, -2.0, 0.5, 0.25, -0.125, 1.5]
    some = line(weights)
    result = some.attack("square(queries=400)", st.Linf(0.25), drop_solved=False, seed=seed)
    best = 0.25 * sum(map(abs, weights))
    assert torch.allclose(result.value - some.margin(some.x), torch.tensor(best, dtype=torch.float64))
    ball = some.attack("square(queries=1000)", st.L2(0.25), drop_solved=False, seed=seed)
    share = (ball.value - some.margin(some.x)) / (0.25 * math.sqrt(sum(w * w for w in weights)))
    assert (share > 0.9).all(), share
    assert (share <= 1 + 1e-9).all()


@pytest.mark.parametrize("shape", [(2, 6, 9), (12,)], ids=str)
def test_square_nears_the_best_point_of_an_l1_ball_in_the_box(shape):
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(shape, dtype=torch.float64, generator=draw)
    x, y = torch.rand(3, *shape, dtype=torch.float64, generator=draw), torch.zeros(3, dtype=torch.int64)

    def score(p: Tensor) -> Tensor:
        return (p * weight).flatten(1).sum(1)

    model = st.Model(lambda p: torch.stack([-score(p), score(p)], 1), box=(0, 1))
    budget = st.L1(torch.tensor([0.2, 0.4, 0.8]).double())
    best = st.Region(budget, st.Box(0, 1), x).support(weight.expand_as(x))
    shares = []
    for queries in (0, 40, 300):
        found = st.attack(f"square(queries={queries})", model, x, y, budget, drop_solved=False)
        assert st.Region(budget, st.Box(0, 1), x).contains(found.point).all()
        shares.append((found.value / 2 - score(x)) / best)
    assert (shares[0] < shares[1]).all() and (shares[1] < shares[2]).all()
    assert (shares[2] > 0.5).all(), shares[2]
    assert (shares[2] <= 1 + 1e-9).all()


class Saturated(nn.Module):
    """Sixteen blocks of 2×2 pixels vote by hardtanh(50·), flat unless most of a block has moved by 60 % of ε = 0.1."""

    def forward(self, x: Tensor) -> Tensor:
        blocks = nn.functional.avg_pool2d(x, 2).flatten(1)
        vote = nn.functional.hardtanh(50 * (blocks - 0.5 + 0.08)).mean(1)
        return torch.stack([vote, -vote], 1)


def test_random_search_breaks_what_gradients_cannot_see():
    x, y = torch.full((8, 1, 8, 8), 0.5), torch.zeros(8, dtype=torch.int64)
    flat = st.attack("bim(steps=20)", Saturated(), x, y, st.Linf(0.1))
    assert (flat.status == Status.ZERO_GRADIENT).all()
    assert not st.attack("pgd(steps=20, restarts=3)", Saturated(), x, y, st.Linf(0.1)).won.any()
    assert not st.attack("noise(points=600)", Saturated(), x, y, st.Linf(0.1)).won.any()
    found = st.attack("square(queries=1500)", Saturated(), x, y, st.Linf(0.1))
    assert found.won.all()
    assert st.attack("simba(queries=1500)", Saturated(), x, y, st.Linf(0.1)).won.sum() == 0  # one pixel moves no block


@pytest.mark.parametrize("text", ["square(queries=60)", "simba(queries=60)", "nes(steps=5, samples=8)",
                                  "spsa(steps=5, samples=8, lr=0.1)"])  # fmt: skip
def test_the_scale_of_the_scores_does_not_matter(text):
    some = case("image K=10", count=16)
    plain = some.attack(text, st.Linf(0.1))
    assert 0 < int(plain.won.sum()) < 16
    for scale, shift in [(1e-3, 0.0), (1e4, 0.0), (1.0, 100.0)]:
        other = Case(Rescaled(some.network, scale, shift), some.x, some.y).attack(text, st.Linf(0.1))
        assert torch.equal(other.won, plain.won)


class Rescaled(nn.Module):
    def __init__(self, inner: nn.Module, scale: float, shift: float) -> None:
        super().__init__()
        self.inner, self.scale, self.shift = inner, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.inner(x) + self.shift


def estimate(network: nn.Module, x: Tensor, oracle: Estimated, **asked: object) -> Question:
    """The answer to a question for gradients at x, label 0, by an oracle that knows the box [0, 1]."""
    count = len(x)
    model = st.Model(network).asked_by(replace(oracle, box=st.Box(0, 1)))
    plain = Question(point=x, y=torch.zeros(count, dtype=torch.int64), objective=Margin(), goal=Margin().goal,
                     need=Need.GRADIENT, stream=Stream.of(0, torch.arange(count)))  # fmt: skip
    return model.answer(replace(plain, **asked))


@pytest.mark.parametrize("draw", ["normal", "signs"])
def test_the_mean_of_the_estimate_is_the_gradient(draw):
    """Also on the faces of the box, where a pair that is merely clipped would give half of it."""
    some = line([1.0, -2.0, 0.5, 4.0])
    true = (some.network.weight[1] - some.network.weight[0]).detach()
    x = torch.tensor([0.0, 1.0, 0.5, 0.004], dtype=torch.float64).expand(6000, 4)
    found = estimate(some.network, x, Estimated(samples=1, sigma=1e-2, draw=draw)).gradient
    error = (found.mean(0) - true).abs() / (found.std(0) / math.sqrt(len(x)))
    assert (error < 4.5).all(), error
    # Its variance too: about ‖g‖² + gᵢ² for normal numbers, ‖g‖² − gᵢ² for signs.
    expected = true.square().sum() + (1 if draw == "normal" else -1) * true.square()
    assert torch.allclose(found.var(0), expected, rtol=0.15)


@pytest.mark.parametrize("draw", ["normal", "signs"])
def test_many_samples_give_the_gradient_and_the_jacobian_of_any_smooth_model(draw):
    network = layers((6,), 4, 1).double()
    x = torch.rand(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([[0, 3]] * 3)
    for need, name in [(Need.GRADIENT, "gradient"), (Need.JACOBIAN, "jacobian")]:
        found = estimate(network, x, Estimated(3000, 1e-3, draw), need=need, classes=classes)
        plain = Question(point=x, y=torch.zeros(3, dtype=torch.int64), objective=Margin(), goal=Margin().goal,
                         need=need, classes=classes)  # fmt: skip
        true, near = (getattr(each, name) for each in (st.Model(network).answer(plain), found))
        assert near.shape == true.shape
        assert (torch.cosine_similarity(near.flatten(-1), true.flatten(-1), dim=-1) > 0.995).all()
        assert torch.allclose(near, true, atol=0.1 * float(true.norm(dim=-1).max()))
        assert found.forwards == 6001
        assert found.backwards == 0


def test_no_question_leaves_the_box_and_a_narrow_box_is_kept_too():
    network = Watched()
    x = torch.tensor([[0.0, 1.0, 0.5, 1e-4]] * 3, dtype=torch.float64)
    estimate(network, x, Estimated(200, 0.05))
    points = torch.cat(network.asked)
    assert float(points.min()) >= 0
    assert float(points.max()) <= 1
    narrow = st.Box(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.02]))
    model = st.estimated(st.Model(line([1.0, 2.0]).network, box=narrow), samples=500, sigma=0.1)
    x = torch.tensor([[0.5, 0.02]], dtype=torch.float64)
    found = model.evaluate(x, torch.tensor([0]), Margin(), need=Need.GRADIENT)
    assert torch.allclose(found.gradient, torch.tensor([[-1.0, -2.0]], dtype=torch.float64), rtol=0.3)


def test_every_gradient_search_runs_on_scores():
    some = case("series K=3", count=8)
    black = st.scores(lambda a: some.network(torch.from_numpy(a)).detach().numpy())
    lent = st.estimated(black, samples=200)
    assert lent.facts.answers == "gradient"
    for text in ("fgsm", "pgd(steps=5)", "mi-fgsm(steps=5)"):
        plain = some.attack(text)
        found = st.attack(text, lent, some.x, some.y, some.budget("linf"))
        assert int((found.won != plain.won).sum()) <= 1
        assert not found.backwards.any()
        with pytest.raises(st.ModelError, match=r"needs the model's gradient.*square.*st\.estimated"):
            st.attack(text, black, some.x, some.y, some.budget("linf"))
    curve = st.curve(lent, some.x, some.y, some.budget("linf"), factors=[0.5, 1.0], tolerance=None)
    assert (curve.forwards == 1 + 400 + 2).all()
    assert not curve.backwards.any()


def test_estimates_of_a_batch_are_those_of_its_rows():
    some = case("series K=3", count=5)
    lent, budget = st.estimated(st.Model(some.network), samples=90), budgets((3, 4), 0.3)["masked l2"]
    ids = torch.arange(5) + 3
    whole = st.attack("pgd(steps=3)", lent, some.x, some.y, budget, ids=ids)
    for row in range(5):
        one, part = slice(row, row + 1), some.rows([row])
        alone = st.attack("pgd(steps=3)", lent, part.x, part.y, budget, ids=ids[one])
        assert torch.allclose(alone.point, whole.point[one], atol=1e-9)


def test_parameters_outside_their_range_are_refused():
    for text in (
        "square(queries=-1)",
        "square(p=0.0)",
        "square(p=1.5)",
        "simba(step=0.0)",
        "nes(samples=0)",
        "nes(sigma=0.0)",
        "spsa(lr=-1.0)",
        "spsa(delta=0.0)",
        "square(restarts=0)",
    ):
        with pytest.raises(st.UsageError, match=r"give|share"):
            st.recipes.ATTACKS.build(text)
    with pytest.raises(st.ModelError, match="labels only"):
        st.estimated(st.labels(lambda a: a.sum(1) > 1, classes=2))
