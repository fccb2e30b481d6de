"""Tables of what became known when (corporate actions, fundamentals): files into them, and how they lie in the lake.

A partition holds the rows that were first known at the close of its session, so a reader as of a close needs no later
one. What a file brought is replaced whole when it comes again; what of it broke a rule lies in one quarantine table
with the rule, so nothing is dropped."""

import csv
import hashlib
import io
from bisect import bisect_left
from datetime import date, datetime, time
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from odin_core.errors import OdinError
from odin_core.lake import Lake
from odin_core.market.bars import UTC
from odin_core.market.calendar import SessionCalendar

NO_SESSION = date(1970, 1, 1)  # the quarantine's one partition
GZIP = b"\x1f\x8b"
DATES = ("%Y-%m-%d", "%Y%m%d", "%d-%b-%Y")
ZONED = ("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z")

REFUSED = pl.Schema(
    {
        "row": pl.Int64(),  # of the file, from 0
        "symbol": pl.String(),
        "rule": pl.String(),
        "content": pl.String(),  # the row as it was read, JSON
        "origin": pl.String(),
        "origin_id": pl.String(),
    }
)


class UnreadableTable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}")


class SourceFile(NamedTuple):
    """A file as it was read. `origin_id` is of its bytes: a renamed copy has the same."""

    origin: str
    origin_id: str
    raw: pl.DataFrame  # columns of a CSV are text


def read_table(path: Path) -> SourceFile:
    """A Parquet or CSV file; a CSV whose first line begins with a digit has no header, and its columns are "0", "1", ….
    Raises UnreadableTable."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UnreadableTable(path, "no such file") from None
    except OSError as error:
        raise UnreadableTable(path, f"it cannot be read ({error.strerror})") from error
    if content.startswith(GZIP):
        raise UnreadableTable(path, f"it is compressed; unpack it first: gunzip {path.name}")
    try:
        is_text = path.suffix.lower() in (".csv", ".txt")
        frame = _read_text(path, content) if is_text else pl.read_parquet(content)
    except (pl.exceptions.PolarsError, csv.Error) as error:
        raise UnreadableTable(path, f"not a readable Parquet or CSV file ({str(error).splitlines()[0]})") from error
    if frame.is_empty():
        raise UnreadableTable(path, "the file has no rows")
    named = frame.rename(lambda name: name.strip().lower().replace(" ", "_"))
    return SourceFile(path.name, hashlib.sha256(content).hexdigest()[:16], named)


def _read_text(path: Path, content: bytes) -> pl.DataFrame:
    try:
        lines = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UnreadableTable(
            path,
            f"line {line} is not UTF-8 text; if it is Latin-1, as spreadsheets write it: iconv -f LATIN1 -t UTF-8 "
            f"{path.name} > new.csv",
        ) from None
    rows = csv.reader(io.StringIO(lines))
    width = len(next(rows, []))
    long = next((len(row) for row in rows if len(row) > width), None)
    if long is not None:
        why = f"line {rows.line_num} has {long} fields and the first line {width}; quote a field that holds a comma"
        raise UnreadableTable(path, why)
    headless = lines[:1].isdigit()
    frame = pl.read_csv(lines.encode(), has_header=not headless, infer_schema=False)
    frame.columns = [str(i) for i in range(frame.width)] if headless else frame.columns
    return frame


def dates(column: pl.Series) -> pl.Series:
    """Dates of a column of dates, instants (their UTC date) or text (2024-01-31, 20240131, 31-Jan-2024); else null."""
    if column.dtype == pl.Date:
        return column
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.date()
    text = column.cast(pl.String).str.strip_chars()
    return pl.select(pl.coalesce([text.str.to_date(form, strict=False) for form in DATES])).to_series()


def instants(column: pl.Series, zone: ZoneInfo) -> pl.Series:
    """When something was known, UTC: an instant with a zone as it stands; a date, which is known when it is over, as
    the midnight after it in `zone`; else null."""
    if isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
        return column.dt.convert_time_zone("UTC").cast(UTC)
    over = midnights(dates(column).dt.offset_by("1d"), zone)
    if column.dtype != pl.String:
        return over
    iso = column.str.strip_chars().str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
    zoned = [iso.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False) for form in ZONED]
    return pl.select(pl.coalesce([*zoned, over])).to_series()


def midnights(days: pl.Series, zone: ZoneInfo) -> pl.Series:
    """The instant at which each date begins in `zone`, UTC."""
    begins = {day: datetime.combine(day, time(), zone) for day in days.unique().drop_nulls()}
    return days.replace_strict(begins, default=None, return_dtype=UTC)


def numbers(column: pl.Series) -> pl.Series:
    """Float64; what is no finite number is null."""
    text = column.str.strip_chars().str.replace_all(",", "") if column.dtype == pl.String else column
    value = text.cast(pl.Float64, strict=False)
    return pl.select(pl.when(value.is_finite()).then(value)).to_series()


def as_json(raw: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object."""
    return raw.select(content=pl.struct(pl.all()).struct.json_encode())["content"]


def known_sessions(known_at: pl.Series, calendar: SessionCalendar) -> pl.Series:
    """The session at whose close each instant lies first in the past; null past the calendar's last close."""
    sessions = calendar.sessions()
    closes = [calendar.hours(session).close for session in sessions]
    found: dict[datetime, date | None] = {}
    for instant in known_at.unique().drop_nulls():
        at = bisect_left(closes, instant)
        found[instant] = sessions[at] if at < len(sessions) else None
    return known_at.replace_strict(found, default=None, return_dtype=pl.Date)


def rewrite(lake: Lake, table: str, rows: pl.DataFrame, calendar: SessionCalendar) -> list[date]:
    """Make a table hold exactly `rows` (with known_at, in an order that is theirs); partitions that would not change
    are left alone. Returns those that were written or removed."""
    placed = rows.with_columns(_session=known_sessions(rows["known_at"], calendar))
    parts = {key[0]: part.drop("_session") for key, part in placed.partition_by("_session", as_dict=True).items()}
    changed: list[date] = []
    for session in sorted(parts.keys() | set(lake.sessions(table))):
        part = parts.get(session)
        if part is None:
            lake.remove(table, session)
        elif not lake.write_changed(table, session, part):
            continue
        changed.append(session)
    return changed


def quarantine(lake: Lake, table: str, file: SourceFile, refused: pl.DataFrame) -> None:
    """Put a file's refused rows (row, symbol, rule) in place of those of an earlier import of the same bytes."""
    content = as_json(file.raw).gather(refused["row"])
    new = refused.with_columns(content=content, origin=pl.lit(file.origin), origin_id=pl.lit(file.origin_id))
    new = new.select(REFUSED.names()).cast(REFUSED).sort("row", "rule")
    stored = lake.read_or_empty(table, NO_SESSION, REFUSED)
    both = pl.concat([stored.filter(pl.col("origin_id") != file.origin_id), new])
    if not both.equals(stored):
        lake.write(table, NO_SESSION, both)


def first_broken(rules: dict[str, pl.Expr]) -> pl.Expr:
    """The first rule whose condition (true: broken) holds; null for none."""
    broken = pl.lit(None, pl.String)
    for rule, condition in reversed(rules.items()):
        broken = pl.when(condition.fill_null(False)).then(pl.lit(rule)).otherwise(broken)
    return broken
