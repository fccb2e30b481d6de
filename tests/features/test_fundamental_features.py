"""Fundamental features: from recorded figures and by hand, and NaN for whatever is not known."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from realdata import market_file

from odin_core.features.catalogue import Feature, features_of
from odin_core.features.facts import Facts
from odin_core.features.fundamental import REPORTED
from odin_core.features.series import FloatArray

FEATURES = features_of("fundamental")
EACH = pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f.name)
FILES = ("fundamentals_nse_pit", "fundamentals_nse_snapshot", "fundamentals_sp500_snapshot")
MARKET_CAP = "mcap_lakh_20230331"  # the column that becomes the figure market_cap
FIGURE = st.sampled_from([math.nan, 0.0, -3.0, 1e-3, 0.5, 12.0, 3000.0])


def told(columns: dict[str, list[float]], ages: dict[str, list[float]] | None = None) -> Facts:
    known = {name: np.array(x) for name, x in columns.items()}
    rows = max(map(len, columns.values()))
    age_days = {name: np.array((ages or {}).get(name, [10.0] * rows)) for name in columns}
    return Facts(known, age_days, np.full(rows, 100.0))


def value_of(name: str, facts: Facts) -> FloatArray:
    (feature,) = (f for f in FEATURES if f.name == name)
    with np.errstate(all="raise"):
        return feature.definition.formula(facts)


@EACH
@given(st.data())
def test_a_value_is_a_number_or_nan_whatever_the_figures(feature: Feature, data: st.DataObject):
    needs = sorted(feature.definition.needs)
    facts = told({name: [data.draw(FIGURE), data.draw(FIGURE)] for name in needs})
    before = {name: x.copy() for name, x in facts.columns.items()}
    found = value_of(feature.name, facts)
    assert found.shape == (2,)
    assert not np.isinf(found).any()
    for name, x in before.items():
        np.testing.assert_array_equal(facts.columns[name], x)


@EACH
def test_what_is_not_known_is_nan(feature: Feature):
    nothing = told({name: [math.nan] * 3 for name in feature.definition.needs})
    assert np.isnan(value_of(feature.name, nothing)).all()


@pytest.mark.parametrize(
    ("name", "figures", "expected"),
    [
        ("earnings_yield", {"pe": 25.0}, 0.04),
        ("earnings_yield", {"pe": -10.0}, -0.1),
        ("earnings_yield", {"pe": 0.0}, math.nan),
        ("earnings_yield_to_sector", {"pe": 20.0, "sector_pe": 25.0}, 0.01),
        ("book_yield", {"pb_ratio": 4.0, "price_book": 7.0}, 0.25),
        ("book_yield", {"pb_ratio": math.nan, "price_book": 5.0}, 0.2),
        ("dividend_yield", {"dividend_yield_pct": 1.5, "dividend_yield": 0.07}, 0.015),
        ("dividend_yield", {"dividend_yield_pct": math.nan, "dividend_yield": 0.015}, 0.015),
        ("return_on_equity", {"roe_pct": 18.0}, 0.18),
        ("return_on_capital", {"roce_pct": 22.0}, 0.22),
        ("profit_margin", {"net_profit_margin_pct": 9.0}, 0.09),
        ("debt_to_equity", {"debt_equity": 0.6}, 0.6),
        ("sales_growth", {"revenue_cagr_pct": 12.0, "sales_growth_3y_pct": 50.0}, 0.12),
        ("earnings_growth", {"eps_cagr_pct": math.nan, "eps_growth_3y_pct": -8.0}, -0.08),
        ("log_market_value", {"market_cap": math.e**27}, 27.0),
        ("log_market_value", {"market_cap": 0.0}, math.nan),
        ("promoter_share", {"promoter_holding_pct": 51.0}, 0.51),
        ("pledged_share", {"pledge_pct": 3.0}, 0.03),
        ("institutions_change", {"fii_change_pct": -2.0, "dii_change_pct": 3.0}, 0.01),
    ],
)
def test_a_feature_has_the_value_and_the_unit_that_it_says(name: str, figures: dict[str, float], expected: float):
    found = value_of(name, told({figure: [value] for figure, value in figures.items()}))
    assert found == pytest.approx(expected, nan_ok=True)


def test_the_age_is_that_of_the_newest_figure_that_has_a_value():
    nothing = {name: [math.nan, math.nan] for name in REPORTED}
    ages = {name: [math.nan, math.nan] for name in REPORTED} | {"pe": [3.0, 3.0], "roe_pct": [40.0, 40.0]}
    known = nothing | {"pe": [20.0, math.nan], "roe_pct": [15.0, 15.0]}  # in the second row P/E is said to be unknown
    assert value_of("figures_age", told(known, ages)).tolist() == [3.0, 40.0]
    assert np.isnan(value_of("figures_age", told(nothing, ages))).all()


@pytest.mark.parametrize("name", FILES)
def test_recorded_figures_are_read_under_the_names_that_files_give_them(name: str):
    raw = pl.read_parquet(market_file(f"{name}.parquet")).rename({MARKET_CAP: "market_cap"}, strict=False)
    numeric = [c for c, dtype in raw.schema.items() if dtype.is_numeric()]
    figures = {c: raw[c].cast(pl.Float64).fill_null(np.nan).to_numpy() for c in numeric}
    unknown = np.full(raw.height, np.nan)
    covered = []
    for feature in FEATURES:
        columns = {need: figures.get(need, unknown) for need in feature.definition.needs}
        facts = Facts(columns, {need: np.full(raw.height, 5.0) for need in columns}, np.ones(raw.height))
        found = value_of(feature.name, facts)
        if np.isfinite(found).mean() > 0.5:
            covered.append(feature.name)
        low, high = feature.definition.bounds
        assert ((found >= low) & (found <= high) | np.isnan(found)).all()
    at_least = {"fundamentals_nse_pit": 5, "fundamentals_nse_snapshot": 14, "fundamentals_sp500_snapshot": 5}
    assert len(covered) >= at_least[name], covered


def test_every_figure_that_is_asked_for_is_in_a_recorded_file():
    names = {column for file in FILES for column in pl.read_parquet_schema(market_file(f"{file}.parquet"))}
    assert {need for feature in FEATURES for need in feature.definition.needs} - {"market_cap"} <= names
    assert MARKET_CAP in names
