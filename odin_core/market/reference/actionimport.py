"""Files of corporate actions into a market's lake: `corporate_actions`, and `quarantine_actions` with reasons.

Files are read in `actionfiles`, judged in `actionchecks`. What the lake holds depends on the files and their order, and
on the raw prices that it holds when they come: bring prices in first, or the actions again after them. A file replaces
what it brought before; of two files that tell one event the earlier keeps it, unless they agree on symbol, ex-date and
kind, where the later corrects the values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from odin_core.lake import Lake
from odin_core.market.calendar import SessionCalendar
from odin_core.market.intake.knowntables import SourceFile, known_sessions, midnights, quarantine, read_table, rewrite
from odin_core.market.intake.storing import assess
from odin_core.market.quality.assessing import sessions_from
from odin_core.market.reference.actionchecks import EQUAL, PRICES, SAME_DIVIDEND, SAME_SPLIT, check_events, windows
from odin_core.market.reference.actionfiles import RULES, read_events
from odin_core.market.reference.actions import ACTIONS, KEY, SHARES, TABLE, read_actions

QUARANTINE: Final = "quarantine_actions"
VALUES: Final = ("ratio", "amount", "other")


@dataclass(frozen=True, kw_only=True)
class ActionReport:
    """What became of one file. Events are what its rows tell, none, one or two of each."""

    file: str
    layout: str
    rows: int
    events: int
    kept: dict[str, int]  # kind -> events, those included that another file had told with the same values
    corrected: int  # events of other files that got this one's values
    quarantined: dict[str, int]  # rule -> events
    unseen: int  # splits and bonuses that are kept without prices to see them in
    notes: tuple[str, ...]
    sessions: tuple[date, ...]  # partitions that changed

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": self.file, "layout": self.layout, "rows": self.rows, "events": self.events, "kept": self.kept,
            "corrected": self.corrected, "quarantined": self.quarantined, "unseen": self.unseen,
            "notes": list(self.notes), "sessions": len(self.sessions),
        }  # fmt: skip

    def to_text(self) -> str:
        held_back = sum(self.quarantined.values())
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in self.kept.items()) or "nothing"
        lines = [
            f"{self.file} ({self.layout}): {self.rows:,} rows tell {self.events:,} events; kept {kinds}; "
            f"{held_back:,} quarantined; {len(self.sessions):,} sessions changed"
        ]
        lines += [f"  {n:,} {rule}: {RULES[rule]}" for rule, n in self.quarantined.items()]
        if self.corrected:
            lines.append(f"  {self.corrected:,} events of other files got this file's values")
        if self.unseen:
            lines.append(
                f"  {self.unseen:,} splits and bonuses have no raw prices around them, or are too small to see"
            )
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def import_actions(
    paths: Sequence[Path], *, lake: Lake, calendar: SessionCalendar, zone: ZoneInfo, symbol: str | None = None
) -> list[ActionReport]:
    """Bring files of corporate actions into a lake, one after the other. `zone` is the market's: a date in known_at is
    known when it is over there, and an event without one from the beginning of its ex-date. `symbol`: of a factor file
    that names none. All files are read before anything is written; a partition is written whole or not at all, and the
    same command again finishes a killed one. Raises UnreadableTable, UnknownActionLayout, NoFactorSymbol."""
    read = [(file, read_events(file, zone, calendar, symbol)) for file in map(read_table, paths)]
    reports = [_store(lake, calendar, zone, file, found.layout, found.events) for file, found in read]
    days = {day for _, found in read for day in found.events["ex_date"].drop_nulls()}
    assess(lake, calendar, sessions_from(lake, days))  # a jump that an action explains is no finding any more
    return reports


def raw_prices(lake: Lake, wanted: pl.DataFrame) -> pl.DataFrame:
    """PRICES of `wanted` (symbol, first, last): first open and last close of each session, from `bars_day` or else from
    `price_history`."""
    parts = [PRICES.to_frame()]
    spans = wanted.select("first", "last").unique()
    days = set(spans.select(pl.date_ranges("first", "last").explode()).to_series())
    symbols = wanted["symbol"].unique().to_list()
    for table in ("bars_day", "price_history"):
        for session in lake.sessions(table):
            if session in days:
                bars = lake.read(table, session).filter(pl.col("symbol").is_in(symbols)).sort("symbol", "ts")
                ends = bars.group_by("symbol", maintain_order=True).agg(pl.col("open").first(), pl.col("close").last())
                parts.append(ends.select("symbol", pl.lit(session).alias("session"), "open", "close"))
    return pl.concat(parts).unique(["symbol", "session"], keep="first", maintain_order=True)


def _store(
    lake: Lake, calendar: SessionCalendar, zone: ZoneInfo, file: SourceFile, layout: str, events: pl.DataFrame
) -> ActionReport:
    others = read_actions(lake).filter(pl.col("origin_id") != file.origin_id)
    checked = check_events(events, raw_prices(lake, windows(events)), others)
    known = checked.events.with_columns(
        pl.coalesce("known_at", midnights(checked.events["ex_date"], zone)).alias("known_at")
    )
    late = pl.col("rule").is_null() & known_sessions(known["known_at"], calendar).is_null()
    placed = known.with_columns(pl.when(late).then(pl.lit("outside_calendar")).otherwise("rule").alias("rule"))
    judged = placed.with_columns(pl.coalesce("rule", _told_by(placed, others)).alias("rule"))
    sound = judged.filter(pl.col("rule").is_null())
    told = others.select(*KEY, *VALUES, "known_at")
    new = sound.join(told, on=list(told.columns), how="anti", nulls_equal=True)
    mine = new.with_columns(origin=pl.lit(file.origin), origin_id=pl.lit(file.origin_id)).select(ACTIONS.names())
    corrected = others.join(mine, on=KEY, how="semi").height
    whole = pl.concat([others.join(mine, on=KEY, how="anti"), mine.cast(ACTIONS)]).sort(KEY)
    changed = rewrite(lake, TABLE, whole, calendar)
    refused = judged.filter(pl.col("rule").is_not_null())
    quarantine(lake, QUARANTINE, file, refused)
    return ActionReport(
        file=file.origin,
        layout=layout,
        rows=file.raw.height,
        events=events.height,
        kept=_counts(sound["kind"]),
        corrected=corrected,
        quarantined=_counts(refused["rule"]),
        unseen=checked.unseen,
        notes=tuple(checked.notes),
        sessions=tuple(changed),
    )


def _told_by(events: pl.DataFrame, others: pl.DataFrame) -> pl.Series:
    """`repeated` for each event that another file tells near its date with an equal ratio or amount, else null; one
    with the same KEY is no repetition."""
    one_kind = pl.when(pl.col("kind").is_in(SHARES)).then(pl.lit("shares")).otherwise("kind").alias("sort")
    size = pl.coalesce("ratio", "amount").alias("size")
    mine = events.with_row_index("at").select("at", *KEY, one_kind, size)
    theirs = others.select(*KEY, one_kind, size)
    pairs = mine.join(theirs, on=["symbol", "sort"], suffix="_told").filter(
        pl.col("sort").is_in(["shares", "dividend"])
        & ~((pl.col("ex_date") == pl.col("ex_date_told")) & (pl.col("kind") == pl.col("kind_told")))
        & ((pl.col("size") / pl.col("size_told") - 1).abs() <= EQUAL)
        & (
            (pl.col("ex_date") - pl.col("ex_date_told")).abs()
            <= pl.when(pl.col("sort") == "shares").then(pl.lit(SAME_SPLIT)).otherwise(pl.lit(SAME_DIVIDEND))
        )
    )
    again = pl.int_range(events.height, eager=True).is_in(pairs["at"].cast(pl.Int64).implode())
    return pl.select(pl.when(again).then(pl.lit("repeated"))).to_series()


def _counts(column: pl.Series) -> dict[str, int]:
    frame = column.value_counts(name="count").sort("count", column.name, descending=[True, False])
    return dict(frame.iter_rows())
