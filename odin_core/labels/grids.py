"""Which labels a market's decisions get, all of them, session by session: from frames of bars to one long frame.

Formulas are in `kernels`, how sessions hang together in `sessions`, where labels are kept in `table`. What is written
here is what a label means, so `table.labels_version` changes with it."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from odin_core.labels import kernels, sessions
from odin_core.labels.kernels import Blocks, Decisions, FloatArray, IntArray, Links, Outcomes
from odin_core.labels.sessions import LONGEST, VOLATILITY_SESSIONS
from odin_core.market.bars import MICROSECOND, MINUTE, UTC, resample_sessions
from odin_core.market.calendar import Hours
from odin_core.market.reference.actions import EFFECTIVE

LABELS: Final = pl.Schema(
    {
        "symbol": pl.String(),  # by its name at decided_at
        "decided_at": UTC,  # known_at of the bar decided at
        "interval": pl.String(),  # of that bar: 5m or day
        "label": pl.String(),
        "value": pl.Float64(),  # null where `reason` says why there is none
        "label_end": UTC,  # when it became known, or that it will never be; after decided_at
        "reason": pl.String(),  # session_closed: the horizon passes the close; no_bars: the symbol had none; else null
    }
)
KEY: Final = ("symbol", "decided_at", "interval", "label")

GRID: Final = "5m"
MINUTES: Final = (3, 5, 15, 30)
DELAY: Final = 5 * MINUTE  # of the bar that a horizon in minutes ends with: one bar of the grid
BARS_AHEAD: Final = (12, 60)
SESSIONS_AHEAD: Final = (1, 3, 5)
BARRIERS: Final = (1.0, 1.0)  # profit and stop, in multiples of the volatility over the time to the vertical barrier
BARRIER_MINUTES: Final = 60
GRID_RETURNS: Final = 75  # that the volatility of the intraday barriers follows from
LEAST_RETURNS: Final = 10  # that a daily volatility needs
GRID_BARS_TO_BARRIER: Final = 12

HISTORY: Final = 1 + LONGEST + VOLATILITY_SESSIONS
"""Sessions, a partition's own included, whose bars its labels follow from; minute bars of the last 1 + LONGEST."""

NO_ACTIONS: Final = EFFECTIVE.to_frame()
REASONS: Final = pl.Series([None, "session_closed", "no_bars"], dtype=pl.String)


def labels_of(
    minutes: pl.DataFrame,
    days: pl.DataFrame,
    hours: Sequence[Hours],
    *,
    since: datetime,
    as_of: datetime,
    actions: pl.DataFrame = NO_ACTIONS,
) -> pl.DataFrame:
    """Labels with since < label_end ≤ as_of: LABELS, sorted by KEY. They follow from what was known by their label_end.

    minutes, days: raw bars (BARS), of one minute and of whole sessions, any order; those known after `as_of` are not
    read. hours: of every session from the oldest that has a bar to that of `as_of`, ascending. What ends in a session
    needs `minutes` of it and LONGEST before, `days` of it and HISTORY − 1 before. actions: EFFECTIVE; each counts from
    the open of the first session by which it is known and in effect, and returns include dividends.

    Values are fractions or barriers, and an entry is the close of the bar decided at:
    5m: return_3m … return_30m, to the first minute bar known at or after so many minutes, in the session and at most
    five minutes late: without one there is no value, which is known then (no_bars at the horizon plus five minutes, at
    most at the close); return_12_bars, return_60_bars, so many of the symbol's 5-minute bars later, over sessions;
    triple_barrier_60m.
    day: return_1_session … return_5_sessions, close to close; oi_change_1_session, relative, where open interest is
    known; triple_barrier_5_sessions; meta_long_5_sessions and meta_short_5_sessions, 1 if a position of that side meets
    its profit barrier first, else 0.
    Barriers (1, −1, 0: upper, lower, vertical) lie one volatility over 60 minutes, or over 5 sessions, away from the
    entry and are met on minute bars as `triple_barrier` says. That volatility is √12 times the root mean square of the
    last 75 five-minute log returns within sessions, or √5 times the weighted deviation (span 20) of the daily returns
    of the last 20 sessions; without it, and where it is zero, there is no row. The vertical barrier is 60 minutes or
    the close, or the fifth close: bars known by then can meet a barrier, one that begins before and ends after it
    cannot, and where none does, the label_end is that time: value 0, or no_bars where the symbol had no bar since the
    decision in the session of the vertical. Nor is there a row of a minute or intraday barrier label decided at the
    close.
    Sources: López de Prado 2018, chapter 3. ValueError for naive times and for bars outside the hours."""
    if since.tzinfo is None or as_of.tzinfo is None:
        raise ValueError(f"since {since} and as_of {as_of} need a time zone; give them in UTC")
    if not hours:
        return LABELS.to_frame()
    known = pl.col("known_at") <= as_of
    past = _past(minutes.filter(known), days.filter(known), hours, as_of, since, actions)
    found = [*_grid_labels(past), *_day_labels(past)]
    frames = [_frame(past, interval, name, decisions, came, since, as_of) for interval, name, decisions, came in found]
    return pl.concat([LABELS.to_frame(), *frames]).sort(KEY)


class _Past(NamedTuple):
    """What `labels_of` reads, as arrays."""

    names: pl.Series  # (symbols,), ascending
    closes: IntArray  # (sessions,)
    minutes: Blocks
    grid: Blocks
    onward: Links
    back: Links
    close: FloatArray  # (sessions, symbols), of day bars, NaN where there is none
    oi: FloatArray


