"""What names of derivatives say, by hand and against the terms that the exchange's own files give beside the names."""

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from realdata import market_file

from odin_core.market.calendar import session_calendar
from odin_core.market.options.contracts import Contract, contract_of, contracts_of, monthly_expiry
from odin_core.market.profile import load_profile

CALENDAR = session_calendar(load_profile("nse"))
JANUARY = date(2024, 1, 24)


@pytest.mark.parametrize(
    ("symbol", "on", "contract"),
    [
        ("NIFTY01FEB2420450PE", JANUARY, Contract("NIFTY", "option", date(2024, 2, 1), 20450.0, "P")),
        ("NIFTY2420120450PE", JANUARY, Contract("NIFTY", "option", date(2024, 2, 1), 20450.0, "P")),
        ("NIFTY24FEB20450CE", JANUARY, Contract("NIFTY", "option", date(2024, 2, 29), 20450.0, "C")),
        ("NIFTY20D1713600CE", date(2020, 12, 14), Contract("NIFTY", "option", date(2020, 12, 17), 13600.0, "C")),
        (
            "BANKNIFTY23N2243600PE",
            date(2023, 11, 20),
            Contract("BANKNIFTY", "option", date(2023, 11, 22), 43600.0, "P"),
        ),
        ("360ONE25NOV251000CE", date(2025, 11, 14), Contract("360ONE", "option", date(2025, 11, 25), 1000.0, "C")),
        ("M&M25NOV253850CE", date(2025, 11, 14), Contract("M&M", "option", date(2025, 11, 25), 3850.0, "C")),
        ("BAJAJ-AUTO25NOV8600PE", date(2025, 11, 3), Contract("BAJAJ-AUTO", "option", date(2025, 11, 25), 8600.0, "P")),
        ("IDEA28NOV249.5CE", date(2024, 11, 1), Contract("IDEA", "option", date(2024, 11, 28), 9.5, "C")),
        ("NIFTY29FEB24FUT", JANUARY, Contract("NIFTY", "future", date(2024, 2, 29), None, None)),
        ("NIFTY24FEBFUT", JANUARY, Contract("NIFTY", "future", date(2024, 2, 29), None, None)),
        ("NIFTY-I", JANUARY, Contract("NIFTY", "future", None, None, None)),
    ],
)
def test_a_name_says_its_terms(symbol, on, contract):
    assert contract_of(symbol, on, CALENDAR) == contract


@pytest.mark.parametrize(
    "symbol",
    ["NIFTY", "RELIANCE", "BAJAJ-AUTO", "NIFTY50", "", "CE", "NIFTY31FEB2420450PE", "NIFTY24FEB0CE", "NIFTY01FEB24PE"],
)
def test_what_is_no_contract_has_no_terms(symbol):
    assert contract_of(symbol, JANUARY, CALENDAR) is None
    assert contracts_of([symbol], JANUARY, CALENDAR).is_empty()


def test_an_expired_contract_is_none():
    assert contract_of("NIFTY25JAN2421500CE", date(2024, 1, 25), CALENDAR) is not None
    assert contract_of("NIFTY18JAN2421500CE", date(2024, 1, 25), CALENDAR) is None


def test_names_of_a_broker_with_the_month_are_told_from_whole_dates_by_the_other_strikes():
    """NIFTY25NOV25950CE alone could be the 25th with strike 950."""
    strikes = range(24000, 27000, 50)
    found = contracts_of([f"NIFTY25NOV{k}CE" for k in strikes], date(2025, 11, 3), CALENDAR)
    assert found["strike"].sort().to_list() == [float(k) for k in strikes]
    assert found["expiry"].unique().to_list() == [date(2025, 11, 25)]


def test_whole_dates_are_told_from_months_by_the_other_strikes():
    """On 2024-01-15 NIFTY25JAN2421600PE could be of January 2025 with strike 2421600; 18JAN24 could not."""
    names = [f"NIFTY{day}JAN24{k}PE" for day in (18, 25) for k in range(21000, 22000, 50)] + ["NIFTY-I"]
    found = contracts_of(names, date(2024, 1, 15), CALENDAR).filter(pl.col("kind") == "option")
    assert found["strike"].max() == 21950.0
    assert set(found["expiry"]) == {date(2024, 1, 18), date(2024, 1, 25)}


@given(
    underlying=st.sampled_from(["NIFTY", "BANKNIFTY", "360ONE", "M&M", "BAJAJ-AUTO", "NIFTYNXT50"]),
    expiry=st.dates(date(2016, 1, 1), date(2030, 12, 31)),
    strike=st.one_of(st.integers(1, 99999), st.sampled_from([0.5, 2.5, 97.5, 292.5])),
    right=st.sampled_from("CP"),
    days=st.integers(0, 1000),
)
def test_a_name_with_the_whole_date_reads_back(underlying, expiry, strike, right, days):
    name = f"{underlying}{expiry:%d%b%y}".upper() + f"{strike:g}{right}E"
    if strike >= 1e5 or "e" in f"{strike:g}":
        return
    found = contract_of(name, expiry - timedelta(days=days), CALENDAR)
    assert found == Contract(underlying, "option", expiry, float(strike), right)


@pytest.mark.parametrize("file", ["nse_options_1m.parquet", "nse_options_eod.parquet"])
def test_every_name_of_a_real_file_agrees_with_the_terms_beside_it(file):
    rows = pl.read_parquet(market_file(file)).with_columns(session=pl.col("ts").dt.date())
    terms = ["symbol", "underlying", "expiry", "strike", "right"]
    for (session,), traded in rows.select(*terms, "session").unique().group_by("session"):
        found = contracts_of(traded["symbol"], session, CALENDAR)
        assert found.select(terms).equals(traded.select(terms).sort("symbol"))


def test_monthly_expiries_agree_with_the_exchanges_file_of_futures():
    """All single-stock and index futures of 2025-11-14; names as a broker writes them."""
    futures = pl.read_csv(market_file("raw/nse_futures_eod_zero_padded_with_footnote.csv"), truncate_ragged_lines=True)
    listed = futures.rename(str.strip).select(
        pl.col("SYMBOL").str.strip_chars(), pl.col("EXP_DATE").str.to_date("%d/%m/%Y", strict=False)
    )
    listed = listed.drop_nulls().unique()
    assert listed.height > 600
    for underlying, expiry in listed.iter_rows():
        contract = contract_of(f"{underlying}{expiry:%y%b}FUT".upper(), date(2025, 11, 14), CALENDAR)
        assert contract == Contract(underlying, "future", expiry, None, None)


@pytest.mark.parametrize(
    ("underlying", "year", "month", "expiry"),
    [
        ("NIFTY", 2025, 8, date(2025, 8, 28)),  # the last Thursday that was an expiry
        ("NIFTY", 2025, 9, date(2025, 9, 30)),
        ("NIFTY", 2025, 12, date(2025, 12, 30)),
        ("BANKNIFTY", 2024, 2, date(2024, 2, 29)),
        ("BANKNIFTY", 2024, 3, date(2024, 3, 27)),
        ("BANKNIFTY", 2025, 1, date(2025, 1, 30)),
        ("NIFTY", 2023, 6, date(2023, 6, 28)),  # 29 June was a holiday
        ("FINNIFTY", 2023, 6, None),
        ("FINNIFTY", 2025, 1, date(2025, 1, 30)),
        ("RELIANCE", 2028, 2, date(2028, 2, 29)),  # beyond the calendar
    ],
)
def test_monthly_contracts_expire_on_the_exchanges_day(underlying, year, month, expiry):
    assert monthly_expiry(underlying, year, month, CALENDAR) == expiry
