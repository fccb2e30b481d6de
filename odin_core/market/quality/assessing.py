"""What can be wrong with bars: the rule that each row must keep, and the findings of a session.

A row that breaks a rule never reaches the bars; `intake.importing` puts it into the table `quarantine` with its origin,
row and rule. What rows show together is a finding in the table `data_quality`. An `error` says that the data lie: it
blocks (`blocking`) until they are corrected and brought in again, or until a person who knows better accepts it
(`quality.accepting`). A `warning` says that they lack something, an `info` describes them. The rules are in
`quality.defects` and `quality.continuity`."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import NamedTuple, Protocol

import polars as pl

from odin_core.lake import Lake
from odin_core.market.bars import BARS, MICROSECOND, MINUTE, UTC, interval_of, minutes_of
from odin_core.market.quality.continuity import RULES_OF_CONTINUITY, shifted_hours
from odin_core.market.quality.defects import RULES_OF_A_SESSION
from odin_core.market.quality.measures import rows_of, session_grid
from odin_core.market.quality.seen import MEMORY, WHOLE, Finding, Known, Seen, actions_in

PRICES = ("open", "high", "low", "close")
RULES = {
    "not_a_bar": "the line has neither a time nor a price: a header repeated, a footnote or other text",
    "ts_missing": "the time stamp is missing or is no time",
    "symbol_missing": "the symbol is missing",
    "ts_not_whole_minute": "the time stamp is not on a whole minute",
    "price_missing": "a price is missing, not a number or infinite",
    "price_not_positive": "a price is zero or negative",
    "volume_negative": "the volume is negative",
    "volume_not_a_number": "the volume is text or infinite",
    "oi_not_a_number": "the open interest is negative, text or infinite",
    "high_below_low": "the high is below the low",
    "open_close_outside_range": "the open or the close lies outside low to high",
    "outside_calendar": "the date lies outside the market's calendar",
    "not_a_session": "the market does not trade on that day",
    "outside_hours": "the bar lies before the open or after the close",
    "duplicate_copy": "an earlier row has the same symbol, time and values",
    "duplicate_conflict": "an earlier row has the same symbol and time and other values; the earlier one is kept",
}

QUARANTINE = pl.Schema(
    {
        "origin": pl.String(),  # what people call the page that the row came in: a file's name, a vendor's range
        "origin_id": pl.String(),  # of the page's content
        "interval": pl.String(),
        "row": pl.Int64(),  # 0-based, as in the page
        "rule": pl.String(),  # one of RULES
        "symbol": pl.String(),
        "ts": UTC,  # start of the bar; null where unusable
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),
        "content": pl.String(),  # JSON of the row as it was read
    }
)
ARRIVALS = pl.Schema(
    {
        "origin": pl.String(),
        "origin_id": pl.String(),
        "interval": pl.String(),
        "symbol": pl.String(),
        "kept": pl.Int64(),
        "quarantined": pl.Int64(),
        "out_of_order": pl.Int64(),  # kept rows that arrived after a later one
    }
)
FINDINGS = pl.Schema(
    {
        "symbol": pl.String(),  # WHOLE for the session as a whole
        "interval": pl.String(),
        "rule": pl.String(),
        "severity": pl.String(),  # info, warning or error
        "count": pl.Int64(),
        "detail": pl.String(),
    }
)

KINDS = pl.Schema({"symbol": pl.String(), "kind": pl.String()})  # of the table instruments

DAY = timedelta(days=1)
LOOK_BACK = 45  # days in which the session before is looked for; a longer pause begins a new history
SESSIONS_BACK = 3  # a symbol that the session before lacks is looked for in this many
OPTION_NAME = re.compile(r"\d(CE|PE)$")


class SessionHours(Protocol):
    """What is needed of a session calendar (`market.calendar`). Dates beyond its bounds raise OdinError."""

    def is_session(self, day: date, /) -> bool: ...
    def hours(self, session: date, /) -> tuple[datetime, datetime]: ...
    def halts(self, session: date, /) -> Sequence[tuple[datetime, datetime]]: ...


def broken_rule() -> pl.Expr:
    """The first of RULES that a row breaks by itself, null where it breaks none. Needs the columns of a bar, and
    `misplaced`, the calendar's verdict on `ts`, or null. A volume or open interest that was given and could not be read
    is infinite, one that is missing is null or NaN."""
    rules = [pl.when(is_broken).then(pl.lit(rule)) for rule, is_broken in _broken().items()]
    return pl.coalesce([*rules, "misplaced"])


def breaks_a_rule() -> pl.Expr:
    """Whether `broken_rule` says anything; never null."""
    return pl.any_horizontal(pl.col("misplaced").is_not_null(), *_broken().values()).fill_null(False)


def _broken() -> dict[str, pl.Expr]:
    return {
        "not_a_bar": pl.all_horizontal(pl.col(name).is_null() for name in ("ts", *PRICES)),
        "ts_missing": pl.col("ts").is_null(),
        "symbol_missing": pl.col("symbol").fill_null("") == "",
        "ts_not_whole_minute": pl.col("ts").to_physical() % (MINUTE // MICROSECOND) != 0,
        **_broken_prices(),
        "volume_negative": pl.col("volume") < 0,
        "volume_not_a_number": pl.col("volume").is_infinite(),
        "oi_not_a_number": (pl.col("oi") < 0) | pl.col("oi").is_infinite(),
    }


def _broken_prices() -> dict[str, pl.Expr]:
    low, high = pl.col("low"), pl.col("high")
    return {
        "price_missing": ~pl.all_horizontal(pl.col(p).is_finite().fill_null(False) for p in PRICES),
        "price_not_positive": pl.any_horizontal(pl.col(p) <= 0 for p in PRICES),
        "high_below_low": high < low,
        "open_close_outside_range": ~pl.all_horizontal(pl.col(p).is_between(low, high) for p in ("open", "close")),
    }


def find_defects(
    bars: pl.DataFrame,
    calendar: SessionHours,
    session: date,
    *,
    interval: str = "1m",
    universe: Sequence[str] = (),
    quarantine: pl.DataFrame | None = None,
    arrivals: pl.DataFrame | None = None,
    before: Mapping[str, Known] | None = None,
    actions: pl.DataFrame | None = None,
    options: Sequence[str] = (),
) -> pl.DataFrame:
    """Findings about one session's bars (BARS) of an interval: FINDINGS, a row per symbol and rule, sorted by them.

    `universe`: symbols that should have bars. `quarantine`, `arrivals`: the session's rows of those tables; other
    intervals are left out. `before`: what earlier sessions tell (`Seen.known`). `actions`: corporate actions
    (`reference.actions.ACTIONS`). `options`: symbols whose prices may move by any ratio, besides those that a name like
    NIFTY24FEB20450PE shows. Null volume and oi are allowed, null prices are findings. Raises NotASession."""
    seen = _seen(bars, calendar, session, interval, before or {}, actions, frozenset(options))
    held = QUARANTINE.to_frame() if quarantine is None else quarantine
    came = ARRIVALS.to_frame() if arrivals is None else arrivals
    return _frame([*_of_bars(seen, held, universe), *_of_rows(interval, held, came)], interval)


def blocking(findings: pl.DataFrame) -> pl.DataFrame:
    """The findings (FINDINGS) on account of which a session may not be used: those of severity error that nobody
    accepted. A finding about one symbol speaks of that symbol alone, one of WHOLE of the session."""
    return findings.filter(pl.col("severity") == "error")


def assess_session(lake: Lake, calendar: SessionHours, session: date, *, universe: Sequence[str] = ()) -> pl.DataFrame:
    """The findings of one session from what the lake holds, see `assess_sessions`. Schema FINDINGS; the content of the
    table `data_quality`. Raises NotASession and PartitionUnreadable."""
    return Assessor(lake, calendar).assess(session, universe)


def assess_sessions(
    lake: Lake, calendar: SessionHours, sessions: Iterable[date]
) -> Iterator[tuple[date, pl.DataFrame]]:
    """The findings (FINDINGS) of these sessions, and of the stored session after each, whose findings follow from them
    too; ascending. Every interval that the lake has bars of, with quarantine, arrivals, instruments, corporate actions
    and accepted findings. The same as `assess_session` for each of them, but earlier sessions are read once.
    Raises NotASession and PartitionUnreadable."""
    assessor = Assessor(lake, calendar)
    asked = set(sessions)
    for session in sorted(asked | {after for s in asked if (after := assessor.after(s)) is not None}):
        yield session, assessor.assess(session)


def sessions_from(lake: Lake, days: Iterable[date]) -> list[date]:
    """For each day the first session from it on that the lake has bars of: where a corporate action of that ex-date
    shows. Days that none follows within MEMORY are left out; ascending."""
    near = ((day + DAY * n for n in range(MEMORY // DAY + 1)) for day in set(days))
    return sorted({found for later in near if (found := next((d for d in later if bar_tables(lake, d)), None))})


class _Side(NamedTuple):
    """What a session has besides its bars."""

    held: Mapping[str, pl.DataFrame]  # tables that need not be read
    universe: Sequence[str]
    quarantine: pl.DataFrame
    arrivals: pl.DataFrame
    options: frozenset[str]


class Assessor:
    """Assesses sessions of one lake; what it read of earlier ones it keeps, so ascending order is fast. The bars of a
    session may not change while a later one is still to be assessed."""

    def __init__(self, lake: Lake, calendar: SessionHours) -> None:
        self.lake, self.calendar = lake, calendar
        self._known: dict[tuple[str, date], dict[str, Known]] = {}
        schemas = {"quarantine": QUARANTINE, "arrivals": ARRIVALS, "instruments": KINDS, "bars": BARS}
        self._empty = {table: schema.to_frame() for table, schema in schemas.items()}

    @cached_property
    def actions(self) -> pl.DataFrame | None:
        return self.lake.scan("corporate_actions").collect() if self.lake.sessions("corporate_actions") else None

    def after(self, session: date) -> date | None:
        """The next session that the lake has bars of, at most LOOK_BACK days later."""
        later = (session + DAY * n for n in range(1, LOOK_BACK + 1))
        return next((day for day in later if bar_tables(self.lake, day)), None)

    def assess(
        self, session: date, universe: Sequence[str] = (), held: Mapping[str, pl.DataFrame] | None = None
    ) -> pl.DataFrame:
        """The findings (FINDINGS) of a session, see `assess_session`. `held`: by table, what the lake holds of it, so
        that it need not be read."""
        given = held or {}
        instruments = self._held("instruments", session, given)
        side = _Side(
            given,
            universe,
            self._held("quarantine", session, given),
            self._held("arrivals", session, given),
            frozenset(instruments.filter(pl.col("kind") == "option")["symbol"]) if instruments.height else frozenset(),
        )
        tables = bar_tables(self.lake, session) or {"1m": "price_history"}
        parts = [self._assess(interval, table, session, side) for interval, table in tables.items()]
        findings = pl.concat(parts) if len(parts) > 1 else parts[0]
        if self.lake.has("accepted_findings", session):
            findings = _with_accepted(findings, self.lake.read("accepted_findings", session))
        return findings

    def _assess(self, interval: str, table: str, session: date, side: "_Side") -> pl.DataFrame:
        earlier = self._earlier(table, session)
        before: dict[str, Known] = {}
        for day in reversed(earlier):
            if session - day <= MEMORY:
                before |= self._known_of(interval, table, day)
        bars = self._held(table, session, side.held)
        seen = _seen(bars, self.calendar, session, interval, before, self.actions, side.options)
        found = [*_of_bars(seen, side.quarantine, side.universe), *_of_rows(interval, side.quarantine, side.arrivals)]
        if earlier and seen is not None:
            found += _missing_before(self.calendar, earlier[0], session)
            found += self._gone(seen, self._known_of(interval, table, earlier[0]), earlier[0])
            self._known[interval, session] = seen.known
        return _frame(found, interval)

    def _gone(self, seen: Seen, before: Mapping[str, Known], last: date) -> Iterator[Finding]:
        """Symbols of the session before that have nothing now; contracts come and go."""
        gone = before.keys() - set(seen.rows.symbols)
        kinds = dict(self._held("instruments", last).select("symbol", "kind").iter_rows()) if gone else {}
        for symbol in sorted(gone):
            if kinds.get(symbol) not in ("option", "future") and not seen.is_option(symbol):
                yield Finding(symbol, "no_bars", "warning", 1, f"no bar in the whole session; {last} had some")

    def _earlier(self, table: str, session: date) -> list[date]:
        """The last SESSIONS_BACK sessions before this one that the lake has bars of, newest first."""
        found: list[date] = []
        for n in range(1, LOOK_BACK + 1):
            if self.lake.has(table, session - DAY * n):
                found.append(session - DAY * n)
            if len(found) == SESSIONS_BACK or (found and n >= MEMORY // DAY):
                break
        return found

    def _known_of(self, interval: str, table: str, session: date) -> dict[str, Known]:
        if (interval, session) not in self._known:
            bars = self.lake.read(table, session)
            seen = _seen(bars, self.calendar, session, interval, {}, None, frozenset())
            self._known[interval, session] = seen.known if seen is not None else {}
        while len(self._known) > 8 * SESSIONS_BACK:
            self._known.pop(next(iter(self._known)))
        return self._known[interval, session]

    def _held(self, table: str, session: date, given: Mapping[str, pl.DataFrame] | None = None) -> pl.DataFrame:
        if given is not None and table in given:
            return given[table]
        if self.lake.has(table, session):
            return self.lake.read(table, session)
        return self._empty.get(table, self._empty["bars"])


def _seen(
    bars: pl.DataFrame,
    calendar: SessionHours,
    session: date,
    interval: str,
    before: Mapping[str, Known],
    actions: pl.DataFrame | None,
    options: frozenset[str],
) -> Seen | None:
    """The session's bars as the rules want them; None where there are none."""
    open_at, close_at = calendar.hours(session)
    if bars.is_empty():
        return None
    minutes = minutes_of(interval)
    grid = session_grid(open_at, close_at, minutes, calendar.halts(session))
    return Seen(
        session=session,
        rows=rows_of(bars, grid),
        grid=grid,
        interval=interval,
        minutes=minutes,
        before=before,
        actions=actions_in(actions, session, close_at),
        is_option=lambda symbol: symbol in options or OPTION_NAME.search(symbol) is not None,
    )


