"""Ticks and trades as minute bars, and what was traded at each tick where the feed gives a counter of the day.

Ticks come from files with `rows: ticks` or `rows: trades` in their layout and from live streams (`intake.tap`)."""

import polars as pl

from odin_core.market.bars import MINUTE
from odin_core.market.sources.source import SOURCE_BARS

MINUTE_OF = pl.col("ts").dt.truncate("1m")


def minute_bars(ticks: pl.DataFrame) -> pl.DataFrame:
    """Ticks (TICKS, any order) as minute bars: SOURCE_BARS, sorted by symbol, ts; a minute without a tick has no row.

    `ts` of a bar is its start, the tick at 09:15:59.999 belongs to 09:15. Of ticks of one time the later row is later.
    `volume` is the sum of what was traded, null where no tick of the minute has any; `oi` is null. Prices may not be
    null or NaN."""
    price, volume = pl.col("price"), pl.col("volume")
    ordered = ticks.sort("symbol", "ts", maintain_order=True).with_columns(MINUTE_OF)
    bars = ordered.group_by("symbol", "ts", maintain_order=True).agg(
        open=price.first(),
        high=price.max(),
        low=price.min(),
        close=price.last(),
        volume=pl.when(volume.is_not_null().any()).then(volume.sum()),
        oi=pl.lit(None, pl.Float64),
    )
    return bars.select(pl.col(name).cast(dtype) for name, dtype in SOURCE_BARS.items())


def traded(ticks: pl.DataFrame) -> pl.DataFrame:
    """Ticks whose `volume` is the day's counter, with what was traded at each in its place, in the same order.

    `ticks`: symbol, ts, volume, session, open_at (of the session). The counter starts anew each session. Traded is what
    the counter grew by since the tick before; what grew before the first tick, or over a hole (no tick in the minute
    before), belongs to no minute and counts as nothing, except in the session's first minute, whose counter holds the
    auction before the open. Of ticks of one time the one with the higher counter is later. Nothing is traded at a
    counter below an earlier one, an older snapshot that came late; the next tick counts from the highest."""
    of_day = ["symbol", "session"]
    numbered = ticks.with_row_index("order").sort(*of_day, "ts", "volume", maintain_order=True)
    highest = pl.col("volume").cum_max().shift().over(of_day)
    before = MINUTE_OF.shift().over(of_day)
    is_first_minute = pl.col("open_at") == MINUTE_OF
    is_after_hole = before.is_null() | (MINUTE_OF - before > MINUTE)
    grown = (
        pl.when(before.is_null() & is_first_minute)
        .then(pl.col("volume"))
        .when(is_after_hole)
        .then(0.0)
        .otherwise(pl.max_horizontal(pl.col("volume") - highest, 0.0))
    )
    return numbered.with_columns(grown.alias("volume")).sort("order").drop("order")
