"""Fractal pivots against the series that others published, read where they lie, beside the checkout."""

import json
from pathlib import Path

import polars as pl
import pytest

from odin_core.structure.pivots import fractal_pivots

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "oracles"


def oracle_file(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"needs the published series {name}, which is not beside this checkout ({FOLDER})")
    return path


def test_the_highs_of_ta4j():
    """The example of ta4j's tests."""
    high = pl.Series([10.0, 12, 15, 13, 11, 16, 14, 12, 11])
    bars = pl.DataFrame({"symbol": "X", "high": high, "low": high - 100, "close": high - 1})
    pivots = fractal_pivots(bars, left=2, right=2).filter(kind="high")
    assert pivots.rows() == [("X", "high", 2, 4, 15.0), ("X", "high", 5, 7, 16.0)]


def test_the_fractals_of_stock_indicators():
    published = json.loads(oracle_file("fractal.json").read_text())
    bars = pl.read_csv(oracle_file("quotes_502.csv"), try_parse_dates=True)
    pivots = fractal_pivots(bars)
    assert len(published) == bars.height == 502
    for kind, name in (("high", "fractalBear"), ("low", "fractalBull")):
        expected = {i: row[name] for i, row in enumerate(published) if row[name] is not None}
        found = pivots.filter(kind=kind)
        assert dict(zip(found["index"], found["price"], strict=True)) == expected
        assert len(expected) > 60
    assert (pivots["confirmed_index"] == pivots["index"] + 2).all()
