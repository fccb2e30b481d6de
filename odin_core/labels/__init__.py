"""Labels: what became of a decision, and when that was known. Every row has `decided_at` and `label_end`.

Single labels from frames of bars, in the form of the books, and `labels_of` and `labels_at`, which give all labels of a
market's decisions, session by session."""

from odin_core.labels.barriers import triple_barrier
from odin_core.labels.events import cusum_events, daily_volatility
from odin_core.labels.grids import LABELS, labels_of
from odin_core.labels.returns import forward_returns, open_interest_change
from odin_core.labels.table import labels_at, labels_table, labels_version
from odin_core.labels.weights import average_uniqueness, return_attribution

__all__ = [
    "LABELS",
    "average_uniqueness",
    "cusum_events",
    "daily_volatility",
    "forward_returns",
    "labels_at",
    "labels_of",
    "labels_table",
    "labels_version",
    "open_interest_change",
    "return_attribution",
    "triple_barrier",
]
