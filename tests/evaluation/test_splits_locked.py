"""Hyper-parameters locked before a walk-forward: what the choice has seen, and what the walk makes of it."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold

from odin_core.evaluation.splits import NoCandidateScored, PurgedKFold, PurgedWalkForward, locked_walk_forward

N = 120
OUTER = PurgedWalkForward(n_splits=3)
INNER = PurgedKFold(3)
ALPHAS = (0.01, 1.0, 100.0, 10_000.0)


def data(seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(N, 4))
    return X, X @ [1.0, -0.5, 0.0, 0.2] + generator.normal(size=N)


def ridge(alpha, X, y):
    return Ridge(alpha=alpha).fit(X, y).predict


def closeness(y, predicted):
    return -float(np.mean((y - predicted) ** 2))


def walk(X, y, **options):
    defaults = {"splitter": OUTER, "inner_splitter": INNER, "score": closeness}
    return locked_walk_forward(options.pop("fit", ridge), ALPHAS, X, y, **{**defaults, **options})


def test_it_chooses_by_the_inner_folds_of_the_first_window_and_walks_with_that_choice():
    X, y = data()
    answer = walk(X, y)
    outer = list(OUTER.split(X))
    first = outer[0][0]
    inner = [
        [closeness(y[first][b], ridge(a, X[first][t], y[first][t])(X[first][b])) for t, b in INNER.split(first)]
        for a in ALPHAS
    ]
    np.testing.assert_allclose(answer.inner_scores, inner)
    assert answer.chosen == ALPHAS[int(np.argmax(np.mean(inner, axis=1)))]
    walked = [ridge(answer.chosen, X[train], y[train])(X[test]) for train, test in outer]
    np.testing.assert_allclose(answer.predictions, np.concatenate(walked))
    np.testing.assert_allclose(answer.scores, [closeness(y[b], p) for (_, b), p in zip(outer, walked, strict=True)])
    assert answer.rows.tolist() == list(range(30, N))
    assert answer.fold.tolist() == np.repeat([0, 1, 2], 30).tolist()


@pytest.mark.parametrize("rolling", [None, 20])
def test_whatever_the_tested_rows_hold_the_choice_is_the_same(rolling):
    X, y = data()
    splitter = PurgedWalkForward(n_splits=3, window=rolling)
    before = walk(X, y, splitter=splitter)
    X[30:], y[30:] = 1e6 * X[30:][::-1], -y[30:]
    after = walk(X, y, splitter=splitter)
    assert after.chosen == before.chosen
    assert after.inner_scores.tobytes() == before.inner_scores.tobytes()
    assert not np.allclose(after.scores, before.scores)


def test_a_candidate_that_only_later_rows_favour_is_not_chosen():
    X, y = data()
    y[30:] = 1_000 + y[30:]

    def constant(level, X, y):
        return lambda unseen: np.full(len(unseen), level)

    answer = locked_walk_forward(constant, (0.0, 1_000.0), X, y, splitter=OUTER, inner_splitter=INNER, score=closeness)
    assert answer.chosen == 0.0
    assert np.mean(closeness(y[answer.rows], np.full(90, 1_000.0))) > answer.scores.mean()


def test_only_the_first_window_is_fitted_or_scored_before_the_walk_begins():
    X, y = data()
    X[:, 3] = np.arange(N)
    seen = []

    def recording(alpha, X, y):
        rows = X[:, 3].astype(int)
        seen.append(set(rows))
        model = Ridge(alpha=alpha).fit(X, y)

        def predict(unseen):
            seen[-1] |= set(unseen[:, 3].astype(int))
            return model.predict(unseen)

        return predict

    walk(X, y, fit=recording)
    choosing, walking = seen[: len(ALPHAS) * 3], seen[len(ALPHAS) * 3 :]
    assert set.union(*choosing) == set(range(30))
    assert [max(rows) for rows in walking] == [59, 89, 119]
    assert len(walking) == 3


@pytest.mark.parametrize("given_to", ["splitter", "call"])
def test_label_spans_purge_the_inner_folds_too(given_to):
    X, y = data()
    X[:, 3] = np.arange(N)
    spans = np.array([(i, i + 4) for i in range(N)])
    fits = []

    def recording(alpha, X, y):
        fits.append(X[:, 3].astype(int))
        return Ridge(alpha=alpha).fit(X, y).predict

    if given_to == "splitter":
        walk(X, y, fit=recording, splitter=PurgedWalkForward(n_splits=3, label_spans=spans))
    else:
        walk(X, y, fit=recording, label_spans=spans)
    first = np.arange(26)  # rows 26 … 29 have labels that end in the first test block
    expected = [first[train].tolist() for train, _ in INNER.split(first, label_spans=spans[:26])]
    assert [rows.tolist() for rows in fits[:3]] == expected
    assert len(expected[0]) < len(next(iter(INNER.split(first)))[0])


def test_sessions_are_kept_whole_inside_and_outside():
    X, y = data()
    sessions = np.repeat(np.arange(24), 5)[np.random.default_rng(1).permutation(N)]
    answer = walk(X, y, groups=sessions)
    assert sorted(set(sessions[answer.rows])) == list(range(6, 24))
    for fold in range(3):
        assert set(sessions[answer.rows[answer.fold == fold]]) == set(range(6 + 6 * fold, 12 + 6 * fold))


def test_the_first_of_equals_is_chosen_and_one_without_a_score_never():
    X, y = data()

    def level(value, X, y):
        return lambda unseen: np.full(len(unseen), value)

    def walk_with(candidates):
        return locked_walk_forward(
            level, candidates, X, y, splitter=OUTER, inner_splitter=INNER, score=lambda y, p: float(p[0] * 0)
        )

    assert walk_with((3.0, 2.0, 1.0)).chosen == 3.0
    assert walk_with((np.nan, 2.0, 1.0)).chosen == 2.0
    with pytest.raises(NoCandidateScored, match="2 candidates"):
        walk_with((np.nan, np.nan))
    with pytest.raises(ValueError, match="at least one"):
        walk_with(())


def test_scikit_learns_own_splitters_work_inside_but_folds_outside_are_refused():
    X, y = data()
    assert walk(X, y, inner_splitter=KFold(3)).chosen == walk(X, y).chosen
    with pytest.raises(ValueError, match="give a PurgedWalkForward"):
        walk(X, y, splitter=PurgedKFold(3))
