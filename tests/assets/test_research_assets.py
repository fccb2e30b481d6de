"""Feature sets, structure and labels as assets: what Dagit materialises is what a notebook gets, told in numbers."""

from collections.abc import Sequence
from datetime import date
from numbers import Real
from pathlib import Path
from typing import Any

import dagster as dg
import drivers
import numpy as np
import polars as pl
import pytest
from drivers import definitions, key, resources, shown
from polars.testing import assert_frame_equal

from odin_assets.assets.features import RESEARCH
from odin_assets.build import build_definitions
from odin_assets.resources import OdinHome
from odin_core.features.catalogue import set_version
from odin_core.home import Home, open_home
from odin_core.labels import labels_at, labels_table
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.bars import BARS, MINUTE, MINUTE_TABLE
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile
from odin_core.structure.table import structure_at, structure_version

DEMO = drivers.sessions(date(2023, 5, 3), date(2023, 5, 5))  # late enough for regimes
SETS = ("price_action", "cross_section")
NSE = session_calendar(load_profile("nse"))
RECORDED = NSE.sessions(date(2021, 6, 1), date(2021, 6, 9))
SILENT = RECORDED[-2]


def materialise(
    market: str, home: Home, names: Sequence[str], sessions: Sequence[date], instance: dg.DagsterInstance,
    **config: object,
) -> dg.ExecuteInProcessResult:  # fmt: skip
    """One run for a range of sessions, of assets with these names, as a backfill starts it."""
    assets = [a for a in build_definitions([market]).assets or [] if isinstance(a, dg.AssetsDefinition)]
    span = {
        "dagster/asset_partition_range_start": str(sessions[0]),
        "dagster/asset_partition_range_end": str(sessions[-1]),
    }
    return dg.materialize(
        assets, selection=dg.AssetSelection.assets(*(dg.AssetKey([market, name]) for name in names)), tags=span,
        instance=instance, resources=resources(home), raise_on_error=False,
        run_config={"ops": {f"{market}__feature_sets": {"config": config}}} if config else None,
    )  # fmt: skip


def told(done: dg.ExecuteInProcessResult, market: str, name: str) -> dict[str, dict[str, Any]]:
    """Metadata of each partition that a run materialised."""
    events = done.asset_materializations_for_node(f"{market}__{name}")
    return {str(e.partition): {label: value.value for label, value in e.metadata.items()} for e in events}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return open_home(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="module")
def run(demo: Home) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        done = materialise("demo", demo, RESEARCH, DEMO, instance, sets=[*SETS], interval="15m")
    assert done.success
    return done


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> MarketData:
    """The same market in a home that no asset has seen."""
    return MarketData.of(open_home(tmp_path_factory.mktemp("direct")), "demo", LifeConfig())


@pytest.mark.parametrize("name", RESEARCH)
def test_every_session_of_the_range_is_told_in_numbers_that_can_be_plotted(run: dg.ExecuteInProcessResult, name: str):
    by_session = told(run, "demo", name)
    assert list(by_session) == [str(session) for session in DEMO]
    for numbers in by_session.values():
        plotted = {label for label, value in numbers.items() if isinstance(value, Real)}
        assert len(plotted) >= 4
        assert all(np.isfinite(numbers[label]) for label in plotted)
        assert {label for label in numbers if not label.startswith("dagster")} - plotted <= {"interval"}


def test_feature_sets_lie_in_the_lake_as_the_provider_gives_them(
    run: dg.ExecuteInProcessResult, demo: Home, direct: MarketData
):
    lake = MarketData.of(demo, "demo", LifeConfig()).lake
    for name in SETS:
        rows = direct.features(None, "15m", DEMO[0], DEMO[-1], name)
        table = f"features_{name}_15m_{set_version(name)}"
        assert lake.sessions(table) == DEMO
        assert_frame_equal(lake.read_many(table, DEMO), rows, check_exact=True)
        for session, numbers in told(run, "demo", "feature_sets").items():
            mine = rows.filter(session=date.fromisoformat(session)).drop("symbol", "known_at", "session")
            known = 1 - mine.null_count().sum_horizontal().item() / (mine.height * mine.width)
            assert numbers["interval"] == "15m"
            assert numbers[f"{name}_rows"] == mine.height > 0
            assert numbers[f"{name}_known"] == pytest.approx(known)
            assert 0 < known <= 1


