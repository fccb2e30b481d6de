"""Purged folds, single and combinatorial, against definitions worked out row by row and against scikit-learn."""

import math
from datetime import date, timedelta
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, TimeSeriesSplit, cross_val_score

from odin_core.evaluation.splits import CombinatorialPurgedKFold, PurgedKFold, PurgedWalkForward, TooFewSessions


def meets(a, b):
    return a[0] <= b[1] and b[0] <= a[1]


@st.composite
def labelled_rows(draw, least=3):
    """Rows of uneven sessions in any order, with spans that start in their session and last any time."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=least, max_size=17))
    sessions = np.repeat(np.arange(len(sizes)), sizes)
    sessions = sessions[draw(st.permutations(range(len(sessions))))]
    lengths = draw(st.lists(st.integers(0, 6), min_size=len(sessions), max_size=len(sessions)))
    return sessions, np.column_stack([sessions, sessions + np.array(lengths)])


def fold_sessions(n_sessions, n_folds):
    """The sessions of each fold, the first ones longer."""
    left, parts = list(range(n_sessions)), []
    for fold in range(n_folds):
        size = math.ceil(len(left) / (n_folds - fold))
        parts.append(left[:size])
        left = left[size:]
    return parts


def kept_rows(sessions, spans, folds, purge, embargo):
    """Training rows by definition: pair by pair, session by session."""
    tested = {s for fold in folds for s in fold}
    inside = [i for i, s in enumerate(sessions) if s in tested]
    barred = set(tested)
    for fold in folds:
        barred |= {s for s in range(fold[0] - purge, fold[-1] + purge + 1)}
        last_end = max(spans[i][1] for i in range(len(sessions)) if sessions[i] in fold)
        later = [s for s in range(fold[-1] + purge + 1, max(sessions) + 1) if s > last_end]
        barred |= set(later[:embargo])
    free = [i for i, s in enumerate(sessions) if s not in barred]
    return [i for i in free if not any(meets(spans[i], spans[j]) for j in inside)]


@given(labelled_rows(), st.integers(2, 5), st.data())
def test_nothing_is_trained_on_that_meets_a_test_and_nothing_is_purged_without_need(rows, n_folds, data):
    sessions, spans = rows
    n_folds = min(n_folds, sessions.max() + 1)
    k = data.draw(st.integers(1, n_folds - 1))
    purge, embargo = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 4))
    splitter = CombinatorialPurgedKFold(n_folds, k, purge=purge, embargo=embargo)
    splits = list(splitter.split(sessions, groups=sessions, label_spans=spans))
    choices = list(combinations(fold_sessions(sessions.max() + 1, n_folds), k))
    assert len(splits) == len(choices) == splitter.get_n_splits() == math.comb(n_folds, k)
    for (train, test), folds in zip(splits, choices, strict=True):
        assert test.tolist() == np.flatnonzero(np.isin(sessions, np.concatenate(folds))).tolist()
        assert train.tolist() == kept_rows(sessions, spans, folds, purge, embargo)


@given(labelled_rows(), st.integers(2, 5), st.integers(0, 2), st.integers(0, 3))
def test_purged_folds_are_the_combinatorial_ones_with_one_test_fold(rows, n_splits, purge, embargo):
    sessions, spans = rows
    n_splits = min(n_splits, sessions.max() + 1)
    plain = PurgedKFold(n_splits, purge=purge, embargo=embargo, label_spans=spans)
    combined = CombinatorialPurgedKFold(n_splits, 1, purge=purge, embargo=embargo, label_spans=spans)
    pairs = zip(plain.split(sessions, groups=sessions), combined.split(sessions, groups=sessions), strict=True)
    for ours, theirs in pairs:
        assert [a.tolist() for a in ours] == [b.tolist() for b in theirs]


@given(st.integers(2, 60), st.integers(2, 12))
def test_without_spans_it_is_scikit_learns_k_fold_uneven_ones_too(n, n_splits):
    n = max(n, n_splits)
    ours, theirs = PurgedKFold(n_splits).split(np.zeros(n)), KFold(n_splits).split(np.zeros(n))
    for (train, test), (their_train, their_test) in zip(ours, theirs, strict=True):
        assert train.tolist() == their_train.tolist()
        assert test.tolist() == their_test.tolist()


def test_a_remainder_larger_than_a_fold_is_tested_too():
    tests = [test for _, test in PurgedKFold(n_splits=10).split(np.zeros(29))]
    assert np.concatenate(tests).tolist() == list(range(29))
    assert [len(test) for test in tests] == [3] * 9 + [2]


@given(labelled_rows(), st.integers(2, 5), st.data())
def test_every_path_tests_every_row_exactly_once(rows, n_folds, data):
    sessions, spans = rows
    n_folds = min(n_folds, sessions.max() + 1)
    k = data.draw(st.integers(1, n_folds - 1))
    splitter = CombinatorialPurgedKFold(n_folds, k, label_spans=spans)
    tests = [test for _, test in splitter.split(sessions, groups=sessions)]
    n = len(sessions)
    paths = splitter.paths(tests, groups=sessions)
    assert splitter.n_paths == math.comb(n_folds, k) * k // n_folds
    assert paths.tolist() == [list(range(n))] * splitter.n_paths
    made_by = splitter.paths([np.full(len(test), i) for i, test in enumerate(tests)], groups=sessions)
    for path in range(splitter.n_paths):
        for row in range(n):
            assert row in tests[made_by[path, row]]
    for i, test in enumerate(tests):  # each tested row of each split is used on exactly one path
        assert np.count_nonzero(made_by == i) == len(test)


def test_the_published_six_folds_of_which_two_are_tested():
    splitter = CombinatorialPurgedKFold(n_folds=6, n_test_folds=2)
    assert (splitter.get_n_splits(), splitter.n_paths) == (15, 5)
    assert splitter.path_splits()[0].tolist() == [0, 0, 1, 2, 3, 4]  # López de Prado 2018, figure 12.2
    assert splitter.path_splits()[4].tolist() == [4, 8, 11, 13, 14, 14]


def test_predictions_of_several_columns_keep_them():
    splitter = CombinatorialPurgedKFold(3, 2)
    parts = [np.column_stack([test, -test]) for _, test in splitter.split(np.zeros(7))]
    assert splitter.paths(parts).shape == (2, 7, 2)
    assert splitter.paths(parts)[1].tolist() == [[i, -i] for i in range(7)]


def test_predictions_that_do_not_fit_the_splits_are_refused():
    splitter = CombinatorialPurgedKFold(3, 2)
    parts = [test for _, test in splitter.split(np.zeros(7))]
    with pytest.raises(ValueError, match="of 2 splits, but there are 3"):
        splitter.paths(parts[:2])
    with pytest.raises(ValueError, match=r"predictions\[0\] has 4 rows, its split tests 5"):
        splitter.paths([parts[0][:-1], np.append(parts[1], 0), parts[2]])


def test_the_embargo_begins_after_the_last_label_has_ended():
    spans = [(i, i + 2) for i in range(12)]  # the labels of fold 0 … 3 end with row 5
    splitter = PurgedKFold(n_splits=3, embargo=1, label_spans=spans)
    trains = [train.tolist() for train, _ in splitter.split(np.zeros(12))]
    assert trains == [[7, 8, 9, 10, 11], [0, 1, 11], [0, 1, 2, 3, 4, 5]]


def test_no_row_between_the_last_labels_end_and_the_embargo_is_trained_on():
    """Two rows a session, at its hours 0 and 5 of ten; the label of row 3 ends at hour 3 of session 3."""
    sessions = np.repeat(np.arange(6), 2)
    begins = 10 * sessions + np.tile([0, 5], 6)
    spans = np.column_stack([begins, begins])
    spans[3, 1] = 33
    splitter = PurgedKFold(3, label_spans=spans)
    (train, test), *_ = splitter.split(begins, groups=sessions)
    assert (test.tolist(), train.tolist()) == ([0, 1, 2, 3], [7, 8, 9, 10, 11])
    (train, _), *_ = PurgedKFold(3, embargo=1, label_spans=spans).split(begins, groups=sessions)
    assert train.tolist() == [8, 9, 10, 11]


def test_one_session_is_never_on_both_sides():
    sessions = np.tile(np.arange(20), 5)  # five symbols, one after the other
    for train, test in CombinatorialPurgedKFold(4, 2, purge=1, embargo=2).split(sessions, groups=sessions):
        assert not set(sessions[train]) & set(sessions[test])
        tested = set(sessions[test])
        assert all(not {s - 1, s + 1} & tested for s in set(sessions[train]))
        assert all(not {s - 1, s - 2, s - 3} & tested for s in set(sessions[train]))


@pytest.mark.parametrize("kind", ["date", "datetime64"])
def test_sessions_and_spans_may_be_dates(kind):
    days = np.array([date(2023, 1, 2) + timedelta(days=i) for i in range(9)])
    spans = np.column_stack([days, days + timedelta(days=1)])
    if kind == "datetime64":
        days, spans = days.astype("datetime64[D]"), spans.astype("datetime64[D]")
    splitter = PurgedKFold(3, embargo=1)
    trains = [train.tolist() for train, _ in splitter.split(days, groups=days, label_spans=spans)]
    assert trains == [[5, 6, 7, 8], [0, 1, 8], [0, 1, 2, 3, 4]]


def test_scikit_learn_searches_on_purged_folds_and_copies_the_splitter():
    generator = np.random.default_rng(0)
    X, sessions = generator.normal(size=(60, 3)), np.repeat(np.arange(20), 3)
    spans = np.column_stack([sessions, sessions + 1])
    y = X[:, 0] + generator.normal(size=60)
    for splitter in (PurgedKFold(4, label_spans=spans), CombinatorialPurgedKFold(4, 2, label_spans=spans)):
        assert len(cross_val_score(Ridge(), X, y, cv=splitter, groups=sessions)) == splitter.get_n_splits()
        search = clone(GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, cv=splitter)).fit(X, y, groups=sessions)
        assert search.n_splits_ == splitter.get_n_splits()
        by_hand = [
            Ridge(alpha=0.1).fit(X[train], y[train]).score(X[test], y[test])
            for train, test in splitter.split(X, groups=sessions)
        ]
        assert search.cv_results_["mean_test_score"][0] == pytest.approx(np.mean(by_hand))


def test_a_memorising_learner_finds_nothing_once_overlapping_labels_are_purged():
    """Labels that last ten sessions overlap; one neighbour knows the answer unless it is purged."""
    from sklearn.neighbors import KNeighborsRegressor

    steps = np.random.default_rng(4).normal(size=610)
    y = np.array([steps[i : i + 10].sum() for i in range(600)])
    X, spans = np.arange(600.0)[:, None], [(i, i + 9) for i in range(600)]
    nearest = KNeighborsRegressor(n_neighbors=1)
    shuffled = cross_val_score(nearest, X, y, cv=KFold(5, shuffle=True, random_state=0))
    purged = cross_val_score(nearest, X, y, cv=PurgedKFold(5, label_spans=spans))
    assert shuffled.mean() > 0.7
    assert purged.mean() < 0


@given(st.integers(12, 60), st.integers(2, 3), st.integers(0, 2), st.integers(1, 20))
def test_a_rolling_window_is_scikit_learns_largest_training_size(n, n_splits, gap, window):
    theirs = TimeSeriesSplit(n_splits=n_splits, gap=gap, max_train_size=window).split(np.zeros(n))
    ours = PurgedWalkForward(n_splits=n_splits, embargo=gap, window=window).split(np.zeros(n))
    for (train, test), (their_train, their_test) in zip(ours, theirs, strict=True):
        assert train.tolist() == their_train.tolist()
        assert test.tolist() == their_test.tolist()


@given(labelled_rows(least=8), st.integers(1, 3), st.integers(0, 2), st.integers(1, 6))
def test_a_rolling_window_keeps_the_latest_sessions_of_the_expanding_one(rows, n_splits, embargo, window):
    sessions, spans = rows
    both = [
        PurgedWalkForward(n_splits=n_splits, embargo=embargo, window=w).split(
            sessions, groups=sessions, label_spans=spans
        )
        for w in (None, window)
    ]
    for (train, test), (rolling, same) in zip(*both, strict=True):
        first = sessions[test].min() - embargo - window
        assert rolling.tolist() == [i for i in train if sessions[i] >= first]
        assert same.tolist() == test.tolist()


def test_fewer_sessions_than_folds_are_refused():
    with pytest.raises(TooFewSessions, match=r"3 sessions cannot be cut into 4 purged folds: at least 4"):
        PurgedKFold(4).split(np.zeros(3))
    with pytest.raises(TooFewSessions, match=r"2 sessions"):
        CombinatorialPurgedKFold(3, 2).split(np.zeros(8), groups=np.repeat([0, 1], 4))


@pytest.mark.parametrize(
    "make",
    [
        lambda: PurgedKFold(1),
        lambda: PurgedKFold(3, purge=-1),
        lambda: PurgedKFold(3, embargo=-1),
        lambda: CombinatorialPurgedKFold(3, 3),
        lambda: CombinatorialPurgedKFold(3, 0),
        lambda: CombinatorialPurgedKFold(1, 1),
        lambda: CombinatorialPurgedKFold(3, 2, purge=-1),
        lambda: PurgedWalkForward(window=0),
    ],
)
def test_options_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="="):
        make()
