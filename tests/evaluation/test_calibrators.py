"""From scores to probabilities: the published fits, what a calibrator remembers, and what folds never see."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from odin_core.errors import OdinError
from odin_core.evaluation.calibration import brier_score
from odin_core.evaluation.calibrators import (
    CalibratorUnreadable,
    Platt,
    SeenRows,
    TooFewRows,
    cross_fitted,
    fit_isotonic,
    fit_platt,
    from_json,
    logistic_line,
)
from odin_core.evaluation.splits import PurgedKFold, PurgedWalkForward, spans_meet

SCORES = st.integers(2, 50).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.float64, n, elements=st.floats(-5, 5).map(lambda v: round(v, 2))), hnp.arrays(np.bool_, n)
    )
)
BOTH = pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])


def scored(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of deviation 2 whose true probability is 1 / (1 + exp(0.3 − 0.8 · score)), and outcomes."""
    rng = np.random.default_rng(seed)
    x = 2 * rng.standard_normal(n)
    return x, rng.random(n) < 1 / (1 + np.exp(0.3 - 0.8 * x))


def test_platts_line_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.calibration")
    x, y = scored(400)
    theirs = sklearn._SigmoidCalibration().fit(x, y.astype(float))
    mine = fit_platt(x, y)
    assert (mine.slope, mine.intercept) == pytest.approx((-theirs.a_, -theirs.b_), rel=1e-4, abs=1e-4)


@given(SCORES)
def test_at_platts_line_the_likelihood_has_no_slope(drawn):
    """The two normal equations, with Platt's targets."""
    x, y = drawn
    won = y.sum()
    target = np.where(y, (won + 1) / (won + 2), 1 / (y.size - won + 2))
    p = fit_platt(x, y).probability(x)
    assert np.sum(target - p) == pytest.approx(0, abs=1e-6 * y.size)
    if np.ptp(x) > 0:
        assert np.sum((target - p) * x) == pytest.approx(0, abs=1e-5 * y.size)


def test_enough_scores_give_back_the_line_that_made_them():
    x, y = scored(40_000)
    line = fit_platt(x, y)
    assert (line.intercept, line.slope) == pytest.approx((-0.3, 0.8), abs=0.05)


def test_a_line_does_not_depend_on_the_scores_unit():
    x, y = scored(300)
    plain, tiny = fit_platt(x, y), fit_platt(1e-7 * x + 3, y)
    np.testing.assert_allclose(tiny.probability(1e-7 * x + 3), plain.probability(x), rtol=1e-5)


def test_scores_that_separate_and_scores_that_are_one_number_give_finite_lines():
    apart = fit_platt([-1, -1, 1, 1], [0, 0, 1, 1])
    assert 0.2 < apart.probability([-1])[0] < 0.3  # Platt's target, 1 / (2 + 2)
    constant = fit_platt([2.0, 2.0, 2.0], [1, 1, 0])
    assert constant.slope == 0
    assert constant.probability([9.0])[0] == pytest.approx((0.75 + 0.75 + 1 / 3) / 3)


def test_a_logistic_line_with_soft_targets_fits_them_exactly_where_they_lie_on_one():
    x = np.linspace(-3, 8, 30)
    intercept, slope = logistic_line(x, 1 / (1 + np.exp(-(0.4 - 1.1 * x))))
    assert (intercept, slope) == pytest.approx((0.4, -1.1), rel=1e-6)


@given(SCORES)
def test_isotonic_steps_ascend_and_no_ascending_map_comes_nearer(drawn):
    x, y = drawn
    fitted = fit_isotonic(x, y)
    p = fitted.probability(np.sort(x))
    assert (np.diff(p) >= -1e-12).all()
    margin = 1 / (x.size + 2)
    assert ((p >= margin - 1e-12) & (p <= 1 - margin + 1e-12)).all()
    best = np.clip(pooled(x, y), margin, 1 - margin)
    np.testing.assert_allclose(fitted.probability(x), best, atol=1e-9)


