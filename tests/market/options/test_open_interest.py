"""The tables of a session against recorded futures, the exchange's own files and themselves."""

import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from odincommand import odin
from optionbars import FUTURES, OPTIONS, recorded
from polars.testing import assert_frame_equal
from realdata import market_file

from odin_core.home import open_home
from odin_core.lake import Lake
from odin_core.market.bars import BARS, MINUTE, UTC
from odin_core.market.calendar import session_calendar
from odin_core.market.intake.barfiles import Said
from odin_core.market.intake.importing import import_files
from odin_core.market.options.chains import PRICED
from odin_core.market.options.contracts import contracts_of
from odin_core.market.options.open_interest import (
    INDIA_VIX,
    OPEN_INTEREST,
    OptionTables,
    open_interest_of,
    store_open_interest,
)
from odin_core.market.profile import BadProfile, load_profile

PROFILE = load_profile("nse_options")
CALENDAR = session_calendar(PROFILE)
EOD_DAY = date(2025, 11, 14)
WEEKLY_EXPIRY, MONTHLY_EXPIRY = date(2024, 1, 18), date(2024, 1, 25)


@pytest.fixture(scope="module")
def january(tmp_path_factory):
    return recorded(Lake(tmp_path_factory.mktemp("january")))


@pytest.fixture(scope="module")
def tables(january) -> dict[date, OptionTables]:
    found = {day: tables_of(january, day) for day in january.sessions("price_history")}
    return {day: made for day, made in found.items() if made.series.height}


@pytest.fixture(scope="module")
def end_of_day(tmp_path_factory):
    """The whole option market of one day as day bars."""
    hours = CALENDAR.hours(EOD_DAY)
    file = pl.read_parquet(market_file("nse_options_eod.parquet"))
    stamps = {"ts": pl.lit(hours.open).cast(UTC), "known_at": pl.lit(hours.close).cast(UTC)}
    lake = Lake(tmp_path_factory.mktemp("eod"))
    lake.write("bars_day", EOD_DAY, file.with_columns(**stamps).select(*BARS).sort("symbol"))
    return file, tables_of(lake, EOD_DAY)


def tables_of(lake: Lake, session: date, **more) -> OptionTables:
    return open_interest_of(lake, session, profile=PROFILE, calendar=CALENDAR, **more)


def exchange_futures() -> pl.DataFrame:
    """Closes of all futures of EOD_DAY from the exchange's file: underlying, expiry, close, oi."""
    rows = pl.read_csv(
        market_file("raw/nse_futures_eod_zero_padded_with_footnote.csv"), truncate_ragged_lines=True, infer_schema=False
    ).rename(str.strip)
    return rows.select(
        pl.col("SYMBOL").str.strip_chars().alias("underlying"),
        pl.col("EXP_DATE").str.to_date("%d/%m/%Y", strict=False).alias("expiry"),
        pl.col("CLOSE_PRICE").cast(pl.Float64, strict=False).alias("close"),
        pl.col("NO_OF_CONT").str.strip_chars().cast(pl.Float64, strict=False).alias("contracts"),
    ).drop_nulls()


def test_the_forward_of_put_call_parity_is_the_future_in_the_same_minutes(tables):
    """NIFTY-I is the future of the expiry of 25 January; a basis point is about two rupees."""
    future = pl.read_parquet(market_file(FUTURES)).filter(pl.col("symbol") == "NIFTY-I")
    closes = future.select(known_at=pl.col("ts") + MINUTE, future="close")
    series = pl.concat([made.series for made in tables.values()])
    same = series.filter(pl.col("expiry") == MONTHLY_EXPIRY).join(closes, on="known_at")
    off = (same["forward"] / same["future"] - 1).abs() * 1e4
    assert same.height > 350
    assert off.median() < 1.5
    assert off.max() < 5


def test_forwards_at_the_end_of_a_day_are_the_futures_of_the_exchanges_file(end_of_day):
    _, made = end_of_day
    liquid = exchange_futures().filter(pl.col("contracts") > 500)
    forwards = made.chain.select("underlying", "expiry", "forward").unique().drop_nulls()
    same = forwards.join(liquid, on=["underlying", "expiry"])
    off = (same["forward"] / same["close"] - 1).abs()
    assert same.height > 180
    assert off.median() < 0.0006
    assert off.quantile(0.95) < 0.004