def _of_bars(seen: Seen | None, quarantine: pl.DataFrame, universe: Sequence[str]) -> Iterator[Finding]:
    if seen is None:
        for symbol in sorted(set(universe)) or [WHOLE]:
            yield Finding(symbol, "no_bars", "warning", 1, "no bar in the whole session")
        return
    for rule in (*RULES_OF_A_SESSION, *RULES_OF_CONTINUITY):
        yield from rule(seen)
    if quarantine.height:
        yield from shifted_hours(seen, quarantine)
    for symbol in sorted(set(universe) - set(seen.rows.symbols)):
        yield Finding(symbol, "no_bars", "warning", 1, "no bar in the whole session")


def _of_rows(interval: str, quarantine: pl.DataFrame, arrivals: pl.DataFrame) -> Iterator[Finding]:
    """What became of the rows that were brought in."""
    if quarantine.height:
        held = quarantine.filter(pl.col("interval") == interval)
        counts = held.group_by(pl.col("symbol").fill_null(WHOLE), "rule").agg(pl.len(), pl.col("origin").min())
        for symbol, rule, count, origin in counts.iter_rows():
            yield Finding(symbol, f"quarantined_{rule}", "info", count, f"rows held back, first from {origin}")
    if arrivals.height and (arrivals["out_of_order"] > 0).any():
        came = arrivals.filter(pl.col("interval") == interval)
        for symbol, count in came.group_by("symbol").agg(pl.col("out_of_order").sum()).iter_rows():
            if count:
                yield Finding(symbol, "out_of_order", "info", count, "rows came after a later one; sorted in")


