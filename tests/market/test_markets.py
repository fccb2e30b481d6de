"""Markets other than NSE on recorded data: calendars against when bars were recorded, and lives on a few sessions."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from realdata import market_file
from smalllives import clock, quick

from odin_core.home import Home, open_home
from odin_core.lifecycle import life as lives
from odin_core.lifecycle.life import Life
from odin_core.lifecycle.run import run_sessions
from odin_core.market.bars import MINUTE
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.data import MarketData, NoData
from odin_core.market.intake.barfiles import Said
from odin_core.market.intake.importing import import_files
from odin_core.market.profile import MarketProfile, load_profile

WARM_UP = timedelta(days=21)  # of the calendar: more than ten sessions
SAID = {"futures": Said(stamps="end")}  # the euro future is labelled by the ends of its bars
OPEN_TO_ALL = ("filter.min_symbols=1", "filter.min_volatility=0.0", "filter.min_traded_value=0")


def calendar_of(market: str) -> SessionCalendar:
    return session_calendar(load_profile(market))


def recorded(name: str, symbol: str) -> pl.DataFrame:
    return pl.scan_parquet(market_file(name)).filter(pl.col("symbol") == symbol).sort("ts").collect()


def by_session(bars: pl.DataFrame, calendar: SessionCalendar) -> pl.DataFrame:
    """ts with `session`, `opens`, `closes` of the last session that had begun; `inside`: it had not ended."""
    first, last = (getattr(bars["ts"], edge)().date() for edge in ("min", "max"))
    days = calendar.sessions(max(first - timedelta(days=4), calendar.first), last + timedelta(days=1))
    hours = pl.DataFrame([(d, *calendar.hours(d)) for d in days], ["session", "opens", "closes"], orient="row")
    placed = bars.select("ts").join_asof(hours.cast({"opens": bars["ts"].dtype}), left_on="ts", right_on="opens")
    return placed.with_columns(inside=pl.col("ts") < pl.col("closes"))


@pytest.mark.parametrize(
    ("market", "name", "symbol", "outside"),
    [
        pytest.param("crypto", "crypto_1m.parquet", "BTCUSDT", 0, id="crypto"),
        pytest.param("crypto", "crypto_venues_1m_202303.parquet", "BTCUSD.BINANCEUS", 0, id="crypto at a venue"),
        pytest.param("metals", "metals_fx_1m.parquet", "XAUUSD", 0, id="gold, minutes"),
        pytest.param("metals", "multi_asset_1h.parquet", "XAGUSD", 11, id="silver, eight years of hours"),
        pytest.param("indices", "index_fx_5m.parquet", "US30", 0, id="Dow, five minutes"),
        pytest.param("indices", "index_fx_5m.parquet", "NAS100", 0, id="Nasdaq, five minutes"),
        pytest.param("indices", "multi_asset_1h.parquet", "US30", 6, id="Dow, eight years of hours"),
        pytest.param("us", "us_equity_1m.parquet", "AAPL.CFD", 0, id="a share, regular hours"),
    ],
)
def test_recorded_bars_lie_inside_the_sessions(market: str, name: str, symbol: str, outside: int):
    placed = by_session(recorded(name, symbol), calendar_of(market))
    assert placed.height - placed["inside"].sum() == outside


@pytest.mark.parametrize(
    ("market", "name", "symbol", "late", "early"),
    [
        pytest.param("metals", "metals_fx_1m.parquet", "XAUUSD", 3, 4, id="gold"),
        pytest.param("indices", "index_fx_5m.parquet", "US30", 0, 65, id="Dow: an hour less on Fridays"),
        pytest.param("us", "us_equity_1m.parquet", "SPY", 0, 1, id="SPY, through the change of clocks"),
    ],
)
def test_sessions_are_recorded_from_their_first_to_their_last_minutes(
    market: str, name: str, symbol: str, late: int, early: int
):
    """Half days, holidays and the weeks around the change of clocks included; the file's first and last day are cut."""
    inside = by_session(recorded(name, symbol), calendar_of(market)).filter("inside").sort("ts")
    first, last = pl.col("ts").min() - pl.col("opens").first(), pl.col("closes").first() - pl.col("ts").max()
    edges = inside.group_by("session", maintain_order=True).agg(late=first, early=last).slice(1)
    edges = edges.head(edges.height - 1)
    assert edges.height > 40
    assert edges["late"].max() <= timedelta(minutes=late)
    assert edges["early"].max() <= timedelta(minutes=early)


def test_the_euro_future_was_labelled_by_bar_ends_and_fits_to_the_minute_once_moved():
    bars, calendar = recorded("metals_fx_1m.parquet", "6EH4"), calendar_of("futures")
    as_given = by_session(bars, calendar)
    assert as_given.height - as_given["inside"].sum() == 22  # a bar at each close
    moved = by_session(bars.with_columns(pl.col("ts") - MINUTE), calendar)
    assert moved["inside"].all()
    assert moved.group_by("session").agg((pl.col("ts").min() == pl.col("opens").first()).alias("x"))["x"].all()


