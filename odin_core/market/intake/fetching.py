"""From a source into the lake: what is missing and nothing else, resumable, with late corrections found.

A range is worked off in windows of one calendar month. A window's replies are staged, one Parquet file per symbol, and
go to the lake together, so a session's file is written once and not once per symbol. A session is asked for again
only where the table `coverage` does not say that it was answered. Killed at any moment, the same call goes on: staged
replies are not asked for again, and storing a page twice changes nothing."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from odin_core.errors import EmptyRange, OdinError, in_order
from odin_core.home import Home
from odin_core.lake import Lake, logical_hash, read_parquet, write_parquet
from odin_core.market.bars import table_of
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.intake.importing import PageReport, store_page
from odin_core.market.intake.judging import judged
from odin_core.market.intake.pages import Page
from odin_core.market.profile import MarketProfile
from odin_core.market.sources.source import (
    SOURCE_BARS,
    Around,
    Source,
    SourceRefused,
    UnknownSymbols,
    open_source,
    source_kinds,
)

COVERAGE_TABLE = "coverage"
PLACE = ("session", "start")
COVERAGE = pl.Schema(
    {
        "symbol": pl.String(),
        "interval": pl.String(),
        "source": pl.String(),
        "rows": pl.Int64(),  # bars in the source's answer for this session; 0 where it had none
    }
)


class NoSymbols(OdinError):
    def __init__(self, market: str) -> None:
        super().__init__(
            f"market {market} does not say which symbols to fetch; list them under source.symbols in its profile, "
            f"or give --symbols"
        )


class NoFirstSession(OdinError):
    def __init__(self, market: str) -> None:
        super().__init__(f"{market} has no bars yet, so say where to begin: --start YYYY-MM-DD")


class NothingToAsk(OdinError):
    def __init__(self, market: str, kind: str) -> None:
        super().__init__(
            f"the source of market {market} is {kind!r}, which cannot be asked for bars; import files with "
            f"`odin data import FILE… --market {market}`, or name one of {', '.join(source_kinds())} in its profile"
        )


class NotOverYet(OdinError):
    def __init__(self, market: str, session: date, close: datetime) -> None:
        super().__init__(
            f"session {session} of {market} closes at {close:%Y-%m-%d %H:%M} UTC and is not over; "
            f"fetch it after its close, or give an earlier --end"
        )


@dataclass(kw_only=True)
class FetchReport:
    """What a fetch did. `asked`: pairs of symbol and session that the source was asked for; `known`: those that were
    covered already. `corrected`: stored bars that the source now gives other values; `vanished`: stored bars of
    sessions asked for again that it no longer gives (they are kept). `refused`: symbol → why."""

    source: str
    interval: str
    sessions: int
    symbols: int
    asked: int = 0
    known: int = 0
    resumed: int = 0  # symbols of a window whose reply was staged before
    bars: int = 0
    kept: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    corrected: int = 0
    vanished: int = 0
    empty: int = 0  # pairs of symbol and session that the source has nothing for
    changed_sessions: list[date] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"changed_sessions": [str(session) for session in self.changed_sessions]}

    def to_text(self) -> str:
        changed = self.changed_sessions
        span = f", {changed[0]} to {changed[-1]}" if changed else ""
        lines = [
            f"{self.source} {self.interval}: {self.symbols} symbols × {self.sessions} sessions: "
            f"{self.asked:,} asked for, {self.known:,} were here",
            f"  {self.bars:,} bars came, {self.kept:,} kept, {sum(self.quarantined.values()):,} quarantined; "
            f"{len(changed)} sessions changed{span}",
        ]
        lines += [f"  {n:,} rows {rule}" for rule, n in self.quarantined.items()]
        if self.empty:
            lines.append(f"  {self.empty:,} times the source had nothing for a symbol and session")
        if self.corrected or self.vanished:
            lines.append(
                f"  {self.corrected:,} stored bars were corrected, {self.vanished:,} are no longer given (kept); "
                f"sessions decided on the old ones are outdated: see `odin lake digest` and `odin life rewind`"
            )
        lines += [f"  {symbol}: {why}" for symbol, why in self.refused.items()]
        return "\n".join(lines)


class FetchProgress(NamedTuple):
    """Told as each symbol of each window is answered."""

    symbol: str
    window: str  # "2024-01"
    done: int  # symbol-windows answered so far, and in all
    total: int


def can_fetch(profile: MarketProfile) -> bool:
    """Whether a market's source can be asked for bars."""
    return profile.source["kind"] in source_kinds()


