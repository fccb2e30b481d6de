"""A Tradovate on this machine: its REST and its market data socket, with the shapes, limits and faults of the real one.

The shapes are those of partner.tradovate.com and of Tradovate's own examples (example-api-js, example-api-faq). It is
strict where the vendor is: a wrong token gets 401, a third session ends the oldest, a client that sends no heartbeats
is dropped, a penalty wants its ticket back after its time. Faults are planned per path, one for each coming request:
`fake.plan("contract/find", Reply(429), RESET)`."""

import json
import logging
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import polars as pl
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import Server, ServerConnection, serve

HEARTBEAT = 2.5
PACKET = 200  # bars in one chart packet
LIFE = timedelta(minutes=90)  # of a token
CREDENTIALS = {
    "TRADOVATE_USERNAME": "trader-jane",
    "TRADOVATE_PASSWORD": "correct-horse-battery",
    "TRADOVATE_APP_ID": "odin-app-4711",
    "TRADOVATE_CID": "8842",
    "TRADOVATE_SECRET": "f03741b6-f634-48d6-9308-c8fb871150c2",
}
FUTURES = {"productType": "Futures", "tickSize": 0.25}
PRODUCTS = [
    {"id": 11, "name": "ES", "description": "E-Mini S&P 500", **FUTURES, "valuePerPoint": 50},
    {"id": 12, "name": "NQ", "description": "E-Mini NASDAQ-100", **FUTURES, "valuePerPoint": 20},
]
MATURITIES = [
    {"id": 21, "productId": 11, "expirationMonth": 202412, "expirationDate": "2024-12-20T14:30Z", "isFront": True},
    {"id": 22, "productId": 11, "expirationMonth": 202503, "expirationDate": "2025-03-21T13:30Z", "isFront": False},
    {"id": 23, "productId": 12, "expirationMonth": 202412, "expirationDate": "2024-12-20T14:30Z", "isFront": True},
]
CONTRACTS = [
    {"id": 3570918, "name": "ESZ4", "contractMaturityId": 21},
    {"id": 3570919, "name": "ESH5", "contractMaturityId": 22},
    {"id": 3570920, "name": "NQZ4", "contractMaturityId": 23},
]
QUIET = logging.Logger("the fake's frames")
QUIET.disabled = True
LIBRARY = {"product": PRODUCTS, "contractMaturity": MATURITIES, "contract": CONTRACTS}
MASTER = {"contractMaturity": "productId", "contract": "contractMaturityId"}


@dataclass(frozen=True)
class Reply:
    """What a planned fault answers. `body`: JSON, or text as it stands, or None for an empty one."""

    status: int = 200
    body: Any = None
    retry_after: str | None = None
    delay: float = 0.0  # seconds


# Faults that are no reply. RESET: the connection is reset at once. The others are of the socket's charts.
NO_FAULT = "none"
RESET = "reset"
RESET_IN_THE_MIDDLE = "reset after the first packet of a chart"
CLOSED = "a close frame"
SHUTDOWN = "a shutdown event"
MALFORMED = "a frame that is no JSON"
NO_REPLY = "heartbeats and nothing else"
DEAD = "nothing at all, not even heartbeats"


