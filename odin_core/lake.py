"""The lake: tables as hive-partitioned Parquet, one file per session, written whole or not at all.

A table is a folder, a partition is `<table>/session=YYYY-MM-DD/part.parquet`. Writing goes to a temporary name in the
same folder and is renamed, so a reader sees the old file or the new one. Nothing here knows what a table means."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from odin_core.errors import OdinError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "part.parquet"


class PartitionMissing(OdinError):
    def __init__(self, table: str, session: date, path: Path) -> None:
        super().__init__(f"{table} has no session {session} ({path}); materialise it or import its data first")


class TableMissing(OdinError):
    def __init__(self, table: str, root: Path, known: Iterable[str]) -> None:
        super().__init__(f"no table {table!r} in {root}; {nearest(table, known) if known else 'it holds no table yet'}")


class PartitionUnreadable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is not a readable Parquet file ({why}); it was damaged after it was written. "
            f"Delete its folder; what ODIN computes comes back with the same command, imported bars with an import"
        )


class Lake:
    """One folder of tables. `Lake(home / "lake" / "nse")` holds a market's, `Lake(life.generation)` a life's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, table: str, session: date) -> Path:
        return self.root / table / f"session={session}" / FILE

    def has(self, table: str, session: date) -> bool:
        return os.path.isfile(f"{self.root}/{table}/session={session}/{FILE}")  # asked often: a tenth of a Path's time

    def sessions(self, table: str) -> list[date]:
        """Sessions of a table that hold a file, ascending."""
        names = (p.parent.name for p in (self.root / table).glob(f"session=*/{FILE}"))
        return sorted(date.fromisoformat(n.removeprefix("session=")) for n in names)

    def tables(self) -> list[str]:
        return sorted({p.parent.parent.name for p in self.root.glob(f"*/session=*/{FILE}")})

    def tables_with(self, session: date) -> set[str]:
        """Tables that hold a file for this session."""
        names = (p.name for p in self.root.iterdir()) if self.root.is_dir() else ()
        return {name for name in names if self.has(name, session)}

    def write(self, table: str, session: date, frame: pl.DataFrame) -> Path:
        """Write one partition atomically; an existing one is replaced. A kill leaves the old file or the new one."""
        path = self.path(table, session)
        write_parquet(frame, path)
        return path

    def write_changed(self, table: str, session: date, frame: pl.DataFrame) -> bool:
        """`write`, unless the partition holds just these rows in this order already; whether it was written."""
        if self.has(table, session) and self.read(table, session).equals(frame):
            return False
        self.write(table, session, frame)
        return True

    def read(self, table: str, session: date) -> pl.DataFrame:
        """One partition. Raises PartitionMissing or PartitionUnreadable."""
        path = self.path(table, session)
        if not path.is_file():
            raise PartitionMissing(table, session, path)
        return read_parquet(path)

    def read_or_empty(self, table: str, session: date, schema: pl.Schema) -> pl.DataFrame:
        """One partition, or no row of that schema where there is none. Raises PartitionUnreadable."""
        return self.read(table, session) if self.has(table, session) else schema.to_frame()

    def read_many(self, table: str, sessions: Iterable[date]) -> pl.DataFrame:
        """Several partitions, concatenated in the order given; each must exist. Empty input gives an empty frame."""
        frames = [self.read(table, s) for s in sessions]
        return pl.concat(frames) if frames else pl.DataFrame()

    def scan(self, table: str) -> pl.LazyFrame:
        """All partitions, lazily, with the partition's date as column `session` where the files have none.
        Raises TableMissing where the table holds no session."""
        if next((self.root / table).glob(f"session=*/{FILE}"), None) is None:
            raise TableMissing(table, self.root, self.tables())
        files = self.root / table / "session=*" / FILE
        dated = has_sessions(self.root / table)
        return pl.scan_parquet(files, hive_partitioning=not dated, try_parse_hive_dates=not dated)

    def remove(self, table: str, session: date) -> None:
        shutil.rmtree(self.path(table, session).parent, ignore_errors=True)


def has_sessions(folder: Path) -> bool:
    """Whether the rows of a table have a `session` of their own: a weekly table tells of many."""
    newest = max(folder.glob(f"session=*/{FILE}"), default=None)
    try:
        return newest is not None and "session" in pl.read_parquet_schema(newest)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        return False  # whoever reads the file is told that it is damaged


