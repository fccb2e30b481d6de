"""Drift, performance and robustness as Dagster runs: what they show, what they store, and whom they alert."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import polars.testing
from dagster._core.utils import make_new_run_id
from drivers import resources
from grownhomes import FIRST, HEAD, resource
from smalllives import CLIMBED, CLIMBING, begin, plain_edge, quick, rough, run_to

from odin_assets.assets.monitoring import facts_now
from odin_assets.build import build_definitions
from odin_assets.instance import open_instance
from odin_core.home import Home, open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.life import Life
from odin_core.market.data import MarketData
from odin_core.monitoring.alerts import alerts
from odin_core.monitoring.performance import performance_of

DEFINITIONS = build_definitions(["demo"])
ASSETS = [asset for asset in DEFINITIONS.assets or [] if isinstance(asset, dg.AssetsDefinition)]
RANGE = "dagster/asset_partition_range"


def life_of(home: Home) -> Life:
    life = lives.current(home, "demo")
    assert life is not None
    return life


def materialise(names: list[str], instance: dg.DagsterInstance, home: Home, *span: object, **config: Any) -> Any:
    keys = [dg.AssetKey(["demo", name]) for name in names]
    tags = {f"{RANGE}_start": str(span[0]), f"{RANGE}_end": str(span[1])} if span else {}
    return dg.materialize(
        ASSETS, selection=dg.AssetSelection.assets(*keys), tags=tags, instance=instance, resources=resources(home),
        run_config=config or None, raise_on_error=False,
    )  # fmt: skip


def shown(instance: dg.DagsterInstance, name: str, partition: object = None) -> dict[str, Any]:
    of = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(["demo", name]), asset_partitions=[str(partition)] if partition else None
    )
    event = instance.fetch_materializations(of, limit=1).records[0].asset_materialization
    assert event is not None
    return {key: value.value for key, value in event.metadata.items()}


def test_the_evening_summary_of_each_session_is_stored_plotted_and_follows_from_its_tables(
    home: Home, instance: dg.DagsterInstance
):
    result = materialise(["drift_report", "performance_report"], instance, home, FIRST, HEAD)
    assert result.success
    life = life_of(home)
    for session in life.commits():
        stored = life.lake.read("performance_report", session)
        pl.testing.assert_frame_equal(stored, performance_of(life, session).row)
        facts = shown(instance, "performance_report", session)
        assert facts["equity"] == stored["equity"][0]
        assert f"{session}: phase" in facts["summary"]
        assert shown(instance, "drift_report", session)["status"] == "no_champion"
    assert "alerts" in shown(instance, "performance_report", HEAD)
    assert "alerts" not in shown(instance, "performance_report", FIRST), "old sessions alert nobody"
    assert shown(instance, "performance_report", HEAD)["picture"].startswith("![performance](data:image/png;base64,")
    assert "picture" not in shown(instance, "performance_report", FIRST), "only the newest is drawn"
    assert (life.reports / f"performance-{HEAD}.png").read_bytes().startswith(b"\x89PNG")


def test_the_fold_logs_its_drift_as_it_passes_a_session(instance: dg.DagsterInstance):
    facts = shown(instance, "drift_report", HEAD)
    assert facts["status"] == "no_champion"


def test_alert_rules_are_judged_at_the_head_alone(home: Home, instance: dg.DagsterInstance):
    (home.root / "alerts.yaml").write_text("win_rate: 1.0\nwin_rate_trades: 1\n")
    assert materialise(["performance_report"], instance, home, FIRST, FIRST).success
    assert alerts(home) == []
    assert materialise(["performance_report"], instance, home, HEAD, HEAD).success
    assert [a.rule for a in alerts(home)] == ["low_win_rate"]
    assert materialise(["performance_report"], instance, home, HEAD, HEAD).success
    assert len(alerts(home)) == 1, "the same level was told twice"


def test_the_watch_judges_what_no_session_would_tell(home: Home, instance: dg.DagsterInstance):
    job = DEFINITIONS.resolve_job_def("demo_watch")
    assert job.execute_in_process(instance=instance, resources=resource(home)).success
    (stale,) = [a for a in alerts(home) if a.rule == "stale_data"]
    assert stale.value is not None
    assert stale.value > 100, "the grown life ends in January 2023"


def test_the_watch_counts_the_runs_of_its_own_market(home: Home, instance: dg.DagsterInstance):
    """`nse_options` is another market than `nse`, and a run of a selection of assets has no job of its own."""
    own = frozenset({dg.AssetKey(["demo", "executions"])})
    jobs = {"nse_evening": None, "deliver_alerts": None, "demo_session": None, "__ASSET_JOB": own, "demo_retrain": None}
    for job, chosen in jobs.items():
        run = dg.DagsterRun(job_name=job, run_id=make_new_run_id(), asset_selection=chosen)
        instance.add_run(run)
        instance.report_run_failed(run, "out of memory")
    life, at = life_of(home), datetime.now(UTC)
    data = MarketData.of(home, "demo", life.config)
    facts = facts_now(instance, life, data, at)
    ended_before = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    assert (facts.failed_runs, facts.runs, facts.last_error) == (3, 3 + ended_before, "demo_retrain")
    after = facts_now(instance, life, data, at + timedelta(days=2))
    assert (after.failed_runs, after.runs) == (0, 0)


def test_the_watch_goes_on_beyond_the_end_of_the_calendar(home: Home, instance: dg.DagsterInstance):
    life = life_of(home)
    data = MarketData.of(home, "demo", life.config)
    late = datetime.combine(data.calendar.last + timedelta(days=30), time(), UTC)
    facts = facts_now(instance, life, data, late)
    assert facts.sessions_behind == len(data.calendar.sessions(HEAD)) - 1


def test_a_life_without_a_model_has_no_drift_page_yet_and_its_saturdays_fail_no_run(tmp_path: Path):
    life, data = begin(tmp_path / "home", quick("live=true"))
    run_to(life, data, FIRST)
    with open_instance(life.home) as instance:
        assert materialise(["drift_page"], instance, life.home).success
        assert "no model was trained yet" in shown(instance, "drift_page")["status"]
        asked = {"ops": {"demo__drift_page": {"config": {"version": "nosuch"}}}}
        assert not materialise(["drift_page"], instance, life.home, **asked).success


def test_a_market_without_a_life_is_told_so(tmp_path: Path):
    home = open_home(tmp_path / "empty")
    with open_instance(home) as instance:
        assert materialise(["drift_report", "performance_report"], instance, home, FIRST, FIRST).success
        assert shown(instance, "drift_report", FIRST)["status"] == "not_run"
        assert shown(instance, "performance_report", FIRST)["status"] == "not_run"
        assert materialise(["drift_page"], instance, home).success
        assert shown(instance, "drift_page")["status"] == "no life yet"
        assert materialise(["robustness_report"], instance, home).success
        assert "no champion yet" in shown(instance, "robustness_report")["status"]


def test_pages_of_drift_and_robustness_of_a_life_with_a_champion(tmp_path: Path):
    life, data = begin(tmp_path / "home", quick(*CLIMBING, "drift.window_sessions=5"), edit=rough(plain_edge()))
    run_to(life, data, CLIMBED)
    lives.use(life.home, life)
    with open_instance(life.home) as instance:
        assert materialise(["drift_page"], instance, life.home).success
        facts = shown(instance, "drift_page")
        assert "data:image/png" in facts["drift"]
        assert "| subject |" in facts["summary"]
        assert (life.reports / "drift.html").stat().st_size > 1_000_000
        assert materialise(["robustness_report"], instance, life.home).success
        facts = shown(instance, "robustness_report")
        assert facts["findings"] > 5
        assert "data:image/png" in facts["footings"]
