"""Indicators against the whole series that Stock.Indicators publishes for its 502 daily bars, within 1e-9 of the value.

Names, and the last row of some, are those of ORACLES.md. Nulls must be in the same rows."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from odin_core.features.engine import compute

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "oracles"

LAST = {
    "rsi_14": 42.07732356600684,
    "atr_14": 6.1497482878433045,
    "bb_upper_20_2": 273.7004230728253,
    "macd_12_26_9": -6.2197702562027075,
    "obv": 539843504,
}

SERIES = {  # name: file, the file's column, its unit in ours
    "rsi_14": ("rsi", "rsi", 1),
    "true_range": ("tr", "tr", 1),
    "atr_14": ("atr", "atr", 1),
    "natr_14": ("atr", "atrp", 100),
    "sma_20": ("bb", "sma", 1),
    "bb_upper_20_2": ("bb", "upperBand", 1),
    "bb_lower_20_2": ("bb", "lowerBand", 1),
    "percent_b_20_2": ("bb", "percentB", 1),
    "bandwidth_20_2": ("bb", "width", 1),
    "macd_12_26_9": ("macd", "macd", 1),
    "macd_12_26_9_signal": ("macd", "signal", 1),
    "macd_12_26_9_histogram": ("macd", "histogram", 1),
    "ema_12": ("macd", "fastEma", 1),
    "ema_26": ("macd", "slowEma", 1),
    "obv": ("obv", "obv", 1),
}


def published(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"needs the published series {name}, which is not beside this checkout ({FOLDER})")
    return path


@pytest.fixture(scope="module")
def quotes() -> pl.DataFrame:
    bars = pl.read_csv(published("quotes_502.csv"), try_parse_dates=True, schema_overrides={"volume": pl.Float64})
    return bars.select(pl.lit("quotes").alias("symbol"), pl.col("date").cast(pl.Datetime("us", "UTC")).alias("ts"),
                       "open", "high", "low", "close", "volume")  # fmt: skip


@pytest.mark.parametrize("name", SERIES)
def test_an_indicator_is_the_published_series(quotes: pl.DataFrame, name: str):
    file, column, unit = SERIES[name]
    rows = json.loads(published(f"{file}.json").read_text())
    expected = np.array([np.nan if row[column] is None else row[column] for row in rows], np.float64)
    actual = compute(quotes, [name])[name].fill_null(np.nan).to_numpy() * unit
    assert np.isfinite(expected).sum() > 460
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


def test_the_last_row_is_the_published_one(quotes: pl.DataFrame):
    row = compute(quotes, list(LAST)).row(-1, named=True)
    assert {name: row[name] for name in LAST} == pytest.approx(LAST, rel=1e-9)
