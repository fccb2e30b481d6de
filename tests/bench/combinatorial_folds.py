"""Time to cut 100,000 rows with label spans into all 45 splits of ten folds of which two are tested.

The peer goes the widely copied way: for every split and tested fold, rows are compared with the fold's first start and
last end, and what is left is a difference of sets."""

from itertools import combinations
from typing import Any

import numpy as np
from timing import seconds

from odin_core.evaluation.splits import CombinatorialPurgedKFold

ROWS, FOLDS, TESTED, PURGE, EMBARGO = 100_000, 10, 2, 5, 100
REPEATS = 7


def run() -> list[dict[str, Any]]:
    """Seconds for all splits, medians."""
    start = np.arange(ROWS)
    spans = np.column_stack([start, start + np.random.default_rng(0).integers(0, 60, ROWS)])
    splitter = CombinatorialPurgedKFold(FOLDS, TESTED, purge=PURGE, embargo=EMBARGO, label_spans=spans)
    return [
        {
            "bench": "combinatorial_folds",
            "value": seconds(lambda: sum(len(train) for train, _ in splitter.split(start)), REPEATS),
            "unit": "s, 45 splits of 100,000 rows",
            "peer": "fold by fold, sets of rows",
            "peer_value": seconds(lambda: sum(map(len, sets_of_rows(spans))), 3),
        }
    ]


def sets_of_rows(spans: np.ndarray) -> list[np.ndarray]:
    rows = np.arange(len(spans))
    trains = []
    for folds in combinations(np.array_split(rows, FOLDS), TESTED):
        train = np.setdiff1d(rows, np.concatenate(folds))
        for fold in folds:
            first, last = spans[fold, 0].min(), spans[fold, 1].max()
            near = rows[(rows >= fold[0] - PURGE) & (rows <= fold[-1] + PURGE)]
            meets = rows[(spans[:, 0] <= last) & (spans[:, 1] >= first)]
            later = np.searchsorted(spans[:, 0], last, side="right") + np.arange(EMBARGO)
            train = np.setdiff1d(train, np.concatenate([near, meets, later]))
        trains.append(train)
    return trains
