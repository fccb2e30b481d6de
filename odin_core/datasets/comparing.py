"""Two datasets side by side, by their manifests alone: what the second has that the first has not, and the reverse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from odin_core.datasets.manifest import DataFile, Manifest

SHOWN = 8  # names in a line of text
PLAIN = ("kind", "market", "form", "first", "last", "life", "features_version", "code_version")


@dataclass(frozen=True, kw_only=True)
class TableChange:
    """Sessions of one table: only in the first, only in the second, and in both with other values; rows in each."""

    only_first: list[date]
    only_second: list[date]
    changed: list[date]
    rows: tuple[int, int]

    @property
    def is_empty(self) -> bool:
        return not (self.only_first or self.only_second or self.changed)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`values`: facts that differ, the first's and the second's. `symbols`, `sources`: names that one has alone."""

    first: str
    second: str
    values: dict[str, tuple[Any, Any]]
    symbols: tuple[list[str], list[str]]
    sources: tuple[list[str], list[str]]
    tables: dict[str, TableChange]

    @property
    def same(self) -> bool:
        """Whether they say the same; who made them, and under which name, does not count."""
        return not (self.values.keys() - {"code_version", "life"} or any(self.symbols) or self.tables)

    def to_dict(self) -> dict[str, Any]:
        return {
            "first": self.first, "second": self.second, "same": self.same,
            "values": {name: list(pair) for name, pair in self.values.items()},
            "symbols": {"only_first": self.symbols[0], "only_second": self.symbols[1]},
            "sources": {"only_first": self.sources[0], "only_second": self.sources[1]},
            "tables": {name: vars(change) for name, change in self.tables.items()},
        }  # fmt: skip

    def to_text(self) -> str:
        lines = [f"first   {self.first}", f"second  {self.second}"]
        lines += [f"{name.replace('_', ' ')}: {was} → {becomes}" for name, (was, becomes) in self.values.items()]
        for what, (first, second) in (("symbols", self.symbols), ("sources", self.sources)):
            lines += [f"{what} only in the first: {_few(first)}"] * bool(first)
            lines += [f"{what} only in the second: {_few(second)}"] * bool(second)
        for table, change in self.tables.items():
            lines.append(f"{table}: {change.rows[0]:,} → {change.rows[1]:,} rows")
            lines += [f"  {len(s)} sessions only in the first: {_few(s)}" for s in (change.only_first,) if s]
            lines += [f"  {len(s)} sessions only in the second: {_few(s)}" for s in (change.only_second,) if s]
            lines += [f"  {len(s)} sessions with other values: {_few(s)}" for s in (change.changed,) if s]
        return "\n".join([*lines, "they hold the same values"] if self.same else lines)


def compare(first: Manifest, second: Manifest) -> Comparison:
    """What differs between two manifests; files are matched by table and session."""
    values = {name: (getattr(first, name), getattr(second, name)) for name in PLAIN}
    tables = {
        name: _table_change(_of(first, name), _of(second, name))
        for name in sorted(first.tables.keys() | second.tables.keys())
    }
    return Comparison(
        first=first.version,
        second=second.version,
        values={name: pair for name, pair in values.items() if pair[0] != pair[1]},
        symbols=_apart(first.symbols, second.symbols),
        sources=_apart([source_name(s) for s in first.sources], [source_name(s) for s in second.sources]),
        tables={name: change for name, change in tables.items() if not change.is_empty},
    )


def _of(manifest: Manifest, table: str) -> dict[date, DataFile]:
    return {file.session: file for file in manifest.files if file.table == table}


def _table_change(first: Mapping[date, DataFile], second: Mapping[date, DataFile]) -> TableChange:
    only_first, only_second = _apart(list(first), list(second))
    return TableChange(
        only_first=only_first,
        only_second=only_second,
        changed=sorted(s for s in first.keys() & second.keys() if first[s].hash != second[s].hash),
        rows=(sum(f.rows for f in first.values()), sum(f.rows for f in second.values())),
    )


def _apart(first: Sequence[Any], second: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    return sorted(set(first) - set(second)), sorted(set(second) - set(first))


def source_name(source: Mapping[str, Any]) -> str:
    """A source as one text: its origin first, then what else is said of it."""
    rest = ", ".join(f"{name} {value}" for name, value in sorted(source.items()) if name != "origin")
    return f"{source['origin']} ({rest})"


def _few(items: Sequence[Any]) -> str:
    shown = ", ".join(map(str, items[:SHOWN]))
    return f"{shown}, … {items[-1]}" if len(items) > SHOWN else shown
