"""The one way to features, `MarketData.features`: out of the lake or computed, the same rows; and what has them made
again. What the values are is tested in `test_engine`; several processes and kills in `test_feature_store`."""

import os
import shutil
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import nsefiles
import numpy as np
import polars as pl
import pytest
from odincommand import odin
from polars.testing import assert_frame_equal
from realdata import market_file
from smalllives import quick, small_market

from odin_core.features.catalogue import INTERVALS, UnknownSet, features_of, set_names, set_version
from odin_core.home import open_home
from odin_core.lake import Lake, PartitionUnreadable, logical_hash
from odin_core.market.bars import BARS, NotAnInterval
from odin_core.market.calendar import OutsideCalendar, SessionCalendar, session_calendar
from odin_core.market.data import PRICES, MarketData
from odin_core.market.history import NaiveMoment
from odin_core.market.intake.knowntables import rewrite
from odin_core.market.options.open_interest import OPEN_INTEREST, OPEN_INTEREST_TABLE
from odin_core.market.profile import load_profile
from odin_core.market.reference import fundamentals
from odin_core.market.reference.fundamentals import FUNDAMENTALS

FIRST, LAST = date(2023, 1, 2), date(2023, 1, 9)  # six sessions
USUAL_GRID = {"decision": "day", "technical": "5m", "price_action": "5m", "cross_section": "60m", "open_interest": "5m",
              "fundamental": "day"}  # fmt: skip


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


def tables(lake: Lake) -> dict[str, tuple[int, int]]:
    """Every file of features with its number and time: another number is another file."""
    found = (
        p for p in lake.root.rglob("*") if p.is_file() and p.relative_to(lake.root).parts[0].startswith("features")
    )
    return {str(p.relative_to(lake.root)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in sorted(found)}


def assert_same_bits(left: pl.DataFrame, right: pl.DataFrame) -> None:
    assert_frame_equal(left, right, check_exact=True)
    assert logical_hash(left) == logical_hash(right)


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
    data = demo(home)
    of = features_of("price_action")
    data.features(None, "5m", LAST, LAST, "price_action")
    files = tables(data.lake)
    oldest = data._provider.sessions_before(LAST, of, "5m")[0]
    earlier = data.calendar.previous(oldest)
    if data.lake.has(PRICES, earlier):
        changed_price(data, earlier)
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
    with pytest.raises(NotAnInterval, match="'7min' is no interval"):
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


# Other markets


def lake_of(folder: Path, market: str, bars: pl.DataFrame, table: str = PRICES) -> MarketData:
    """A market's lake with these bars, each session's in its place."""
    profile = load_profile(market)
    lake, calendar = open_home(folder).lake(market), session_calendar(profile)
    first, last = (bars["ts"].dt.date().min(), bars["ts"].dt.date().max())
    assert isinstance(first, date)
    assert isinstance(last, date)
    for session in calendar.sessions(first, last):
        own = bars.filter(pl.col("ts").is_between(*calendar.hours(session), closed="left"))
        if own.height:
            lake.write(table, session, own)
    return MarketData(lake, profile)


def walks(
    calendar: SessionCalendar, sessions: Sequence[date], symbols: Sequence[str], minutes: int = 1
) -> pl.DataFrame:
    """Random walks: bars of so many minutes, all of each session."""
    rng, frames = np.random.default_rng(3), []
    for symbol in symbols:
        step = f"{minutes}m"
        hours = [calendar.hours(session) for session in sessions]
        ts = pl.concat(pl.datetime_range(*h, step, closed="left", time_unit="us", eager=True) for h in hours)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, len(ts))))
        bars = pl.DataFrame({"symbol": symbol, "ts": ts, "open": np.roll(close, 1), "close": close, "volume": 5.0})
        frames.append(
            bars.with_columns(
                known_at=pl.col("ts") + timedelta(minutes=minutes),
                high=pl.max_horizontal("open", "close"),
                low=pl.min_horizontal("open", "close"),
                oi=None,
            )
        )
    return pl.concat(frame.select(BARS.names()).cast(BARS) for frame in frames)


