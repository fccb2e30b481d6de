"""A layout: how the fields of a file become bars, as a small YAML mapping. The built-in ones lie in `layouts/`.

What each field means is said at `Layout`; `intake.reading` applies one to rows. A new well-known shape is one more file
in `layouts/`; a user's own is given as a path. Where none is named, `intake.barfiles` tries the built-in ones."""

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo, available_timezones

from odin_core.errors import OdinError, nearest
from odin_core.market.bars import NotAnInterval, minutes_of

LAYOUTS = Path(__file__).with_name("layouts")
Stamps = Literal["start", "end"]
Rows = Literal["bars", "ticks", "trades"]

TERMS = ("underlying", "expiry", "strike", "right", "tick_size", "lot_size")  # of a derivative, see INSTRUMENTS
REQUIRED: dict[Rows, tuple[str, ...]] = {
    "bars": ("open", "high", "low", "close"),
    "ticks": ("price", "volume"),
    "trades": ("price",),
}
OPTIONAL = ("symbol", "series", "volume", "oi", *TERMS)  # a file of the layout may lack these columns
COLUMNS = ("ts", "clock", *REQUIRED["bars"], "price", *OPTIONAL)
EPOCHS = {"epoch_s": 1_000_000, "epoch_ms": 1_000}  # microseconds in one of them


class UnknownLayout(OdinError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"no built-in layout is called {name!r}; {nearest(name, layout_names())}. "
            f"One of your own is given by its file, --layout FILE.yaml"
        )


class BadLayout(OdinError):
    def __init__(self, name: str, key: str, value: object, rule: str) -> None:
        super().__init__(f"layout {name}: {key} is {value!r}, but {rule}; docs/files.md says what a layout may hold")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a file is laid out. Names of columns are compared without case and outer blanks; each may be a list of
    names, of which the file has one. Columns: ts (the date, or date and time), clock (a time of day in a field of its
    own), open, high, low, close, volume, oi; price and volume of ticks and trades; symbol, series; the terms of a
    derivative."""

    name: str
    about: str  # for people: whose files look so
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    marks: tuple[str, ...] = ()  # further columns that such a file has, to tell it from others
    names: tuple[str, ...] = ()  # of the fields of a file without a header; later fields may be absent
    header_lines: int = 1  # the first of them names the columns
    separator: str = ","
    transposed: bool = False  # one line per figure, one field per bar
    thousands: str | None = None  # separator between groups of digits
    decimal: str = "."  # before the decimals of a number: "." or ","
    time_formats: tuple[str, ...] = ("iso",)  # of ts, or ts and clock joined by a blank; the first that fits counts
    year_offset: int = 0  # years that the file is ahead of the Gregorian calendar: 543 in Thailand
    timezone: str | None = None  # of stamps without one
    stamps: Stamps = "start"
    interval: str = "1m"
    rows: Rows = "bars"  # ticks: the volume counts up over the day; trades: each has its own
    price_divisor: float = 1.0
    symbol: str | None = None  # of every row, where no column says it
    symbol_from: str | None = None  # regular expression whose first group is the symbol in the file's name
    symbol_form: str | None = None  # made of terms: "{underlying}{expiry:%d%b%y}FUT", in capitals
    main_series: tuple[str, ...] = ()  # a row of another series has it after its symbol: HDFCBANK-BL
    expiry_format: str = "%Y-%m-%d"
    date: datetime.date | None = None  # of every row, where no column says it
    refuse: str | None = None  # such files hold no bars; what to do with them

    def __post_init__(self) -> None:
        needed = () if self.refuse else REQUIRED[self.rows]
        missing = [name for name in needed if name not in self.columns]
        self._require("columns", not missing, f"it lacks {', '.join(missing)}")
        self._require("names", bool(self.names) == (self.header_lines == 0), "it goes with header_lines: 0 and only so")
        named = {name.strip().lower() for name in self.names}
        for column, names in self.columns.items():
            found = not named or column in OPTIONAL or any(name.strip().lower() in named for name in names)
            self._require("columns", found, f"names has none of {', '.join(names)} for {column}")
        self._require("price_divisor", self.price_divisor > 0, "it must be positive")
        self._require("time_formats", len(self.time_formats) > 0, "it must name at least one")
        self._require("separator", len(self.separator) == 1, "it must be one character")
        self._require("decimal", self.decimal in (".", ","), 'it must be "." or ","')
        one = self.thousands is None or (len(self.thousands) == 1 and not self.thousands.isalnum())
        self._require("thousands", one, "it must be one character that is no digit or letter")
        rule = f'decimals follow {self.decimal!r} too; where they follow a comma, say decimal: ","'
        self._require("thousands", self.thousands != self.decimal, rule)
        self._check_zone()
        self._check_symbol()
        try:
            minutes_of(self.interval)
        except NotAnInterval as error:
            raise BadLayout(self.name, "interval", self.interval, str(error)) from None

    def _check_zone(self) -> None:
        try:
            ZoneInfo(self.timezone or "UTC")
        except (KeyError, ValueError, OSError):
            raise BadLayout(self.name, "timezone", self.timezone, zone_rule(self.timezone or "")) from None

    def _check_symbol(self) -> None:
        try:
            groups = re.compile(self.symbol_from or "()").groups
        except re.error as error:
            raise BadLayout(self.name, "symbol_from", self.symbol_from, f"it is no pattern ({error})") from None
        self._require("symbol_from", groups >= 1, "it needs a group, as in ^([A-Z]+)_")
        try:
            made_of = [part[1] for part in Formatter().parse(self.symbol_form or "") if part[1] is not None]
        except ValueError as error:
            raise BadLayout(self.name, "symbol_form", self.symbol_form, f"its braces do not match ({error})") from None
        known = [name for name in TERMS if name in self.columns]
        self._require("symbol_form", set(made_of) <= set(known), f"columns names only {', '.join(known) or 'no terms'}")

    def _require(self, key: str, holds: bool, rule: str) -> None:
        if not holds:
            raise BadLayout(self.name, key, getattr(self, key), rule)

    @property
    def is_dated_by_day(self) -> bool:
        """Whether a stamp is the date of a session, so that it needs no time zone."""
        return self.interval == "day" and self.rows == "bars"

    @property
    def keeps_values(self) -> bool:
        """Whether a stamp or number that is one already becomes part of a bar as it is."""
        return self.rows == "bars" and self.stamps == "start" and self.price_divisor == 1


def zone_rule(name: str) -> str:
    """What a time zone must be, for a message about a name that is none."""
    close = get_close_matches(name, available_timezones(), n=1)
    return f"it must be an IANA name, as {close[0] if close else 'Asia/Kolkata'}"


def found_columns(layout: Layout, have: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Which column of a file is which of the layout's (column → name in the file), and the layout's columns that the
    file lacks though it may not."""
    by_name = {name.strip().lower(): name for name in reversed(have)}
    found = {
        column: next(by_name[key] for key in keys if key in by_name)
        for column, keys in ((c, [n.strip().lower() for n in names]) for c, names in layout.columns.items())
        if any(key in by_name for key in keys)
    }
    may_lack = set(OPTIONAL) - set(REQUIRED[layout.rows])
    missing = [column for column in layout.columns if column not in found and column not in may_lack]
    return found, missing + [mark for mark in layout.marks if mark.lower() not in by_name]


