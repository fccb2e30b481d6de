"""Frames of bars as the arrays that the kernels of labels read, and the columns that labels are written in.

Here is what `bars`, `events` and `labels` mean in every function of `odin_core.labels`; no formula is here.

*bars*: of one interval, any row order: `known_at` (end of the bar) or, where there is none, `ts`; `close`; `symbol`
where there are several; prices neither null nor NaN. A bar's time is when it is known. *events*: the times at which
something is decided, a Series or a column `decided_at`, each the time of a bar; `symbol` as in the bars. *labels*:
`decided_at`, `label_end`, and `symbol` as in the bars; what is not known by the last bar is no row."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from odin_core.errors import OdinError
from odin_core.labels.kernels import FloatArray, IntArray, rows_at_or_after
from odin_core.market.bars import MICROSECOND

DECIDED_AT, LABEL_END = "decided_at", "label_end"

Horizon: TypeAlias = int | timedelta
"""Bars of the same symbol after the decision's, or a time."""


class BadBars(OdinError):
    def __init__(self, what: str) -> None:
        super().__init__(f"these bars cannot be labelled: {what}")


class EventWithoutBar(OdinError):
    def __init__(self, count: int, events: int, first: str) -> None:
        super().__init__(
            f"{count} of {events} events are at no bar's time, the first is {first}; "
            f"decide at the time of a bar of that symbol ({DECIDED_AT} = its known_at, or its ts without one)"
        )


class BadHorizon(OdinError):
    def __init__(self, horizon: Horizon) -> None:
        super().__init__(f"a horizon of {horizon!r} ends before it begins; give at least one bar, or a positive time")


class Rows(NamedTuple):
    """Bars as arrays, symbol after symbol, each symbol's ascending in time."""

    frame: pl.DataFrame  # the caller's, in this order
    place: IntArray | None  # of each row, its row in the caller's frame; None: in the same order
    decided_at: pl.Series  # the time of each row
    time: IntArray  # the same, microseconds since 1970
    symbols: pl.Series | None  # (symbols,); None: the bars name none
    starts: IntArray  # (symbols + 1,), where each symbol's rows begin

    def prices(self, name: str) -> FloatArray:
        return self.frame[name].cast(pl.Float64).to_numpy()

    def as_given(self, values: FloatArray) -> pl.Series:
        """Values (rows,) in the order of the caller's frame, NaN as null."""
        if self.place is not None:
            ordered = np.empty_like(values)
            ordered[self.place] = values
            values = ordered
        return pl.Series(values).fill_nan(None)

    def in_order(self, values: pl.Series) -> FloatArray:
        """A column of the caller's frame in the order of these rows, null as NaN."""
        found = values.cast(pl.Float64).to_numpy()
        return found if self.place is None else found[self.place]


def rows_of(bars: pl.DataFrame) -> Rows:
    """Raises BadBars where `close` or a time is missing, or where two bars of a symbol have one time."""
    name = next((n for n in ("known_at", "ts") if n in bars.columns), None)
    if name is None or "close" not in bars.columns:
        raise BadBars(f"they need close, and known_at or ts; they have {', '.join(bars.columns)}")
    rows = _rows(bars, None, name)
    if rows is None:
        key = ["symbol", name] if "symbol" in bars.columns else [name]
        place = bars.select(pl.arg_sort_by(key, maintain_order=True)).to_series()
        rows = _rows(bars[place], place.to_numpy().astype(np.int64), name)
    if rows is None:
        raise BadBars(f"two bars of a symbol have the same {name}; keep one of them")
    return rows


def _rows(frame: pl.DataFrame, place: IntArray | None, name: str) -> Rows | None:
    """None where the frame is not in order or holds a time twice."""
    decided_at = _instants(frame[name])
    time = decided_at.to_physical().to_numpy()
    symbols, starts = None, np.array([0, len(time)], np.int64)
    if "symbol" in frame.columns:
        runs = frame["symbol"].rle().struct.unnest()
        symbols = runs["value"]
        starts = np.concatenate([[0], np.cumsum(runs["len"].to_numpy(), dtype=np.int64)])
        if symbols.n_unique() < len(symbols):
            return None
    ascends = np.diff(time) > 0
    ascends[starts[1:-1] - 1] = True
    return Rows(frame, place, decided_at, time, symbols, starts) if ascends.all() else None


class Events(NamedTuple):
    """Events as arrays, in the caller's order."""

    frame: pl.DataFrame  # symbol where the bars have it, decided_at, and what else came with them
    symbol: IntArray  # the place of each one's symbol in the bars
    row: IntArray  # of its bar


def events_of(rows: Rows, events: pl.DataFrame | pl.Series) -> Events:
    """Raises EventWithoutBar, and BadBars where bars name symbols and events do not."""
    frame = events.to_frame(DECIDED_AT) if isinstance(events, pl.Series) else events
    frame = frame.with_columns(_instants(frame[DECIDED_AT]).alias(DECIDED_AT))
    symbol = symbols_of(rows, frame)
    moments = frame[DECIDED_AT].to_physical().to_numpy()
    row = rows_at_or_after(rows.time, rows.starts, symbol, moments)
    found = (row >= 0) & (row < rows.starts[symbol + 1])
    found[found] = rows.time[row[found]] == moments[found]
    if not found.all():
        lost = frame.filter(pl.Series(~found)).select(pl.col("^(symbol|decided_at)$"))
        raise EventWithoutBar(lost.height, frame.height, " ".join(str(v) for v in lost.row(0)))
    return Events(frame, symbol, row)


def symbols_of(rows: Rows, frame: pl.DataFrame) -> IntArray:
    """The place of each row's symbol in `rows.symbols`, -1 where the bars do not have it."""
    if rows.symbols is None:
        return np.zeros(frame.height, np.int64)
    if "symbol" not in frame.columns:
        raise BadBars("they name symbols, so events and labels need the column symbol too")
    runs = frame["symbol"].rle().struct.unnest()
    places = {symbol: i for i, symbol in enumerate(rows.symbols)}
    values = np.array([places.get(symbol, -1) for symbol in runs["value"]], np.int64)
    return np.repeat(values, runs["len"].to_numpy())


def horizon_rows(rows: Rows, events: Events, horizon: Horizon) -> IntArray:
    """The row at which a horizon after each event ends, of a time the first one known at or after it; the row after
    its symbol's last one, or later, where the bars end before. Raises BadHorizon."""
    if isinstance(horizon, timedelta):
        if horizon <= timedelta(0):
            raise BadHorizon(horizon)
        moments = events.frame[DECIDED_AT].to_physical().to_numpy() + horizon // MICROSECOND
        return rows_at_or_after(rows.time, rows.starts, events.symbol, moments)
    if horizon < 1:
        raise BadHorizon(horizon)
    return events.row + horizon


def labelled(
    rows: Rows, events: Events, known: NDArray[np.bool_], end: IntArray, columns: Sequence[pl.Series]
) -> pl.DataFrame:
    """Keys, `label_end` (from `end`, microseconds since 1970) and `columns` of those events that are `known`."""
    keys = events.frame.select(*(["symbol"] if rows.symbols is not None else []), DECIDED_AT)
    made = keys.with_columns(pl.Series(LABEL_END, end).cast(rows.decided_at.dtype), *columns)
    return made if known.all() else made.filter(pl.Series(known))


def _instants(times: pl.Series) -> pl.Series:
    """Microseconds; a date is its midnight."""
    zone = times.dtype.time_zone if isinstance(times.dtype, pl.Datetime) else None
    return times.cast(pl.Datetime("us", zone))
