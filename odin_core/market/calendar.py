"""Sessions of a market: which dates trade, from when to when, and how they group into weeks.

A session is a `datetime.date`, its hours are UTC, a week is named by its Monday. The rules (weekdays, holidays, early
closes) come from a library by way of `market.calendar_rules`, corrections from the profile; both ends of the calendar
are the profile's, never the clock's."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from odin_core.errors import OdinError
from odin_core.market.calendar_rules import NotInLibrary, rules_of
from odin_core.market.profile import MarketProfile
from odin_core.market.profile_fields import Halt, SpecialSession

DAY = timedelta(days=1)
WEEK = timedelta(days=7)


class NotASession(OdinError):
    def __init__(self, day: date, market: str, before: date | None, after: date | None) -> None:
        around = " and ".join(str(s) for s in (before, after) if s is not None)
        super().__init__(f"{day} is no session of market {market!r}; the nearest are {around}")


class OutsideCalendar(OdinError):
    def __init__(self, day: date, market: str, first: date, last: date) -> None:
        super().__init__(
            f"{day} lies outside the calendar of market {market!r}, which covers {first} to {last}; "
            f"choose a date within, or widen calendar_first and calendar_last in its profile"
        )


class Hours(NamedTuple):
    """First instant of a session and the instant after its last bar, UTC."""

    open: datetime
    close: datetime


class MovedClose(NamedTuple):
    """When it was announced, in a session, that its close is moved, and the close that was planned until then, UTC."""

    announced_at: datetime
    planned: datetime


class Misplaced(ValueError):
    """A time of a profile's field that its session's hours do not have."""

    def __init__(self, field: str, value: str, rule: str) -> None:
        super().__init__(rule)
        self.field, self.value, self.rule = field, value, rule


class SessionCalendar:
    """The sessions of one market between two bounds. Immutable; obtain it from `session_calendar`."""

    def __init__(
        self, market: str, times: Mapping[date, "LocalTimes"], halts: Mapping[date, tuple[Hours, ...]],
        moved_closes: Mapping[date, MovedClose], first: date, last: date,
    ) -> None:  # fmt: skip
        self.market = market
        self.first = first
        self.last = last
        self._sessions = sorted(times)
        self._times = times
        self._halts = halts
        self._moved_closes = moved_closes
        self._hours: dict[date, Hours] = {}

    def sessions(self, first: date | None = None, last: date | None = None) -> list[date]:
        """Sessions within first..last, both included, ascending; empty where first > last. Default: the bounds.
        Raises OutsideCalendar."""
        first, last = self._range(first, last)
        return self._sessions[bisect_left(self._sessions, first) : bisect_right(self._sessions, last)]

    def non_sessions(self, first: date | None = None, last: date | None = None) -> list[date]:
        """Dates within first..last, both included, that are no session, ascending. Raises OutsideCalendar."""
        first, last = self._range(first, last)
        days = (last - first).days + 1
        return [day for day in (first + DAY * i for i in range(days)) if day not in self._times]

    def is_session(self, day: date) -> bool:
        """Whether the market trades on a date. Raises OutsideCalendar."""
        self._inside(day)
        return day in self._times

    def require(self, day: date) -> date:
        """The date itself. Raises NotASession (with the nearest before and after) or OutsideCalendar."""
        if not self.is_session(day):
            at = bisect_left(self._sessions, day)
            before = self._sessions[at - 1] if at else None
            raise NotASession(day, self.market, before, self._sessions[at] if at < len(self._sessions) else None)
        return day

    def next(self, day: date, steps: int = 1) -> date:
        """The `steps`-th session after a date (a session or not). Raises OutsideCalendar past the last one."""
        return self._at(bisect_right(self._sessions, self._inside(day)) + steps - 1, beyond=self.last + DAY)

    def previous(self, day: date, steps: int = 1) -> date:
        """The `steps`-th session before a date (a session or not). Raises OutsideCalendar before the first one."""
        return self._at(bisect_left(self._sessions, self._inside(day)) - steps, beyond=self.first - DAY)

    def hours(self, session: date) -> Hours:
        """Open and close of a session, UTC. Raises NotASession."""
        if session not in self._hours:
            self._hours[session] = self._times[self.require(session)].hours(session)
        return self._hours[session]

    def moved_close(self, session: date) -> MovedClose | None:
        """How a session's close was moved after its open; None where `hours` were known before, which is nearly always.
        Raises NotASession."""
        return self._moved_closes.get(self.require(session))

    def halts(self, session: date) -> tuple[Hours, ...]:
        """Hours within a session in which the whole market stood still, UTC, ascending; nearly always none.
        Raises NotASession."""
        return self._halts.get(self.require(session), ())

    def minutes(self, session: date) -> int:
        """One-minute bars that a session has when none is missing: from its open to its close, less its halts."""
        spans = (self.hours(session), *self.halts(session))
        whole, *halted = ((end - start) // timedelta(minutes=1) for start, end in spans)
        return whole - sum(halted)

    def week_of(self, day: date) -> date:
        """The Monday of a date's week."""
        return day - DAY * day.weekday()

    def sessions_of_week(self, day: date) -> list[date]:
        """Sessions of the Monday-based week that a date lies in, cut at the bounds."""
        monday = self.week_of(day)
        return self.sessions(max(monday, self.first), min(monday + WEEK - DAY, self.last))

    def is_last_session_of_week(self, session: date) -> bool:
        """Whether no later session lies in the same week: 'Friday' in a market with holidays. Raises NotASession."""
        return self.sessions_of_week(self.require(session))[-1] == session

    def _range(self, first: date | None, last: date | None) -> tuple[date, date]:
        return self._inside(first or self.first), self._inside(last or self.last)

    def _inside(self, day: date) -> date:
        if not self.first <= day <= self.last:
            raise OutsideCalendar(day, self.market, self.first, self.last)
        return day

    def _at(self, index: int, *, beyond: date) -> date:
        return self._sessions[index] if 0 <= index < len(self._sessions) else self._inside(beyond)