def _missing_before(calendar: SessionHours, last: date, session: date) -> Iterator[Finding]:
    days = [last + DAY * n for n in range(1, (session - last).days)]
    missing = [day for day in days if calendar.is_session(day)]
    if missing:
        detail = f"no bars of {missing[0]} to {missing[-1]}; the last session with bars is {last}"
        yield Finding(WHOLE, "missing_sessions", "warning", len(missing), detail)


def _frame(found: Iterable[Finding], interval: str) -> pl.DataFrame:
    rows = sorted({(f.symbol, f.rule): f for f in found}.values())
    columns = zip(*rows, strict=True) if rows else ((),) * 5
    symbol, rule, severity, count, detail = columns
    data = {"symbol": symbol, "interval": [interval] * len(rows), "rule": rule, "severity": severity}
    return pl.DataFrame(data | {"count": count, "detail": detail}, schema=FINDINGS)


def _with_accepted(findings: pl.DataFrame, accepted: pl.DataFrame) -> pl.DataFrame:
    key = ["symbol", "interval", "rule"]
    held = pl.col("why").is_not_null() & (pl.col("severity") == "error")
    return (
        findings.join(accepted.unique(key, keep="last", maintain_order=True), on=key, how="left", maintain_order="left")
        .with_columns(
            severity=pl.when(held).then(pl.lit("warning")).otherwise("severity"),
            detail=pl.when(held).then(pl.format("{} (accepted: {})", "detail", "why")).otherwise("detail"),
        )
        .select(FINDINGS.names())
    )


def bar_tables(lake: Lake, session: date) -> dict[str, str]:
    """Interval to table, for those that hold bars of the session; minutes first, then by name."""
    tables = {interval: table for table in lake.tables_with(session) if (interval := interval_of(table))}
    return dict(sorted(tables.items(), key=lambda held: (held[0] != "1m", held[1])))