def sessions_to_fetch(
    home: Home,
    profile: MarketProfile,
    start: date | None,
    end: date | None,
    *,
    as_of: datetime,
    interval: str | None = None,
    recheck: int | None = None,
) -> list[date]:
    """The sessions of start..end. By default they begin with the last one in the lake, or `recheck` sessions before its
    end, and go on to the last that is over at `as_of`. Raises NoFirstSession where the lake has none and no start is
    given, EmptyRange where start lies after end, and the calendar's errors."""
    in_order(start, end)
    calendar = session_calendar(profile)
    table = table_of(interval or profile.source.get("interval", "1m"))
    have = home.lake(profile.name).sessions(table)
    if start is None and not have:
        raise NoFirstSession(profile.name)
    last = end or min(as_of.date() + timedelta(days=1), calendar.last)
    back = profile.source.get("recheck", 0) if recheck is None else recheck
    first = start or have[-min(max(back, 1), len(have))]
    if end and first > end:
        raise EmptyRange(first, end, f"that of the lake of {profile.name}; for earlier ones say --start, too")
    sessions = calendar.sessions(first, last)
    return sessions if end else [s for s in sessions if calendar.hours(s).close <= as_of]


def fetch_market(
    home: Home,
    profile: MarketProfile,
    around: Around,
    sessions: Sequence[date],
    *,
    symbols: Sequence[str] = (),
    interval: str | None = None,
    recheck: int | None = None,
    progress: Callable[[FetchProgress], None] | None = None,
) -> FetchReport:
    """`fetch` as a market's profile has it: `source: {kind, symbols, interval (1m), recheck (0), …}`; given arguments
    win. The caller holds the home's lock. Raises NothingToAsk, and what `open_source` and `fetch` raise."""
    settings = profile.source
    if not can_fetch(profile):
        raise NothingToAsk(profile.name, settings["kind"])
    return fetch(
        lambda: open_source(settings, around, market=profile.name),
        settings["kind"],
        tuple(symbols) or tuple(settings.get("symbols", ())),
        sessions,
        lake=home.lake(profile.name),
        calendar=session_calendar(profile),
        staging=home.root / "staging" / profile.name,
        as_of=around.now(),
        interval=interval or settings.get("interval", "1m"),
        recheck=settings.get("recheck", 0) if recheck is None else recheck,
        progress=progress,
    )


def fetch(
    connect: Callable[[], Source],
    kind: str,
    symbols: Sequence[str],
    sessions: Sequence[date],
    *,
    lake: Lake,
    calendar: SessionCalendar,
    staging: Path,
    as_of: datetime,
    interval: str = "1m",
    recheck: int = 0,
    progress: Callable[[FetchProgress], None] | None = None,
) -> FetchReport:
    """Bring what is missing of `symbols` × `sessions` from a source into the lake; nothing missing, nothing connected.

    `recheck`: the last so many of the sessions are asked for again, to find late corrections. `as_of`: aware; a session
    that closes later is refused, because its answer would be incomplete. A symbol that the source refuses is reported
    and the others go on. Raises NoSymbols, NotOverYet, TokenExpired, SourceUnavailable; what was answered until then
    is staged, and the same call goes on from there."""
    if not symbols:
        raise NoSymbols(calendar.market)
    sessions = sorted(sessions)
    if sessions and (close := calendar.hours(sessions[-1]).close) > as_of:
        raise NotOverYet(calendar.market, sessions[-1], close)
    again = set(sessions[len(sessions) - recheck :] if recheck else ())
    windows = [
        _Window(name, wanted)
        for name, days in groupby(sessions, key=lambda session: f"{session:%Y-%m}")
        if (wanted := _missing(lake, kind, interval, symbols, list(days), again))
    ]
    asked = sum(len(days) for window in windows for days in window.wanted.values())
    report = FetchReport(source=kind, interval=interval, sessions=len(sessions), symbols=len(symbols))
    report.asked, report.known = asked, len(symbols) * len(sessions) - asked
    total, done = sum(len(window.wanted) for window in windows), 0
    if not windows:
        return report
    source = connect()
    instruments = source.instruments().filter(pl.col("symbol").is_in(list(symbols)))
    for window in windows:
        asked_on = f"-{as_of:%Y%m%d}" if again & window.sessions else ""  # yesterday's reply would hide a correction
        folder = staging / kind / interval / f"{window.name}-{window.digest}{asked_on}"
        for symbol, days in sorted(window.wanted.items()):
            _stage(source, symbol, days, interval, calendar, folder, report)
            done += 1
            if progress is not None:
                progress(FetchProgress(symbol, window.name, done, total))
        _store(lake, calendar, kind, interval, window, folder, instruments, report)
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(staging / kind / interval, ignore_errors=True)  # replies to questions that nobody asks any more
    return report


class _Window(NamedTuple):
    name: str
    wanted: Mapping[str, list[date]]  # symbol → sessions to ask for, ascending

    @property
    def sessions(self) -> set[date]:
        return {day for days in self.wanted.values() for day in days}

    @property
    def digest(self) -> str:
        """Of what is asked for: a staged reply to another question must not be taken for one to this."""
        content = json.dumps({symbol: [str(day) for day in days] for symbol, days in sorted(self.wanted.items())})
        return hashlib.sha256(content.encode()).hexdigest()[:12]