def layout_names() -> list[str]:
    """Names of the built-in layouts, ascending."""
    return sorted(path.stem for path in LAYOUTS.glob("*.yaml"))


def load_layout(name: str) -> Layout:
    """A built-in layout by its name, or one's own by the path of a YAML file. Raises UnknownLayout, BadLayout."""
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name) if is_path else LAYOUTS / f"{name}.yaml"
    if not path.is_file():
        raise BadLayout(name, "file", str(path), "there is no such file") if is_path else UnknownLayout(name)
    return _loaded(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _loaded(path: Path, _changed: int) -> Layout:
    import yaml  # 15 ms, only needed for an import

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadLayout(path.stem, "file", str(path), f"it is not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(raw, dict):
        raise BadLayout(path.stem, "file", str(path), "it must be a mapping of fields")
    return parse_layout(path.stem, raw)


def parse_layout(name: str, raw: Mapping[str, Any]) -> Layout:
    """The layout that a mapping describes. Raises BadLayout, which says which field, its value and the rule."""
    known = {f.name: f for f in fields(Layout) if f.name != "name"}
    for key, value in raw.items():
        if key not in known:
            raise BadLayout(name, str(key), value, f"no such field exists; {nearest(str(key), known)}")
    for key, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and key not in raw:
            raise BadLayout(name, key, None, "it is required")
    return Layout(name=name, **{key: _PARSERS[key](name, key, value) for key, value in raw.items()})


def _text(name: str, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadLayout(name, key, value, "it must be text; put it in quotes")
    return value


def _texts(name: str, key: str, value: object) -> tuple[str, ...]:
    return tuple(_text(name, key, item) for item in (value if isinstance(value, list) else [value]))


def _whole(name: str, key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadLayout(name, key, value, "it must be a whole number")
    return value


def _number(name: str, key: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadLayout(name, key, value, "it must be a number")
    return float(value)


def _flag(name: str, key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadLayout(name, key, value, "it must be true or false")
    return value


def _date(name: str, key: str, value: object) -> datetime.date:
    if not isinstance(value, datetime.date):
        raise BadLayout(name, key, value, "it must be a date, YYYY-MM-DD")
    return value


def _columns(name: str, key: str, value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise BadLayout(name, key, value, "it must be a mapping of columns to the file's names")
    for column in value:
        if column not in COLUMNS:
            raise BadLayout(name, key, column, f"there is no such column of bars; {nearest(str(column), COLUMNS)}")
    return {column: _texts(name, f"{key}.{column}", names) for column, names in value.items()}


def _one_of(*allowed: str) -> Any:
    def parse(name: str, key: str, value: object) -> str:
        if value not in allowed:
            raise BadLayout(name, key, value, f"it must be one of {', '.join(allowed)}")
        return str(value)

    return parse


_PARSERS: dict[str, Any] = {
    **dict.fromkeys(("about", "separator", "thousands", "decimal", "timezone", "interval", "symbol"), _text),
    **dict.fromkeys(("symbol_from", "symbol_form", "expiry_format", "refuse"), _text),
    **dict.fromkeys(("main_series", "marks", "names", "time_formats"), _texts),
    **dict.fromkeys(("header_lines", "year_offset"), _whole),
    "columns": _columns,
    "transposed": _flag,
    "price_divisor": _number,
    "date": _date,
    "stamps": _one_of(*get_args(Stamps)),
    "rows": _one_of(*get_args(Rows)),
}
