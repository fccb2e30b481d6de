"""A vendor whose whole record is a frame in memory, with a log of what it was asked and faults to order."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from odin_core.market.bars import MINUTE
from odin_core.market.calendar import SessionCalendar
from odin_core.market.sources.source import INSTRUMENTS, SOURCE_BARS, SourceRefused, SourceUnavailable


def recorded(
    symbols: Sequence[str], sessions: Sequence[date], calendar: SessionCalendar, seed: int = 1
) -> pl.DataFrame:
    """SOURCE_BARS: a bar for each minute of each session and symbol, of made-up prices."""
    rng = np.random.default_rng(seed)
    frames = []
    for session in sessions:
        start, end = calendar.hours(session)
        ts = pl.datetime_range(start, end - MINUTE, timedelta(minutes=1), time_unit="us", eager=True)
        for symbol in symbols:
            close = 100 * np.exp(np.cumsum(0.001 * rng.standard_normal(len(ts))))
            frames.append(pl.DataFrame({
                "symbol": symbol, "ts": ts, "open": close, "high": close + 0.1, "low": close - 0.1, "close": close,
                "volume": rng.integers(1, 1000, len(ts)).astype(float), "oi": None,
            }, schema=SOURCE_BARS))  # fmt: skip
    return pl.concat(frames)


class RecordedSource:
    """`asked` logs (symbol, first session asked, last). After `fails_after` answers every further one fails."""

    intervals = ("1m",)

    def __init__(
        self,
        record: pl.DataFrame,
        fails_after: int | None = None,
        refuses: Sequence[str] = (),
        opens_early: timedelta = timedelta(0),
    ) -> None:
        self.record, self.fails_after, self.refuses, self.opens_early = record, fails_after, refuses, opens_early
        self.asked: list[tuple[str, date, date]] = []

    def instruments(self) -> pl.DataFrame:
        symbols = self.record["symbol"].unique().sort()
        return pl.DataFrame({"symbol": symbols, "kind": ["equity"] * len(symbols)}).select(
            pl.col(name) if name in ("symbol", "kind") else pl.lit(None, dtype).alias(name)
            for name, dtype in INSTRUMENTS.items()
        )

    def bars(self, symbols: Sequence[str], interval: str, start: datetime, end: datetime) -> pl.DataFrame:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise SourceUnavailable("recorded", "bars", "it hung up", 1)
        if symbols[0] in self.refuses:
            raise SourceRefused("recorded", symbols[0], "no subscription")
        self.asked.append((symbols[0], start.date(), end.date()))
        since = start - self.opens_early  # a vendor whose daily stamps lie before the open finds them by their day
        return self.record.filter(pl.col("symbol").is_in(symbols), pl.col("ts") >= since, pl.col("ts") < end)
