"""An export: chosen tables, sessions and symbols of a market and its current life, as plain files with a manifest.

It is complete in itself: the folder may be moved or sent, and `odin dataset verify FOLDER` needs nothing else. One
session is in memory at a time. The folder appears when it is whole; a kill leaves a hidden one that the next export
there replaces."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl

from odin_core.datasets.manifest import FILE, DataFile, Manifest, export_version, sha256_of, write_manifest
from odin_core.datasets.registry import record
from odin_core.datasets.training import sources_of
from odin_core.errors import OdinError, nearest
from odin_core.features.catalogue import features_version
from odin_core.home import Home
from odin_core.lake import Lake, TableMissing, logical_hash, write_parquet, write_text
from odin_core.market.data import MarketData
from odin_core.market.importing import NO_SESSION

if TYPE_CHECKING:
    from odin_core.lifecycle.life import Life

Form = Literal["parquet", "csv"]
KNOWN_SINCE = ("corporate_actions", "fundamentals")  # as of a session all rows up to it count, so all are exported
FEATURES = "features"


class FolderTaken(OdinError):
    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} is there already and not empty; give --to a new folder")


class NothingToExport(OdinError):
    def __init__(self, market: str, tables: Sequence[str], first: date | None, last: date | None) -> None:
        span = f"{first or 'the first'} to {last or 'the last session'}"
        super().__init__(
            f"{market} has no row of {', '.join(tables)} from {span} for these symbols; "
            f"`odin data show --market {market}` says what there is"
        )


class NotForCsv(OdinError):
    def __init__(self, table: str, columns: Sequence[str]) -> None:
        super().__init__(
            f"{table} has lists in {', '.join(columns)}, which CSV cannot hold; leave the table out or use "
            f"--format parquet"
        )


class UnknownSymbol(OdinError):
    def __init__(self, symbols: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(f"no exported table has {', '.join(symbols)}; {nearest(symbols[0], known)}")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What to export. Empty `tables`: every table of the market's lake. Empty `symbols`: all."""

    tables: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None
    symbols: tuple[str, ...] = ()
    form: Form = "parquet"


class _Part(NamedTuple):
    table: str
    session: date
    rows: pl.DataFrame


def export(
    home: Home,
    data: MarketData,
    life: "Life | None",
    selection: Selection,
    folder: Path,
    code_version: str,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write an export to `folder`, which must be new or empty, and put it into the home's registry.

    Features are those of the current definitions. Raises FolderTaken, TableMissing, NothingToExport, UnknownSymbol,
    NotForCsv, PartitionUnreadable; none of them leaves anything behind."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderTaken(folder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        manifest = _written(data, life, selection, unfinished, code_version, progress)
        if folder.is_dir():
            folder.rmdir()
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    record(home, manifest, folder)
    return manifest


def _written(
    data: MarketData,
    life: "Life | None",
    selection: Selection,
    folder: Path,
    code_version: str,
    progress: Callable[[int, int], None] | None,
) -> Manifest:
    tables = _tables(data, life, selection)
    wanted = [(table, session) for table, (lake, stored) in tables.items()
              for session in _sessions(lake, stored, selection)]  # fmt: skip
    files, symbols, known = [], set[str](), _Known()
    for done, part in enumerate(_parts(tables, wanted), 1):
        if progress is not None:
            progress(done, len(wanted))
        if "symbol" in part.rows.columns:
            symbols |= set(part.rows["symbol"].drop_nulls())
        rows = _of_symbols(part.rows, selection.symbols)
        if rows.height or not selection.symbols:
            files.append(_write(_Part(part.table, part.session, rows), folder, selection.form))
            known.add(part.table, rows)
    if unknown := sorted(set(selection.symbols) - symbols):
        raise UnknownSymbol(unknown, sorted(symbols))
    if not any(file.rows for file in files):
        raise NothingToExport(data.profile.name, list(tables), selection.first, selection.last)
    of_life = any(life is not None and lake.root == life.lake.root for lake, _ in tables.values())
    config = life.config if life else None
    manifest = Manifest(
        version=export_version(data.profile.name, selection.form, files),
        kind="export",
        market=data.profile.name,
        form=selection.form,
        first=min(file.session for file in files),
        last=max(file.session for file in files),
        symbols=tuple(sorted(set(selection.symbols) or symbols)),
        files=tuple(files),
        sources=sources_of(
            data,
            sorted({f.session for f in files}),
            seed=config.seed if config else 0,
            edge=config.edge if config else 0.0,
        ),
        completeness=known.shares(),
        features_version=features_version() if FEATURES in tables else None,
        code_version=code_version,
        life=life.id if life and of_life else None,
    )
    write_manifest(manifest, folder / FILE)
    return manifest


def _tables(data: MarketData, life: "Life | None", selection: Selection) -> dict[str, tuple[Lake, str]]:
    """The tables asked for: where they lie and what they are called there. Raises TableMissing."""
    there = {name: (data.lake, name) for name in data.lake.tables() if not name.startswith(f"{FEATURES}_")}
    if data.lake.sessions(data.features_table):
        there[FEATURES] = (data.lake, data.features_table)
    of_life = {name: (life.lake, name) for name in life.lake.tables()} if life else {}
    for name in selection.tables:
        if name not in there and name not in of_life:
            raise TableMissing(name, data.lake.root, sorted(there.keys() | of_life.keys()))
    chosen = dict.fromkeys(selection.tables) or there
    return {name: (of_life | there)[name] for name in sorted(chosen)}


def _sessions(lake: Lake, table: str, selection: Selection) -> list[date]:
    first = date.min if table in KNOWN_SINCE else selection.first or date.min
    last = selection.last or date.max
    return [s for s in lake.sessions(table) if first <= s <= last and s != NO_SESSION]


def _parts(tables: dict[str, tuple[Lake, str]], wanted: Sequence[tuple[str, date]]) -> Iterator[_Part]:
    for table, session in wanted:
        lake, stored = tables[table]
        yield _Part(table, session, lake.read(stored, session))


def _of_symbols(rows: pl.DataFrame, symbols: Sequence[str]) -> pl.DataFrame:
    return rows.filter(pl.col("symbol").is_in(list(symbols))) if symbols and "symbol" in rows.columns else rows


def _write(part: _Part, folder: Path, form: Form) -> DataFile:
    path = folder / part.table / f"session={part.session}" / f"part.{form}"
    if form == "parquet":
        write_parquet(part.rows, path)
    else:
        if nested := [name for name, dtype in part.rows.schema.items() if dtype.is_nested()]:
            raise NotForCsv(part.table, nested)
        write_text(part.rows.write_csv(), path)
    return DataFile(
        table=part.table,
        session=part.session,
        path=path.relative_to(folder).as_posix(),
        rows=part.rows.height,
        hash=logical_hash(part.rows),
        sha256=sha256_of(path),
    )


class _Known:
    """Counts of known values (neither null nor NaN), table by table and column by column."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._known: dict[str, dict[str, int]] = {}

    def add(self, table: str, rows: pl.DataFrame) -> None:
        self._rows[table] = self._rows.get(table, 0) + rows.height
        known = self._known.setdefault(table, {})
        for column in rows:
            values = column.fill_nan(None) if column.dtype.is_float() else column
            known[column.name] = known.get(column.name, 0) + values.len() - values.null_count()

    def shares(self) -> dict[str, dict[str, float]]:
        return {
            table: {name: count / self._rows[table] for name, count in columns.items()}
            for table, columns in sorted(self._known.items())
            if self._rows[table]
        }
