"""Files of minute bars into the lake, by session: what is sound to `price_history`, what is not to `quarantine`.

`market.barfiles` reads the files and judges rows one by one; here duplicates are found, sessions are merged with what
the lake holds, and the report is made. Nothing is dropped. What the lake holds afterwards depends on the files and
their order, not on how often or how far an import ran: the same command again heals a killed one and otherwise writes
nothing. Memory: one file at a time, about 500 bytes per row of the largest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from odin_core.lake import Lake
from odin_core.market.barfiles import BarFile, FileRows, Stamps, open_file, read_rows, require_minute_bars
from odin_core.market.bars import BARS, KEY, MINUTE
from odin_core.market.quality import ARRIVALS, PRICES, QUARANTINE, RULES, SessionHours, assess_session

NO_SESSION = date(1970, 1, 1)  # partition of the quarantined rows that belong to no session


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What became of one file. Rows are the file's, `corrected` counts stored bars that got other values."""

    file: str
    rows: int
    kept: int
    quarantined: dict[str, int]  # rule -> rows
    out_of_order: int
    corrected: int
    symbols: tuple[str, ...]
    written: tuple[date, ...]  # sessions whose bars changed, those with corrections included
    unchanged: tuple[date, ...]

    @property
    def sessions(self) -> list[date]:
        return sorted(self.written + self.unchanged)

    def to_dict(self) -> dict[str, Any]:
        sessions = self.sessions
        return {
            "file": self.file,
            "rows": self.rows,
            "kept": self.kept,
            "quarantined": self.quarantined,
            "out_of_order": self.out_of_order,
            "corrected": self.corrected,
            "symbols": len(self.symbols),
            "sessions": {"written": len(self.written), "unchanged": len(self.unchanged)},
            "first": str(sessions[0]) if sessions else None,
            "last": str(sessions[-1]) if sessions else None,
        }

    def to_text(self) -> str:
        sessions = self.sessions
        span = f"{len(sessions)} sessions {sessions[0]} to {sessions[-1]}" if sessions else "no session"
        lines = [
            f"{self.file}: {self.rows:,} rows, {self.kept:,} kept, {sum(self.quarantined.values()):,} quarantined",
            f"  {len(self.symbols)} symbols, {span}: {len(self.written)} written, {len(self.unchanged)} unchanged",
        ]
        lines += [f"  {n:,} rows {rule}: {RULES[rule]}" for rule, n in self.quarantined.items()]
        if self.out_of_order:
            lines.append(f"  {self.out_of_order:,} rows came after a later one of their symbol and were sorted in")
        if self.corrected:
            lines.append(f"  {self.corrected:,} bars replaced stored ones with other values")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    files: tuple[FileReport, ...]

    @property
    def sessions(self) -> list[date]:
        """Sessions that the files have bars for, ascending."""
        return sorted({session for file in self.files for session in file.sessions})

    @property
    def kept(self) -> int:
        return sum(file.kept for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        return {"files": [file.to_dict() for file in self.files]}

    def to_text(self) -> str:
        return "\n".join(file.to_text() for file in self.files)


def import_files(
    paths: Sequence[Path],
    *,
    lake: Lake,
    calendar: SessionHours,
    stamps: Stamps = "start",
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Bring files of minute bars into a market's lake: tables price_history, quarantine, arrivals, data_quality.

    `known_at` is one minute after `ts`, `stamps="end"` says that the files label a bar by its end. Of two
    rows with one symbol and time the first of a file wins; a later file replaces what an earlier one, or an earlier
    import, brought. Each session of a table is written whole or not at all. `progress` gets rows done and rows in all.
    All files are looked at before anything is written. Raises the errors of `market.barfiles`, and PartitionUnreadable
    where the lake is damaged."""
    files = [open_file(Path(path)) for path in paths]
    total, done = sum(file.rows for file in files), 0
    reports, touched = [], set[date]()
    try:
        for file in files:
            batch = _sort_out(file, read_rows(file, calendar, stamps))
            corrected: dict[date, int | None] = {}
            for session, rows, outcome in _store(lake, file, batch):
                done += rows
                corrected[session] = outcome
                if progress is not None:
                    progress(done, total)
            touched |= corrected.keys() - {NO_SESSION}
            reports.append(_report(file, batch, corrected))
    finally:  # the files before a refused one are imported
        for session in sorted(touched):
            _write_if_new(lake, "data_quality", session, assess_session(lake, calendar, session))
    return ImportReport(files=tuple(reports))


class _Batch(NamedTuple):
    """A file's rows, sorted out. `kept`: BARS, session, late. `bad`: QUARANTINE, session (NO_SESSION for none)."""

    kept: pl.DataFrame
    bad: pl.DataFrame


def _sort_out(file: BarFile, rows: FileRows) -> _Batch:
    late = (pl.col("ts") < pl.col("ts").shift().over("symbol")).fill_null(False).alias("late")
    sound = rows.typed.filter(pl.col("rule").is_null()).with_columns(late).sort("session", *KEY, maintain_order=True)
    require_minute_bars(file.path, sound)
    repeats = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in KEY).fill_null(False)
    again = sound.filter(repeats)
    kept = sound.filter(~repeats) if again.height else sound
    broken = pl.concat([rows.typed.filter(pl.col("rule").is_not_null()), _duplicates(again, kept)])
    content = rows.raw[broken["row"]].select(pl.struct(pl.all()).struct.json_encode().alias("content"))
    bad = pl.concat([broken, content], how="horizontal").with_columns(
        pl.lit(file.path.name).alias("file"),
        pl.lit(file.file_id).alias("file_id"),
        pl.col("session").fill_null(NO_SESSION),
    )
    return _Batch(
        kept.with_columns((pl.col("ts") + MINUTE).alias("known_at"), pl.lit(None, pl.Float64).alias("oi")).select(
            *BARS, "session", "late"
        ),
        bad.select(*QUARANTINE, "session").sort("session", "row"),
    )


def _duplicates(repeats: pl.DataFrame, kept: pl.DataFrame) -> pl.DataFrame:
    """Rows whose symbol and time were there before, with the rule that says whether their values were the same."""
    values = (*PRICES, "volume")
    first = repeats.join(kept.select(*KEY, *values), on=KEY, how="left", suffix="_first", maintain_order="left")
    same = pl.all_horizontal(pl.col(v).eq_missing(pl.col(f"{v}_first")) for v in values)
    rule = pl.when(same).then(pl.lit("duplicate_copy")).otherwise(pl.lit("duplicate_conflict"))
    return first.with_columns(rule.alias("rule")).select(pl.exclude("late", *(f"{v}_first" for v in values)))


def _store(lake: Lake, file: BarFile, batch: _Batch) -> Iterator[tuple[date, int, int | None]]:
    """Write the batch's sessions in order; each gives its date, its rows and, where its bars changed, how many stored
    ones got other values (None: nothing changed)."""
    kept, bad = _by_session(batch.kept), _by_session(batch.bad)
    for session in sorted(kept.keys() | bad.keys()):
        bars = kept.get(session, batch.kept.clear()).drop("session")
        quarantine = bad.get(session, batch.bad.clear()).drop("session")
        _replace_of_file(lake, "quarantine", session, file, quarantine)
        _replace_of_file(lake, "arrivals", session, file, _arrivals(file, bars, quarantine))
        yield session, len(bars) + len(quarantine), _merge(lake, session, bars.drop("late"))


def _by_session(ordered: pl.DataFrame) -> dict[date, pl.DataFrame]:
    """Slices of a frame that is sorted by session; no copies."""
    runs = ordered["session"].rle().struct.unnest().with_columns(start=pl.col("len").cum_sum() - pl.col("len"))
    return {session: ordered.slice(start, length) for length, session, start in runs.iter_rows()}


def _arrivals(file: BarFile, bars: pl.DataFrame, quarantine: pl.DataFrame) -> pl.DataFrame:
    kept = bars.group_by("symbol").agg(pl.len().alias("kept"), pl.col("late").sum().alias("out_of_order"))
    held_back = quarantine.group_by("symbol").agg(pl.len().alias("quarantined"))
    counts = kept.join(held_back, on="symbol", how="full", coalesce=True, nulls_equal=True).sort("symbol")
    named = counts.with_columns(pl.lit(file.path.name).alias("file"), pl.lit(file.file_id).alias("file_id"))
    return named.select(pl.col(name).cast(dtype) for name, dtype in ARRIVALS.items()).with_columns(
        pl.col("kept", "quarantined", "out_of_order").fill_null(0)
    )


def _replace_of_file(lake: Lake, table: str, session: date, file: BarFile, rows: pl.DataFrame) -> None:
    """Rows of one file in a table, in place of what an earlier import of the same bytes wrote there."""
    if not lake.has(table, session):
        if rows.height:
            lake.write(table, session, rows)
        return
    stored = lake.read(table, session)
    others = stored.filter(pl.col("file_id") != file.file_id)
    merged = pl.concat([others, rows]).sort("file", "file_id", maintain_order=True)
    if not merged.equals(stored):
        lake.write(table, session, merged)


def _merge(lake: Lake, session: date, bars: pl.DataFrame) -> int | None:
    """Add bars to a session, those of a stored symbol and time in its place. How many of these differed; None where
    nothing changed."""
    if not lake.has("price_history", session):
        if bars.height:
            lake.write("price_history", session, bars)
        return 0 if bars.height else None
    stored = lake.read("price_history", session)
    if stored.equals(bars):
        return None
    others = stored.join(bars, on=KEY, how="anti")
    merged = pl.concat([others, bars]).sort(KEY)
    if merged.equals(stored):
        return None
    lake.write("price_history", session, merged)
    return stored.height - others.height - stored.join(bars, on=list(BARS), how="semi", nulls_equal=True).height


def _write_if_new(lake: Lake, table: str, session: date, frame: pl.DataFrame) -> None:
    if not (lake.has(table, session) and lake.read(table, session).equals(frame)):
        lake.write(table, session, frame)


def _report(file: BarFile, batch: _Batch, corrected: dict[date, int | None]) -> FileReport:
    with_bars = set(batch.kept["session"].unique())
    counts = batch.bad.group_by("rule").agg(pl.len()).sort("len", "rule", descending=[True, False])
    return FileReport(
        file=file.path.name,
        rows=file.rows,
        kept=batch.kept.height,
        quarantined=dict(counts.iter_rows()),
        out_of_order=int(batch.kept["late"].sum()),
        corrected=sum(n or 0 for n in corrected.values()),
        symbols=tuple(batch.kept["symbol"].unique().sort()),
        written=tuple(sorted(s for s in with_bars if corrected[s] is not None)),
        unchanged=tuple(sorted(s for s in with_bars if corrected[s] is None)),
    )
