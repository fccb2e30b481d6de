"""How a vendor is called: not too often, again after a passing fault, never for ever; and how its pages become one.

What a vendor or its library says in an error may hold a token, a password or a whole reply, so no such text goes on
from here: faults are told in our words, and none carries the vendor's exception along (`asked`)."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from math import ceil
from pathlib import Path
from traceback import extract_tb
from typing import Any, TypeVar

import polars as pl
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from odin_core.errors import nearest
from odin_core.market.bars import KEY, MINUTE
from odin_core.market.sources.source import SOURCE_BARS, Around, SourceRefused, SourceUnavailable, UnknownSymbols

T = TypeVar("T")
FIRST_WAIT = 1.0  # seconds before the second attempt; doubled for each further one
LONGEST_WAIT = 60.0
LONGEST_ASKED = 300.0  # a vendor that wants to be left alone for longer is not waited for
ATTEMPTS = 6
DAY = timedelta(days=1)
TOO_MANY, TIMED_OUT, SERVER_ERRORS = 429, 408, range(500, 600)  # HTTP statuses after which asking again makes sense


class PassingFault(Exception):
    """A call failed in a way that may pass: a limit hit, a server busy, a connection lost. `after`: seconds that the
    vendor asks to wait."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Pace:
    """At most so many calls a second, evenly spread; `wait` sleeps until the next one is due."""

    def __init__(self, per_second: float, around: Around) -> None:
        self._step = timedelta(microseconds=ceil(1e6 / per_second))  # rounded down, one call too many fits a second
        self._around = around
        self._due: datetime | None = None

    def wait(self) -> None:
        now = self._around.now()
        if self._due is not None and self._due > now:
            pause = min(self._due - now, self._step)  # a clock that was set back must not stop us for hours
            self._around.sleep(pause.total_seconds())
            now = max(now + pause, self._around.now())
        self._due = now + self._step


def with_retries(call: Callable[[], T], *, kind: str, what: str, around: Around, attempts: int = ATTEMPTS) -> T:
    """The call's result; a PassingFault is tried again after a wait that doubles, with full jitter (Brooker 2015,
    "Exponential Backoff And Jitter"), on top of what the vendor asked for. Raises SourceUnavailable after `attempts`,
    or at once where the vendor asks for more than LONGEST_ASKED seconds. Other errors pass through at once."""

    def wait(state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        asked_for = fault.after if isinstance(fault, PassingFault) and fault.after else 0.0
        ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (state.attempt_number - 1))
        return asked_for + float(around.rng.uniform(0, ceiling))

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, PassingFault) and (error.after or 0) <= LONGEST_ASKED),
        stop=stop_after_attempt(attempts),
        wait=wait,
        sleep=around.sleep,
        reraise=True,
    )
    try:
        return retrying(call)
    except PassingFault as fault:
        made = int(retrying.statistics.get("attempt_number", 1))
        raise SourceUnavailable(kind, what, str(fault), made) from fault


def asked(call: Callable[[], T], judge: Callable[[Exception], Exception]) -> T:
    """The result of a call into a vendor's library; what it raises is replaced by `judge`'s verdict. The verdict is
    raised outside the handler, so no traceback, log or report can reach the vendor's exception and its text."""
    try:
        return call()
    except Exception as error:
        verdict = judge(error)
    raise verdict


def status_fault(status: int, headers: Mapping[str, str], now: datetime) -> PassingFault | None:
    """The fault that an HTTP status tells of, whatever the body; None for one that asking again would not change.
    Retry-After is read as seconds or as a date (RFC 9110, 10.2.3); `now`: aware."""
    after = _seconds(headers.get("Retry-After", ""), now)
    if status == TOO_MANY:
        return PassingFault("too many requests (HTTP 429)", after)
    if status == TIMED_OUT or status in SERVER_ERRORS:
        return PassingFault(f"the vendor's server failed (HTTP {status})", after)
    return None


def connection_fault(error: Exception) -> PassingFault | None:
    """The fault behind an error of `requests`; None for an error of another kind."""
    from requests import exceptions as http  # 0.1 s

    if isinstance(error, http.Timeout):
        return PassingFault("no answer in time")
    if isinstance(error, http.RequestException):
        return PassingFault(f"the connection failed ({type(error).__name__})")
    return None


def unreadable(error: Exception) -> PassingFault:
    """The fault of a reply that a library or we stumbled over, with the line of code instead of the error's text."""
    frames = extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return PassingFault(f"an answer that cannot be read ({type(error).__name__}{where})")


def address(settings: Mapping[str, Any], kind: str, default: str) -> str:
    """Where a vendor is asked: `url` of the settings, or its own. Raises SourceRefused for one that is no address."""
    url = str(settings.get("url") or default).rstrip("/")
    if not url.startswith(("https://", "http://")):
        raise SourceRefused(kind, "to be asked", f"source.url is {url!r}, but must begin with https:// (or http://)")
    return url


def require_interval(kind: str, interval: str, known: Iterable[str]) -> None:
    """Raise SourceRefused for an interval that a vendor does not have."""
    if interval not in known:
        raise SourceRefused(kind, f"{interval!r} bars", f"no such interval; {nearest(interval, known)}")


def require_symbols(kind: str, symbols: Sequence[str], known: Collection[str]) -> None:
    """Raise UnknownSymbols, naming all of them, where a vendor does not list one."""
    if missing := [symbol for symbol in symbols if symbol not in known]:
        raise UnknownSymbols(kind, missing, list(known))


def spans(start: datetime, end: datetime, longest: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """[start, end) cut into pieces of at most `longest`, in order and without a gap; nothing where start >= end."""
    while start < end:
        stop = min(start + longest, end)
        yield start, stop
        start = stop


def stitched(pages: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Pages (SOURCE_BARS) as one frame in their order. A bar that a later page repeats is the earlier one's; what one
    page itself has twice stays, because it is the vendor's and judged later; so do rows whose time is unreadable."""
    if not pages:
        return SOURCE_BARS.to_frame()
    numbered = pl.concat([page.with_columns(pl.lit(i).alias("page")) for i, page in enumerate(pages)])
    first = pl.col("page") == pl.col("page").min().over(KEY)
    return numbered.filter(first | pl.col("ts").is_null()).drop("page")


def asked_for(bars: pl.DataFrame, interval: str, start: datetime, end: datetime, now: datetime) -> pl.DataFrame:
    """The bars (SOURCE_BARS) that belong to [start, end): by their start, or, for "day", those whose 24 hours overlap
    it, because a vendor stamps a day at its midnight and a session opens later. A minute bar that has not ended at
    `now` is still being formed and left out. Rows whose time is unreadable stay: they are judged later."""
    ts = pl.col("ts")
    if interval == "day":
        wanted = (ts + DAY > start) & (ts < end)
    else:
        wanted = ts.is_between(start, end, closed="left") & (ts + int(interval[:-1]) * MINUTE <= now)
    return bars.filter(wanted | ts.is_null())


def _seconds(retry_after: str, now: datetime) -> float | None:
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
