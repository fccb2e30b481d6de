"""Files of bars, ticks or trades: which layout a file has, and its rows, batch by batch.

Read are Parquet and separated text. What a layout says is `intake.layout`, how rows become bars `intake.reading`, what
is wrong with a file as a whole `intake.filechecks`, windows of whole sessions `intake.spilling`."""

import csv
import datetime
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from zoneinfo import available_timezones

import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import NotAnInterval, minutes_of
from odin_core.market.intake.damage import damage_of, not_utf8, packed
from odin_core.market.intake.layout import Layout, Stamps, found_columns, layout_names, load_layout, zone_rule
from odin_core.market.intake.reading import read_by, stamps_of

BATCH = 3 * 131_072  # rows that are held at a time; whole row groups of the usual length
SAMPLE = 60  # rows by which a layout is recognised
A_DAY = datetime.timedelta(hours=20)  # stamps of daily bars are at least so far apart
FEW = 10  # stamps, by which the interval of a file cannot be told
STANDARD = "odin"


class UnreadableFile(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}; give a Parquet or UTF-8 text file of bars, ticks or trades")


class MissingColumns(OdinError):
    def __init__(self, path: Path, layout: str, missing: Iterable[str], found: Iterable[str], others: bool) -> None:
        known = "and no other built-in layout fits; write one of your own and give it with --layout FILE.yaml"
        names = [name if name.strip() else repr(name) for name in islice(found, 20)]
        super().__init__(
            f"{path} lacks the columns {', '.join(missing)} of layout {layout}; the file has {', '.join(names)}"
            f"{', ' + known if others else ''} (docs/files.md)"
        )


class WrongColumnType(OdinError):
    def __init__(self, path: Path, column: str, dtype: pl.DataType, expected: str) -> None:
        super().__init__(f"{path}: column {column} is {dtype}, but must be {expected}; convert it first")


class NaiveTimestamps(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: its time stamps are naive (no time zone), and bars are placed in sessions by UTC; say where they "
            f"were recorded, for example --timezone Asia/Kolkata, or as `timezone` in a layout"
        )


class ZoneInStamps(OdinError):
    def __init__(self, path: Path, zone: str) -> None:
        super().__init__(
            f"{path}: its time stamps carry a time zone, so --timezone {zone} would change nothing; leave it out. If "
            f"the zone in the file is wrong, take it out of the stamps first"
        )


class BadOption(OdinError):
    def __init__(self, option: str, value: str, rule: str) -> None:
        super().__init__(f"--{option} is {value!r}, but {rule}")


class NoBars(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is no file of bars: {why}")


class NotSaid(OdinError):
    def __init__(self, path: Path, what: str, option: str) -> None:
        super().__init__(f"{path} does not say {what}; give {option}, or name it in a layout (docs/files.md)")


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the user says of files, before what their layouts say."""

    layout: str | None = None  # name of a built-in one or path of a YAML file; recognised where None
    timezone: str | None = None
    stamps: Stamps | None = None
    interval: str | None = None
    symbol: str | None = None
    date: datetime.date | None = None
    symbols: tuple[str, ...] = ()  # those to bring in; all where empty

    def __post_init__(self) -> None:
        """Raises BadOption."""
        if self.timezone is not None and self.timezone not in available_timezones():
            raise BadOption("timezone", self.timezone, zone_rule(self.timezone))
        try:
            minutes_of(self.interval or "1m")
        except NotAnInterval as error:
            raise BadOption("interval", self.interval or "", str(error)) from None

    def over(self, layout: Layout, path: Path) -> Layout:
        """The layout with what was said in place of what it says. Raises BadLayout."""
        said = {name: getattr(self, name) for name in ("timezone", "stamps", "interval", "symbol", "date")}
        found = re.search(layout.symbol_from, path.name) if layout.symbol_from else None
        named = {"symbol": found.group(1)} if found else {}
        return replace(layout, **named, **{name: value for name, value in said.items() if value is not None})


class BarFile(NamedTuple):
    """A file that can be read. `file_id` is of its bytes: a renamed copy has the same. `found`: column of the layout →
    name in the file. `names`: all of the file's columns."""

    path: Path
    file_id: str
    rows: int
    layout: Layout
    found: dict[str, str]
    names: list[str]


class FileRows(NamedTuple):
    """Rows of a file, in its order. `raw`: as they were read; `bars`, `instruments`: see `intake.reading`; `rows`:
    their numbers in the file, Int64, from 0 (a header is none)."""

    raw: pl.DataFrame
    bars: pl.DataFrame
    rows: pl.Series
    instruments: pl.DataFrame | None
    unread: pl.Series | None = None  # see `intake.reading`
    others: tuple[str, ...] = ()  # symbols of the rows left out, where none is of those asked for


def open_file(path: Path, said: Said | None = None) -> BarFile:
    """Look at a file: its layout, its columns, how many rows it has.
    Raises UnreadableFile, NoBars, MissingColumns, WrongColumnType, NotSaid, UnknownLayout, BadLayout."""
    said = said or Said()
    _require_content(path)
    head = _head(path)
    layout = said.over(_chosen(path, head, said), path)
    if layout.refuse:
        raise NoBars(path, layout.refuse)
    names = head.names(layout)
    found, missing = found_columns(layout, names)
    if missing:
        raise MissingColumns(path, layout.name, missing, names, said.layout is None)
    if head.frame is not None and (wrong := _wrong_type(found, head.frame.schema)):
        raise WrongColumnType(path, *wrong)
    _check_said(path, layout, found)
    try:
        rows = scan(path, layout, names).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, layout, names, error) from error
    if rows == 0:
        raise UnreadableFile(path, "the file has columns but no rows")
    with path.open("rb") as file:
        return BarFile(path, hashlib.file_digest(file, "sha256").hexdigest()[:16], rows, layout, found, names)