@pytest.mark.parametrize("symbol", ["SPY", "AAPL", "IWM"])
def test_every_session_of_twenty_years_has_a_recorded_us_day_and_no_other_date_has(symbol: str):
    days = recorded("us_daily_unadjusted.parquet", symbol)["ts"].dt.date().to_list()
    assert days == calendar_of("us").sessions(days[0], days[-1])


@pytest.mark.parametrize(
    ("session", "minutes"),
    [(date(2023, 7, 3), 210), (date(2024, 11, 29), 210), (date(2024, 12, 24), 210), (date(2024, 12, 26), 390)],
)
def test_us_half_days_end_at_one(session: date, minutes: int):
    assert calendar_of("us").minutes(session) == minutes


@pytest.mark.parametrize(
    ("market", "session", "opens", "closes"),
    [
        pytest.param("metals", date(2026, 5, 25), "05-24 22:00", "05-25 18:30", id="Memorial Day, gold"),
        pytest.param("indices", date(2026, 5, 25), "05-24 22:00", "05-25 17:00", id="Memorial Day, Dow"),
        pytest.param("indices", date(2026, 6, 19), "06-18 22:00", "06-19 17:00", id="Juneteenth"),
        pytest.param("metals", date(2026, 1, 2), "01-01 23:00", "01-02 22:00", id="after New Year, winter time"),
        pytest.param("indices", date(2023, 4, 7), "04-06 22:00", "04-07 13:15", id="Good Friday with labour report"),
        pytest.param("futures", date(2024, 3, 11), "03-10 22:00", "03-11 21:00", id="the Sunday of summer time"),
        pytest.param("crypto", date(2024, 2, 29), "02-29 00:00", "03-01 00:00", id="a leap day"),
        pytest.param("us", date(2024, 7, 3), "07-03 13:30", "07-03 17:00", id="half day before Independence Day"),
    ],
)
def test_hours_known_by_hand(market: str, session: date, opens: str, closes: str):
    assert [f"{at:%m-%d %H:%M}" for at in calendar_of(market).hours(session)] == [opens, closes]


@pytest.mark.parametrize("market", ["metals", "indices", "futures"])
def test_a_week_of_sessions_that_open_the_day_before_begins_on_sunday_evening(market: str):
    calendar = calendar_of(market)
    monday = date(2024, 4, 15)
    assert calendar.hours(monday).open.weekday() == 6
    assert [calendar.minutes(s) for s in calendar.sessions_of_week(monday)] == [23 * 60] * 5
    assert not calendar.is_session(date(2024, 3, 29))  # Good Friday


def excerpt(folder: Path, name: str, symbols: list[str], first: date, last: date) -> Path:
    """The bars that a life of first..last and its warm-up need."""
    near = pl.col("ts").dt.date().is_between(first - WARM_UP, last + timedelta(days=1))
    bars = pl.scan_parquet(market_file(name)).filter(near & pl.col("symbol").is_in(symbols)).collect()
    bars.write_parquet(folder / name)
    return folder / name


def run_life(home: Home, profile: MarketProfile, file: Path, first: date, last: date) -> tuple[MarketData, Life]:
    config = quick(*OPEN_TO_ALL, "exploration.take_probability=0.9")
    data = MarketData(home.lake(profile.name), profile)
    import_files([file], lake=data.lake, calendar=data.calendar, said=SAID.get(profile.name))
    life = lives.create(home, profile.name, config, first)
    results = list(run_sessions(life, data, data.calendar.sessions(first, last), clock=clock))
    assert {r.summary["status"] for r in results} == {"ok"}
    return data, life


@pytest.mark.parametrize(
    ("market", "name", "symbols", "first", "last"),
    [
        pytest.param(
            "crypto", "crypto_1m.parquet", ["BTCUSDT"], date(2024, 2, 26), date(2024, 3, 4), id="crypto, 1440 minutes"
        ),
        pytest.param("metals", "metals_fx_1m.parquet", ["XAUUSD"], date(2026, 4, 13), date(2026, 4, 20), id="gold"),
        pytest.param("futures", "metals_fx_1m.parquet", ["6EH4"], date(2024, 1, 22), date(2024, 1, 30), id="a future"),
        pytest.param("us", "us_equity_1m.parquet", ["SPY"], date(2024, 3, 7), date(2024, 3, 14), id="SPY, new clock"),
    ],
)
def test_a_life_trades_whole_lots_inside_the_sessions_of_its_market(
    tmp_path: Path, market: str, name: str, symbols: list[str], first: date, last: date
):
    profile = load_profile(market)
    data, life = run_life(
        open_home(tmp_path / "home"), profile, excerpt(tmp_path, name, symbols, first, last), first, last
    )
    sessions = life.sessions_with("executions")
    assert sessions == data.calendar.sessions(first, last)
    replay = life.read_many("replay_buffer", sessions)
    assert set(replay["status"]) >= {"taken"}
    executions = pl.concat([life.read("executions", s).with_columns(session=pl.lit(s)) for s in sessions])
    assert executions.height >= 4
    for row in executions.iter_rows(named=True):
        opens, closes = data.calendar.hours(row["session"])
        assert opens <= row["ts"] < closes
        lots = row["quantity"] / profile.terms(row["symbol"], row["session"]).lot_size
        assert lots == pytest.approx(round(lots), abs=1e-6)
        assert lots >= 1
    assert executions.filter(pl.col("leg") == "entry").height == executions.filter(pl.col("leg") == "exit").height
    assert np.isfinite(replay.filter(pl.col("complete"))["reward"].to_numpy()).all()


