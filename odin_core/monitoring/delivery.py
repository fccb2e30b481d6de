"""Delivery: alerts out of the log to people, by webhook and by e-mail. The log itself is `alerts`, always kept.

Every attempt is a line of `<home>/deliveries.jsonl`, which is the only memory: a process that is killed between sending
and noting sends once more, and the message carries the alert's id so that a receiver can tell. What a channel did not
take waits, 1 minute, then 2, 4, … up to 6 hours, and is given up a day after its first attempt; a channel that cannot
be reached has failed for everything that was due, so that many alerts ask no more often than one. No
failure of a channel leaves this module but as a line, and no channel keeps another one waiting for more than seconds.
Secrets come in as values, and what is noted or shown was cleared of them."""

import fcntl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from odin_core.home import Home
from odin_core.monitoring.alerts import Alert, alerts
from odin_core.monitoring.channels import DeliveryFailed, channels
from odin_core.monitoring.lines import append_line, read_lines
from odin_core.monitoring.rules import SEVERITIES

__all__ = ["Channel", "Delivery", "channels", "deliver", "due", "try_out", "undelivered"]

FILE: Final = "deliveries.jsonl"
FIRST_WAIT = timedelta(minutes=1)
LONGEST_WAIT = timedelta(hours=6)
GIVE_UP_AFTER = timedelta(days=1)  # since the first attempt
NOT_NEWS_AFTER = timedelta(days=3)  # an alert that no attempt was made for is not sent any more
MOST = 20  # messages per channel and call, but for one more that sums up the rest
SECONDS = 10.0  # that one message may take, whatever the other side does


class Channel(Protocol):
    """A way to people. `send` may raise DeliveryFailed, and may hang: it runs in a thread that is not waited for."""

    @property
    def name(self) -> str: ...

    def send(self, alert: Alert) -> None: ...

    def cleared(self, text: str) -> str:
        """`text` without this channel's secrets."""
        ...


class Delivery(NamedTuple):
    """What one call did. `lines` are the attempts as they were noted."""

    sent: int
    failed: int
    given_up: int
    waiting: int  # alerts that some channel still owes, after this call
    lines: tuple[dict[str, Any], ...]
    busy: bool = False  # another process was delivering, so nothing was done

    def to_text(self) -> str:
        if self.busy:
            return "another process is delivering"
        said = f"{self.sent} sent, {self.failed} failed, {self.given_up} given up, {self.waiting} waiting"
        errors = dict.fromkeys(f"{line['channel']}: {line['error']}" for line in self.lines if line["error"])
        return "\n".join([said, *errors])


@dataclass
class _Progress:
    """Of one alert on one channel."""

    attempts: int = 0
    first: datetime | None = None
    next: datetime | None = None
    settled: bool = False


def deliver(
    home: Home, using: Sequence[Channel], clock: Callable[[], datetime], *, seconds: float = SECONDS
) -> Delivery:
    """Send what each channel has not delivered yet, oldest first. `clock` gives aware times.

    Never raises because of a channel. Takes at most about `seconds` for each channel that hangs: one that cannot be
    reached is not tried again in this call, one that refuses a message is asked for the next one."""
    with _alone(home.root / "delivery.lock") as alone:
        if not alone:
            return Delivery(0, 0, 0, 0, (), busy=True)
        noted = _progress(home)
        told = alerts(home)
        lines: list[dict[str, Any]] = []
        for channel in using:
            for line in _serve(channel, told, noted, clock, seconds):
                append_line(home.root / FILE, line)
                lines.append(line)
    outcomes = [line["outcome"] for line in lines]
    return Delivery(
        sent=outcomes.count("delivered"), failed=outcomes.count("failed"), given_up=outcomes.count("given_up"),
        waiting=undelivered(home, using, clock()), lines=tuple(lines),
    )  # fmt: skip


def undelivered(home: Home, using: Sequence[Channel], at: datetime) -> int:
    """How many alerts some of these channels still owe at `at`, those that wait for another try included."""
    noted, told = _progress(home), alerts(home)
    return len({alert.id for channel in using for alert in _owed(channel, told, noted, at)})


def due(home: Home, using: Sequence[Channel], at: datetime) -> int:
    """How many alerts a `deliver` at `at` would try to send: 0 while all that is owed waits for another try."""
    noted, told = _progress(home), alerts(home)
    return len({alert.id for channel in using for alert in _due(channel, told, noted, at)})


def try_out(using: Sequence[Channel], alert: Alert, *, seconds: float = SECONDS) -> dict[str, str]:
    """Send one alert at once, and say by channel what came of it; nothing is noted and nothing retried."""
    return {channel.name: _attempt(channel, alert, seconds)[0] or "delivered" for channel in using}


