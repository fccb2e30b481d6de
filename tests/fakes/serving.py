"""What every fake vendor shares: an HTTP server in a thread, faults to order, and a clock that only waiting moves."""

import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from odin_core.market.sources.source import Around


class Clock:
    """A clock for `Around`: `sleep` moves it on at once and is written down in `waits`."""

    def __init__(self, at: datetime = datetime(2024, 6, 3, 12, 0, tzinfo=UTC)) -> None:
        self.at = at
        self.waits: list[float] = []

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at += timedelta(seconds=seconds)

    def around(self, secrets: Mapping[str, str], seed: int = 1) -> Around:
        return Around(secrets=secrets, now=self.now, sleep=self.sleep, rng=np.random.default_rng(seed))


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: Mapping[str, str] = {}
    announced: int = 0  # bytes that Content-Length promises beyond the body


class ConnectionReset(Exception):
    """Raised while answering: the connection is reset instead."""


Fault = Callable[[Callable[[], Reply]], Reply]  # gets the honest answer, still to be made


def as_json(content: object, status: int = 200, **headers: str) -> Reply:
    return Reply(status, json.dumps(content).encode(), headers={k.replace("_", "-"): v for k, v in headers.items()})


def instead(reply: Reply) -> Fault:
    return lambda honest: reply


def altered(change: Callable[[Any], Any]) -> Fault:
    """The honest answer with its JSON changed."""
    return lambda honest: as_json(change(json.loads(honest().body)))


def reset(honest: Callable[[], Reply]) -> Reply:
    raise ConnectionReset


def cut_off(honest: Callable[[], Reply]) -> Reply:
    """Half of the honest answer, and the connection ends."""
    reply = honest()
    half = len(reply.body) // 2
    return reply._replace(body=reply.body[:half], announced=len(reply.body) - half)


def honest(reply: Callable[[], Reply]) -> Reply:
    return reply()


class RateLimit:
    """At most `limit` requests in any `seconds` of a clock."""

    def __init__(self, limit: int, seconds: float, clock: Clock) -> None:
        self.limit, self.window, self.clock = limit, timedelta(seconds=seconds), clock
        self.seen: deque[datetime] = deque()

    def allows(self) -> bool:
        now = self.clock.now()
        while self.seen and self.seen[0] <= now - self.window:
            self.seen.popleft()
        self.seen.append(now)
        return len(self.seen) <= self.limit


class FakeServer:
    """A vendor: subclasses answer requests. `fail(fault, …, on=path)` orders faults for the next requests to paths that
    hold `on`, one each, first ordered first served; `requests` is what came in."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.requests: list[Request] = []
        self._faults: list[tuple[str, Fault]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def answer(self, request: Request) -> Reply:
        raise NotImplementedError

    def fail(self, *faults: Fault, on: str = "") -> None:
        self._faults += [(on, fault) for fault in faults]

    def hang(self, honest: Callable[[], Reply]) -> Reply:
        """A fault: no answer before the server closes."""
        self._closing.wait()
        return honest()

    def asked(self, on: str) -> list[Request]:
        return [request for request in self.requests if on in request.path]

    def reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            at = next((i for i, (on, _) in enumerate(self._faults) if on in request.path), None)
            fault = honest if at is None else self._faults.pop(at)[1]
        return fault(lambda: self.answer(request))

    def __enter__(self) -> "FakeServer":
        fake = self

        class Handler(_Handler):
            server_side = fake

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_side: FakeServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait 40 ms for each other
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, address.path, dict(parse_qsl(address.query)), self.headers, body)
        try:
            reply = self.server_side.reply(request)
        except ConnectionReset:
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self._send(reply)

    do_GET = do_POST = handle_any  # noqa: N815

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        if reply.content_type is not None:
            self.send_header("Content-Type", reply.content_type)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body) + reply.announced))
        self.end_headers()
        try:
            self.wfile.write(reply.body)
            self.wfile.flush()
        except ConnectionError:  # the client did not wait for a slow answer
            self.close_connection = True
        self.close_connection |= bool(reply.announced)

    def log_message(self, *_: object) -> None:
        """Nothing to standard error."""
