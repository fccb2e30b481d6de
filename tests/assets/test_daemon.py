"""Backfills that Dagit is asked for and Dagster's daemon carries out, with the real webserver, daemon and sensors.

Two backfills, the second going on in the middle of a week where the first ended. The daemon looks for work every 30 s,
which nobody can set; in the quick run a `sitecustomize` of its process makes that 2 s, in the slow one nothing is
changed."""

from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import drivers
import pytest
from drivers import CALENDAR, FIRST, LAST
from servedhomes import Dagit, started, until

from odin_assets.instance import open_instance
from odin_core.home import Home, open_home
from odin_core.lifecycle.digest import Digest
from odin_core.monitoring.failures import failures

CUT = date(2023, 1, 18)  # a Wednesday
LAUNCH = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATUS = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
TARGET = """query($id: String!, $key: AssetKeyInput!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill {
    partitionsTargetedForAssetKey(assetKey: $key) { partitionKeys ranges { start end } } } } }"""
RUNS = """query($id: String!) { runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
  ... on Runs { results { status assetSelection { path } } } } }"""


class Backfill(NamedTuple):
    dagit: Dagit
    id: str

    def status(self) -> str:
        return self.dagit.ask(STATUS, id=self.id)["partitionBackfillOrError"]["status"]

    def target(self, asset: str) -> list[tuple[str, str]]:
        """First and last partition of each range that the daemon means to make."""
        answer = self.dagit.ask(TARGET, id=self.id, key={"path": [drivers.MARKET, asset]})
        found = answer["partitionBackfillOrError"]["partitionsTargetedForAssetKey"]
        return [(r["start"], r["end"]) for r in found["ranges"]]

    def runs(self) -> list[dict[str, Any]]:
        return self.dagit.ask(RUNS, id=self.id)["runsOrError"]["results"]


ASSETS = (*drivers.SESSION_ASSETS, *drivers.WEEKLY_ASSETS)


class Story(NamedTuple):
    """What happened: both backfills, and what was seen right after the first."""

    dagit: Dagit
    reference: Home
    first: Backfill
    second: Backfill
    after_first: Digest
    week_after_first: dict[str, Any]


@pytest.fixture(scope="module", params=["eager daemon", pytest.param("daemon as it is", marks=pytest.mark.slow)])
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("dagit")
    home, reference = open_home(folder / "home"), open_home(folder / "reference")
    drivers.made(home)
    with started(home, folder, eager=request.param == "eager daemon") as (dagit, said):
        drivers.in_python(reference)  # while Dagit starts
        drivers.share_market(reference, home)
        assert until(dagit.is_ready, 120), said.read_text()
        yield told(dagit, reference)


def backfill(dagit: Dagit, first: date, last: date) -> Backfill:
    """Every partitioned asset of the market, weekly ones included, for a range of sessions; waits for the end."""
    parameters = {
        "partitionNames": [str(s) for s in drivers.sessions(first, last)],
        "assetSelection": [{"path": [drivers.MARKET, name]} for name in ASSETS],
    }
    launched = dagit.ask(LAUNCH, p=parameters)["launchPartitionBackfill"]
    assert "backfillId" in launched, launched
    asked = Backfill(dagit, launched["backfillId"])
    assert until(lambda: asked.status() != "REQUESTED", 400), "the daemon makes no progress"
    return asked


def told(dagit: Dagit, reference: Home) -> Story:
    first = backfill(dagit, FIRST, CUT)
    digest = drivers.digest(dagit.home)
    with open_instance(dagit.home) as instance:
        week = drivers.shown(instance, "registry_pointer", str(CALENDAR.week_of(CUT)))
    second = backfill(dagit, CALENDAR.next(CUT), LAST)
    return Story(dagit, reference, first, second, digest, week)


def test_both_backfills_succeed_with_the_loop_in_one_run_each(story: Story):
    for backfill in (story.first, story.second):
        assert backfill.status() == "COMPLETED_SUCCESS"
        runs = backfill.runs()
        assert {run["status"] for run in runs} == {"SUCCESS"}
        loops = [r for r in runs if {"path": [drivers.MARKET, "executions"]} in r["assetSelection"]]
        assert len(loops) == 1
        # The market's assets, the loop, and the week that is not over: how often the daemon looks decides whether the
        # weekly assets go together or one by one, never whether a session gets a run of its own.
        assert len(runs) <= 2 + len(drivers.WEEKLY_ASSETS)


def test_the_daemon_means_exactly_the_sessions_asked_for_and_their_weeks(story: Story):
    for backfill, first, last in ((story.first, FIRST, CUT), (story.second, CALENDAR.next(CUT), LAST)):
        for asset in drivers.SESSION_ASSETS:
            assert backfill.target(asset) == [(str(first), str(last))]
        for asset in drivers.WEEKLY_ASSETS:
            mondays = drivers.weeks(drivers.sessions(first, last))
            assert backfill.target(asset) == [(str(mondays[0]), str(mondays[-1]))]


def test_the_lake_says_what_the_life_in_plain_python_says(story: Story):
    assert story.after_first == drivers.digest(story.reference, CUT)
    assert drivers.digest(story.dagit.home) == drivers.digest(story.reference)


def test_every_session_and_every_finished_week_is_recorded(story: Story):
    assert drivers.recorded(story.dagit.home) == drivers.to_be_recorded()


def test_a_week_that_is_not_over_is_incomplete_until_the_next_backfill_ends_it(story: Story):
    assert story.week_after_first == {"status": "incomplete"}
    with open_instance(story.dagit.home) as instance:
        for asset in drivers.WEEKLY_ASSETS:
            assert drivers.shown(instance, asset, "2023-01-16")["session"] == "2023-01-20"
            assert drivers.shown(instance, asset, "2023-01-30") == {"status": "incomplete"}


def test_the_sensor_announces_each_phase_transition_once(story: Story):
    """The sensor looks every 30 s and its runs are processes of their own."""
    life = drivers.made(story.dagit.home)

    def announced() -> list[tuple[int, int]]:
        return [(note["before"], note["after"]) for note in life.notes("phase_transition")]

    assert until(lambda: len(announced()) >= 2, 150), "no announcement came"
    assert sorted(announced()) == [(0, 1), (1, 2)]


def test_no_run_failed(story: Story):
    assert failures(story.dagit.home) == []
