"""Real ticks of the daily schedule: the session of the day, exactly once, or a reason that says what to do."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from grownhomes import HEAD, LIVE, NEXT, resource
from smalllives import clock

from odin_assets.build import build_definitions
from odin_assets.instance import open_instance
from odin_core.home import Home, open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig, with_settings
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import run_sessions
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile

DEFINITIONS = build_definitions(["demo", "nse"])
CALENDAR = session_calendar(load_profile("demo"))
AFTER = timedelta(minutes=30)


def closed(session: date) -> datetime:
    return CALENDAR.hours(session).close + AFTER


def tick(home: Home, at: datetime, market: str = "demo") -> Any:
    repository = DEFINITIONS.get_repository_def()
    context = dg.build_schedule_context(
        scheduled_execution_time=at, repository_def=repository, resources=resource(home)
    )
    return repository.get_schedule_def(f"{market}_daily").evaluate_tick(context)


def life_of(home: Home, market: str = "demo") -> Life:
    life = lives.current(home, market)
    assert life is not None
    return life


def simulated(home: Home) -> Life:
    """A second life, not live, that has come to the same head; its bars lie in the lake already."""
    config = with_settings(LifeConfig(), [s for s in LIVE if s != "live=true"])
    life = lives.create(home, "demo", config, date(2023, 1, 18))
    list(run_sessions(life, MarketData.of(home, "demo", config), [date(2023, 1, 18), HEAD], clock=clock))
    return life


def test_after_the_close_exactly_the_session_after_the_head_is_asked_for(home: Home):
    (request,) = tick(home, closed(NEXT)).run_requests
    assert (request.partition_key, request.run_key) == (str(NEXT), f"{life_of(home).id}:{NEXT}")


def test_the_tick_comes_half_an_hour_after_the_close_in_the_markets_own_time():
    schedule = DEFINITIONS.get_repository_def().get_schedule_def("nse_daily")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 16 * * *", "Asia/Kolkata")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_the_requested_run_brings_the_life_forward_by_one_session(home: Home):
    (request,) = tick(home, closed(NEXT)).run_requests
    with open_instance(home) as instance:
        ran = run(request, instance, home)
    assert ran.success
    assert life_of(home).head == NEXT
    assert f"{life_of(home).id}" in request.run_key
    assert "closes at 2023-01-23 10:00 UTC" in tick(home, closed(NEXT)).skip_message


def run(request: Any, instance: dg.DagsterInstance, home: Home) -> dg.ExecuteInProcessResult:
    job = DEFINITIONS.resolve_job_def("demo_session")
    return job.execute_in_process(
        instance=instance, partition_key=request.partition_key, tags=request.tags, resources=resource(home)
    )


def test_before_the_close_nothing_is_asked_for_and_the_close_is_named(home: Home):
    ticked = tick(home, CALENDAR.hours(NEXT).close - timedelta(seconds=1))
    assert ticked.run_requests == []
    assert ticked.skip_message == f"demo: the next session {NEXT} closes at 2023-01-20 10:00 UTC"


def test_without_a_life_the_tick_says_how_to_start_one(tmp_path: Path):
    ticked = tick(open_home(tmp_path / "home"), closed(NEXT))
    assert "odin bootstrap --market demo" in ticked.skip_message


def test_a_live_life_that_missed_evenings_catches_up_in_one_run(home: Home):
    third = CALENDAR.next(HEAD, 3)
    (request,) = tick(home, closed(third)).run_requests
    assert request.partition_key is None
    assert request.run_key == f"{life_of(home).id}:{NEXT}:{third}"
    with open_instance(home) as instance:
        assert run(request, instance, home).success
    assert life_of(home).head == third


def test_a_simulated_life_is_carried_on_only_where_the_session_of_the_day_is_next(home: Home):
    life = simulated(home)
    (request,) = tick(home, closed(NEXT)).run_requests
    assert (request.partition_key, request.run_key) == (str(NEXT), f"{life.id}:{NEXT}")
    later = tick(home, closed(CALENDAR.next(NEXT)))
    assert later.run_requests == []
    assert "--set live=true" in later.skip_message


def test_a_live_life_does_not_run_beyond_the_markets_partitions(home: Home):
    (request,) = tick(home, datetime(2026, 1, 5, 11, tzinfo=UTC)).run_requests
    assert request.run_key == f"{life_of(home).id}:{NEXT}:2023-07-28"


@pytest.fixture
def nse(tmp_path: Path) -> Home:
    """A life of a market of files that has come to Thursday, 2021-04-01; 2021-04-02 is a holiday."""
    home = open_home(tmp_path / "nse")
    config = with_settings(LifeConfig(), ["live=true"])
    life = lives.create(home, "nse", config, date(2021, 4, 1))
    list(run_sessions(life, MarketData.of(home, "nse", config), [date(2021, 4, 1)], clock=clock))
    return home


def test_without_bars_of_the_day_the_tick_says_how_to_import_them(nse: Home):
    ticked = tick(nse, datetime(2021, 4, 5, 10, 30, tzinfo=UTC), "nse")
    assert ticked.run_requests == []
    assert "odin data import FILE --market nse" in ticked.skip_message


def test_on_a_holiday_nothing_is_asked_for(nse: Home):
    assert "2021-04-05 closes at" in tick(nse, datetime(2021, 4, 2, 10, 30, tzinfo=UTC), "nse").skip_message


def test_a_damaged_home_is_a_reason_to_skip_not_a_failed_tick(home: Home):
    home.current("demo").write_text("nosuchlife")
    assert "nosuchlife" in tick(home, closed(NEXT)).skip_message
