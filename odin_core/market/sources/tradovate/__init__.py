"""Tradovate: US futures, e.g. ESZ4. Bars and live trades come over its socket (`feed`), contracts over REST (`rest`).

Settings of the profile's `source`: `environment: live` or `demo`; `symbols`, the contracts; `products`, e.g. [ES, NQ],
whose contracts `instruments` lists too; `url` and `market_data_url` put other servers in the place of Tradovate's.
Minute bars are taken to be stamped with their start, in UTC. The vendor gives no open interest in bars, and how many
bars one answer holds is its own, changing choice, so a range is walked from its end to its start."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import UTC
from odin_core.market.sources.calls import FIRST_WAIT, Pace, PassingFault, with_retries
from odin_core.market.sources.source import (
    INSTRUMENTS,
    SOURCE_BARS,
    TICKS,
    Around,
    SourceRefused,
    TokenState,
    UnknownSymbols,
)
from odin_core.market.sources.tradovate.feed import HEARTBEAT, Feed
from odin_core.market.sources.tradovate.rest import KIND, NotLetIn, Rest

SECRETS = {
    "TRADOVATE_USERNAME": "name of the account",
    "TRADOVATE_PASSWORD": "its password",
    "TRADOVATE_APP_ID": "name of the API key",
    "TRADOVATE_CID": "client id of the API key",
    "TRADOVATE_SECRET": "secret of the API key",
}
SETTINGS = {
    "environment": "live (the default) or demo",
    "products": "roots, as in ES: each contract of them is an instrument, as those of symbols are",
    "url": "another address than the vendor's for requests",
    "market_data_url": "another address than the vendor's for the socket of market data",
}
ROOTS = {name: f"https://{name}.tradovateapi.com/v1" for name in ("live", "demo")}
MARKET_DATA = "wss://md.tradovateapi.com/v1/websocket"
WIDTHS = {"1m": 1, "5m": 5, "15m": 15, "60m": 60}
CHARTS_PER_SECOND = 1.0
PRICES = ("open", "high", "low", "close")
ISO = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")  # the vendor writes both
log = logging.getLogger(__name__)


class UnknownEnvironment(OdinError):
    def __init__(self, environment: object) -> None:
        super().__init__(f"source {KIND} has no environment {environment!r}; set source.environment to live or demo")


def connect(settings: Mapping[str, Any], around: Around) -> "Tradovate":
    """The source; nothing is asked yet. Raises MissingSecrets, UnknownEnvironment."""
    environment = settings.get("environment", "live")
    if environment not in ROOTS:
        raise UnknownEnvironment(environment)
    rest = Rest(settings.get("url", ROOTS[environment]), around.require(KIND, SECRETS), around)
    wanted = {kind: tuple(settings.get(kind, ())) for kind in ("symbols", "products")}
    return Tradovate(rest, settings.get("market_data_url", MARKET_DATA), around, **wanted)


class Tradovate:
    """A Source with HasToken and Streams. Not for several threads at once."""

    intervals: Sequence[str] = tuple(WIDTHS)

    def __init__(
        self, rest: Rest, market_data_url: str, around: Around, *, symbols: Sequence[str], products: Sequence[str]
    ) -> None:
        self._rest = rest
        self._url = market_data_url
        self._around = around
        self._symbols = symbols
        self._products = products
        self._pace = Pace(CHARTS_PER_SECOND, around)
        self._feed: Feed | None = None
        self._known: dict[str, dict[str, Any]] = {}

    def token(self) -> TokenState:
        """Logs in if that has not been done; a new login needs no person. Two sessions may live at a time: a third,
        be it this one, ends the oldest, whose owner then logs in again by itself. Raises SourceUnavailable."""
        try:
            login = self._rest.login()
        except SourceRefused as refusal:
            return TokenState(False, None, str(refusal))
        return TokenState(True, login.expires_at, "logged in; renewed without a person while the program runs")

    def instruments(self) -> pl.DataFrame:
        """The contracts of `symbols` and `products`: INSTRUMENTS, sorted by symbol. `lot_size` is the multiplier: what
        one point of price is worth in dollars. Raises UnknownSymbols, and what `Rest.get` raises."""
        contracts = self._contracts(self._symbols) + [c for name in self._products for c in self._contracts_of(name)]
        maturities = self._by_id("contractMaturity", {c["contractMaturityId"] for c in contracts})
        products = self._by_id("product", {m["productId"] for m in maturities.values()})
        rows = [_instrument(c, m := maturities[c["contractMaturityId"]], products[m["productId"]]) for c in contracts]
        return pl.DataFrame(rows, INSTRUMENTS, orient="row").unique("symbol", keep="first").sort("symbol")

    def bars(self, symbols: Sequence[str], interval: str, start: datetime, end: datetime) -> pl.DataFrame:
        """As `Source.bars`; a bar that is not over yet is left out. `volume` is up plus down volume, `oi` null."""
        if interval not in WIDTHS:
            raise SourceRefused(KIND, f"{interval} bars", f"it has {', '.join(WIDTHS)}; make others from these")
        over = min(end, self._around.now() - timedelta(minutes=WIDTHS[interval]) + timedelta(microseconds=1))
        self._contracts(symbols)
        try:
            found = [self._history(symbol, WIDTHS[interval], start, over) for symbol in symbols]
        finally:
            self._hang_up()
        return pl.concat(found) if found else SOURCE_BARS.to_frame()

    def stream(
        self, symbols: Sequence[str], on_ticks: Callable[[pl.DataFrame], None], stop: Callable[[], bool]
    ) -> None:
        """As `Streams.stream`; a tick's volume is what the day's total grew by since the quote before. A lost
        connection is made anew; what was traded meanwhile is in no tick. Raises SourceUnavailable, TokenExpired."""
        names = {contract["id"]: contract["name"] for contract in self._contracts(symbols)}

        tickets = {symbol: dict[str, str]() for symbol in names.values()}
        listen = partial(self._listen, names, tickets, on_ticks, stop)
        try:
            while not stop():
                self._rest.with_login(partial(with_retries, listen, kind=KIND, what="live quotes", around=self._around))
        finally:
            self._hang_up()

    def _history(self, symbol: str, width: int, start: datetime, end: datetime) -> pl.DataFrame:
        pages: list[pl.DataFrame] = []
        closest = end
        while closest > start:
            page = self._page(symbol, width, start, closest)
            new = page.filter(pl.col("ts").is_null() | pl.col("ts").is_between(start, closest, closed="left"))
            pages.append(new)
            oldest = new["ts"].min()
            if not isinstance(oldest, datetime):
                break
            closest = oldest
        return pl.concat([SOURCE_BARS.to_frame(), *reversed(pages)])

    def _page(self, symbol: str, width: int, start: datetime, closest: datetime) -> pl.DataFrame:
        what = f"{symbol} {width}m bars before {closest:%Y-%m-%d %H:%M}"
        body = {
            "symbol": symbol,
            "chartDescription": {
                "underlyingType": "MinuteBar",
                "elementSize": width,
                "elementSizeUnit": "UnderlyingUnits",
                "withHistogram": False,
            },
            "timeRange": {"closestTimestamp": _stamp(closest), "asFarAsTimestamp": _stamp(start)},
        }
        ticket: dict[str, str] = {}

        def once() -> list[dict[str, Any]]:
            self._pace.wait()
            return self._heard(lambda feed: feed.chart(body, what, ticket))

        retried = partial(with_retries, once, kind=KIND, what=what, around=self._around)
        return _bars(symbol, self._rest.with_login(retried))

    def _heard(self, use: Callable[[Feed], Any]) -> Any:
        """`use` of the connection, which is made where there is none; after a fault the next use gets a new one."""
        if self._feed is None:
            self._feed = Feed(self._url, self._rest, self._around)
        try:
            return use(self._feed)
        except (PassingFault, NotLetIn):
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _listen(
        self,
        names: Mapping[int, str],
        tickets: Mapping[str, dict[str, str]],
        on_ticks: Callable[[pl.DataFrame], None],
        stop: Callable[[], bool],
    ) -> None:
        """Until `stop`, or until a connection that has brought quotes is lost."""
        heard = False

        def listen(feed: Feed) -> None:
            nonlocal heard
            for symbol in names.values():
                feed.ask("md/subscribeQuote", {"symbol": symbol}, f"quotes of {symbol}", tickets[symbol])
            trades = _Trades(names)
            while not stop():
                self._rest.login()  # renewed in time, or the vendor ends the session
                quotes = feed.quotes(HEARTBEAT / 10)
                heard = heard or bool(quotes)
                if (ticks := trades.among(quotes)).height:
                    on_ticks(ticks)

        try:
            self._heard(listen)
        except PassingFault as fault:
            if not heard:
                raise
            log.warning("live quotes of %s: %s; connecting again", KIND, fault)
            self._around.sleep(float(self._around.rng.uniform(0, FIRST_WAIT)))

    def _contracts(self, symbols: Sequence[str]) -> list[dict[str, Any]]:
        """What the vendor's library has of these names. Raises UnknownSymbols, which names those that it has not."""
        for symbol in dict.fromkeys(symbols):
            if symbol not in self._known and (contract := self._rest.find("contract", symbol)) is not None:
                self._known[symbol] = contract
        if unknown := [symbol for symbol in symbols if symbol not in self._known]:
            suggested = [self._rest.get("contract/suggest", t=symbol[:2], l=20) for symbol in unknown[:3]]
            raise UnknownSymbols(KIND, unknown, [c["name"] for some in suggested for c in some])
        return [self._known[symbol] for symbol in symbols]

    def _contracts_of(self, product: str) -> list[dict[str, Any]]:
        found = self._rest.find("product", product)
        if found is None:
            suggested = self._rest.get("product/suggest", t=product[:1], l=20)
            raise UnknownSymbols(KIND, [product], [p["name"] for p in suggested])
        maturities = [m["id"] for m in self._rest.get("contractMaturity/deps", masterid=found["id"])]
        return self._rest.get("contract/ldeps", masterids=_list(maturities)) if maturities else []

    def _by_id(self, entity: str, ids: set[int]) -> dict[int, dict[str, Any]]:
        return {item["id"]: item for item in self._rest.get(f"{entity}/items", ids=_list(sorted(ids)))} if ids else {}


