"""Random walks, honest features on them, and deliberate leaks that the wall has to catch."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from odin_core.evaluation.metrics import FloatArray
from odin_core.evaluation.splits import PurgedWalkForward
from odin_core.leaks import Compute, Sample

FIVE_MINUTES = timedelta(minutes=5)
WEEK = timedelta(days=7)
PER_SESSION = 36  # 5-minute bars
SYMBOLS = ("AXIS", "CIPLA", "ITC", "SBIN", "TCS", "WIPRO")
SESSION = pl.col("ts").dt.date()


def random_walks(sessions: int = 12, *, seed: int = 1, symbols: tuple[str, ...] = SYMBOLS) -> pl.DataFrame:
    """Five-minute bars (BARS) of symbols that have half of their variance in common: nothing can be forecast."""
    rng = np.random.default_rng(seed)
    n = sessions * PER_SESSION
    opened = datetime(2023, 1, 2, 3, 45, tzinfo=UTC)
    ts = [opened + timedelta(days=d) + i * FIVE_MINUTES for d in range(sessions) for i in range(PER_SESSION)]
    market = rng.normal(0, 0.001, n)
    frames = []
    for symbol in symbols:
        close = 100.0 * np.exp(np.cumsum(market + rng.normal(0, 0.001, n)))
        open_ = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 0.0002, n))
        high = np.maximum(open_, close) * (1 + rng.exponential(0.0003, n))
        low = np.minimum(open_, close) * (1 - rng.exponential(0.0003, n))
        bars = {"symbol": symbol, "ts": ts, "open": open_, "high": high, "low": low, "close": close}
        frame = pl.DataFrame(bars, schema_overrides={"ts": pl.Datetime("us", "UTC")})
        frames.append(frame.with_columns(volume=pl.Series(rng.uniform(100, 5000, n)), oi=pl.lit(None, pl.Float64)))
    every = pl.concat(frames).with_columns(known_at=pl.col("ts") + FIVE_MINUTES)
    return every.select("symbol", "ts", "known_at", "open", "high", "low", "close", "volume", "oi").sort("ts", "symbol")


def rows_of(**formulas: pl.Expr) -> Compute:
    """Rows with each formula over the bars of a symbol, oldest first, known when the bar was."""

    def compute(bars: pl.DataFrame) -> pl.DataFrame:
        values = [formula.over("symbol").alias(name) for name, formula in formulas.items()]
        return bars.sort("symbol", "ts").select("symbol", "known_at", *values)

    return compute


def change(bars: int) -> pl.Expr:
    return pl.col("close").log().diff(bars)


HIGH_SO_FAR = pl.col("high").cum_max().over(SESSION)
HONEST: Mapping[str, pl.Expr] = {
    "change_1": change(1),
    "change_12": change(12),
    "mean_distance": pl.col("close") / pl.col("close").rolling_mean(5) - 1,
    "volatility": change(1).rolling_std(12),
    "volume_surprise": pl.col("volume") / pl.col("volume").rolling_mean(12) - 1,
    "high_so_far": HIGH_SO_FAR / pl.col("close") - 1,
    "bars_today": pl.int_range(pl.len()).over(SESSION).cast(pl.Float64),
}
LEAKS: Mapping[str, pl.Expr] = {
    "next_change": -change(-1),
    "centred_mean": pl.col("close") / pl.col("close").rolling_mean(5, center=True) - 1,
    "high_of_the_whole_day": pl.col("high").max().over(SESSION) / pl.col("close") - 1,
    "next_change_with_noise": -change(-1) + 0.5 * (pl.col("volume").log() - 7.0) * 0.002,
}
"""Each of these is strong enough to be caught by all six checks."""


def standardised_over_everything(bars: pl.DataFrame) -> pl.DataFrame:
    """An honest value less the mean of the whole history, over its deviation: too weak a leak to forecast anything."""
    value = change(12)
    scaled = {"standardised": ((value - value.mean()) / value.std())}
    return rows_of(**scaled)(bars)


def stamped_at_the_start(bars: pl.DataFrame) -> pl.DataFrame:
    """Rows that claim to be known when their bar begins."""
    stamped = bars.with_columns(known_at=pl.col("ts"))
    return rows_of(change_1=change(1))(stamped)


def known_after_five_minutes(bars: pl.DataFrame) -> pl.DataFrame:
    """Rows that take the bar's start and five minutes for the time at which it was known."""
    stamped = bars.with_columns(known_at=pl.col("ts") + FIVE_MINUTES)
    return rows_of(change_1=change(1))(stamped)


def by_the_clock(bars: pl.DataFrame) -> pl.DataFrame:
    """Honest otherwise, but it knows what date it is."""
    return rows_of(change_since=change(1) * (pl.col("ts").dt.date() > datetime(2023, 1, 6).date()))(bars)


def warned_of_crashes(bars: pl.DataFrame) -> pl.DataFrame:
    """Whether the next bar closes a tenth away. It never does here, so only another future shows the leak."""
    return rows_of(warned=(change(-1).abs() > 0.1).fill_null(False))(bars)


def only_before_a_next_bar(bars: pl.DataFrame) -> pl.DataFrame:
    """An honest value, of rows that are there only if there is a next bar."""
    rows = rows_of(change_1=change(1), there=change(-1))(bars)
    return rows.filter(pl.col("there").is_not_null()).drop("there")


def linear(sample: Sample) -> FloatArray:
    """Least squares on standardised features in a purged walk-forward: a learner of milliseconds."""
    X = np.nan_to_num((sample.features - np.nanmean(sample.features, axis=0)) / np.nanstd(sample.features, axis=0))
    predictions = np.full(len(X), np.nan)
    for train, test in PurgedWalkForward(n_splits=3, embargo=1).split(X, groups=sample.times):
        weights = np.linalg.lstsq(X[train], sample.outcomes[train], rcond=None)[0]
        predictions[test] = X[test] @ weights
    return predictions
