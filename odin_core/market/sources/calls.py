"""How a vendor is called: not too often, again after a passing fault, never for ever."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from odin_core.market.sources.source import Around, SourceUnavailable

T = TypeVar("T")
FIRST_WAIT = 1.0  # seconds before the second attempt; doubled for each further one
LONGEST_WAIT = 60.0


class PassingFault(Exception):
    """A call failed in a way that may pass: a limit hit, a server busy, a connection lost. `after`: seconds that the
    vendor asks to wait."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Pace:
    """At most so many calls a second; `wait` sleeps until the next one is due."""

    def __init__(self, per_second: float, around: Around) -> None:
        self._step = timedelta(seconds=1 / per_second)
        self._around = around
        self._due: datetime | None = None

    def wait(self) -> None:
        now = self._around.now()
        if self._due is not None and self._due > now:
            self._around.sleep((self._due - now).total_seconds())
            now = max(self._due, self._around.now())
        self._due = now + self._step


def with_retries(call: Callable[[], T], *, kind: str, what: str, around: Around, attempts: int = 6) -> T:
    """The call's result; a PassingFault is tried again after a wait that doubles, with full jitter (Brooker 2015,
    "Exponential Backoff And Jitter"), and is at least what the vendor asked for. Raises SourceUnavailable after
    `attempts`. Other errors pass through at once."""

    def wait(state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        asked = fault.after if isinstance(fault, PassingFault) and fault.after else 0.0
        ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (state.attempt_number - 1))
        return asked + float(around.rng.uniform(0, ceiling))

    retrying = Retrying(
        retry=retry_if_exception_type(PassingFault),
        stop=stop_after_attempt(attempts),
        wait=wait,
        sleep=around.sleep,
        reraise=True,
    )
    try:
        return retrying(call)
    except PassingFault as fault:
        raise SourceUnavailable(kind, what, str(fault), attempts) from fault
