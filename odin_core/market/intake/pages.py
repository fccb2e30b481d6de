"""A page: rows that came together, and what they are to a market once they are judged and sorted out.

A page is a file, a part of one, or a vendor's reply. Each of its rows becomes a bar, part of a bar (a tick), or a row
of the quarantine; nothing is dropped. What the lake holds does not matter here, that is `intake.importing`."""

from datetime import date
from typing import NamedTuple

import polars as pl

from odin_core.market.bars import BARS, KEY, UTC
from odin_core.market.intake.judging import judged
from odin_core.market.intake.layout import Rows
from odin_core.market.intake.ticks import minute_bars, traded
from odin_core.market.quality.assessing import ARRIVALS, PRICES, QUARANTINE, SessionHours

NO_SESSION = date(1970, 1, 1)  # partition of the quarantined rows that belong to no session


class Page(NamedTuple):
    """Rows that came together. `raw` and `bars` hold the same rows in the same order."""

    origin: str  # what people call it: a file's name, or "kite 1m 2024-01-01 to 2024-02-29"
    origin_id: str  # 16 hex digits of a hash of the content: the same page again replaces itself
    raw: pl.DataFrame  # the rows as received, any columns
    bars: pl.DataFrame  # SOURCE_BARS; a value that could not be read is null, a volume or oi that could not is infinite
    rows: pl.Series | None = None  # numbers of the rows in their origin, Int64; from 0 on where it is None
    instruments: pl.DataFrame | None = None  # INSTRUMENTS of its symbols, where it says what they are
    kind: Rows = "bars"  # ticks and trades have four equal prices and become minute bars; see `intake.layout`


class Batch(NamedTuple):
    """A page's rows, sorted out. `kept`: BARS, session, late (rows of the bar that came after a later one); sorted by
    session, symbol, ts. `bad`: QUARANTINE, session (NO_SESSION for none); sorted by session, row. `arrivals`:
    ARRIVALS, session; sorted by session, symbol. `used`: rows in `kept`, which are more than its bars where these are
    made of ticks."""

    interval: str
    kept: pl.DataFrame
    bad: pl.DataFrame
    arrivals: pl.DataFrame
    used: int


def sorted_out(page: Page, calendar: SessionHours, interval: str) -> Batch:
    rows = pl.int_range(page.bars.height, dtype=pl.Int64, eager=True) if page.rows is None else page.rows
    given = page.bars.with_columns(rows.alias("row"), pl.int_range(pl.len(), dtype=pl.UInt32).alias("place"))
    if page.kind == "bars":
        typed = judged(given, calendar, interval)
        sound, broken = typed.filter(pl.col("rule").is_null()), typed.filter(pl.col("rule").is_not_null())
        kept, again = _once(sound)
        if again.height:
            broken = pl.concat([broken, _duplicates(again, kept)])
        used = kept.height
    else:
        typed = _judged_ticks(given, calendar, page.kind)
        sound, broken = (
            typed.filter(pl.col("rule").is_null()),
            typed.filter(pl.col("rule").is_not_null()).drop("at", "late"),
        )
        kept, used = _bars_of(sound, calendar), sound.height
    bad = _held_back(page, broken, interval)
    bars = kept.select(*BARS, "session", "late")
    return Batch(interval, bars, bad, _arrivals(page, interval, bars, bad), used)


def _held_back(page: Page, broken: pl.DataFrame, interval: str) -> pl.DataFrame:
    content = page.raw[broken["place"]].select(pl.struct(pl.all()).struct.json_encode().alias("content"))
    named = pl.concat([broken, content], how="horizontal").with_columns(
        *_origin(page, interval), pl.col("session").fill_null(NO_SESSION)
    )
    return named.select(*QUARANTINE, "session").sort("session", "row")


def _arrivals(page: Page, interval: str, bars: pl.DataFrame, bad: pl.DataFrame) -> pl.DataFrame:
    """How many rows of each session and symbol were kept, held back or late."""
    key = ("session", "symbol")
    counts = bars.group_by(key).agg(pl.len().alias("kept"), pl.col("late").sum().alias("out_of_order"))
    held_back = bad.group_by(key).agg(pl.len().alias("quarantined"))
    both = counts.join(held_back, on=key, how="full", coalesce=True, nulls_equal=True).sort(key)
    named = both.with_columns(*_origin(page, interval), pl.col("kept", "quarantined", "out_of_order").fill_null(0))
    return named.select(*(pl.col(name).cast(dtype) for name, dtype in ARRIVALS.items()), "session")


