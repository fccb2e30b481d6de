"""Corporate actions by hand and from the recorded files, for tests: rows of ACTIONS, raw daily prices, calendars."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from odin_core.market.bars import UTC
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.intake.knowntables import midnights, read_table
from odin_core.market.profile import load_profile
from odin_core.market.reference.actionchecks import PRICES, check_events
from odin_core.market.reference.actionfiles import read_events
from odin_core.market.reference.actions import ACTIONS

NSE, US = load_profile("nse"), load_profile("us")
INDIA = ZoneInfo(NSE.timezone)
CALENDAR: SessionCalendar = session_calendar(NSE)
US_CALENDAR: SessionCalendar = session_calendar(replace(US, calendar_first=date(1998, 1, 1)))


def midnight(day: date, zone: ZoneInfo = INDIA) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def action(
    symbol: str,
    ex_date: date,
    kind: str,
    *,
    ratio: float | None = None,
    amount: float | None = None,
    other: str | None = None,
    known_at: datetime | None = None,
) -> dict[str, Any]:
    """One row of ACTIONS, known from the beginning of its ex-date where nothing else is said."""
    known = known_at or midnight(ex_date)
    return {"symbol": symbol, "ex_date": ex_date, "known_at": known, "kind": kind, "ratio": ratio, "amount": amount,
            "other": other, "origin": "by hand", "origin_id": "0" * 16}  # fmt: skip


def actions(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=ACTIONS)


def daily(path: Path) -> pl.DataFrame:
    """A recorded file of daily bars: symbol, session, open, close."""
    return pl.read_parquet(path).select("symbol", session=pl.col("ts").dt.date(), open="open", close="close")


def closes(prices: pl.DataFrame, calendar: SessionCalendar) -> pl.DataFrame:
    """Closes as factors ask for them: symbol, ts (open of the session), close."""
    opens = {s: calendar.hours(s).open for s in prices["session"].unique()}
    return prices.select("symbol", pl.col("session").replace_strict(opens, return_dtype=UTC).alias("ts"), "close")


@cache
def recorded(find: Callable[[str], Path], name: str, prices: str | None) -> pl.DataFrame:
    """Events of a recorded NSE file after the checks, with `rule`; judged by the recorded raw prices, if any."""
    file = read_table(find(name))
    seen = daily(find(prices)) if prices else PRICES.to_frame()
    return check_events(read_events(file, INDIA, CALENDAR, None).events, seen).events


def as_actions(events: pl.DataFrame, zone: ZoneInfo = INDIA) -> pl.DataFrame:
    """The events that break no rule, as rows of ACTIONS."""
    sound = events.filter(pl.col("rule").is_null())
    return sound.with_columns(
        pl.coalesce("known_at", midnights(sound["ex_date"], zone)), origin=pl.lit("file"), origin_id=pl.lit("0" * 16)
    ).select(ACTIONS.names())
