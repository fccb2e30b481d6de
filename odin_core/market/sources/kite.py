"""Zerodha Kite Connect: NSE and BSE shares, indices and derivatives with open interest.

`source: {kind: kite, exchange: NSE, symbols: [RELIANCE, NIFTY, …]}`; `exchange` is NSE (the default, with its indices),
BSE, NFO, BFO, CDS, MCX; `url` replaces the vendor's address. The access token is made by a person who logs in every day
(`login_url`, `exchange_token`) and runs out at 06:00 IST. Candles are stamped with their start, in IST. A contract that
has expired is no longer in the vendor's list and cannot be had. Requests, limits and errors: kite.trade/docs/connect/v3
(historical, market-quotes, user, exceptions); days a request may span: Zerodha's forum, discussion 3105."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeVar, cast
from zoneinfo import ZoneInfo

import polars as pl

from odin_core.errors import OdinError
from odin_core.market.sources.calls import (
    DAY,
    Pace,
    PassingFault,
    address,
    asked,
    asked_for,
    connection_fault,
    require_interval,
    require_symbols,
    spans,
    status_fault,
    stitched,
    unreadable,
    with_retries,
)
from odin_core.market.sources.source import (
    INSTRUMENTS,
    SOURCE_BARS,
    Around,
    SourceRefused,
    TokenExpired,
    TokenState,
)
from odin_core.secrets import redacted

if TYPE_CHECKING:
    from kiteconnect import KiteConnect
    from requests import Response

T = TypeVar("T")
KIND = "kite"
SECRETS = {
    "KITE_API_KEY": "of your app on developers.kite.trade",
    "KITE_API_SECRET": "of the same app; used for the daily login only",
    "KITE_ACCESS_TOKEN": "from today's login",
}
SETTINGS = {
    "exchange": "NSE (with its indices; the default), BSE, NFO, BFO, CDS or MCX",
    "url": "another address than the vendor's",
}
FOR_BARS = ("KITE_API_KEY", "KITE_ACCESS_TOKEN")
FOR_LOGIN = ("KITE_API_KEY", "KITE_API_SECRET")
WAY_OUT = "log in again (`odin data login`) and put the new KITE_ACCESS_TOKEN into .env"

IST = ZoneInfo("Asia/Kolkata")
TOKENS_END = time(6, 0)  # IST, every day
VENDOR_INTERVALS = {  # interval → the vendor's name, days that one request may span
    "1m": ("minute", 60),
    "3m": ("3minute", 100),
    "5m": ("5minute", 100),
    "10m": ("10minute", 100),
    "15m": ("15minute", 200),
    "30m": ("30minute", 200),
    "60m": ("60minute", 400),
    "day": ("day", 2000),
}
HISTORY_PER_SECOND, OTHERS_PER_SECOND = 3, 10
TIMEOUT = 30.0  # seconds; sixty days of minutes are 1.5 MB

INDEX_SYMBOLS = {  # others lose their blanks only: NIFTY IT is NIFTYIT
    "NIFTY 50": "NIFTY",
    "NIFTY BANK": "BANKNIFTY",
    "NIFTY FIN SERVICE": "FINNIFTY",
    "NIFTY MID SELECT": "MIDCPNIFTY",
}
KINDS = {"EQ": "equity", "FUT": "future", "CE": "option", "PE": "option"}
CANDLE = ("ts", "open", "high", "low", "close", "volume", "oi")  # the vendor's order; no names in the reply


def connect(settings: Mapping[str, Any], around: Around) -> "KiteSource":
    """A source that has not asked the vendor anything yet. Raises MissingSecrets."""
    return KiteSource(settings, around)


def login_url(settings: Mapping[str, Any], around: Around) -> str:
    """Where a person logs in; the page they end on has `request_token=…` in its address. Raises MissingSecrets."""
    around.require(KIND, _wanted(FOR_LOGIN))
    return _client(settings, around).login_url()


def exchange_token(settings: Mapping[str, Any], around: Around, request_token: str) -> str:
    """Today's access token for the request token of a login, which is good once and for some minutes; so it is asked
    for once. The caller hands it to the person and shows it nowhere else.
    Raises MissingSecrets, TokenExpired (log in again), SourceUnavailable."""
    secrets = around.require(KIND, _wanted(FOR_LOGIN))
    client = _client(settings, around)

    def exchange() -> str:
        session = cast(Mapping[str, str], client.generate_session(request_token, secrets["KITE_API_SECRET"]))
        return session["access_token"]

    way_out = "open the login page again and use its request token within a few minutes"
    hidden = {**_secrets(around), "request token": request_token}
    return with_retries(
        lambda: asked(exchange, lambda error: _judged(error, "the login", hidden, way_out)),
        kind=KIND, what="access token", around=around, attempts=1,
    )  # fmt: skip


class KiteSource:
    """Bars and instruments of one exchange. A `Source` with a token that runs out (`HasToken`)."""

    intervals: Sequence[str] = tuple(VENDOR_INTERVALS)

    def __init__(self, settings: Mapping[str, Any], around: Around) -> None:
        around.require(KIND, _wanted(FOR_BARS))
        self._around = around
        self._exchange = str(settings.get("exchange", "NSE"))
        self._client = _client(settings, around)
        self._history_pace = Pace(HISTORY_PER_SECOND, around)
        self._pace = Pace(OTHERS_PER_SECOND, around)
        self._instruments: pl.DataFrame | None = None

    def instruments(self) -> pl.DataFrame:
        """What is listed today: INSTRUMENTS, one row per symbol; asked for once. `source_id` is the vendor's token of
        the instrument. An index has no lot size; a share or contract without a figure has null."""
        if self._instruments is None:
            what = f"list of instruments of {self._exchange}"
            self._instruments = self._ask(what, self._pace, lambda: _listed(self._client.instruments(self._exchange)))
        return self._instruments

    def bars(self, symbols: Sequence[str], interval: str, start: datetime, end: datetime) -> pl.DataFrame:
        """See `Source.bars`. `oi` is of futures and options only; an index has volume 0, as the vendor gives it. A day
        bar is stamped 00:00 IST. Raises UnknownSymbols, SourceRefused, TokenExpired, SourceUnavailable."""
        require_interval(KIND, interval, VENDOR_INTERVALS)
        listed = {row["symbol"]: row for row in self.instruments().to_dicts()}
        require_symbols(KIND, symbols, listed)
        return pl.concat([SOURCE_BARS.to_frame(), *(self._series(listed[s], interval, start, end) for s in symbols)])

    def token(self) -> TokenState:
        """Asks the vendor who is logged in. Raises SourceUnavailable where it does not answer."""
        try:
            self._ask("profile", self._pace, self._client.profile)
        except TokenExpired as refusal:
            return TokenState(False, None, str(refusal))
        now = self._around.now().astimezone(IST)
        end = datetime.combine(now.date() + (DAY if now.time() >= TOKENS_END else timedelta()), TOKENS_END, IST)
        return TokenState(True, end.astimezone(UTC), "source kite takes the access token")

    def _series(self, instrument: Mapping[str, Any], interval: str, start: datetime, end: datetime) -> pl.DataFrame:
        symbol, with_oi = instrument["symbol"], instrument["kind"] in ("future", "option")
        vendor_interval, days = VENDOR_INTERVALS[interval]
        first = start
        if interval == "day":  # a day is stamped at its midnight, before the session opens
            first = datetime.combine(start.astimezone(IST).date(), time(0), IST).astimezone(UTC)

        def page(since: datetime, until: datetime) -> pl.DataFrame:
            candles = self._client.historical_data(
                int(instrument["source_id"]),
                _local(since),
                _local(until - timedelta(seconds=1)),  # both ends are included
                vendor_interval,
                oi=with_oi,
            )
            return cast(pl.DataFrame, candles).select(pl.lit(symbol).alias("symbol"), *list(SOURCE_BARS)[1:])

        pages = [
            self._ask(f"{interval} bars of {symbol}", self._history_pace, lambda s=since, u=until: page(s, u))
            for since, until in spans(first, end, timedelta(days=days))
        ]
        return asked_for(stitched(pages), interval, start, end, self._around.now())

    def _ask(self, what: str, pace: Pace, call: Callable[[], T]) -> T:
        def once() -> T:
            pace.wait()
            return asked(call, lambda error: _judged(error, what, _secrets(self._around), WAY_OUT))

        return with_retries(once, kind=KIND, what=what, around=self._around)


def _wanted(names: Sequence[str]) -> dict[str, str]:
    return {name: SECRETS[name] for name in names}


def _secrets(around: Around) -> dict[str, str]:
    return {name: around.secrets.get(name, "") for name in SECRETS}


def _local(at: datetime) -> str:
    return f"{at.astimezone(IST):%Y-%m-%d %H:%M:%S}"


def _client(settings: Mapping[str, Any], around: Around) -> "KiteConnect":
    """The vendor's client. Replies that it would misread are judged by their HTTP status first."""
    from kiteconnect import KiteConnect  # 0.3 s

    class Client(KiteConnect):
        def _format_historical(
            self, data: Mapping[str, Any]
        ) -> Any:  # the library's own reads date by date: 1 s a page
            return _candles(data["candles"])

    def check_status(response: "Response", **_: Any) -> None:
        kind = response.headers.get("Content-Type", "")
        if fault := status_fault(response.status_code, response.headers, around.now()):
            raise fault
        if "json" in kind or "csv" in kind:
            return
        if response.ok:
            told = redacted(kind, _secrets(around), SECRETS)[:40] or "of no type"
            raise PassingFault(f"an answer that is neither JSON nor CSV ({told})")
        raise SourceRefused(KIND, "the request", f"HTTP {response.status_code}")

    secrets, url = around.secrets, address(settings, KIND, KiteConnect._default_root_uri)
    client = Client(secrets["KITE_API_KEY"], secrets.get("KITE_ACCESS_TOKEN"), root=url, timeout=cast(int, TIMEOUT))
    client.reqsession.hooks["response"].append(check_status)
    return client