class FakeTradovate:
    """Run it with `with FakeTradovate(now).running() as fake`; give `fake.settings` to the source."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.bars: dict[str, pl.DataFrame] = {}  # symbol → minute bars: ts, open, high, low, close, up, down
        self.raw: dict[str, list[dict[str, Any]]] = {}  # symbol → what a chart gives in place of its bars
        self.page = 1000  # bars that one chart holds at most
        self.requests: list[tuple[str, dict[str, Any]]] = []  # what was asked, in order: path, fields
        self.sessions: dict[str, datetime] = {}  # token → its end; the oldest first
        self.penalties: dict[str, datetime] = {}  # ticket → when it may be used
        self.heard_heartbeats = 0
        self.patience = 8.0  # seconds without a heartbeat of the client
        self.quoted: dict[ServerConnection, set[int]] = {}
        self.settings: dict[str, Any] = {}
        self.open_charts: set[int] = set()  # by the number that cancels them
        self._plans: dict[str, list[Reply | str]] = defaultdict(list)
        self._lock = threading.Lock()
        self._numbers = iter(range(1, 1_000_000))

    def plan(self, path: str, *faults: Reply | str) -> None:
        self._plans[path.lower()] += faults

    def forget_plans(self) -> None:
        self._plans.clear()

    def penalty(self, seconds: float, *, captcha: bool = False) -> Reply:
        """HTTP 200 that wants its ticket back after `seconds`."""
        ticket = f"ticket-{next(self._numbers)}"
        self.penalties[ticket] = self.now() + timedelta(seconds=seconds)
        return Reply(200, {"p-ticket": ticket, "p-time": seconds, "p-captcha": captcha})

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.requests if name.lower() == path.lower()]

    def end_sessions(self) -> None:
        """As if another program had logged in twice: every token is worth nothing."""
        self.sessions.clear()

    def publish(self, symbol: str, price: float, size: float, total: float, at: datetime | str) -> None:
        """A quote to those who subscribed: a snapshot, as the vendor sends on every change."""
        contract = _named("contract", symbol)["id"]
        entries = {
            "Bid": {"price": price - 0.25, "size": 7},
            "Offer": {"price": price + 0.25, "size": 12},
            "Trade": {"price": price, "size": size},
            "TotalTradeVolume": {"size": total},
            "OpenInterest": {"size": 40702},
        }
        quote = {"timestamp": at if isinstance(at, str) else _stamp(at), "contractId": contract, "entries": entries}
        for connection, contracts in list(self.quoted.items()):
            if contract in contracts:
                connection.send("a" + json.dumps([{"e": "md", "d": {"quotes": [quote]}}]))

    def drop_listeners(self) -> None:
        for connection in list(self.quoted):
            self.quoted.pop(connection)
            _reset(connection.socket)

    @contextmanager
    def running(self) -> Iterator["FakeTradovate"]:
        handler = type("Handler", (_Handler,), {"fake": self})
        http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        http.daemon_threads = True
        sockets: Server = serve(self._serve_socket, "127.0.0.1", 0, logger=QUIET)
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        threading.Thread(target=sockets.serve_forever, daemon=True).start()
        self.settings = {
            "kind": "tradovate",
            "url": f"http://127.0.0.1:{http.server_address[1]}/v1",
            "market_data_url": f"ws://127.0.0.1:{sockets.socket.getsockname()[1]}/v1/websocket",
        }
        try:
            yield self
        finally:
            http.shutdown()
            http.server_close()
            sockets.shutdown()

    def fault(self, path: str, fields: dict[str, Any]) -> Reply | str | None:
        """Note a request; the fault planned for it, or what its ticket deserves."""
        with self._lock:
            self.requests.append((path, fields))
            ticket = fields.get("p-ticket")
            if ticket is not None and (ticket not in self.penalties or self.now() < self.penalties[ticket]):
                return Reply(400, {"errorText": "the ticket is unknown, or its time is not over"})
            planned = self._plans[path.lower()]
            return planned.pop(0) if planned else None

    def rest(self, path: str, fields: dict[str, Any], token: str) -> Reply:
        """The vendor's answer without a fault."""
        if path == "auth/accesstokenrequest":
            right = {"name": "USERNAME", "password": "PASSWORD", "appId": "APP_ID", "sec": "SECRET"}
            good = all(fields.get(key) == CREDENTIALS[f"TRADOVATE_{name}"] for key, name in right.items())
            good = good and str(fields.get("cid")) == CREDENTIALS["TRADOVATE_CID"]
            return Reply(200, self._begin()) if good else Reply(200, {"errorText": "Incorrect username or password"})
        if not self.knows(token):
            return Reply(401, "Access is denied")
        if path == "auth/renewaccesstoken":
            self.sessions.pop(token)
            return Reply(200, self._begin())
        entity, _, operation = path.partition("/")
        return self._library(entity, operation, fields)

    def knows(self, token: str) -> bool:
        ends = self.sessions.get(token.removeprefix("md-"))
        return ends is not None and self.now() < ends

    def _begin(self) -> dict[str, Any]:
        token = f"token-{next(self._numbers):06d}-of-jane"
        self.sessions[token] = self.now() + LIFE
        for oldest in list(self.sessions)[:-2]:
            self.sessions.pop(oldest)
        ends = _stamp(self.sessions[token])
        return {
            "accessToken": token,
            "mdAccessToken": f"md-{token}",
            "expirationTime": ends,
            "userId": 1,
            "name": "jane",
        }

    def _library(self, entity: str, operation: str, fields: dict[str, Any]) -> Reply:
        items = LIBRARY[entity]
        if operation == "find":
            found = [item for item in items if item["name"] == fields["name"]]
            return Reply(200, found[0]) if found else Reply(404, f"Not found: {entity}/find")
        if operation == "suggest":
            return Reply(200, [item for item in items if item["name"].startswith(fields["t"])])
        key = "id" if operation == "items" else MASTER[entity]
        asked = ",".join(fields.get(name, "") for name in ("ids", "masterid", "masterids"))
        wanted = {int(number) for number in asked.split(",") if number}
        return Reply(200, [item for item in items if item[key] in wanted])

    def _serve_socket(self, connection: ServerConnection) -> None:
        try:
            _Talk(self, connection).run()
        except (ConnectionClosed, OSError):
            pass  # the client hung up, or a fault did
        finally:
            self.quoted.pop(connection, None)


