"""Real ticks of the sensors that tell people: of failed runs, and of alerts that a channel has not got."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.utils import make_new_run_id
from smalllives import NOW
from ticking import DEFINITIONS, execute, tick

from odin_assets import sensors
from odin_core.home import Home, open_home
from odin_core.monitoring.alerts import alerts, raise_alert
from odin_core.monitoring.failures import failures, record_failure


def test_a_failed_run_is_recorded_once_with_what_the_step_said(home: Home, instance: dg.DagsterInstance):
    cursor = tick("failed_runs", instance, home, None).cursor
    config = {"ops": {"demo_retrain_live": {"config": {"life": "nosuchlife", "why": "a test"}}}}
    run = execute(dg.RunRequest(job_name="demo_retrain", run_config=config), instance, home)
    assert not run.success
    after = [tick("failed_runs", instance, home, at).cursor for at in (cursor, cursor)][-1]
    (failure,) = failures(home)
    assert (failure["run_id"], failure["job"]) == (run.run_id, "demo_retrain")
    assert failure["error"].startswith("demo_retrain_live: no life")
    assert "nosuchlife" in failure["error"]
    assert tick("failed_runs", instance, home, after).skip_message


def test_a_line_cut_short_by_a_kill_costs_no_other_failure(tmp_path: Path):
    home = open_home(tmp_path / "home")
    assert record_failure(home, at=NOW, run_id="a", job="j", error="first")
    whole = json.dumps(failures(home)[0])
    (home.root / "failures.jsonl").write_text(whole + "\n" + whole[:20])
    assert record_failure(home, at=NOW, run_id="b", job="j", error="second")
    assert not record_failure(home, at=NOW, run_id="b", job="j", error="second")
    assert [entry["error"] for entry in failures(home)] == ["first", "second"]


def test_alerts_are_delivered_when_they_are_due_and_a_channel_that_is_down_causes_no_storm(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    assert "no channel is set" in tick("alerts_to_deliver", instance, home, None).skip_message
    monkeypatch.setenv("ODIN_SLACK_WEBHOOK", "http://127.0.0.1:9/refused")
    assert tick("alerts_to_deliver", instance, home, None).skip_message == "nothing is due"
    raise_alert(home, at=datetime.now(UTC), market="demo", rule="drift", text="volume_z moved")
    (request,) = tick("alerts_to_deliver", instance, home, None).run_requests
    assert execute(dg.RunRequest(job_name="deliver_alerts", run_key=request.run_key), instance, home).success
    assert tick("alerts_to_deliver", instance, home, None).skip_message == "nothing is due", "the next attempt is later"


def test_a_delivery_that_waits_for_its_turn_is_not_asked_for_again(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ODIN_SLACK_WEBHOOK", "http://127.0.0.1:9/refused")
    raise_alert(home, at=datetime.now(UTC), market="demo", rule="drift", text="volume_z moved")
    waiting = instance.create_run_for_job(
        DEFINITIONS.resolve_job_def("deliver_alerts"), status=dg.DagsterRunStatus.STARTING
    )
    assert tick("alerts_to_deliver", instance, home, None).skip_message == "a delivery is under way"
    instance.report_run_canceled(waiting)
    assert len(tick("alerts_to_deliver", instance, home, None).run_requests) == 1


def test_a_delivery_that_fails_is_told_once_a_day_and_tried_again_later(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    """Each alert makes a delivery due, so that an alert for each failed one would go round in a circle."""
    monkeypatch.setenv("ODIN_SLACK_WEBHOOK", "http://127.0.0.1:9/refused")
    cursor = tick("failed_runs", instance, home, None).cursor
    for _ in range(3):
        failed(instance, "deliver_alerts", "out of memory")
        cursor = tick("failed_runs", instance, home, cursor).cursor
    assert len(failures(home)) == 3
    assert [(a.rule, a.market) for a in alerts(home)] == [("failed_run", "odin")]
    assert "the last delivery failed" in tick("alerts_to_deliver", instance, home, None).skip_message
    monkeypatch.setattr(sensors, "now", lambda: datetime.now(UTC) + sensors.AFTER_A_FAILURE)
    assert len(tick("alerts_to_deliver", instance, home, None).run_requests) == 1


def failed(instance: dg.DagsterInstance, job: str, why: str, **about: Any) -> dg.DagsterRun:
    """A run that failed before its first step."""
    run = dg.DagsterRun(job_name=job, run_id=make_new_run_id(), status=dg.DagsterRunStatus.STARTED, **about)
    instance.add_run(run)
    instance.report_run_failed(run, why)
    return run


@pytest.mark.parametrize(
    ("job", "selection", "market"),
    [
        ("nse_options_evening", (), "nse_options"),
        ("nse_evening", (), "nse"),
        ("__ASSET_JOB", ("demo", "executions"), "demo"),
        ("deliver_alerts", (), "odin"),
    ],
)
def test_a_failed_run_is_told_of_its_own_market(
    home: Home, instance: dg.DagsterInstance, job: str, selection: tuple[str, ...], market: str
):
    cursor = tick("failed_runs", instance, home, None).cursor
    chosen = {"asset_selection": frozenset({dg.AssetKey(list(selection))})} if selection else {}
    failed(instance, job, "out of memory", **chosen)
    tick("failed_runs", instance, home, cursor)
    assert [(a.rule, a.market) for a in alerts(home)] == [("failed_run", market)]


def test_what_is_told_of_a_failed_run_holds_no_secret(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    secret = {"ODIN_REGISTRY_URL": "postgresql://me:p%40ssword@host/x", "KITE_ACCESS_TOKEN": "token-of-the-day"}
    cursor = tick("failed_runs", instance, home, None).cursor
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    failed(instance, "demo_session", "could not connect as p@ssword (p%40ssword) with token-of-the-day")
    tick("failed_runs", instance, home, cursor)
    (alert,), (failure,) = alerts(home), failures(home)
    for text in (alert.text, failure["error"]):
        assert "could not connect as [secret] ([secret]) with [secret]" in text


def test_a_failure_that_a_kill_left_recorded_and_untold_is_told(home: Home, instance: dg.DagsterInstance):
    cursor = tick("failed_runs", instance, home, None).cursor
    run = failed(instance, "demo_session", "out of memory")
    record_failure(home, at=NOW, run_id=run.run_id, job=run.job_name, error="out of memory")
    for _ in range(2):
        tick("failed_runs", instance, home, cursor)
    assert len(alerts(home)) == len(failures(home)) == 1