def _missing(
    lake: Lake, kind: str, interval: str, symbols: Sequence[str], sessions: list[date], again: set[date]
) -> dict[str, list[date]]:
    wanted: dict[str, list[date]] = {}
    for session in sessions:
        have = set() if session in again else _covered(lake, session, kind, interval)
        for symbol in symbols:
            if symbol not in have:
                wanted.setdefault(symbol, []).append(session)
    return wanted


def _covered(lake: Lake, session: date, kind: str, interval: str) -> set[str]:
    rows = lake.read_or_empty(COVERAGE_TABLE, session, COVERAGE)
    return set(rows.filter((pl.col("source") == kind) & (pl.col("interval") == interval))["symbol"])


def _stage(
    source: Source, symbol: str, days: list[date], interval: str, calendar: SessionCalendar, folder: Path,
    report: FetchReport,
) -> None:  # fmt: skip
    """The source's answer for one symbol and the window's sessions, as a file; asked for only where there is none."""
    path = folder / f"{_safe(symbol)}.parquet"
    if path.is_file():
        report.resumed += 1
        return
    start, end = calendar.hours(days[0]).open, calendar.hours(days[-1]).close
    try:
        bars = source.bars([symbol], interval, start, end)
    except (SourceRefused, UnknownSymbols) as refusal:
        report.refused[symbol] = str(refusal)
        return
    write_parquet(bars.select(*SOURCE_BARS), path)


def _safe(symbol: str) -> str:
    """A symbol as a file name; those with other signs get a hash, so that no two share one."""
    if symbol.replace("_", "").replace("-", "").isalnum() and symbol.isascii():
        return symbol
    return hashlib.sha256(symbol.encode()).hexdigest()[:24]


def _store(
    lake: Lake,
    calendar: SessionCalendar,
    kind: str,
    interval: str,
    window: _Window,
    folder: Path,
    instruments: pl.DataFrame,
    report: FetchReport,
) -> None:
    staged = {s: f for s in window.wanted if (f := folder / f"{_safe(s)}.parquet").is_file()}
    if not staged:
        return
    days = sorted({day for symbol in staged for day in window.wanted[symbol]})
    frames = [_asked_for(read_parquet(staged[s]), window.wanted[s], calendar, interval) for s in sorted(staged)]
    bars = pl.concat(frames)
    report.vanished += _vanished(lake, interval, bars, window, staged.keys())
    if bars.height:
        origin = f"{kind} {interval} {days[0]} to {days[-1]}"
        raw = bars.drop(PLACE)
        page = Page(origin, logical_hash(raw)[:16], raw=raw, bars=raw, instruments=instruments)
        _count(report, store_page(page, lake=lake, calendar=calendar, interval=interval))
        report.bars += bars.height
    for day in days:
        answered = [symbol for symbol in sorted(staged) if day in window.wanted[symbol]]
        report.empty += _cover(lake, day, kind, interval, answered, bars.filter(pl.col("session") == day))


def _asked_for(bars: pl.DataFrame, days: list[date], calendar: SessionCalendar, interval: str) -> pl.DataFrame:
    """The bars of an answer, with PLACE: the session each belongs to and the start it will have in the lake. Those of
    sessions between the ones asked for are left out: they were answered before."""
    place = judged(bars, calendar, interval).select("session", pl.col("ts").alias("start"))
    mine = pl.col("session").is_in(days) | pl.col("session").is_null()
    return pl.concat([bars, place], how="horizontal").filter(mine)


def _vanished(lake: Lake, interval: str, bars: pl.DataFrame, window: _Window, answered: Any) -> int:
    """Stored bars of the symbols and sessions asked for that the answer no longer has."""
    count = 0
    for day in sorted({day for symbol in answered for day in window.wanted[symbol]}):
        if lake.has(table_of(interval), day):
            asked = [symbol for symbol in answered if day in window.wanted[symbol]]
            stored = lake.read(table_of(interval), day).filter(pl.col("symbol").is_in(asked))
            count += stored.join(bars, left_on=["symbol", "ts"], right_on=["symbol", "start"], how="anti").height
    return count


def _count(report: FetchReport, page: PageReport) -> None:
    report.kept += page.kept
    report.corrected += page.corrected
    for rule, rows in page.quarantined.items():
        report.quarantined[rule] = report.quarantined.get(rule, 0) + rows
    report.changed_sessions = sorted({*report.changed_sessions, *page.written})


def _cover(lake: Lake, day: date, kind: str, interval: str, answered: Sequence[str], bars: pl.DataFrame) -> int:
    """Write down that these symbols were answered for a session. How many of the answers were empty."""
    counts = dict(bars.group_by("symbol").len().iter_rows())
    answers = [counts.get(symbol, 0) for symbol in answered]
    rows = pl.DataFrame(
        {
            "symbol": list(answered),
            "interval": interval,
            "source": kind,
            "rows": answers,
        },
        schema=COVERAGE,
    )
    stored = lake.read_or_empty(COVERAGE_TABLE, day, COVERAGE)
    key = ["symbol", "interval", "source"]
    lake.write(COVERAGE_TABLE, day, pl.concat([stored.join(rows, on=key, how="anti"), rows]).sort(key))
    return answers.count(0)