class _Handler(BaseHTTPRequestHandler):
    fake: FakeTradovate
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self._answer(parts.path, dict(parse_qsl(parts.query)))

    def do_POST(self) -> None:
        self._answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, path: str, fields: dict[str, Any]) -> None:
        path = path.removeprefix("/v1/")
        fault = self.fake.fault(path, fields)
        if fault == RESET:
            self.close_connection = True
            _reset(self.connection)
            return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        reply = fault if isinstance(fault, Reply) else self.fake.rest(path, fields, token)
        time.sleep(reply.delay)
        body = b"" if reply.body is None else reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        body = body.encode() if isinstance(body, str) else body
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(body)))
        if reply.retry_after:
            self.send_header("Retry-After", reply.retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass  # keep the tests' output clean


class _Talk:
    """One client on the socket."""

    def __init__(self, fake: FakeTradovate, connection: ServerConnection) -> None:
        self.fake, self.connection = fake, connection
        self.token = ""
        self.is_dead = False

    def run(self) -> None:
        self.connection.send("o")
        heard = sent = time.monotonic()
        while time.monotonic() - heard < self.fake.patience:
            if time.monotonic() - sent > HEARTBEAT and not self.is_dead:
                self.connection.send("h")
                sent = time.monotonic()
            try:
                message = self.connection.recv(timeout=0.1)
            except TimeoutError:
                continue
            heard = time.monotonic()
            if message == "[]":
                self.fake.heard_heartbeats += 1
            else:
                self._request(*str(message).split("\n", 3))
        self.connection.close(1008, "no heartbeats")

    def _request(self, path: str, number: str, query: str, body: str) -> None:
        fields = {} if path == "authorize" else json.loads(body)
        fault = self.fake.fault(path, fields)
        reply = fault if isinstance(fault, Reply) else Reply(200)
        if reply.delay:
            time.sleep(reply.delay)
        if isinstance(fault, Reply) or self._misbehave(fault):
            if isinstance(fault, Reply):
                self._say({"s": fault.status, "i": int(number), **({} if fault.body is None else {"d": fault.body})})
        elif path == "authorize":
            self.token = body
            good = self.fake.knows(body) and body.startswith("md-")
            self._say({"s": 200, "i": int(number)} if good else {"s": 401, "i": int(number), "d": "Access is denied"})
        elif not self.fake.knows(self.token):
            self._say({"s": 401, "i": int(number), "d": "Access is denied"})
        elif path.lower() == "md/getchart":
            self._chart(int(number), fields, fault == RESET_IN_THE_MIDDLE)
        elif path.lower() == "md/cancelchart":
            self.fake.open_charts.remove(fields["subscriptionId"])
            self._say({"s": 200, "i": int(number), "d": {"success": True}})
        elif path.lower() == "md/subscribequote":
            self.fake.quoted.setdefault(self.connection, set()).add(_named("contract", fields["symbol"])["id"])
            self._say({"s": 200, "i": int(number), "d": {}})
        else:
            self._say({"s": 200, "i": int(number), "d": {"ok": True}})

    def _misbehave(self, fault: str | None) -> bool:
        """Whether a fault stands in the place of a reply."""
        if fault == RESET:
            _reset(self.connection.socket)
        elif fault == CLOSED:
            self.connection.send('c[3000,"Go away!"]')
        elif fault == SHUTDOWN:
            self._say({"e": "shutdown", "d": {"reasonCode": "Maintenance", "reason": "back soon"}})
        elif fault == MALFORMED:
            self.connection.send('a[{"s":200,"i":')
        elif fault == DEAD:
            self.is_dead = True
        return fault in (RESET, CLOSED, SHUTDOWN, MALFORMED, NO_REPLY, DEAD)

    def _chart(self, number: int, fields: dict[str, Any], is_cut: bool) -> None:
        historical, live = next(self.fake._numbers), next(self.fake._numbers)
        self.fake.open_charts.add(live)
        bars = self._page(fields)
        packets = [bars[i : i + PACKET] for i in range(0, len(bars), PACKET)]
        self._packet({"id": live + 500_000, "td": 20240101, "bars": bars[:1]})  # of a subscription cancelled before
        for i, packet in enumerate(packets):
            if i == 1:  # the reply may come after the first packets
                self._say({"s": 200, "i": number, "d": {"historicalId": historical, "realtimeId": live}})
            self._packet({"id": historical, "td": 20241202, "bars": packet})
            if is_cut:
                _reset(self.connection.socket)
        if len(packets) < 2:
            self._say({"s": 200, "i": number, "d": {"historicalId": historical, "realtimeId": live}})
        self._packet({"id": historical, "eoh": True})

    def _page(self, fields: dict[str, Any]) -> list[dict[str, Any]]:
        """The newest bars of the range, at most `fake.page`, ascending."""
        about, span = fields["chartDescription"], fields["timeRange"]
        assert (about["underlyingType"], about["elementSizeUnit"]) == ("MinuteBar", "UnderlyingUnits")
        if fields["symbol"] in self.fake.raw:
            return self.fake.raw[fields["symbol"]]
        bars = self.fake.bars.get(fields["symbol"])
        if bars is None:
            return []
        if about["elementSize"] > 1:
            bars = larger(bars, about["elementSize"])
        first, last = (datetime.fromisoformat(span[key]) for key in ("asFarAsTimestamp", "closestTimestamp"))
        page = bars.filter(pl.col("ts").is_between(first, last)).tail(self.fake.page)
        return [
            {
                "timestamp": f"{row['ts']:%Y-%m-%dT%H:%MZ}" if i % 2 else _stamp(row["ts"]),
                **{name: row[name] for name in ("open", "high", "low", "close")},
                **{"upVolume": row["up"], "downVolume": row["down"], "upTicks": 3, "downTicks": 2},
                **{"bidVolume": row["down"], "offerVolume": row["up"]},
            }
            for i, row in enumerate(page.iter_rows(named=True))
        ]

    def _packet(self, packet: dict[str, Any]) -> None:
        self._say({"e": "chart", "d": {"charts": [packet]}})

    def _say(self, message: dict[str, Any]) -> None:
        self.connection.send("a" + json.dumps([message]))


def larger(bars: pl.DataFrame, minutes: int) -> pl.DataFrame:
    """Minute bars (ts, open, high, low, close, up, down) by the clock into larger ones."""
    return bars.group_by_dynamic("ts", every=f"{minutes}m").agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("up", "down").sum(),
    )


def _named(entity: str, name: str) -> dict[str, Any]:
    return next(item for item in LIBRARY[entity] if item["name"] == name)


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def _reset(connection: socket.socket) -> None:
    """Close with a reset (RST) instead of a goodbye."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RD)
    connection.close()