def test_round_the_clock_a_session_is_a_day_and_its_first_bar_follows_the_last_one(tmp_path: Path):
    calendar = session_calendar(load_profile("crypto"))
    days = calendar.sessions(date(2021, 3, 1), date(2021, 3, 4))
    data = lake_of(tmp_path, "crypto", walks(calendar, days, ["BTCUSDT", "ETHUSDT"]))
    rows = data.features(["BTCUSDT"], "60m", days[1], days[-1], "price_action")
    assert rows.height == 3 * 24
    bars = data.read(["BTCUSDT"], days[0], days[-1], "60m")
    expected = bars.select(pl.col("close").log().diff().cast(pl.Float32)).to_series()[24:]
    np.testing.assert_allclose(rows["log_return_1_60m"], expected, atol=1e-6)
    assert rows["session_elapsed_1m"].to_list() == pytest.approx([(h + 1) / 24 for h in range(24)] * 3)
    assert rows["known_at"][23] == calendar.hours(days[1]).close


def test_where_only_larger_bars_were_given_finer_features_are_unknown_and_the_others_known(tmp_path: Path):
    calendar = session_calendar(load_profile("nse"))
    days = calendar.sessions(date(2021, 4, 1), date(2021, 4, 30))
    data = lake_of(tmp_path, "nse", walks(calendar, days, ["INFY", "TCS"], 5), "bars_5m")
    rows = data.features(None, "5m", days[-2], days[-1], "price_action")
    assert rows.height == 2 * 2 * 75
    assert rows["log_return_12_1m"].null_count() == rows.height
    for name in ("log_return_60_5m", "log_return_12_60m", "yang_zhang_20_15m", "log_return_3_day"):
        assert rows[name].null_count() == 0
    assert data.features(None, "1m", days[-1], days[-1], "price_action").is_empty()


def test_recorded_bars_with_outages_are_complete_after_the_warm_up(tmp_path: Path):
    raw = pl.read_parquet(market_file("nse_equity_1m_2021.parquet"))
    some = raw.filter(pl.col("symbol").is_in(["TCS", "SBIN", "INFY"]), pl.col("ts").dt.month() <= 5)
    path = nsefiles.written(some, tmp_path / "bars.parquet")
    assert odin("data", "import", path, "--market", "nse", home=tmp_path / "home").status == 0
    data = MarketData(open_home(tmp_path / "home").lake("nse"), load_profile("nse"))
    sessions = data.sessions()
    assert len(sessions) > 25
    rows = data.features(None, "day", sessions[0], sessions[-1])
    known = rows.with_columns(whole=pl.all_horizontal(pl.col(pl.Float32).is_not_null()))
    by_session = known.group_by("session").agg(pl.col("whole").sum()).sort("session")
    assert by_session["whole"][:9].sum() == 0
    assert by_session.filter(pl.col("session") >= sessions[16])["whole"].min() == 3


# Facts


ORIGIN = {"period": None, "origin": "by hand", "origin_id": "0" * 16}
NSE = session_calendar(load_profile("nse"))
DAYS = NSE.sessions(date(2021, 4, 1), date(2021, 4, 9))


def figures(data: MarketData, *rows: tuple[str, str, datetime, float | None]) -> None:
    told = [
        {"symbol": symbol, "figure": figure, "known_at": at, "value": value, **ORIGIN}
        for symbol, figure, at, value in rows
    ]
    frame = pl.DataFrame(told, schema=FUNDAMENTALS).sort(*fundamentals.KEY)
    rewrite(data.lake, fundamentals.TABLE, frame, data.calendar)


