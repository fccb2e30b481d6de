"""The drift reference: what it remembers, when it can judge, how often it cries wolf and what it misses."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import MIX, QUICK, panel
from scipy import stats

from odin_core.monitoring import drift
from odin_core.monitoring.reference import DRIFT, NotAReference, Reference, drift_of, fit_reference, from_json, to_json

NAMES = [f"f{j}" for j in range(4)]
LIVELY = QUICK[:2] + QUICK[8:10]
VALUES, SESSION = panel(3, 100, 20, LIVELY)
TRAINED = SESSION < 60
NEWEST = SESSION >= 80


def reference(**changed) -> Reference:
    given_ = {"seed": 7} | changed
    return fit_reference(VALUES[TRAINED], NAMES, None, SESSION[TRAINED], **given_)


def shifted(values, column, by):
    out = values.copy()
    out[:, column] += by
    return out


# what it remembers


def test_json_gives_the_same_reference_and_the_same_bytes():
    fitted = reference()
    text = to_json(fitted)
    assert from_json(text) == fitted
    assert to_json(from_json(text)) == text
    assert to_json(reference()) == text
    assert to_json(reference(seed=8)) != text


@settings(max_examples=10)
@given(st.randoms(use_true_random=False), st.integers(-1000, 1000))
def test_neither_the_order_of_rows_nor_the_numbers_of_sessions_matter(random, offset):
    order = list(range(int(TRAINED.sum())))
    random.shuffle(order)
    moved = fit_reference(VALUES[TRAINED][order], NAMES, None, 3 * SESSION[TRAINED][order] + offset, seed=7)
    assert to_json(moved) == to_json(reference())


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format":2}', '{"format":1,"subjects":[{}]}', "null"])
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(NotAReference, match="Train the model again"):
        from_json(text)


def test_counts_are_those_of_the_rows_and_deciles_hold_a_tenth_each():
    for subject, column in zip(reference().subjects, VALUES[TRAINED].T, strict=True):
        inside = np.digitize(column.astype(float), subject.edges, right=True)
        assert np.bincount(inside, minlength=10).tolist() == list(subject.counts[:-1])
        assert max(subject.counts[:-1]) - min(subject.counts[:-1]) <= 1
        assert (subject.minimum, subject.maximum) == (column.min(), column.max())
        assert subject.mean == pytest.approx(column.mean(dtype=float))
        assert subject.missing == 0


def test_the_numbers_of_the_table_are_those_of_the_samples():
    scores = drift_of(reference(), VALUES[NEWEST], SESSION[NEWEST])
    assert scores.table.schema == DRIFT
    for j, row in enumerate(scores.table.iter_rows(named=True)):
        then, now = (VALUES[mask, j].astype(float) for mask in (TRAINED, NEWEST))
        subject = reference().subjects[j]
        counts = np.bincount(np.digitize(now, subject.edges, right=True), minlength=10)
        assert row["psi"] == pytest.approx(drift.population_stability_index(subject.counts[:-1], counts), abs=1e-5)
        assert row["ks"] == pytest.approx(stats.ks_2samp(then, now).statistic, abs=0.006)
        assert row["wasserstein"] == pytest.approx(stats.wasserstein_distance(then, now) / then.std(), abs=0.02)
        assert row["out_of_range"] == pytest.approx(((now < then.min()) | (now > then.max())).mean())
        assert row["rows"] == now.size


def test_only_the_last_sessions_count_and_nothing_given_is_changed():
    values, session = VALUES.copy(), SESSION.copy()
    fitted = fit_reference(values[TRAINED], NAMES, None, session[TRAINED], seed=7)
    all_of_them = drift_of(fitted, values, session)
    assert all_of_them.table.equals(drift_of(fitted, values[NEWEST], session[NEWEST]).table)
    assert all_of_them.sessions == 20
    np.testing.assert_array_equal(values, VALUES)


# when it can judge


def test_a_reference_of_fewer_sessions_than_the_window_cannot_judge():
    young = SESSION < 19
    fitted = fit_reference(VALUES[young], NAMES, None, SESSION[young], seed=7)
    scores = drift_of(fitted, shifted(VALUES[NEWEST], 0, 100), SESSION[NEWEST])
    assert not fitted.can_judge
    assert not scores.judged
    assert not scores.alarm
    assert scores.alarms == ()
    assert "has 19 sessions" in scores.reason
    assert scores.statistic is None
    assert scores.table["psi"][0] > 5
    assert scores.table["limit"].null_count() == 4


@pytest.mark.parametrize("sessions", [0, 1, 19])
def test_too_few_newer_sessions_are_not_judged(sessions):
    few = 100 - sessions <= SESSION
    scores = drift_of(reference(), shifted(VALUES[few], 0, 100), SESSION[few])
    assert not scores.judged
    assert not scores.alarm
    assert f"{sessions} sessions to look at" in scores.reason


def test_without_rows_or_columns_there_is_nothing_to_judge():
    empty = fit_reference(VALUES[:0], NAMES, None, SESSION[:0], seed=7)
    assert from_json(to_json(empty)) == empty
    assert not drift_of(empty, VALUES, SESSION).judged
    nothing = fit_reference(VALUES[:, :0], [], None, SESSION, seed=7)
    assert not drift_of(nothing, VALUES[:, :0], SESSION).alarm


def test_shapes_and_kinds_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit 3 names"):
        fit_reference(VALUES, NAMES[:3], None, SESSION, seed=7)
    with pytest.raises(ValueError, match="did you mean feature"):
        fit_reference(VALUES, NAMES, ["featur"] * 4, SESSION, seed=7)
    with pytest.raises(ValueError, match="a category has at most"):
        fit_reference(VALUES, NAMES, ["categorical"] * 4, SESSION, seed=7)


def test_fewer_sessions_make_wider_limits():
    values, session = panel(11, 126, 30, LIVELY)
    limit = {}
    for sessions in (25, 60, 126):
        known = session < sessions
        fitted = fit_reference(values[known], NAMES, None, session[known], seed=7)
        limit[sessions] = np.array([s.limit for s in fitted.subjects], float)
    assert (limit[25] > limit[60]).all()
    assert (limit[60] > limit[126]).all()


def test_what_chance_alone_moves_as_far_as_the_index_goes_has_no_limit():
    values, session = panel(4, 126, 50, [(1.0, 0.97), (0.2, 0.0)])
    fitted = fit_reference(values, ["slow", "quick"], None, session, seed=7)
    assert fitted.subjects[0].limit is None
    assert 0.1 < fitted.subjects[1].limit < 1


# what raises an alarm


@pytest.mark.parametrize("column", range(4))
def test_a_shift_in_one_feature_raises_exactly_its_alarm(column):
    values = shifted(VALUES[NEWEST], column, 3)
    scores = drift_of(reference(), values, SESSION[NEWEST])
    assert scores.alarm
    assert scores.alarms == (NAMES[column],)
    assert scores.worst == NAMES[column]
    assert NAMES[column] in scores.reason
    assert scores.statistic > 1
    assert scores.statistic == pytest.approx(scores.table["score"].max())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param(lambda v: np.where(np.arange(len(v)) % 4 == 0, np.nan, v), "missing", id="a quarter missing"),
        pytest.param(lambda v: 100 * v, "outside", id="another unit"),
        pytest.param(lambda v: np.full_like(v, 0.25), "all values are 0.25", id="stuck"),
    ],
)
def test_a_broken_feature_is_told_whether_or_not_it_has_a_limit(change, word):
    slow, session = panel(6, 126, 20, [(1.0, 0.97), (0.2, 0.0)])
    fitted = fit_reference(slow, ["slow", "quick"], None, session, seed=7)
    newest = session >= 106
    for column, name in enumerate(("slow", "quick")):
        values = slow[newest].copy()
        values[:, column] = change(values[:, column])
        scores = drift_of(fitted, values, session[newest])
        assert scores.alarm
        assert scores.alarms == (name,)
        assert scores.worst == name
        assert word in scores.table["fault"][column]
        assert word in scores.reason


def test_a_feature_that_was_always_missing_or_constant_is_no_alarm_until_it_changes():
    values = VALUES.copy()
    values[:, 0], values[:, 1] = np.nan, 0.5
    fitted = fit_reference(values[TRAINED], NAMES, None, SESSION[TRAINED], seed=7)
    assert drift_of(fitted, values[NEWEST], SESSION[NEWEST]).alarms == ()
    values[NEWEST, 1] = 0.25
    assert drift_of(fitted, values[NEWEST], SESSION[NEWEST]).alarms == ("f1",)


def test_categories_drift_by_their_shares_and_a_new_one_is_seen():
    rng = np.random.default_rng(5)
    session = np.repeat(np.arange(120), 40)
    code = rng.choice([0, 1, 2], p=[0.5, 0.3, 0.2], size=session.size).astype(float)
    trained, newest = session < 100, session >= 100
    fitted = fit_reference(code[trained, None], ["regime"], ["categorical"], session[trained], seed=7)
    usual = drift_of(fitted, code[newest, None], session[newest])
    assert not usual.alarm
    assert usual.table["ks_p"][0] > 0.001
    assert usual.table["ks"][0] is None
    other = np.where(code == 2, 1.5, code)  # between two that are known
    scores = drift_of(fitted, other[newest, None], session[newest])
    assert scores.alarms == ("regime",)
    assert scores.table["ks_p"][0] < 1e-9


def test_predictions_and_labels_may_be_missing_and_have_alarms_of_their_own():
    kinds = ["prediction", "label", "feature", "feature"]
    values = VALUES.copy()
    values[SESSION < 15, 0] = np.nan  # no walk-forward score for the first training window
    fitted = fit_reference(values[TRAINED], NAMES, kinds, SESSION[TRAINED], seed=7)
    newest = values[NEWEST].copy()
    newest[SESSION[NEWEST] >= 95, 1] = np.nan  # outcomes that are not known yet
    assert drift_of(fitted, newest, SESSION[NEWEST]).alarms == ()
    scores = drift_of(fitted, shifted(newest, 0, 3), SESSION[NEWEST])
    assert scores.alarms == ("f0",)
    assert not scores.alarm
    assert scores.worst in ("f2", "f3")


# how often, measured


def alarms_of_a_life(seed: int, sessions: int, looks: int = 60) -> bool:
    """Whether two neighbouring looks alarm, one after each of `looks` sessions that follow the reference's."""
    values, session = panel(seed, sessions + looks)
    known = session < sessions
    fitted = fit_reference(values[known], [f"f{j}" for j in range(len(MIX))], None, session[known], seed=1)
    counts = drift.bin_counts(values, fitted.edges, session, sessions + looks)
    running = np.cumsum(counts, axis=0)
    windows = running[sessions:] - running[sessions - 20 : -20]
    index = drift.population_stability_index(running[sessions - 1], windows)
    floor = drift.psi_threshold(known.sum(), 20 * 50, 10)
    limit = np.array([np.inf if s.limit is None else max(s.limit, floor) for s in fitted.subjects])
    alarm = (index >= limit).any(axis=1)
    return bool((alarm[1:] & alarm[:-1]).any())


