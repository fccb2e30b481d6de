"""TradeLocker: metals, index CFDs, currencies and crypto of the brokers behind one demo or live system.

`source: {kind: tradelocker, symbols: [XAUUSD, US30, …]}`; `url` is the system, demo by default, and
https://live.tradelocker.com for live accounts. The first account of the login is used. Bars are stamped with their
start, in UTC; volume counts ticks; there is no open interest. How often it may be asked and how many bars a reply may
have is the server's own configuration (public-api.tradelocker.com, /trade/config).

What the vendor's library does beside asking (logging passwords, keeping replies, repeating by itself) is replaced in
`client`; what its replies mean is judged here."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import MINUTE
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
from odin_core.secrets import HIDDEN, redacted

if TYPE_CHECKING:
    from requests import Response

    from odin_core.market.sources.tradelocker.client import Client

T = TypeVar("T")
KIND = "tradelocker"
SECRETS = {
    "TRADELOCKER_USERNAME": "the e-mail address of the login",
    "TRADELOCKER_PASSWORD": "of the same login",
    "TRADELOCKER_SERVER": "the broker's server, as the login page asks for it",
}
SETTINGS = {"url": "the system: that of demo accounts by default, https://live.tradelocker.com for live ones"}
WAY_OUT = "correct TRADELOCKER_USERNAME, TRADELOCKER_PASSWORD or TRADELOCKER_SERVER in .env"
DEMO = "https://demo.tradelocker.com"
RESOLUTIONS = {  # interval → the vendor's name and length; its capital M is a month
    "1m": ("1m", MINUTE),
    "5m": ("5m", 5 * MINUTE),
    "15m": ("15m", 15 * MINUTE),
    "30m": ("30m", 30 * MINUTE),
    "60m": ("1H", 60 * MINUTE),
    "240m": ("4H", 240 * MINUTE),
    "day": ("1D", DAY),
}
OTHERS_PER_SECOND = 1.0  # where the configuration names no limit
ROUTES = {  # end of a request's path → the configuration's name for its limit
    r"/trade/history": "QUOTES_HISTORY",
    r"/trade/quotes": "QUOTES",
    r"/instruments": "GET_INSTRUMENTS",
    r"/trade/instruments/\d+": "GET_INSTRUMENT_DETAILS",
}
SECONDS = {"SECONDS": 1, "MINUTES": 60}
LOGIN, REFRESH = "/auth/jwt/token", "/auth/jwt/refresh"
KINDS = {"FOREX": "spot", "CRYPTO": "spot", "EQUITY": "equity", "ETF": "equity", "FUTURES": "future"}  # others: cfd
BAR = {"t": "ts", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")


class _LoggedOut(PassingFault):
    """The server no longer takes the session's token: a new login may help."""


def connect(settings: Mapping[str, Any], around: Around) -> "TradeLockerSource":
    """A source that has not asked the vendor anything yet. Raises MissingSecrets."""
    return TradeLockerSource(settings, around)


