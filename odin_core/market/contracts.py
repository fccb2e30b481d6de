"""What the name of an NSE derivative says: underlying, expiry, strike and right, for bars that come without them.

Four ways of writing one are read: with the whole date (NIFTY01FEB2420450PE, NIFTY29FEB24FUT), as brokers do with the
month (NIFTY24FEB20450PE, NIFTY24FEBFUT) or the day of a weekly one (NIFTY2420120450PE; the month is 1 to 9, O, N or D),
and the continuous future (NIFTY-I). What a table of instruments says is better, and `market.open_interest` prefers it.
A name is read as of a day: the expiry lies on that day or up to YEARS_AHEAD years after it."""

import re
from calendar import month_abbr
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Literal, NamedTuple

import polars as pl

from odin_core.market.calendar import SessionCalendar
from odin_core.market.sources.source import INSTRUMENTS

YEARS_AHEAD = 6  # NIFTY options are listed for about five
MONTHS = {name.upper(): month for month, name in enumerate(month_abbr) if name}
WEEKLY_MONTHS = {**{str(i): i for i in range(1, 10)}, "O": 10, "N": 11, "D": 12}

NAME, MONTH = r"(?P<underlying>[A-Z0-9&-]+?)", f"(?P<month>{'|'.join(MONTHS)})"
TERMS = r"(?:(?P<future>FUT)|(?P<strike>[1-9]\d*(?:\.\d+)?|0\.\d+)(?P<right>[CP])E)$"
DATED = re.compile(NAME + r"(?P<day>\d\d)" + MONTH + r"(?P<year>\d\d)" + TERMS)
MONTHLY = re.compile(NAME + r"(?P<year>\d\d)" + MONTH + TERMS)
WEEKLY = re.compile(r"(?P<year>\d\d)(?P<month>[1-9OND])(?P<day>\d\d)" + TERMS)  # from a place in the name on
CONTINUOUS = re.compile(r"(?P<underlying>[A-Z0-9&-]+)-I{1,3}$")

THURSDAY, TUESDAY, WEDNESDAY = 3, 1, 2


class Contract(NamedTuple):
    underlying: str
    kind: Literal["future", "option"]
    expiry: date | None  # None: a continuous future, or a monthly expiry whose day is not known here
    strike: float | None
    right: Literal["C", "P"] | None


def contract_of(symbol: str, on: date, calendar: SessionCalendar) -> Contract | None:
    """The contract that a name means on a day; None for a name that is none.

    Where a name can be read as whole date and as month (360ONE25NOV251000CE: 1000 or 251000), the whole date wins;
    `contracts_of` sees the other names of the underlying too and decides better."""
    return next(iter(_resolved([symbol], on, calendar).values()), None)


def contracts_of(symbols: Iterable[str], on: date, calendar: SessionCalendar) -> pl.DataFrame:
    """The contracts among the names: schema INSTRUMENTS, sorted by symbol; names that are none have no row.

    One source writes all names of an underlying in one way: where any of them has no whole date, an ambiguous one has
    none either. Tick and lot size are null. A monthly expiry is the last Thursday of its month, from September 2025 the
    last Tuesday, or the session before where that is none; see `monthly_expiry` for those that are left null."""
    rows = [
        {"symbol": symbol, "name": symbol, "source_id": symbol, **contract._asdict()}
        for symbol, contract in sorted(_resolved(sorted(set(symbols)), on, calendar).items())
    ]
    return pl.DataFrame(rows, schema=INSTRUMENTS)


def monthly_expiry(underlying: str, year: int, month: int, calendar: SessionCalendar) -> date | None:
    """Day on which NSE's monthly contract expires; None where the rule of that time is not known here, which is so for
    FINNIFTY, MIDCPNIFTY and NIFTYNXT50 before 2025 (their weekday changed more than once).

    Last Thursday (BANKNIFTY March to December 2024: last Wednesday), from September 2025 last Tuesday, moved to the
    session before where the exchange is closed. A day beyond the calendar is not moved.
    Source: NSE circulars of 2024-11-29 (all indices to Thursday from 2025-01-01) and 2025-06-23 (Tuesday from
    2025-09-01). Oracle: expiry dates in the exchange's own file of 2025-11-14, tests/market/test_contracts.py."""
    if (year, month) >= (2025, 9):
        weekday = TUESDAY
    elif year < 2025 and underlying in ("FINNIFTY", "MIDCPNIFTY", "NIFTYNXT50"):
        return None
    elif year == 2024 and month >= 3 and underlying == "BANKNIFTY":
        weekday = WEDNESDAY
    else:
        weekday = THURSDAY
    last = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
    day = last - timedelta(days=(last.weekday() - weekday) % 7)
    if not calendar.first < day <= calendar.last or calendar.is_session(day):
        return day
    return calendar.previous(day)


class _Reading(NamedTuple):
    contract: Contract
    has_day: bool  # the name has the whole date as the exchange writes it


def _resolved(symbols: Sequence[str], on: date, calendar: SessionCalendar) -> dict[str, Contract]:
    readings = {symbol: list(_readings(symbol, on, calendar)) for symbol in symbols}
    without_day = {
        found[0].contract.underlying
        for found in readings.values()
        if found and not any(reading.has_day for reading in found)
    }
    return {symbol: _choose(found, without_day) for symbol, found in readings.items() if found}


def _choose(readings: list[_Reading], without_day: set[str]) -> Contract:
    fitting = [r for r in readings if r.has_day != (r.contract.underlying in without_day)]
    return (fitting or readings)[0].contract


def _readings(symbol: str, on: date, calendar: SessionCalendar) -> Iterator[_Reading]:
    """Every way to read a name that gives a contract which may be traded on the day; the whole date comes first."""
    if match := CONTINUOUS.match(symbol):
        yield _Reading(Contract(match["underlying"], "future", None, None, None), False)
        return
    if (match := DATED.match(symbol)) and (day := _date(match, MONTHS)) and _trades(day, on):
        yield _Reading(_contract(match["underlying"], match, day), True)
    if match := MONTHLY.match(symbol):
        year, month, underlying = 2000 + int(match["year"]), MONTHS[match["month"]], match["underlying"]
        expiry = monthly_expiry(underlying, year, month, calendar)
        if _trades(expiry or date(year, month, 28), on):
            yield _Reading(_contract(underlying, match, expiry), False)
    for place in range(1, len(symbol)):
        match = WEEKLY.match(symbol, place)
        if match and not match["future"] and (day := _date(match, WEEKLY_MONTHS)) and _trades(day, on):
            yield _Reading(_contract(symbol[:place], match, day), False)


def _contract(underlying: str, match: re.Match[str], expiry: date | None) -> Contract:
    if match["future"]:
        return Contract(underlying, "future", expiry, None, None)
    return Contract(underlying, "option", expiry, float(match["strike"]), "C" if match["right"] == "C" else "P")


def _date(match: re.Match[str], months: dict[str, int]) -> date | None:
    try:
        return date(2000 + int(match["year"]), months[match["month"]], int(match["day"]))
    except ValueError:
        return None


def _trades(expiry: date, on: date) -> bool:
    return on <= expiry and expiry.year <= on.year + YEARS_AHEAD