def test_structure_lies_in_the_lake_as_the_function_gives_it(
    run: dg.ExecuteInProcessResult, demo: Home, direct: MarketData
):
    lake = MarketData.of(demo, "demo", LifeConfig()).lake
    for session in DEMO:
        found = structure_at(direct, session)
        for name, frame in zip(("structure", "levels"), found, strict=True):
            assert_frame_equal(lake.read(f"{name}_{structure_version()}", session), frame, check_exact=True)
        numbers = told(run, "demo", "structure")[str(session)]
        assert (numbers["symbols"], numbers["levels"]) == (found.rows.height, found.levels.height)
        assert numbers["share_trend"] == pytest.approx(found.rows["p_trend"].mean())
        for states in (("trend", "range", "volatile"), ("low", "medium", "high")):
            assert sum(numbers[f"share_{state}"] for state in states) == pytest.approx(1)


def test_labels_lie_in_the_lake_as_the_function_gives_them(
    run: dg.ExecuteInProcessResult, demo: Home, direct: MarketData
):
    lake = MarketData.of(demo, "demo", LifeConfig()).lake
    for session in DEMO:
        found = labels_at(direct, session)
        assert_frame_equal(lake.read(labels_table(), session), found, check_exact=True)
        numbers = told(run, "demo", "labels")[str(session)]
        assert (numbers["labels"], numbers["without_value"]) == (found.height, found["value"].null_count())
        hit = (found.filter(label="triple_barrier_60m")["value"].drop_nulls() > 0).mean()
        assert numbers["hit_triple_barrier_60m"] == pytest.approx(hit)


def test_the_job_of_research_makes_one_session_of_all_of_them(demo: Home, run: dg.ExecuteInProcessResult):
    with dg.DagsterInstance.ephemeral() as instance:
        done = definitions().resolve_job_def("demo_research").execute_in_process(
            instance=instance, partition_key=str(DEMO[1]), resources={"odin": OdinHome(path=str(demo.root))},
            run_config={"ops": {"demo__feature_sets": {"config": {"sets": ["cross_section"]}}}},
        )  # fmt: skip
        assert done.success
        made = {event.asset_key for event in done.get_asset_materialization_events()}
        assert made == {key(name) for name in RESEARCH}
        assert shown(instance, "feature_sets", str(DEMO[1]))["interval"] == "day"
        assert shown(instance, "structure", str(DEMO[1])) == told(run, "demo", "structure")[str(DEMO[1])]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sets": ["technicl"]}, "technicl"),
        ({"sets": ["technical"], "interval": "7m"}, "7m"),
    ],
    ids=["set", "interval"],
)
def test_an_unknown_set_or_interval_is_one_line_that_no_retry_would_mend(
    demo: Home, config: dict[str, object], said: str
):
    with dg.DagsterInstance.ephemeral() as instance:
        done = materialise("demo", demo, ["feature_sets"], DEMO, instance, **config)
    assert not done.success
    [failure] = [event for event in done.all_events if event.is_step_failure]
    of_user = failure.step_failure_data.user_failure_data
    assert of_user is not None
    assert said in (of_user.description or "")
    assert "technical" in (of_user.description or "") or "15m" in (of_user.description or "")
    assert "\n" not in (of_user.description or "")
    assert not any(event.is_step_up_for_retry for event in done.all_events)


