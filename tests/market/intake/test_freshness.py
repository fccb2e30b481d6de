"""Freshness: how many sessions a table lags behind the calendar at a moment."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from odin_core.lake import Lake
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.freshness import GRACE, freshness
from odin_core.market.profile import load_profile

CALENDAR = session_calendar(load_profile("nse"))
FRIDAY, MONDAY = date(2021, 4, 9), date(2021, 4, 12)
CLOSES = CALENDAR.hours(MONDAY).close


def state(tmp_path, sessions: list[date], as_of: datetime):
    lake = Lake(tmp_path)
    for session in sessions:
        lake.write("price_history", session, pl.DataFrame({"symbol": ["A"]}))
    return freshness(lake, "price_history", CALENDAR, as_of=as_of)


@pytest.mark.parametrize(
    ("as_of", "expected", "behind"),
    [
        pytest.param(CLOSES - timedelta(hours=7), FRIDAY, 0, id="before Monday's open Friday is the last"),
        pytest.param(CLOSES + GRACE - timedelta(seconds=1), FRIDAY, 0, id="vendors need a while after the close"),
        pytest.param(CLOSES + GRACE, MONDAY, 1, id="then Monday is missing"),
        pytest.param(datetime(2021, 4, 14, 5, tzinfo=UTC), date(2021, 4, 13), 2, id="and on Wednesday two are"),
        pytest.param(datetime(2021, 4, 11, 5, tzinfo=UTC), FRIDAY, 0, id="a weekend misses nothing"),
    ],
)
def test_a_table_that_ends_with_friday(tmp_path, as_of, expected, behind):
    found = state(tmp_path, [date(2021, 4, 8), FRIDAY], as_of)
    assert (found.last, found.expected, found.behind, found.is_fresh) == (FRIDAY, expected, behind, behind == 0)


def test_an_empty_table_lacks_the_last_session(tmp_path):
    found = state(tmp_path, [], CLOSES + GRACE)
    assert (found.last, found.behind) == (None, 1)
    assert "holds nothing" in found.to_text()


def test_beyond_the_calendar_its_last_session_is_expected_and_before_it_none(tmp_path):
    assert state(tmp_path, [], datetime(2040, 1, 1, tzinfo=UTC)).expected == CALENDAR.sessions()[-1]
    found = state(tmp_path, [], datetime(2001, 1, 1, tzinfo=UTC))
    assert (found.expected, found.is_fresh) == (None, True)


def test_bars_from_beyond_the_moment_do_not_hide_a_gap(tmp_path):
    found = state(tmp_path, [FRIDAY, date(2021, 4, 13)], CLOSES + GRACE)
    assert (found.last, found.behind) == (FRIDAY, 1)
