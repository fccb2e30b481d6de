"""The rules of exchanges: on which dates they open, and where hours differ, from `exchange_calendars`.

The library brings pandas and takes half a second for the markets of the package, which every process would pay. So what
it says for their profiles is kept beside this file and read instead, as long as the library is of the version that said
it; any other calendar, range or version asks the library. Write the file anew after a change of either:
`python -m odin_core.market.calendar_rules`. The rules are applied by numpy, as the library's own loop takes longer."""

import json
from collections.abc import Iterable
from datetime import date, time, timedelta
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from odin_core.errors import nearest

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

STORED = Path(__file__).with_name("calendar_rules.json")
LIBRARY = "exchange_calendars"
TWO_WEEKS = timedelta(days=14)


class Rules(NamedTuple):
    """What the library says between two dates: open days, and local opens and closes that differ from the usual."""

    days: list[date]
    opens: dict[date, time]
    closes: dict[date, time]
    zone: ZoneInfo


class NotInLibrary(ValueError):
    def __init__(self, field: str, value: str, rule: str) -> None:
        super().__init__(rule)
        self.field, self.value, self.rule = field, value, rule


def rules_of(calendar: str, first: date, last: date) -> Rules:
    """The rules of a calendar between two dates, both included. Raises NotInLibrary."""
    stored = _stored().get(_key(calendar, first, last))
    return library_rules(calendar, first, last) if stored is None else _parsed(stored, first, last)


@lru_cache(maxsize=16)
def library_rules(calendar: str, first: date, last: date) -> Rules:
    """`rules_of`, asked of the library itself. Raises NotInLibrary."""
    import exchange_calendars as library  # brings pandas: 0.3 s

    names = library.get_calendar_names()
    if calendar not in names:
        raise NotInLibrary("calendar", calendar, f"the calendar library has none; {nearest(calendar, names)}")
    try:
        rules = library.get_calendar(calendar, start=first, end=first + TWO_WEEKS)
    except ValueError as error:
        raise NotInLibrary("calendar_first", str(first), str(error)) from None
    bound = rules.bound_max()
    if bound is not None and bound.date() < last:
        raise NotInLibrary("calendar_last", str(last), f"the calendar library knows {calendar} to {bound.date()}")
    opens, closes = (
        _special_times(by_rule, by_date, first, last)
        for by_rule, by_date in (
            (rules.special_opens, rules.special_opens_adhoc),
            (rules.special_closes, rules.special_closes_adhoc),
        )
    )
    return Rules(_open_days(rules, first, last), opens, closes, ZoneInfo(str(rules.tz)))


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


@lru_cache(maxsize=1)
def _stored() -> dict[str, Any]:
    """What is kept, by `_key`; empty where another version of the library said it."""
    kept = json.loads(STORED.read_text())
    return kept["calendars"] if kept["version"] == version(LIBRARY) else {}


def _key(calendar: str, first: date, last: date) -> str:
    return f"{calendar} {first} {last}"


def _parsed(stored: dict[str, Any], first: date, last: date) -> Rules:
    days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
    is_open = np.unpackbits(np.frombuffer(bytes.fromhex(stored["days"]), np.uint8), count=len(days)).astype(bool)
    opens, closes = (
        {date.fromisoformat(day): time.fromisoformat(at) for day, at in stored[edge].items()}
        for edge in ("opens", "closes")
    )
    return Rules(days[is_open].tolist(), opens, closes, ZoneInfo(stored["zone"]))


def _to_store(rules: Rules, first: date, last: date) -> dict[str, Any]:
    days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
    is_open = np.isin(days, np.array(rules.days, dtype="datetime64[D]"))
    opens, closes = (
        {str(day): f"{at:%H:%M}" for day, at in sorted(found.items()) if first <= day <= last}
        for found in (rules.opens, rules.closes)
    )
    return {"zone": str(rules.zone), "days": np.packbits(is_open).tobytes().hex(), "opens": opens, "closes": closes}


def main() -> None:
    """Write down what the library says for every profile of the package."""
    from odin_core.lake import write_text
    from odin_core.market.profile import PROFILES, load_profile, profile_names

    profiles = [load_profile(name, (PROFILES,)) for name in profile_names((PROFILES,))]
    wanted = {(p.calendar, p.calendar_first, p.calendar_last) for p in profiles}
    kept = {_key(*asked): _to_store(library_rules(*asked), *asked[1:]) for asked in sorted(wanted)}
    write_text(json.dumps({"version": version(LIBRARY), "calendars": kept}, indent=1) + "\n", STORED)


if __name__ == "__main__":
    main()