def minutes(session: date) -> pl.DataFrame:
    rng = np.random.default_rng(session.toordinal())
    starts = pl.datetime_range(*NSE.hours(session), "1m", closed="left", time_unit="us", time_zone="UTC", eager=True)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, len(starts))))
    prices = {"open": close, "high": close * 1.0005, "low": close * 0.9995, "close": close}
    columns = {"symbol": pl.lit("ITC"), "ts": starts, "known_at": starts + MINUTE, **prices}
    return pl.select(**columns, volume=pl.lit(10.0), oi=pl.lit(None, pl.Float64)).select(BARS.names())


def test_a_session_without_bars_in_a_range_is_carried_through(tmp_path: Path):
    home = open_home(tmp_path / "home")
    for session in RECORDED:
        if session != SILENT:
            home.lake("nse").write(MINUTE_TABLE, session, minutes(session))
    with dg.DagsterInstance.ephemeral() as instance:
        done = materialise("nse", home, RESEARCH, RECORDED[-3:], instance, sets=["price_action"])
        assert done.success
    data = MarketData.of(home, "nse", LifeConfig())
    by_asset = {name: told(done, "nse", name) for name in RESEARCH}
    assert {name: len(by_session) for name, by_session in by_asset.items()} == dict.fromkeys(RESEARCH, 3)
    silent = {name: by_session[str(SILENT)] for name, by_session in by_asset.items()}
    assert silent["feature_sets"]["price_action_rows"] == 0
    assert (silent["structure"]["symbols"], silent["structure"]["levels"]) == (0, 0)
    assert silent["labels"]["labels"] == labels_at(data, SILENT).height == silent["labels"]["without_value"]
    assert structure_at(data, SILENT).rows.is_empty()
    after = by_asset["structure"][str(RECORDED[-1])]
    assert after["symbols"] == 1
    assert after["levels"] > 0
    assert "share_trend" not in after, "a regime needs a longer history, and unknown is no number"


def unpartitioned(home: Home, name: str, **config: object) -> dg.ExecuteInProcessResult:
    (asset,) = (a for a in definitions().assets or [] if isinstance(a, dg.AssetsDefinition) and a.keys == {key(name)})
    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [asset], instance=instance, resources=resources(home), raise_on_error=False,
            run_config={"ops": {f"demo__{name}": {"config": config}}},
        )  # fmt: skip


def test_the_report_of_a_set_has_a_summary_a_picture_and_a_page(run: dg.ExecuteInProcessResult, demo: Home):
    done = unpartitioned(demo, "features_report", set="cross_section", sessions=2)
    (event,) = done.get_asset_materialization_events()
    said = {label: value.value for label, value in event.materialization.metadata.items()}
    assert said["sessions"] == 2
    assert "cross_section" in said["summary"]
    assert said["completeness"].startswith("![completeness](data:image/png;base64,")
    assert len(said["completeness"]) < 70_000
    assert "return_rank_12_5m" in Path(said["page"]).read_text("utf-8")


def test_the_leak_wall_is_nine_checks_and_a_table_of_verdicts(
    run: dg.ExecuteInProcessResult, demo: Home, monkeypatch: pytest.MonkeyPatch
):
    done = unpartitioned(demo, "leak_wall", sets=["decision"], trees=10)
    checks = {check.check_name: check for check in done.get_asset_check_evaluations()}
    assert len(checks) == 9
    assert all(check.passed for check in checks.values())
    assert checks["truncate_and_recompute"].metadata["looked_at"].value == 23
    (event,) = done.get_asset_materialization_events()
    verdicts = pl.read_parquet(event.materialization.metadata["path"].value)
    assert set(verdicts["check"]) == {name.removeprefix("labels_") for name in checks}

    monkeypatch.setattr("odin_core.leaks.cutting.scrambled", lambda bars, *_: bars.with_columns(pl.col("close") * 2))
    red = {c.check_name: c for c in unpartitioned(demo, "leak_wall", sets=["decision"]).get_asset_check_evaluations()}
    assert not red["future_perturbation"].passed
    assert red["future_perturbation"].metadata["failed"].value > 5
    assert red["truncate_and_recompute"].passed