class TradeLockerSource:
    """Bars and instruments of one login. A `Source` with a token that runs out (`HasToken`)."""

    intervals: Sequence[str] = tuple(RESOLUTIONS)

    def __init__(self, settings: Mapping[str, Any], around: Around) -> None:
        self._secrets = around.require(KIND, SECRETS)
        self._around = around
        self._url = address(settings, KIND, DEMO)
        self._detailed = {str(symbol) for symbol in settings.get("symbols", ())}
        self._paces: dict[str, Pace] = {}
        self._client: Client | None = None
        self._listed: pl.DataFrame | None = None

    def instruments(self) -> pl.DataFrame:
        """What the account may see: INSTRUMENTS, one row per symbol. Tick and lot size cost a request each, so they are
        asked for the symbols of the settings only and null for others; `source_id` is the tradable instrument's id."""
        listed = self._listing()
        sizes = [self._sizes(symbol, int(number)) for symbol, number in listed.select("symbol", "source_id").rows()]
        return listed.with_columns(
            tick_size=pl.Series([tick for tick, _ in sizes], dtype=pl.Float64),
            lot_size=pl.Series([lot for _, lot in sizes], dtype=pl.Float64),
        )

    def bars(self, symbols: Sequence[str], interval: str, start: datetime, end: datetime) -> pl.DataFrame:
        """See `Source.bars`. Raises UnknownSymbols, SourceRefused, TokenExpired, SourceUnavailable."""
        require_interval(KIND, interval, RESOLUTIONS)
        listed = self._listing()
        ids = dict(listed.select("symbol", "source_id").rows())
        require_symbols(KIND, symbols, ids)
        series = [self._series(symbol, int(ids[symbol]), interval, start, end) for symbol in symbols]
        return pl.concat([SOURCE_BARS.to_frame(), *series])

    def token(self) -> TokenState:
        """Logs in where nobody is logged in. Raises SourceUnavailable where the vendor does not answer."""
        try:
            until = self._ask("login", lambda client: _expiry(client.get_refresh_token()))
        except TokenExpired as refusal:
            return TokenState(False, None, str(refusal))
        return TokenState(True, until, f"source {KIND} takes the login and logs in again by itself")

    def _listing(self) -> pl.DataFrame:
        if self._listed is None:
            self._listed = self._ask(
                "list of instruments", lambda client: _listed(client.get_all_instruments().to_dict("records"))
            )
        return self._listed

    def _series(self, symbol: str, number: int, interval: str, start: datetime, end: datetime) -> pl.DataFrame:
        resolution, length = RESOLUTIONS[interval]
        first = start - DAY if interval == "day" else start  # a day's stamp lies before the session opens
        what = f"{interval} bars of {symbol}"
        rows = self._ask(what, lambda client: int(client.max_price_history_rows()))

        def page(client: "Client", since: datetime, until: datetime) -> pl.DataFrame:
            answer = client.get_price_history(
                number,
                resolution,
                start_timestamp=_milliseconds(since),
                end_timestamp=_milliseconds(until) - 1,  # both ends are included
            )
            return _bars(symbol, answer.to_dict("list"), lambda: _configured_order(client.get_config()))

        pages = [
            self._ask(what, lambda client, s=since, u=until: page(client, s, u))
            for since, until in spans(first, end, rows * length)
        ]
        return asked_for(stitched(pages), interval, start, end, self._around.now())

    def _sizes(self, symbol: str, number: int) -> tuple[float | None, float | None]:
        """Tick and lot size of a symbol of the settings. Where the tick depends on the price, the first is meant."""
        if symbol not in self._detailed:
            return None, None

        def details(client: "Client") -> tuple[float | None, float | None]:
            found = client.get_instrument_details(number)
            ticks = found.get("tickSize") or [{}]
            return ticks[0].get("tickSize"), found.get("lotSize")

        return self._ask(f"details of {symbol}", details)

    def _ask(self, what: str, call: Callable[["Client"], T]) -> T:
        def once() -> T:
            if self._client is None:
                self._client = asked(self._login, self._judged)
            client = self._client
            try:
                return asked(lambda: call(client), self._judged)
            except _LoggedOut:
                self._client = None
                raise

        return with_retries(once, kind=KIND, what=what, around=self._around)

    def _login(self) -> "Client":
        from odin_core.market.sources.tradelocker.client import Client

        username, password, server = (self._secrets[name] for name in SECRETS)
        client = Client(self._wait, self._judge, self._url, username, password, server)
        for limit in client.get_config().get("rateLimits", ()):
            per_second = limit["limit"] / (limit["intervalNum"] * SECONDS[limit["measure"]])
            self._paces.setdefault(limit["rateLimitType"], Pace(per_second, self._around))
        return client

    def _wait(self, url: str) -> None:
        name = next((name for path, name in ROUTES.items() if re.search(f"{path}$", url)), "others")
        pace = self._paces.get(name) or self._paces.setdefault("others", Pace(OTHERS_PER_SECOND, self._around))
        pace.wait()

    def _judge(self, response: "Response") -> Mapping[str, Any]:
        """The content of a reply. Raises our error for one that says no, in its status or inside, or makes no sense."""
        path, says = str(response.url).split("?")[0].removeprefix(self._url), f"HTTP {response.status_code}"
        if fault := status_fault(response.status_code, response.headers, self._around.now()):
            raise fault
        if not response.ok and path.endswith(LOGIN):
            raise TokenExpired(KIND, f"the login was refused with {says}", WAY_OUT)
        if response.status_code == 401 or (not response.ok and path.endswith(REFRESH)):
            raise _LoggedOut(f"the server ended the session ({says})")
        if not response.ok:
            raise SourceRefused(KIND, path, says)
        content = asked(response.json, lambda _: PassingFault("an answer that is no JSON"))
        if not isinstance(content, dict):
            raise PassingFault("an answer that is no JSON object")
        if content.get("s") == "error":
            said = JWT.sub(HIDDEN, redacted(str(content.get("errmsg")), self._secrets, self._secrets))
            raise PassingFault(f"the vendor answered with an error: {said[:200]}")
        return content

    def _judged(self, error: Exception) -> Exception:
        """Our error for one of the vendor's library, whose texts hold whole replies and are not used. The library wraps
        what happens during a login into a ValueError."""
        import jwt

        cause: BaseException | None = error
        while isinstance(cause, Exception):
            if isinstance(cause, PassingFault | OdinError):
                return cause
            if isinstance(cause, jwt.PyJWTError):
                return _LoggedOut("the session's token cannot be read")
            if fault := connection_fault(cause):
                return fault
            cause = cause.__cause__
        return unreadable(error)