def write_parquet(frame: pl.DataFrame, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a Parquet file whole or not at all; `metadata` lies beside the schema and is no part of the content."""
    _replace(
        path,
        lambda temporary: frame.write_parquet(temporary, compression="zstd", compression_level=1, metadata=metadata),
    )


def read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:  # some damage makes it panic
        raise PartitionUnreadable(path, str(error).splitlines()[0]) from error


def write_folder(save: Callable[[Path], object], folder: Path) -> None:
    """What `save` leaves in a folder, whole or not at all. One that lies there stays: its name says its content."""
    if folder.is_dir():
        return
    half = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    save(half)
    try:
        os.replace(half, folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
        shutil.rmtree(half, ignore_errors=True)


def write_text(text: str, path: Path) -> None:
    """Write a small file whole or not at all, UTF-8."""
    _replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(content: bytes, path: Path) -> None:
    """Write a small file whole or not at all."""
    _replace(path, lambda temporary: temporary.write_bytes(content))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """`write` a temporary file beside `path`, its name this thread's own, then rename it; an error removes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def logical_hash(frame: pl.DataFrame, key: Iterable[str] = ()) -> str:
    """SHA-256 (hex) of what a table says: rows sorted by `key` (as they stand where it is empty), columns by name.
    Chunking, compression, row groups and file metadata do not enter; dtypes, nulls and every bit of a float do.
    `key` must identify a row: rows that share one keep the order in which they stand."""
    if frame.is_empty():  # most tables of a session without bars
        return _hash_of_none(tuple(frame.schema.items()))
    return _hash(frame, key)


@lru_cache(maxsize=256)
def _hash_of_none(schema: tuple[tuple[str, pl.DataType], ...]) -> str:
    return _hash(pl.DataFrame(schema=dict(schema)), ())


def _hash(frame: pl.DataFrame, key: Iterable[str]) -> str:
    digest = hashlib.sha256()
    columns = list(key)
    ordered = frame.sort(columns, nulls_last=True, maintain_order=True) if columns else frame
    for name in sorted(ordered.columns):
        column, dtype = ordered[name].rechunk(), str(ordered.schema[name])
        if "Int128" in dtype:  # Arrow has no such type
            column = pl.Series([None if v is None else str(v) for v in column.to_list()], dtype=pl.String)
        _update(digest, name, dtype, column.to_arrow())
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", name: str, dtype: str, values: "pa.Array") -> None:
    """Name, dtype, length and number of nulls first, then which are null, then the others: no two columns share bytes.

    Read from Arrow's buffers, because a session's tables have hundreds of short columns and an expression of polars
    costs more than the hash of one."""
    digest.update(json.dumps([name, dtype, len(values), values.null_count]).encode())
    if values.null_count:
        digest.update(np.packbits(values.is_null().to_numpy(zero_copy_only=False)).tobytes())
        values = values.drop_null()
    if str(values.type).startswith("dictionary"):
        values = values.dictionary_decode()
    kind = str(values.type).partition("<")[0]
    if kind in ("large_list", "fixed_size_list"):
        if kind == "large_list":
            digest.update(np.diff(_offsets(values)).tobytes())
        _update(digest, "item", str(values.type.value_type), values.flatten())
    elif kind == "struct":
        for field, inner in sorted(zip(values.type, values.flatten(), strict=True), key=lambda pair: pair[0].name):
            _update(digest, field.name, str(field.type), inner)
    elif kind in ("large_string", "large_binary"):
        offsets = _offsets(values)
        digest.update(np.diff(offsets).tobytes())
        digest.update(_bytes(values, 2, int(offsets[0]), int(offsets[-1])))
    elif kind == "bool":
        digest.update(np.packbits(values.to_numpy(zero_copy_only=False)).tobytes())
    elif kind != "null":
        width = values.type.bit_width // 8
        digest.update(_bytes(values, 1, values.offset * width, (values.offset + len(values)) * width))


def _offsets(values: "pa.Array") -> np.ndarray:
    """Where each item of a list, text or binary column begins in what lies behind, and where the last one ends."""
    if len(values) == 0:
        return np.zeros(1, np.int64)
    return np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]


def _bytes(values: "pa.Array", buffer: int, start: int, end: int) -> memoryview:
    """Part of one of a column's buffers; an empty column may have none."""
    return memoryview(values.buffers()[buffer])[start:end] if end > start else memoryview(b"")
