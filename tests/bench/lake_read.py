"""How long it takes to read a year of minute bars by symbol and range from the lake, one file per session.

The peer is the same rows in one Parquet file, written by symbol and read with the same filter; that one could not be
written session by session."""

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
from timing import seconds
from yearofbars import CALENDAR, SESSIONS, SYMBOLS, session

from odin_core.lake import Lake
from odin_core.market.history import read_bars

REPEATS = 7
ASKED = {
    "lake_read": (SYMBOLS, "1m"),
    "lake_read_1_symbol": (SYMBOLS[17:18], "1m"),
    "lake_read_50_as_60m": (SYMBOLS, "60m"),
}
PEER = "minute bars from one file, sorted by symbol"


def run() -> list[dict[str, Any]]:
    """Seconds, medians of seven with files in the page cache: all 50 symbols, one of them, one as hours."""
    with tempfile.TemporaryDirectory() as folder:
        lake, single = Lake(Path(folder) / "lake"), Path(folder) / "year.parquet"
        for day in SESSIONS:
            lake.write("price_history", day, session(day))
        pl.concat([lake.read("price_history", day) for day in SESSIONS]).sort("symbol", "ts").write_parquet(
            single, compression="zstd", compression_level=1
        )
        rows = []
        for bench, (symbols, interval) in ASKED.items():
            ours = seconds(
                lambda s=symbols, i=interval: read_bars(lake, CALENDAR, SESSIONS, symbols=s, interval=i), REPEATS
            )
            peer = seconds(lambda s=symbols: one_file(single, s), REPEATS)
            rows.append({"bench": bench, "value": ours, "unit": "s", "peer": PEER, "peer_value": peer})
    return rows


def one_file(path: Path, symbols: list[str]) -> pl.DataFrame:
    return pl.scan_parquet(path).filter(pl.col("symbol").is_in(symbols)).collect()
