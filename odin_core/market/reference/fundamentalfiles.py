"""Files of fundamentals into a market's lake: `fundamentals`, and `quarantine_fundamentals` with reasons.

Two layouts are told apart by their columns. *Long*: symbol, known_at, figure, value and perhaps period. *Wide*: symbol,
when it was known (known_at or as_of; a file without either needs to be told) and a column per figure; what is no number
is left out and said. A date is known when it is over. Amounts in crore or lakh, named so at the column's end, become
the currency's units under the name without it. A file replaces what it brought before, and what another file said of
the same symbol, figure and time of knowledge."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from odin_core.errors import OdinError
from odin_core.lake import Lake
from odin_core.market.calendar import SessionCalendar
from odin_core.market.intake.knowntables import (
    SourceFile,
    first_broken,
    instants,
    known_sessions,
    numbers,
    quarantine,
    read_table,
    rewrite,
)
from odin_core.market.reference.fundamentals import FUNDAMENTALS, KEY, TABLE, read_fundamentals

QUARANTINE: Final = "quarantine_fundamentals"
RULES: Final = {
    "no_symbol": "no symbol",
    "no_figure": "no name of a figure",
    "bad_known_at": "the time of knowledge cannot be read",
    "bad_value": "the value is no number",
    "outside_calendar": "known only after the end of the market's calendar",
    "duplicate": "the same symbol, figure and time again",
    "conflict": "the same symbol, figure and time as an earlier row, with another value",
}
UNITS: Final = {"cr": 1e7, "lakh": 1e5}  # Indian units: a crore is ten million, a lakh a hundred thousand
UNIT: Final = re.compile(r"(\w+?)_(cr|lakh)(?:_(\d{4})(\d\d)(\d\d))?")
NAMES: Final = {"mcap": "market_cap"}
PERIODS: Final = ("period", "fy_window")
WHEN: Final = ("known_at", "as_of")
# A snapshot of Indian ratios that stores what is missing as 0; of these figures zero is a possible value all the same.
ZERO_SNAPSHOT: Final = frozenset({"sector_pe", "roce_3y_avg_pct", "promoter_holding_pct", "pledge_pct"})
ZERO_IS_POSSIBLE: Final = ZERO_SNAPSHOT - {"sector_pe", "roce_3y_avg_pct"} | {
    "debt_equity", "dividend_yield_pct", "dividend_payout_pct", "fii_change_pct", "dii_change_pct",
}  # fmt: skip


class UnknownFundamentalLayout(OdinError):
    def __init__(self, file: SourceFile) -> None:
        super().__init__(
            f"{file.origin} has the columns {', '.join(file.raw.columns[:12])}, which are no fundamentals; give "
            f"symbol, known_at, figure, value, or symbol, known_at (or as_of) and a column per figure"
        )


class WhenKnown(OdinError):
    def __init__(self, file: SourceFile) -> None:
        super().__init__(
            f"{file.origin} does not say when its figures were known (no column known_at or as_of), and nothing may be "
            f"used before; give the date with --known-at YYYY-MM-DD"
        )


@dataclass(frozen=True, kw_only=True)
class FundamentalReport:
    """What became of one file. Values are its figures, one per symbol and time, known to be missing or not."""

    file: str
    layout: str
    rows: int
    values: int
    missing: int  # of the values
    zeros_missing: int  # of these, zeros that stand for a missing value
    corrected: int  # values of other files that were replaced
    quarantined: dict[str, int]  # rule -> values
    figures: tuple[str, ...]
    left_out: tuple[str, ...]  # columns that are no numbers
    sessions: tuple[date, ...]  # partitions that changed

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": self.file, "layout": self.layout, "rows": self.rows, "values": self.values,
            "missing": self.missing, "zeros_missing": self.zeros_missing, "corrected": self.corrected,
            "quarantined": self.quarantined, "figures": list(self.figures), "left_out": list(self.left_out),
            "sessions": len(self.sessions),
        }  # fmt: skip

    def to_text(self) -> str:
        lines = [
            f"{self.file} ({self.layout}): {self.rows:,} rows, {self.values:,} values of {len(self.figures)} figures, "
            f"{self.missing:,} of them missing; {len(self.sessions):,} sessions changed",
            f"  figures: {', '.join(self.figures)}",
        ]
        lines += [f"  {n:,} {rule}: {RULES[rule]}" for rule, n in self.quarantined.items()]
        if self.zeros_missing:
            lines.append(f"  {self.zeros_missing:,} zeros stand for missing values in this layout")
        if self.corrected:
            lines.append(f"  {self.corrected:,} values of other files were replaced")
        if self.left_out:
            lines.append(f"  columns that are no numbers are left out: {', '.join(self.left_out)}")
        return "\n".join(lines)


class _Read(NamedTuple):
    layout: str
    values: pl.DataFrame  # row, symbol, known_at, figure, value, period, rule
    left_out: list[str]
    zeros_missing: int


def import_fundamentals(
    paths: Sequence[Path], *, lake: Lake, calendar: SessionCalendar, zone: ZoneInfo, known_at: date | None = None
) -> list[FundamentalReport]:
    """Bring files of fundamentals into a lake, one after the other. `zone` is the market's; `known_at` dates files that
    do not say when they were known. All files are read before anything is written; a partition is written whole or not
    at all, and the same command again finishes a killed one.
    Raises UnreadableTable, UnknownFundamentalLayout, WhenKnown."""
    return store_fundamentals(
        [read_table(path) for path in paths], lake=lake, calendar=calendar, zone=zone, known_at=known_at
    )


def store_fundamentals(
    files: Sequence[SourceFile], *, lake: Lake, calendar: SessionCalendar, zone: ZoneInfo, known_at: date | None = None
) -> list[FundamentalReport]:
    """As `import_fundamentals`, for rows that were read already, be it from a file or a database."""
    read = [(file, _read(file, zone, known_at)) for file in files]
    return [_store(lake, calendar, file, found) for file, found in read]


def _read(file: SourceFile, zone: ZoneInfo, known_at: date | None) -> _Read:
    raw = file.raw
    if "symbol" not in raw.columns:
        raise UnknownFundamentalLayout(file)
    dated = next((name for name in WHEN if name in raw.columns), None)
    if dated is None and known_at is None:
        raise WhenKnown(file)
    told = raw[dated] if dated else pl.Series([known_at] * raw.height, dtype=pl.Date)
    period = next((raw[name] for name in PERIODS if name in raw.columns), pl.Series([None] * raw.height))
    head = pl.DataFrame(
        {
            "row": pl.int_range(raw.height, eager=True, dtype=pl.Int64),
            "symbol": raw["symbol"].cast(pl.String).str.strip_chars(),
            "known_at": instants(told, zone),
            "period": period.cast(pl.String),
        }
    )
    if {"figure", "value"} <= set(raw.columns):
        return _long(raw, head)
    others = [name for name in raw.columns if name not in ("symbol", *WHEN, *PERIODS)]
    figures = [name for name in others if _is_numeric(raw[name])]
    if not figures:
        raise UnknownFundamentalLayout(file)
    return _wide(raw, head, figures, [name for name in others if name not in figures])


def _long(raw: pl.DataFrame, head: pl.DataFrame) -> _Read:
    given = raw["value"].cast(pl.String).str.strip_chars().fill_null("")
    values = head.with_columns(
        figure=raw["figure"].cast(pl.String).str.strip_chars().str.to_lowercase(),
        value=numbers(raw["value"]),
        unreadable=(given != "") & ~given.str.to_lowercase().is_in(["nan", "null"]),
    )
    broken = {"bad_value": pl.col("unreadable") & pl.col("value").is_null(), "no_figure": _empty("figure")}
    return _Read("long", values.with_columns(rule=_rule(broken)).drop("unreadable"), [], 0)


def _wide(raw: pl.DataFrame, head: pl.DataFrame, figures: list[str], left_out: list[str]) -> _Read:
    values = {name: numbers(raw[name]) for name in figures}
    zeros = 0
    if set(raw.columns) >= ZERO_SNAPSHOT:
        before = sum(column.null_count() for column in values.values())
        values |= {name: _without_zeros(values[name]) for name in figures if name not in ZERO_IS_POSSIBLE}
        unknown_equity = values["pb_ratio"].is_null()  # no book value: a debt ratio of zero is none either
        values["debt_equity"] = values["debt_equity"].set(unknown_equity & (values["debt_equity"] == 0), None)
        zeros = sum(column.null_count() for column in values.values()) - before
    parts = []
    for name in figures:
        named = _figure(name)
        own = head.with_columns(figure=pl.lit(named.name), value=values[name] * named.times)
        parts.append(own.with_columns(period=pl.lit(named.period)) if named.period else own)
    layout = "wide, zeros for missing values" if zeros else "wide"
    return _Read(layout, pl.concat(parts).with_columns(rule=_rule({})), left_out, zeros)


class _Figure(NamedTuple):
    name: str
    times: float  # to the currency's units
    period: str | None


def _figure(column: str) -> _Figure:
    """What a column is called and counts: `mcap_lakh_20230331` is the market_cap of 2023-03-31 in units of 100,000."""
    unit = UNIT.fullmatch(column)
    if unit is None:
        return _Figure(column, 1.0, None)
    name, times, *day = unit.groups()
    return _Figure(NAMES.get(name, name), UNITS[times], "-".join(day) if all(day) else None)


def _is_numeric(column: pl.Series) -> bool:
    """Whether a column holds numbers, be it as text, and not only nothing."""
    given = column.drop_nulls()
    if column.dtype == pl.String:
        given = given.filter(given.str.strip_chars() != "")
    elif not column.dtype.is_numeric():
        return False
    return len(given) > 0 and numbers(given).null_count() == 0


def _without_zeros(column: pl.Series) -> pl.Series:
    return column.set(column == 0, None)


def _empty(name: str) -> pl.Expr:
    return pl.col(name).is_null() | (pl.col(name) == "")


def _rule(more: dict[str, pl.Expr]) -> pl.Expr:
    return first_broken({"no_symbol": _empty("symbol"), "bad_known_at": pl.col("known_at").is_null(), **more})


def _store(lake: Lake, calendar: SessionCalendar, file: SourceFile, found: _Read) -> FundamentalReport:
    late = pl.col("rule").is_null() & known_sessions(found.values["known_at"], calendar).is_null()
    placed = found.values.with_columns(pl.when(late).then(pl.lit("outside_calendar")).otherwise("rule").alias("rule"))
    order, same = pl.int_range(pl.len()).over(KEY), pl.col("value").eq_missing(pl.col("value").first().over(KEY))
    again = pl.when(same).then(pl.lit("duplicate")).otherwise(pl.lit("conflict"))
    clean = placed.filter(pl.col("rule").is_null()).with_columns(pl.when(order > 0).then(again).alias("rule"))
    judged = pl.concat([placed.filter(pl.col("rule").is_not_null()), clean])
    sound, refused = judged.filter(pl.col("rule").is_null()), judged.filter(pl.col("rule").is_not_null())
    mine = sound.with_columns(origin=pl.lit(file.origin), origin_id=pl.lit(file.origin_id))
    mine = mine.select(FUNDAMENTALS.names()).cast(FUNDAMENTALS)
    others = read_fundamentals(lake).filter(pl.col("origin_id") != file.origin_id)
    kept = others.join(mine, on=KEY, how="anti")
    changed = rewrite(lake, TABLE, pl.concat([kept, mine]).sort(*KEY), calendar)
    quarantine(lake, QUARANTINE, file, refused)
    rules = refused["rule"].value_counts(name="count").sort("count", "rule", descending=[True, False])
    return FundamentalReport(
        file=file.origin,
        layout=found.layout,
        rows=file.raw.height,
        values=sound.height,
        missing=sound["value"].null_count(),
        zeros_missing=found.zeros_missing,
        corrected=others.height - kept.height,
        quarantined=dict(rules.iter_rows()),
        figures=tuple(sound["figure"].unique().sort()),
        left_out=tuple(found.left_out),
        sessions=tuple(changed),
    )