def _candles(rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Candles as columns; what cannot be read is null. Raises ValueError for rows of another shape."""
    columns = list(zip_longest(*rows)) or [()] * len(CANDLE)
    if not len(CANDLE) - 1 <= len(columns) <= len(CANDLE):
        raise ValueError(f"candles have {len(columns)} values")
    made = dict(zip_longest(CANDLE, columns, fillvalue=(None,) * len(rows)))
    stamps = pl.Series(made.pop("ts"), dtype=pl.String, strict=False)
    numbers = {name: pl.Series(values, dtype=pl.Float64, strict=False) for name, values in made.items()}
    ts = stamps.str.to_datetime("%Y-%m-%dT%H:%M:%S%z", time_unit="us", strict=False)
    return pl.DataFrame({"ts": ts.cast(SOURCE_BARS["ts"]), **numbers})


def _listed(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The vendor's list as INSTRUMENTS; a symbol that it has twice counts once."""
    derivative = {"future", "option"}
    made = []
    for row in rows:
        index = row["segment"] == "INDICES"
        kind = "index" if index else KINDS.get(row["instrument_type"], "equity")
        name = row["tradingsymbol"]
        made.append(
            {
                "symbol": INDEX_SYMBOLS.get(name, name.replace(" ", "")) if index else name,
                "name": row["name"] or name,
                "kind": kind,
                "underlying": row["name"] if kind in derivative else None,
                "expiry": (row["expiry"] or None) if kind in derivative else None,
                "strike": row["strike"] if kind == "option" else None,
                "right": row["instrument_type"][0] if kind == "option" else None,
                "tick_size": row["tick_size"] or None,
                "lot_size": row["lot_size"] or None,
                "source_id": str(row["instrument_token"]),
            }
        )
    return pl.DataFrame(made, schema=INSTRUMENTS).unique("symbol", keep="first", maintain_order=True)


def _judged(error: Exception, what: str, hidden: Mapping[str, str], way_out: str) -> Exception:
    """Our error for one of the vendor's library. Its text is used only where it came from the vendor in an error reply;
    an unreadable reply is put into the text whole by the library."""
    from kiteconnect import exceptions as vendor

    if isinstance(error, PassingFault | OdinError):
        return error
    if isinstance(error, vendor.DataException) or not isinstance(error, vendor.KiteException):
        return connection_fault(error) or unreadable(error)
    says = redacted(str(error), hidden, hidden)[:200]
    if isinstance(error, vendor.TokenException):
        return TokenExpired(KIND, says, way_out)
    if isinstance(error, vendor.NetworkException | vendor.GeneralException):
        return PassingFault(says)
    return SourceRefused(KIND, what, says)
