"""Whether a market's data are as new as they should be. What is done about it is the asset checks' and people's."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from odin_core.lake import Lake
from odin_core.market.calendar import SessionCalendar

GRACE = timedelta(minutes=45)  # after the close: what a vendor takes to have the session complete
DAY = timedelta(days=1)
LONGEST_BREAK = timedelta(days=30)  # no market rests longer


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How far a table lags behind the calendar. `expected`: the last session that was over for GRACE at the time of
    asking; `behind`: sessions after `last` up to that one."""

    table: str
    last: date | None
    expected: date | None
    behind: int

    @property
    def is_fresh(self) -> bool:
        return self.behind == 0

    def to_text(self) -> str:
        if self.expected is None:
            return f"{self.table}: no session of the calendar is over yet"
        if self.last is None:
            return f"{self.table}: holds nothing; the session {self.expected} should be there"
        if self.is_fresh:
            return f"{self.table}: has the session {self.last}, the last one that is over"
        return f"{self.table}: ends with {self.last} and lacks {self.behind} sessions up to {self.expected}"


def freshness(lake: Lake, table: str, calendar: SessionCalendar, *, as_of: datetime) -> Freshness:
    """How fresh a table of the lake is at `as_of` (aware). Past the calendar's end its last session is expected."""
    day = min(max(as_of.date() + DAY, calendar.first), calendar.last)
    recent = calendar.sessions(max(day - LONGEST_BREAK, calendar.first), day)
    expected = max((s for s in recent if calendar.hours(s).close + GRACE <= as_of), default=None)
    known = [s for s in lake.sessions(table) if expected is None or s <= expected]
    last = known[-1] if known else None
    behind = 0
    if expected is not None and (last is None or last < expected):
        behind = len(calendar.sessions(last or expected, expected)) - (1 if last else 0)
    return Freshness(table=table, last=last, expected=expected, behind=behind)
