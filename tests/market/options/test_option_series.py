"""Series of an underlying: ratios by hand, max pain by brute force, volatilities of a chain whose smile is known."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optionbars import FAR, NEAR, OPEN, smile_chain
from polars.testing import assert_frame_equal

from odin_core.market.options.chains import PRICED, priced
from odin_core.market.options.series import OPTION_SERIES, max_pain_strike, option_series
from odin_core.market.options.variance_index import constant_maturity, expiry_variances

RATE, FORWARD = 0.065, 21517.3
ENDS = {NEAR: OPEN + timedelta(days=8), FAR: OPEN + timedelta(days=36)}
EXPIRIES = pl.DataFrame({"expiry": list(ENDS), "expires_at": list(ENDS.values())})
WIDE = [15000.0 + 50 * i for i in range(261)]


def flat(_strike):
    return 0.18


def tilted(strike):
    return 0.15 + 0.5 * (1 - strike / FORWARD)


def series_of(chain, rate=RATE):
    return option_series(priced(chain, EXPIRIES, rate), rate)


def with_interest(chain, **columns):
    return chain.with_columns(pl.Series(name, values, pl.Float64) for name, values in columns.items())


def pain(settlement, strikes, calls, puts):
    return sum(
        c * max(settlement - k, 0) + p * max(k - settlement, 0) for k, c, p in zip(strikes, calls, puts, strict=True)
    )


@given(
    st.lists(
        st.tuples(st.integers(1, 400), st.integers(0, 10**7), st.integers(0, 10**7)),
        min_size=1,
        max_size=30,
        unique_by=lambda row: row[0],
    )
)
def test_max_pain_agrees_with_all_payoffs_one_by_one(rows):
    strikes, calls, puts = (list(column) for column in zip(*sorted((k * 2.5, c, p) for k, c, p in rows), strict=True))
    found = max_pain_strike(*(pl.Series(v, dtype=pl.Float64) for v in (strikes, calls, puts)))
    if not any(calls) and not any(puts):
        assert found is None
    else:
        assert found == min(strikes, key=lambda k: (pain(k, strikes, calls, puts), k))


def test_sums_and_ratios_by_hand():
    chain = with_interest(
        smile_chain({NEAR: ENDS[NEAR]}, FORWARD, [21400.0, 21500.0, 21600.0], RATE, flat),
        call_oi=[100, 300, None],
        put_oi=[500, 100, 40],
        call_oi_change=[20, None, None],
        put_oi_change=[-10, 5, None],
        call_volume=[50, 0, 0],
        put_volume=[25, 50, 0],
    )
    row = series_of(chain).row(0, named=True)
    assert (row["call_oi"], row["put_oi"], row["put_call_oi"]) == (400, 640, 1.6)
    assert (row["call_oi_change"], row["put_oi_change"]) == (20, -5)
    assert (row["call_volume"], row["put_volume"], row["put_call_volume"]) == (50, 75, 1.5)
    assert (row["expiry"], row["max_pain"]) == (NEAR, 21500)  # paid at 21400: 18,000, 21500: 14,000, 21600: 50,000
    assert row["max_pain_distance"] == pytest.approx(21500 / FORWARD - 1)


def test_unknown_open_interest_is_null_and_no_call_gives_no_ratio():
    chain = smile_chain({NEAR: ENDS[NEAR]}, FORWARD, [21400.0, 21600.0], RATE, flat)
    row = series_of(chain).row(0, named=True)
    assert [row[name] for name in ("call_oi", "put_oi", "put_call_oi", "max_pain", "call_volume")] == [None] * 5
    no_call = with_interest(chain, call_oi=[0, 0], put_oi=[10, 20])
    row = series_of(no_call).row(0, named=True)
    assert (row["call_oi"], row["put_oi"], row["put_call_oi"]) == (0, 30, None)


def test_a_flat_smile_gives_its_volatility_everywhere():
    row = series_of(smile_chain(ENDS, FORWARD, WIDE, RATE, flat)).row(0, named=True)
    assert row["volatility"] == pytest.approx(0.18, rel=1e-6)
    assert row["volatility_30d"] == pytest.approx(0.18, rel=1e-6)
    assert row["skew"] == pytest.approx(0, abs=1e-6)
    assert row["variance_index"] == pytest.approx(18, rel=2e-3)  # a strip of strikes is a sum for an integral


def test_a_tilted_smile_gives_the_volatility_at_the_forward_and_the_slope_between_its_wings():
    chain = priced(smile_chain({FAR: ENDS[FAR]}, FORWARD, WIDE, RATE, tilted), EXPIRIES, RATE)
    row = option_series(chain, RATE).row(0, named=True)
    assert row["volatility"] == pytest.approx(0.15, abs=1e-5)
    size = chain.with_columns(pl.col("delta").abs().alias("size"))
    put, call = (
        size.filter(side).sort((pl.col("size") - 0.25).abs())["volatility"][0]
        for side in (pl.col("delta") < 0, pl.col("delta") > 0)
    )
    assert row["skew"] == pytest.approx(put - call, abs=2e-3)
    assert row["skew"] > 0.02


def test_a_side_without_strikes_has_no_volatility_and_a_gap_is_bridged():
    only_below = smile_chain({NEAR: ENDS[NEAR]}, FORWARD, [21300.0, 21400.0, 21500.0], RATE, flat)
    row = series_of(only_below).row(0, named=True)
    assert row["forward"] == pytest.approx(FORWARD)
    assert row["volatility"] is None
    gap = smile_chain({NEAR: ENDS[NEAR]}, FORWARD, [21000.0, 21100.0, 21900.0, 22000.0], RATE, flat)
    assert series_of(gap)["volatility"][0] == pytest.approx(0.18)


def test_thirty_days_need_an_expiry_on_either_side():
    for expiry in ENDS:
        row = series_of(smile_chain({expiry: ENDS[expiry]}, FORWARD, WIDE, RATE, flat)).row(0, named=True)
        assert row["volatility"] is not None
        assert (row["volatility_30d"], row["variance_index"]) == (None, None)


def test_variance_is_interpolated_in_time():
    known = {"underlying": "NIFTY", "known_at": OPEN}
    days, variances = (10, 40), (0.04, 0.0225)
    rows = [{**known, "years": d / 365, "variance": v} for d, v in zip(days, variances, strict=True)]
    found = constant_maturity(pl.DataFrame(rows))["volatility"].item()
    expected = (10 * 0.04 * (40 - 30) / 30 + 40 * 0.0225 * (30 - 10) / 30) / 30
    assert found == pytest.approx(np.sqrt(expected))
    exact = [{**known, "years": 30 / 365, "variance": 0.04}, rows[1]]
    assert constant_maturity(pl.DataFrame(exact))["volatility"].item() == pytest.approx(0.2)


def test_on_the_day_of_expiry_the_volatility_moves_to_the_next_one_for_the_last_hour_and_all_else_at_the_close():
    for left, expiry, volatility_expiry in (
        (timedelta(minutes=60), NEAR, NEAR),
        (timedelta(minutes=59), NEAR, FAR),
        (timedelta(0), FAR, FAR),
    ):
        ends = {NEAR: OPEN + left, FAR: ENDS[FAR]}
        strikes = [FORWARD + 20 * i - 200 for i in range(21)]
        chain = with_interest(
            smile_chain({e: OPEN + timedelta(days=1) for e in ends}, FORWARD, strikes, RATE, flat),
            call_oi=[1] * 21 + [2] * 21,
            put_oi=[3] * 21 + [5] * 21,
        )
        times = pl.DataFrame({"expiry": list(ends), "expires_at": list(ends.values())})
        row = option_series(priced(chain, times, RATE), RATE).row(0, named=True)
        assert (row["expiry"], row["volatility_expiry"]) == (expiry, volatility_expiry)
        assert row["call_oi"] == (63 if expiry == NEAR else 42)


def test_each_time_follows_from_its_own_chain_alone():
    times = [OPEN + timedelta(minutes=5 * i) for i in range(4)]
    chains = [smile_chain(ENDS, FORWARD + 10 * i, WIDE[::4], RATE, tilted, at) for i, at in enumerate(times)]
    together = series_of(pl.concat(chains).sample(fraction=1.0, shuffle=True, seed=1))
    assert_frame_equal(together, pl.concat([series_of(chain) for chain in chains]), check_exact=True)


def test_a_strip_of_one_side_has_no_variance():
    strip = priced(smile_chain({NEAR: ENDS[NEAR]}, FORWARD, [21500.0, 21600.0, 21700.0], RATE, flat), EXPIRIES, RATE)
    columns = strip.rename({"call_price": "call", "put_price": "put"})
    assert expiry_variances(columns, RATE).is_empty()


def test_an_empty_chain_gives_an_empty_series():
    found = option_series(PRICED.to_frame(), RATE)
    assert found.is_empty()
    assert found.schema == OPTION_SERIES
