"""What tests of sources share: bars that differ from each other, and all that an error tells."""

import traceback
from datetime import datetime, timedelta

import polars as pl

from odin_core.market.sources.source import SOURCE_BARS


def series(
    symbol: str, start: datetime, n: int, step: timedelta = timedelta(minutes=1), *, oi: bool = False, at: float = 100.0
) -> pl.DataFrame:
    """`n` bars (SOURCE_BARS) of a symbol with prices around `at` that tell each bar from any other."""
    i = pl.int_range(n, eager=True).cast(pl.Float64)
    return pl.DataFrame(
        {
            "symbol": pl.repeat(symbol, n, eager=True),
            "ts": pl.Series([start + step * k for k in range(n)], dtype=SOURCE_BARS["ts"]),
            "open": at + i / 20,
            "high": at + 1 + i / 20,
            "low": at - 1 + i / 20,
            "close": at + 0.5 + i / 20,
            "volume": 1000 + i,
            "oi": 5000 + 50 * i if oi else pl.Series([None] * n, dtype=pl.Float64),
        },
        schema=SOURCE_BARS,
    )


def whole_story(error: BaseException) -> str:
    """What a traceback prints and, beyond that, every exception that hangs on the error."""
    told, seen = "".join(traceback.format_exception(error)), error
    while seen := seen.__cause__ or seen.__context__:  # type: ignore[assignment]
        told += repr(seen) + str(vars(seen))
    return told
