"""What the price and the open interest did after each bar. What `bars` means is said in `frames`."""

import numpy as np
import polars as pl

from odin_core.labels.frames import DECIDED_AT, Events, Horizon, horizon_rows, labelled, rows_of


def forward_returns(bars: pl.DataFrame, horizon: Horizon) -> pl.DataFrame:
    """close at the horizon / close − 1 for every bar whose horizon ends by the last one, as a fraction: symbol (where
    the bars have it), decided_at, label_end, value; symbol after symbol, ascending.

    bars: `frames`, with `close`, on one scale. horizon: so many bars after, or the first bar known at or after so long
    a time; label_end is that bar's time, so with gaps it may be later than asked for.
    Raises BadBars, BadHorizon."""
    return _change(bars, "close", horizon)


def open_interest_change(bars: pl.DataFrame, horizon: Horizon) -> pl.DataFrame:
    """Open interest at the horizon / open interest − 1, otherwise as `forward_returns`; null where either is
    unknown or the first is zero. bars: with `oi`."""
    return _change(bars, "oi", horizon)


def _change(bars: pl.DataFrame, name: str, horizon: Horizon) -> pl.DataFrame:
    rows = rows_of(bars)
    every = np.arange(len(rows.time))
    frame = rows.frame.with_columns(rows.decided_at.alias(DECIDED_AT))
    symbol = np.repeat(np.arange(len(rows.starts) - 1), np.diff(rows.starts))
    events = Events(frame, symbol, every)
    end = horizon_rows(rows, events, horizon)
    known = end < rows.starts[symbol + 1]
    end = np.where(known, end, every)
    values = rows.prices(name)
    change = values[end] / np.where(values == 0.0, np.nan, values) - 1.0
    return labelled(rows, events, known, rows.time[end], [pl.Series("value", change).fill_nan(None)])
