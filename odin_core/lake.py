"""The lake: tables as hive-partitioned Parquet, one file per session, written whole or not at all.

A table is a folder, a partition is `<table>/session=YYYY-MM-DD/part.parquet`. Writing goes to a temporary name in the
same folder and is renamed, so a reader sees the old file or the new one. Nothing here knows what a table means."""

import hashlib
import os
import shutil
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from odin_core.errors import OdinError

FILE = "part.parquet"


class PartitionMissing(OdinError):
    def __init__(self, table: str, session: date, path: Path) -> None:
        super().__init__(f"{table} has no session {session} ({path}); materialise it or import its data first")


class PartitionUnreadable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is not a readable Parquet file ({why}); it was damaged after it was written. "
            f"Delete its folder and run the same command again: it will be computed or asked for anew"
        )


class Lake:
    """One folder of tables. `Lake(home / "lake" / "nse")` holds a market's, `Lake(life.generation)` a life's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, table: str, session: date) -> Path:
        return self.root / table / f"session={session}" / FILE

    def has(self, table: str, session: date) -> bool:
        return self.path(table, session).is_file()

    def sessions(self, table: str) -> list[date]:
        """Sessions of a table that hold a file, ascending."""
        names = (p.parent.name for p in (self.root / table).glob(f"session=*/{FILE}"))
        return sorted(date.fromisoformat(n.removeprefix("session=")) for n in names)

    def tables(self) -> list[str]:
        return sorted({p.parent.parent.name for p in self.root.glob(f"*/session=*/{FILE}")})

    def write(self, table: str, session: date, frame: pl.DataFrame) -> Path:
        """Write one partition atomically; an existing one is replaced. A kill leaves the old file or the new one."""
        path = self.path(table, session)
        write_parquet(frame, path)
        return path

    def read(self, table: str, session: date) -> pl.DataFrame:
        """One partition. Raises PartitionMissing or PartitionUnreadable."""
        path = self.path(table, session)
        if not path.is_file():
            raise PartitionMissing(table, session, path)
        return read_parquet(path)

    def read_many(self, table: str, sessions: Iterable[date]) -> pl.DataFrame:
        """Several partitions, concatenated in the order given; each must exist. Empty input gives an empty frame."""
        frames = [self.read(table, s) for s in sessions]
        return pl.concat(frames) if frames else pl.DataFrame()

    def scan(self, table: str) -> pl.LazyFrame:
        """All partitions, lazily, with the partition's date as column `session` where the file has none."""
        return pl.scan_parquet(self.root / table / "session=*" / FILE, hive_partitioning=True, try_parse_hive_dates=True)

    def remove(self, table: str, session: date) -> None:
        shutil.rmtree(self.path(table, session).parent, ignore_errors=True)


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    frame.write_parquet(temporary, compression="zstd", compression_level=1)
    os.replace(temporary, path)


def read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.ComputeError, OSError) as error:
        raise PartitionUnreadable(path, str(error).splitlines()[0]) from error


def write_text(text: str, path: Path) -> None:
    """Write a small file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def logical_hash(frame: pl.DataFrame, key: Iterable[str] = ()) -> str:
    """SHA-256 (hex) of what a table says: rows sorted by `key` (as they stand where it is empty), columns by name.
    Chunking, compression, row groups and file metadata do not enter; dtypes, nulls and every bit of a float do."""
    digest = hashlib.sha256()
    ordered = frame.sort(list(key), nulls_last=True, maintain_order=True) if list(key) else frame
    for name in sorted(ordered.columns):
        _update(digest, name, ordered[name].rechunk())
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", name: str, column: pl.Series) -> None:
    digest.update(f"{name}:{column.dtype}:{len(column)};".encode())
    digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
    if column.dtype == pl.List or column.dtype == pl.Array:
        as_list = column.cast(pl.List(column.dtype.inner))  # pyright: ignore[reportAttributeAccessIssue]
        digest.update(as_list.list.len().fill_null(0).to_numpy().tobytes())
        _update(digest, "item", as_list.explode(empty_as_null=False, keep_nulls=False).rechunk())
    elif column.dtype == pl.Struct:
        for field in sorted(column.struct.fields):
            _update(digest, field, column.struct.field(field))
    elif column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Binary):
        text = column.cast(pl.String).fill_null("")
        digest.update(text.str.len_bytes().to_numpy().tobytes())
        digest.update("".join(text).encode())
    else:
        physical = column.to_physical()
        filled = physical.fill_null(False if physical.dtype == pl.Boolean else 0)
        digest.update(np.ascontiguousarray(filled.to_numpy()).tobytes())
