"""Black's formula and the variance index against published numbers, and the root finder against 50 digits."""

from datetime import UTC, date, datetime
from pathlib import Path

import mpmath
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odin_core.market.options import black76
from odin_core.market.options.variance_index import STRIP, constant_maturity, expiry_variances

# forward, strike, years, rate, volatility, is_call, price
PUBLISHED = [
    pytest.param(19, 19, 0.75, 0.10, 0.28, True, 1.7011, 5e-5, id="Haug, Complete Guide, Black-76, call"),
    pytest.param(19, 19, 0.75, 0.10, 0.28, False, 1.7011, 5e-5, id="Haug, Complete Guide, Black-76, put"),
    pytest.param(60, 60, 4 / 12, 0.09, 0.25, False, 3.35, 5e-3, id="Hull, Options Futures and Other, crude oil put"),
    pytest.param(20, 20, 4 / 12, 0.09, 0.25, True, 1.1166, 5e-5, id="MathWorks blkprice and blkimpv, call"),
]


@pytest.mark.parametrize(("f", "k", "t", "r", "v", "call", "value", "digits"), PUBLISHED)
def test_a_price_and_its_volatility_agree_with_the_published_example(f, k, t, r, v, call, value, digits):
    assert black76.price(f, k, t, r, v, call) == pytest.approx(value, abs=digits)
    assert black76.implied_volatility(value, f, k, t, r, call) == pytest.approx(v, abs=digits)


def test_volatilities_of_mathworks_example_on_two_strikes():
    """impvbyblk: four months from 2008-05-01, future at 35, put 30 costs 1.14 and call 40 costs 0.82."""
    found = black76.implied_volatility([1.14, 0.82], 35, [30, 40], 123 / 365, 0.05, [False, True])
    assert found == pytest.approx([0.4052, 0.3021], abs=2e-3)  # the year of the example is counted a little differently


def with_fifty_digits(price, f, k, t, r, call):
    """Bisection on the formula as it is printed."""
    mpmath.mp.dps = 50
    f, k, t, r = (mpmath.mpf(x) for x in (f, k, t, r))

    def value(v):
        s = v * mpmath.sqrt(t)
        d1 = mpmath.log(f / k) / s + s / 2
        sign = 1 if call else -1
        return mpmath.exp(-r * t) * sign * (f * mpmath.ncdf(sign * d1) - k * mpmath.ncdf(sign * (d1 - s)))

    low, high = mpmath.mpf("1e-6"), mpmath.mpf(50)
    for _ in range(120):
        middle = (low + high) / 2
        low, high = (middle, high) if value(middle) < price else (low, middle)
    return float(low)


@settings(deadline=None, max_examples=40)
@given(
    k=st.floats(20, 500), days=st.floats(0.05, 900), r=st.floats(-0.02, 0.15), v=st.floats(0.03, 3), call=st.booleans()
)
def test_the_volatility_of_an_option_out_of_the_money_is_exact_to_ten_digits(k, days, r, v, call):
    f, t = (k * 0.9 if call else k * 1.1), days / 365
    price = float(black76.price(f, k, t, r, v, call))
    if price < 1e-250:
        return
    expected = with_fifty_digits(price, f, k, t, r, call)
    assert black76.implied_volatility(price, f, k, t, r, call) == pytest.approx(expected, rel=1e-10)


@given(
    f=st.floats(1, 1e5),
    moneyness=st.floats(-0.7, 0.7),
    years=st.floats(1e-4, 5),
    rate=st.floats(-0.05, 0.2),
    volatility=st.floats(0.01, 4),
)
def test_put_and_call_differ_by_the_discounted_forward(f, moneyness, years, rate, volatility):
    k = f * np.exp(moneyness)
    call, put = black76.price(f, k, years, rate, volatility, [True, False])
    assert call - put == pytest.approx(np.exp(-rate * years) * (f - k), abs=1e-9 * f)


@given(
    st.lists(st.floats(-10, 1000), min_size=4, max_size=4),
    st.sampled_from([np.nan, np.inf, 0.0, -1.0]),
    st.integers(0, 3),
)
def test_what_no_volatility_explains_is_not_a_number(values, bad, place):
    terms = [*values[:place], bad, *values[place + 1 :]]
    assert np.isnan(black76.implied_volatility(*terms, 0.05, True))


def test_prices_at_their_bounds_have_no_volatility():
    discount = np.exp(-0.05)
    bounds = [discount * 10, discount * 100, discount * 9.99]  # intrinsic value, the forward itself, below intrinsic
    assert np.isnan(black76.implied_volatility(bounds, 100, 90, 1, 0.05, True)).all()
    assert np.isnan(black76.implied_volatility([0.0, discount * 90], 100, 90, 1, 0.05, False)).all()


@given(st.floats(0.01, 2), st.floats(50, 200), st.booleans())
def test_delta_is_the_slope_of_the_undiscounted_price(volatility, strike, call):
    step = 1e-3
    up, down = black76.price([100 + step, 100 - step], strike, 0.5, 0.0, volatility, call)
    assert black76.delta(100, strike, 0.5, volatility, call) == pytest.approx((up - down) / (2 * step), abs=1e-6)


CBOE = {  # Cboe, Volatility Index Methodology, the worked example: minutes to expiry, rate, forward, variance
    "near": (34_484, 0.00031664, 1962.89996, 0.019233906, date(2000, 1, 1)),
    "next": (44_954, 0.00028797, 1962.40006, 0.019423884, date(2000, 2, 1)),
}
YEAR_MINUTES = 525_600


def cboe_strip(term: str) -> pl.DataFrame:
    """Mid quotes of the example; 0 where nobody bids, some of these with quotes beyond that must not count."""
    minutes, _, forward, _, expiry = CBOE[term]
    columns = {"term": pl.String, "strike": pl.Float64, "call": pl.Float64, "put": pl.Float64}
    quotes = pl.read_csv(Path(__file__).with_name("cboe_vix_example.csv"), schema=columns).filter(
        pl.col("term") == term
    )
    return quotes.select(
        pl.lit("SPX").alias("underlying"),
        pl.lit(expiry).alias("expiry"),
        pl.lit(datetime(2000, 1, 1, tzinfo=UTC)).cast(STRIP["known_at"]).alias("known_at"),
        "strike",
        "call",
        "put",
        pl.lit(minutes / YEAR_MINUTES).alias("years"),
        pl.lit(forward).alias("forward"),
    ).select(*STRIP)


@pytest.mark.parametrize("term", CBOE)
def test_the_variance_of_cboes_worked_example(term):
    _, rate, _, variance, _ = CBOE[term]
    found = expiry_variances(cboe_strip(term).sample(fraction=1.0, shuffle=True, seed=3), rate)
    assert found["variance"].to_list() == pytest.approx([variance], abs=2e-8)  # what the printed digits allow


def test_the_index_of_cboes_worked_example_is_13_93():
    both = pl.concat([expiry_variances(cboe_strip(term), CBOE[term][1]) for term in CBOE])
    assert 100 * constant_maturity(both)["volatility"].item() == pytest.approx(13.93, abs=5e-3)


def test_quotes_beyond_two_strikes_without_a_bid_do_not_count():
    strip, rate = cboe_strip("near"), CBOE["near"][1]
    inside = strip.filter(pl.col("strike").is_between(1370, 2125))
    assert expiry_variances(strip, rate).equals(expiry_variances(inside, rate))
    inside_and_one = strip.filter(pl.col("strike").is_between(1365, 2125) | (pl.col("strike") == 1355))
    assert not expiry_variances(inside_and_one, rate).equals(expiry_variances(inside, rate))
