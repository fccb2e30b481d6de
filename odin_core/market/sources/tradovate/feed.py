"""Tradovate's socket: frames, requests and their replies, charts. What the rows mean is said in the package.

A frame's first letter is its kind: `o` open, `h` heartbeat, `a` an array of messages, `c` closed. A request is four
lines, path, number, query, body; the reply carries the number as `i`, a status `s` and content `d`; everything else is
an event `e`. Both sides send a heartbeat at least every 2.5 seconds. (partner.tradovate.com: web-sockets)"""

import json
import logging
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from odin_core.market.sources.calls import PassingFault
from odin_core.market.sources.source import Around
from odin_core.market.sources.tradovate.rest import Rest

HEARTBEAT = 2.5  # seconds
SILENCE = timedelta(seconds=10)  # four heartbeats of the server that did not come
PATIENCE = timedelta(seconds=30)  # for a reply, and between two packets of a chart

QUIET = logging.Logger("tradovate frames")  # the library writes frames to its log, and one of them is our token
QUIET.disabled = True


class Feed:
    """One connection, authorised. Use it from one thread; every method may raise PassingFault or NotLetIn, after
    which it is of no more use, except where the vendor only asked to wait."""

    def __init__(self, url: str, rest: Rest, around: Around) -> None:
        self._rest = rest
        self._now = around.now
        self._number = 0
        self._events: deque[dict[str, Any]] = deque()
        self._replies: dict[int, dict[str, Any]] = {}
        self._is_open = False
        self._heard = self._beat = self._now()
        token = rest.login().market_data
        self._held = ExitStack()
        socket = connect(url, logger=QUIET, max_size=None, close_timeout=1, open_timeout=PATIENCE.total_seconds())
        try:
            self._socket = self._held.enter_context(socket)
        except (OSError, WebSocketException, TimeoutError) as error:
            raise PassingFault(f"no connection ({type(error).__name__})") from None
        try:
            self._until(lambda: self._is_open, "the opening frame")
            self._request("authorize", token, "the market data login", {})
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._held.close()

    def ask(self, path: str, body: dict[str, Any], what: str, ticket: dict[str, str]) -> dict[str, Any]:
        """The reply's content. `ticket`: of an earlier penalty; a new one is left in it. Raises SourceRefused too."""
        content = self._request(path, json.dumps({**body, **ticket}), what, ticket)
        return content if isinstance(content, dict) else {}

    def chart(self, body: dict[str, Any], what: str, ticket: dict[str, str]) -> list[dict[str, Any]]:
        """The bars that `md/getChart` gives up to its end of history, in the order of the packets."""
        said = self.ask("md/getChart", body, what, ticket)
        ids = {said.get("historicalId"), said.get("realtimeId")} - {None}
        if not ids:
            raise PassingFault("a chart without a number")
        bars: list[dict[str, Any]] = []
        packets: deque[dict[str, Any]] = deque()
        while True:
            while not packets:
                packets += [
                    packet for packet in _items(self._event(what), "chart", "charts") if packet.get("id") in ids
                ]
            packet = packets.popleft()
            if packet.get("eoh"):
                self._send("md/cancelChart", json.dumps({"subscriptionId": said.get("realtimeId")}))
                return bars
            bars += [bar for bar in packet.get("bars", ()) if isinstance(bar, dict)]

    def quotes(self, wait: float) -> list[dict[str, Any]]:
        """Quotes that have come, or that come within `wait` seconds."""
        if not self._events:
            self._receive(wait)
        found = [quote for event in self._events for quote in _items(event, "md", "quotes")]
        self._events.clear()
        return found

    def _event(self, what: str) -> dict[str, Any]:
        self._until(lambda: bool(self._events), f"the next part of {what}")
        return self._events.popleft()

    def _request(self, path: str, body: str, what: str, ticket: dict[str, str]) -> Any:
        number = self._send(path, body)
        self._until(lambda: number in self._replies, f"a reply about {what}")
        reply = self._replies.pop(number)
        status = reply.get("s")
        return self._rest.answer(status if isinstance(status, int) else 500, reply.get("d"), what, ticket)

    def _send(self, path: str, body: str) -> int:
        self._number += 1
        try:
            self._socket.send(f"{path}\n{self._number}\n\n{body}")
        except (OSError, WebSocketException) as error:
            raise PassingFault(f"the connection was lost ({type(error).__name__})") from None
        return self._number

    def _until(self, arrived: Callable[[], bool], what: str) -> None:
        start: datetime = self._now()
        while not arrived():
            if self._now() - start > PATIENCE:
                raise PassingFault(f"{what} did not come within {PATIENCE.total_seconds():g} s")
            self._receive(HEARTBEAT)

    def _receive(self, wait: float) -> None:
        """Take in the next frame, if one comes within `wait` seconds, and keep our side of the heartbeat."""
        try:
            if (self._now() - self._beat).total_seconds() >= HEARTBEAT:
                self._socket.send("[]")
                self._beat = self._now()
            frame = self._socket.recv(timeout=min(wait, HEARTBEAT))
        except TimeoutError:
            if self._now() - self._heard > SILENCE:
                raise PassingFault(f"nothing was heard for {SILENCE.total_seconds():g} s") from None
            return
        except (OSError, WebSocketException) as error:
            raise PassingFault(f"the connection was lost ({type(error).__name__})") from None
        self._heard = self._now()
        self._take(frame if isinstance(frame, str) else frame.decode(errors="replace"))

    def _take(self, frame: str) -> None:
        kind, content = frame[:1], frame[1:]
        if kind == "o":
            self._is_open = True
        elif kind == "c":
            raise PassingFault("the server closed the connection")
        elif kind == "a":
            try:
                messages = json.loads(content)
            except ValueError:
                raise PassingFault("a frame that is no JSON") from None
            for message in messages if isinstance(messages, list) else ():
                self._sort_in(message)

    def _sort_in(self, message: Any) -> None:
        if not isinstance(message, dict):
            raise PassingFault("a message that is no object")
        if message.get("e") == "shutdown":
            content = message.get("d")
            raise PassingFault(
                f"a shutdown ({content.get('reasonCode') if isinstance(content, dict) else 'no reason'})"
            )
        if isinstance(number := message.get("i"), int):
            self._replies[number] = message
        elif "e" in message:
            self._events.append(message)


def _items(event: dict[str, Any], kind: str, name: str) -> list[dict[str, Any]]:
    """The parts of an event's content, e.g. the charts of a chart event; none for an event of another kind."""
    content = event.get("d")
    if event.get("e") != kind or not isinstance(content, dict):
        return []
    return [item for item in content.get(name, ()) if isinstance(item, dict)]