def test_a_life_does_without_volume(tmp_path: Path):
    """Index prices, and brokers that publish no count: nothing limits a fill, and features of volume are exempt."""
    first, last = date(2026, 4, 13), date(2026, 4, 16)
    file = excerpt(tmp_path, "metals_fx_1m.parquet", ["XAUUSD"], first, last)
    pl.read_parquet(file).with_columns(volume=pl.lit(None, pl.Float64)).write_parquet(file)
    profile = replace(load_profile("metals"), volume="none")
    data, life = run_life(open_home(tmp_path / "home"), profile, file, first, last)
    assert data.bars(first)["volume"].null_count() == data.bars(first).height
    assert data.decision_rows(first)["complete"].all()
    assert life.read_many("executions", life.sessions_with("executions")).height > 0


def test_a_session_that_began_the_day_before_is_read_whole_and_as_of(tmp_path: Path):
    profile = load_profile("metals")
    data = MarketData(open_home(tmp_path / "home").lake("metals"), profile)
    first, last = date(2026, 4, 13), date(2026, 4, 17)
    import_files(
        [excerpt(tmp_path, "metals_fx_1m.parquet", ["XAUUSD"], first, last)], lake=data.lake, calendar=data.calendar
    )
    source = recorded("metals_fx_1m.parquet", "XAUUSD")
    opens, closes = data.calendar.hours(first).open, data.calendar.hours(last).close
    expected = source.filter(pl.col("ts").is_between(opens, closes, closed="left"))
    read = data.read(["XAUUSD"], first, last)
    assert read["ts"].to_list() == expected["ts"].to_list()
    assert read["close"].to_list() == expected["close"].to_list()
    hours = data.read(["XAUUSD"], first, first, "60m")
    assert hours["ts"].dt.hour().to_list() == [22, 23, *range(21)]  # 18:00 New York in summer
    noon = datetime(2026, 4, 15, 12, tzinfo=UTC)
    assert data.read(["XAUUSD"], first, last, "60m", as_of=noon)["known_at"].max() == noon


def test_a_session_with_a_halt_is_judged_by_the_minutes_that_were_left(tmp_path: Path):
    """2021-02-24: a quarter of the usual bars, and all that there could be; nobody is left out for having few."""
    profile, first, last = replace(load_profile("nse"), untradable=()), date(2021, 2, 24), date(2021, 2, 25)
    file = excerpt(tmp_path, "nse_index_1m.parquet", ["NIFTY", "BANKNIFTY"], first, last)
    pl.read_parquet(file).with_columns(volume=pl.lit(None, pl.Float64)).write_parquet(file)  # of an index: all zero
    data, life = run_life(open_home(tmp_path / "home"), profile, file, first, last)
    assert data.decision_rows(first)["bars_5m"].max() <= 28  # of 93 in its hours
    assert life.read("phase_state", first)["filtered"].item() == 2
    assert life.read("replay_buffer", last)["symbol"].sort().to_list() == ["BANKNIFTY", "NIFTY"]


def test_five_minute_bars_serve_larger_ones_and_a_life_is_told_that_it_needs_minutes(tmp_path: Path):
    data = MarketData(open_home(tmp_path / "home").lake("indices"), load_profile("indices"))
    monday, friday = date(2026, 6, 1), date(2026, 6, 5)
    near = pl.col("ts").dt.date().is_between(date(2026, 5, 31), friday) & (pl.col("symbol") != "EURUSD")
    fives = pl.scan_parquet(market_file("index_fx_5m.parquet")).filter(near).collect()
    fives.write_parquet(tmp_path / "fives.parquet")
    import_files([tmp_path / "fives.parquet"], lake=data.lake, calendar=data.calendar, said=Said(interval="5m"))
    assert data.read(["US30"], monday, friday, "5m").height == fives.filter(pl.col("symbol") == "US30").height
    days = data.read(["NAS100"], monday, friday, "day")
    source = fives.filter(pl.col("symbol") == "NAS100").sort("ts")
    assert days["known_at"].to_list() == [data.calendar.hours(s).close for s in data.calendar.sessions(monday, friday)]
    assert (days["open"][0], days["close"][-1]) == (source["open"][0], source["close"][-1])
    assert days["volume"].sum() == source["volume"].sum()
    assert data.bars_of(monday, "60m").group_by("symbol").len().sort("symbol")["len"].to_list() == [23, 23]
    with pytest.raises(NoData, match=r"indices: no minute bars.*though bars of 5m: orders are filled minute by minute"):
        data.require(monday, friday)
