"""Splitters that keep a label out of both sides at once: training and test sets by session, purged by label span.

They speak scikit-learn's protocol (`split`, `get_n_splits`; `GridSearchCV` copies them) and know nothing of learners.
A label span is the closed interval in which a row's outcome is made; a training row whose span meets a test row's has
seen part of its outcome. Three ways to cut: `PurgedWalkForward`, as a life goes, for evidence; `PurgedKFold`, every row
tested once, for choosing and calibrating; `CombinatorialPurgedKFold`, every row tested on many paths, for the spread of
a result. `locked_walk_forward` chooses hyper-parameters once and then walks."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import combinations, pairwise
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from odin_core.errors import OdinError

Indices = npt.NDArray[np.intp]
Candidate = TypeVar("Candidate")
Predict = Callable[[npt.NDArray[Any]], npt.ArrayLike]


class TooFewSessions(OdinError):
    def __init__(self, sessions: int, needed: int, n_splits: int, kind: str = "walk-forward") -> None:
        super().__init__(
            f"{sessions} sessions cannot be cut into {n_splits} {kind} folds: at least {needed} are needed; "
            f"wait for more sessions, or ask for fewer or shorter folds"
        )


class NoCandidateScored(OdinError):
    def __init__(self, candidates: int) -> None:
        super().__init__(
            f"none of the {candidates} candidates has a score on every inner fold: each mean is NaN; look at what the "
            f"score says on the first training window, or ask for fewer inner folds"
        )


class Splitter(Protocol):
    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[Indices, Indices]]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class PurgedWalkForward:
    """Expanding or rolling training window, consecutive test blocks of whole sessions up to the last one.

    With S sessions each block has `test_size` of them (default S // (n_splits + 1), fewer where the embargo would eat
    the first training window); what does not divide evenly goes to that window, as in scikit-learn's TimeSeriesSplit:
    every session after it is tested once.
    A fold trains on the rows before its block, less the `embargo` sessions next to it, less every row whose label span
    meets that of a test row (ends included). With `window` it trains on no more than so many sessions, the latest ones
    before the embargo (TimeSeriesSplit's `max_train_size`): a rolling window. `groups` is each row's session, any
    sortable type, in any order; without it each row is a session of its own. `label_spans` has shape (n, 2), start and
    end in one ordered type; default: the row's session alone."""

    n_splits: int = 3
    test_size: int | None = None  # sessions per block
    embargo: int = 0  # sessions between training and test
    window: int | None = None  # sessions to train on at most; None: all there are
    label_spans: npt.ArrayLike | None = None  # used where `split` is given none, e.g. by cross_val_score

    def __post_init__(self) -> None:
        _at_least(1, n_splits=self.n_splits, test_size=self.test_size, window=self.window)
        _at_least(0, embargo=self.embargo)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None, *, label_spans: npt.ArrayLike | None = None
    ) -> Iterator[tuple[Indices, Indices]]:
        """(training rows, test rows) of each fold, oldest first, both ascending row positions of `X` (length n).
        Training may be empty where every earlier row is purged. Raises TooFewSessions."""
        session, n_sessions = _session_numbers(groups, len(X))
        spans = _spans(self.label_spans if label_spans is None else label_spans, session)
        longest = (n_sessions - 1 - self.embargo) // self.n_splits
        size = self.test_size or min(n_sessions // (self.n_splits + 1), longest)
        first = n_sessions - size * self.n_splits
        if size < 1 or first <= self.embargo:
            raise TooFewSessions(n_sessions, (self.test_size or 1) * self.n_splits + 1 + self.embargo, self.n_splits)
        return self._folds(session, spans, size, first)

    def _folds(
        self, session: Indices, spans: npt.NDArray[Any], size: int, first: int
    ) -> Iterator[tuple[Indices, Indices]]:
        for start in range(first, first + size * self.n_splits, size):
            test = np.flatnonzero((session >= start) & (session < start + size))
            end = start - self.embargo
            since = 0 if self.window is None else end - self.window
            earlier = np.flatnonzero((session >= since) & (session < end))
            yield earlier[~spans_meet(spans[earlier], spans[test])], test


@dataclass(frozen=True, eq=False)
class CombinatorialPurgedKFold:
    """Every choice of `n_test_folds` out of `n_folds` consecutive folds is tested once: C(N, k) splits, of which
    φ = C(N − 1, k − 1) whole paths can be put together, each testing every row once.

    Folds are whole sessions in order; where S does not divide evenly the first S mod N folds have one session more, as
    in scikit-learn's KFold. A split trains on all other rows, less

    * every row whose label span meets that of a test row (ends included), on either side;
    * `purge` sessions on both sides of each test fold;
    * `embargo` sessions after each test fold: the first ones behind the purge with a row that begins after the last of
      the fold's labels has ended. What follows a test remembers it; what comes before does not.

    `groups` is each row's session, any sortable type, in any order; without it each row is a session of its own, so
    that `purge` and `embargo` count observations. `label_spans` has shape (n, 2), start and end in one ordered type;
    default: the row's session alone.
    All 45 splits of (10, 2) over 100,000 rows with spans take 0.03 s of one core (bench `combinatorial_folds`).
    Source: López de Prado 2018, chapters 7.4 (purge, embargo) and 12.4 (paths)."""

    n_folds: int = 6
    n_test_folds: int = 2
    _: KW_ONLY
    purge: int = 0  # sessions
    embargo: int = 0  # sessions
    label_spans: npt.ArrayLike | None = None  # used where `split` is given none, e.g. by cross_val_score

    def __post_init__(self) -> None:
        _at_least(2, n_folds=self.n_folds)
        _at_least(1, n_test_folds=self.n_test_folds)
        _at_least(0, purge=self.purge, embargo=self.embargo)
        if self.n_test_folds >= self.n_folds:
            raise ValueError(f"n_test_folds={self.n_test_folds} of n_folds={self.n_folds} leaves no fold to train on")

    @property
    def n_paths(self) -> int:
        return math.comb(self.n_folds - 1, self.n_test_folds - 1)

    @property
    def test_folds(self) -> list[tuple[int, ...]]:
        """The folds that each split tests, in the order of `split`."""
        return list(combinations(range(self.n_folds), self.n_test_folds))

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return math.comb(self.n_folds, self.n_test_folds)

    def split(
        self, X: Any, y: Any = None, groups: Any = None, *, label_spans: npt.ArrayLike | None = None
    ) -> Iterator[tuple[Indices, Indices]]:
        """(training rows, test rows) of each split, ascending row positions of `X` (length n); training may be empty
        where every row is purged. Raises TooFewSessions for fewer sessions than folds."""
        session, n_sessions = _session_numbers(groups, len(X))
        spans = _spans(self.label_spans if label_spans is None else label_spans, session)
        tested = _folds_of(session, n_sessions, self.n_folds)
        barred = _barred(session, n_sessions, spans, tested, self.purge, self.embargo)
        return (
            (np.flatnonzero(~barred[list(folds)].any(axis=0)), np.flatnonzero(tested[list(folds)].any(axis=0)))
            for folds in self.test_folds
        )

    def path_splits(self) -> Indices:
        """Which split tests fold f on path p: shape (n_paths, n_folds). Path p takes each fold from the p-th split that
        tests it, so that every split's every test fold is used exactly once."""
        table = np.empty((self.n_paths, self.n_folds), dtype=np.intp)
        for fold in range(self.n_folds):
            table[:, fold] = [i for i, folds in enumerate(self.test_folds) if fold in folds]
        return table

    def paths(self, predictions: Sequence[npt.ArrayLike], groups: Any = None) -> npt.NDArray[Any]:
        """Out-of-sample predictions of every path, shape (n_paths, n, …), each row exactly once in each.

        `predictions[i]` has one value (or one array) per test row of the i-th split, in its order; `groups` as given to
        `split`. With the test rows themselves as predictions the answer is 0 … n − 1 on every path."""
        parts = [np.asarray(part) for part in predictions]
        if len(parts) != self.get_n_splits():
            raise ValueError(f"predictions of {len(parts)} splits, but there are {self.get_n_splits()}")
        n = sum(map(len, parts)) // self.n_paths
        tested = _folds_of(*_session_numbers(groups, n), self.n_folds)
        out = np.empty((self.n_paths, n, *parts[0].shape[1:]), dtype=np.result_type(*parts))
        place = np.empty(n, dtype=np.intp)
        splits = self.path_splits()
        for i, (folds, part) in enumerate(zip(self.test_folds, parts, strict=True)):
            rows = np.flatnonzero(tested[list(folds)].any(axis=0))
            if len(part) != len(rows):
                raise ValueError(f"predictions[{i}] has {len(part)} rows, its split tests {len(rows)}")
            place[rows] = np.arange(len(rows))
            for fold in folds:
                path = np.flatnonzero(splits[:, fold] == i)[0]
                out[path, tested[fold]] = part[place[tested[fold]]]
        return out


@dataclass(frozen=True, eq=False)
class PurgedKFold:
    """`n_splits` consecutive folds, each tested once against all other rows; purge, embargo, `groups` and `label_spans`
    as in `CombinatorialPurgedKFold`, of which this is the case of one test fold.
    Source: López de Prado 2018, chapter 7.4. Its snippet keeps a training row that begins where the test's last label
    ends, and widely copied ones purge from the first test label's *end* on; both leak, here spans that meet are purged.
    """

    n_splits: int = 5
    _: KW_ONLY
    purge: int = 0  # sessions
    embargo: int = 0  # sessions
    label_spans: npt.ArrayLike | None = None  # used where `split` is given none, e.g. by cross_val_score

    def __post_init__(self) -> None:
        _at_least(2, n_splits=self.n_splits)
        _at_least(0, purge=self.purge, embargo=self.embargo)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None, *, label_spans: npt.ArrayLike | None = None
    ) -> Iterator[tuple[Indices, Indices]]:
        """(training rows, test rows) of each fold in time order, ascending row positions of `X` (length n); training
        may be empty where every row is purged. Raises TooFewSessions for fewer sessions than folds."""
        spans = self.label_spans if label_spans is None else label_spans
        folds = CombinatorialPurgedKFold(self.n_splits, 1, purge=self.purge, embargo=self.embargo)
        return folds.split(X, y, groups, label_spans=spans)


