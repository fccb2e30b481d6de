"""Corporate actions as of an instant: splits, bonuses, dividends, mergers and new names, and what they do to prices.

Prices in the lake are raw; here is what to multiply them with, from what was known and had taken effect by a given
time, so a split that becomes known late changes nothing that was seen before. Files are read in `actionfiles`, judged
in `actionchecks` and stored in `actionstore`; what an action does to a position is in `lifecycle.entitlements`."""

import hashlib
from collections.abc import Sequence
from datetime import date, datetime
from functools import cached_property
from typing import Final

import polars as pl

from odin_core.errors import OdinError
from odin_core.lake import Lake
from odin_core.market.bars import MICROSECOND, UTC
from odin_core.market.calendar import DAY, SessionCalendar

TABLE: Final = "corporate_actions"  # a partition is the session at whose close its rows were first known

ACTIONS = pl.Schema(
    {
        "symbol": pl.String(),  # the name before the action
        "ex_date": pl.Date(),  # the first date that trades without what the action gives
        "known_at": UTC,
        "kind": pl.String(),  # one of KINDS
        "ratio": pl.Float64(),  # shares after per share before; of a merger: shares of `other`; null otherwise
        "amount": pl.Float64(),  # cash per share held before the ex-date; of a dividend or a merger; null otherwise
        "other": pl.String(),  # the new name, or the company that it is merged into; null otherwise
        "origin": pl.String(),  # the file that told it
        "origin_id": pl.String(),  # 16 hex digits of a hash of that file's content
    }
)
KEY: Final = ("symbol", "ex_date", "kind")
SHARES: Final = ("split", "bonus")  # more or fewer shares of the same company
KINDS: Final = (*SHARES, "dividend", "merger", "rename")
EFFECTIVE = pl.Schema(ACTIONS | {"ex_at": UTC})  # ex_at: open of the ex-date's session, or of the next one

STEPS = pl.Schema(
    {
        "symbol": pl.String(),
        "ex_at": UTC,
        "split": pl.Float64(),  # multiplies earlier prices
        "dividend": pl.Float64(),  # multiplies earlier prices too
        "volume": pl.Float64(),  # multiplies earlier volumes
    }
)
FACTORS: Final = ("split", "dividend", "volume")
PRICES: Final = ("open", "high", "low", "close")


def effective(actions: pl.DataFrame, calendar: SessionCalendar) -> pl.DataFrame:
    """`actions` (ACTIONS) with the instant at which each takes effect: schema EFFECTIVE, sorted by it. An ex-date past
    the calendar's end has none yet and is left out; one before its beginning takes effect at the first open."""
    opens = {}
    for day in actions["ex_date"].unique():
        if (session := _session_from(calendar, day)) is not None:
            opens[day] = calendar.hours(session).open
    when = pl.DataFrame(
        {"ex_date": list(opens), "ex_at": list(opens.values())}, schema={"ex_date": pl.Date, "ex_at": UTC}
    )
    return actions.join(when, on="ex_date").select(EFFECTIVE.names()).sort("ex_at", *KEY)


