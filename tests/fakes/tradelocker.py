"""TradeLocker in miniature: login and renewal with JWTs, accounts, configuration, instruments, quotes, history.

The shapes are those of public-api.tradelocker.com and of the vendor's own client. Tokens run out by the real clock, as
the client reads it; requests are counted by the test's. It refuses a wrong login, a stale token, a request without
`accNum`, a wrong route, a range of too many bars, and what comes more often than its configuration allows."""

import json
import time
from collections.abc import Mapping
from itertools import count

import jwt
import polars as pl

from fakes.serving import Clock, FakeServer, RateLimit, Reply, Request, as_json

USERNAME, PASSWORD, SERVER = "someone@example.org", "pass-word-of-mine-77", "BROKER-TEST-SERVER"
SECRETS = {"TRADELOCKER_USERNAME": USERNAME, "TRADELOCKER_PASSWORD": PASSWORD, "TRADELOCKER_SERVER": SERVER}
MINUTES = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1H": 60, "4H": 240, "1D": 1440}
ACCOUNT = {"id": "744159", "name": "DEMO#744159", "currency": "USD", "status": "ACTIVE", "accNum": "3"}
NAMES = {  # tradable id → the rest; ids and routes are three numbers that have nothing to do with each other
    278: ("EURUSD", "Euro vs US Dollar", "FOREX"),
    316: ("XAUUSD", "Gold vs US Dollar - Spot", "COMMODITIES"),
    8530: ("US30", "Wall Street 30", "INDICES"),
    9001: ("BTCUSD", "Bitcoin vs US Dollar", "CRYPTO"),
}
INFO, STALE_INFO, TRADE = 452, 451, 909
LIMITS = {  # name → (limit, measure, number of these)
    "QUOTES_HISTORY": (2, "SECONDS", 1),
    "GET_INSTRUMENT_DETAILS": (60, "MINUTES", 1),
    "GET_INSTRUMENTS": (1, "SECONDS", 1),
    "QUOTES": (5, "SECONDS", 1),
}
SECONDS = {"SECONDS": 1, "MINUTES": 60}
TOO_MANY = as_json({"s": "error", "errmsg": "Too many requests"}, 429)


