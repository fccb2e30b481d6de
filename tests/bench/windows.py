"""Windows for a sequence model: random batches of 1024 windows of 512 minutes and 40 features, out of 25 symbols × 252
sessions (2.36 M rows), as a learner asks for them.

Peers: each window sliced out of the frame and the slices stacked, with no mask and no flags; and bare numpy, one index
per row. Memory: what a batch needs beside the rows, and the size of the batch itself."""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from yearofbars import CALENDAR

from odin_core.features.windows import SequenceWindows

SYMBOLS, SESSIONS, MINUTES, FEATURES, LENGTH, BATCH = 25, 252, 375, 40, 512, 1024
MICROSECONDS = 60_000_000  # a minute's
REPEATS = 7
NAMES = [f"feature_{n:02}" for n in range(FEATURES)]


def run() -> list[dict[str, Any]]:
    """Windows per second beside both peers, rows per second of building beside polars' matrix, MB; medians of seven."""
    frame = year_of_features()
    windows = SequenceWindows.of(frame, NAMES, CALENDAR, "1m", length=LENGTH)
    full = np.flatnonzero(windows.last % (SESSIONS * MINUTES) >= LENGTH - 1)  # all rows are usable: window = row
    rng = np.random.default_rng(4)

    batches: dict[str, Callable[[np.ndarray], object]] = {
        "ours": windows.batch,
        "slices of the frame, stacked": lambda last: sliced(frame, last),
        "numpy, one index per row": lambda last: indexed(windows, last),
    }
    rate = {name: BATCH / s for name, s in in_turn(batches, lambda: rng.choice(full, BATCH)).items()}
    builds: dict[str, Callable[[pl.DataFrame], object]] = {
        "ours": lambda frame: SequenceWindows.of(frame, NAMES, CALENDAR, "1m", length=LENGTH),
        "polars to_numpy alone": lambda frame: frame.select(NAMES).to_numpy(order="c"),
    }
    built = {name: frame.height / s for name, s in in_turn(builds, lambda: frame).items()}
    rows = [row("windows", rate["ours"], "windows/s", peer, rate[peer]) for peer in list(rate)[1:]]
    rows += [row("windows_built", built["ours"], "rows/s", peer, built[peer]) for peer in list(built)[1:]]
    size = sum(array.nbytes for array in windows.batch(full[:BATCH])) / 1e6
    peak = peak_mb(lambda: windows.batch(rng.choice(full, BATCH)))
    return [*rows, row("windows_batch_peak_mb", peak, "MB beside the rows", "the batch itself", size)]


def row(bench: str, value: float, unit: str, peer: str, peer_value: float) -> dict[str, Any]:
    return {"bench": bench, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value}


def year_of_features() -> pl.DataFrame:
    """Random numbers as features of every minute."""
    days = [day for day in CALENDAR.sessions() if CALENDAR.minutes(day) == MINUTES][:SESSIONS]
    opens = pl.Series([CALENDAR.hours(day).open for day in days], dtype=pl.Datetime("us", "UTC")).to_physical()
    known_at = (opens.to_numpy()[:, None] + np.arange(1, MINUTES + 1) * MICROSECONDS).ravel()
    keys = {"symbol": np.repeat([f"SYM{n:03}" for n in range(SYMBOLS)], len(known_at)),
            "known_at": pl.Series(np.tile(known_at, SYMBOLS)).cast(pl.Datetime("us", "UTC"))}  # fmt: skip
    rng = np.random.default_rng(3)
    count = SYMBOLS * len(known_at)
    return pl.DataFrame(keys | {name: rng.standard_normal(count, dtype=np.float32) for name in NAMES})


def sliced(frame: pl.DataFrame, last: np.ndarray) -> np.ndarray:
    features = frame.select(NAMES)
    return np.stack([features.slice(at - LENGTH + 1, LENGTH).to_numpy() for at in last.tolist()])


def indexed(windows: SequenceWindows, last: np.ndarray) -> np.ndarray:
    return windows.rows.values[last[:, None] + np.arange(1 - LENGTH, 1)]


def in_turn(works: Mapping[str, Callable[[Any], object]], given: Callable[[], Any]) -> dict[str, float]:
    """Seconds of each work on the same things, one after the other; medians, after one round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS + 1):
        thing = given()
        for name, work in works.items():
            start = time.perf_counter()
            work(thing)
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in taken.items()}


def peak_mb(work: Callable[[], object]) -> float:
    """How far this process's resident memory rises above what it is before."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = resident_mb()
    result = work()
    peak = resident_mb()
    del result
    return peak - before


def resident_mb() -> float:
    """The highest resident memory since it was last forgotten."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3 * 1.024
