"""Splits against published tables, scikit-learn's, and a purge done pair by pair."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import TimeSeriesSplit, cross_val_score

from odin_core.evaluation.splits import (
    CombinatorialPurgedKFold,
    PurgedKFold,
    PurgedWalkForward,
    TooFewSessions,
    spans_meet,
)
from odin_core.labels import triple_barrier


def meets(a, b):
    return a[0] <= b[1] and b[0] <= a[1]


@st.composite
def labelled_rows(draw):
    """Rows of uneven sessions in shuffled order, each with a label span that starts in its session."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=5, max_size=23))
    sessions = np.repeat(np.arange(len(sizes)), sizes)
    sessions = sessions[draw(st.permutations(range(len(sessions))))]
    lengths = draw(st.lists(st.integers(0, 5), min_size=len(sessions), max_size=len(sessions)))
    return sessions, np.column_stack([sessions, sessions + np.array(lengths)])


@settings(deadline=None)
@given(labelled_rows(), st.integers(1, 3), st.integers(0, 3))
def test_no_training_span_meets_a_test_span_and_no_row_is_purged_without_need(rows, n_splits, embargo):
    sessions, spans = rows
    assume(sessions.max() >= n_splits + embargo)
    splitter = PurgedWalkForward(n_splits=n_splits, embargo=embargo)
    for train, test in splitter.split(sessions, groups=sessions, label_spans=spans):
        first = sessions[test].min()
        kept = []
        for i in range(len(sessions)):
            before = sessions[i] < first - embargo
            if before and not any(meets(spans[i], spans[j]) for j in test):
                kept.append(i)
        assert train.tolist() == kept


@settings(deadline=None)
@given(labelled_rows(), st.integers(1, 3))
def test_every_session_after_the_first_training_window_is_tested_once(rows, n_splits):
    sessions, spans = rows
    folds = list(PurgedWalkForward(n_splits=n_splits).split(sessions, groups=sessions, label_spans=spans))
    tested = np.concatenate([test for _, test in folds])
    start = sessions[folds[0][1]].min()
    assert sorted(tested.tolist()) == np.flatnonzero(sessions >= start).tolist()
    blocks = [set(sessions[test].tolist()) for _, test in folds]
    assert len({len(b) for b in blocks}) == 1
    assert len(set(sessions[sessions < start].tolist())) >= len(blocks[0])


@settings(deadline=None)
@given(st.integers(12, 60), st.integers(2, 3), st.integers(0, 2), st.none() | st.integers(1, 2))
def test_without_overlap_it_is_scikit_learns_time_series_split(n, n_splits, gap, test_size):

    assume(n - n_splits * (test_size or n // (n_splits + 1)) > gap)
    theirs = TimeSeriesSplit(n_splits=n_splits, gap=gap, test_size=test_size).split(np.zeros(n))
    ours = PurgedWalkForward(n_splits=n_splits, embargo=gap, test_size=test_size).split(np.zeros(n))
    for (train, test), (their_train, their_test) in zip(ours, theirs, strict=True):
        assert train.tolist() == their_train.tolist()
        assert test.tolist() == their_test.tolist()


def test_an_uneven_count_leaves_the_rest_to_the_first_training_window():
    folds = [(a.tolist(), b.tolist()) for a, b in PurgedWalkForward(n_splits=3).split(np.zeros(11))]
    assert [test for _, test in folds] == [[5, 6], [7, 8], [9, 10]]
    assert [train for train, _ in folds] == [list(range(5)), list(range(7)), list(range(9))]


def test_a_label_that_ends_on_the_tests_first_day_is_purged_and_one_that_ends_before_stays():
    spans = [(i, i + 2) for i in range(10)]
    (train, test), *_ = PurgedWalkForward(n_splits=1).split(np.zeros(10), label_spans=spans)
    assert train.tolist() == [0, 1, 2]
    assert test.tolist() == [5, 6, 7, 8, 9]


def test_a_row_between_two_test_spans_is_kept():
    assert spans_meet(np.array([[4, 5]]), np.array([[1, 3], [6, 8]])).tolist() == [False]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=12),
)
def test_meeting_spans_agree_with_the_pairwise_definition(left, right):
    a = np.array([(s, s + k) for s, k in left]).reshape(-1, 2)
    b = np.array([(s, s + k) for s, k in right]).reshape(-1, 2)
    assert spans_meet(a, b).tolist() == [any(meets(x, y) for y in b) for x in a]


@pytest.mark.parametrize("kind", ["date", "datetime64"])
def test_sessions_and_spans_may_be_dates(kind):
    days = np.array([date(2023, 1, 2) + timedelta(days=i) for i in range(8)])
    spans = np.column_stack([days, days + timedelta(days=1)])
    if kind == "datetime64":
        days, spans = days.astype("datetime64[D]"), spans.astype("datetime64[D]")
    (train, test), *_ = PurgedWalkForward(n_splits=1).split(days, groups=days, label_spans=spans)
    assert train.tolist() == [0, 1, 2]
    assert test.tolist() == [4, 5, 6, 7]


