"""Splitters that keep a label out of both sides at once: training and test sets by session, purged by label span.

They speak scikit-learn's protocol (`split`, `get_n_splits`) and know nothing of learners. A label span is the closed
interval in which a row's outcome is made; a training row whose span meets a test row's has seen part of its outcome."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from odin_core.errors import OdinError

Indices = npt.NDArray[np.intp]


class TooFewSessions(OdinError):
    def __init__(self, sessions: int, needed: int, n_splits: int) -> None:
        super().__init__(
            f"{sessions} sessions cannot be cut into {n_splits} walk-forward folds: at least {needed} are needed; "
            f"wait for more sessions, or ask for fewer or shorter folds"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PurgedWalkForward:
    """Expanding training window, consecutive test blocks of whole sessions up to the last one.

    With S sessions each block has `test_size` of them (default S // (n_splits + 1), fewer where the embargo would eat
    the first training window); what does not divide evenly goes to that window, as in scikit-learn's TimeSeriesSplit:
    every session after it is tested once.
    A fold trains on the rows before its block, less the `embargo` sessions next to it, less every row whose label span
    meets that of a test row (ends included). `groups` is each row's session, any sortable type, in any order; without
    it each row is a session of its own. `label_spans` has shape (n, 2), start and end in one ordered type; default
    (i, i), the row's position."""

    n_splits: int = 3
    test_size: int | None = None  # sessions per block
    embargo: int = 0  # sessions between training and test
    label_spans: npt.ArrayLike | None = None  # used where `split` is given none, e.g. by cross_val_score

    def __post_init__(self) -> None:
        if self.n_splits < 1:
            raise ValueError(f"n_splits={self.n_splits}: at least one fold")
        if self.test_size is not None and self.test_size < 1:
            raise ValueError(f"test_size={self.test_size}: at least one session")
        if self.embargo < 0:
            raise ValueError(f"embargo={self.embargo}: a number of sessions, 0 for none")

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return self.n_splits

    def split(
        self, X: Any, y: Any = None, groups: Any = None, *, label_spans: npt.ArrayLike | None = None
    ) -> Iterator[tuple[Indices, Indices]]:
        """(training rows, test rows) of each fold, oldest first, both ascending row positions of `X` (length n).
        Training may be empty where every earlier row is purged. Raises TooFewSessions."""
        n = len(X)
        session, n_sessions = _session_numbers(groups, n)
        spans = _spans(self.label_spans if label_spans is None else label_spans, n)
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
            earlier = np.flatnonzero(session < start - self.embargo)
            yield earlier[~spans_meet(spans[earlier], spans[test])], test


def spans_meet(spans: npt.NDArray[Any], others: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which of `spans` (n, 2) meet at least one of `others` (m, 2): closed intervals, a shared end point is a meeting.
    Shape (n,); O((n + m) log m)."""
    if len(others) == 0 or len(spans) == 0:
        return np.zeros(len(spans), dtype=np.bool_)
    by_start = others[np.argsort(others[:, 0], kind="stable")]
    latest_end = np.maximum.accumulate(by_start[:, 1])
    begun = np.searchsorted(by_start[:, 0], spans[:, 1], side="right")
    return (begun > 0) & (latest_end[np.maximum(begun - 1, 0)] >= spans[:, 0])


def _session_numbers(groups: Any, n: int) -> tuple[Indices, int]:
    if groups is None:
        return np.arange(n), n
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups of shape {labels.shape} for {n} rows: one session per row")
    names, number = np.unique(labels, return_inverse=True)
    return number, len(names)


def _spans(label_spans: npt.ArrayLike | None, n: int) -> npt.NDArray[Any]:
    if label_spans is None:
        return np.repeat(np.arange(n), 2).reshape(n, 2)
    spans = np.asarray(label_spans)
    if spans.shape != (n, 2):
        raise ValueError(f"label_spans of shape {spans.shape} for {n} rows: one (start, end) per row")
    backwards = np.flatnonzero(~(spans[:, 0] <= spans[:, 1]))
    if backwards.size:
        row = int(backwards[0])
        raise ValueError(f"label_spans[{row}] = {spans[row].tolist()} does not end at or after its start")
    return spans
