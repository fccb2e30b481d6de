"""What can be wrong with minute bars: the rule that each row must keep, and the findings of a session.

A row that breaks a rule never reaches `price_history`; `market.importing` puts it into the table `quarantine` with its
origin, row and rule. What is poor but usable is a finding in the table `data_quality`. A finding of severity `error`
says that the table itself breaks its contract (it blocks), `warning` that the data are poor, `info` just describes
them."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal, Protocol

import numpy as np
import polars as pl

from odin_core.lake import Lake
from odin_core.market.bars import BARS, KEY, MICROSECOND, MINUTE, UTC

Severity = Literal["info", "warning", "error"]

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
        "symbol": pl.String(),  # "*" for the session as a whole
        "rule": pl.String(),
        "severity": pl.String(),
        "count": pl.Int64(),
        "detail": pl.String(),
    }
)

FEW_BARS = 0.60  # a symbol with a smaller share of the session's minutes
MISSING_NOTED = 0.05  # missing minutes up to this share are `info`
STALE_MINUTES = 15
QUIET = 0.10  # share of bars without volume that is worth a finding
OUTLIER_FLOOR = 0.03  # log true range of one minute
OUTLIER_MULTIPLE = 15.0  # of the symbol's median in the session


class SessionHours(Protocol):
    """What is needed of a session calendar (`market.calendar`). Dates beyond its bounds raise OdinError."""

    def is_session(self, day: date, /) -> bool: ...
    def hours(self, session: date, /) -> tuple[datetime, datetime]: ...


def broken_rule() -> pl.Expr:
    """The first of RULES that a row breaks by itself, null where it breaks none. Needs the columns of a bar, and
    `misplaced`, the calendar's verdict on `ts`, or null. A volume or open interest that was given and could not be read
    is infinite, one that is missing is null or NaN."""
    broken = {
        "not_a_bar": pl.all_horizontal(pl.col(name).is_null() for name in ("ts", *PRICES)),
        "ts_missing": pl.col("ts").is_null(),
        "symbol_missing": pl.col("symbol").fill_null("") == "",
        "ts_not_whole_minute": pl.col("ts").to_physical() % (MINUTE // MICROSECOND) != 0,
        **_broken_prices(),
        "volume_negative": pl.col("volume") < 0,
        "volume_not_a_number": pl.col("volume").is_infinite(),
        "oi_not_a_number": (pl.col("oi") < 0) | pl.col("oi").is_infinite(),
    }
    return pl.coalesce([pl.when(is_broken).then(pl.lit(rule)) for rule, is_broken in broken.items()] + ["misplaced"])


def _broken_prices() -> dict[str, pl.Expr]:
    low, high = pl.col("low"), pl.col("high")
    return {
        "price_missing": ~pl.all_horizontal(pl.col(p).is_finite().fill_null(False) for p in PRICES),
        "price_not_positive": pl.any_horizontal(pl.col(p) <= 0 for p in PRICES),
        "high_below_low": high < low,
        "open_close_outside_range": ~pl.all_horizontal(pl.col(p).is_between(low, high) for p in ("open", "close")),
    }


def assess_session(lake: Lake, calendar: SessionHours, session: date, *, universe: Sequence[str] = ()) -> pl.DataFrame:
    """`find_defects` on what the lake holds of a session, its quarantine and the order in which its rows arrived
    included. Schema FINDINGS; the content of the table `data_quality`. Raises PartitionUnreadable."""

    def held(table: str, schema: pl.Schema) -> pl.DataFrame:
        return lake.read(table, session) if lake.has(table, session) else schema.to_frame()

    return find_defects(
        held("price_history", BARS),
        calendar,
        session,
        universe=universe,
        quarantine=held("quarantine", QUARANTINE),
        arrivals=held("arrivals", ARRIVALS),
    )


def find_defects(
    bars: pl.DataFrame,
    calendar: SessionHours,
    session: date,
    *,
    universe: Sequence[str] = (),
    quarantine: pl.DataFrame | None = None,
    arrivals: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Findings about one session's bars (schema BARS): one row per symbol and rule, sorted by symbol, rule.

    `universe`: symbols that should have bars. `quarantine`, `arrivals`: the session's rows of those tables, whose
    counts become findings. `missing_minutes` counts the session's minutes without a bar, `few_bars` those with one,
    `stale` bars in runs of STALE_MINUTES and more that repeat every price without new volume, `outlier_move` bars
    whose log true range, max(high, previous close) / min(low, previous close), exceeds both OUTLIER_FLOOR and
    OUTLIER_MULTIPLE times the symbol's median. Raises NotASession."""
    open_at, close_at = calendar.hours(session)
    stats = _by_symbol(bars.sort(KEY), open_at, close_at)
    found = [
        _absent(bars, universe),
        *_breaches(stats),
        *_coverage(stats, (close_at - open_at) // MINUTE),
        *_oddities(stats),
        _quarantined(QUARANTINE.to_frame() if quarantine is None else quarantine),
        _late(ARRIVALS.to_frame() if arrivals is None else arrivals),
    ]
    return pl.concat(found).sort("symbol", "rule")


def _by_symbol(bars: pl.DataFrame, open_at: datetime, close_at: datetime) -> pl.DataFrame:
    """One row per symbol with every count that a finding needs. `bars` sorted by KEY."""
    first = (pl.col("symbol") != pl.col("symbol").shift()).fill_null(True)
    last = first.shift(-1).fill_null(True)
    before = {name: pl.when(~first).then(pl.col(name).shift()) for name in ("ts", "known_at", "volume", *PRICES)}
    quiet = pl.col("volume").is_null() | (pl.col("volume") == 0) | (pl.col("volume") == before["volume"])
    low, high = pl.min_horizontal("low", before["close"]), pl.max_horizontal("high", before["close"])
    gap_from = before["known_at"].fill_null(pl.lit(open_at, dtype=UTC))
    rows = bars.with_columns(
        inside=(pl.col("ts") >= open_at) & (pl.col("ts") < close_at),
        repeated_key=(pl.col("ts") == before["ts"]).fill_null(False),
        gap_from=gap_from,
        gap=pl.col("ts") - gap_from,
        gap_at_end=pl.when(last).then(pl.lit(close_at, dtype=UTC) - pl.col("known_at")),
        bad_price=pl.any_horizontal(*_broken_prices().values(), pl.col("volume") < 0),
        still=(quiet & pl.all_horizontal(pl.col(p) == before[p] for p in PRICES)).fill_null(False),
        move=pl.when((low > 0) & high.is_finite()).then((high / low).log()),
    )
    move = pl.col("move")
    wild = (move > OUTLIER_FLOOR) & (move > OUTLIER_MULTIPLE * move.median())
    counted = rows.group_by("symbol").agg(
        pl.len().alias("bars"),
        pl.col("inside", "repeated_key", "bad_price").sum(),
        (pl.col("volume") == 0).sum().alias("zero_volume"),
        pl.col("volume").is_null().sum().alias("no_volume"),
        pl.col("gap", "gap_at_end").max(),
        pl.col("gap_from").get(pl.col("gap").arg_max()),
        pl.col("known_at").last(),
        wild.sum().alias("wild"),
        move.max().alias("largest_move"),
        pl.col("ts").get(move.arg_max()).alias("largest_move_at"),
    )
    return counted.join(_stale_runs(rows), on="symbol", how="left")


def _stale_runs(rows: pl.DataFrame) -> pl.DataFrame:
    """Per symbol: bars in runs of at least STALE_MINUTES repeats of one bar (`stale`), and the start of the longest."""
    starts = np.flatnonzero(~rows["still"].to_numpy())
    lengths = np.diff(np.append(starts, rows.height))
    long = lengths >= STALE_MINUTES
    runs = rows.select("symbol", pl.col("ts").alias("stale_from"))[starts[long]].with_columns(length=lengths[long])
    return runs.group_by("symbol").agg(
        pl.col("length").sum().alias("stale"),
        pl.col("length").max().alias("stale_longest"),
        pl.col("stale_from").get(pl.col("length").arg_max()),
    )


def _finding(
    rows: pl.DataFrame, rule: str | pl.Expr, severity: Severity | pl.Expr, count: str, detail: str | pl.Expr
) -> pl.DataFrame:
    """A finding for each row whose `count` is above zero."""
    rule, severity, detail = (pl.lit(x) if isinstance(x, str) else x for x in (rule, severity, detail))
    return rows.filter(pl.col(count) > 0).select(
        pl.col("symbol"),
        rule.alias("rule"),
        severity.alias("severity"),
        pl.col(count).cast(pl.Int64).alias("count"),
        detail.alias("detail"),
    )


def _absent(bars: pl.DataFrame, universe: Sequence[str]) -> pl.DataFrame:
    absent = sorted(set(universe) - set(bars["symbol"].unique())) if bars.height else ["*"]
    rows = pl.DataFrame({"symbol": absent, "absent": 1}, schema={"symbol": pl.String, "absent": pl.Int64})
    return _finding(rows, "no_bars", "warning", "absent", "no bar in the whole session")


def _breaches(stats: pl.DataFrame) -> list[pl.DataFrame]:
    outside = stats.with_columns(outside=pl.col("bars") - pl.col("inside"))
    return [
        _finding(stats, "duplicate", "error", "repeated_key", "bars share their time with another"),
        _finding(stats, "bad_price", "error", "bad_price", "prices missing, not positive or out of their range"),
        _finding(outside, "outside_hours", "error", "outside", "bars before the open or after the close"),
    ]


def _coverage(stats: pl.DataFrame, minutes: int) -> list[pl.DataFrame]:
    at_end = pl.col("gap_at_end") > pl.col("gap")
    rows = stats.with_columns(
        have=pl.col("inside") - pl.col("repeated_key"),
        longest=pl.when(at_end).then("gap_at_end").otherwise("gap").dt.total_minutes(),
        longest_from=pl.when(at_end).then("known_at").otherwise("gap_from"),
    ).with_columns(missing=minutes - pl.col("have"))
    poor = pl.when(pl.col("missing") > MISSING_NOTED * minutes).then(pl.lit("warning")).otherwise(pl.lit("info"))
    gap = pl.format(f"of {minutes} minutes; longest gap {{}}, from {{}}", "longest", _clock("longest_from"))
    share = pl.format("{} % of the session's minutes", (pl.col("have") * 100 / minutes).round(1))
    few = rows.filter(pl.col("have") < FEW_BARS * minutes)
    return [
        _finding(rows, "missing_minutes", poor, "missing", gap),
        _finding(few, "few_bars", "warning", "have", share),
    ]


def _oddities(stats: pl.DataFrame) -> list[pl.DataFrame]:
    rows = stats.with_columns(
        quiet=pl.when(pl.col("zero_volume") > QUIET * pl.col("bars")).then("zero_volume"),
        largest=((pl.col("largest_move").exp() - 1) * 100).round(2),
    )
    stale = pl.format("bars repeat one before them; longest run {}, from {}", "stale_longest", _clock("stale_from"))
    wild = pl.format("largest range {} % of price, at {}", "largest", _clock("largest_move_at"))
    return [
        _finding(rows, "no_volume", "info", "no_volume", pl.format("of {} bars have no volume", "bars")),
        _finding(rows, "zero_volume", "info", "quiet", pl.format("of {} bars have volume 0", "bars")),
        _finding(rows, "stale", "warning", "stale", stale),
        _finding(rows, "outlier_move", "warning", "wild", wild),
    ]


def _quarantined(quarantine: pl.DataFrame) -> pl.DataFrame:
    rows = quarantine.group_by(pl.col("symbol").fill_null("*"), "rule").agg(
        pl.len().alias("rows"), pl.col("origin").min()
    )
    detail = pl.format("rows held back, first from {}", "origin")
    return _finding(rows, pl.format("quarantined_{}", "rule"), "info", "rows", detail)


def _late(arrivals: pl.DataFrame) -> pl.DataFrame:
    rows = arrivals.group_by("symbol").agg(pl.col("out_of_order").sum())
    return _finding(rows, "out_of_order", "info", "out_of_order", "rows came after a later one; sorted in")


def _clock(column: str) -> pl.Expr:
    return pl.col(column).dt.strftime("%H:%M UTC")