def pooled(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pool adjacent violators, one block after another; ties of x are one block from the start."""
    levels = np.unique(x)
    blocks: list[list[float]] = []  # sum, count, distinct scores
    for level in levels:
        blocks.append([float(y[x == level].sum()), float((x == level).sum()), 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    value = np.concatenate([np.full(int(width), total / count) for total, count, width in blocks])
    return value[np.searchsorted(levels, x)]


@BOTH
@given(SCORES)
def test_a_calibrator_comes_back_from_its_text_and_says_the_same(fit, drawn):
    x, y = drawn
    fitted = fit(x, y)
    back = from_json(fitted.to_json())
    assert back == fitted
    assert back.to_json() == fitted.to_json() == fit(x, y).to_json()
    np.testing.assert_array_equal(back.probability(x), fitted.probability(x))


def test_a_stored_line_needs_no_rows():
    assert from_json('{"kind": "platt", "intercept": 0.5, "slope": 2}') == Platt(intercept=0.5, slope=2.0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "plat"}', '{"kind": "platt", "slope": 1}'])
def test_what_is_no_stored_calibrator_is_refused_with_the_way_out(text):
    with pytest.raises(CalibratorUnreadable, match="fit the calibrator again"):
        from_json(text)


@BOTH
def test_a_calibrator_refuses_to_be_judged_on_rows_that_it_saw(fit):
    x, y = scored(50)
    names = [f"2023-01-02/SYN{i:03d}" for i in range(50)]
    fitted = fit(x[:30], y[:30], names[:30])
    later = fitted.out_of_sample(x[30:], names[30:])
    np.testing.assert_array_equal(later, fitted.probability(x[30:]))
    with pytest.raises(SeenRows, match=r"1 of 21 rows, for example '2023-01-02/SYN029'") as refused:
        fitted.out_of_sample(x[29:], names[29:])
    assert isinstance(refused.value, OdinError)
    with pytest.raises(SeenRows):
        from_json(fitted.to_json()).out_of_sample(x[:1], names[:1])


@BOTH
def test_unknown_scores_take_no_part(fit):
    x, y = scored(40)
    x[3], outcome = math.nan, np.where(np.arange(40) == 5, math.nan, y)
    fitted = fit(x, outcome)
    assert not {3, 5} & set(fitted.seen)
    assert len(fitted.seen) == 38
    assert math.isnan(fitted.probability([math.nan])[0])
    with pytest.raises(TooFewRows, match="1 row"):
        fit([1.0, math.nan], [1, 0])
    with pytest.raises(ValueError, match="0 or 1"):
        fit([1.0, 2.0], [0.5, 1])


def ridge(x: np.ndarray, y: np.ndarray):
    """Scores of a line through the training rows: quick, and every training row moves it."""

    def predict(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        design = np.column_stack([np.ones(len(x)), x])
        beta = np.linalg.solve(design[train].T @ design[train] + 1e-3 * np.eye(2), design[train].T @ y[train])
        return design[test] @ beta

    return predict


def data(sessions: int = 40, each: int = 6):
    rng = np.random.default_rng(9)
    session = np.repeat(np.arange(sessions), each)
    x = rng.standard_normal(session.size)
    y = (rng.random(session.size) < 1 / (1 + np.exp(-1.5 * x))).astype(float)
    spans = np.stack([session, session + 2], axis=1)  # an outcome spans three sessions
    return x, y, session, spans


SPLITTER = PurgedWalkForward(n_splits=3, embargo=1)
FOLDS = pytest.mark.parametrize("splitter", [SPLITTER, PurgedKFold(4, embargo=1)], ids=["walk-forward", "k-fold"])


@FOLDS
@BOTH
def test_no_tested_row_has_an_outcome_in_anything_that_its_probability_comes_from(fit, splitter):
    x, y, session, spans = data()
    told = {"groups": session, "label_spans": spans, "fit": fit}
    before = cross_fitted(ridge(x, y), y, splitter, **told)
    for fold, calibrator in enumerate(before.calibrators):
        tested = before.rows[before.fold == fold]
        met = spans_meet(spans, spans[tested])  # every outcome that one of the fold's own touches
        changed = np.where(met, 1 - y, y)
        after = cross_fitted(ridge(x, changed), changed, splitter, **told)
        mine = after.fold == fold
        np.testing.assert_array_equal(after.probability[mine], before.probability[mine])
        np.testing.assert_array_equal(after.score[mine], before.score[mine])
        assert not met[np.array(calibrator.seen)].any()
        assert (
            calibrator.out_of_sample(before.score[mine], tested.tolist()).tolist() == before.probability[mine].tolist()
        )


def test_every_row_after_the_first_window_is_tested_once_and_the_last_calibrator_has_seen_all():
    x, y, session, spans = data()
    fitted = cross_fitted(ridge(x, y), y, SPLITTER, groups=session, label_spans=spans)
    assert fitted.rows.tolist() == np.flatnonzero(session >= 10).tolist()
    assert fitted.probability.shape == fitted.score.shape == fitted.fold.shape == fitted.rows.shape
    assert brier_score(fitted.probability, y[fitted.rows]) < 0.23
    for row in (0, fitted.rows[-1]):
        with pytest.raises(SeenRows):
            fitted.calibrator.out_of_sample([0.5], [int(row)])
    assert fitted.calibrator.out_of_sample([0.5], [len(y)]).shape == (1,)
    assert json.loads(fitted.calibrator.to_json())["kind"] == "platt"


def test_a_calibrator_makes_a_bold_score_honest_out_of_sample():
    x, y, session, spans = data(sessions=1_000)
    bold = lambda train, test: 8 * x[test]  # noqa: E731
    fitted = cross_fitted(bold, y, SPLITTER, groups=session, label_spans=spans)
    raw = 1 / (1 + np.exp(-fitted.score))
    assert brier_score(fitted.probability, y[fitted.rows]) < brier_score(raw, y[fitted.rows]) - 0.02
    assert np.mean([c.slope for c in fitted.calibrators]) == pytest.approx(1.5 / 8, rel=0.1)


def test_scores_that_only_remember_their_training_rows_get_no_confidence():
    _, y, session, spans = data(sessions=200)
    noise = np.random.default_rng(1).standard_normal(y.size)

    def memory(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """What came of a row that was learned, and noise for every other."""
        return np.where(np.isin(test, train), 10 * y[test] - 5, 5 * noise[test])

    fitted = cross_fitted(memory, y, SPLITTER, groups=session, label_spans=spans)
    assert np.abs(fitted.probability - y.mean()).max() < 0.2
    assert brier_score(fitted.probability, y[fitted.rows]) < 0.26
