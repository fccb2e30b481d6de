"""The triple-barrier method, and with a side its meta-labels: what a decision came to, by which barrier it met first.
What `bars` and `events` mean is said in `frames`, the search itself is in `kernels`."""

from datetime import timedelta

import numpy as np
import polars as pl

from odin_core.labels.frames import DECIDED_AT, Events, Horizon, Rows, events_of, horizon_rows, labelled, rows_of
from odin_core.labels.kernels import PROFIT, VERTICAL, FloatArray, IntArray, first_touch
from odin_core.market.bars import MICROSECOND

PRICES = ("open", "high", "low")


def triple_barrier(
    bars: pl.DataFrame,
    events: pl.DataFrame | pl.Series,
    *,
    target: pl.Series | float,
    pt_sl: tuple[float, float],
    min_ret: float,
    vertical: Horizon,
) -> pl.DataFrame:
    """One row per event whose target exceeds `min_ret` and whose label is known by the last bar, in the events' order:
    symbol (where the bars have it), decided_at, label_end, target, ret, bin, and side where the events have it.

    bars: `frames`, with open, high and low or with close alone. target: the width of the horizontal barriers as a
    fraction of the price at the event, for all or one value per row of `bars`, taken at the event's bar; null and NaN
    are no event. pt_sl: multiples of it for profit and stop, 0 for no such barrier. vertical: the last bar that counts,
    so many bars after the event's, or the last known by so long a time after it: a bar that ends later does not count
    even if it begins before, and an event with no bar in between gets no row.
    With `close` alone a barrier is met by a close strictly beyond it, and left at that close (the convention of
    mlfinpy). With open, high and low it is met at its price or beyond, and left there, or at the open of a bar that
    opens beyond it; where both lie inside one bar, it is the stop.
    Without a side, profit is the upper barrier: `bin` (Int8) is 1, −1 for the lower, 0 for the vertical. `side` (1 or
    −1 in events) turns profit and stop around, and bin is the meta-label: 1 if profit was met first, else 0.
    ret: price at the exit / close at the event − 1, times the side. label_end: the time of the bar of the exit, but of
    a vertical barrier in time that time itself, known by the first bar at or after it.
    Later bars add rows and change none.
    Source: López de Prado 2018, sections 3.3 to 3.6, snippets 3.2 to 3.7, where the first bar after a vertical in time
    still counts. Raises BadBars, EventWithoutBar, BadHorizon.
    """
    rows = rows_of(bars)
    found = events_of(rows, events)
    width = _target(rows, found, target)
    wanted = width > min_ret
    if not wanted.all():
        kept = Events(found.frame.filter(pl.Series(wanted)), found.symbol[wanted], found.row[wanted])
        found, width = kept, width[wanted]
    has_side = "side" in found.frame.columns
    side = found.frame["side"].cast(pl.Float64).to_numpy() if has_side else np.ones(len(width))
    close = rows.prices("close")
    is_ohlc = all(name in bars.columns for name in PRICES)
    opened, high, low = (rows.prices(name) if is_ohlc else close for name in PRICES)
    profit, stop = (multiple if multiple > 0 else np.inf for multiple in pt_sl)
    last_row, until = _vertical(rows, found, vertical)
    end, change, kind = first_touch(
        (opened, high, low, close), found.row, last_row, rows.starts[found.symbol + 1], width, side > 0, profit, stop,
        not is_ohlc,
    )  # fmt: skip
    moments = np.where(kind == VERTICAL, until, rows.time[end])
    bins = (kind == PROFIT).astype(np.int8) if has_side else kind
    columns = [
        pl.Series("target", width),
        pl.Series("ret", side * change),
        pl.Series("bin", bins),
    ]
    if has_side:
        columns.append(found.frame["side"])
    return labelled(rows, found, end >= 0, moments, columns)


def _vertical(rows: Rows, events: Events, vertical: Horizon) -> tuple[IntArray, IntArray]:
    """Per event the last row that counts, as `first_touch` takes it, and the time of the vertical barrier where the
    bars reach it."""
    row, end = horizon_rows(rows, events, vertical), rows.starts[events.symbol + 1]
    if not isinstance(vertical, timedelta):
        return row, rows.time[np.minimum(row, end - 1)]
    until = events.frame[DECIDED_AT].to_physical().to_numpy() + vertical // MICROSECOND
    is_late = (row < end) & (rows.time[np.minimum(row, end - 1)] > until)
    return row - is_late, until


def _target(rows: Rows, events: Events, target: pl.Series | float) -> FloatArray:
    """At each event, NaN where unknown."""
    if not isinstance(target, pl.Series):
        return np.full(len(events.row), float(target))
    if len(target) != len(rows.time):
        raise ValueError(f"a target of {len(target)} values for {len(rows.time)} bars; give one per bar, or a number")
    return rows.in_order(target)[events.row]
