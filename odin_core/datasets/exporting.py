"""An export: chosen tables, sessions and symbols of a market and its current life, as plain files with a manifest.

It is complete in itself: the folder may be moved or sent, and `odin dataset verify FOLDER` needs nothing else. One
session is in memory at a time. The folder appears when it is whole; a kill leaves a hidden one that the next export
there replaces."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import polars as pl

from odin_core.datasets.manifest import FILE, DataFile, Manifest, export_version, sha256_of, write_manifest
from odin_core.datasets.registry import record
from odin_core.datasets.training import sources_of
from odin_core.errors import OdinError, nearest
from odin_core.features.decision import decision_version
from odin_core.home import Home
from odin_core.lake import Lake, TableMissing, logical_hash, write_parquet, write_text
from odin_core.lifecycle.config import LifeConfig
from odin_core.market.data import MarketData
from odin_core.market.intake.pages import NO_SESSION

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
    wanted = [(table, session) for table in tables for session in _sessions(tables[table], selection)]
    files, seen = list[DataFile](), _Seen()
    for done, (table, session) in enumerate(wanted, 1):
        if progress is not None:
            progress(done, len(wanted))
        whole = tables[table].lake.read(tables[table].stored, session)
        rows = _of_symbols(whole, selection.symbols)
        if rows.height or not selection.symbols:
            files.append(_write(table, session, rows, folder, selection.form))
        seen.add(table, whole, rows)
    if unknown := sorted(set(selection.symbols) - seen.symbols):
        raise UnknownSymbol(unknown, sorted(seen.symbols))
    if not any(file.rows for file in files):
        raise NothingToExport(data.profile.name, list(tables), selection.first, selection.last)
    manifest = _described(data, life, selection, tables, files, seen, code_version)
    write_manifest(manifest, folder / FILE)
    return manifest


def _described(
    data: MarketData,
    life: "Life | None",
    selection: Selection,
    tables: "dict[str, _Table]",
    files: list[DataFile],
    seen: "_Seen",
    code_version: str,
) -> Manifest:
    sessions = sorted({f.session for f in files if f.table not in KNOWN_SINCE} or {f.session for f in files})
    config = life.config if life else LifeConfig()
    return Manifest(
        version=export_version(data.profile.name, selection.form, files),
        kind="export",
        market=data.profile.name,
        form=selection.form,
        first=sessions[0],
        last=sessions[-1],
        symbols=tuple(sorted(set(selection.symbols) or seen.symbols)),
        files=tuple(files),
        sources=(*sources_of(data, sessions, config.seed, config.edge), *seen.origins()),
        completeness=seen.shares(),
        features_version=decision_version() if FEATURES in tables else None,
        code_version=code_version,
        life=life.id if life and any(table.finished for table in tables.values()) else None,
    )


class _Table(NamedTuple):
    """Where a table lies and what it is called there. `finished`: of a life's, the sessions that count."""

    lake: Lake
    stored: str
    finished: frozenset[date] | None = None


def _tables(data: MarketData, life: "Life | None", selection: Selection) -> dict[str, _Table]:
    """The tables asked for. Raises TableMissing."""
    there = {name: _Table(data.lake, name) for name in data.lake.tables() if not name.startswith(f"{FEATURES}_")}
    if data.lake.sessions(data.features_table):
        there[FEATURES] = _Table(data.lake, data.features_table)
    finished = frozenset(life.commits()) if life else frozenset[date]()
    of_life = {name: _Table(life.lake, name, finished) for name in life.lake.tables()} if life else {}
    for name in selection.tables:
        if name not in there and name not in of_life:
            raise TableMissing(name, data.lake.root, sorted(there.keys() | of_life.keys()))
    chosen = dict.fromkeys(selection.tables) or there
    return {name: (of_life | there)[name] for name in sorted(chosen)}


def _sessions(table: _Table, selection: Selection) -> list[date]:
    first = date.min if table.stored in KNOWN_SINCE else selection.first or date.min
    last = selection.last or date.max
    within = [s for s in table.lake.sessions(table.stored) if first <= s <= last and s != NO_SESSION]
    return within if table.finished is None else [s for s in within if s in table.finished]


def _of_symbols(rows: pl.DataFrame, symbols: Sequence[str]) -> pl.DataFrame:
    return rows.filter(pl.col("symbol").is_in(list(symbols))) if symbols and "symbol" in rows.columns else rows


def _write(table: str, session: date, rows: pl.DataFrame, folder: Path, form: Form) -> DataFile:
    path = folder / table / f"session={session}" / f"part.{form}"
    if form == "parquet":
        write_parquet(rows, path)
    else:
        if nested := [name for name, dtype in rows.schema.items() if dtype.is_nested()]:
            raise NotForCsv(table, nested)
        write_text(rows.write_csv(), path)
    return DataFile(
        table=table,
        session=session,
        path=path.relative_to(folder).as_posix(),
        rows=rows.height,
        hash=logical_hash(rows),
        sha256=sha256_of(path),
    )


class _Seen:
    """What went by: symbols of all rows; of those exported, known values (neither null nor NaN) and who told them."""

    def __init__(self) -> None:
        self.symbols: set[str] = set()
        self._origins: set[tuple[str, str, str]] = set()
        self._rows: dict[str, int] = {}
        self._known: dict[str, dict[str, int]] = {}

    def add(self, table: str, whole: pl.DataFrame, rows: pl.DataFrame) -> None:
        if "symbol" in whole.columns:
            self.symbols |= set(whole["symbol"].drop_nulls())
        if table in KNOWN_SINCE:
            told = rows.select("origin", "origin_id").unique().rows()
            self._origins |= {(origin, origin_id, table) for origin, origin_id in told}
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

    def origins(self) -> tuple[dict[str, str], ...]:
        """Of the tables of what was known since when; those of bars are in `arrivals`."""
        return tuple({"origin": o, "origin_id": i, "table": t} for o, i, t in sorted(self._origins))
