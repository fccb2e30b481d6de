"""A long file in windows of whole sessions, in memory that does not grow with the file.

Each batch of rows is sorted by session and put down as a temporary Parquet file, with the numbers of rows by session;
then sessions are taken together until they fill a batch, and their rows are read back. Text is copied to Parquet
first, because only that can be read from any row on. The folder lies in the home, beside the tables."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import polars as pl

from odin_core.market.barfiles import (
    BATCH,
    BarFile,
    FileRows,
    Said,
    UnreadableFile,
    batches,
    is_parquet,
    raw_columns,
    scan,
)
from odin_core.market.filechecks import FileCheck
from odin_core.market.judging import places_of
from odin_core.market.quality import SessionHours
from odin_core.market.sources.source import SOURCE_BARS

PREFIX = ".import-"
RAW = "raw:"  # before the names of a file's columns, where they differ from the bars'
ROW_GROUP = 20_000


@contextmanager
def spill_folder(root: Path) -> Iterator[Path]:
    """A new folder in `root`, gone afterwards; what a killed import left is removed first."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=PREFIX) as folder:
        yield Path(folder)


def windows(file: BarFile, said: Said, calendar: SessionHours, folder: Path) -> Iterator[FileRows]:
    """All rows of a file that were asked for, by windows of whole sessions, each in the file's order; those that belong
    to no session come together at the end. Nothing comes before the file as a whole was found right.
    Raises the errors of `batches` and of `FileCheck.require`."""
    check = FileCheck(file.path, file.layout)
    source = scan(file.path, file.layout, file.names)
    if file.rows <= BATCH:
        for rows in batches(file, source, said):
            check.add(rows.bars, *places_of(rows.bars["ts"], calendar, file.layout.interval))
            check.require()
            yield rows
        return
    instruments: list[pl.DataFrame] = []
    counts: list[pl.DataFrame] = []
    for number, rows in enumerate(batches(file, _copied(file, source, folder), said)):
        hours, places = places_of(rows.bars["ts"], calendar, file.layout.interval)
        check.add(rows.bars, hours, places)
        if rows.instruments is not None:
            instruments.append(rows.instruments)
        sessions = pl.Series("session", [*hours.sessions, None], dtype=pl.Date).gather(places.at)
        counts.append(sessions.value_counts())
        _put_down(rows, sessions, _own(file), folder / f"{number:05}.parquet")
    check.require()
    terms = pl.concat(instruments).unique("symbol", keep="first", maintain_order=True) if instruments else None
    for first, last in _ranges(pl.concat(counts)):
        yield _taken_up(file, folder, first, last, terms)


def _copied(file: BarFile, source: pl.LazyFrame, folder: Path) -> pl.LazyFrame:
    """The file, or a copy of it, that can be read from any row on."""
    if is_parquet(file.path):
        return source
    copy = folder / "text" / "rows.parquet"
    copy.parent.mkdir()
    try:
        source.sink_parquet(copy, compression="lz4", row_group_size=BATCH // 4, engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFile(file.path, f"damaged ({str(error).splitlines()[0]})") from error
    return pl.scan_parquet(copy)


def _put_down(rows: FileRows, sessions: pl.Series, own: list[str], path: Path) -> None:
    raw = rows.raw.select(pl.col(name).alias(RAW + name) for name in own)
    frame = pl.concat([rows.bars, raw, pl.DataFrame([rows.rows, sessions])], how="horizontal")
    ordered = frame.sort("session", nulls_last=True, maintain_order=True)
    ordered.write_parquet(path, compression="lz4", row_group_size=ROW_GROUP, statistics=True)


def _own(file: BarFile) -> list[str]:
    """The file's columns that do not stand in its bars as they are, and so are put down beside them."""
    used = raw_columns(file)
    if not (is_parquet(file.path) and file.layout.keeps_values):
        return used
    schema = pl.read_parquet_schema(file.path)
    return [name for name in used if schema[name] != SOURCE_BARS.get(name) or file.found.get(name) != name]


def _ranges(counts: pl.DataFrame) -> list[tuple[date | None, date | None]]:
    """First and last session of each window: as many sessions as fit a batch, at least one. (None, None): rows of no
    session."""
    by_session = counts.group_by("session").agg(pl.col("count").sum()).sort("session", nulls_last=True)
    ranges: list[tuple[date | None, date | None]] = []
    held = BATCH + 1
    for session, count in by_session.iter_rows():
        if session is None:
            ranges.append((None, None))
        elif held + count > BATCH:
            ranges.append((session, session))
            held = count
        else:
            ranges[-1] = (ranges[-1][0], session)
            held += count
    return ranges


def _taken_up(
    file: BarFile, folder: Path, first: date | None, last: date | None, instruments: pl.DataFrame | None
) -> FileRows:
    session = pl.col("session")
    inside = session.is_null() if first is None else session.is_between(pl.lit(first), pl.lit(last))
    frame = pl.scan_parquet(folder / "*.parquet").filter(inside).collect().sort("row")
    own = set(_own(file))
    raw = frame.select(pl.col(RAW + name if name in own else name).alias(name) for name in raw_columns(file))
    return FileRows(raw, frame.select(*SOURCE_BARS), frame["row"], instruments)
