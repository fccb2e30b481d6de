"""The encoder, its embeddings, slow learners, shadows and what people look at, by real runs of the graph."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from grownhomes import HEAD, resource
from slowlearners import settle

from odin_assets import schedules
from odin_assets.build import build_definitions
from odin_core.home import Home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.config import LifeConfig
from odin_core.lifecycle.life import Life
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile

MONTH, WEEK, LAST_OF_WEEK = "2022-12-01", "2023-01-09", date(2023, 1, 13)
DEFINITIONS = build_definitions(["demo"])


def run(home: Home, instance: dg.DagsterInstance, name: str, first: str | None = None, last: str | None = None):
    """Materialise one asset of the demo market; `first` to `last` are partitions."""
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
    done = dg.materialize(
        [a for a in DEFINITIONS.assets or [] if isinstance(a, dg.AssetsDefinition)],
        selection=dg.AssetSelection.assets(dg.AssetKey(["demo", name])),
        instance=instance,
        resources={**resource(home), "duckdb": None},
        tags={k: v for k, v in tags.items() if v} if first else {},
    )
    assert done.success
    return done


def shown(instance: dg.DagsterInstance, name: str, partition: str | None = None) -> dict[str, object]:
    """Metadata of the newest materialisation, as plain values."""
    partitions = [partition] if partition else None
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(["demo", name]), asset_partitions=partitions)
    record = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert record is not None
    return {key: value.value for key, value in record.metadata.items()}


@pytest.fixture
def settled(home: Home) -> Home:
    settle(home)
    return home


def test_from_an_encoder_to_shadows_and_reports(settled: Home, instance: dg.DagsterInstance):
    run(settled, instance, "encoder", MONTH)
    encoder = shown(instance, "encoder", MONTH)
    assert (encoder["status"], encoder["trained_through"]) == ("found", "2022-12-30")

    run(settled, instance, "embeddings", "2022-12-30", "2023-01-02")
    assert shown(instance, "embeddings", "2022-12-30")["status"] == "no encoder in force"
    embedded = shown(instance, "embeddings", "2023-01-02")
    assert (embedded["encoder"], embedded["symbols"]) == (encoder["encoder"], 12)

    for name in ("ppo_policy", "reinforce_policy", "distilled_policy"):
        run(settled, instance, name, WEEK, "2023-01-16")
        assert shown(instance, name, "2023-01-16") == {"status": "incomplete"}, "its last session is not in the life"
    ppo = shown(instance, "ppo_policy", WEEK)
    assert str(ppo["candidate"]).startswith("policy-")
    assert ppo["seeds"] == 5
    assert "beats random" in str(ppo["report"])

    run(settled, instance, "shadow_decisions", str(LAST_OF_WEEK), str(HEAD))
    asked = shown(instance, "shadow_decisions", str(HEAD))
    assert asked["status"] == "asked"
    assert int(str(asked["versions"])) >= 4
    assert "reward_uniform" in asked or "reward_random" in asked, "numbers to plot by policy"

    for name, fact in (("encoder_report", "rows"), ("shadow_report", "versions"), ("learner_report", "sessions")):
        run(settled, instance, name)
        report = shown(instance, name)
        assert int(str(report[fact])) > 0
        assert "data:image/png" in str([value for value in report.values() if "data:image" in str(value)])
        assert str(report["page"]).endswith(".html")


def test_reports_of_a_home_without_learners_say_what_to_do(home: Home, instance: dg.DagsterInstance):
    for name, told in (
        ("encoder_report", "odin encoder train"),
        ("learner_report", "odin rl train"),
        ("shadow_report", "shadow_decisions"),
    ):
        run(home, instance, name)
        assert told in str(shown(instance, name)["status"])


def tick(home: Home, schedule: str, at: datetime) -> Any:
    repository = DEFINITIONS.get_repository_def()
    context = dg.build_schedule_context(
        scheduled_execution_time=at, repository_def=repository, resources=resource(home)
    )
    return repository.get_schedule_def(f"demo_{schedule}").evaluate_tick(context)


@pytest.mark.parametrize(
    ("schedule", "at", "partition"),
    [
        ("weekly_learners", datetime(2023, 1, 14, 0, 30, tzinfo=UTC), WEEK),
        ("monthly_encoder", datetime(2022, 12, 31, 22, 30, tzinfo=UTC), MONTH),  # 04:00 on the first in Mumbai
    ],
)
def test_a_live_life_asks_once_for_the_partition_that_is_over(home: Home, schedule: str, at: datetime, partition: str):
    life = lives.current(home, "demo")
    assert life is not None
    assert life.config.live
    (request,) = tick(home, schedule, at).run_requests
    assert request.partition_key == partition
    (again,) = tick(home, schedule, at + timedelta(days=2)).run_requests
    assert again.run_key == request.run_key


@pytest.mark.parametrize(
    ("schedule", "at", "told"),
    [
        ("weekly_learners", datetime(2023, 1, 6, 0, 30, tzinfo=UTC), "has not finished a week's last session"),
        ("monthly_encoder", datetime(2022, 4, 30, 22, 30, tzinfo=UTC), "has no bars"),
    ],
)
def test_what_is_not_over_is_not_asked_for(home: Home, schedule: str, at: datetime, told: str):
    found = tick(home, schedule, at)
    assert not found.run_requests
    assert told in found.skip_message


def test_a_week_of_a_market_that_never_closes_is_over_on_sunday(home: Home, monkeypatch: pytest.MonkeyPatch):
    data = MarketData(home.lake("crypto"), load_profile("crypto"))
    sunday = date(2023, 1, 8)
    monkeypatch.setattr(Life, "commits", lambda _: data.calendar.sessions(date(2023, 1, 2), sunday))
    life = Life(home, "crypto", LifeConfig(), date(2023, 1, 2))
    close = data.calendar.hours(sunday).close
    assert isinstance(schedules._week_over(life, data, close - timedelta(minutes=1)), dg.SkipReason)
    assert schedules._week_over(life, data, close + timedelta(hours=6)) == "2023-01-02"
