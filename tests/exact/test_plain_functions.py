"""Models that are plain functions of arrays: attacked, audited, and refused with a remedy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC

import steepest as st
from tests.conformance.cases import case

BUDGET = st.Linf(0.1)


@pytest.fixture(scope="module")
def forest() -> tuple[RandomForestClassifier, torch.Tensor, torch.Tensor]:
    digits = load_digits()
    pixels, labels = (digits.data / 16).astype(np.float32), digits.target
    made = RandomForestClassifier(20, random_state=0, n_jobs=1).fit(pixels[:900], labels[:900])
    return made, torch.from_numpy(pixels[900:960]), torch.from_numpy(labels[900:960])


def test_square_breaks_more_of_a_forest_than_noise_at_equal_queries(forest):
    trees, x, y = forest
    facts = st.scores(trees.predict_proba).facts
    assert (facts.kind, facts.answers, facts.source) == ("function", "scores", "RandomForestClassifier.predict_proba")
    model = st.scores(lambda a: trees.predict_proba(a.reshape(-1, 64)), outputs="probabilities")
    # A forest is flat nearly everywhere: in the cube corners drawn at random are as good, in the ball they are not.
    for budget, factor in [(st.Linf(0.1), 1.0), (st.L2(0.4), 1.2), (st.L2(0.8), 1.2)]:
        noise = st.attack("noise(points=151)", model, x.reshape(-1, 1, 8, 8), y, budget)
        square = st.attack("square(queries=150, rescale=True)", model, x.reshape(-1, 1, 8, 8), y, budget)
        assert int(square.won.sum()) > factor * int(noise.won.sum()) > 0
        assert (trees.predict(square.point.reshape(-1, 64).numpy()) != y.numpy())[square.won].all()


def test_labels_alone_serve_attacks_that_need_no_more(forest):
    trees, x, y = forest
    model = st.labels(trees.predict, classes=10)
    found = st.attack("noise(points=20)", model, x, y, BUDGET)
    assert torch.equal(found.won, torch.from_numpy(trees.predict(found.point.numpy())) != y)
    assert found.outputs.sum(1).tolist() == [1.0] * len(y)
    for text in ("square", "nes", "fgsm"):
        with pytest.raises(st.ModelError, match=r"answers labels only; attacks for it: .*noise"):
            st.attack(text, model, x, y, BUDGET)


def test_labels_may_be_any_values_in_the_order_of_y():
    names = ["ship", "cat", "frog"]
    words = st.labels(lambda a: np.array(names)[(a.sum(1) * 2).astype(int).clip(0, 2)], classes=names, box=None)
    assert words.logits(torch.tensor([[0.1], [0.6], [3.0]])).argmax(1).tolist() == [0, 1, 2]
    column = st.labels(lambda a: np.array([[7], [-1]]), classes=[-1, 7])
    assert column.logits(torch.zeros(2, 3)).tolist() == [[0, 1], [1, 0]]


def test_a_plain_function_gives_the_answers_of_the_network_it_hides():
    some = case("image K=10", torch.float32, count=8)

    def hidden(array: np.ndarray) -> np.ndarray:
        assert array.dtype == np.float32
        with torch.no_grad():
            told = some.network(torch.from_numpy(array)).numpy()
        array[:] = 7  # its own
        return told

    kept = some.x.clone()
    plain = st.attack("square(queries=40)", some.network, some.x, some.y, st.Linf(0.3))
    for model in (st.scores(hidden), st.scores(lambda x: some.network(x), arrays=False)):
        found = st.attack("square(queries=40)", model, some.x, some.y, st.Linf(0.3))
        assert torch.equal(found.point, plain.point)
        assert torch.equal(found.forwards, plain.forwards)
    assert torch.equal(some.x, kept)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_points_of_any_precision_reach_the_function(dtype):
    model = st.scores(lambda a: np.stack([a.sum(1), 1 - a.sum(1)], 1))
    found = st.attack("square(queries=20)", model, torch.full((2, 2), 0.3, dtype=dtype), [0, 0], st.Linf(0.2))
    assert found.won.all()
    assert found.point.dtype == dtype


@pytest.mark.parametrize(
    "answer",
    [np.zeros(3), np.zeros((3, 1)), np.zeros((2, 4)), np.zeros((3, 2, 2)), np.array([["a", "b"]] * 3), None],
    ids=["[N]", "[N, 1]", "[M, K]", "[N, a, b]", "text", "nothing"],
)
def test_scores_of_another_form_are_refused_with_a_remedy(answer):
    with pytest.raises(st.ModelError, match=r"\[3, K\].*np\.stack.*st\.labels"):
        st.scores(lambda a: answer).logits(torch.zeros(3, 4))


def test_labels_of_another_form_are_refused_with_a_remedy():
    with pytest.raises(st.ModelError, match=r"\[3\].*st\.scores"):
        st.labels(lambda a: np.zeros((3, 2)), classes=2).logits(torch.zeros(3, 4))
    for bad in (np.array([0, 1, 2]), np.array([0, -1, 1]), np.array([0, np.nan, 1]), np.array([0, 0.5, 1])):
        with pytest.raises(st.ModelError, match=r"none of the 2 classes.*classes=classifier\.classes_"):
            st.labels(lambda a, bad=bad: bad, classes=2).logits(torch.zeros(3, 4))
    for classes in (1, [3], [1, 1]):
        with pytest.raises(st.UsageError, match="at least 2"):
            st.labels(lambda a: a, classes=classes)
    with pytest.raises(st.UsageError, match="probabilities"):
        st.scores(lambda a: a, outputs="softmax")


def test_a_forest_is_audited(forest, tmp_path):
    trees, x, y = forest
    images = x.reshape(-1, 1, 8, 8)
    model = st.scores(trees.predict_proba, input_shape=(64,))
    run = st.audit(model, (images, y), BUDGET, attacks="noise(points=5), square(queries=40)", out=tmp_path / "a")
    assert run.clean_accuracy == pytest.approx(trees.score(x.numpy(), y.numpy()))
    assert run.robust_accuracy < run.clean_accuracy
    records = run.records()
    assert {record["broken_by"] for record in records} >= {"square", None}
    assert all(record["backwards"] == 0 for record in records)
    st.report(run, tmp_path / "report.html")
    known = st.labels(trees.predict, classes=10, input_shape=(64,))
    bounds = st.audit(known, (images, y), BUDGET, attacks="noise(points=5)")
    assert bounds.clean_accuracy == run.clean_accuracy
    assert bounds.robust_accuracy >= run.robust_accuracy


def test_a_preset_that_the_model_cannot_answer_is_refused_before_anything_is_written(forest, tmp_path):
    trees, x, y = forest
    for preset in ("quick", "standard"):
        with pytest.raises(st.UsageError, match=rf"'{preset}' contains fgsm.*scores only.*square.*st\.estimated"):
            st.audit(st.scores(trees.predict_proba), (x, y), BUDGET, preset=preset, out=tmp_path / "a")
    with pytest.raises(st.UsageError, match=r"the attacks contain square, .*labels only.*noise\(points=100\)"):
        st.audit(st.labels(trees.predict, 10), (x, y), BUDGET, attacks="noise, square", out=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_presets_run_on_estimated_gradients(forest):
    trees, x, y = forest
    lent = st.estimated(st.scores(trees.predict_proba, input_shape=(64,)), samples=5, sigma=0.1)
    images = x[:20].reshape(-1, 1, 8, 8)
    run = st.audit(lent, (images, y[:20]), [st.Linf(0.05), st.Linf(0.1)], preset="quick", batch_size=20)
    assert run.robust_accuracy < run.clean_accuracy
    assert all(record["backwards"] == 0 for record in run.records())
    longest = max(record["forwards"] for record in run.records())
    assert longest > 11 * 2 * 10, "what the estimates cost is not counted"


def test_a_machine_with_one_score_says_how_to_make_two():
    digits = load_digits(n_class=2)
    machine = SVC().fit(digits.data / 16, digits.target)
    with pytest.raises(st.ModelError, match=r"shape \(4,\).*np\.stack\(\[-s, s\], 1\)"):
        st.scores(machine.decision_function).logits(torch.zeros(4, 64))
    two = st.scores(lambda a: np.stack([-machine.decision_function(a), machine.decision_function(a)], 1) / 2)
    assert two.logits(torch.zeros(4, 64)).shape == (4, 2)
