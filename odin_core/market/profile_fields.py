"""The fields of a profile's file, from what YAML makes of them to the types of `market.profile.MarketProfile`.

Each parser takes a field's value and raises `Unfit` with what is wrong about it; which market, field and file that is,
`market.profile` adds. What is not in `PARSERS` is taken as it stands."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from odin_core.errors import nearest
from odin_core.market.terms import NoTerms, Terms

EXECUTION = ("half_spread_bps", "slippage_volatility", "impact", "noise", "max_participation", "latency_bars")
LOCAL_HOURS = ("open", "close", "special_sessions", "halts")  # written on the clock of `timezone`


class Unfit(ValueError):
    """A value that its field cannot have; `rule` ends the sentence "… is VALUE, but"."""

    def __init__(self, value: object, rule: str) -> None:
        super().__init__(rule)
        self.value, self.rule = value, rule


class Origin(NamedTuple):
    """Where a profile was read: its own file, and the file of its base for each field that it inherits."""

    file: Path
    inherited: Mapping[str, Path]

    def way_out(self, field: str) -> str:
        """Which file to correct."""
        said_in = self.inherited.get(field.split(".")[0])
        if said_in is None:
            return f"correct {_short(self.file)}"
        return f"it comes with the base, from {_short(said_in)}: write {field} in {_short(self.file)} as well"


@dataclass(frozen=True, kw_only=True)
class SpecialSession:
    """A session that the calendar library misses, or whose hours differ. Local times; `why` is for people. `announced`:
    the time on its date at which a close that was moved after the open became known; None where all hours were known
    before."""

    date: date
    open: time
    close: time
    why: str
    announced: time | None = None


@dataclass(frozen=True, kw_only=True)
class Halt:
    """Hours within a session in which the whole market stood still, local times: no bars are expected then."""

    date: date
    start: time
    end: time
    why: str


def foreign_hours(own: Mapping[str, Any], base: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where a profile replaces its base's calendar or time zone but keeps what was written for it: the replaced field,
    and those that it must name as well. None where nothing is amiss."""
    replaced = [field for field in ("calendar", "timezone") if field in own and own[field] != base.get(field)]
    if not replaced:
        return None
    bound = LOCAL_HOURS
    if "calendar" in replaced:
        bound = ("timezone", *bound, "non_sessions", "opens_day_before")
    kept = [field for field in bound if field not in own and base.get(field)]
    return (replaced[0], ", ".join(kept)) if kept else None


def _short(path: Path) -> str:
    """As a person who stands in the working folder would write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _date(value: object) -> date:
    if not isinstance(value, date):
        raise Unfit(value, "it must be a date, YYYY-MM-DD")
    return value


def _time(value: object) -> time:
    try:
        return time.fromisoformat(cast(str, value))
    except (TypeError, ValueError):
        raise Unfit(value, 'it must be a quoted local time, as in "09:15"') from None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(value, "it must be a number")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise Unfit(value, "it must be a list")
    return value


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in _list(value))


def _dates(value: object) -> tuple[date, ...]:
    return tuple(_date(item) for item in _list(value))


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Unfit(value, "it must be a mapping")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Unfit(value, "it must be true or false")
    return value


def _execution(value: object) -> Mapping[str, Any]:
    """Names are those of `execution.orders.ExecutionRules`, which brings numba, but for what other fields say."""
    for name, number in _mapping(value).items():
        if name not in EXECUTION:
            raise Unfit({name: number}, f"it has no such entry; {nearest(str(name), EXECUTION)}")
        _number(number)
    return _mapping(value)


def _dated(
    edges: tuple[str, str], make: Callable[..., Any], optional: tuple[str, ...] = ()
) -> Callable[[object], tuple[Any, ...]]:
    """A parser of lists whose entries have two local times, a reason, either a `date` or several `dates`, and perhaps
    further local times."""
    more = f"; it may have {', '.join(optional)}" if optional else ""

    def parse(value: object) -> tuple[Any, ...]:
        found = []
        for item in _list(value):
            needed = set(item) - set(optional) if isinstance(item, dict) else None
            if needed not in ({"date", *edges, "why"}, {"dates", *edges, "why"}):
                raise Unfit(item, f"each entry has exactly date (or dates), {', '.join(edges)} and why{more}")
            days = _dates(item["dates"] if "dates" in item else [item["date"]])
            hours = {name: _time(item[name]) for name in (*edges, *optional) if name in item}
            found += [make(date=day, why=str(item["why"]), **hours) for day in days]
        return tuple(found)

    return parse


def _instruments(value: object) -> dict[str, Terms]:
    try:
        return {str(symbol): Terms.parse(str(symbol), entry) for symbol, entry in _mapping(value).items()}
    except NoTerms as mistake:
        raise Unfit(mistake.entry, mistake.rule) from None


def _rates(value: object) -> tuple[tuple[date, float], ...]:
    return tuple(sorted((_date(first), float(_number(rate))) for first, rate in _mapping(value).items()))


PARSERS: Final[Mapping[str, Callable[[object], Any]]] = {
    **dict.fromkeys(("calendar_first", "calendar_last", "range_first", "range_last"), _date),
    **dict.fromkeys(("first_partition", "last_partition"), _date),
    **dict.fromkeys(("open", "close"), _time),
    **dict.fromkeys(("tick_size", "lot_size", "capital", "ic_alarm"), _number),
    **dict.fromkeys(("source", "costs"), _mapping),
    "execution": _execution,
    **dict.fromkeys(("carry_overnight", "untradable", "underlyings_in", "decision_points", "centres"), _strings),
    "special_sessions": _dated(("open", "close"), SpecialSession, ("announced",)),
    "halts": _dated(("start", "end"), Halt),
    "non_sessions": _dates,
    "tradable": _flag,
    "opens_day_before": _flag,
    "instruments": _instruments,
    "interest_rates": _rates,
}
