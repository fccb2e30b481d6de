"""Minute bars of a made-up market for the tests of imports and quality: weekdays of 2021, 03:45 to 10:00 UTC."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from odin_core.errors import OdinError
from odin_core.lake import Lake, logical_hash
from odin_core.market.intake.barfiles import Said
from odin_core.market.intake.importing import ImportReport, import_files

MINUTE = timedelta(minutes=1)
THURSDAY, FRIDAY = date(2021, 4, 1), date(2021, 4, 2)
SOURCE = {
    "ts": pl.Datetime("us", "UTC"),
    "symbol": pl.String,
    **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64),
}


class Weekdays:
    """Sessions on weekdays of 2021, 03:45 to 10:00 UTC."""

    def is_session(self, day: date) -> bool:
        if day.year != 2021:
            raise OdinError(f"{day} is not in 2021")
        return day.weekday() < 5

    def hours(self, session: date) -> tuple[datetime, datetime]:
        start = datetime(session.year, session.month, session.day, 3, 45, tzinfo=UTC)
        return start, start + 375 * MINUTE

    def halts(self, session: date) -> tuple[()]:
        return ()


class AlwaysOpen(Weekdays):
    def is_session(self, day: date) -> bool:
        return True

    def hours(self, session: date) -> tuple[datetime, datetime]:
        start = datetime(session.year, session.month, session.day, tzinfo=UTC)
        return start, start + timedelta(days=1)


def at(minute: int, day: date = THURSDAY) -> datetime:
    """A time by minutes after the open."""
    return Weekdays().hours(day)[0] + minute * MINUTE


def row(symbol: str, minute: int, *, day: date = THURSDAY, **changes: Any) -> dict[str, Any]:
    price = 100.0 + minute % 10
    bar = {"open": price, "high": price + 1, "low": price - 1, "close": price + 0.5, "volume": 10.0 + minute}
    return {"ts": at(minute, day), "symbol": symbol} | bar | changes


def day_of(symbol: str, day: date = THURSDAY, minutes: Iterable[int] = range(375)) -> list[dict[str, Any]]:
    return [row(symbol, minute, day=day) for minute in minutes]


def load(lake: Lake, *paths: Path, **options: Any) -> ImportReport:
    progress = options.pop("progress", None)
    return import_files(paths, lake=lake, calendar=Weekdays(), said=Said(**options), progress=progress)


def contents(lake: Lake) -> dict[str, str]:
    """Logical content of every partition."""
    return {f"{t} {s}": logical_hash(lake.read(t, s)) for t in lake.tables() for s in lake.sessions(t)}


def held_back(lake: Lake, session: date = THURSDAY) -> dict[int, str]:
    return dict(lake.read("quarantine", session).select("row", "rule").iter_rows())


def damaged(path: Path, cut: int) -> Path:
    path.write_bytes(path.read_bytes()[:cut])
    return path


def ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [r | {"ts": r["ts"] + MINUTE} for r in rows]
