"""`MarketData.features` in markets of other kinds, on recorded bars, and of facts that bars do not tell."""

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import nsefiles
import numpy as np
import polars as pl
import pytest
from featurelakes import lake_of, tables, walks
from histories import assert_same_bits
from odincommand import odin
from realdata import market_file

from odin_core.home import open_home
from odin_core.market.calendar import session_calendar
from odin_core.market.data import MarketData
from odin_core.market.intake.knowntables import rewrite
from odin_core.market.options.open_interest import OPEN_INTEREST, OPEN_INTEREST_TABLE
from odin_core.market.profile import load_profile
from odin_core.market.reference import fundamentals
from odin_core.market.reference.fundamentals import FUNDAMENTALS


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
    figures(data, ("TCS", "skew", NSE.hours(DAYS[0]).open, 99.0))  # a figure of the same name as a column of chains
    named_alike = MarketData(data.lake, data.profile).features(["TCS"], "5m", DAYS[1], DAYS[1], "open_interest")
    assert named_alike["implied_skew"].null_count() == named_alike.height == 75
    assert by_day[DAYS[1]].null_count() == 8  # until ten
    assert by_day[DAYS[2]].to_list() == pytest.approx([0.5] * 8 + [0.7] * 67)
    assert by_day[DAYS[3]].to_list() == pytest.approx([0.7] * 75)
    assert by_day[DAYS[4]].null_count() == 75
    (table,) = {Path(name).parts[0] for name in tables(data.lake)}
    shutil.rmtree(data.lake.root / table)
    again = MarketData(data.lake, data.profile)
    each = [again.features(None, "5m", day, day, "open_interest") for day in DAYS]
    assert_same_bits(pl.concat(each), whole)