def as_of(actions: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    """Of EFFECTIVE rows those that were known and had taken effect by `instant` (aware)."""
    return actions.filter((pl.col("known_at") <= instant) & (pl.col("ex_at") <= instant))


def steps(actions: pl.DataFrame, closes: pl.DataFrame) -> pl.DataFrame:
    """What each ex-date does to everything before it: STEPS, sorted, one row per symbol and instant, under the names
    that the symbols have after all of `actions` (EFFECTIVE, already as of some instant).

    A split or bonus of ratio r divides prices and multiplies volumes by r. A dividend D multiplies prices by 1 − D / P,
    P being the last raw close before (CRSP, "Data Definitions": factor to adjust price); 1 where no close is known or
    D is not below it. closes: symbol, ts, close of raw bars, any order; only those before an ex-date are read."""
    renames = actions.filter(pl.col("kind") == "rename")
    rows = under_last_name(actions.with_columns(pl.col("ex_at") - MICROSECOND), renames, "ex_at")
    rows = rows.with_columns(pl.col("ex_at") + MICROSECOND).filter(pl.col("kind").is_in([*SHARES, "dividend"]))
    if rows.is_empty():
        return STEPS.to_frame()
    before = under_last_name(closes, renames, "ts").select("symbol", ex_at="ts", close="close").sort("ex_at")
    paid = rows.sort("ex_at").join_asof(
        before, on="ex_at", by="symbol", strategy="backward", allow_exact_matches=False, check_sortedness=False
    )
    is_shares, share = pl.col("kind").is_in(SHARES), pl.col("amount") / pl.col("close")
    each = paid.select(
        "symbol",
        "ex_at",
        split=pl.when(is_shares).then(1 / pl.col("ratio")).otherwise(1.0),
        dividend=pl.when((pl.col("kind") == "dividend") & (share < 1)).then(1 - share).otherwise(1.0),
        volume=pl.when(is_shares).then("ratio").otherwise(1.0),
    )
    return each.group_by("symbol", "ex_at").agg(pl.col(FACTORS).sort().product()).cast(STEPS).sort("symbol", "ex_at")


def factors_at(when: pl.DataFrame, made: pl.DataFrame) -> pl.DataFrame:
    """`when` (symbol and an instant `ts`, any order, which is kept) with split, dividend and volume: the products of
    the `made` (STEPS) of its symbol that lie after the instant; 1 where there is none."""
    newest_first = made.sort("symbol", "ex_at", descending=[False, True])
    through = newest_first.with_columns(pl.col(FACTORS).cum_prod().over("symbol")).sort("ex_at")
    found = (
        when.with_row_index("_row")
        .sort("ts")
        .join_asof(
            through,
            left_on="ts",
            right_on="ex_at",
            by="symbol",
            strategy="forward",
            allow_exact_matches=False,
            check_sortedness=False,
        )
    )
    return found.sort("_row").with_columns(pl.col(FACTORS).fill_null(1.0)).drop("_row", "ex_at")


def adjustment(
    actions: pl.DataFrame,
    symbols: Sequence[str],
    sessions: Sequence[date],
    *,
    calendar: SessionCalendar,
    as_of: datetime,
    closes: pl.DataFrame,
) -> pl.DataFrame:
    """Factors of each symbol and session as of an instant: symbol, session, split, dividend, volume (Float64).

    A raw price of that session times `split` is on the scale of `as_of`; times `dividend` too, returns include what
    was paid; raw volume times `volume` counts today's shares. actions: ACTIONS; closes: as in `steps`. A symbol is
    meant by its name as of then, and its sessions under former names are asked for by that name too."""
    seen = _seen(actions, calendar, as_of)
    opens = [calendar.hours(session).open for session in sessions]
    when = pl.DataFrame({"session": sessions, "ts": opens}, schema={"session": pl.Date, "ts": UTC})
    asked = pl.DataFrame({"symbol": symbols}, schema={"symbol": pl.String}).join(when, how="cross")
    return factors_at(asked, steps(seen, closes)).drop("ts")


def split_factors(
    actions: pl.DataFrame,
    symbols: Sequence[str],
    sessions: Sequence[date],
    *,
    calendar: SessionCalendar,
    as_of: datetime,
) -> pl.DataFrame:
    """`adjustment` for splits and bonuses alone: symbol, session, factor (Float64) to multiply a raw price with."""
    none = pl.DataFrame(schema={"symbol": pl.String, "ts": UTC, "close": pl.Float64})
    found = adjustment(actions, symbols, sessions, calendar=calendar, as_of=as_of, closes=none)
    return found.select("symbol", "session", factor="split")


def adjusted(bars: pl.DataFrame, actions: pl.DataFrame, *, calendar: SessionCalendar, as_of: datetime) -> pl.DataFrame:
    """Bars (BARS or INTERVAL_BARS, any range) as they looked at `as_of`: known by then, each series under its name of
    then, prices scaled for splits, bonuses and dividends, volumes for splits and bonuses, `oi` as it was. Columns
    and dtypes stay; sorted by symbol, ts. actions: ACTIONS."""
    return looked(bars.filter(pl.col("known_at") <= as_of), _seen(actions, calendar, as_of))


def looked(known: pl.DataFrame, seen: pl.DataFrame) -> pl.DataFrame:
    """`adjusted` for bars and actions (EFFECTIVE) that are both as of the instant already."""
    chained = under_last_name(known, seen.filter(pl.col("kind") == "rename"), "ts").sort("symbol", "ts")
    scaled = factors_at(chained.rename({"volume": "traded"}), steps(seen, known))
    price = pl.col("split") * pl.col("dividend")
    scaled = scaled.with_columns(pl.col(PRICES) * price, volume=pl.col("traded") * pl.col("volume"))
    return scaled.select(known.columns)


def under_last_name(rows: pl.DataFrame, renames: pl.DataFrame, column: str) -> pl.DataFrame:
    """`rows` (symbol, an instant in `column`) under the names after all `renames` (EFFECTIVE): what a symbol was before
    its rename gets the new name, and earlier rows of that name, which are another company's, are left out."""
    for old, new, ex_at in renames.sort("ex_at").select("symbol", "other", "ex_at").iter_rows():
        earlier = pl.col(column) < ex_at
        rows = rows.filter(~((pl.col("symbol") == new) & earlier)).with_columns(
            symbol=pl.when((pl.col("symbol") == old) & earlier).then(pl.lit(new)).otherwise("symbol")
        )
    return rows


def symbol_history(
    actions: pl.DataFrame, symbol: str, *, calendar: SessionCalendar, as_of: datetime
) -> list[tuple[str, date | None]]:
    """The names of one series, oldest first, each with its first date (None for the oldest); the last is `symbol`.

    >>> symbol_history(actions, "SHRIRAMFIN", calendar=calendar, as_of=now)
    [('SRTRANSFIN', None), ('SHRIRAMFIN', datetime.date(2022, 12, 19))]"""
    renames = _seen(actions, calendar, as_of).filter(pl.col("kind") == "rename")
    names: list[tuple[str, date | None]] = []
    for old, new, ex_date in reversed(renames.select("symbol", "other", "ex_date").rows()):
        if new == symbol:
            names, symbol = [(new, ex_date), *names], old
    return [(symbol, None), *names]


def former_names(symbols: Sequence[str], renames: pl.DataFrame, at: datetime) -> list[str]:
    """Under which name each of `symbols` traded at an earlier instant. renames: EFFECTIVE."""
    later = renames.filter(pl.col("ex_at") > at).sort("ex_at", descending=True)
    names = list(symbols)
    for old, new in later.select("symbol", "other").iter_rows():
        names = [old if name == new else name for name in names]
    return names


class ActionBook:
    """A market's stored actions, read once; what was known when is asked of it."""

    def __init__(self, lake: Lake, calendar: SessionCalendar) -> None:
        self._lake, self._calendar = lake, calendar

    @cached_property
    def rows(self) -> pl.DataFrame:
        """All of them: EFFECTIVE, sorted by ex_at."""
        return effective(read_actions(self._lake), self._calendar)

    def names(self, symbols: Sequence[str], instant: datetime) -> list[str]:
        """`symbols` and every name under which their series traded before, as known at an instant."""
        names = dict.fromkeys(symbols)
        renames = as_of(self.rows, instant).filter(pl.col("kind") == "rename").select("symbol", "other")
        for old, new in reversed(renames.rows()):
            if new in names:
                names[old] = None
        return list(names)

    def adjusted(self, bars: pl.DataFrame, instant: datetime) -> pl.DataFrame:
        """`adjusted` by the stored actions."""
        return looked(bars.filter(pl.col("known_at") <= instant), as_of(self.rows, instant))

    def taking_effect(self, session: date) -> pl.DataFrame:
        """EFFECTIVE rows that a session is the first to feel: those whose ex-date and knowledge both lie at or before
        its close and not both at or before the close before it. Each action is felt in exactly one session."""
        if self.rows.is_empty():
            return self.rows
        felt = pl.max_horizontal("known_at", "ex_at")
        close = self._calendar.hours(session).close
        before = self._close_before(session)
        return self.rows.filter((felt <= close) & (felt > before if before is not None else pl.lit(True)))

    def mark(self, since: datetime, instant: datetime) -> str:
        """Eight hex digits of what `as_of(rows, instant)` says about prices after `since`; empty for nothing."""
        if self.rows.is_empty():
            return ""
        seen = as_of(self.rows, instant).filter(pl.col("ex_at") > since)
        said = seen.drop("origin", "origin_id").write_csv()
        return hashlib.sha256(said.encode()).hexdigest()[:8] if seen.height else ""

    def _close_before(self, session: date) -> datetime | None:
        try:
            return self._calendar.hours(self._calendar.previous(session)).close
        except OdinError:  # the calendar's first session
            return None


def read_actions(lake: Lake) -> pl.DataFrame:
    """All actions that a market's lake holds, ACTIONS, sorted by KEY; empty where there are none."""
    sessions = lake.sessions(TABLE)
    return (lake.read_many(TABLE, sessions) if sessions else ACTIONS.to_frame()).sort(KEY)


def _seen(actions: pl.DataFrame, calendar: SessionCalendar, instant: datetime) -> pl.DataFrame:
    return as_of(effective(actions, calendar), instant)


def _session_from(calendar: SessionCalendar, day: date) -> date | None:
    """The first session on or after a date; None past the calendar's end."""
    if day <= calendar.first:
        return calendar.sessions()[0]
    try:
        return calendar.next(day - DAY)
    except OdinError:
        return None