@dataclass(frozen=True, eq=False)
class LockedWalkForward(Generic[Candidate]):
    """What `locked_walk_forward` chose, from which numbers, and what it earned later."""

    chosen: Candidate
    inner_scores: npt.NDArray[np.float64]  # (candidates, inner folds); its rows are the trials to deflate by
    rows: Indices  # (tested,) row of X
    fold: Indices  # (tested,) fold of the walk-forward
    predictions: npt.NDArray[Any]  # (tested, …) out of sample
    scores: npt.NDArray[np.float64]  # (folds,) out of sample


def locked_walk_forward(
    fit: Callable[[Candidate, npt.NDArray[Any], npt.NDArray[Any]], Predict],
    candidates: Sequence[Candidate],
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    splitter: Splitter,
    inner_splitter: Splitter,
    score: Callable[[npt.NDArray[Any], npt.NDArray[Any]], float],
    groups: npt.ArrayLike | None = None,
    label_spans: npt.ArrayLike | None = None,
) -> LockedWalkForward[Candidate]:
    """Choose hyper-parameters on the first training window alone, keep them, and walk: no later row has had a say.

    `fit(candidate, X, y)` gives a function from rows of X to predictions; `score(y, predictions)` is larger where
    better. The candidate with the highest mean score over the folds of `inner_splitter` (a `PurgedKFold`), cut inside
    the first training window of `splitter`, is chosen; the first one among equals, never one whose mean is NaN. It is
    then fitted anew on each training window and predicts that fold's test rows. `X` (n, …) and `y` (n, …) are arrays,
    `groups` each row's session, `label_spans` (n, 2), by default those that `splitter` was made with; both splitters
    get them, the inner one those of its rows.

    Raises NoCandidateScored, and ValueError without a candidate or where a row of the first training window is tested
    later, as it would be with folds instead of a walk-forward."""
    if not candidates:
        raise ValueError("no candidates: give at least one")
    X, y = np.asarray(X), np.asarray(y)
    spans = getattr(splitter, "label_spans", None) if label_spans is None else label_spans
    arrays = X, y, None if groups is None else np.asarray(groups), None if spans is None else np.asarray(spans)
    outer = _cut(splitter, *arrays)
    first = outer[0][0]
    if any(np.isin(first, test).any() for _, test in outer):
        raise ValueError("rows of the first training window are tested later; give a PurgedWalkForward as splitter")

    seen_X, seen_y, *_ = inner_arrays = [None if a is None else a[first] for a in arrays]
    inner = _cut(inner_splitter, *inner_arrays)

    def one(candidate: Candidate, X: Any, y: Any, train: Indices, test: Indices) -> tuple[npt.NDArray[Any], float]:
        predicted = np.asarray(fit(candidate, X[train], y[train])(X[test]))
        return predicted, float(score(y[test], predicted))

    inner_scores = np.array([[one(c, seen_X, seen_y, *fold)[1] for fold in inner] for c in candidates], dtype=float)
    means = inner_scores.mean(axis=1)
    if np.isnan(means).all():
        raise NoCandidateScored(len(candidates))
    chosen = candidates[int(np.nanargmax(means))]
    walked = [one(chosen, X, y, *fold) for fold in outer]
    return LockedWalkForward(
        chosen=chosen,
        inner_scores=inner_scores,
        rows=np.concatenate([test for _, test in outer]),
        fold=np.repeat(np.arange(len(outer)), [len(test) for _, test in outer]),
        predictions=np.concatenate([predicted for predicted, _ in walked]),
        scores=np.array([earned for _, earned in walked]),
    )


