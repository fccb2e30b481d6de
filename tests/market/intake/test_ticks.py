"""Ticks as minute bars: against a loop over every tick, and the day's counter as what was traded."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from weekdaybars import THURSDAY, at

from odin_core.market.intake.ticks import minute_bars, traded
from odin_core.market.sources.source import SOURCE_BARS, TICKS

SECOND = timedelta(seconds=1)
TICK = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from("AB"),
        "ts": st.integers(0, 400).map(lambda s: at(0) + s * SECOND),
        "price": st.floats(1, 100),
        "volume": st.sampled_from([None, 0.0, 1.5, 20.0]),
    }
)


def by_hand(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bars of these ticks, tick by tick."""
    bars: dict[tuple[str, datetime], dict[str, Any]] = {}
    for tick in sorted(ticks, key=lambda t: t["ts"]):
        key = tick["symbol"], tick["ts"].replace(second=0)
        price = tick["price"]
        bar = bars.setdefault(key, {"open": price, "high": price, "low": price, "volume": None})
        bar["high"], bar["low"] = max(bar["high"], price), min(bar["low"], price)
        bar["close"] = price
        if tick["volume"] is not None:
            bar["volume"] = (bar["volume"] or 0.0) + tick["volume"]
    return [{"symbol": s, "ts": ts, **bar, "oi": None} for (s, ts), bar in sorted(bars.items())]


@settings(max_examples=60, deadline=None)
@given(st.lists(TICK, max_size=40))
def test_minute_bars_agree_with_their_loop_twin(ticks: list[dict[str, Any]]):
    expected = pl.DataFrame(by_hand(ticks), schema=SOURCE_BARS)
    assert_frame_equal(minute_bars(pl.DataFrame(ticks, schema=TICKS)), expected, check_exact=True)


def counted(*ticks: tuple[int, float]) -> list[float]:
    """What was traded at ticks of (seconds after the open, the day's counter)."""
    frame = pl.DataFrame(
        [
            {"symbol": "A", "ts": at(0) + s * SECOND, "volume": v, "session": THURSDAY, "open_at": at(0)}
            for s, v in ticks
        ],
        schema_overrides={"ts": pl.Datetime("us", "UTC"), "open_at": pl.Datetime("us", "UTC"), "volume": pl.Float64},
    )
    return traded(frame)["volume"].to_list()


def test_the_counter_of_the_first_minute_holds_the_auction_and_grows_from_there():
    assert counted((2, 500.0), (30, 510.0), (61, 525.0)) == [500.0, 10.0, 15.0]


def test_what_was_traded_before_a_late_start_or_over_a_hole_belongs_to_no_minute():
    assert counted((420, 9000.0), (421, 9010.0), (1000, 12000.0), (1001, 12005.0)) == [0.0, 10.0, 0.0, 5.0]


def test_nothing_is_traded_at_a_counter_that_falls_and_the_next_counts_from_the_highest():
    assert counted((0, 100.0), (1, 90.0), (2, 110.0)) == [100.0, 0.0, 10.0]


def test_each_session_and_symbol_has_its_own_counter():
    second = at(0) + timedelta(days=1)
    frame = pl.DataFrame(
        {
            "symbol": ["A", "B", "A"],
            "ts": [at(0), at(0), second],
            "volume": [100.0, 7.0, 40.0],
            "session": [THURSDAY, THURSDAY, second.astimezone(UTC).date()],
            "open_at": [at(0), at(0), second],
        }
    )
    assert traded(frame)["volume"].to_list() == [100.0, 7.0, 40.0]