@pytest.mark.parametrize("sessions", [126, 60])
def test_correlated_symbols_without_drift_seldom_alarm_twice_in_a_row(sessions):
    """The docstring of `tripwire` has the larger measurement, about 1 %."""
    assert sum(alarms_of_a_life(seed, sessions) for seed in range(30)) <= 1


def test_a_shift_of_two_deviations_in_a_quick_feature_is_found():
    found = []
    for seed in range(6):
        values, session = panel(100 + seed, 146, mix=QUICK)
        known = session < 126
        names = [f"f{j}" for j in range(len(QUICK))]
        fitted = fit_reference(values[known], names, None, session[known], seed=1)
        for column in (0, 9, 13):
            scores = drift_of(fitted, shifted(values[~known], column, 2), session[~known])
            found.append(scores.alarms == (names[column],))
    assert np.mean(found) >= 0.8


# on a recorded market


def test_drift_in_one_feature_of_a_real_market_raises_exactly_its_alarm(market_file):
    """NSE, 111 symbols by day, 2017: nothing for two weeks after training, then exactly the feature that is shifted."""
    day = pl.read_parquet(market_file("nse_daily_adjusted.parquet")).sort("symbol", "ts")
    close, before = pl.col("close"), pl.col("close").shift(1).over("symbol")
    features = {
        "return": (close / before).log(),
        "gap": (pl.col("open") / before).log(),
        "body": (close / pl.col("open")).log(),
        "position": (close - pl.col("low")) / (pl.col("high") - pl.col("low")),
    }
    day = day.select("ts", **features).filter(pl.col("ts").dt.year() == 2017)
    day = day.filter(pl.all_horizontal(pl.col(*features).is_finite()))
    session = day["ts"].rank("dense").cast(pl.Int64).to_numpy() - 1
    values = day.select(*features).to_numpy()
    known, newest = session < 126, (session >= 126) & (session < 146)
    fitted = fit_reference(values[known], list(features), None, session[known], seed=7)
    assert drift_of(fitted, values[newest], session[newest]).alarms == ()
    for column, name in enumerate(features):
        drifted = shifted(values[newest], column, 2 * values[known, column].std())
        assert drift_of(fitted, drifted, session[newest]).alarms == (name,)


def test_the_text_is_one_line_of_plain_json():
    text = to_json(reference())
    assert "\n" not in text
    assert json.loads(text)["sessions"] == 60