def test_put_call_ratios_and_max_pain_of_a_whole_market_by_hand(end_of_day):
    file, made = end_of_day
    rows = {row["underlying"]: row for row in made.series.iter_rows(named=True)}
    assert set(rows) == set(file["underlying"])
    for (underlying,), own in file.group_by("underlying"):
        row = rows[underlying]
        is_call = (own["right"] == "C").to_numpy()
        oi, volume = own["oi"].to_numpy(), own["volume"].to_numpy()
        assert row["put_call_oi"] == pytest.approx(oi[~is_call].sum() / oi[is_call].sum(), rel=1e-12)
        assert row["put_call_volume"] == pytest.approx(volume[~is_call].sum() / volume[is_call].sum(), rel=1e-12)
        near = own.filter(pl.col("expiry") == own["expiry"].min())
        strike, held = near["strike"].to_numpy(), near["oi"].to_numpy()
        sign = np.where(near["right"] == "C", 1, -1)
        candidates = np.unique(strike)
        pain = [(held * np.maximum(sign * (at - strike), 0)).sum() for at in candidates]
        assert row["max_pain"] == candidates[int(np.argmin(pain))]


def test_the_own_volatility_index_of_nifty_is_near_india_vix(end_of_day):
    """India VIX closed at 12.11 on 12 and at 12.10 on 18 November 2025, two sessions before and after this file (press
    reports of 13 and 18 November). The strip here is made of trades instead of quotes."""
    row = end_of_day[1].series.filter(pl.col("underlying") == "NIFTY").row(0, named=True)
    assert row["variance_index"] == pytest.approx(12.1, abs=1.0)
    assert 0.09 < row["volatility"] < row["volatility_30d"] < row["variance_index"] / 100


def test_rows_do_not_change_when_what_came_later_is_cut_off(january, tables, tmp_path):
    for session, hour in ((date(2024, 1, 23), 2), (MONTHLY_EXPIRY, 5)):
        cut = CALENDAR.hours(session).open + timedelta(hours=hour, minutes=3)
        past = Lake(tmp_path / str(session))
        for day in january.sessions("price_history"):
            if day <= session:
                bars = january.read("price_history", day)
                past.write("price_history", day, bars.filter(pl.col("known_at") <= cut))
        known = pl.col("known_at") <= cut
        found, whole = tables_of(past, session).series.filter(known), tables[session].series.filter(known)
        assert found.height == (hour * 60 + 3) // 5
        assert_frame_equal(found, whole, check_exact=True)


def test_session_by_session_as_they_come_in_gives_the_tables_of_the_whole_history(january, tables, tmp_path):
    growing = Lake(tmp_path)
    for day in january.sessions("price_history"):
        growing.write("price_history", day, january.read("price_history", day))
        if day in tables:
            found = tables_of(growing, day)
            assert_frame_equal(found.series, tables[day].series, check_exact=True)
            assert_frame_equal(found.chain, tables[day].chain, check_exact=True)


def test_the_table_instruments_says_the_same_as_the_names(january, tables, tmp_path):
    """Codes in place of names, which say nothing; the table gives their terms."""
    session, days, other = date(2024, 1, 16), (date(2024, 1, 15), date(2024, 1, 16)), Lake(tmp_path)
    bars = {day: january.read("price_history", day) for day in days}
    names = sorted(set(pl.concat(list(bars.values()))["symbol"]) - {"NIFTY", "NIFTY-I"})
    coded = pl.col("symbol").replace({name: f"T{i:03}" for i, name in enumerate(names)})
    for day, rows in bars.items():
        other.write("price_history", day, rows.with_columns(coded))
        other.write("instruments", day, contracts_of(rows["symbol"].unique(), day, CALENDAR).with_columns(coded))
    found = tables_of(other, session)
    named = Lake(tmp_path / "named")
    for day, rows in bars.items():
        named.write("price_history", day, rows)
    expected = tables_of(named, session)
    assert_frame_equal(found.chain, expected.chain, check_exact=True)
    assert_frame_equal(found.series, expected.series, check_exact=True)
    assert found.chain["call_oi"].sum() == tables[session].chain["call_oi"].sum()


