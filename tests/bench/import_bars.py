"""Import of a file of minute bars into the lake: a year of 25 symbols, 2.36 million rows, and half of it for memory.

The peer is the plain alternative, a Parquet rewrite: read the file, write the same rows partitioned by session. Each
runs in a process of its own. Memory is flat if the whole file needs no more than a part of it."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile

SYMBOLS, SESSIONS, MINUTES = 25, 252, 375
REPEATS = 3
FIRST = 2015  # the year

IMPORT = """
import sys
from pathlib import Path
from odin_core.lake import Lake
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.importing import import_files
from odin_core.market.profile import load_profile
work = lambda: import_files([Path(sys.argv[1])], lake=Lake(Path(sys.argv[2])), calendar=CALENDAR)
CALENDAR = session_calendar(load_profile("nse"))
"""
REWRITE = """
import sys
import polars as pl
from pathlib import Path
from odin_core.lake import Lake
def work():
    lake = Lake(Path(sys.argv[2]))
    bars = pl.read_parquet(sys.argv[1]).with_columns(session=pl.col("ts").dt.date())
    for (session,), rows in bars.partition_by("session", as_dict=True, include_key=False).items():
        lake.write("price_history", session, rows)
"""
MEASURE = """
import json, resource, time
start = time.perf_counter()
work()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([time.perf_counter() - start, peak]))
"""


def run() -> list[dict[str, Any]]:
    """Three rows: seconds (medians); MB of the import beside its own on half of the sessions, and the rewrite's."""
    with tempfile.TemporaryDirectory() as folder:
        whole, part = (written(Path(folder) / f"bars{n}.parquet", n) for n in (SESSIONS, SESSIONS // 2))
        seconds, peak = measured(IMPORT, whole, REPEATS)
        peer_seconds, peer_peak = measured(REWRITE, whole, REPEATS)
        part_peak = measured(IMPORT, part, 1)[1]
    rows = f"{SYMBOLS * SESSIONS * MINUTES / 1e6:.2f} M rows"
    return [
        row("import_bars", seconds, "s", f"plain Parquet rewrite of the same {rows}", peer_seconds),
        row("import_bars_peak_mb", peak, "MB", "half of the sessions", part_peak),
        row("import_bars_peak_mb_rewrite", peak, "MB", "plain Parquet rewrite", peer_peak),
    ]


def row(bench: str, value: float, unit: str, peer: str, peer_value: float) -> dict[str, Any]:
    return {"bench": bench, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value}


def written(path: Path, sessions: int) -> Path:
    """A file of that many sessions from FIRST on, sorted by symbol and time: a random walk with spread bars."""
    calendar = session_calendar(load_profile("nse"))
    days = [day for day in calendar.sessions() if day.year >= FIRST and calendar.minutes(day) == MINUTES][:sessions]
    opens = np.array([calendar.hours(day)[0].replace(tzinfo=None) for day in days], dtype="datetime64[us]")
    ts = (opens[:, None] + np.arange(MINUTES) * np.timedelta64(timedelta(minutes=1))).ravel()
    rng, frames = np.random.default_rng(5), []
    for n in range(SYMBOLS):
        close = 500 * np.exp(np.cumsum(rng.normal(0, 0.0006, len(ts))))
        open_ = np.append(500.0, close[:-1])
        wick = 0.2 * np.abs(rng.normal(size=(2, len(ts))))
        prices = (open_, np.maximum(open_, close) + wick[0], np.minimum(open_, close) - wick[1], close)
        named = dict(zip(("open", "high", "low", "close"), (p.round(2) for p in prices), strict=True))
        volume = rng.integers(100, 10_000, len(ts)).astype(np.float64)
        frames.append(pl.DataFrame({"ts": ts, "symbol": f"S{n:03}", **named, "volume": volume}))
    whole = pl.concat(frames).with_columns(pl.col("ts").dt.replace_time_zone("UTC"))
    whole.write_parquet(path, row_group_size=131_072)
    return path


def measured(work: str, path: Path, repeats: int) -> tuple[float, float]:
    """Median seconds and highest MB of a piece of work on a file, each time in a new process and into a new lake."""
    found = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as lake:
            command = [sys.executable, "-c", work + MEASURE, str(path), lake]
            said = subprocess.run(command, check=True, capture_output=True, text=True, env=dict(os.environ)).stdout
        found.append(json.loads(said))
    return statistics.median(seconds for seconds, _ in found), max(peak for _, peak in found)


if __name__ == "__main__":
    for line in run():
        print(line)
