"""The tables `option_chain` and `open_interest` of a session, from what a lake holds of it.

Chains are seen every SNAPSHOT_MINUTES from the open on and at the close; a session that has day bars only is seen at
its close. `option_chain` is the chain of the close (PRICED), `open_interest` the series of all times (OPEN_INTEREST),
to which spot prices and India VIX are added as they were known. A row at time t follows from bars known at t, those of
this session and open interest of the OI_SESSIONS before it, and from the calendar; so a session computed again, alone
or among others, gives the same tables."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from odin_core.lake import Lake
from odin_core.market.bars import BARS, UTC
from odin_core.market.calendar import SessionCalendar
from odin_core.market.options.chains import PREVIOUS, PRICED, chain_snapshots, priced
from odin_core.market.options.contracts import contracts_of
from odin_core.market.options.series import OPTION_SERIES, option_series
from odin_core.market.profile import MarketProfile
from odin_core.market.sources.source import INSTRUMENTS

OPTION_CHAIN, OPEN_INTEREST_TABLE = "option_chain", "open_interest"
BAR_TABLES = ("price_history", "bars_day")  # a symbol is taken from the first that has it
SNAPSHOT_MINUTES = 5
OI_SESSIONS = 5  # how far back open interest is looked for where a contract has not traded
INDIA_VIX = "INDIAVIX"

OPEN_INTEREST = pl.Schema(
    {
        **OPTION_SERIES,
        "spot": pl.Float64(),  # last price of the underlying in the session; null where there are no bars of it
        "india_vix": pl.Float64(),  # last value in the session, per cent; null where there are no bars of it
    }
)


class OptionTables(NamedTuple):
    chain: pl.DataFrame  # PRICED
    series: pl.DataFrame  # OPEN_INTEREST


def open_interest_of(
    lake: Lake,
    session: date,
    *,
    profile: MarketProfile,
    calendar: SessionCalendar,
    indices: Sequence[Lake] = (),
) -> OptionTables:
    """Both tables of a session, from a lake of option bars; empty where it has no bars of options in that session.

    Terms of contracts come from the table `instruments`, else from their names (`options.contracts`). Spot prices and
    India VIX are looked for in the lake itself, then in `indices`. Contracts of unknown expiry count in no series.
    Raises NotASession, PartitionUnreadable, BadProfile where no interest rate is known."""
    bars = _bars(lake, session)
    contracts = _options(lake, session, bars["symbol"].unique().to_list(), calendar)
    if contracts.is_empty():
        return OptionTables(PRICED.to_frame(), OPEN_INTEREST.to_frame())
    previous, earlier = _before(lake, session, calendar)
    known = pl.concat([contracts, earlier]).unique("symbol", keep="first", maintain_order=True)
    times = _times(bars.filter(pl.col("symbol").is_in(contracts["symbol"].to_list())), session, calendar)
    rate = profile.interest_rate(session)
    chains = chain_snapshots(bars, known, times, previous)
    chain = priced(chains, _expiry_times(chains["expiry"], profile, calendar), rate)
    series = _with_prices(option_series(chain, rate), [lake, *indices], session)
    return OptionTables(chain.filter(pl.col("known_at") == times[-1]), series)


def store_open_interest(lake: Lake, session: date, tables: OptionTables) -> bool:
    """Write both tables of a session into a lake where they differ from what it holds; whether anything was written.
    Empty tables are not written."""
    written = False
    for name, frame in ((OPTION_CHAIN, tables.chain), (OPEN_INTEREST_TABLE, tables.series)):
        if frame.height:
            written |= lake.write_changed(name, session, frame)
    return written


def _bars(lake: Lake, session: date) -> pl.DataFrame:
    """Bars of a session, each symbol's from the first of BAR_TABLES that has it."""
    found = BARS.to_frame()
    for table in BAR_TABLES:
        if lake.has(table, session):
            found = pl.concat([found, lake.read(table, session).select(*BARS).join(found, on="symbol", how="anti")])
    return found


