"""Speed and memory of features: 40 rolling ones of minute bars, on 2.36 M of them (50 symbols, 126 sessions).

Ours is `evaluate` in memory, to float32, one thread per core: every value from its own session and the bars before it
alone. The peers compute textbook series, from each symbol's first bar on: pandas' `rolling` and `ewm`, and polars, for
the ten of the forty that take a line there, so their bars/s are of those ten, divided by four.

Memory: a process of its own reads the bars from a file and computes; what it needed at its highest beside what it had
before (resident memory, so output and all copies included), over the size of the bars."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
from yearofbars import CALENDAR, SESSIONS, session

from odin_core.features.catalogue import Feature, named
from odin_core.features.engine import Rows, evaluate
from odin_core.features.filling import Span

USED = SESSIONS[:126]  # × 50 symbols × 375 minutes = 2.36 M
REPEATS = 5
PER_SESSION = {"1m": 375, "5m": 75, "15m": 25, "60m": 7, "day": 1}
NAMES = (
    "sma_gap_20", "sma_gap_50", "ema_gap_20", "sma_cross_5_20", "sma_cross_20_50", "ema_cross_12_26",
    "macd_share_12_26_9", "macd_share_signal_12_26_9", "macd_share_histogram_12_26_9", "rsi_14", "stoch_k_14_3_3",
    "stoch_d_14_3_3", "cci_20", "willr_14", "percent_b_20_2", "bandwidth_20_2", "natr_14", "adx_14", "plus_di_14",
    "minus_di_14", "trend_18", "mfi_14", "obv_slope_20", "volume_z_1_20", "vwap_gap", "log_return_1", "log_return_3",
    "log_return_12", "log_return_60", "bar_gap", "bar_range", "body", "realised_volatility_18",
    "realised_volatility_75", "parkinson_20", "garman_klass_20", "rogers_satchell_20", "yang_zhang_20",
    "volatility_ratio_12_60", "upper_wick",
)  # fmt: skip
TEN = 10 / len(NAMES)  # the share of the work that the peers do


def run() -> list[dict[str, Any]]:
    """Bars per second beside both peers, medians of five; memory over the input, one run."""
    bars = minutes()
    frame = bars.to_pandas()
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: computed(bars),
        "pandas rolling, ten features": lambda: with_pandas(frame),
        "polars expressions, ten features": lambda: with_polars(bars),
    }
    rate = {name: bars.height / median_seconds(work, once=name != "ours") for name, work in works.items()}
    unit = f"bars/s, {len(NAMES)} features"
    rows = [row("features", rate["ours"], unit, peer, rate[peer] * TEN) for peer in list(rate)[1:]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.parquet"
        bars.write_parquet(path)
        command = [sys.executable, __file__, str(path)]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    peak, size = map(float, done.stdout.split())
    return [*rows, row("features_peak_mb", peak, "MB beside the bars", "the bars themselves", size)]


def row(bench: str, value: float, unit: str, peer: str, peer_value: float) -> dict[str, Any]:
    return {"bench": bench, "value": value, "unit": unit, "peer": peer, "peer_value": peer_value}


def features() -> list[Feature]:
    return [named(f"{name}_1m") for name in NAMES]


def minutes() -> pl.DataFrame:
    return pl.concat([session(day) for day in USED]).sort("symbol", "ts")


def computed(bars: pl.DataFrame) -> Rows:
    return evaluate({"1m": bars}, features(), "1m", Span([CALENDAR.hours(day) for day in USED], 0, PER_SESSION))


def with_polars(bars: pl.DataFrame) -> pl.DataFrame:
    close, change = pl.col("close"), pl.col("close").log().diff()
    low, high = pl.col("low").rolling_min(14), pl.col("high").rolling_max(14)
    mean, deviation = close.rolling_mean(20), close.rolling_std(20, ddof=0)
    up, down = close.diff().clip(lower_bound=0), -close.diff().clip(upper_bound=0)
    gain, loss = (x.ewm_mean(alpha=1 / 14, adjust=False) for x in (up, down))
    volume = pl.col("volume")
    expressions = {
        "sma_gap_20": close / mean - 1,
        "sma_gap_50": close / close.rolling_mean(50) - 1,
        "ema_gap_20": close / close.ewm_mean(span=20, adjust=False) - 1,
        "ema_cross_12_26": close.ewm_mean(span=12, adjust=False) / close.ewm_mean(span=26, adjust=False) - 1,
        "rsi_14": 100 * gain / (gain + loss),
        "willr_14": -100 * (high - close) / (high - low),
        "percent_b_20_2": (close - mean + 2 * deviation) / (4 * deviation),
        "volume_z_1_20": (volume - volume.rolling_mean(20)) / volume.rolling_std(20),
        "log_return_12": close.log().diff(12),
        "realised_volatility_18": (change**2).rolling_sum(18).sqrt(),
    }
    return bars.select(e.over("symbol").cast(pl.Float32).alias(name) for name, e in expressions.items())


def with_pandas(frame: Any) -> pd.DataFrame:
    by = frame["symbol"]
    close, volume = frame["close"], frame["volume"]

    def of(column: Any, window: int, what: str, **options: int) -> Any:
        rolled = column.groupby(by, sort=False).rolling(window)
        return getattr(rolled, what)(**options).reset_index(level=0, drop=True)

    def ewm(column: Any, **options: float) -> Any:
        return column.groupby(by, sort=False).ewm(adjust=False, **options).mean().reset_index(level=0, drop=True)

    step, log = close.groupby(by, sort=False).diff(), np.log(close)
    gain, loss = ewm(step.clip(lower=0), alpha=1 / 14), ewm(-step.clip(upper=0), alpha=1 / 14)
    low, high = of(frame["low"], 14, "min"), of(frame["high"], 14, "max")
    mean, deviation = of(close, 20, "mean"), of(close, 20, "std", ddof=0)
    change = log.groupby(by, sort=False).diff()
    columns = {
        "sma_gap_20": close / mean - 1,
        "sma_gap_50": close / of(close, 50, "mean") - 1,
        "ema_gap_20": close / ewm(close, span=20) - 1,
        "ema_cross_12_26": ewm(close, span=12) / ewm(close, span=26) - 1,
        "rsi_14": 100 * gain / (gain + loss),
        "willr_14": -100 * (high - close) / (high - low),
        "percent_b_20_2": (close - mean + 2 * deviation) / (4 * deviation),
        "volume_z_1_20": (volume - of(volume, 20, "mean")) / of(volume, 20, "std"),
        "log_return_12": log.groupby(by, sort=False).diff(12),
        "realised_volatility_18": np.sqrt(of(change**2, 18, "sum")),
    }
    return pd.DataFrame(columns).astype("float32")


def median_seconds(work: Callable[[], object], *, once: bool) -> float:
    if once:  # peers take long; nothing is compiled in them
        return seconds(work)
    work()
    return statistics.median(seconds(work) for _ in range(REPEATS))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def resident_mb(name: str) -> float:
    """VmRSS, what this process holds now, or VmHWM, the most since that was last forgotten."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) * 1.024e-3


def measure(path: Path) -> None:
    """Print how far computing the features of a file's bars raises this process, and the size of the bars, in MB."""
    bars = pl.read_parquet(path).rechunk()
    evaluate({"1m": bars.head(375)}, features(), "1m", Span([CALENDAR.hours(USED[0])], 0, PER_SESSION))  # compiles
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = resident_mb("VmRSS")
    found = computed(bars)
    print(resident_mb("VmHWM") - before, bars.estimated_size() / 1e6)
    del found


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