def _origin(page: Page, interval: str) -> list[pl.Expr]:
    named = {"origin": page.origin, "origin_id": page.origin_id, "interval": interval}
    return [pl.lit(value).alias(name) for name, value in named.items()]


def _late(ts: str) -> pl.Expr:
    """1 for a row that came after a later one of its symbol and session, else 0."""
    is_late = (pl.col(ts) < pl.col(ts).shift().over("symbol", "session")).fill_null(False)
    return is_late.cast(pl.UInt32).alias("late")


def _once(sound: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Sound bars with `late`, sorted by session, symbol and ts: those that come first, and those whose symbol and time
    were there before. Rows that are in that order already need no sorting, which is the dearest part of it."""
    session, symbol, ts = (pl.col(name) for name in ("session", *KEY))
    is_same = session == session.shift()
    rises = (symbol > symbol.shift()) | ((symbol == symbol.shift()) & (ts > ts.shift()))
    ascends = ((session > session.shift()) | (is_same & rises)).fill_null(True).all()
    if sound.select(ascends).item():
        return sound.with_columns(pl.lit(0, pl.UInt32).alias("late")), sound.clear()
    ordered = sound.with_columns(_late("ts")).sort("session", *KEY, maintain_order=True)
    repeats = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in KEY).fill_null(False)
    again = ordered.filter(repeats)
    return (ordered.filter(~repeats) if again.height else ordered), again


def _judged_ticks(given: pl.DataFrame, calendar: SessionHours, kind: Rows) -> pl.DataFrame:
    """`judged` of ticks by their minute, with late, and their own time as `at`. Of a counter the volume is what was
    traded, and ticks stand in its order."""
    timed = given.with_columns(pl.col("ts").alias("at"), pl.col("ts").dt.truncate("1m"))
    typed = judged(timed, calendar, "1m").with_columns(_late("at"))
    if kind == "trades":
        return typed
    ordered = typed.sort("symbol", "at", "volume", maintain_order=True)
    sessions = ordered["session"].unique().drop_nulls()
    opens = pl.DataFrame({"session": sessions, "open_at": [calendar.hours(s)[0] for s in sessions]})
    opened = ordered.join(opens.cast({"open_at": UTC}), on="session", how="left", maintain_order="left")
    sound = opened.filter(pl.col("rule").is_null() & pl.col("volume").is_not_null())
    grown = traded(sound.select("place", "symbol", "session", "volume", "open_at", ts="at"))
    joined = opened.join(grown.select("place", grown="volume"), on="place", how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce("grown", "volume").alias("volume")).drop("grown", "open_at")


def _bars_of(ticks: pl.DataFrame, calendar: SessionHours) -> pl.DataFrame:
    """Minute bars of sound ticks, judged themselves so that they know their session; late ones are counted."""
    bars = minute_bars(ticks.select("symbol", pl.col("at").alias("ts"), pl.col("close").alias("price"), "volume"))
    late = ticks.group_by(*KEY).agg(pl.col("late").sum())
    joined = judged(bars, calendar, "1m").join(late, on=KEY, how="left", maintain_order="left")
    return joined.sort("session", *KEY)


def _duplicates(repeats: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Rows whose symbol and time were there before, with the rule that says whether their values were the same."""
    values = (*PRICES, "volume", "oi")
    first = repeats.join(kept.select(*KEY, *values), on=KEY, how="left", suffix="_first", maintain_order="left")
    same = pl.all_horizontal(pl.col(v).eq_missing(pl.col(f"{v}_first")) for v in values)
    rule = pl.when(same).then(pl.lit("duplicate_copy")).otherwise(pl.lit("duplicate_conflict"))
    return first.with_columns(rule.alias("rule")).select(pl.exclude("late", *(f"{v}_first" for v in values)))