def test_scikit_learn_takes_it_as_a_splitter():

    spans = [(i, i + 1) for i in range(20)]
    splitter = PurgedWalkForward(n_splits=3, label_spans=spans)
    scores = cross_val_score(DummyRegressor(), np.zeros((20, 1)), np.arange(20.0), cv=splitter)
    assert len(scores) == splitter.get_n_splits() == 3


def test_a_long_embargo_shortens_the_blocks_before_it_refuses():
    folds = list(PurgedWalkForward(n_splits=3, embargo=2).split(np.zeros(8)))
    assert [test.tolist() for _, test in folds] == [[5], [6], [7]]
    assert [train.tolist() for train, _ in folds] == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert len(list(PurgedWalkForward(n_splits=3, embargo=2).split(np.zeros(6)))) == 3
    with pytest.raises(TooFewSessions, match=r"5 sessions .* at least 6 are needed"):
        PurgedWalkForward(n_splits=3, embargo=2).split(np.zeros(5))


def test_too_few_sessions_are_refused_with_the_number_needed():
    with pytest.raises(TooFewSessions, match=r"3 sessions .* at least 4 are needed"):
        PurgedWalkForward(n_splits=3).split(np.zeros(3))
    with pytest.raises(TooFewSessions, match=r"12 sessions .* at least 13 are needed"):
        PurgedWalkForward(n_splits=3, test_size=4).split(np.zeros(12))
    with pytest.raises(TooFewSessions, match=r"12 sessions .* at least 14 are needed"):
        PurgedWalkForward(n_splits=3, test_size=3, embargo=4).split(np.zeros(12))


@pytest.mark.parametrize(
    ("spans", "complaint"),
    [
        pytest.param([(0, 1)], "one .start, end. per row", id="wrong shape"),
        pytest.param([(3, 1)] * 8, "does not end at or after its start", id="backwards"),
        pytest.param([(np.nan, 1)] * 8, "does not end at or after its start", id="NaN"),
    ],
)
def test_spans_that_are_no_intervals_are_refused(spans, complaint):
    with pytest.raises(ValueError, match=complaint):
        PurgedWalkForward(n_splits=1).split(np.zeros(8), label_spans=spans)


@pytest.mark.parametrize("options", [{"n_splits": 0}, {"test_size": 0}, {"embargo": -1}], ids=str)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="="):
        PurgedWalkForward(**options)


def trains(splitter, n, **options):
    return [train.tolist() for train, _ in splitter.split(np.zeros(n), **options)]


def test_two_folds_of_ten_daily_events_whose_labels_last_two_days():
    spans = [(i, i + 2) for i in range(10)]
    assert trains(PurgedKFold(n_splits=2), 10, label_spans=spans) == [[7, 8, 9], [0, 1, 2]]
    assert trains(PurgedKFold(n_splits=2, label_spans=spans), 10) == [[7, 8, 9], [0, 1, 2]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"purge": 1}, [[9, 10, 11], [5, 6], [0, 1, 2]]),
        ({"embargo": 1}, [[9, 10, 11], [5, 6, 7], [0, 1, 2, 3]]),
    ],
)
def test_three_folds_of_which_two_are_tested_over_twelve_observations(options, expected):
    assert trains(CombinatorialPurgedKFold(n_folds=3, n_test_folds=2, **options), 12) == expected


def test_six_folds_of_which_two_are_tested_make_fifteen_splits_and_five_paths():
    splitter = CombinatorialPurgedKFold(n_folds=6, n_test_folds=2)
    assert len(trains(splitter, 30)) == splitter.get_n_splits() == 15
    assert splitter.n_paths == 5


def test_no_outcome_of_recorded_bars_is_trained_on_and_tested(market_file):
    """Triple barriers of up to 90 minutes on minute bars of several shares, in folds that cut sessions in two."""
    bars = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).sort("symbol", "ts")
    bars = bars.filter(pl.col("ts").dt.date() < bars["ts"].min().date() + timedelta(days=12))
    bars = bars.with_columns(known_at=pl.col("ts") + timedelta(minutes=1))
    events = bars.gather_every(15).select("symbol", decided_at="known_at")
    labels = triple_barrier(bars, events, target=0.004, pt_sl=(1, 1), min_ret=0.0, vertical=90).sort("decided_at")
    moments, ends = labels["decided_at"].to_numpy(), labels["label_end"].to_numpy()
    spans = np.column_stack([moments, ends])
    leaks, purged = 0, 0
    for train, test in PurgedKFold(7, label_spans=spans).split(moments, groups=moments):
        assert not spans_meet(spans[train], spans[test]).any()
        others = np.setdiff1d(np.arange(len(spans)), test)
        dropped = np.setdiff1d(others, train)
        assert spans_meet(spans[dropped], spans[test]).all()
        inside = (ends[train][:, None] >= moments[test]) & (moments[train][:, None] <= ends[test])
        leaks, purged = leaks + np.count_nonzero(inside), purged + len(dropped)
    assert labels["symbol"].n_unique() > 1
    assert leaks == 0
    assert purged > 50  # without the purge there is something to leak
