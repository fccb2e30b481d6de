"""Minute bars: their schema, and larger intervals made from them.

A bar is stamped with its *start* (`ts`) and may be used from its *end* (`known_at`), both UTC. Prices are raw;
`factor` is the adjustment known on the session itself (1.0 until a corporate action is known)."""

import polars as pl

UTC = pl.Datetime("us", "UTC")

BARS = pl.Schema(
    {
        "symbol": pl.String(),
        "ts": UTC,  # start of the bar
        "known_at": UTC,  # end of the bar
        "open": pl.Float64(),
        "high": pl.Float64(),
        "low": pl.Float64(),
        "close": pl.Float64(),
        "volume": pl.Float64(),  # null where the source has none
        "factor": pl.Float64(),
    }
)
KEY = ("symbol", "ts")
