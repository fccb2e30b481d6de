"""A market's profile: its calendar, hours, units, costs and source, as facts read from one YAML file.

A new market is one more file, in `profiles/` or in the folder `markets/` where ODIN is started; `base: other` starts
from another file and replaces what it names. Sessions are computed in `market.calendar`, what a symbol's lots are in
`market.terms`; what cost and execution numbers mean is said in `odin_core.execution`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, time
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo

from odin_core.errors import OdinError, nearest
from odin_core.market.terms import NoTerms, Terms, terms_of

PROFILES = Path(__file__).with_name("profiles")
OWN_MARKETS = Path("markets")
VOLUMES = ("traded", "contracts", "ticks", "none")
SIDES = ("long", "short")
OWN_SOURCES = ("files", "synthetic")  # the others are the modules of `market.sources`


class UnknownMarket(OdinError):
    def __init__(self, name: str, folders: tuple[Path, ...]) -> None:
        super().__init__(
            f"no market is called {name!r}; {nearest(name, profile_names(folders))}. A market of your own is a file "
            f"{OWN_MARKETS}/{name}.yaml in the folder where you start odin"
        )


class BadProfile(OdinError):
    def __init__(self, name: str, field: str, value: object, rule: str) -> None:
        super().__init__(f"profile of market {name!r}: {field} is {value!r}, but {rule}; correct profiles/{name}.yaml")


class NothingToPlant(OdinError):
    def __init__(self, market: str) -> None:
        super().__init__(f"an edge is planted in a synthetic market, and {market} has real bars; leave --edge out")


@dataclass(frozen=True, kw_only=True)
class SpecialSession:
    """A session that the calendar library misses, or whose hours differ. Local times; `why` is for people."""

    date: date
    open: time
    close: time
    why: str


@dataclass(frozen=True, kw_only=True)
class Halt:
    """Hours within a session in which the whole market stood still, local times: no bars are expected then."""

    date: date
    start: time
    end: time
    why: str


@dataclass(frozen=True, kw_only=True)
class MarketProfile:
    """The facts of one market. Times are local to `timezone`, prices and amounts in `currency`, rates are fractions.

    Hours that end before they begin span midnight: a session then closes the next day (a market that never closes has
    both at 00:00) or, with `opens_day_before`, opened the day before. `tick_size` and `lot_size` are in `instruments`
    by symbol where they differ. `calendar_first` and
    `calendar_last` bound the calendar, `first_partition` and `last_partition` (exclusive; null: the calendar's end) the
    partitions, and a synthetic history begins with the first. `range_first` and `range_last` are the life's range where
    the user gives none (null: all that the market has)."""

    name: str
    calendar: str
    calendar_first: date
    calendar_last: date
    first_partition: date
    timezone: str
    open: time
    close: time
    currency: str
    volume: Literal["traded", "contracts", "ticks", "none"]  # what bars count: units, lots, changes of a quote
    tick_size: float
    lot_size: float  # the smallest quantity that is traded, and the step of larger ones; 0.001 is possible
    source: Mapping[str, Any]
    costs: Mapping[str, Mapping[str, float]]
    execution: Mapping[str, float]
    capital: float
    carry_overnight: tuple[str, ...] = ()
    tradable: bool = True
    untradable: tuple[str, ...] = ()
    special_sessions: tuple[SpecialSession, ...] = ()
    non_sessions: tuple[date, ...] = ()
    halts: tuple[Halt, ...] = ()
    opens_day_before: bool = False
    centres: tuple[str, ...] = ()  # of `market.centres`: whose business hours shape this market's day
    instruments: Mapping[str, Terms] = field(default_factory=dict)  # by symbol or by a contract's root
    underlyings_in: tuple[str, ...] = ()  # of an options market: the markets with prices of what its contracts are on
    decision_points: tuple[str, ...] = ("close",)
    last_partition: date | None = None
    range_first: date | None = None
    range_last: date | None = None
    interest_rates: tuple[tuple[date, float], ...] = ()  # (decided on, per year, continuously compounded), ascending

    def __post_init__(self) -> None:
        ordered = self.calendar_first <= self.first_partition < self.calendar_last
        self._require("first_partition", ordered, "it must lie within calendar_first and calendar_last")
        self._require("volume", self.volume in VOLUMES, f"it must be one of {', '.join(VOLUMES)}")
        self._require("tick_size", self.tick_size > 0, "it must be positive")
        self._require("lot_size", self.lot_size > 0, "it must be positive")
        self._require("capital", self.capital > 0, "it must be positive")
        self._require("carry_overnight", set(self.carry_overnight) <= set(SIDES), f"sides are {', '.join(SIDES)}")
        self._require("decision_points", len(self.decision_points) > 0, "a session needs at least one")
        self._require_centres()
        spans = not self.opens_day_before or self.open >= self.close
        self._require("opens_day_before", spans, "hours that end later on the day they begin do not span midnight")
        self._require_source()
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            raise BadProfile(self.name, "timezone", self.timezone, "it must be an IANA name") from None

    def _require(self, field: str, holds: bool, rule: str) -> None:
        if not holds:
            raise BadProfile(self.name, field, getattr(self, field), rule)

    def interest_rate(self, day: date) -> float:
        """The rate per year that was decided last before a day (one of that day is not known at its open); what option
        prices are discounted with. Raises BadProfile where there is none."""
        known = [rate for decided, rate in self.interest_rates if decided < day]
        self._require("interest_rates", bool(known), f"options need one that was decided before {day}")
        return known[-1]

    def _require_centres(self) -> None:
        if self.centres:
            from odin_core.market.centres import CENTRES  # brings polars

            self._require("centres", set(self.centres) <= set(CENTRES), f"centres are {', '.join(CENTRES)}")

    def _require_source(self) -> None:
        kind = self.source.get("kind")
        if kind in OWN_SOURCES:
            return
        from odin_core.market.sources.source import source_kinds

        kinds = (*OWN_SOURCES, *source_kinds())
        self._require("source", kind in kinds, f"its kind must be one of {', '.join(kinds)}")

    def terms(self, symbol: str, on: date) -> Terms:
        """Tick and lot size of a symbol on a date, for a contract of its expiry: its own, else those of the root that
        its name begins with (`NIFTY` of NIFTY24JANFUT, `ES` of ESZ4), else the market's."""
        own = terms_of(self.instruments, symbol)
        if own is None:
            return Terms(tick_size=self.tick_size, lot_size=self.lot_size)
        return own.on(on).with_defaults(self.tick_size, self.lot_size)

    def lot_sizes(self, symbols: Iterable[str], on: date) -> list[float]:
        """The lot of each symbol on a session, for a contract the one of contracts that expire then."""
        lots = (self.terms(symbol, on).lot_size for symbol in symbols)
        return [self.lot_size if lot is None else float(lot) for lot in lots]

    def volume_units(self, symbols: Iterable[str], on: date) -> list[float]:
        """How many units of each symbol one count of its bars' volume is: its lot where they count contracts."""
        names = list(symbols)
        return self.lot_sizes(names, on) if self.volume == "contracts" else [1.0] * len(names)

    @property
    def knows_trades(self) -> bool:
        """Whether volume says how much was traded."""
        return self.volume in ("traded", "contracts")

    def require_synthetic(self, edge: float | None) -> None:
        """Raise NothingToPlant where an edge is given for a market of real bars."""
        if edge is not None and self.source["kind"] != "synthetic":
            raise NothingToPlant(self.name)

    def is_tradable(self, symbol: str) -> bool:
        """Whether orders may be sent for a symbol: an index has prices but no orders."""
        return self.tradable and symbol not in self.untradable


def search_path() -> tuple[Path, ...]:
    """Folders in which a market's file is looked for: `markets/` where ODIN was started, then its own."""
    return tuple(folder for folder in (OWN_MARKETS.absolute(), PROFILES) if folder.is_dir())


def profile_names(folders: tuple[Path, ...] | None = None) -> list[str]:
    """Names of the markets that have a profile, ascending."""
    return sorted({path.stem for folder in folders or search_path() for path in folder.glob("*.yaml")})


def load_profile(name: str, folders: tuple[Path, ...] | None = None) -> MarketProfile:
    """The profile of a market, from the first folder that has it; by default `search_path`. A file may begin from the
    one of the same name that it hides. Raises UnknownMarket (with the nearest names) and BadProfile (field, value,
    rule)."""
    return _load(name, folders or search_path())


@lru_cache(maxsize=64)
def _load(name: str, folders: tuple[Path, ...]) -> MarketProfile:
    raw = _read(name, folders)
    known = {entry.name: entry for entry in fields(MarketProfile)}
    for key in raw:
        if key not in known:
            raise BadProfile(name, key, raw[key], f"no such field exists; {nearest(key, known)}")
    for key, entry in known.items():
        needed = entry.default is MISSING and entry.default_factory is MISSING
        if key != "name" and key not in raw and needed:
            raise BadProfile(name, key, None, "it is required")
    parsed = {key: _PARSERS.get(key, _as_is)(name, key, value) for key, value in raw.items()}
    return MarketProfile(name=name, **parsed)


def _read(name: str, folders: tuple[Path, ...], seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    import yaml  # 15 ms, only needed once a market is named

    paths = [path for folder in folders if (path := folder / f"{name}.yaml").is_file()]
    if not paths:
        raise UnknownMarket(name, folders)
    path = next((path for path in paths if path not in seen), None)
    if path is None:
        chain = " -> ".join(found.stem for found in (*seen, paths[0]))
        raise BadProfile(name, "base", chain, "a profile cannot start from itself")
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise BadProfile(name, "file", str(path), f"it is not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(raw, dict):
        raise BadProfile(name, "file", str(path), "it must be a mapping of fields")
    base = raw.pop("base", None)
    return raw if base is None else _read(str(base), folders, (*seen, path)) | raw


def _as_is(name: str, field: str, value: object) -> object:
    return value


def _date(name: str, field: str, value: object) -> date:
    if not isinstance(value, date):
        raise BadProfile(name, field, value, "it must be a date, YYYY-MM-DD")
    return value


def _time(name: str, field: str, value: object) -> time:
    try:
        return time.fromisoformat(cast(str, value))
    except (TypeError, ValueError):
        raise BadProfile(name, field, value, 'it must be a quoted local time, as in "09:15"') from None


def _number(name: str, field: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadProfile(name, field, value, "it must be a number")
    return value


def _list(name: str, field: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise BadProfile(name, field, value, "it must be a list")
    return value


def _strings(name: str, field: str, value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in _list(name, field, value))


def _dates(name: str, field: str, value: object) -> tuple[date, ...]:
    return tuple(_date(name, field, item) for item in _list(name, field, value))


def _mapping(name: str, field: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadProfile(name, field, value, "it must be a mapping")
    return value


def _flag(name: str, field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadProfile(name, field, value, "it must be true or false")
    return value


def _dated(edges: tuple[str, str], make: Callable[..., Any]) -> Callable[[str, str, object], tuple[Any, ...]]:
    """A parser of lists whose entries have two local times, a reason, and either a `date` or several `dates`."""

    def parse(name: str, field: str, value: object) -> tuple[Any, ...]:
        found = []
        for item in _list(name, field, value):
            if not isinstance(item, dict) or set(item) not in ({"date", *edges, "why"}, {"dates", *edges, "why"}):
                raise BadProfile(
                    name, field, item, f"each entry has exactly date (or dates), {', '.join(edges)} and why"
                )
            days = _dates(name, field, item["dates"] if "dates" in item else [item["date"]])
            hours = {edge: _time(name, f"{field}.{edge}", item[edge]) for edge in edges}
            found += [make(date=day, why=str(item["why"]), **hours) for day in days]
        return tuple(found)

    return parse


def _instruments(name: str, field: str, value: object) -> dict[str, Terms]:
    entries = _mapping(name, field, value)
    try:
        return {str(symbol): Terms.parse(str(symbol), entry) for symbol, entry in entries.items()}
    except NoTerms as mistake:
        raise BadProfile(name, field, mistake.entry, mistake.rule) from None


def _rates(name: str, field: str, value: object) -> tuple[tuple[date, float], ...]:
    steps = _mapping(name, field, value).items()
    return tuple(sorted((_date(name, field, first), float(_number(name, field, rate))) for first, rate in steps))


_PARSERS = {
    **dict.fromkeys(("calendar_first", "calendar_last", "range_first", "range_last"), _date),
    **dict.fromkeys(("first_partition", "last_partition"), _date),
    **dict.fromkeys(("open", "close"), _time),
    **dict.fromkeys(("tick_size", "lot_size", "capital"), _number),
    **dict.fromkeys(("source", "costs", "execution"), _mapping),
    **dict.fromkeys(("carry_overnight", "untradable", "underlyings_in", "decision_points", "centres"), _strings),
    "special_sessions": _dated(("open", "close"), SpecialSession),
    "halts": _dated(("start", "end"), Halt),
    "non_sessions": _dates,
    "opens_day_before": _flag,
    "instruments": _instruments,
    "interest_rates": _rates,
}