def unreadable(path: Path, layout: Layout, names: Sequence[str], error: Exception) -> UnreadableFile:
    """The error that says why a file with these columns could not be read, where `error` was raised."""
    if is_parquet(path) or layout.transposed:
        return UnreadableFile(path, f"damaged ({str(error).splitlines()[0]})")
    return UnreadableFile(path, damage_of(path, error, fields=names, separator=layout.separator))


def is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def scan(path: Path, layout: Layout, names: Sequence[str]) -> pl.LazyFrame:
    """All rows of a file as they are: text as text. Raises polars' errors where it is collected."""
    if is_parquet(path):
        return pl.scan_parquet(path, hive_partitioning=False, glob=False)
    if layout.transposed:
        return _transposed(path, layout, names).lazy()
    return pl.scan_csv(
        path,
        has_header=False,
        skip_lines=layout.header_lines,
        separator=layout.separator,
        schema=dict.fromkeys(names, pl.String),
        raise_if_empty=False,
    )


def batch(file: BarFile, source: pl.LazyFrame, first: int, said: Said) -> FileRows:
    """The file's rows from `first` on, at most BATCH of them, without those of symbols that were not asked for.
    `source`: `scan` of the file, or a copy of it that can be read from any row on.
    Raises NaiveTimestamps, ZoneInStamps, UnreadableFile."""
    try:
        raw = source.select(raw_columns(file)).slice(first, BATCH).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(file.path, file.layout, file.names, error) from error
    reading = read_by(file.layout, file.found, raw)
    if reading.zone == "missing":
        raise NaiveTimestamps(file.path)
    if reading.zone == "in the stamps" and said.timezone is not None:
        raise ZoneInStamps(file.path, said.timezone)
    rows = pl.int_range(first, first + raw.height, dtype=pl.Int64, eager=True).alias("row")
    return _of_symbols(FileRows(raw, reading.bars, rows, reading.instruments, reading.unread), said.symbols)


def raw_columns(file: BarFile) -> list[str]:
    """The columns that are read, and kept of a row that is held back: all fields of text, the known ones of Parquet."""
    return [name for name in file.names if name in set(file.found.values()) or not is_parquet(file.path)]


def _of_symbols(rows: FileRows, symbols: Sequence[str]) -> FileRows:
    if not symbols:
        return rows
    asked = rows.bars["symbol"].is_in(pl.Series(symbols, dtype=pl.String).implode()).fill_null(False)
    instruments = rows.instruments
    if instruments is not None:
        instruments = instruments.filter(pl.col("symbol").is_in(symbols))
    unread = None if rows.unread is None else rows.unread.filter(asked)
    others = () if asked.any() else tuple(rows.bars["symbol"].drop_nulls().unique())
    kept = rows.raw.filter(asked), rows.bars.filter(asked), rows.rows.filter(asked)
    return FileRows(*kept, instruments, unread, others)


class _Head(NamedTuple):
    """The beginning of a file: its first lines, or a Parquet file's first rows."""

    text: list[str]
    frame: pl.DataFrame | None

    def can_have(self, layout: Layout) -> bool:
        """Whether the file may have a layout at all: Parquet has its names, a line no more fields than there are."""
        if self.frame is not None:
            return not layout.names and not layout.transposed
        return not layout.names or max(map(len, self.lines(layout)), default=0) <= len(layout.names)

    def lines(self, layout: Layout) -> list[list[str]]:
        return list(csv.reader(self.text, delimiter=layout.separator))

    def names(self, layout: Layout) -> list[str]:
        """The columns of the file under a layout; a name that occurs again gets a number."""
        if self.frame is not None:
            return self.frame.columns
        lines = self.lines(layout)
        if layout.names:
            return list(layout.names[: max(map(len, lines), default=0)])
        given = [line[0] if line else "" for line in lines] if layout.transposed else next(iter(lines), [])
        return [f"{name} {n}" if name in given[:n] else name for n, name in enumerate(given)]

    def sample(self, layout: Layout) -> pl.DataFrame:
        """The first rows under a layout, as `scan` would give them."""
        if self.frame is not None:
            return self.frame
        names, lines = self.names(layout), self.lines(layout)
        if layout.transposed:
            lines = [list(fields) for fields in zip(*lines, strict=False)][1 : SAMPLE + 1]
        else:
            lines = lines[layout.header_lines :]
        rows = [[*line, *[None] * len(names)][: len(names)] for line in lines]
        return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String), orient="row")


