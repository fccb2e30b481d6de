"""A market of one's own whose bars come from a broker: the graph fetches, checks and raises alerts."""

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from fakes.kite import SECRETS, FakeKite, error
from fakes.serving import Clock, honest, instead
from fakes.telling import series
from polars.testing import assert_frame_equal

from odin_assets.build import build_definitions
from odin_assets.jobs import LOOP_NAMES, checks_job
from odin_assets.resources import OdinHome, duckdb_in_memory
from odin_core.home import Home, open_home
from odin_core.market.bars import BARS
from odin_core.market.calendar import session_calendar
from odin_core.market.profile import load_profile
from odin_core.market.sources.source import SOURCE_BARS
from odin_core.monitoring.alerts import alerts

SYMBOLS = ("INFY", "RELIANCE")
NSE = session_calendar(load_profile("nse"))
SESSIONS = NSE.sessions(date(2024, 1, 15), date(2024, 1, 18))


class WallClock(Clock):
    """The graph takes the system's clock, so its vendor does too."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@pytest.fixture(scope="module")
def held() -> dict[str, pl.DataFrame]:
    return {
        symbol: pl.concat(
            series(symbol, NSE.hours(session).open, NSE.minutes(session), at=100.0 + i)
            for i, session in enumerate(SESSIONS)
        )
        for symbol in SYMBOLS
    }


@pytest.fixture
def vendor(held) -> Iterator[FakeKite]:
    with FakeKite({("minute", symbol): bars for symbol, bars in held.items()}, WallClock()) as server:
        yield server


@pytest.fixture
def market(vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a market whose file lies where ODIN is started; its name is the test's, since calendars are kept."""
    name = f"own{abs(hash(tmp_path))}"
    (tmp_path / "markets").mkdir()
    source = f"{{kind: kite, url: '{vendor.url}', symbols: [{', '.join(SYMBOLS)}], recheck: 1}}"
    (tmp_path / "markets" / f"{name}.yaml").write_text(f"base: nse\nsource: {source}\n")
    monkeypatch.chdir(tmp_path)
    for secret, value in SECRETS.items():
        monkeypatch.setenv(secret, value)
    return name


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


def materialise(market: str, home: Home, names: tuple[str, ...], instance: dg.DagsterInstance):
    assets = [a for a in build_definitions([market]).assets or [] if isinstance(a, dg.AssetsDefinition)]
    span = {
        "dagster/asset_partition_range_start": str(SESSIONS[0]),
        "dagster/asset_partition_range_end": str(SESSIONS[-1]),
    }
    return dg.materialize(
        assets,
        selection=dg.AssetSelection.assets(*(dg.AssetKey([market, name]) for name in names)),
        tags=span,
        instance=instance,
        resources={"odin": OdinHome(path=str(home.root)), "duckdb": duckdb_in_memory()},
        raise_on_error=False,
    )


def check(market: str, home: Home, name: str) -> dg.AssetCheckEvaluation:
    definitions = build_definitions([market])
    job = definitions.resolve_job_def(f"{market}_{name}")
    done = job.execute_in_process(
        resources={"odin": OdinHome(path=str(home.root))}, instance=dg.DagsterInstance.ephemeral()
    )
    [evaluation] = done.get_asset_check_evaluations()
    return evaluation


def test_materialising_price_history_fetches_what_is_missing_and_no_more(market, home, vendor, held):
    with dg.DagsterInstance.ephemeral() as instance:
        done = materialise(market, home, ("price_history", "data_quality"), instance)
        assert done.success
        lake = home.lake(market)
        got = lake.read_many("price_history", SESSIONS).select(*SOURCE_BARS).sort("symbol", "ts")
        assert_frame_equal(got, pl.concat(held[symbol] for symbol in sorted(SYMBOLS)))
        assert len(vendor.asked("/instruments/historical")) == len(SYMBOLS)
        assert materialise(market, home, ("price_history",), instance).success
    again = vendor.asked("/instruments/historical")[len(SYMBOLS) :]
    asked = {request.path for request in again}  # a set: a fourth request within a second is refused and repeated
    assert len(asked) == len(SYMBOLS), "of the second run only the session to recheck is asked for"
    assert all(str(SESSIONS[-1]) in str(request.path) + str(request.query) for request in again)


