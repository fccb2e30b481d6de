"""The graph itself: what it may depend on, what it may load, what Dagit shows of it, and one session run in it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import drivers
import pytest

from odin_assets.assets.reference import reference_names
from odin_assets.definitions import defs
from odin_assets.partitions import partitions_of
from odin_assets.resources import OdinHome
from odin_core.home import Home, open_home
from odin_core.market.profile import profile_names

GRAPH = defs.resolve_asset_graph()
KEYS = sorted(GRAPH.get_all_asset_keys())
PARTITIONED = [key for key in KEYS if GRAPH.get(key).partitions_def]
LOADS_NONE_OF = (
    "numba",
    "sqlalchemy",
    "torch",
    "stable_baselines3",
    "lightgbm",
    "sklearn",
    "evidently",
    "mlflow",
    "matplotlib",
    "shap",
)
NUMBERS = {  # asset → what Dagit plots of each session
    "price_history": {"rows", "symbols", "volume"},
    "data_quality": {"findings", "warnings", "errors", "has_bars"},
    "features": {"symbols", "complete", "volatility_ratio"},
    "executions": {"trades", "session_return"},
    "replay_buffer": {"taken", "skipped", "rejected", "reward"},
    "phase_state": {"phase", "phase_before", "epsilon", "drawdown", "equity"},
    "recommendations": {"filtered"},
}


def name(key: dg.AssetKey) -> str:
    return key.to_user_string()


def is_one_session_back(mapping: dg.PartitionMapping) -> bool:
    return isinstance(mapping, dg.TimeWindowPartitionMapping) and (mapping.start_offset, mapping.end_offset) == (-1, -1)


def is_unshifted(mapping: dg.PartitionMapping) -> bool:
    return isinstance(mapping, dg.TimeWindowPartitionMapping) and (mapping.start_offset, mapping.end_offset) == (0, 0)


def test_the_graph_has_an_order():
    order = [key for level in GRAPH.toposorted_asset_keys_by_level for key in level]
    assert sorted(order) == sorted(GRAPH.toposorted_asset_keys) == KEYS


def test_every_market_has_the_same_assets_and_one_of_real_bars_its_reference_data():
    by_market = {market: {key.path[1] for key in KEYS if key.path[0] == market} for market in profile_names()}
    assert {"crypto", "demo", "futures", "indices", "metals", "nse", "nse_options", "us"} <= set(by_market)
    for market, assets in by_market.items():
        assert assets - by_market["demo"] == set(reference_names(market))
    assert reference_names("nse_options") == ["corporate_actions", "fundamentals", "open_interest"]
    assert {"price_history", "features", *drivers.LOOP_NAMES, *drivers.WEEKLY_ASSETS, "catalog"} <= by_market["demo"]


@pytest.mark.parametrize("market", profile_names())
def test_a_market_has_one_definition_of_sessions_one_of_weeks_and_one_of_months(market: str):
    used = {id(p): p for key in PARTITIONED if key.path[0] == market and (p := GRAPH.get(key).partitions_def)}
    expected = partitions_of(market)
    assert set(used) == {id(expected.sessions), id(expected.weeks), id(expected.months)}


@pytest.mark.parametrize("key", PARTITIONED, ids=name)
def test_a_partition_depends_on_the_same_session_on_its_week_or_on_itself_one_session_before(key: dg.AssetKey):
    node = GRAPH.get(key)
    for parent in node.parent_keys:
        mapping = GRAPH.get_partition_mapping(key, parent)
        if parent == key:
            assert is_one_session_back(mapping), "an asset depends on itself one session before and nothing else"
        elif GRAPH.get(parent).partitions_def is node.partitions_def:
            assert is_unshifted(mapping) or isinstance(mapping, dg.IdentityPartitionMapping), name(parent)
        else:
            partitions = partitions_of(key.path[0])
            assert node.partitions_def in (partitions.weeks, partitions.months)
            assert GRAPH.get(parent).partitions_def is partitions.sessions
            assert is_unshifted(mapping), f"{name(key)} must depend on the sessions that lie in it"


def test_a_week_depends_on_exactly_its_sessions():
    weeks, sessions = partitions_of("demo").weeks, partitions_of("demo").sessions
    mapping = GRAPH.get_partition_mapping(drivers.key("training_dataset"), drivers.key("replay_buffer"))
    subset = weeks.subset_with_partition_keys(["2023-01-23"])
    upstream = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, weeks, sessions)
    days = ["2023-01-23", "2023-01-24", "2023-01-25", "2023-01-27"]  # the 26th is a holiday
    assert list(upstream.partitions_subset.get_partition_keys()) == days


@pytest.mark.parametrize("market", profile_names())
def test_the_partitions_are_the_calendars_sessions_and_their_mondays(market: str):
    from odin_core.market.calendar import session_calendar
    from odin_core.market.profile import load_profile

    calendar, partitions = session_calendar(load_profile(market)), partitions_of(market)
    keys = partitions.sessions.get_partition_keys()
    first, last = map(date.fromisoformat, (keys[0], keys[-1]))
    assert keys == [str(s) for s in calendar.sessions(first, last)]
    today = datetime.now(ZoneInfo(load_profile(market).timezone)).date()  # at a weekend there is Monday, not its week
    mondays = {str(calendar.week_of(s)) for s in calendar.sessions(first, min(last, today))}
    assert mondays <= set(partitions.weeks.get_partition_keys())


@pytest.mark.parametrize("key", KEYS, ids=name)
def test_every_asset_says_what_it_is(key: dg.AssetKey):
    node = GRAPH.get(key)
    assert node.owners
    assert node.kinds
    assert node.group_name != "default"
    assert node.code_version
    assert node.description
    assert len(node.description) > 30


@pytest.mark.parametrize("key", PARTITIONED, ids=name)
def test_every_range_is_a_single_run(key: dg.AssetKey):
    assert GRAPH.get(key).backfill_policy == dg.BackfillPolicy.single_run()


def test_the_loop_is_one_computation_that_cannot_be_subset():
    [loop] = [asset for asset in drivers.assets() if drivers.key("executions") in asset.keys]
    assert loop.keys == {drivers.key(member) for member in drivers.LOOP_NAMES}
    assert not loop.can_subset


def test_loading_the_definitions_brings_no_learning_library_and_takes_little_time():
    code = (
        "import json, sys, time; start = time.process_time(); import odin_assets.definitions; "
        "print(json.dumps([time.process_time() - start, sorted(m for m in sys.modules if '.' not in m)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    assert not set(modules) & set(LOADS_NONE_OF)
    assert seconds < 3, "the aim is 2 s of an idle machine's time; `make bench ONLY=definitions_load` measures it"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def one_session(home: Home) -> Iterator[dg.DagsterInstance]:
    """An instance in which one session of a new life was materialised, with nothing else around."""
    drivers.made(home)
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            drivers.assets(),
            partition_key=str(drivers.FIRST),
            selection=dg.AssetSelection.assets(*map(drivers.key, drivers.SESSION_ASSETS)),
            instance=instance,
            resources=drivers.resources(home),
        )
        assert done.success
        yield instance


def test_one_session_is_materialised_in_a_process_and_shows_its_numbers(home: Home, one_session: dg.DagsterInstance):
    assert drivers.made(home).head == drivers.FIRST
    for asset, numbers in NUMBERS.items():
        facts = drivers.shown(one_session, asset, str(drivers.FIRST))
        missing = {n for n in numbers if not isinstance(facts.get(n), int | float)}
        assert not missing, f"{asset} shows no {missing}"
    checks = one_session.event_log_storage.get_latest_asset_check_execution_by_key(
        [dg.AssetCheckKey(drivers.key("price_history"), "bars_are_sound")]
    )
    assert [record.status.value for record in checks.values()] == ["SUCCEEDED"]


def test_a_life_is_made_with_the_defaults_where_a_market_has_none(home: Home):
    from odin_core.lifecycle import life as lives
    from odin_core.lifecycle.config import LifeConfig

    made = OdinHome(path=str(home.root)).life_or_new("demo", drivers.FIRST)
    assert lives.current(home, "demo") == made
    assert (made.config, made.first_session) == (LifeConfig(), drivers.FIRST)


def test_a_users_mistake_ends_a_run_with_its_text(home: Home):
    drivers.made(home)
    done = dg.materialize(
        drivers.assets(),
        partition_key="2023-01-10",  # the life begins on the 2nd
        selection=dg.AssetSelection.assets(*map(drivers.key, drivers.LOOP_NAMES)),
        instance=dg.DagsterInstance.ephemeral(),
        resources=drivers.resources(home),
        raise_on_error=False,
    )
    [failure] = [e for e in done.all_events if e.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert data
    assert "Ask for a range that starts at 2023-01-02" in (data.description or "")
