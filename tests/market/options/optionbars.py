"""Option bars for tests: invented chains of a known smile, and the recorded ones in a lake."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
from realdata import market_file

from odin_core.lake import Lake
from odin_core.market.bars import BARS, MINUTE
from odin_core.market.options import black76
from odin_core.market.options.chains import CHAIN
from odin_core.market.sources.source import INSTRUMENTS

OPEN = datetime(2024, 1, 24, 3, 45, tzinfo=UTC)
NEAR, FAR = date(2024, 2, 1), date(2024, 2, 29)
FUTURES, OPTIONS = "nse_futures_index_1m.parquet", "nse_options_1m.parquet"


def bar(
    symbol: str, minute: int, close: float, volume: float | None = 50.0, oi: float | None = None
) -> dict[str, object]:
    """A one-minute bar that starts `minute` minutes after OPEN; its four prices are the same."""
    ts = OPEN + minute * MINUTE
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    return {"symbol": symbol, "ts": ts, "known_at": ts + MINUTE, **prices, "volume": volume, "oi": oi}


def frame(bars: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(bars, schema=BARS)


def option(symbol: str, strike: float, right: str, expiry: date = NEAR, underlying: str = "NIFTY") -> dict[str, object]:
    terms = {"underlying": underlying, "expiry": expiry, "strike": strike, "right": right}
    return {"symbol": symbol, "kind": "option", **terms}


def instruments(options: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(options, schema=INSTRUMENTS)


def smile_chain(
    expiries: dict[date, datetime], forward: float, strikes: list[float], rate: float, smile, known_at: datetime = OPEN
) -> pl.DataFrame:
    """A chain (CHAIN) whose prices are Black's with volatility `smile(strike)`, all of them fresh."""
    rows = []
    for expiry, expires_at in expiries.items():
        years = (expires_at - known_at) / timedelta(days=365)
        for strike in strikes:
            call, put = black76.price(forward, strike, years, rate, smile(strike), np.array([True, False]))
            prices = {"call_price": call, "put_price": put, "call_age": 0.0, "put_age": 0.0}
            rows.append({"underlying": "NIFTY", "expiry": expiry, "strike": strike, "known_at": known_at, **prices})
    return pl.DataFrame(rows, schema=CHAIN)


def recorded(lake: Lake) -> Lake:
    """The recorded option, index and future bars of January 2024, brought into a lake by session."""
    files = [pl.read_parquet(market_file(name)) for name in (OPTIONS, FUTURES)]
    bars = pl.concat([file.with_columns(known_at=pl.col("ts") + MINUTE).select(*BARS) for file in files])
    for (session,), rows in bars.group_by(pl.col("ts").dt.date(), maintain_order=True):
        lake.write("price_history", session, rows.sort("symbol", "ts"))
    return lake
