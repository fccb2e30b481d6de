"""The one way to features, `MarketData.features`: out of the lake or computed, the same rows; and what has them made
again. What the values are is tested in `test_engine`; several processes and kills in `test_feature_store`."""

import os
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from featurelakes import tables
from histories import assert_same_bits
from polars.testing import assert_frame_equal
from smalllives import quick, small_market

from odin_core.features.catalogue import INTERVALS, UnknownSet, features_of, set_names, set_version
from odin_core.features.engine import sessions_needed
from odin_core.features.provider import NoBarsOfFeatures
from odin_core.home import open_home
from odin_core.lake import PartitionUnreadable
from odin_core.market.calendar import OutsideCalendar
from odin_core.market.data import PRICES, MarketData
from odin_core.market.history import NaiveMoment

FIRST, LAST = date(2023, 1, 2), date(2023, 1, 9)  # six sessions
USUAL_GRID = {"decision": "day", "technical": "5m", "price_action": "5m", "cross_section": "60m", "open_interest": "5m",
              "fundamental": "day", "sequence": "5m"}  # fmt: skip


def demo(folder: Path) -> MarketData:
    """Four symbols of the synthetic exchange."""
    return small_market(open_home(folder), quick(), symbols=4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with all bars up to LAST and no features. For `copied` alone."""
    data = demo(tmp_path_factory.mktemp("made"))
    data.generate(data.calendar.sessions(data.profile.first_partition, LAST))
    return data.lake.root.parents[1]


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "home", copy_function=os.link)  # files are replaced, never changed
    return tmp_path / "home"


def asked(
    home: Path, set_name: str = "price_action", first: date = FIRST, last: date = LAST, interval: str = "5m"
) -> pl.DataFrame:
    """What a process that begins now is told."""
    return demo(home).features(None, interval, first, last, set_name)


# Stored or computed


@pytest.mark.parametrize("set_name", set_names())
def test_rows_are_the_same_computed_stored_and_session_by_session_from_the_last_one_on(home: Path, set_name: str):
    grid = USUAL_GRID.get(set_name, "day")
    computed = asked(home, set_name, interval=grid)
    files = tables(demo(home).lake)
    assert len(files) == 6
    assert_same_bits(asked(home, set_name, interval=grid), computed)
    assert tables(demo(home).lake) == files
    data = demo(home)
    for name in {Path(file).parts[0] for file in files}:
        shutil.rmtree(data.lake.root / name)
    sessions = data.calendar.sessions(FIRST, LAST)
    one_by_one = [data.features(None, grid, s, s, set_name) for s in reversed(sessions)]
    assert_same_bits(pl.concat(reversed(one_by_one)), computed)


@pytest.mark.parametrize("interval", INTERVALS)
def test_rows_have_keys_and_float32_and_lie_by_session_symbol_and_time(home: Path, interval: str):
    rows = asked(home, "cross_section", interval=interval)
    names = [f.name for f in features_of("cross_section")]
    keys = {"symbol": pl.String, "known_at": pl.Datetime("us", "UTC"), "session": pl.Date}
    assert rows.schema == pl.Schema(keys | dict.fromkeys(names, pl.Float32))
    assert_frame_equal(rows, rows.sort("session", "symbol", "known_at"))
    bars = demo(home).read(None, FIRST, LAST, interval)
    assert_frame_equal(rows.select("symbol", "known_at"), bars.select("symbol", "known_at"))
    assert rows.select(pl.col(pl.Float32).is_nan().any()).to_numpy().sum() == 0  # unknown is null


def test_one_symbol_is_the_markets_rows_of_it_and_all_are_stored(home: Path):
    data = demo(home)
    names = data.bars(FIRST)["symbol"].unique().sort()
    some = data.features([names[2], names[0]], "5m", FIRST, FIRST, "cross_section")
    whole = data.features(None, "5m", FIRST, FIRST, "cross_section")
    assert_same_bits(some, whole.filter(pl.col("symbol").is_in([names[0], names[2]])))
    assert whole["symbol"].n_unique() == 4
    assert data.features(["NOBODY"], "5m", FIRST, FIRST, "cross_section").is_empty()
    assert data.features([], "5m", FIRST, FIRST, "cross_section").is_empty()


def test_the_default_set_is_the_decisions(home: Path):
    data = demo(home)
    rows = data.features(None, "day", FIRST, LAST)
    assert rows.columns[3:] == [f.name for f in features_of("decision")]
    decided = pl.concat([data.decision_rows(s) for s in data.calendar.sessions(FIRST, LAST)])
    assert_same_bits(rows.drop("known_at"), decided.select(rows.drop("known_at").columns))


# What has them computed again


def changed_price(data: MarketData, session: date) -> None:
    bars = data.lake.read(PRICES, session)
    data.lake.write(PRICES, session, bars.with_columns(pl.col("close", "high") * 1.01))


def test_a_file_that_was_read_last_is_read_again_when_it_changes(home: Path):
    data = demo(home)
    before = data.features(None, "1m", LAST, LAST, "price_action")
    data.bars(LAST)
    changed_price(data, LAST)
    assert_frame_equal(data.bars(LAST), data.lake.read(PRICES, LAST))
    after = data.features(None, "1m", LAST, LAST, "price_action")
    assert not after.equals(before)
    shutil.rmtree(next(data.lake.root.glob("features_price_action_1m_*")))
    assert_same_bits(asked(home, first=LAST, interval="1m"), after)


@pytest.mark.parametrize("same_process", [False, True])
def test_a_changed_price_file_makes_the_sessions_after_it_be_computed_again_and_no_other(
    home: Path, same_process: bool
):
    data = demo(home)
    before = data.features(None, "5m", FIRST, LAST, "price_action")
    files, change = tables(data.lake), date(2023, 1, 5)
    changed_price(data, change)
    after = (data if same_process else demo(home)).features(None, "5m", FIRST, LAST, "price_action")
    again = {name for name, status in tables(data.lake).items() if files[name] != status}
    assert {name.split("session=")[1][:10] for name in again} == {"2023-01-05", "2023-01-06", "2023-01-09"}
    earlier = pl.col("session") < change
    assert_same_bits(after.filter(earlier), before.filter(earlier))
    for session in (change, LAST):
        assert not after.filter(pl.col("session") == session).equals(before.filter(pl.col("session") == session))
    table = f"features_price_action_5m_{set_version('price_action')}"
    shutil.rmtree(data.lake.root / table)
    assert_same_bits(asked(home), after)


def test_a_file_below_that_no_value_reaches_changes_nothing(home: Path):
    data, minutes = demo(home), {"1m": 375, "5m": 75, "15m": 25, "60m": 7, "day": 1}
    count = sessions_needed(features_of("price_action"), "5m", minutes)
    oldest, unread = (data.calendar.previous(LAST, steps) for steps in (count, count + 1))
    assert data.lake.has(PRICES, unread)
    data.features(None, "5m", LAST, LAST, "price_action")
    files = tables(data.lake)
    changed_price(data, unread)
    data.features(None, "5m", LAST, LAST, "price_action")
    assert tables(data.lake) == files
    changed_price(data, oldest)
    data.features(None, "5m", LAST, LAST, "price_action")
    assert tables(data.lake) != files


def test_another_version_is_another_table(home: Path, monkeypatch: pytest.MonkeyPatch):
    asked(home, "cross_section", last=FIRST)
    monkeypatch.setattr("odin_core.features.provider.set_version", lambda _: "0123456789ab")
    rows = asked(home, "cross_section", last=FIRST)
    assert {Path(name).parts[0][-12:] for name in tables(demo(home).lake)} == {
        "0123456789ab", set_version("cross_section")
    }  # fmt: skip
    assert not rows.is_empty()


def test_a_damaged_file_is_named(home: Path):
    asked(home, last=FIRST)
    (name,) = tables(demo(home).lake)
    path = demo(home).lake.root / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(PartitionUnreadable, match="was damaged after it was written"):
        asked(home, last=FIRST)


# As of


@pytest.mark.parametrize("interval", ["1m", "5m", "60m", "day"])
def test_as_of_a_moment_within_a_session_its_rows_up_to_then_are_told_and_not_stored(home: Path, interval: str):
    data = demo(home)
    opened = data.calendar.hours(LAST).open
    moment = opened + timedelta(minutes=127)
    seen = data.features(None, interval, FIRST, LAST, "technical", moment)
    assert sorted(name.split("session=")[1][:10] for name in tables(data.lake))[-1] == "2023-01-06"
    assert len(tables(data.lake)) == 5
    whole = data.features(None, interval, FIRST, LAST, "technical")
    assert_same_bits(seen, whole.filter(pl.col("known_at") <= moment))
    assert seen.filter(pl.col("session") == LAST).height == 4 * {"1m": 127, "5m": 25, "60m": 2, "day": 0}[interval]


def test_as_of_is_what_was_known_whatever_the_rest_of_the_session_and_later_ones_become(home: Path):
    data = demo(home)
    moment = data.calendar.hours(date(2023, 1, 5)).open + timedelta(minutes=200)
    seen = data.features(None, "5m", FIRST, LAST, "cross_section", moment)
    for session in data.calendar.sessions(date(2023, 1, 5), LAST):
        bars = data.lake.read(PRICES, session)
        future = pl.col("known_at") > moment
        data.lake.write(PRICES, session, bars.with_columns(pl.when(future).then(9.0).otherwise("close").alias("close")))
    again = demo(home).features(None, "5m", FIRST, LAST, "cross_section", moment)
    assert_same_bits(again, seen)
    assert again["known_at"].max() == moment


def test_as_of_an_open_or_before_the_range_there_is_nothing_of_it_and_at_a_close_all(home: Path):
    data = demo(home)
    opened, closed = data.calendar.hours(LAST)
    assert data.features(None, "5m", LAST, LAST, "price_action", opened).is_empty()
    assert data.features(None, "5m", FIRST, LAST, "price_action", datetime(2020, 1, 1, tzinfo=UTC)).is_empty()
    assert tables(data.lake) == {}
    at_close = data.features(None, "5m", LAST, LAST, "price_action", closed)
    assert len(tables(data.lake)) == 1
    assert_same_bits(at_close, data.features(None, "5m", LAST, LAST, "price_action"))


# Mistakes and edges


def test_what_does_not_exist_is_refused_by_name(home: Path):
    data = demo(home)
    with pytest.raises(UnknownSet, match="price_action"):
        data.features(None, "5m", FIRST, LAST, "price_actions")
    with pytest.raises(NoBarsOfFeatures, match="on bars of 1m, 5m, 15m, 60m, day, and not of '7min'"):
        data.features(None, "7min", FIRST, LAST, "price_action")
    with pytest.raises(NaiveMoment, match="as_of"):
        data.features(None, "5m", FIRST, LAST, "price_action", datetime(2023, 1, 3))
    assert tables(data.lake) == {}


@pytest.mark.parametrize(
    ("first", "last"),
    [
        pytest.param(LAST, FIRST, id="the wrong way round"),
        pytest.param(date(2023, 1, 7), date(2023, 1, 8), id="a weekend"),
        pytest.param(date(2022, 9, 1), date(2022, 9, 30), id="before the market has bars"),
    ],
)
def test_a_range_without_bars_gives_no_rows_of_the_same_columns_and_no_files(home: Path, first: date, last: date):
    rows = asked(home, first=first, last=last)
    assert rows.is_empty()
    assert rows.schema == asked(home, last=FIRST).schema
    assert len(tables(demo(home).lake)) == 1


def test_a_range_is_cut_at_the_calendars_ends_and_refused_beyond_them(home: Path):
    data = demo(home)
    before = data.calendar.first - timedelta(days=400)
    assert data.features(None, "day", before, date(2022, 9, 30), "fundamental").is_empty()
    with pytest.raises(OutsideCalendar, match="widen calendar_first"):
        data.features(None, "day", before, before, "fundamental")