def _listed(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """The vendor's list as INSTRUMENTS without sizes; of a name listed twice the first counts, as in its library."""
    made = [
        {
            "symbol": row["name"],
            "name": row["description"] if isinstance(row.get("description"), str) else None,
            "kind": KINDS.get(str(row.get("type")), "cfd"),
            "source_id": str(row["tradableInstrumentId"]),
        }
        for row in rows
    ]
    return pl.DataFrame(made, schema=INSTRUMENTS).unique("symbol", keep="first", maintain_order=True)


def _bars(symbol: str, columns: Mapping[Any, Sequence[Any]], order: Callable[[], Sequence[str]]) -> pl.DataFrame:
    """A reply's columns, named, or numbered and then in the configured order, as SOURCE_BARS; what cannot be read is
    null. Raises PassingFault for columns that no bar has."""
    if not columns:
        return SOURCE_BARS.to_frame()
    if not all(isinstance(name, str) for name in columns):
        columns = dict(zip(order(), columns.values(), strict=True))
    if missing := BAR.keys() - columns.keys():
        raise PassingFault(f"an answer whose bars lack {', '.join(sorted(missing))}")
    values = {BAR[name]: pl.Series(columns[name], dtype=pl.Float64, strict=False).fill_nan(None) for name in BAR}
    ts = values.pop("ts").cast(pl.Int64, strict=False).cast(pl.Datetime("ms", "UTC")).cast(SOURCE_BARS["ts"])
    made = pl.DataFrame({"ts": ts, **values}).with_columns(pl.lit(symbol).alias("symbol"), oi=pl.lit(None, pl.Float64))
    return made.select(list(SOURCE_BARS))


def _configured_order(configuration: Mapping[str, Any]) -> list[str]:
    """Names of a bar's values where the server sends rows without names. Raises SourceRefused, for none is guessed."""
    for part in configuration.values():
        ids = [column["id"] for column in part.get("columns", ())] if isinstance(part, dict) else []
        if BAR.keys() <= set(ids):
            return ids
    raise SourceRefused(KIND, "bars", "its rows have no names and its configuration does not say their order")


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _expiry(token: str) -> datetime:
    import jwt

    return datetime.fromtimestamp(jwt.decode(token, options={"verify_signature": False})["exp"], UTC)
