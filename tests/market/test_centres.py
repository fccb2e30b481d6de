"""Business hours of the financial centres, against a loop over local clocks and dates known by hand."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odin_core.market.bars import UTC as STAMPS
from odin_core.market.centres import CENTRES, session_flags
from odin_core.market.profile import load_profile, profile_names

INSTANTS = st.lists(st.datetimes(datetime(1996, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)), max_size=30)


def stamps(*instants: datetime | None) -> pl.Series:
    return pl.Series("ts", instants, dtype=STAMPS)


@given(INSTANTS)
def test_flags_agree_with_a_loop_over_the_local_clocks(instants: list[datetime]):
    flags = session_flags(stamps(*instants))
    assert flags.columns == ["asia", "london", "new_york"]
    for name, centre in CENTRES.items():
        local = [at.astimezone(ZoneInfo(centre.timezone)).time() for at in instants]
        assert flags[name].to_list() == [centre.open <= clock < centre.close for clock in local]


def overlap(day: datetime) -> float:
    """Hours of a day (UTC) in which London and New York are both at work."""
    minutes = stamps(*(day + timedelta(minutes=n) for n in range(1440)))
    flags = session_flags(minutes)
    return (flags["london"] & flags["new_york"]).sum() / 60


def test_the_overlap_of_london_and_new_york_grows_for_the_weeks_in_which_only_one_has_summer_time():
    assert overlap(datetime(2024, 3, 6, tzinfo=UTC)) == 4  # both winter
    assert overlap(datetime(2024, 3, 13, tzinfo=UTC)) == 5  # New York changed on 10 March, London on the 31st
    assert overlap(datetime(2024, 4, 3, tzinfo=UTC)) == 4
    assert overlap(datetime(2024, 10, 30, tzinfo=UTC)) == 5  # London changed on 27 October, New York on 3 November


@pytest.mark.parametrize(("hour", "is_open"), [(7, True), (6, False), (15, True), (16, False)])
def test_london_opens_at_seven_utc_in_summer(hour: int, is_open: bool):
    assert session_flags(stamps(datetime(2024, 7, 1, hour, tzinfo=UTC)))["london"].item() is is_open


def test_tokyo_has_no_summer_time():
    days = [datetime(2024, month, 1, tzinfo=UTC) for month in range(1, 13)]
    assert session_flags(stamps(*days))["asia"].all()
    assert not session_flags(stamps(*(d - timedelta(minutes=1) for d in days)))["asia"].any()


def test_no_instant_has_no_flag_and_a_naive_one_is_refused():
    assert session_flags(stamps(None)).row(0) == (None, None, None)
    with pytest.raises(ValueError, match="time zone"):
        session_flags(pl.Series([datetime(2024, 1, 1)]))


@pytest.mark.parametrize("market", profile_names())
def test_a_market_names_centres_that_there_are(market: str):
    profile = load_profile(market)
    assert session_flags(stamps(datetime(2024, 1, 2, tzinfo=UTC)), profile.centres).columns == list(profile.centres)
