"""A close that was moved during its session: until that was announced, every feature is as if it had not been."""

from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
from featurelakes import walks
from histories import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from sessionbars import MINUTE, of_bars, random_bars, values

from odin_core.home import open_home
from odin_core.market.calendar import session_calendar
from odin_core.market.data import PRICES, MarketData
from odin_core.market.profile import MarketProfile, load_profile

OUTAGE = date(2021, 2, 24)
NSE = load_profile("nse")
AS_PLANNED = replace(NSE, special_sessions=tuple(s for s in NSE.special_sessions if s.date != OUTAGE), halts=())
ANNOUNCED = datetime(2021, 2, 24, 9, 47, tzinfo=UTC)
CALENDAR = session_calendar(NSE)
DAYS = CALENDAR.sessions(CALENDAR.previous(OUTAGE, 2), CALENDAR.next(OUTAGE))
CLOCK = ("session_elapsed_1m", "hours_to_close_1m")


@pytest.mark.parametrize("feature", of_bars("technical", "price_action"), ids=lambda f: f.name)
@settings(max_examples=4)
@given(moved_by=st.integers(-10, 10 * 1440), minute=st.integers(0, 30))
def test_rows_before_the_announcement_see_the_planned_close_and_later_ones_the_new_one(feature, moved_by, minute):
    bars = random_bars(1)
    new = bars.closes.copy()
    new[2] += moved_by * MINUTE
    announced = int(bars.opens[2]) + minute * MINUTE
    found = values(feature, replace(bars, closes=new, moved_closes={2: (announced, int(bars.closes[2]))}))
    sees_new = (bars.session == 2) & (bars.known_at >= announced)
    expected = np.where(sees_new, values(feature, replace(bars, closes=new)), values(feature, bars))
    if not feature.name.startswith("weekday"):  # of a session's plan, in all its rows
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_array_equal(found, values(feature, bars))


def rows_of(folder: Path, profile: MarketProfile, until: datetime | None, set_name: str) -> pl.DataFrame:
    """The rows of the day of NSE's outage in a market with this profile, out of the bars that began before a moment."""
    bars = walks(CALENDAR, DAYS, ["INFY", "TCS"])
    lake, calendar = open_home(folder).lake("nse"), session_calendar(profile)
    for session in DAYS:
        inside = pl.col("ts").is_between(*calendar.hours(session), closed="left")
        lake.write(PRICES, session, bars.filter(inside, pl.lit(True) if until is None else pl.col("ts") < until))
    return MarketData(lake, profile).features(None, "1m", OUTAGE, OUTAGE, set_name)


@pytest.mark.parametrize("set_name", ["price_action", "technical"])
def test_before_the_announcement_rows_are_those_of_a_market_that_closes_as_planned(tmp_path: Path, set_name: str):
    before = pl.col("known_at") < ANNOUNCED
    found = rows_of(tmp_path / "moved", NSE, None, set_name)
    planned = rows_of(tmp_path / "planned", AS_PLANNED, ANNOUNCED, set_name)
    assert planned.filter(before).height == 2 * (6 * 60 + 1)
    assert_same_bits(found.filter(before), planned.filter(before))


def test_the_clock_of_the_outage_turns_when_the_new_close_is_announced(tmp_path: Path):
    found = rows_of(tmp_path, NSE, None, "price_action").filter(symbol="TCS")

    def at(hour: int, minute: int) -> tuple[float, float]:
        instant = datetime(2021, 2, 24, hour, minute, tzinfo=UTC)
        return found.filter(known_at=instant).select(CLOCK).row(0)

    assert at(3, 50) == pytest.approx((5 / 375, 6 + 10 / 60))
    assert at(9, 46) == pytest.approx((361 / 375, 14 / 60))
    assert at(9, 47) == pytest.approx((362 / 465, 1 + 43 / 60))
    assert at(11, 30) == pytest.approx((1, 0))


def test_stored_rows_are_computed_again_where_the_announcement_turns_out_to_be_another(tmp_path: Path):
    known = rows_of(tmp_path, NSE, None, "price_action")
    late = replace(NSE, special_sessions=tuple(replace(s, announced=None) for s in NSE.special_sessions))
    again = MarketData(open_home(tmp_path).lake("nse"), late).features(None, "1m", OUTAGE, OUTAGE, "price_action")
    assert again.filter(symbol="TCS")["hours_to_close_1m"][4] == pytest.approx(7 + 40 / 60)
    clock = cs.starts_with("session_elapsed", "hours_to_close")
    assert_same_bits(again.select(~clock), known.select(~clock))
