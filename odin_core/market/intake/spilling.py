"""A long file in windows of whole sessions, in memory that does not grow with the file.

Each batch of rows is sorted by session and put down as a temporary Arrow file; then sessions are taken together until
they fill a batch, and their rows are read back. Text is copied to Parquet first, because only that can be read from any
row on. The folder lies in the home, beside the tables."""

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import polars as pl

from odin_core.market.intake.barfiles import (
    BATCH,
    BarFile,
    FileRows,
    Said,
    batch,
    is_parquet,
    raw_columns,
    scan,
    unreadable,
)
from odin_core.market.intake.filechecks import FileCheck
from odin_core.market.intake.judging import places_of
from odin_core.market.quality.assessing import SessionHours
from odin_core.market.sources.source import SOURCE_BARS

PREFIX = ".import-"
READERS = 2  # batches that are read at the same time
RECORDS = 25_000  # rows of a temporary file that are read at once
RAW = "raw:"  # before the names of a file's columns, where they differ from the bars'


@contextmanager
def spill_folder(root: Path) -> Iterator[Path]:
    """A new folder in `root`, gone afterwards; what a killed import left is removed first."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=PREFIX) as folder:
        yield Path(folder)


def windows(file: BarFile, said: Said, calendar: SessionHours, folder: Path) -> Iterator[FileRows]:
    """All rows of a file that were asked for, by windows of whole sessions, ascending; those of a session are in the
    file's order, and those that belong to no session come together at the end. Nothing comes before the file as a whole
    was found right. Raises the errors of `batch` and of `FileCheck.require`."""
    check = FileCheck(file.path, file.layout)
    source = scan(file.path, file.layout, file.names)
    if file.rows <= BATCH:
        rows = batch(file, source, 0, said)
        check.add(rows, *places_of(rows.bars["ts"], calendar, file.layout.interval))
        check.require()
        yield rows
        return
    readable, own = _copied(file, source, folder), _own(file)

    def put_down(first: int) -> tuple[list[_Piece], pl.DataFrame | None]:
        rows = batch(file, readable, first, said)
        hours, places = places_of(rows.bars["ts"], calendar, file.layout.interval)
        check.add(rows, hours, places)
        sessions = pl.Series("session", [*hours.sessions, None], dtype=pl.Date).gather(places.at)
        return _put_down(rows, sessions, own, folder / f"{first:012}.arrow"), rows.instruments

    with ThreadPoolExecutor(READERS) as pool:
        pieces, instruments = zip(*pool.map(put_down, range(0, file.rows, BATCH)), strict=True)
    check.require()
    told = [frame for frame in instruments if frame is not None]
    terms = pl.concat(told).unique("symbol", keep="first", maintain_order=True) if told else None
    for window in _together(list(chain.from_iterable(pieces))):
        yield _taken_up(file, own, window, terms)


class _Piece(NamedTuple):
    """Rows of one session (None: of none) in one of the temporary files: where they begin and how many there are."""

    path: Path
    session: date | None
    start: int
    rows: int


def _copied(file: BarFile, source: pl.LazyFrame, folder: Path) -> pl.LazyFrame:
    """The file, or a copy of it, that can be read from any row on."""
    if is_parquet(file.path):
        return source
    copy = folder / "text" / "rows.parquet"
    copy.parent.mkdir()
    try:
        source.sink_parquet(copy, compression="lz4", row_group_size=BATCH // 4, engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(file.path, file.layout, file.names, error) from error
    return pl.scan_parquet(copy)


def _put_down(rows: FileRows, sessions: pl.Series, own: list[str], path: Path) -> list[_Piece]:
    raw = rows.raw.select(pl.col(name).alias(RAW + name) for name in own)
    frame = pl.concat([rows.bars, raw, pl.DataFrame([rows.rows, sessions])], how="horizontal")
    ordered = frame.sort("session", nulls_last=True, maintain_order=True)
    ordered.write_ipc(path, record_batch_size=RECORDS)  # not compressed, so that a piece is read without the rest
    runs = ordered["session"].rle().struct.unnest().with_columns(start=pl.col("len").cum_sum() - pl.col("len"))
    return [_Piece(path, session, start, length) for length, session, start in runs.iter_rows()]


def _own(file: BarFile) -> list[str]:
    """The file's columns that do not stand in its bars as they are, and so are put down beside them."""
    used = raw_columns(file)
    if not (is_parquet(file.path) and file.layout.keeps_values):
        return used
    schema = pl.read_parquet_schema(file.path)
    return [name for name in used if schema[name] != SOURCE_BARS.get(name) or file.found.get(name) != name]


def _together(pieces: list[_Piece]) -> list[list[_Piece]]:
    """The pieces of each window: sessions ascending, as many as fit a batch; last the rows of no session."""
    by_session: dict[date | None, list[_Piece]] = {}
    for piece in sorted(pieces, key=lambda piece: (piece.session is None, piece.session or date.min, piece.path)):
        by_session.setdefault(piece.session, []).append(piece)
    windows: list[list[_Piece]] = []
    held = BATCH + 1
    for session, of_session in by_session.items():
        count = sum(piece.rows for piece in of_session)
        if session is None or held + count > BATCH:
            windows.append([])
            held = 0
        windows[-1] += of_session
        held += count
    return windows


def _taken_up(file: BarFile, own: list[str], window: list[_Piece], instruments: pl.DataFrame | None) -> FileRows:
    """A window's rows, session by session, each in the file's order. Pieces that follow each other in a temporary file
    are read at once."""
    parts: dict[_Piece, pl.DataFrame] = {}
    for path, group in groupby(sorted(window, key=attrgetter("path", "start")), key=attrgetter("path")):
        pieces = list(group)
        first, rows = pieces[0].start, sum(piece.rows for piece in pieces)
        read = pl.scan_ipc(path).slice(first, rows).collect()
        parts |= {piece: read.slice(piece.start - first, piece.rows) for piece in pieces}
    frame = pl.concat([parts[piece] for piece in window], rechunk=True)
    raw = frame.select(pl.col(RAW + name if name in own else name).alias(name) for name in raw_columns(file))
    return FileRows(raw, frame.select(*SOURCE_BARS), frame["row"], instruments)