_Found = tuple[str, str, Decisions, Outcomes]


def _past(
    minutes: pl.DataFrame, days: pl.DataFrame, hours: Sequence[Hours], as_of: datetime, since: datetime,
    actions: pl.DataFrame,
) -> _Past:  # fmt: skip
    opens, closes = (sessions.instants(edge) for edge in zip(*hours, strict=True))
    grid = resample_sessions(minutes, GRID, hours).filter(pl.col("known_at") <= as_of)
    names = pl.concat([minutes["symbol"].unique(), days["symbol"].unique()]).unique().sort()
    place = np.searchsorted(opens, days["ts"].to_physical().to_numpy(), side="right") - 1
    if len(place) and place.min() < 0:
        raise ValueError(f"a day's bar starts at {days['ts'].min()}, before the first session of the hours given")
    by_session = days.with_columns(session=pl.Series(place))
    at, shape = (place, names.search_sorted(days["symbol"]).to_numpy()), (len(hours), len(names))
    first = max(0, int(np.searchsorted(closes, sessions.instants([since])[0], side="right")) - LONGEST)
    onward, back = sessions.links(actions, by_session, names, hours, first)
    return _Past(
        names=names,
        closes=closes,
        minutes=sessions.blocks_of(minutes, names, opens),
        grid=sessions.blocks_of(grid, names, opens),
        onward=onward,
        back=back,
        close=sessions.matrix(days["close"], *at, shape),
        oi=sessions.matrix(days["oi"], *at, shape),
    )


def _grid_labels(past: _Past) -> Iterator[_Found]:
    grid, closes = past.grid, past.closes
    every = Decisions(grid.session, grid.symbol, np.arange(len(grid.close)), grid.known_at, grid.close)
    delay = DELAY // MICROSECOND
    for count in MINUTES:
        horizon = timedelta(minutes=count) // MICROSECOND
        yield GRID, f"return_{count}m", every, kernels.after_minutes(every, past.minutes, closes, horizon, delay)
    for count in BARS_AHEAD:
        yield GRID, f"return_{count}_bars", every, kernels.after_bars(every, grid, closes, past.onward, count)
    width = kernels.realised_volatility(grid, GRID_RETURNS, LONGEST) * np.sqrt(GRID_BARS_TO_BARRIER)
    some, width = _where(every, width)
    vertical = some.time + BARRIER_MINUTES * (MINUTE // MICROSECOND)
    came = kernels.first_barrier(some, width, 1, BARRIERS, vertical, 0, past.minutes, closes, past.onward)
    yield GRID, f"triple_barrier_{BARRIER_MINUTES}m", some, came


def _day_labels(past: _Past) -> Iterator[_Found]:
    session, symbol = np.nonzero(~np.isnan(past.close))
    closes, onward = past.closes, past.onward
    every = Decisions(session, symbol, np.full(len(session), -1), closes[session], past.close[session, symbol])
    for count in SESSIONS_AHEAD:
        came = kernels.after_sessions(every, every.entry, past.close, closes, onward, count)
        yield "day", f"return_{count}_session{'s' if count > 1 else ''}", every, came
    some, start = _where(every, past.oi[session, symbol])
    unscaled = Links(onward.column, np.ones_like(onward.factor))
    yield "day", "oi_change_1_session", some, kernels.after_sessions(some, start, past.oi, closes, unscaled, 1)
    width = kernels.daily_volatility_at(every, past.close, past.back, LEAST_RETURNS) * np.sqrt(LONGEST)
    some, width = _where(every, width)
    never = np.full(len(width), np.iinfo(np.int64).max)
    for name, side in (("triple_barrier", 1), ("meta_long", 1), ("meta_short", -1)):
        value, known, reason = kernels.first_barrier(
            some, width, side, BARRIERS, never, LONGEST, past.minutes, closes, onward
        )
        if name != "triple_barrier":
            value = np.where(np.isnan(value), np.nan, value == kernels.PROFIT)
        yield "day", f"{name}_{LONGEST}_sessions", some, (value, known, reason)


def _where(decisions: Decisions, values: FloatArray) -> tuple[Decisions, FloatArray]:
    """Those decisions whose value is above zero."""
    wanted = values > 0.0
    d = decisions
    some = Decisions(d.session[wanted], d.symbol[wanted], d.row[wanted], d.time[wanted], d.entry[wanted])
    return some, values[wanted]


def _frame(
    past: _Past, interval: str, name: str, decisions: Decisions, came: Outcomes, since: datetime, as_of: datetime
) -> pl.DataFrame:
    value, known, reason = came
    after, last = sessions.instants([since, as_of])
    rows = np.flatnonzero((known > after) & (known <= last))
    return pl.DataFrame(
        {
            "symbol": past.names.gather(decisions.symbol[rows]),
            "decided_at": pl.Series(decisions.time[rows]).cast(UTC),
            "interval": pl.Series([interval]).new_from_index(0, len(rows)),
            "label": pl.Series([name]).new_from_index(0, len(rows)),
            "value": pl.Series(value[rows]).fill_nan(None),
            "label_end": pl.Series(known[rows]).cast(UTC),
            "reason": REASONS.gather(reason[rows]),
        },
        schema=LABELS,
    )