class _Trades:
    """Trades among quotes. A quote is a snapshot of everything known, so the day's total tells whether one is new."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._totals: dict[int, float] = {}

    def among(self, quotes: Sequence[dict[str, Any]]) -> pl.DataFrame:
        """TICKS, in the order of the quotes. The first quote of a contract only tells the total so far."""
        rows = [row for quote in quotes if (row := self._trade(quote)) is not None]
        columns = dict(zip(TICKS, zip(*rows, strict=True), strict=True)) if rows else {}
        ticks = pl.DataFrame(columns, {**TICKS, "ts": pl.String()}, strict=False).with_columns(_utc("ts"))
        sound = ticks.drop_nulls(("ts", "price"))
        if sound.height < ticks.height:
            log.warning("%d quotes of %s without a readable time or price left out", ticks.height - sound.height, KIND)
        return sound

    def _trade(self, quote: dict[str, Any]) -> tuple[Any, ...] | None:
        contract, entries = quote.get("contractId"), quote.get("entries")
        if not isinstance(contract, int) or contract not in self._names or not isinstance(entries, dict):
            return None
        trade, total = entries.get("Trade") or {}, (entries.get("TotalTradeVolume") or {}).get("size")
        if not isinstance(total, int | float) or "price" not in trade:
            return None
        before = self._totals.get(contract)
        self._totals[contract] = total
        if before is None or total == before:
            return None
        volume = total - before if total > before else trade.get("size")  # a smaller total: a new trading day
        return self._names[contract], quote.get("timestamp"), trade["price"], volume


def _bars(symbol: str, bars: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """SOURCE_BARS; what cannot be read is null, and judged later."""
    names = (*PRICES, "upVolume", "downVolume")
    columns = {name: [bar.get(name) for bar in bars] for name in ("timestamp", *names)}
    schema = {"timestamp": pl.String(), **dict.fromkeys(names, pl.Float64())}
    return pl.DataFrame(columns, schema, strict=False).select(
        pl.lit(symbol).alias("symbol"),
        _utc("timestamp").alias("ts"),
        *PRICES,
        volume=pl.col("upVolume") + pl.col("downVolume"),
        oi=pl.lit(None, pl.Float64),
    )


def _utc(column: str) -> pl.Expr:
    text = pl.col(column).str
    return pl.coalesce(text.to_datetime(form, time_unit="us", strict=False) for form in ISO).cast(UTC)


def _instrument(
    contract: Mapping[str, Any], maturity: Mapping[str, Any], product: Mapping[str, Any]
) -> tuple[Any, ...]:
    expiry = datetime.fromisoformat(maturity["expirationDate"]).date()
    about = (contract["name"], product.get("description"), "future", product["name"], expiry, None, None)
    return (*about, product.get("tickSize"), product.get("valuePerPoint"), str(contract["id"]))


def _list(ids: Sequence[int]) -> str:
    return ",".join(str(number) for number in ids)


def _stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
