"""Shocks do what they say, to the bars they name, and leave bars that one could have traded on."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.evaluation.shocks import PRICES, NotAShock, crash, feed_outage, gap, liquidity_drought
from odin_core.market.bars import BARS, MINUTE

OPEN = datetime(2023, 1, 2, 3, 45, tzinfo=UTC)
MINUTES = 60


def lively(symbols: str = "AB", minutes: int = MINUTES, seed: int = 1, length: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for symbol in symbols:
        close = 200 * np.exp(np.cumsum(0.002 * rng.standard_normal(minutes)))
        opened = close * np.exp(0.001 * rng.standard_normal(minutes))
        wick = np.abs(0.001 * rng.standard_normal((2, minutes)))
        ts = [OPEN + length * MINUTE * i for i in range(minutes)]
        parts.append(pl.DataFrame({
            "symbol": symbol, "ts": ts, "known_at": [t + length * MINUTE for t in ts], "open": opened,
            "high": np.maximum(opened, close) * np.exp(wick[0]), "low": np.minimum(opened, close) * np.exp(-wick[1]),
            "close": close, "volume": np.floor(rng.uniform(0, 1e4, minutes)), "oi": 5.0,
        }, schema=BARS))  # fmt: skip
    return pl.concat(parts)


BEFORE = lively()


def at(minute: int) -> datetime:
    return OPEN + minute * MINUTE


def require_valid(bars: pl.DataFrame, *, of: pl.DataFrame = BEFORE) -> None:
    assert bars.schema == BARS
    assert (bars["low"] > 0).all()
    assert bars.filter(
        (pl.col("low") > pl.min_horizontal("open", "close")) | (pl.col("high") < pl.max_horizontal("open", "close"))
    ).is_empty()
    assert (bars["volume"].drop_nulls() >= 0).all()
    assert bars.select("symbol", "ts").equals(of.select("symbol", "ts").join(
        bars.select("symbol", "ts"), on=["symbol", "ts"], how="semi", maintain_order="left"
    ))  # fmt: skip


SHOCKS = {
    "gap": lambda bars, size, minute, minutes: gap(bars, size, at=at(minute)),
    "crash": lambda bars, size, minute, minutes: crash(bars, size, at=at(minute), minutes=minutes, recovery=0.4),
    "drought": lambda bars, size, minute, minutes: liquidity_drought(bars, abs(size), at=at(minute), minutes=minutes),
    "outage": lambda bars, size, minute, minutes: feed_outage(bars, at=at(minute), minutes=minutes),
}


@pytest.mark.parametrize("name", SHOCKS)
@given(st.floats(-0.9, 0.9), st.integers(-5, MINUTES + 5), st.integers(1, 90), st.sampled_from([1, 5]))
def test_bars_stay_valid_and_those_given_stay_as_they_are(name, size, minute, minutes, length):
    bars = lively(length=length)
    copy = bars.clone()
    require_valid(SHOCKS[name](bars, size, minute, minutes), of=bars)
    assert bars.equals(copy)


@pytest.mark.parametrize("name", SHOCKS)
def test_nothing_before_the_shock_and_no_other_symbol_changes(name):
    shocked = {
        "gap": lambda: gap(BEFORE, -0.1, at=at(20), symbols=["B"]),
        "crash": lambda: crash(BEFORE, -0.1, at=at(20), minutes=10, symbols=["B"]),
        "drought": lambda: liquidity_drought(BEFORE, 0.9, at=at(20), minutes=10, symbols=["B"]),
        "outage": lambda: feed_outage(BEFORE, at=at(20), minutes=10, symbols=["B"]),
    }[name]()
    spared = (pl.col("symbol") == "A") | (pl.col("ts") < at(20))
    assert shocked.filter(spared).equals(BEFORE.filter(spared))
    assert not shocked.filter(~spared).equals(BEFORE.filter(~spared))


@pytest.mark.parametrize("name", SHOCKS)
def test_no_bars_stay_no_bars(name):
    assert SHOCKS[name](BARS.to_frame(), -0.1, 20, 10).equals(BARS.to_frame())


def test_a_gap_moves_every_price_from_its_moment_on_by_its_size():
    after = gap(BEFORE, -0.05, at=at(20))
    hit = pl.col("ts") >= at(20)
    for price in PRICES:
        np.testing.assert_allclose(after.filter(hit)[price], BEFORE.filter(hit)[price] * 0.95)
    assert after.select("volume", "oi").equals(BEFORE.select("volume", "oi"))


def test_a_gap_and_its_opposite_cancel():
    back = gap(gap(BEFORE, 0.25, at=at(7)), -0.2, at=at(7))
    for price in PRICES:
        np.testing.assert_allclose(back[price], BEFORE[price], rtol=1e-12)


def test_a_crash_slides_over_its_minutes_and_stays_down():
    after = crash(BEFORE, -0.2, at=at(10), minutes=20)
    ratio = (after["close"] / BEFORE["close"]).to_numpy().reshape(2, MINUTES)[0]
    np.testing.assert_allclose(ratio[:10], 1)
    np.testing.assert_allclose(ratio[29:], 0.8)
    np.testing.assert_allclose(np.diff(np.log(ratio[9:30])), np.log(0.8) / 20)
    opens = (after["open"] / BEFORE["open"]).to_numpy().reshape(2, MINUTES)[0]
    np.testing.assert_allclose(opens[1:], ratio[:-1])


def test_a_crash_that_recovers_in_full_ends_where_it_began_and_was_as_deep():
    after = crash(BEFORE, -0.2, at=at(10), minutes=20, recovery=1.0)
    ratio = (after["close"] / BEFORE["close"]).to_numpy()[:MINUTES]
    assert ratio.min() == pytest.approx(0.8)
    assert ratio[29] == pytest.approx(0.8)
    np.testing.assert_allclose(ratio[49:], 1.0)
    half = crash(BEFORE, -0.2, at=at(10), minutes=20, recovery=0.5)
    assert (half["close"] / BEFORE["close"])[MINUTES - 1] == pytest.approx(0.8**0.5)


def test_the_lowest_point_inside_a_longer_bar_is_in_its_low():
    bars = lively(length=15)
    after = crash(bars, -0.2, at=OPEN + 20 * MINUTE, minutes=20, recovery=1.0)  # lowest at minute 40, between 30 and 45
    assert (after["low"] / bars["low"])[2] == pytest.approx(0.8)
    assert (after["close"] / bars["close"])[2] > 0.8


def test_a_drought_takes_its_share_of_the_volume_in_whole_units_for_its_minutes():
    after = liquidity_drought(BEFORE, 0.9, at=at(10), minutes=5)
    hit = pl.col("ts").is_between(at(10), at(14))
    assert after.filter(hit)["volume"].to_list() == [int(v) // 10 for v in BEFORE.filter(hit)["volume"]]
    assert after.filter(~hit).equals(BEFORE.filter(~hit))
    assert (liquidity_drought(BEFORE, 1.0, at=OPEN, minutes=MINUTES)["volume"] == 0).all()
    assert liquidity_drought(BEFORE, 0.0, at=OPEN, minutes=MINUTES).equals(BEFORE)


def test_volume_that_is_not_known_stays_unknown():
    bars = BEFORE.with_columns(volume=pl.lit(None, pl.Float64))
    assert liquidity_drought(bars, 0.9, at=OPEN, minutes=MINUTES).equals(bars)


def test_an_outage_takes_the_bars_of_its_minutes_and_no_others():
    after = feed_outage(BEFORE, at=at(10), minutes=5)
    assert after.height == BEFORE.height - 2 * 5
    assert after.equals(BEFORE.filter(~pl.col("ts").is_between(at(10), at(14))))


def test_the_clock_of_any_zone_means_the_same_moment():
    local = at(10).astimezone(ZoneInfo("Asia/Kolkata"))
    assert gap(BEFORE, -0.1, at=local).equals(gap(BEFORE, -0.1, at=at(10)))


@pytest.mark.parametrize(
    ("shock", "says"),
    [
        pytest.param(lambda: gap(BEFORE, -1.0, at=OPEN), "size=-1.0 .* above −1", id="gap of everything"),
        pytest.param(lambda: crash(BEFORE, -1.5, at=OPEN, minutes=3), "size=-1.5", id="crash below zero"),
        pytest.param(lambda: crash(BEFORE, -0.1, at=OPEN, minutes=0), "minutes=0 .* at least 1", id="no minutes"),
        pytest.param(
            lambda: crash(BEFORE, -0.1, at=OPEN, minutes=3, recovery=1.1), "recovery=1.1", id="more than all back"
        ),
        pytest.param(
            lambda: liquidity_drought(BEFORE, 1.1, at=OPEN, minutes=3), "share=1.1 .* between 0 and 1", id="too dry"
        ),
        pytest.param(lambda: feed_outage(BEFORE, at=OPEN, minutes=-1), "minutes=-1", id="outage into the past"),
        pytest.param(lambda: gap(BEFORE, -0.1, at=datetime(2023, 1, 2)), "time zone", id="no zone"),
    ],
)
def test_what_would_leave_no_market_is_refused_with_what_it_must_be(shock, says):
    with pytest.raises(NotAShock, match=says):
        shock()


def test_recorded_bars_stay_valid_under_every_shock(market_file):
    recorded = pl.read_parquet(market_file("nse_equity_1m_2021.parquet"))
    day = recorded["ts"].min().date()
    bars = recorded.filter(pl.col("ts").dt.date() == day).sort("symbol", "ts")
    absent = {name: pl.lit(None, dtype) for name, dtype in BARS.items() if name not in bars.columns}
    bars = bars.with_columns(known_at=pl.col("ts") + MINUTE, **{n: e for n, e in absent.items() if n != "known_at"})
    bars = bars.select(BARS.names()).cast(BARS)
    opens = bars["ts"].min()
    later = opens + timedelta(minutes=30)
    assert bars.height > 1000
    for shocked in (
        gap(bars, -0.05, at=later), crash(bars, 0.08, at=later, minutes=30, recovery=0.5),
        liquidity_drought(bars, 0.95, at=opens, minutes=375), feed_outage(bars, at=later, minutes=60),
    ):  # fmt: skip
        require_valid(shocked, of=bars)
        assert not shocked.equals(bars)
