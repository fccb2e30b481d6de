"""A file of minute bars as rows: typed, placed in sessions, each with the first rule that it breaks.

Read are Parquet, and CSV with the same column names: ts (with a time zone), symbol, open, high, low, close, volume;
other columns are ignored and other layouts refused. A file that is wrong as a whole is an error here; a row that is
wrong keeps its place and gets a rule of `market.quality`. Finding duplicates and storing is `market.importing`."""

import hashlib
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from odin_core.errors import OdinError
from odin_core.market.bars import MICROSECOND, MINUTE, UTC
from odin_core.market.quality import PRICES, SessionHours, broken_rule

Stamps = Literal["start", "end"]

REQUIRED = ("ts", "symbol", *PRICES, "volume")
NEAR = timedelta(hours=12)  # a bar outside every session's hours belongs to one that is no further away than this
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
    """The rows of a file, in its order. `raw`: REQUIRED as they were read. `typed`: row (0-based), ts (UTC, start of
    the bar), symbol, open, high, low, close, volume (null for null, NaN or unreadable), session (null where it belongs
    to none), rule (null where none is broken)."""

    raw: pl.DataFrame
    typed: pl.DataFrame


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
    """All rows of a file, each with its session and the first rule that it breaks; duplicates are not looked for.
    Raises NaiveTimestamps, WrongStamps, WrongMarket, UnreadableFile."""
    try:
        raw = _scan(file.path).select(REQUIRED).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFile(file.path, f"damaged ({str(error).splitlines()[0]})") from error
    typed = raw.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("row"),
        _instants(file.path, raw["ts"]),
        pl.col("symbol").cast(pl.String),
        *(_number(raw.schema, p).alias(p) for p in PRICES),
        _number(raw.schema, "volume").alias("volume"),
        pl.col("volume").is_not_null().alias("volume_given"),
    )
    hours = _hours(typed["ts"], calendar)
    _check_stamps(file.path, typed, hours, stamps)
    if stamps == "end":
        typed = typed.with_columns(pl.col("ts") - MINUTE)
    session, misplaced = _placed(typed["ts"], hours)
    _check_market(file.path, typed["ts"], misplaced)
    number = pl.col("volume")
    typed = typed.with_columns(
        session,
        misplaced,
        pl.when(number.is_finite()).then(number).alias("volume"),
        (pl.col("volume_given") & (number.is_null() | number.is_infinite())).alias("volume_unreadable"),
    ).with_columns(broken_rule().alias("rule"))
    return FileRows(raw, typed.drop("misplaced", "volume_given", "volume_unreadable"))


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


class _Hours(NamedTuple):
    """Sessions near the file's stamps, ascending, with their hours in microseconds since 1970 UTC."""

    sessions: list[date]
    opens: npt.NDArray[np.int64]
    closes: npt.NDArray[np.int64]
    outside: list[date]  # dates beyond the calendar


def _hours(ts: pl.Series, calendar: SessionHours) -> _Hours:
    stamped = ts.drop_nulls().dt.date().unique().to_list()
    days = sorted({date.fromordinal(day.toordinal() + shift) for day in stamped for shift in (-1, 0, 1)})
    sessions, outside = [], []
    for day in days:
        try:
            if calendar.is_session(day):
                sessions.append(day)
        except OdinError:
            outside.append(day)
    edges = [calendar.hours(day) for day in sessions]
    opens, closes = (pl.Series([e[side] for e in edges], dtype=UTC).to_physical().to_numpy() for side in (0, 1))
    return _Hours(sessions, opens, closes, outside)


def _placed(ts: pl.Series, hours: _Hours) -> tuple[pl.Series, pl.Series]:
    """`session` of each stamp (the one whose hours hold it, else the nearest within NEAR, else null), and `misplaced`:
    null inside the hours, else the rule that is broken."""
    instant = ts.to_physical().fill_null(0).to_numpy()
    far = np.iinfo(np.int64).max
    before = np.searchsorted(hours.opens, instant, side="right") - 1
    since_close = np.where(before >= 0, instant - np.append(hours.closes, 0)[before], far)
    until_open = np.where(before + 1 < len(hours.opens), np.append(hours.opens, far)[before + 1] - instant, far)
    is_inside = since_close < 0
    is_near = np.minimum(since_close, until_open) <= NEAR // MICROSECOND
    nearest = np.where(since_close <= until_open, before, before + 1)
    nowhere = len(hours.sessions)
    session = pl.Series("session", [*hours.sessions, None], dtype=pl.Date).gather(np.where(is_near, nearest, nowhere))
    frame = pl.DataFrame({"day": ts.dt.date(), "inside": is_inside, "near": is_near})
    misplaced = frame.select(
        pl.when("inside")
        .then(None)
        .when("near")
        .then(pl.lit("outside_hours"))
        .when(pl.col("day").is_in(hours.outside))
        .then(pl.lit("outside_calendar"))
        .otherwise(pl.lit("not_a_session"))
        .alias("misplaced")
    ).to_series()
    return pl.select(pl.when(ts.is_not_null()).then(session).alias("session")).to_series(), misplaced


def _check_stamps(path: Path, typed: pl.DataFrame, hours: _Hours, given: Stamps) -> None:
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


def require_minute_bars(path: Path, ordered: pl.DataFrame) -> None:
    """Refuse bars of another length. `ordered`: sound rows sorted by session, symbol, ts. Raises WrongBarLength."""
    same = (pl.col("symbol") == pl.col("symbol").shift()) & (pl.col("session") == pl.col("session").shift())
    step = pl.col("ts").diff().dt.total_minutes()
    steps = ordered.select(step.filter(same & (step > 0)).alias("minutes")).group_by("minutes").len()
    neighbours = int(steps["len"].sum())
    if neighbours >= ENOUGH and steps.filter(pl.col("minutes") == 1)["len"].sum() < SPARSE * neighbours:
        raise WrongBarLength(path, steps.sort("len", "minutes", descending=[True, False])["minutes"][0])
