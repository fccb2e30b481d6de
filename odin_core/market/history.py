"""Bars by symbol and range out of a market's lake, of any interval: what was stored as such, or made from smaller ones.

Nothing is written here. Where one session's bars come from in a life is `market.data`; how larger bars are made is
`market.bars`. Prices are raw."""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import polars as pl

from odin_core.errors import OdinError
from odin_core.lake import Lake, PartitionUnreadable
from odin_core.market.bars import BARS, KEY, LARGER_TABLES, UTC, minutes_of, resample_sessions, table_of
from odin_core.market.calendar import Hours, SessionCalendar

MINUTE_BARS = "1m"


class NaiveMoment(OdinError):
    def __init__(self, name: str, moment: datetime) -> None:
        super().__init__(
            f"{name} is {moment}, which has no time zone, and bars are known from an instant on; write "
            f"{moment!r} with one, as in datetime({moment.year}, {moment.month}, {moment.day}, tzinfo=UTC)"
        )


def read_bars(
    lake: Lake,
    calendar: SessionCalendar,
    sessions: Sequence[date],
    *,
    symbols: Sequence[str] | None = None,
    interval: str = MINUTE_BARS,
    as_of: datetime | None = None,
) -> pl.DataFrame:
    """Bars (BARS) of `symbols` (None: all) in `sessions` (ascending), session after session and there by symbol and
    ts; so each symbol's rows ascend in time. Symbols and sessions without bars have no rows.

    Larger bars of a symbol are made from its minute bars in that session; where it has none, the vendor's own bars of
    that interval stand in, then ones made from the vendor's smaller bars. `as_of` (aware): only bars known by then.
    Raises NotAnInterval, NaiveMoment, and PartitionUnreadable for damaged files."""
    width = minutes_of(interval)
    if as_of is not None:
        require_aware("as_of", as_of)
    if width == 1:
        return _stored(lake, table_of(MINUTE_BARS), sessions, symbols, as_of)
    hours = [calendar.hours(session) for session in sessions]
    parts: list[pl.DataFrame] = []
    for table in _tables(lake, interval, width):
        stored = _stored(lake, table, sessions, symbols, as_of)
        if parts and stored.height:
            better = pl.concat([_with_session(part, hours).select("session", "symbol").unique() for part in parts])
            stored = _with_session(stored, hours).join(better, on=["session", "symbol"], how="anti").drop("session")
        if stored.height:
            is_native = table == table_of(interval)
            parts.append(stored if is_native else resample_sessions(stored, interval, hours).select(BARS.names()))
    whole = parts[0] if len(parts) == 1 else pl.concat([BARS.to_frame(), *parts])
    if len(parts) > 1:
        whole = _with_session(whole, hours).sort("session", *KEY).drop("session")
    return whole if as_of is None else whole.filter(pl.col("known_at") <= as_of)


def require_aware(name: str, moment: datetime) -> None:
    """Raise NaiveMoment for a moment without a time zone."""
    if moment.tzinfo is None:
        raise NaiveMoment(name, moment)


def larger_intervals(lake: Lake) -> list[str]:
    """Intervals of the larger bars that a vendor gave as such, in no particular order of length."""
    return sorted(path.name.removeprefix(LARGER_TABLES) for path in lake.root.glob(f"{LARGER_TABLES}*"))


def held(lake: Lake) -> dict[str, pl.DataFrame]:
    """What there is of each interval that the lake has bars of, the shortest first: one row per symbol, ascending, with
    `symbol`, `sessions` and `rows` (how many), `first` and `last` (the starts of its bars, UTC).
    Raises PartitionUnreadable."""
    found = {}
    for interval in (MINUTE_BARS, *sorted(larger_intervals(lake), key=lambda name: minutes_of(name) or 1_000_000)):
        table = table_of(interval)
        if sessions := lake.sessions(table):
            found[interval] = _by_symbol(lake, table, sessions)
    return found


def _by_symbol(lake: Lake, table: str, sessions: Sequence[date]) -> pl.DataFrame:
    """A file is a session, so the files that a symbol is in are its sessions."""
    paths = [lake.path(table, session) for session in sessions]
    rows = pl.len().cast(pl.Int64).alias("rows")
    try:
        bars = pl.scan_parquet(paths, hive_partitioning=False, include_file_paths="file").select("symbol", "ts", "file")
        by_file = bars.group_by("symbol", "file").agg(rows, first=pl.col("ts").min(), last=pl.col("ts").max())
        by_symbol = by_file.group_by("symbol").agg(
            pl.len().cast(pl.Int64).alias("sessions"), pl.col("rows").sum(), pl.col("first").min(), pl.col("last").max()
        )
        return by_symbol.sort("symbol").collect()
    except (pl.exceptions.PolarsError, OSError):
        _name_damage(lake, table, sessions)
        raise


def _with_session(bars: pl.DataFrame, hours: Sequence[Hours]) -> pl.DataFrame:
    """With `session`: the place of a bar's session in `hours`."""
    opens = pl.Series([h.open for h in hours], dtype=UTC)
    return bars.with_columns(session=opens.search_sorted(bars["ts"], side="right"))


def _tables(lake: Lake, interval: str, width: int | None) -> list[str]:
    """Where bars of an interval can be had from, the best first."""
    lengths = sorted(n for n in map(minutes_of, larger_intervals(lake)) if n is not None)
    smaller = [n for n in lengths if width is None or (n < width and width % n == 0)]
    return list(dict.fromkeys([table_of(MINUTE_BARS), table_of(interval), *(table_of(f"{n}m") for n in smaller)]))


def _stored(
    lake: Lake, table: str, sessions: Sequence[date], symbols: Sequence[str] | None, as_of: datetime | None
) -> pl.DataFrame:
    paths = [lake.path(table, session) for session in sessions if lake.has(table, session)]
    if not paths:
        return BARS.to_frame()
    try:
        bars = _scan(paths)
        if as_of is not None:
            bars = bars.filter(pl.col("known_at") <= as_of)
        if symbols is None:
            return bars.collect()
        wanted = pl.col("symbol").is_in(list(symbols))
        if 2 * len(symbols) < pl.read_parquet(paths[-1], columns=["symbol"])["symbol"].n_unique():
            return bars.filter(wanted).collect()
        whole = bars.collect()  # where most are wanted, all are read faster than each row is asked
        return whole if whole["symbol"].rle().struct.field("value").is_in(list(symbols)).all() else whole.filter(wanted)
    except (pl.exceptions.PolarsError, OSError):
        _name_damage(lake, table, sessions)
        raise


def _scan(paths: list[Path]) -> pl.LazyFrame:
    return pl.scan_parquet(paths, hive_partitioning=False).select(BARS.names()).match_to_schema(BARS)


def _name_damage(lake: Lake, table: str, sessions: Sequence[date]) -> None:
    """Raise PartitionUnreadable for the file that it was: each is read again by itself. Returns where no file is."""
    for session in sessions:
        if lake.has(table, session) and lake.read(table, session).schema != BARS:
            raise PartitionUnreadable(lake.path(table, session), "its columns are not those of bars")
