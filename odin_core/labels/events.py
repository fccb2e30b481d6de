"""When to decide, and on which scale: the CUSUM filter and the daily volatility that barriers are multiples of.
What `close` and `events` mean is said in `frames`."""

from datetime import timedelta

import numpy as np
import polars as pl

from odin_core.labels.frames import DECIDED_AT, rows_of
from odin_core.labels.kernels import cusum_rows, returns_over, weighted_deviation
from odin_core.market.bars import MICROSECOND

DAY = timedelta(days=1)


def daily_volatility(close: pl.DataFrame, span: int = 100) -> pl.Series:
    """Exponentially weighted standard deviation of the returns over one day, as fractions, at each bar: Float64, one
    value per row of `close`, in its order.

    close: bars (`frames`) with `close`. The return at t is close(t) / close(last bar before t − 24 h) − 1; weights
    (1 − 2 / (span + 1))^age count bars, bias corrected. Known with its bar. Null before a symbol has two such returns.
    Source: López de Prado 2018, snippet 3.1; oracle: mlfinpy, tests/oracles/test_labels.py. Raises BadBars."""
    rows = rows_of(close)
    returns = returns_over(rows.time, rows.prices("close"), rows.starts, DAY // MICROSECOND)
    out = np.full(len(returns), np.nan)
    for start, end in zip(rows.starts[:-1], rows.starts[1:], strict=True):
        known = start + np.flatnonzero(~np.isnan(returns[start:end]))
        out[known] = weighted_deviation(returns[known], float(span))
    return rows.as_given(out).rename("daily_volatility")


def cusum_events(close: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Bars at which log prices have moved by more than `threshold` since the filter last began anew: `decided_at`, and
    `symbol` where the bars have it, symbol after symbol, ascending.

    close: bars (`frames`) with `close`. Sums S⁺ = max(0, S⁺ + y), S⁻ = min(0, S⁻ + y) of log returns y; an event where
    S⁻ < −threshold, else where S⁺ > threshold, and that sum begins anew. Known with its bar.
    Source: López de Prado 2018, section 2.5.2.1, snippet 2.4, on log returns; oracle: mlfinpy. Raises BadBars."""
    rows = rows_of(close)
    fires = pl.Series(cusum_rows(rows.prices("close"), rows.starts, threshold))
    found = rows.frame.with_columns(rows.decided_at.alias(DECIDED_AT)).filter(fires)
    return found.select(*(["symbol"] if rows.symbols is not None else []), DECIDED_AT)
