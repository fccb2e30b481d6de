"""A market's profile: its calendar, hours, units, costs and source, as facts read from one YAML file.

A new market is one more file, in `profiles/` or in the folder `markets/` where ODIN is started; `base: other` starts
from another file and replaces what it names. docs/markets.md lists every field. Sessions are computed in
`market.calendar`, what a symbol's lots are in `market.terms`; what cost and execution numbers mean is said in
`odin_core.execution`."""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import date, time
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from odin_core.errors import OdinError, nearest
from odin_core.market.profile_fields import PARSERS, Halt, Origin, SpecialSession, Unfit, foreign_hours
from odin_core.market.terms import Terms, terms_of

PROFILES = Path(__file__).with_name("profiles")
OWN_MARKETS = Path("markets")
VOLUMES = ("traded", "contracts", "ticks", "none")
SIDES = ("long", "short")
FILES = {"kind": "files"}  # needs no check, which would bring the sources' libraries


class UnknownMarket(OdinError):
    def __init__(self, name: str, folders: tuple[Path, ...]) -> None:
        super().__init__(
            f"no market is called {name!r}; {nearest(name, profile_names(folders))}. A market of your own is a file "
            f"{OWN_MARKETS}/{name}.yaml in the folder where you start odin"
        )


class BadProfile(OdinError):
    """A field with a value that it cannot have. `origin`: where the profile was read; None for one made in code."""

    def __init__(self, name: str, field: str, value: object, rule: str, origin: Origin | None = None) -> None:
        way_out = origin.way_out(field) if origin else "correct it"
        super().__init__(f"profile of market {name!r}: {field} is {value!r}, but {rule}; {way_out}")


class NothingToPlant(OdinError):
    def __init__(self, market: str) -> None:
        super().__init__(f"an edge is planted in a synthetic market, and {market} has real bars; leave --edge out")


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
    ic_alarm: float = 0.1  # an information coefficient above it is taken for a leak; a planted edge raises it
    index: str | None = None  # the symbol that others' strength is measured against, where its bars are in this market
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
    origin: Origin | None = field(default=None, compare=False, repr=False)  # no field of the file

    def __post_init__(self) -> None:
        ordered = self.calendar_first <= self.first_partition < self.calendar_last
        self._require("first_partition", ordered, "it must lie within calendar_first and calendar_last")
        self._require("volume", self.volume in VOLUMES, f"it must be one of {', '.join(VOLUMES)}")
        self._require("tick_size", self.tick_size > 0, "it must be positive")
        self._require("lot_size", self.lot_size > 0, "it must be positive")
        self._require("capital", self.capital > 0, "it must be positive")
        self._require("carry_overnight", set(self.carry_overnight) <= set(SIDES), f"sides are {', '.join(SIDES)}")
        self._require(
            "decision_points", self.decision_points == ("close",), "the close is the only one there is so far"
        )
        self._require_centres()
        spans = not self.opens_day_before or self.open >= self.close
        self._require("opens_day_before", spans, "hours that end later on the day they begin do not span midnight")
        self._require_source()
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            raise self.wrong("timezone", self.timezone, "it must be an IANA name") from None

    def wrong(self, field: str, value: object, rule: str) -> BadProfile:
        """The error for a field of this profile, to be raised."""
        return BadProfile(self.name, field, value, rule, self.origin)

    def _require(self, field: str, holds: bool, rule: str) -> None:
        if not holds:
            raise self.wrong(field, getattr(self, field), rule)

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
        if self.source == FILES:
            return
        from odin_core.market.sources.settings import check_settings

        try:
            check_settings(self.source)
        except Unfit as mistake:
            raise self.wrong("source", mistake.value, mistake.rule) from None

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
    raw, origin = _read(name, folders)
    known = {entry.name: entry for entry in fields(MarketProfile) if entry.name not in ("name", "origin")}
    for key in raw:
        if key not in known:
            raise BadProfile(name, key, raw[key], f"no such field exists; {nearest(key, known)}", origin)
    for key, entry in known.items():
        needed = entry.default is MISSING and entry.default_factory is MISSING
        if key not in raw and needed:
            raise BadProfile(name, key, None, "it is required", origin)
    parsed = {key: _parsed(name, key, value, origin) for key, value in raw.items()}
    return MarketProfile(name=name, origin=origin, **parsed)


def _parsed(name: str, field: str, value: object, origin: Origin) -> Any:
    if field not in PARSERS:
        return value
    try:
        return PARSERS[field](value)
    except Unfit as mistake:
        raise BadProfile(name, field, mistake.value, mistake.rule, origin) from None


def _read(name: str, folders: tuple[Path, ...], seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], Origin]:
    """The fields of a market's file on top of its base's, and where each was said."""
    import yaml  # 15 ms, only needed once a market is named

    paths = [path for folder in folders if (path := folder / f"{name}.yaml").is_file()]
    if not paths and seen:
        rule = f"no market is called so; {nearest(name, profile_names(folders))}"
        raise BadProfile(seen[-1].stem, "base", name, rule, Origin(seen[-1], {}))
    if not paths:
        raise UnknownMarket(name, folders)
    path = next((path for path in paths if path not in seen), None)
    if path is None:
        chain = " -> ".join(found.stem for found in (*seen, paths[0]))
        raise BadProfile(name, "base", chain, "a profile cannot start from itself", Origin(seen[-1], {}))
    origin = Origin(path, {})
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        rule = f"it is not YAML ({str(error).splitlines()[0]})"
        raise BadProfile(name, "file", str(path), rule, origin) from None
    if not isinstance(raw, dict):
        raise BadProfile(name, "file", str(path), "it must be a mapping of fields", origin)
    base = raw.pop("base", None)
    return (
        (raw, origin)
        if base is None
        else _on_base(name, raw, str(base), _read(str(base), folders, (*seen, path)), path)
    )


def _on_base(
    name: str, raw: dict[str, Any], base: str, below: tuple[dict[str, Any], Origin], path: Path
) -> tuple[dict[str, Any], Origin]:
    inherited, its_origin = below
    said_in = {field: its_origin.inherited.get(field, its_origin.file) for field in inherited if field not in raw}
    if mixed := foreign_hours(raw, inherited):
        field, kept = mixed
        rule = f"{kept} would stay as the base {base!r} has them, for another exchange; write them too"
        raise BadProfile(name, field, raw[field], rule, Origin(path, {}))
    return inherited | raw, Origin(path, said_in)
