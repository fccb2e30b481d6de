"""A file of minute bars as rows, typed.

Read are Parquet, and CSV with the same column names: ts (with a time zone), symbol, open, high, low, close, volume;
oi (open interest) where there is one; other columns are ignored and other layouts refused. A file that is wrong as a
whole is an error here; a row that is wrong keeps its place. Judging rows is `market.judging`, storing
`market.importing`."""

import hashlib
import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import KEY, MICROSECOND, MINUTE
from odin_core.market.judging import Hours, hours_near, placed
from odin_core.market.quality import PRICES, SessionHours

Stamps = Literal["start", "end"]

REQUIRED = ("ts", "symbol", *PRICES, "volume")
MAJORITY = 0.8  # share of symbol-days or of rows from which a file is refused as a whole
SPARSE = 0.05  # with a smaller share of neighbours one minute apart, bars are no minute bars
ENOUGH = 100  # rows that it takes to judge a file by its rows
ZONED = r"\d:\d\d.*(Z|[+-]\d\d:?\d\d)$"
ISO = ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M%z")


class UnreadableFile(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: {why}; give a Parquet or CSV file of minute bars")


class MissingColumns(OdinError):
    def __init__(self, path: Path, missing: Iterable[str], found: Iterable[str]) -> None:
        super().__init__(
            f"{path} lacks the columns {', '.join(missing)}; "
            f"an import needs {', '.join(REQUIRED)}, and the file has {', '.join(found)}"
        )


class WrongColumnType(OdinError):
    def __init__(self, path: Path, column: str, dtype: pl.DataType, expected: str) -> None:
        super().__init__(f"{path}: column {column} is {dtype}, but must be {expected}; convert it first")


class NaiveTimestamps(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: the time stamps in ts are naive (no time zone), and bars are placed in sessions by UTC; attach "
            f"the zone they were recorded in (polars: dt.replace_time_zone; CSV: end each with Z or +05:30)"
        )


class WrongStamps(OdinError):
    def __init__(self, path: Path, given: Stamps, share: float) -> None:
        seen, way_out = {
            "start": (
                "ENDS (one at the close, none at the open)",
                "import it with `--stamps end`, which moves them back by one minute",
            ),
            "end": ("STARTS (one at the open, none at the close)", "import it without `--stamps end`"),
        }[given]
        super().__init__(f"{path}: on {share:.0%} of its symbol-days the stamps look like bar {seen}; {way_out}")


class WrongBarLength(OdinError):
    def __init__(self, path: Path, minutes: int) -> None:
        super().__init__(
            f"{path}: most of its bars are {minutes} minutes apart, but the lake holds 1-minute bars and derives "
            f"larger intervals from them; give the file of minute bars"
        )


class WrongMarket(OdinError):
    def __init__(self, path: Path, share: float, first: datetime, last: datetime) -> None:
        super().__init__(
            f"{path}: {share:.0%} of its rows, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, lie outside the "
            f"sessions of this market; import it into the market that it was recorded in, mend the time zone of ts, or "
            f"widen calendar_first and calendar_last in the market's profile"
        )


class BarFile(NamedTuple):
    """A file that can be read. `file_id` is of its bytes: a renamed copy has the same."""

    path: Path
    file_id: str
    rows: int


class FileRows(NamedTuple):
    """The rows of a file, in its order. `raw`: as they were read. `bars`: SOURCE_BARS; a price or time that could not
    be read is null, a volume or open interest that could not is infinite."""

    raw: pl.DataFrame
    bars: pl.DataFrame


def open_file(path: Path) -> BarFile:
    """Look at a file's columns and count its rows.
    Raises UnreadableFile, MissingColumns, WrongColumnType, NaiveTimestamps."""
    if not path.exists():
        raise UnreadableFile(path, "no such file")
    if not path.is_file():
        raise UnreadableFile(path, "not a file")
    if path.stat().st_size == 0:
        raise UnreadableFile(path, "the file is empty (0 bytes)")
    try:
        schema, rows = _scan(path).collect_schema(), _scan(path).select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError) as error:
        kind = "CSV" if _is_csv(path) else "a complete Parquet file"
        raise UnreadableFile(path, f"not {kind} ({str(error).splitlines()[0]})") from error
    _check_columns(path, schema)
    if rows == 0:
        raise UnreadableFile(path, "the file has columns but no rows")
    with path.open("rb") as file:
        return BarFile(path, hashlib.file_digest(file, "sha256").hexdigest()[:16], rows)


def read_rows(file: BarFile, calendar: SessionHours, stamps: Stamps = "start") -> FileRows:
    """All rows of a file. Raises NaiveTimestamps, WrongStamps, WrongMarket, WrongBarLength, UnreadableFile."""
    try:
        scan = _scan(file.path)
        raw = scan.select(name for name in (*REQUIRED, "oi") if name in scan.collect_schema()).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFile(file.path, f"damaged ({str(error).splitlines()[0]})") from error
    bars = raw.select(
        pl.col("symbol").cast(pl.String),
        _instants(file.path, raw["ts"]),
        *(_number(raw.schema, p).alias(p) for p in PRICES),
        *(_figure(raw.schema, name).alias(name) for name in ("volume", "oi")),
    )
    hours = hours_near(bars["ts"], calendar)
    _check_stamps(file.path, bars, hours, stamps)
    if stamps == "end":
        bars = bars.with_columns(pl.col("ts") - MINUTE)
    places = placed(bars["ts"], hours)
    _check_market(file.path, bars["ts"], places.misplaced)
    inside = bars.select("symbol", "ts", session=pl.Series(places.at)).filter(places.misplaced.is_null())
    _check_length(file.path, inside.sort("session", *KEY))
    return FileRows(raw, bars)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _scan(path: Path) -> pl.LazyFrame:
    if _is_csv(path):
        return pl.scan_csv(path, infer_schema=False)
    return pl.scan_parquet(path, hive_partitioning=False, glob=False)


