"""What the name of an NSE derivative says: underlying, expiry, strike and right, for bars that come without them.

Four ways of writing one are read: with the whole date (NIFTY01FEB2420450PE, NIFTY29FEB24FUT), as brokers do with the
month (NIFTY24FEB20450PE, NIFTY24FEBFUT) or the day of a weekly one (NIFTY2420120450PE; the month is 1 to 9, O, N or D),
and the continuous future (NIFTY-I). What a table of instruments says is better, and `options.open_interest` prefers it.
A name is read as of a day: the expiry lies on that day or up to YEARS_AHEAD years after it."""

import re
from calendar import month_abbr
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from math import log
from statistics import median
from typing import Literal, NamedTuple

import polars as pl

from odin_core.market.calendar import SessionCalendar
from odin_core.market.sources.source import INSTRUMENTS

YEARS_AHEAD = 6  # NIFTY options are listed for about five
MONTHS = {name.upper(): month for month, name in enumerate(month_abbr) if name}
WEEKLY_MONTHS = {**{str(i): i for i in range(1, 10)}, "O": 10, "N": 11, "D": 12}

NAME, MONTH = r"(?P<underlying>[A-Z0-9&-]+?)", f"(?P<month>{'|'.join(MONTHS)})"
OPTION = r"(?P<strike>[1-9]\d*(?:\.\d+)?|0\.\d+)(?P<right>[CP])E"
TERMS = f"(?:FUT|{OPTION})$"
DATED = re.compile(NAME + r"(?P<day>\d\d)" + MONTH + r"(?P<year>\d\d)" + TERMS)
MONTHLY = re.compile(NAME + r"(?P<year>\d\d)" + MONTH + TERMS)
WEEKLY = re.compile(r"(?P<year>\d\d)(?P<month>[1-9OND])(?P<day>\d\d)" + OPTION + "$")  # from a place in the name on
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

    Where a name can be read both with a whole date and with a month (360ONE25NOV251000CE: strike 1000 or 251000) the
    whole date wins; `contracts_of` knows the other strikes of the underlying and decides better."""
    return next(iter(_resolved([symbol], on, calendar).values()), None)


def contracts_of(symbols: Iterable[str], on: date, calendar: SessionCalendar) -> pl.DataFrame:
    """The contracts among the names: schema INSTRUMENTS, sorted by symbol; names that are none have no row.

    A name that can be read in two ways gets the strike that is closer to the middle one of the underlying's other
    names, those that can be read in one way only. Tick and lot size are null. The day of a name without one is its
    `monthly_expiry`, null where that is not known."""
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
    2025-09-01). Oracle: expiry dates in the exchange file of 2025-11-14, tests/market/options/test_contracts.py."""
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


def _resolved(symbols: Sequence[str], on: date, calendar: SessionCalendar) -> dict[str, Contract]:
    readings = {symbol: list(_readings(symbol, on, calendar)) for symbol in symbols}
    sure = defaultdict[str, list[float]](list)
    for found in readings.values():
        if len(found) == 1 and found[0].strike is not None:
            sure[found[0].underlying].append(found[0].strike)
    usual = {underlying: median(strikes) for underlying, strikes in sure.items()}
    return {symbol: min(found, key=partial(_strangeness, usual)) for symbol, found in readings.items() if found}


def _strangeness(usual: dict[str, float], contract: Contract) -> float:
    """How many times the strike is off the usual one of its underlying, as a logarithm; 0 where nothing is usual."""
    if contract.strike is None or contract.underlying not in usual:
        return 0.0
    return abs(log(contract.strike / usual[contract.underlying]))


def _readings(symbol: str, on: date, calendar: SessionCalendar) -> Iterator[Contract]:
    """Every way to read a name that gives a contract which may be traded on the day; the whole date comes first."""
    if match := CONTINUOUS.match(symbol):
        yield Contract(match["underlying"], "future", None, None, None)
        return
    if (match := DATED.match(symbol)) and (day := _date(match, MONTHS)) and _trades(day, on):
        yield _contract(match["underlying"], match, day)
    if match := MONTHLY.match(symbol):
        year, month, underlying = 2000 + int(match["year"]), MONTHS[match["month"]], match["underlying"]
        expiry = monthly_expiry(underlying, year, month, calendar)
        if _trades(expiry or date(year, month, 28), on):
            yield _contract(underlying, match, expiry)
        return  # or the end of 01FEB2420450PE would pass for the fourth of February
    for place in range(1, len(symbol)):
        match = WEEKLY.match(symbol, place)
        if match and (day := _date(match, WEEKLY_MONTHS)) and _trades(day, on):
            yield _contract(symbol[:place], match, day)
            return


def _contract(underlying: str, match: re.Match[str], expiry: date | None) -> Contract:
    if match["strike"] is None:
        return Contract(underlying, "future", expiry, None, None)
    return Contract(underlying, "option", expiry, float(match["strike"]), "C" if match["right"] == "C" else "P")


def _date(match: re.Match[str], months: dict[str, int]) -> date | None:
    try:
        return date(2000 + int(match["year"]), months[match["month"]], int(match["day"]))
    except ValueError:
        return None


def _trades(expiry: date, on: date) -> bool:
    return on <= expiry and expiry.year <= on.year + YEARS_AHEAD