def _require_content(path: Path) -> None:
    if not path.exists():
        raise UnreadableFile(path, "no such file")
    if not path.is_file():
        raise UnreadableFile(path, "not a file")
    if path.stat().st_size == 0:
        raise UnreadableFile(path, "the file is empty (0 bytes)")


def _head(path: Path) -> _Head:
    if is_parquet(path):
        try:
            return _Head([], pl.scan_parquet(path, hive_partitioning=False, glob=False).head(SAMPLE).collect())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise UnreadableFile(path, f"not a complete Parquet file ({str(error).splitlines()[0]})") from error
    if (why := packed(path)) is not None:
        raise UnreadableFile(path, why)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _Head(list(islice(file, SAMPLE)), None)
    except UnicodeDecodeError as error:
        raise UnreadableFile(path, not_utf8(error)) from error


def _chosen(path: Path, head: _Head, said: Said) -> Layout:
    """The layout that the user names, else the built-in one that fits best: its first rows can be read by it, and most
    of its columns are in the file. Where none fits, the standard one, so that what it lacks is said."""
    if said.layout is not None:
        return load_layout(said.layout)
    best, chosen = (False, 0, False), load_layout(STANDARD)
    for layout in map(load_layout, layout_names()):
        if not head.can_have(layout):
            continue
        found, missing = found_columns(layout, head.names(layout))
        reads = not missing and _reads(head, said.over(layout, path), found, is_told=said.interval is not None)
        fit = (reads, len(found) + len(layout.marks), layout.name == STANDARD)
        if not missing and (reads or layout.name == STANDARD) and fit > best:
            best, chosen = fit, layout
    return chosen


def _reads(head: _Head, layout: Layout, found: Mapping[str, str], *, is_told: bool) -> bool:
    """Whether most of the first rows can be read under a layout, at stamps that go with its interval, which a file that
    `is_told` its interval has to show later (`intake.filechecks`)."""
    sample = head.sample(layout)
    if layout.refuse:
        return "ts" not in found or bool(stamps_of(layout, found, sample)[0].is_not_null().mean())
    if _wrong_type(found, sample.schema):
        return False
    bars = read_by(layout, found, sample).bars.filter(pl.col("close").is_not_null())
    stamped = bars["ts"].drop_nulls()
    if bars.height <= sample.height / 2 or ("ts" in found and len(stamped) <= sample.height / 2):
        return False
    step = stamped.unique().sort().diff().min()
    if is_told or stamped.n_unique() < FEW or not isinstance(step, datetime.timedelta):
        return True
    return (step >= A_DAY) == layout.is_dated_by_day


def _wrong_type(found: Mapping[str, str], schema: pl.Schema) -> tuple[str, pl.DataType, str] | None:
    """The first column whose type cannot be what it should, its type and what it should be."""
    for column, name in found.items():
        dtype = schema[name]
        if column in ("ts", "clock"):
            fits, expected = isinstance(dtype, pl.Datetime | pl.String), "a timestamp with a time zone"
        elif column in ("symbol", "underlying", "right"):
            fits, expected = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null), "text"
        elif column == "expiry":
            fits, expected = isinstance(dtype, pl.Date | pl.Datetime | pl.String | pl.Null), "a date"
        else:
            fits, expected = dtype.is_numeric() or dtype in (pl.String, pl.Null), "a number"
        if not fits:
            return name, dtype, expected
    return None


def _check_said(path: Path, layout: Layout, found: Mapping[str, str]) -> None:
    """Where neither the file nor its layout says something that a bar needs, the user must."""
    if "symbol" not in found and layout.symbol is None and layout.symbol_form is None:
        raise NotSaid(path, "which symbol it holds", "--symbol NAME")
    if "ts" not in found and layout.date is None:
        raise NotSaid(path, "which day it is of", "--date YYYY-MM-DD")


def _transposed(path: Path, layout: Layout, names: Sequence[str]) -> pl.DataFrame:
    lines = pl.read_csv(path, has_header=False, separator=layout.separator, infer_schema=False)
    return lines.drop(lines.columns[0]).transpose(column_names=list(names))
