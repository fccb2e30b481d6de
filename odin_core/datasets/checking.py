"""A dataset against its files: what changed, what is gone, what came to it.

Bytes are compared first. Where they differ the values are read, so that a file that was damaged is told from one that
was written anew with the same values, as features are when their inputs were copied. Arrow reads them: polars ends the
whole process over some damaged files."""

from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from odin_core.datasets.manifest import FILE, DataFile, Manifest, sha256_of
from odin_core.lake import logical_hash
from odin_core.lifecycle.digest import KEYS

OUTCOMES, FEATURES = "action_outcomes", "features"


class Difference(NamedTuple):
    """One file that is not as the manifest says. `path`: relative to the dataset's root."""

    path: str
    what: Literal["changed", "damaged", "rewritten", "missing", "new"]
    detail: str

    def to_text(self) -> str:
        return f"{self.what:9} {self.path}: {self.detail}"


class _Unreadable(Exception):
    """A file that is no whole Parquet file, and why."""


def verify(manifest: Manifest, root: Path) -> list[Difference]:
    """Every file of the dataset whose bytes are not those of the manifest, or that is gone, in the manifest's order;
    for an export also files that are in its folder and not in the manifest. Empty: all is as it was.
    A training window recorded before bytes were kept is compared by its values."""
    found = [difference for file in manifest.files if (difference := _checked(manifest, root, file)) is not None]
    return found + _new(manifest, root) if manifest.kind == "export" else found


def _checked(manifest: Manifest, root: Path, file: DataFile) -> Difference | None:
    path = root / file.path
    if not path.is_file():
        return Difference(file.path, "missing", f"{file.rows:,} rows of {file.table}, session {file.session}")
    if file.sha256 is not None:
        found = sha256_of(path)
        if found == file.sha256:
            return None
        if manifest.form == "csv":
            return Difference(file.path, "changed", f"its bytes hash to {found[:12]}…, not {file.sha256[:12]}…")
    try:
        rows = _rows(manifest, root, file)
        same = logical_hash(rows, KEYS[file.table] if manifest.kind == "training" else ()) == file.hash
    except _Unreadable as error:
        return Difference(file.path, "damaged", f"it is no readable Parquet file any more ({error})")
    if same:
        detail = "other bytes with the same values: it was written anew, or damaged where no value lies"
        return Difference(file.path, "rewritten", detail) if file.sha256 is not None else None
    return Difference(file.path, "changed", f"it has {rows.height:,} rows with other values; there were {file.rows:,}")


def _rows(manifest: Manifest, root: Path, file: DataFile) -> pl.DataFrame:
    """The rows that the file's logical hash is of: of features in a training window, those that were decided on."""
    rows = _read(root / file.path)
    if manifest.kind == "export" or file.table != FEATURES:
        return rows
    outcomes = [f for f in manifest.files if (f.table, f.session) == (OUTCOMES, file.session)]
    decided = [_read(root / outcome.path)["symbol"] for outcome in outcomes]
    return rows.filter(pl.col("symbol").is_in(decided[0].implode())) if decided else rows


def _read(path: Path) -> pl.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        table.validate(full=True)
        frame = pl.from_arrow(table)
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise _Unreadable((str(error).splitlines() or [type(error).__name__])[0]) from error
    assert isinstance(frame, pl.DataFrame)
    return frame


def _new(manifest: Manifest, root: Path) -> list[Difference]:
    known = {file.path for file in manifest.files} | {FILE}
    there = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return [Difference(path, "new", "the manifest does not know it") for path in there if path not in known]
