"""Each row of a page: the session that it belongs to, when its bar is known, and the first rule that it breaks.

Nothing is read or written here, and no row is compared with another: duplicates are found in `intake.importing`, what
is wrong with a file as a whole in `intake.barfiles`. The rules are in `quality.assessing`."""

from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import MICROSECOND, MINUTE, UTC, minutes_of
from odin_core.market.quality.assessing import SessionHours, breaks_a_rule, broken_rule

NEAR = timedelta(hours=12)  # a bar outside every session's hours belongs to one that is no further away than this
AFTER_CLOSE = timedelta(hours=4)  # midnight comes 4½ hours after an evening session
DAY = timedelta(days=1)


class Hours(NamedTuple):
    """Sessions near some stamps, ascending, with their hours in microseconds since 1970 UTC."""

    sessions: list[date]
    opens: npt.NDArray[np.int64]
    closes: npt.NDArray[np.int64]
    outside: list[date]  # dates beyond the calendar


class Places(NamedTuple):
    """Of each stamp: `at`, the index of its session in Hours (the number of them for none), and `misplaced`, null where
    the stamp lies inside the session, else the rule that is broken."""

    at: npt.NDArray[np.int64]
    misplaced: pl.Series


def hours_near(ts: pl.Series, calendar: SessionHours) -> Hours:
    """The sessions within a day of any of the stamps."""
    stamped = ts.drop_nulls().dt.date().unique().to_list()
    days = sorted({day.toordinal() + shift for day in stamped for shift in (-1, 0, 1)})
    sessions, outside = [], []
    for day in map(date.fromordinal, (d for d in days if 1 <= d <= date.max.toordinal())):
        try:
            if calendar.is_session(day):
                sessions.append(day)
        except OdinError:
            outside.append(day)
    edges = [calendar.hours(day) for day in sessions]
    opens, closes = (pl.Series([e[side] for e in edges], dtype=UTC).to_physical().to_numpy() for side in (0, 1))
    return Hours(sessions, opens, closes, outside)


def placed(ts: pl.Series, hours: Hours) -> Places:
    """The session whose hours hold a stamp, else the nearest within NEAR, else none."""
    instant = ts.to_physical().fill_null(0).to_numpy()
    far = np.iinfo(np.int64).max
    before = np.searchsorted(hours.opens, instant, side="right") - 1
    since_close = np.where(before >= 0, instant - np.append(hours.closes, 0)[before], far)
    until_open = np.where(before + 1 < len(hours.opens), np.append(hours.opens, far)[before + 1] - instant, far)
    is_near = np.minimum(since_close, until_open) <= NEAR // MICROSECOND
    nearest = np.where(since_close <= until_open, before, before + 1)
    at = np.where(is_near & ts.is_not_null().to_numpy(), nearest, len(hours.sessions))
    return Places(at, _misplaced(ts, hours, since_close < 0, is_near))


def placed_by_date(ts: pl.Series, hours: Hours) -> Places:
    """The session that a daily stamp names: midnight UTC is a date; any other stamp lies in its session's hours, at
    most AFTER_CLOSE after them (stamped with its end), or else at most a day before its open (midnight where the
    market is)."""
    instant = ts.to_physical().fill_null(0).to_numpy()
    nowhere, a_day = len(hours.sessions), DAY // MICROSECOND
    days = np.array(hours.sessions, dtype="datetime64[D]").astype(np.int64)
    named = np.searchsorted(days, instant // a_day)
    is_date = instant % a_day == 0
    is_named = is_date & (np.append(days, -1)[named] == instant // a_day)
    coming = np.searchsorted(hours.closes, instant, side="right")
    until_open = np.append(hours.opens, np.iinfo(np.int64).max)[coming] - instant
    since_close = instant - np.append(hours.closes, np.iinfo(np.int64).min // 2)[coming - 1]
    is_after = (coming > 0) & (until_open > 0) & (since_close <= AFTER_CLOSE // MICROSECOND) & ~is_date
    is_coming = (coming < nowhere) & ((until_open <= 0) | ((until_open < a_day) & ~is_date))
    at = np.select([is_named, is_after, is_coming], [named, coming - 1, coming], nowhere)
    at[ts.is_null().to_numpy()] = nowhere
    found = at < nowhere
    return Places(at, _misplaced(ts, hours, found, np.zeros_like(found)))


def places_of(ts: pl.Series, calendar: SessionHours, interval: str) -> tuple[Hours, Places]:
    """The sessions near these stamps of bars, and the place of each. Raises NotAnInterval."""
    hours = hours_near(ts, calendar)
    return hours, (placed_by_date if minutes_of(interval) is None else placed)(ts, hours)


def _misplaced(
    ts: pl.Series, hours: Hours, is_inside: npt.NDArray[np.bool_], is_near: npt.NDArray[np.bool_]
) -> pl.Series:
    if is_inside.all():
        return pl.repeat(None, len(ts), dtype=pl.String, eager=True).alias("misplaced")
    frame = pl.DataFrame({"day": ts.dt.date(), "inside": is_inside, "near": is_near})
    return frame.select(
        pl.when("inside")
        .then(None)
        .when("near")
        .then(pl.lit("outside_hours"))
        .when(pl.col("day").is_in(hours.outside))
        .then(pl.lit("outside_calendar"))
        .otherwise(pl.lit("not_a_session"))
        .alias("misplaced")
    ).to_series()


def judged(bars: pl.DataFrame, calendar: SessionHours, interval: str) -> pl.DataFrame:
    """Bars (SOURCE_BARS, any further columns) with session (null where a row belongs to none), known_at and rule (null
    where none is broken), in the same order. A volume or open interest that is NaN becomes null, so does one that could
    not be read once its rule is said; a day bar is stamped with its session's open. Raises NotAnInterval."""
    minutes = minutes_of(interval)
    hours, places = places_of(bars["ts"], calendar, interval)
    sessions = pl.Series("session", [*hours.sessions, None], dtype=pl.Date)
    edges = [
        pl.Series([*edge, None], dtype=pl.Int64).cast(UTC).gather(places.at) for edge in (hours.opens, hours.closes)
    ]
    ts = pl.coalesce(edges[0], "ts") if minutes is None else pl.col("ts")
    ends = edges[1] if minutes is None else pl.col("ts") + MINUTE * minutes
    if minutes is not None and minutes > 1:
        ends = pl.when(pl.col("ts") < edges[1]).then(pl.min_horizontal(ends, edges[1])).otherwise(ends)
    rows = bars.with_columns(sessions.gather(places.at), places.misplaced, ts.alias("ts"), ends.alias("known_at"))
    figures = ("volume", "oi")
    missing = rows.with_columns(pl.col(figures).fill_nan(None))
    return missing.with_columns(
        _broken_rules(missing),
        *(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in figures),
    ).drop("misplaced")


def _broken_rules(rows: pl.DataFrame) -> pl.Series:
    """`broken_rule` of every row as `rule`; which rule is asked only of the rows that break one."""
    at = rows.select(breaks_a_rule().arg_true()).to_series()
    sound = pl.repeat(None, rows.height, dtype=pl.String, eager=True)
    return sound.scatter(at, rows[at].select(broken_rule()).to_series()).alias("rule")