def test_open_interest_is_carried_from_sessions_before_and_its_change_is_since_their_close(january, tables):
    session, before = date(2024, 1, 16), date(2024, 1, 15)

    def last(day: date) -> pl.DataFrame:
        rows = january.read("price_history", day).filter(pl.col("symbol").str.contains("18JAN24"))
        return rows.sort("ts").unique("symbol", keep="last").select("symbol", "oi")

    both = last(session).join(last(before), on="symbol", how="full", suffix="_before", coalesce=True)
    oi = pl.coalesce("oi", "oi_before")
    calls = both.filter(pl.col("symbol").str.ends_with("CE")).select(
        oi.sum(), (oi - pl.col("oi_before")).sum().alias("d")
    )
    chain = tables[session].chain.filter(pl.col("expiry") == WEEKLY_EXPIRY)
    assert chain["call_oi"].sum() == calls["oi"].item()
    assert chain["call_oi_change"].sum() == calls["d"].item()
    assert chain["call_price"].null_count() > 0  # a strike of yesterday that the file has no longer


def test_at_the_close_of_an_expiry_day_the_chain_keeps_what_expired_and_the_series_moves_on(tables):
    chain, series = tables[WEEKLY_EXPIRY]
    expired = chain.filter(pl.col("expiry") == WEEKLY_EXPIRY)
    assert expired.height > 20
    assert expired.select("years", "forward", "volatility").null_count().row(0) == (expired.height,) * 3
    assert series["expiry"].to_list() == [WEEKLY_EXPIRY] * 74 + [MONTHLY_EXPIRY]
    assert series["volatility_expiry"].to_list() == [WEEKLY_EXPIRY] * 63 + [MONTHLY_EXPIRY] * 12
    held = chain.filter(pl.col("expiry") == MONTHLY_EXPIRY)
    assert series["call_oi"][-1] == held["call_oi"].sum()
    assert series["volatility"].is_between(0.08, 0.4).all()


def test_every_session_has_its_grid_and_its_keys(tables):
    assert len(tables) == 9
    for session, (chain, series) in tables.items():
        hours = CALENDAR.hours(session)
        assert (chain.schema, series.schema) == (PRICED, OPEN_INTEREST)
        assert series["known_at"].to_list() == [hours.open + 5 * MINUTE * i for i in range(1, 76)]
        assert series.select("underlying", "known_at").is_unique().all()
        assert chain["known_at"].unique().to_list() == [hours.close]
        assert (chain["expiry"] >= session).all()
        assert chain.select("underlying", "expiry", "strike").is_unique().all()
        spot = (
            pl.read_parquet(market_file(FUTURES))
            .filter(pl.col("symbol") == "NIFTY")
            .select(known_at=pl.col("ts") + MINUTE, spot="close")
        )
        assert (
            series.join(spot, on="known_at", suffix="_file")
            .select((pl.col("spot") == pl.col("spot_file")).all())
            .item()
        )


def test_spot_and_india_vix_come_from_another_lake_as_they_were_known(january, tables, tmp_path):
    session = date(2024, 1, 16)
    index = Lake(tmp_path)
    start = CALENDAR.hours(session).open
    bars = [
        {"symbol": name, "ts": start + m * MINUTE, "known_at": start + (m + 1) * MINUTE, "close": value}
        for name, m, value in ((INDIA_VIX, 0, 13.5), (INDIA_VIX, 7, 13.9), ("NIFTY", 3, 1.0))
    ]
    index.write("price_history", session, pl.DataFrame(bars, schema=BARS))
    found = tables_of(january, session, indices=[index]).series
    assert found["india_vix"].to_list() == [13.5] + [13.9] * 74
    assert found["spot"].equals(tables[session].series["spot"])  # the lake's own bars come first


def test_storing_twice_writes_once_and_an_empty_session_writes_nothing(january, tables, tmp_path):
    session, lake = date(2024, 1, 16), Lake(tmp_path)
    assert store_open_interest(lake, session, tables[session])
    assert not store_open_interest(lake, session, tables[session])
    assert_frame_equal(lake.read("open_interest", session), tables[session].series)
    assert_frame_equal(lake.read("option_chain", session), tables[session].chain)
    empty = tables_of(lake, session)
    assert (empty.chain.schema, empty.series.schema) == (PRICED, OPEN_INTEREST)
    assert not store_open_interest(Lake(tmp_path / "empty"), session, empty)
    assert Lake(tmp_path / "empty").tables() == []


def test_a_market_without_interest_rates_is_told_so(january):
    session = date(2024, 1, 16)
    with pytest.raises(BadProfile, match="interest_rates"):
        open_interest_of(january, session, profile=load_profile("us"), calendar=CALENDAR)


def test_an_interest_rate_is_known_from_the_day_after_its_decision():
    """The Reserve Bank cut its repo rate from 6 % to 5.5 % on 2025-06-06."""
    assert PROFILE.interest_rate(date(2025, 6, 6)) == 0.06
    assert PROFILE.interest_rate(date(2025, 6, 9)) == 0.055