def _check_columns(path: Path, schema: pl.Schema) -> None:
    missing = [name for name in REQUIRED if name not in schema]
    if missing:
        raise MissingColumns(path, missing, schema)
    ts = schema["ts"]
    if isinstance(ts, pl.Datetime) and ts.time_zone is None:
        raise NaiveTimestamps(path)
    if not isinstance(ts, pl.Datetime | pl.String):
        raise WrongColumnType(path, "ts", ts, "a timestamp with a time zone")
    if schema["symbol"] not in (pl.String, pl.Categorical, pl.Enum):
        raise WrongColumnType(path, "symbol", schema["symbol"], "text")
    for name in (*PRICES, "volume"):
        if not (schema[name].is_numeric() or schema[name] in (pl.String, pl.Null)):
            raise WrongColumnType(path, name, schema[name], "a number")


def _number(schema: pl.Schema, name: str) -> pl.Expr:
    column = pl.col(name).str.strip_chars() if schema[name] == pl.String else pl.col(name)
    return column.cast(pl.Float64, strict=False)


def _figure(schema: pl.Schema, name: str) -> pl.Expr:
    """A number that may be missing: infinite where it was given and could not be read."""
    if name not in schema:
        return pl.lit(None, pl.Float64)
    number = _number(schema, name)
    given = pl.col(name).str.strip_chars() != "" if schema[name] == pl.String else pl.col(name).is_not_null()
    return pl.when(number.is_null() & given).then(math.inf).otherwise(number)


def _instants(path: Path, ts: pl.Series) -> pl.Series:
    """As UTC microseconds. Of text, what is no ISO 8601 time with a zone becomes null."""
    if ts.dtype != pl.String:
        return ts.cast(pl.Datetime("us", ts.dtype.time_zone)).dt.convert_time_zone("UTC")  # pyright: ignore[reportAttributeAccessIssue]
    text = ts.str.strip_chars()
    if text.null_count() < len(text) and not text.str.contains(ZONED).any():
        raise NaiveTimestamps(path)
    iso = text.str.replace(" ", "T", literal=True).str.replace("Z$", "+00:00")
    parsed = [iso.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False) for form in ISO]
    return pl.select(pl.coalesce(parsed)).to_series().alias("ts")


def _check_stamps(path: Path, typed: pl.DataFrame, hours: Hours, given: Stamps) -> None:
    """Of the symbol-days with a stamp at their open or close, those with a close and no open say "ends" (where the
    minute after the open is stamped too), those with an open and no close say "starts". A market that never closes
    says nothing."""
    if not hours.sessions:
        return
    instant = typed["ts"].to_physical().fill_null(0).to_numpy()
    before = np.maximum(np.searchsorted(hours.opens, instant, side="right") - 1, 0)
    opens, closes = hours.opens[before], hours.closes[before]
    never_closes = np.isin(opens, hours.closes) | np.isin(closes, hours.opens)
    edges = pl.DataFrame(
        {
            "symbol": typed["symbol"],
            "session": before,
            "at_open": instant == opens,
            "after_open": instant == opens + MINUTE // MICROSECOND,
            "at_close": instant == closes,
        }
    ).filter(pl.any_horizontal("at_open", "after_open", "at_close") & ~pl.Series(never_closes))
    stamped = pl.col("at_open", "after_open", "at_close").any()
    days = edges.group_by("symbol", "session").agg(stamped).filter(pl.col("at_open") | pl.col("at_close"))
    ends = pl.col("at_close") & pl.col("after_open") & ~pl.col("at_open")
    starts = pl.col("at_open") & ~pl.col("at_close")
    share = days.select((ends if given == "start" else starts).mean()).item()
    if share is not None and share >= MAJORITY:
        raise WrongStamps(path, given, share)


def _check_market(path: Path, ts: pl.Series, misplaced: pl.Series) -> None:
    outside = ts.filter(misplaced.is_not_null() & ts.is_not_null())
    first, last = outside.min(), outside.max()
    enough = len(outside) >= max(ENOUGH, MAJORITY * len(ts))
    if enough and isinstance(first, datetime) and isinstance(last, datetime):
        raise WrongMarket(path, len(outside) / len(ts), first, last)


def _check_length(path: Path, ordered: pl.DataFrame) -> None:
    """Refuse bars of another length. `ordered`: rows inside the hours, sorted by session, symbol, ts."""
    same = (pl.col("symbol") == pl.col("symbol").shift()) & (pl.col("session") == pl.col("session").shift())
    step = pl.col("ts").diff().dt.total_minutes()
    steps = ordered.select(step.filter(same & (step > 0)).alias("minutes")).group_by("minutes").len()
    neighbours = int(steps["len"].sum())
    if neighbours >= ENOUGH and steps.filter(pl.col("minutes") == 1)["len"].sum() < SPARSE * neighbours:
        raise WrongBarLength(path, steps.sort("len", "minutes", descending=[True, False])["minutes"][0])