def spans_meet(spans: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of `spans` (n, 2) meet at least one of `others` (m, 2): closed intervals, a shared end point is a meeting.
    Shape (n,); O((n + m) log m)."""
    if len(others) == 0 or len(spans) == 0:
        return np.zeros(len(spans), dtype=np.bool_)
    by_start = others[np.argsort(others[:, 0], kind="stable")]
    latest_end = np.maximum.accumulate(by_start[:, 1])
    begun = np.searchsorted(by_start[:, 0], spans[:, 1], side="right")
    return (begun > 0) & (latest_end[np.maximum(begun - 1, 0)] >= spans[:, 0])


def _cut(splitter: Any, X: Any, y: Any, groups: Any, spans: Any) -> list[tuple[Indices, Indices]]:
    known = {} if spans is None else {"label_spans": spans}  # scikit-learn's own splitters take none
    return list(splitter.split(X, y, groups, **known))


def _at_least(least: int, **options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < least:
            raise ValueError(f"{name}={value}: at least {least}")


def _session_numbers(groups: Any, n: int) -> tuple[Indices, int]:
    if groups is None:
        return np.arange(n), n
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups of shape {labels.shape} for {n} rows: one session per row")
    names, number = np.unique(labels, return_inverse=True)
    return number, len(names)


def _spans(label_spans: npt.ArrayLike | None, session: Indices) -> npt.NDArray[Any]:
    n = len(session)
    if label_spans is None:
        return np.repeat(session, 2).reshape(n, 2)
    spans = np.asarray(label_spans)
    if spans.shape != (n, 2):
        raise ValueError(f"label_spans of shape {spans.shape} for {n} rows: one (start, end) per row")
    backwards = np.flatnonzero(~(spans[:, 0] <= spans[:, 1]))
    if backwards.size:
        row = int(backwards[0])
        raise ValueError(f"label_spans[{row}] = {spans[row].tolist()} does not end at or after its start")
    return spans


def _folds_of(session: Indices, n_sessions: int, n_folds: int) -> npt.NDArray[np.bool_]:
    """Rows of each fold, (n_folds, n): consecutive sessions, the first folds one longer where they do not divide."""
    if n_sessions < n_folds:
        raise TooFewSessions(n_sessions, n_folds, n_folds, "purged")
    fold_of_session = np.repeat(np.arange(n_folds), [len(part) for part in _fold_sessions(n_sessions, n_folds)])
    return fold_of_session[session] == np.arange(n_folds)[:, None]


def _fold_sessions(n_sessions: int, n_folds: int) -> list[range]:
    size, longer = divmod(n_sessions, n_folds)
    edges = [fold * size + min(fold, longer) for fold in range(n_folds + 1)]
    return [range(first, end) for first, end in pairwise(edges)]


def _barred(
    session: Indices, n_sessions: int, spans: npt.NDArray[Any], tested: npt.NDArray[np.bool_], purge: int, embargo: int
) -> npt.NDArray[np.bool_]:
    """Rows that may not be trained on while a fold is tested, (n_folds, n), the fold's own among them. What several
    tested folds bar is the union."""
    order = np.argsort(session, kind="stable")
    last_begin = np.maximum.reduceat(spans[order, 0], np.searchsorted(session[order], np.arange(n_sessions)))
    begun = np.maximum.accumulate(last_begin)
    barred = np.empty_like(tested)
    for fold, sessions in enumerate(_fold_sessions(n_sessions, len(tested))):
        inside = spans[tested[fold]]
        near = (session >= sessions.start - purge) & (session < sessions.stop + purge)
        later = max(sessions.stop + purge, int(np.searchsorted(begun, inside[:, 1].max(), side="right")))
        remembers = (session >= later) & (session < later + embargo)
        barred[fold] = near | remembers | spans_meet(spans, inside)
    return barred