def test_a_figure_is_seen_by_the_rows_after_it_became_known_alone(tmp_path: Path):
    bars = walks(NSE, DAYS, ["INFY", "TCS"], 5)
    data = lake_of(tmp_path, "nse", bars, "bars_5m")
    noon, later = NSE.hours(DAYS[2]).open + timedelta(hours=3), NSE.hours(DAYS[3]).open + timedelta(hours=1)
    figures(data, ("TCS", "pe", noon, 25.0), ("TCS", "pe", later, None), ("INFY", "pe", NSE.hours(DAYS[1]).close, 20.0))
    rows = data.features(None, "5m", DAYS[0], DAYS[-1], "fundamental")
    for symbol, at, until, value in (
        ("TCS", noon, later, 1 / 25),
        ("INFY", NSE.hours(DAYS[1]).close, datetime(2030, 1, 1, tzinfo=UTC), 1 / 20),
    ):
        own = rows.filter(pl.col("symbol") == symbol)
        told = (pl.col("known_at") >= at) & (pl.col("known_at") < until)
        assert own.filter(told)["earnings_yield"].unique().to_list() == [pytest.approx(value)]
        assert own.filter(~told)["earnings_yield"].null_count() == own.filter(~told).height > 0
    ages = rows.filter(pl.col("symbol") == "TCS", pl.col("known_at") == noon + timedelta(hours=2))["figures_age"]
    assert ages.item() == pytest.approx(2 / 24)
    seen = data.features(None, "5m", DAYS[2], DAYS[2], "fundamental", noon - timedelta(minutes=1))
    assert seen["earnings_yield"].null_count() == seen.filter(pl.col("symbol") == "TCS").height > 0


def test_a_figure_that_comes_to_the_lake_later_has_the_sessions_after_it_computed_again(tmp_path: Path):
    data = lake_of(tmp_path, "nse", walks(NSE, DAYS, ["INFY", "TCS"], 5), "bars_5m")
    before = data.features(None, "day", DAYS[0], DAYS[-1], "fundamental")
    files = tables(data.lake)
    figures(data, ("TCS", "pe", NSE.hours(DAYS[3]).open, 25.0))
    after = MarketData(data.lake, data.profile).features(None, "day", DAYS[0], DAYS[-1], "fundamental")
    again = {name for name, status in tables(data.lake).items() if files[name] != status}
    assert {name.split("session=")[1][:10] for name in again} == {str(day) for day in DAYS[3:]}
    told = (pl.col("symbol") == "TCS") & (pl.col("session") >= DAYS[3])
    assert_same_bits(after.filter(~told), before.filter(~told))
    assert after.filter(told)["earnings_yield"].null_count() == 0


def series(session: date, **values: float) -> pl.DataFrame:
    """Option series of TCS at 10:00 and at the close."""
    opened, closed = NSE.hours(session)
    rows = [{"underlying": "TCS", "known_at": at, **values} for at in (opened + timedelta(minutes=45), closed)]
    return pl.DataFrame(rows, schema_overrides=OPEN_INTEREST).select(
        pl.col(n) if n in rows[0] else pl.lit(None, t).alias(n) for n, t in OPEN_INTEREST.items()
    )


def test_option_series_are_seen_by_their_underlying_in_their_session_and_the_next_whatever_is_computed_with_it(
    tmp_path: Path,
):
    data = lake_of(tmp_path, "nse", walks(NSE, DAYS, ["INFY", "TCS"], 5), "bars_5m")
    for day, value in ((DAYS[1], 0.5), (DAYS[2], 0.7)):
        data.lake.write(OPEN_INTEREST_TABLE, day, series(day, put_call_oi=value))
    whole = data.features(None, "5m", DAYS[0], DAYS[-1], "open_interest")
    tcs = whole.filter(pl.col("symbol") == "TCS")
    by_day = {day: tcs.filter(pl.col("session") == day)["put_call_oi"] for day in DAYS}
    assert whole.filter(pl.col("symbol") == "INFY")["put_call_oi"].null_count() == 75 * len(DAYS)
    assert by_day[DAYS[0]].null_count() == 75
    assert by_day[DAYS[1]].null_count() == 8  # until ten
    assert by_day[DAYS[2]].to_list() == pytest.approx([0.5] * 8 + [0.7] * 67)
    assert by_day[DAYS[3]].to_list() == pytest.approx([0.7] * 75)
    assert by_day[DAYS[4]].null_count() == 75
    (table,) = {Path(name).parts[0] for name in tables(data.lake)}
    shutil.rmtree(data.lake.root / table)
    again = MarketData(data.lake, data.profile)
    each = [again.features(None, "5m", day, day, "open_interest") for day in DAYS]
    assert_same_bits(pl.concat(each), whole)