def session_calendar(profile: MarketProfile) -> SessionCalendar:
    """The calendar of a market; built once per process for equal facts.

    Raises BadProfile for a calendar that the library does not know or that does not cover the profile's bounds, and for
    a halt or the announcement of a close outside every session."""
    try:
        return _build(
            profile.name,
            profile.calendar,
            LocalTimes(profile.open, profile.close, ZoneInfo(profile.timezone), profile.opens_day_before),
            (profile.calendar_first, profile.calendar_last),
            profile.special_sessions,
            profile.non_sessions,
            profile.halts,
        )
    except (NotInLibrary, Misplaced) as mistake:
        raise profile.wrong(mistake.field, mistake.value, mistake.rule) from None


class LocalTimes(NamedTuple):
    """A session's hours on the market's clock. `day_before`: hours that span midnight end on the session's date."""

    open: time
    close: time
    zone: ZoneInfo
    day_before: bool

    def hours(self, day: date) -> Hours:
        opens_on = closes_on = day
        if self.close <= self.open:
            opens_on, closes_on = (day - DAY, day) if self.day_before else (day, day + DAY)
        return Hours(_instant(opens_on, self.open, self.zone), _instant(closes_on, self.close, self.zone))


@lru_cache(maxsize=16)
def _build(
    market: str,
    calendar: str,
    regular: LocalTimes,
    bounds: tuple[date, date],
    special: tuple[SpecialSession, ...],
    closed: tuple[date, ...],
    halts: tuple[Halt, ...],
) -> SessionCalendar:
    first, last = bounds
    rules = rules_of(calendar, first, last)
    times = dict.fromkeys(rules.days, regular)
    opens, closes = (_in_zone(found, rules.zone, regular.zone) for found in (rules.opens, rules.closes))
    for day in times.keys() & (opens.keys() | closes.keys()):
        times[day] = regular._replace(open=opens.get(day, regular.open), close=closes.get(day, regular.close))
    special = tuple(s for s in special if first <= s.date <= last and s.date not in closed)
    planned = {s.date: times.get(s.date, regular)._replace(open=s.open) for s in special}
    times |= {s.date: regular._replace(open=s.open, close=s.close) for s in special}
    for day in closed:
        times.pop(day, None)
    moved_closes = {s.date: _moved_close(s.announced, s.date, planned, times) for s in special if s.announced}
    return SessionCalendar(market, times, _halts(halts, times, bounds), moved_closes, first, last)


def _instant(day: date, at: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, at, zone).astimezone(UTC)


def _in_zone(found: Mapping[date, time], theirs: ZoneInfo, zone: ZoneInfo) -> dict[date, time]:
    """The library's times are of its own zone: noon in Chicago is 13:00 in New York."""
    if theirs == zone:
        return dict(found)
    return {day: datetime.combine(day, at, theirs).astimezone(zone).time() for day, at in found.items()}


def _halts(
    halts: tuple[Halt, ...], times: Mapping[date, LocalTimes], bounds: tuple[date, date]
) -> dict[date, tuple[Hours, ...]]:
    """Halts within the bounds, by session. Raises Misplaced for one that does not lie inside a session."""
    found: dict[date, tuple[Hours, ...]] = {}
    first, last = bounds
    for halt in sorted((h for h in halts if first <= h.date <= last), key=lambda h: (h.date, h.start)):
        local = times.get(halt.date)
        span = local and Hours(*(_instant(halt.date, edge, local.zone) for edge in (halt.start, halt.end)))
        session = local and local.hours(halt.date)
        if span is None or session is None or not session.open <= span.open < span.close <= session.close:
            raise Misplaced("halts", f"{halt.date} {halt.start} to {halt.end}", "it must lie inside a session")
        found[halt.date] = (*found.get(halt.date, ()), span)
    return found


def _moved_close(
    announced: time, day: date, planned: Mapping[date, LocalTimes], times: Mapping[date, LocalTimes]
) -> MovedClose:
    """Raises Misplaced for an announcement that does not lie before both closes."""
    announced_at = _instant(day, announced, times[day].zone)
    moved = MovedClose(announced_at, planned[day].hours(day).close)
    hours = times[day].hours(day)
    if not hours.open <= announced_at <= min(hours.close, moved.planned):
        rule = "it must be announced after the open, and before the planned and the new close"
        raise Misplaced("special_sessions", f"{day} announced {announced}", rule)
    return moved
