"""Real ticks of the sensors, on instances that hold what runs of the graph left there."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from grownhomes import HEAD
from smalllives import NOW, quick
from ticking import execute, keys, materialised, tick, told

from odin_assets.sensors import PAGE
from odin_core.home import Home, open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.summary import summarise
from odin_core.monitoring.alerts import alerts
from odin_core.policies.joint import JointPolicy, version_of
from odin_core.registry.bundle import bundle_of
from odin_core.registry.history import plan_promotion

PHASES = "demo_phase_transitions"
CALLS = "demo_drift_and_drawdown"


def ticks(instance: dg.DagsterInstance, home: Home) -> list[Any]:
    """Ticks until one finds nothing new."""
    done, cursor = [], None
    while not done or done[-1].cursor != cursor:
        cursor = done[-1].cursor if done else None
        done.append(tick(PHASES, instance, home, cursor))
    return done


def test_each_transition_of_a_run_is_asked_for_once_and_the_next_tick_repeats_nothing(
    home: Home, instance: dg.DagsterInstance
):
    life = lives.current(home, "demo")
    assert life is not None
    moved = summarise(life)["phase"]["transitions"]
    assert moved, "the grown life should have left phase 0"
    names = [f"{life.id}:{t['session']}:{t['from']}-{t['to']}" for t in moved]
    first = tick(PHASES, instance, home, None)
    assert told([first]) == [f"{job}:{name}" for name in names for job in ("announce", "retrain")]
    second = tick(PHASES, instance, home, first.cursor)
    assert (second.run_requests, second.skip_message) == ([], "no session since the last look")


def test_a_tick_that_is_evaluated_twice_asks_under_the_same_keys(home: Home, instance: dg.DagsterInstance):
    assert keys([tick(PHASES, instance, home, None)]) == keys([tick(PHASES, instance, home, None)]) != []


def test_no_transition_is_missed_when_many_sessions_end_between_two_ticks(tmp_path: Path):
    home = open_home(tmp_path / "home")
    moves = {0: (0, 1), PAGE - 1: (1, 2), PAGE: (2, 1), 2 * PAGE + 40: (1, 2)}
    with dg.DagsterInstance.ephemeral() as instance:
        for session in range(2 * PAGE + 50):
            materialised(instance, session, *moves.get(session, (1, 1)))
        ticked = ticks(instance, home)
        assert len(ticked) == 4
        assert [key.rsplit(":", 1)[1] for key in told(ticked)] == ["0-1", "1-2", "2-1", "1-2"]
        assert len(set(keys(ticked))) == 4


def test_a_tick_without_a_transition_moves_on_and_says_so():
    with dg.DagsterInstance.ephemeral() as instance:
        for session in range(3):
            materialised(instance, session, 1, 1)
        ticked = tick(PHASES, instance, Home(Path("unused")), None)
        assert (ticked.run_requests, ticked.skip_message) == ([], "3 sessions, no change of phase")
        assert int(ticked.cursor) > 0


def test_a_transition_that_a_killed_run_made_is_asked_for_when_the_next_run_reports_it():
    with dg.DagsterInstance.ephemeral() as instance:
        materialised(instance, 0, 0, 1, did="skipped")
        assert told([tick(PHASES, instance, Home(Path("unused")), None)]) == ["announce:abc:2023-01-02:0-1"]


def test_a_session_that_a_person_reports_by_hand_in_dagit_is_passed_over():
    with dg.DagsterInstance.ephemeral() as instance:
        for facts in ({}, {"phase": 2}, {"retrain_because": "drift: x", "live": True}):
            event = dg.AssetMaterialization(["demo", "phase_state"], partition="2023-01-02", metadata=facts)
            instance.report_runless_asset_event(event)
        materialised(instance, 1, 1, 2, live=True, retrain_because="drift: y")
        for sensor, jobs in ((PHASES, ["demo_announce", "demo_retrain"]), (CALLS, ["demo_retrain", "demo_drift_page"])):
            ticked = tick(sensor, instance, Home(Path("unused")), None)
            assert [request.job_name for request in ticked.run_requests] == jobs


def test_only_a_live_life_is_asked_to_retrain():
    with dg.DagsterInstance.ephemeral() as instance:
        materialised(instance, 0, 0, 1)
        materialised(instance, 1, 1, 2, live=True)
        ticked = tick(PHASES, instance, Home(Path("unused")), None)
        assert [r.job_name for r in ticked.run_requests] == ["demo_announce", "demo_announce", "demo_retrain"]


def test_the_requested_runs_note_and_announce_the_transition_and_retrain_once(home: Home, instance: dg.DagsterInstance):
    announce, retrain = tick(PHASES, instance, home, None).run_requests
    for _ in range(2):
        assert execute(announce, instance, home).success
        assert execute(retrain, instance, home).success
    life = lives.current(home, "demo")
    assert life is not None
    (noted,) = life.notes("phase_transition")
    assert [a.rule for a in alerts(home)] == ["phase_change"]
    (home.root / "alerts.jsonl").unlink()
    assert execute(announce, instance, home).success
    assert [a.rule for a in alerts(home)] == ["phase_change"], "told although a kill left it noted"
    assert (noted["before"], noted["after"]) == (0, 1)
    assert f":{noted['session']}:0-1:" in announce.run_key
    (trained,) = life.notes("retrain")
    assert (trained["head"], trained["why"]) == (str(HEAD), "phase 0 → 1")
    assert trained["outcome"].startswith(trained["version"])
    key = dg.AssetKey(["demo", "phase_state"])
    (observed,) = instance.fetch_observations(key, limit=5).records
    assert observed.asset_observation is not None
    assert observed.asset_observation.partition == noted["session"]


def test_drift_in_a_live_life_asks_for_one_retrain_and_the_page_that_says_what_moved():
    with dg.DagsterInstance.ephemeral() as instance:
        materialised(instance, 0, 2, 2, live=True)
        materialised(instance, 1, 2, 2, live=True, retrain_because="drift: volume_z is beyond its limit")
        materialised(instance, 2, 2, 2, live=True)
        first = tick(CALLS, instance, Home(Path("unused")), None)
        assert [r.job_name for r in first.run_requests] == ["demo_retrain", "demo_drift_page"]
        assert told([first]) == ["retrain:abc:2023-01-03", "drift_page:abc:2023-01-03"]
        assert [r.tags["odin/life"] for r in first.run_requests] == ["abc", "abc"]
        assert first.run_requests[0].run_config["ops"]["demo_retrain_live"]["config"] == {
            "life": "abc", "why": "drift: volume_z is beyond its limit",
        }  # fmt: skip
        again = tick(CALLS, instance, Home(Path("unused")), first.cursor)
        assert (again.run_requests, again.skip_message) == ([], "no session since the last look")


def test_drawdown_asks_for_a_retrain_alone_and_a_simulated_life_for_nothing():
    with dg.DagsterInstance.ephemeral() as instance:
        materialised(instance, 0, 2, 2, live=True, retrain_because="drawdown: 5.10% of capital")
        materialised(instance, 1, 2, 2, retrain_because="drift: x")
        ticked = tick(CALLS, instance, Home(Path("unused")), None)
        assert [r.job_name for r in ticked.run_requests] == ["demo_retrain"]


def test_of_many_sessions_between_two_ticks_each_transition_is_announced_and_the_newest_call_retrains_once():
    """A live life that catches up over years of history: its retrain learns from all of it, so one is enough."""
    with dg.DagsterInstance.ephemeral() as instance:
        called, moves = {0, 3, PAGE - 1, 2 * PAGE + 7}, {5: (1, 2), 6: (2, 1), PAGE + 1: (1, 2)}
        for session in range(2 * PAGE + 10):
            why = {"retrain_because": f"drift: {session}"} if session in called else {}
            materialised(instance, session, *moves.get(session, (1, 1)), live=True, **why)
        wanted, cursor = [], None
        for _ in range(4):
            ticked = tick(CALLS, instance, Home(Path("unused")), cursor)
            wanted, cursor = wanted + [(r.job_name, r.run_key) for r in ticked.run_requests], ticked.cursor
        days = [date.fromordinal(date(2023, 1, 2).toordinal() + s) for s in (PAGE - 1, 2 * PAGE + 7)]
        assert [key.rpartition(":")[0] for job, key in wanted if job == "demo_retrain"] == [
            f"retrain:abc:{day}" for day in days
        ]
        assert [job for job, _ in wanted] == ["demo_retrain", "demo_drift_page"] * 2
        jobs = [request.job_name for ticked in ticks(instance, Home(Path("unused"))) for request in ticked.run_requests]
        assert jobs == ["demo_announce", "demo_announce", "demo_retrain", "demo_announce", "demo_retrain"]


@pytest.mark.parametrize("sensor", [PHASES, CALLS])
def test_a_session_that_came_out_otherwise_after_a_rewind_is_news_and_one_told_again_is_not(sensor: str):
    def facts(number: float) -> dict[str, Any]:
        why = f"drift: volume_z, {number}"
        return {"live": True, "retrain_because": why, "reason": why}

    with dg.DagsterInstance.ephemeral() as instance:
        found = []
        for number in (1.5, 1.5, 2.5):
            materialised(instance, 0, 1, 2, **facts(number))
            found.append(keys([tick(sensor, instance, Home(Path("unused")), None)]))
            instance.wipe_assets([dg.AssetKey(["demo", "phase_state"])])
        assert found[0] == found[1]
        assert set(found[0]).isdisjoint(found[2])
        assert len(found[2]) == len(found[0]) == 2


def test_each_move_of_the_registry_is_announced_once_and_told_once(home: Home, instance: dg.DagsterInstance):
    life = lives.current(home, "demo")
    assert life is not None
    version = life.registry.versions()[-1]
    plan_promotion(life, version, None, "a test").apply(NOW, "me")
    plan_promotion(life, version, None, "again").apply(NOW, "me")
    first = tick("demo_registry_changes", instance, home, None)
    assert told([first]) == [f"deployment:{life.id}:{d.revision}" for d in life.registry.log()]
    again = tick("demo_registry_changes", instance, home, first.cursor)
    assert (again.run_requests, again.skip_message) == ([], "the pointer has not moved since the last look")
    for _ in range(2):
        assert execute(first.run_requests[-1], instance, home).success
    (alert,) = [a for a in alerts(home) if a.rule == "registry"]
    assert alert.severity == "information"
    assert f"→ {version}" in alert.text
    assert "by me: again" in alert.text
    for path in home.root.glob("registry.db*"):
        path.unlink()
    assert not tick("demo_registry_changes", instance, home, first.cursor).run_requests
    version, life = life_with_a_model(home), lives.load(home, life.id)
    plan_promotion(life, version, None, "anew").apply(datetime(2031, 1, 1, tzinfo=UTC), "me")
    anew = tick("demo_registry_changes", instance, home, first.cursor)
    assert told([anew]) == [f"deployment:{life.id}:1"], "another database counts from the beginning"
    assert set(keys([anew])).isdisjoint(keys([first]))


def life_with_a_model(home: Home) -> str:
    """The version of a model that the current life has now."""
    life = lives.current(home, "demo")
    assert life is not None
    model = JointPolicy(("gap",), date(2023, 1, 6), {"enter": "tree"}, (0.0, 1.0))
    life.registry.save(bundle_of(life, version_of(model), model), NOW)
    return version_of(model)


def test_another_life_of_the_market_is_followed_from_its_own_first_move(home: Home, instance: dg.DagsterInstance):
    life = lives.current(home, "demo")
    assert life is not None
    plan_promotion(life, life_with_a_model(home), None, "a test").apply(NOW, "me")
    first = tick("demo_registry_changes", instance, home, None)
    other = lives.create(home, "demo", quick("live=true", seed=99), date(2023, 1, 2))
    assert tick("demo_registry_changes", instance, home, first.cursor).skip_message
    plan_promotion(other, life_with_a_model(home), date(2023, 3, 1), "of the other").apply(NOW, "me")
    second = tick("demo_registry_changes", instance, home, first.cursor)
    assert told([second]) == [f"deployment:{other.id}:1"]
    lives.use(home, life)
    back = tick("demo_registry_changes", instance, home, second.cursor)
    assert keys([back]) == keys([first]), "told before under this key, so Dagster drops it"


MARKET_SENSORS = (PHASES, CALLS, "demo_registry_changes", "demo_retrain_overdue")


def test_in_a_new_home_every_sensor_says_why_it_waits(tmp_path: Path):
    home = open_home(tmp_path / "new")
    with dg.DagsterInstance.ephemeral() as instance:
        for name in (*MARKET_SENSORS, "alerts_to_deliver"):
            ticked = tick(name, instance, home, None)
            assert ticked.skip_message, name
            assert not ticked.run_requests


def test_a_registry_out_of_reach_is_a_reason_to_wait_that_names_no_password(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ODIN_REGISTRY_URL", "postgresql://me:hidden-word@127.0.0.1:9/odin")
    ticked = tick("demo_registry_changes", instance, home, None)
    assert "cannot be used now" in ticked.skip_message
    assert "hidden-word" not in ticked.skip_message
    assert ticked.cursor is None, "the next look begins where this one did"


def test_an_overdue_retrain_of_a_live_life_is_asked_for_once_per_head(home: Home, instance: dg.DagsterInstance):
    ticked = tick("demo_retrain_overdue", instance, home, None)
    assert "are allowed" in ticked.skip_message
    (home.root / "alerts.yaml").write_text("retrain_sessions: 1\n")
    asked = [tick("demo_retrain_overdue", instance, home, None) for _ in range(2)]
    life = lives.current(home, "demo")
    assert life is not None
    assert keys(asked) == [f"retrain:{life.id}:{HEAD}:overdue"] * 2
    assert execute(asked[0].run_requests[0], instance, home).success
    assert "are allowed" in tick("demo_retrain_overdue", instance, home, None).skip_message