class FakeTradeLocker(FakeServer):
    """`held`: (resolution, name) → bars (SOURCE_BARS). `order`: names of a bar's values as the server's configuration
    has them; given, rows come without names. `routes`: of every instrument, the INFO ones before the TRADE one."""

    def __init__(
        self,
        held: Mapping[tuple[str, str], pl.DataFrame],
        clock: Clock,
        *,
        max_rows: int = 500,
        access_lives: float = 3600.0,
        order: str = "",
        routes: tuple[int, ...] = (INFO,),
    ) -> None:
        super().__init__(clock)
        self.held = {key: _as_sent(frame) for key, frame in held.items()}
        self.max_rows, self.access_lives, self.order, self.routes = max_rows, access_lives, order, routes
        self.refresh_lives = 24 * 3600.0
        self.limits = {name: RateLimit(n, SECONDS[unit] * k, clock) for name, (n, unit, k) in LIMITS.items()}
        self.access: str = ""
        self.refresh: str = ""
        self._numbers = count(1)

    def end_session(self) -> None:
        """What the server does when it restarts: no token that it gave is good any more."""
        self.access = self.refresh = ""

    def answer(self, request: Request) -> Reply:
        route = request.path.removeprefix("/backend-api")
        if route == "/auth/jwt/token":
            wanted = {"email": USERNAME, "password": PASSWORD, "server": SERVER}
            return self._tokens() if json.loads(request.body) == wanted else _error(401, "Invalid credentials")
        if route == "/auth/jwt/refresh":
            good = self.refresh and json.loads(request.body) == {"refreshToken": self.refresh}
            return self._tokens() if good else _error(400, "Invalid refresh token")
        if not self._is_authorized(request):
            return _error(401, "Unauthorized")
        if route == "/auth/jwt/all-accounts":
            return as_json({"accounts": [ACCOUNT | {"accountBalance": "10000.00"}]})
        if request.headers.get("accNum") != ACCOUNT["accNum"]:
            return _error(400, "accNum is missing")
        name, answer = self._route(route)
        if name in self.limits and not self.limits[name].allows():
            return TOO_MANY
        return answer(request)

    def _route(self, route: str) -> tuple:
        if route == "/trade/config":
            return "GET_CONFIG", lambda _: _ok(self._configuration())
        if route == f"/trade/accounts/{ACCOUNT['id']}/instruments":
            return "GET_INSTRUMENTS", lambda _: _ok({"instruments": self._instruments()})
        if route.startswith("/trade/instruments/"):
            return "GET_INSTRUMENT_DETAILS", lambda _: _ok(_DETAILS)
        if route == "/trade/quotes":
            return "QUOTES", self._quotes
        return "QUOTES_HISTORY", self._history

    def _history(self, request: Request) -> Reply:
        query = request.query
        since, until, minutes = int(query["from"]), int(query["to"]), MINUTES[query["resolution"]]
        if (until - since) / (minutes * 60_000) > self.max_rows:
            return _ok_error("Too many bars requested")
        if query["routeId"] != str(INFO):
            return _ok({"barDetails": []})
        rows = self.held.get((query["resolution"], NAMES[int(query["tradableInstrumentId"])][0]), [])
        bars = [row for row in rows if since <= row["t"] <= until]
        if not bars:
            return as_json({"s": "no_data"})
        return _ok({"barDetails": [[row.get(name) for name in self.order] for row in bars] if self.order else bars})

    def _quotes(self, request: Request) -> Reply:
        return _ok({"ap": 2.0, "bp": 1.9, "as": 1, "bs": 1} if request.query["routeId"] == str(INFO) else {})

    def _instruments(self) -> list[dict]:
        routes = [{"id": number, "type": "INFO"} for number in self.routes] + [{"id": TRADE, "type": "TRADE"}]
        return [
            {"tradableInstrumentId": number, "id": number + 1, "name": name, "description": text, "type": kind,
             "tradingExchange": "X", "marketDataExchange": "X", "country": None, "logoUrl": "", "localizedName": name,
             "routes": routes, "barSource": "BID", "hasIntraday": True, "hasDaily": True}
            for number, (name, text, kind) in NAMES.items()
        ]  # fmt: skip

    def _configuration(self) -> dict:
        limits = [
            {"rateLimitType": name, "measure": unit, "intervalNum": k, "limit": n}
            for name, (n, unit, k) in LIMITS.items()
        ]
        positions = [{"id": name} for name in ("id", "tradableInstrumentId", "routeId", "side", "qty", "avgPrice")]
        bars = [{"id": name} for name in self.order]
        return {
            "aKeyOfATomorrow": {"x": 1},
            "customerAccess": {"orders": True, "symbolInfo": True},
            "positionsConfig": {"id": "positions", "title": "Positions", "columns": positions},
            "limits": [{"limitType": "QUOTES_HISTORY_BARS", "limit": self.max_rows}],
            "rateLimits": limits,
        } | ({"barsConfig": {"id": "bars", "title": "Bars", "columns": bars}} if self.order else {})

    def _tokens(self) -> Reply:
        number = next(self._numbers)
        self.access, self.refresh = self._jwt(f"a{number}", self.access_lives), self._jwt("r", self.refresh_lives)
        return as_json({"accessToken": self.access, "refreshToken": self.refresh, "expireDate": "…"}, 201)

    def _jwt(self, number: str, lives: float) -> str:
        claims = {"sub": USERNAME + SERVER, "jti": number + str(time.time_ns()), "exp": time.time() + lives}
        return jwt.encode(claims, "a key of thirty-two bytes and more", algorithm="HS256")

    def _is_authorized(self, request: Request) -> bool:
        return bool(self.access) and request.headers.get("Authorization") == f"Bearer {self.access}"


_DETAILS = {  # a null first: the vendor's own type check stumbles over it
    "baseCurrency": None, "quotingCurrency": "USD", "lotSize": 100, "minLot": 0.01, "lotStep": 0.01,
    "tickSize": [{"leftRangeLimit": None, "tickSize": 0.01}],
}  # fmt: skip


def _ok(content: object) -> Reply:
    return as_json({"s": "ok", "d": content})


def _ok_error(message: str) -> Reply:
    return as_json({"s": "error", "errmsg": message})


def _error(status: int, message: str) -> Reply:
    return as_json({"s": "error", "errmsg": message}, status)


def _as_sent(bars: pl.DataFrame) -> list[dict]:
    values = bars.select(t=pl.col("ts").dt.epoch("ms"), o="open", h="high", l="low", c="close", v="volume")
    return values.to_dicts()
