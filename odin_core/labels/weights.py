"""Weights of labels that overlap in time: how much of each is its own. Per symbol, over the labels that are given.
What `bars` and `labels` mean is said in `frames`.

A label spans the bars t with decided_at ≤ t ≤ label_end; c(t) is how many labels span bar t. Weights are of a
sample: weigh the labels that are trained on, not those that they were drawn from."""

from typing import NamedTuple

import numpy as np
import polars as pl

from odin_core.labels.frames import DECIDED_AT, LABEL_END, BadBars, Rows, rows_of, symbols_of
from odin_core.labels.kernels import IntArray, concurrency, rows_at_or_after, sums_over_spans


def average_uniqueness(bars: pl.DataFrame, labels: pl.DataFrame) -> pl.Series:
    """The mean of 1 / c(t) over the bars that each label spans: Float64 in (0, 1], one per row of `labels`.
    Source: López de Prado 2018, section 4.3 and 4.4, snippets 4.1 and 4.2. Raises BadBars."""
    rows = rows_of(bars)
    spans = _spans(rows, labels)
    shared = 1.0 / np.maximum(concurrency(spans.first, spans.last, len(rows.time)), 1)
    mean = sums_over_spans(shared, spans.first, spans.last) / (spans.last - spans.first + 1)
    return pl.Series("uniqueness", mean)


def return_attribution(bars: pl.DataFrame, labels: pl.DataFrame) -> pl.Series:
    """|Σ r(t) / c(t)| over the bars that each label spans, r the log return from the bar before (0 at a symbol's
    first), scaled so that the weights sum to their number: Float64 ≥ 0, one per row of `labels`; all null if no price
    moved. Source: López de Prado 2018, section 4.6, snippet 4.10. Raises BadBars."""
    rows = rows_of(bars)
    spans = _spans(rows, labels)
    returns = np.diff(np.log(rows.prices("close")), prepend=0.0)
    returns[rows.starts[:-1]] = 0.0
    shared = returns / np.maximum(concurrency(spans.first, spans.last, len(rows.time)), 1)
    weight = np.abs(sums_over_spans(shared, spans.first, spans.last))
    total = weight.sum()
    scaled = weight * (len(weight) / total) if total > 0.0 else np.full(len(weight), np.nan)
    return pl.Series("weight", scaled).fill_nan(None)


class _Spans(NamedTuple):
    """First and last row that each label spans."""

    first: IntArray
    last: IntArray


def _spans(rows: Rows, labels: pl.DataFrame) -> _Spans:
    symbol = symbols_of(rows, labels)
    begin, end = (labels[name].cast(rows.decided_at.dtype).to_physical().to_numpy() for name in (DECIDED_AT, LABEL_END))
    first = rows_at_or_after(rows.time, rows.starts, symbol, begin)
    last = rows_at_or_after(rows.time, rows.starts, symbol, end + 1) - 1
    if (symbol < 0).any() or (last < first).any():
        raise BadBars("some labels span none of them; give every label's symbol from decided_at to label_end")
    return _Spans(first, last)