def test_a_session_of_more_than_322_contracts_takes_well_under_a_second(january, tmp_path):
    bars = january.read("price_history", MONTHLY_EXPIRY)
    twins = bars.with_columns(pl.col("symbol").str.replace("NIFTY", "BANKNIFTY"))
    lake = Lake(tmp_path)
    lake.write("price_history", MONTHLY_EXPIRY, pl.concat([twins, bars]))
    assert bars["symbol"].str.contains("JAN|FEB").sum() * 2 > 100_000
    made, seconds = tables_of(lake, MONTHLY_EXPIRY), []
    for _ in range(3):
        started = time.process_time()
        tables_of(lake, MONTHLY_EXPIRY)
        seconds.append(time.process_time() - started)
    assert 2 * made.chain.height > 322
    assert made.series.height == 2 * 75
    assert min(seconds) < 1.0  # of processor, all threads together


def test_files_that_were_imported_give_the_same_tables(tables, end_of_day, tmp_path):
    lake, days = Lake(tmp_path / "lake"), (date(2024, 1, 15), date(2024, 1, 16))
    minutes = []
    for name in (OPTIONS, FUTURES):
        rows = pl.read_parquet(market_file(name)).filter(pl.col("ts").dt.date().is_in(days))
        rows.write_parquet(tmp_path / name)
        minutes.append(tmp_path / name)
    import_files(minutes, lake=lake, calendar=CALENDAR)
    import_files([market_file("nse_options_eod.parquet")], lake=lake, calendar=CALENDAR, said=Said(interval="day"))
    for day, expected in ((days[1], tables[days[1]]), (EOD_DAY, end_of_day[1])):
        assert lake.has("instruments", day)
        found = tables_of(lake, day)
        assert_frame_equal(found.chain, expected.chain, check_exact=True)
        assert_frame_equal(found.series, expected.series, check_exact=True)


def test_the_command_writes_both_tables_where_sql_finds_them_and_says_what_it_left_out(january, tmp_path):
    """Of three sessions the last has bars of an index alone; a second run finds nothing to write."""
    home, days = open_home(tmp_path / "home"), [date(2024, 1, 15), date(2024, 1, 16), date(2024, 1, 17)]
    lake = home.lake("nse_options")
    for day in days[:2]:
        lake.write("price_history", day, january.read("price_history", day))
    index = january.read("price_history", days[2]).filter(pl.col("symbol") == "NIFTY-I")
    lake.write("price_history", days[2], index)
    asked = ("data", "options", "--market", "nse_options", "--json")
    told = odin(*asked, "--start", "2024-01-16", home=home).json
    assert (told["sessions"], told["written"], told["without_options"]) == (1, 1, ["2024-01-17"])
    assert lake.sessions("option_chain") == lake.sessions("open_interest") == [days[1]]
    expected = tables_of(lake, days[1])
    assert_frame_equal(lake.read("open_interest", days[1]), expected.series, check_exact=True)
    assert_frame_equal(lake.read("option_chain", days[1]), expected.chain, check_exact=True)
    assert told["rows"] == {"option_chain": expected.chain.height, "open_interest": expected.series.height}
    runs = [odin(*asked, home=home).json for _ in range(2)]
    assert [(run["sessions"], run["written"]) for run in runs] == [(2, 1), (2, 0)]
    counted = odin("sql", "select count(*) as n from nse_options_open_interest", "--json", home=home).json
    assert counted == [{"n": sum(tables_of(lake, day).series.height for day in days[:2])}]


def test_a_range_without_options_is_no_silence(tmp_path):
    home = open_home(tmp_path / "home")
    home.lake("nse_options").write("price_history", EOD_DAY, BARS.to_frame())
    said = odin("data", "options", "--market", "nse_options", "--start", "2024-01-16", home=home).mistake
    assert "nse_options has no bars of options from 2024-01-16 to the last session" in said
    assert (
        "lies after the last" in odin("data", "options", "--start", "2024-02-01", "--end", "2024-01-01", home=home).err
    )


def test_the_example_in_the_docs_runs(january, tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data/lake").mkdir(parents=True)
    Path("data/lake/nse_options").symlink_to(january.root)
    page = (Path(__file__).parents[3] / "docs" / "options.md").read_text()
    names = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    assert_frame_equal(names["tables"].series, tables[MONTHLY_EXPIRY].series)