def _serve(
    channel: Channel,
    told: list[Alert],
    noted: dict[tuple[str, str], _Progress],
    clock: Callable[[], datetime],
    seconds: float,
) -> Iterator[dict[str, Any]]:
    """Attempts on one channel, one line each. What is beyond MOST, the least severe, goes out as one summary."""
    waiting = _due(channel, told, noted, clock())
    chosen = {a.id for a in sorted(waiting, key=lambda alert: -SEVERITIES.index(alert.severity))[:MOST]}
    rest = [alert for alert in waiting if alert.id not in chosen]
    messages = [((alert,), alert) for alert in waiting if alert.id in chosen]
    messages += [(tuple(rest), _summary(rest))] if rest else []
    for at, (covered, message) in enumerate(messages):
        error, reached, wait = _attempt(channel, message, seconds)
        is_down = bool(error) and not reached
        concerned = [alert for later, _ in messages[at:] for alert in later] if is_down else covered
        for alert in concerned:
            yield _noted(channel, alert, noted.get((channel.name, alert.id), _Progress()), clock(), error, wait)
        if is_down:
            return


def _noted(
    channel: Channel, alert: Alert, before: _Progress, at: datetime, error: str, asked: timedelta
) -> dict[str, Any]:
    """The line of one attempt, and when the next one is due after a failure."""
    line: dict[str, Any] = {
        "at": _stamp(at), "channel": channel.name, "alert": alert.id, "attempt": before.attempts + 1,
        "outcome": "delivered", "error": error, "next": None,
    }  # fmt: skip
    if not error:
        return line
    wait = min(max(FIRST_WAIT * 2 ** min(before.attempts, 20), asked), LONGEST_WAIT)
    if at + wait > (before.first or at) + GIVE_UP_AFTER:
        return line | {"outcome": "given_up"}
    return line | {"outcome": "failed", "next": _stamp(at + wait)}


def _summary(rest: list[Alert]) -> Alert:
    """One message for many alerts."""
    kinds = Counter(f"{alert.market} {alert.rule.replace('_', ' ')}" for alert in rest)
    listed = ", ".join(f"{count} × {kind}" for kind, count in kinds.most_common(10))
    return Alert(market="odin", rule="more alerts", at=rest[-1].at,
                 severity=max((alert.severity for alert in rest), key=SEVERITIES.index),
                 key=f"summary/{rest[0].id}/{rest[-1].id}/{len(rest)}",
                 text=f"{len(rest)} more alerts, see `odin alerts list`: {listed}")  # fmt: skip


def _attempt(channel: Channel, alert: Alert, seconds: float) -> tuple[str, bool, timedelta]:
    """What went wrong (nothing where it is empty), whether the other side was reached, how long it asked to wait."""
    outcome: list[Exception | None] = []

    def send() -> None:
        try:
            channel.send(alert)
            outcome.append(None)
        except Exception as error:  # whatever it is, it is told in the line below
            outcome.append(error)

    thread = threading.Thread(target=send, name=f"alert to {channel.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        return f"no answer within {seconds:g} s", False, timedelta(0)
    error = outcome[0]
    if error is None:
        return "", True, timedelta(0)
    said = " ".join(channel.cleared(str(error) or type(error).__name__).split())
    if isinstance(error, DeliveryFailed):
        return said, error.reached, error.wait
    return f"{type(error).__name__}: {said}", False, timedelta(0)


def _owed(
    channel: Channel, told: list[Alert], noted: dict[tuple[str, str], _Progress], now: datetime
) -> Iterator[Alert]:
    """Alerts that the channel has neither delivered nor given up, oldest first."""
    for alert in told:
        progress = noted.get((channel.name, alert.id))
        if progress is None and now - alert.at > NOT_NEWS_AFTER:
            continue
        if progress is None or not progress.settled:
            yield alert


def _due(channel: Channel, told: list[Alert], noted: dict[tuple[str, str], _Progress], now: datetime) -> list[Alert]:
    """Those of `_owed` that were not tried yet, or that have waited long enough."""
    owed = _owed(channel, told, noted, now)
    found = ((alert, noted.get((channel.name, alert.id))) for alert in owed)
    return [alert for alert, before in found if before is None or before.next is None or before.next <= now]


def _progress(home: Home) -> dict[tuple[str, str], _Progress]:
    """By channel and alert, from the lines."""
    found: dict[tuple[str, str], _Progress] = {}
    for line in read_lines(home.root / FILE):
        try:
            key, at, outcome = (line["channel"], line["alert"]), datetime.fromisoformat(line["at"]), line["outcome"]
            after = datetime.fromisoformat(line["next"]) if line.get("next") else None
        except (KeyError, TypeError, ValueError):
            continue  # somebody edited it
        progress = found.setdefault(key, _Progress(first=at))
        progress.attempts += 1
        progress.next = after
        progress.settled |= outcome in ("delivered", "given_up")
    return found


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether no other process or thread delivers; if so, none will while the block runs."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