def _options(lake: Lake, session: date, symbols: Sequence[str], calendar: SessionCalendar) -> pl.DataFrame:
    """INSTRUMENTS of the symbols that are options, as the table `instruments` says, else as their names do."""
    table = lake.read_or_empty("instruments", session, INSTRUMENTS)
    said = table.filter(pl.col("symbol").is_in(symbols) & pl.col("underlying").is_not_null())
    rest = sorted(set(symbols) - set(said["symbol"]))
    both = pl.concat([said.select(*INSTRUMENTS), contracts_of(rest, session, calendar)])
    return both.filter(pl.col("right").is_not_null() & pl.col("strike").is_not_null()).sort("symbol")


def _before(lake: Lake, session: date, calendar: SessionCalendar) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Last open interest before a session (PREVIOUS) and the contracts (INSTRUMENTS), of those not expired by then."""
    interest, contracts = PREVIOUS.to_frame(), INSTRUMENTS.to_frame()
    for earlier in _sessions_before(session, calendar):
        bars = _bars(lake, earlier).drop_nulls("oi").sort("symbol", "known_at")
        last = bars.unique("symbol", keep="last", maintain_order=True).join(interest, on="symbol", how="anti")
        terms = _options(lake, earlier, last["symbol"].to_list(), calendar)
        alive = terms.filter(pl.col("expiry").is_null() | (pl.col("expiry") >= session))
        contracts = pl.concat([contracts, alive])
        interest = pl.concat([interest, last.join(alive, on="symbol", how="semi").select(*PREVIOUS)])
    return interest, contracts


def _sessions_before(session: date, calendar: SessionCalendar) -> Iterator[date]:
    """The OI_SESSIONS sessions before one, the latest first."""
    first = max(calendar.first, session - timedelta(days=4 * OI_SESSIONS))
    yield from reversed([s for s in calendar.sessions(first, session) if s < session][-OI_SESSIONS:])


def _times(bars: pl.DataFrame, session: date, calendar: SessionCalendar) -> list[datetime]:
    """When the chain is looked at: a grid where there are bars before the close, and the close."""
    hours = calendar.hours(session)
    if bars.filter(pl.col("known_at") < hours.close).is_empty():
        return [hours.close]
    step = timedelta(minutes=SNAPSHOT_MINUTES)
    count = -(-(hours.close - hours.open) // step)
    return [hours.open + step * i for i in range(1, count)] + [hours.close]


def _expiry_times(expiries: pl.Series, profile: MarketProfile, calendar: SessionCalendar) -> pl.DataFrame:
    """The close of each expiry day; the regular one where the calendar has no such session (it ends before)."""
    days = sorted(expiries.drop_nulls().unique())
    zone = ZoneInfo(profile.timezone)
    closes = [
        calendar.hours(day).close
        if calendar.first <= day <= calendar.last and calendar.is_session(day)
        else datetime.combine(day, profile.close, zone)
        for day in days
    ]
    return pl.DataFrame({"expiry": days, "expires_at": closes}, schema={"expiry": pl.Date(), "expires_at": UTC})


def _with_prices(series: pl.DataFrame, lakes: Sequence[Lake], session: date) -> pl.DataFrame:
    """Series with spot and india_vix as of each time, from bars of this session."""
    wanted = [*series["underlying"].unique(), INDIA_VIX]
    found = BARS.to_frame()
    for lake in lakes:
        bars = _bars(lake, session).filter(pl.col("symbol").is_in(wanted))
        found = pl.concat([found, bars.join(found, on="symbol", how="anti")])
    closes = found.select("symbol", "known_at", "close").sort("known_at", maintain_order=True)
    named = series.with_columns(pl.lit(INDIA_VIX).alias("vix"))
    for symbol, name in (("underlying", "spot"), ("vix", "india_vix")):
        own = closes.rename({"symbol": symbol, "close": name})
        named = named.join_asof(own, on="known_at", by=symbol, check_sortedness=False)
    return named.select(*OPEN_INTEREST)