def test_a_token_that_ran_out_ends_the_run_with_what_to_do_and_without_the_token(market, home, vendor, caplog):
    vendor.access_token = "another-one-since-this-morning"
    with dg.DagsterInstance.ephemeral() as instance:
        done = materialise(market, home, ("price_history", "data_quality"), instance)
        assert not done.success
        [failure] = [event for event in done.all_events if event.is_step_failure]
        said = failure.step_failure_data.user_failure_data.description or ""
        assert "odin data login" in said
        events = "\n".join(str(entry) for entry in instance.all_logs(done.run_id))
    assert not any(value in said + events + caplog.text for value in SECRETS.values())
    assert home.lake(market).sessions("price_history") == []


def test_the_token_check_fails_with_an_alert_once_the_token_ran_out(market, home, vendor):
    assert check(market, home, "token_is_fresh").passed
    assert alerts(home) == []
    vendor.access_token = "another-one-since-this-morning"
    failed = check(market, home, "token_is_fresh")
    assert not failed.passed
    assert "odin data login" in str(failed.metadata["detail"].value)
    [alert] = alerts(home)
    assert (alert.market, alert.rule) == (market, "token_is_fresh")
    assert not any(value in str(alert) for value in SECRETS.values())


def test_recorded_history_without_a_live_life_raises_no_alert(tmp_path):
    home = open_home(tmp_path / "home")
    home.lake("nse").write("price_history", SESSIONS[0], BARS.to_frame())
    definitions = build_definitions(["nse"])
    looking = dg.Definitions.merge(definitions, dg.Definitions(jobs=[checks_job("nse", "is_up_to_date")]))
    done = looking.resolve_job_def("nse_is_up_to_date").execute_in_process(
        resources={"odin": OdinHome(path=str(home.root))}
    )
    assert [evaluation.passed for evaluation in done.get_asset_check_evaluations()] == [True]
    assert alerts(home) == []


def test_a_sessions_job_leaves_the_checks_of_the_day_to_their_own_hours(market):
    job = build_definitions([market]).resolve_job_def(f"{market}_session")
    assert {key.name for key in job.asset_layer.asset_graph.asset_check_keys} == {"bars_are_sound", "no_error_found"}


def test_a_history_that_lags_behind_the_calendar_raises_an_alert_that_says_how_to_mend_it(market, home):
    failed = check(market, home, "is_up_to_date")
    assert not failed.passed
    [alert] = alerts(home)
    assert f"odin data fetch --market {market}" in alert.text


def test_a_token_that_runs_out_between_two_symbols_costs_only_the_second_one(market, home, vendor):
    history = "/instruments/historical"
    vendor.fail(honest, instead(error(403, "TokenException", "Incorrect api_key or access_token.")), on=history)
    with dg.DagsterInstance.ephemeral() as instance:
        assert not materialise(market, home, ("price_history",), instance).success
        assert home.lake(market).sessions("price_history") == []
        assert len(vendor.asked(history)) == 2
        assert materialise(market, home, ("price_history",), instance).success
    assert len(vendor.asked(history)) == 3, "the first symbol's answer was kept"
    assert home.lake(market).sessions("price_history") == SESSIONS


def test_bars_that_the_vendor_corrects_below_the_head_raise_an_alert_and_outdate_the_life(market, home, vendor, held):
    loop = ("price_history", "data_quality", "features", *LOOP_NAMES)
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialise(market, home, loop, instance).success
        last_day = pl.col("ts") >= NSE.hours(SESSIONS[-1]).open
        more = pl.when(last_day).then(pl.col("volume") + 1).otherwise("volume")
        vendor.hold("minute", "INFY", held["INFY"].with_columns(volume=more))
        done = materialise(market, home, loop, instance)
        assert done.success
    [alert] = alerts(home)
    assert (alert.rule, f"outdated from {SESSIONS[-1]} on" in alert.text) == ("bars_corrected", True)
    outdated = {e.partition for e in done.all_events if e.is_step_materialization
                and e.materialization.metadata.get("did", dg.TextMetadataValue("")).value == "outdated"}  # fmt: skip
    assert outdated == {str(SESSIONS[-1])}
