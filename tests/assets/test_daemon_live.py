"""A live life under the real daemon and webserver: drift and a promotion come in, runs and one message each go out.

Sensors look every 30 s and each run is a process of its own, so this takes minutes."""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import drivers
import pytest
from alertcases import START, Receiver
from fakes.serving import Clock
from grownhomes import HEAD, copied
from servedhomes import Dagit, started, until

from odin_assets.instance import open_instance
from odin_core.home import Home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.life import Life
from odin_core.monitoring.alerts import alerts
from odin_core.monitoring.failures import failures

pytestmark = pytest.mark.slow

WHY = "drift: volume_z_18_75_5m is beyond its limit"
CALLS, CHANGES = "demo_drift_and_drawdown", "demo_registry_changes"
ASKED_FOR = {"demo_retrain": 1, "demo_drift_page": 1, "demo_announce_deployment": 1}
RUNS = """{ runsOrError { ... on Runs { results { jobName status tags { key value } } } } }"""
WHERE = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
TICKS = """query($which: SensorSelector!) { sensorOrError(sensorSelector: $which) { ... on Sensor {
  sensorState { status ticks(limit: 100) { status runKeys error { message } } } } } }"""


class Story(NamedTuple):
    dagit: Dagit
    life: Life
    version: str
    receiver: Receiver

    def runs(self) -> list[dict[str, Any]]:
        """Those that sensors asked for, but for deliveries."""
        found = self.dagit.ask(RUNS)["runsOrError"]["results"]
        return [run for run in found if run["jobName"] != "deliver_alerts"]

    def ticks(self, sensor: str) -> list[dict[str, Any]]:
        """As Dagit lists them, the newest first."""
        [repository] = self.dagit.ask(WHERE)["repositoriesOrError"]["nodes"]
        which = {"repositoryName": repository["name"], "repositoryLocationName": repository["location"]["name"]}
        answer = self.dagit.ask(TICKS, which=which | {"sensorName": sensor})["sensorOrError"]["sensorState"]
        assert answer["status"] == "RUNNING"
        return answer["ticks"]

    def is_over(self) -> bool:
        """Everything that was asked for has ended, and both sensors have looked twice since without a find."""
        ended = [run["status"] in ("SUCCESS", "FAILURE") for run in self.runs()]
        quiet = all([t["status"] for t in self.ticks(s)[:2]] == ["SKIPPED"] * 2 for s in (CALLS, CHANGES))
        return len(ended) >= len(ASKED_FOR) and all(ended) and quiet and bool(self.receiver.requests)


@pytest.fixture(scope="module")
def story(grown: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("live")
    home = copied(grown, folder / "home")
    shutil.rmtree(home.dagster)  # what its past told was acted on long ago
    life = lives.current(home, "demo")
    assert life is not None
    with (
        Receiver(Clock(START)) as receiver,
        started(home, folder, variables={"ODIN_SLACK_WEBHOOK": receiver.address}) as (dagit, said),
    ):
        assert until(dagit.is_ready, 180), said.read_text()
        story = Story(dagit, life, life.registry.versions()[0], receiver)
        drift_is_called(home, life)
        promoted(home, story.version)
        assert until(story.is_over, 400), (story.runs(), story.ticks(CALLS), said.read_text()[-2000:])
        yield story


def drift_is_called(home: Home, life: Life) -> None:
    """What the loop tells Dagster of a session at whose close the fold halted entries; twice, as after a kill."""
    facts = {"did": "ran", "life": life.id, "live": True, "phase": 2, "phase_before": 2, "reason": "it stays",
             "retrain_because": WHY}  # fmt: skip
    with open_instance(home) as instance:
        for did in ("ran", "skipped"):
            told = dg.AssetMaterialization(
                drivers.key("phase_state"), partition=str(HEAD), metadata=facts | {"did": did}
            )
            instance.report_runless_asset_event(told)


def promoted(home: Home, version: str) -> None:
    done = subprocess.run(
        [*drivers.odin("registry promote", home), version, "--why", "a person knows"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_drift_leads_to_one_retrain_and_one_page_and_a_promotion_to_one_announcement(story: Story):
    assert Counter(run["jobName"] for run in story.runs()) == ASKED_FOR
    assert {run["status"] for run in story.runs()} == {"SUCCESS"}
    by_sensor = {tag["value"] for run in story.runs() for tag in run["tags"] if tag["key"] == "dagster/sensor_name"}
    assert by_sensor == {CALLS, CHANGES}
    (trained,) = story.life.notes("retrain")
    assert (trained["head"], trained["why"]) == (str(HEAD), WHY)
    assert (story.life.reports / "drift.html").is_file()


def test_the_webserver_shows_the_ticks_that_asked_and_none_that_failed(story: Story):
    for sensor, asked in ((CALLS, 2), (CHANGES, 1)):
        ticks = story.ticks(sensor)
        keys = [key for tick in ticks for key in tick["runKeys"]]
        assert len(keys) == len(set(keys)) == asked
        assert {tick["status"] for tick in ticks} == {"SUCCESS", "SKIPPED"}
        assert [tick["error"] for tick in ticks if tick["error"]] == []
    assert {tick["status"] for tick in story.ticks("failed_runs")} == {"SKIPPED"}


def test_people_get_one_message_about_the_promotion(story: Story):
    messages = [json.loads(request.body)["text"] for request in story.receiver.requests]
    (told,) = [alert for alert in alerts(story.life.home) if alert.rule == "registry"]
    assert [text for text in messages if "champion none" in text] == [f"{told.title}: {told.text}".replace(">", "&gt;")]
    assert f"→ {story.version} from session" in told.text
    assert "a person knows" in told.text


def test_nothing_failed(story: Story):
    assert failures(story.life.home) == []
