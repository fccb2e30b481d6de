"""A dataset's manifest: which files it consists of and what they say, frozen, with a version that follows from content.

It holds no clock time and no absolute path, so the same content gives the same manifest wherever and whenever it is
made. Where its files lie is said beside it: in `registry` for those of a home, by the folder itself for an export."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from odin_core.errors import OdinError
from odin_core.lake import write_text
from odin_core.lifecycle.config import identity

FILE = "manifest.json"  # its name inside an export
FORMAT = 1
Kind = Literal["export", "training"]


class ManifestUnreadable(OdinError):
    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is no readable manifest ({why}); restore it from a backup or make the dataset again")


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a dataset. `hash` is the logical one, over values; `sha256` is over bytes, None where it was not
    kept. In a training window `hash` and `rows` of `features` are those of the symbols that were decided on."""

    table: str
    session: date
    path: str  # relative to the dataset's root, with forward slashes
    rows: int
    hash: str
    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a dataset is. `first`, `last`: its sessions' bounds. `completeness`: table → column → share of rows with a
    known value, 0 to 1. `sources`: what the bars came from, one mapping each. `life`: None for market data."""

    version: str
    kind: Kind
    market: str
    form: str  # parquet or csv
    first: date
    last: date
    symbols: tuple[str, ...]
    files: tuple[DataFile, ...]
    sources: tuple[Mapping[str, Any], ...]
    completeness: Mapping[str, Mapping[str, float]]
    features_version: str | None
    code_version: str
    life: str | None = None

    @property
    def tables(self) -> dict[str, dict[str, int]]:
        """Files and rows of each table."""
        counts: dict[str, dict[str, int]] = {}
        for file in self.files:
            of = counts.setdefault(file.table, {"sessions": 0, "rows": 0})
            of["sessions"] += 1
            of["rows"] += file.rows
        return dict(sorted(counts.items()))

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """As JSON says it, with the checksum of the rest in it. `from_dict` gives the same manifest back."""
        files = [vars(file) | {"session": str(file.session)} for file in self.files]
        bounds = {"first": str(self.first), "last": str(self.last)}
        body = {"format": FORMAT, **vars(self), **bounds, "files": files}
        return body | {"checksum": _checksum(body)}

    @classmethod
    def from_dict(cls, said: Any, path: Path) -> Self:
        """Raises ManifestUnreadable (naming `path`) for one that is damaged or that somebody changed."""
        try:
            body = dict(said)
            checksum, form = body.pop("checksum"), body["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestUnreadable(path, f"{type(error).__name__}: {error}") from error
        if form != FORMAT:
            raise ManifestUnreadable(path, f"it has format {form!r} and this ODIN knows format {FORMAT}")
        if checksum != _checksum(body):
            raise ManifestUnreadable(path, "its checksum is not that of its text: it was changed after it was made")
        try:
            return cls(**_typed({name: value for name, value in body.items() if name != "format"}))
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestUnreadable(path, f"{type(error).__name__}: {error}") from error


def _typed(body: dict[str, Any]) -> dict[str, Any]:
    files = (file | {"session": date.fromisoformat(file["session"])} for file in body["files"])
    return body | {
        "first": date.fromisoformat(body["first"]),
        "last": date.fromisoformat(body["last"]),
        "symbols": tuple(body["symbols"]),
        "sources": tuple(body["sources"]),
        "files": tuple(DataFile(**file) for file in files),
    }


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def export_version(market: str, form: str, files: Sequence[DataFile]) -> str:
    """The version of an export: it changes with any value, row, column, session, table or the form, and with no byte
    that says nothing."""
    return f"export-{identity(market, form, [(f.path, f.rows, f.hash) for f in files])}"


def sha256_of(path: Path) -> str:
    """Of a file's bytes, hex; read in pieces. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(manifest: Manifest, path: Path) -> None:
    write_text(json.dumps(manifest.to_dict(), indent=1, sort_keys=True) + "\n", path)


def read_manifest(path: Path) -> Manifest:
    """Raises ManifestUnreadable."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestUnreadable(path, str(error)) from error
    return Manifest.from_dict(said, path)
