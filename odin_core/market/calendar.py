"""Sessions of a market: which dates trade, from when to when, and how they group into weeks.

A session is a `datetime.date`, its hours are UTC, a week is named by its Monday. The rules (weekdays, holidays, early
closes) come from `exchange_calendars`, corrections from the profile; both ends of the calendar are the profile's, never
the clock's. The rules are applied here by numpy: the library's own loop takes most of a second for twelve years."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from odin_core.errors import OdinError, nearest
from odin_core.market.profile import BadProfile, MarketProfile, SpecialSession

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

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


class SessionCalendar:
    """The sessions of one market between two bounds. Immutable; obtain it from `session_calendar`."""

    def __init__(self, market: str, sessions: list[date], hours: dict[date, Hours], first: date, last: date) -> None:
        self.market = market
        self.first = first
        self.last = last
        self._sessions = sessions
        self._hours = hours

    def sessions(self, first: date | None = None, last: date | None = None) -> list[date]:
        """Sessions within first..last, both included, ascending; empty where first > last. Default: the bounds.
        Raises OutsideCalendar."""
        first, last = self._range(first, last)
        return self._sessions[bisect_left(self._sessions, first) : bisect_right(self._sessions, last)]

    def non_sessions(self, first: date | None = None, last: date | None = None) -> list[date]:
        """Dates within first..last, both included, that are no session, ascending. Raises OutsideCalendar."""
        first, last = self._range(first, last)
        days = (last - first).days + 1
        return [day for day in (first + DAY * i for i in range(days)) if day not in self._hours]

    def is_session(self, day: date) -> bool:
        """Whether the market trades on a date. Raises OutsideCalendar."""
        self._inside(day)
        return day in self._hours

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
        return self._hours[self.require(session)]

    def minutes(self, session: date) -> int:
        """One-minute bars that a session has when none is missing: from its open to its close."""
        start, end = self.hours(session)
        return (end - start) // timedelta(minutes=1)

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
    """The calendar of a market; built once per process for equal facts, in about 0.1 s after the library's import.

    Raises BadProfile for a calendar that the library does not know or that does not cover the profile's bounds."""
    return _build(
        profile.name,
        profile.calendar,
        ZoneInfo(profile.timezone),
        (profile.open, profile.close),
        (profile.calendar_first, profile.calendar_last),
        profile.special_sessions,
        profile.non_sessions,
    )


@lru_cache(maxsize=16)
def _build(
    market: str,
    calendar: str,
    zone: ZoneInfo,
    regular: tuple[time, time],
    bounds: tuple[date, date],
    special: tuple[SpecialSession, ...],
    closed: tuple[date, ...],
) -> SessionCalendar:
    first, last = bounds
    rules = _library_rules(market, calendar, first, last)
    traded = _open_days(rules, first, last)
    times = {day: regular for day in traded}
    opens = _special_times(rules.special_opens, rules.special_opens_adhoc, first, last)
    closes = _special_times(rules.special_closes, rules.special_closes_adhoc, first, last)
    for day in times.keys() & (opens.keys() | closes.keys()):
        times[day] = (opens.get(day, regular[0]), closes.get(day, regular[1]))
    times |= {s.date: (s.open, s.close) for s in special if first <= s.date <= last}
    sessions = sorted(times.keys() - set(closed))
    hours = {day: _hours(day, times[day], zone) for day in sessions}
    return SessionCalendar(market, sessions, hours, first, last)


def _hours(day: date, times: tuple[time, time], zone: ZoneInfo) -> Hours:
    start, end = times
    closes_on = day if end > start else day + DAY
    return Hours(
        datetime.combine(day, start, zone).astimezone(UTC), datetime.combine(closes_on, end, zone).astimezone(UTC)
    )


def _library_rules(market: str, calendar: str, first: date, last: date) -> "ExchangeCalendar":
    import exchange_calendars as library  # brings pandas: 0.3 s

    names = library.get_calendar_names()
    if calendar not in names:
        raise BadProfile(market, "calendar", calendar, f"the calendar library has none; {nearest(calendar, names)}")
    try:
        library.get_calendar(calendar, start=last - 2 * WEEK, end=last)
        return library.get_calendar(calendar, start=first, end=first + 2 * WEEK)
    except ValueError as error:
        raise BadProfile(market, "calendar_first..calendar_last", f"{first}..{last}", str(error)) from None


def _open_days(rules: "ExchangeCalendar", first: date, last: date) -> list[date]:
    days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
    weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    is_open = _mask(rules.weekmask)[weekday]
    for start, end, mask in getattr(rules, "special_weekmasks", ()):  # only calendars with weekend sessions have it
        within = (days >= _day(start or first)) & (days <= _day(end or last))
        is_open[within] = _mask(mask)[weekday[within]]
    holidays = [_day(day) for day in _dates(rules.regular_holidays, first, last) + list(rules.adhoc_holidays)]
    is_open &= ~np.isin(days, np.array(holidays, dtype="datetime64[D]"))
    return days[is_open].tolist()


def _special_times(by_rule: Iterable[Any], by_date: Iterable[Any], first: date, last: date) -> dict[date, time]:
    """Date to local time; the first rule that names a date wins, a date named outright wins over every rule."""
    found: dict[date, time] = {}
    for at, rule in by_rule:
        found = {day.date(): at for day in _dates(rule, first, last)} | found
    return found | {date.fromisoformat(str(day)[:10]): at for at, days in by_date for day in days}


def _dates(rule: Any, first: date, last: date) -> list[Any]:
    """Timestamps that a rule of the library names: a holiday calendar, a weekday number, or nothing."""
    import pandas as pd

    start, end = pd.Timestamp(first), pd.Timestamp(last)
    if rule is None:
        return []
    if isinstance(rule, int):
        return [day for day in pd.date_range(start, end) if day.weekday() == rule]
    return list(rule.holidays(start, end))


def _mask(weekmask: str) -> np.ndarray:
    return np.array([flag == "1" for flag in weekmask])


def _day(stamp: Any) -> np.datetime64:
    return np.datetime64(str(stamp)[:10], "D")
