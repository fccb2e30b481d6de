"""Writing what pages brought: a session's bars merged with those that the lake holds, its quarantine, arrivals and
instruments, and the findings that follow.

Each session of a table is written whole or not at all, and nothing is written that is there already. Findings of a
session follow from it and from earlier ones, so they are made in ascending order, from the frames that were just
written, while the next sessions are being stored."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from types import TracebackType
from typing import NamedTuple, Self

import polars as pl

from odin_core.lake import Lake
from odin_core.market.bars import KEY, table_of
from odin_core.market.intake.pages import NO_SESSION, Batch, Page
from odin_core.market.quality.assessing import Assessor, SessionHours
from odin_core.market.sources.source import INSTRUMENTS

WRITERS = 2  # sessions that are written at the same time


class Stored(NamedTuple):
    """One session of a batch after it was written. `changed`: how many stored bars got other values; None where no bar
    changed. `frames`: by table, what the lake holds of the session now."""

    session: date
    rows: int
    changed: int | None
    frames: dict[str, pl.DataFrame]


def stored(lake: Lake, page: Page, batch: Batch) -> Iterator[Stored]:
    """Write the batch's sessions, some at a time and told in order."""
    kept, bad, arrivals = (_by_session(frame) for frame in (batch.kept, batch.bad, batch.arrivals))
    no_bars, none_bad = batch.kept.clear(), batch.bad.clear()

    def store(session: date) -> Stored:
        bars = kept.get(session, no_bars).drop("session", "late")
        held = bad.get(session, none_bad).drop("session")
        came = arrivals[session].drop("session")
        frames = {
            "quarantine": _replace_of_page(lake, "quarantine", session, page, batch.interval, held),
            "arrivals": _replace_of_page(lake, "arrivals", session, page, batch.interval, came),
        }
        if page.instruments is not None and bars.height:
            there = page.instruments.filter(pl.col("symbol").is_in(bars["symbol"].unique().implode()))
            terms = there.select(*INSTRUMENTS)
            frames["instruments"], _ = _merge(lake, "instruments", session, terms, ["symbol"])
        table = table_of(batch.interval)
        frames[table], changed = _merge(lake, table, session, bars, KEY)
        return Stored(session, len(bars) + len(held), changed, frames)

    with ThreadPoolExecutor(WRITERS) as pool:
        yield from pool.map(store, sorted(kept.keys() | bad.keys()))


def _by_session(ordered: pl.DataFrame) -> dict[date, pl.DataFrame]:
    """Slices of a frame that is sorted by session; no copies."""
    runs = ordered["session"].rle().struct.unnest().with_columns(start=pl.col("len").cum_sum() - pl.col("len"))
    return {session: ordered.slice(start, length) for length, session, start in runs.iter_rows()}


def _replace_of_page(
    lake: Lake, table: str, session: date, page: Page, interval: str, rows: pl.DataFrame
) -> pl.DataFrame:
    """Rows of one page in a table, in place of what an earlier import of the same content wrote there. Gives what the
    table holds now."""
    if not lake.has(table, session):
        if rows.height:
            lake.write(table, session, rows)
        return rows
    stored = lake.read(table, session)
    others = stored.filter((pl.col("origin_id") != page.origin_id) | (pl.col("interval") != interval))
    merged = pl.concat([others, rows]).sort("origin", "origin_id", "interval", maintain_order=True)
    if not merged.equals(stored):
        lake.write(table, session, merged)
    return merged


def _merge(
    lake: Lake, table: str, session: date, rows: pl.DataFrame, key: Iterable[str]
) -> tuple[pl.DataFrame, int | None]:
    """Add rows to a session, those of a stored key in its place. Gives what the table holds now, and how many rows
    differed from stored ones; None where nothing changed."""
    if not lake.has(table, session):
        if rows.height:
            lake.write(table, session, rows)
        return rows, 0 if rows.height else None
    stored, columns = lake.read(table, session), list(key)
    if stored.equals(rows):
        return stored, None
    others = stored.join(rows, on=columns, how="anti")
    merged = pl.concat([others, rows]).sort(columns)
    if merged.equals(stored):
        return stored, None
    lake.write(table, session, merged)
    same = stored.join(rows, on=rows.columns, how="semi", nulls_equal=True).height
    return merged, stored.height - others.height - same


class Findings:
    """Keeps the table data_quality up with sessions that are stored; a context, at whose end it is complete.

    `add` may follow the storing of sessions in ascending order: they are assessed in a thread meanwhile. `touch` names
    sessions in any order; they, and the session after each that changed, are assessed at the end. That end comes after
    an error too, so the findings of what was stored are there."""

    def __init__(self, lake: Lake, calendar: SessionHours) -> None:
        self._lake, self._assessor = lake, Assessor(lake, calendar)
        self._touched, self._assessed = set[date](), set[date]()
        self._pool = ThreadPoolExecutor(1)
        self._before: list[Future[None]] = []
        self._now: list[Future[None]] = []

    def touch(self, session: date) -> None:
        if session != NO_SESSION:
            self._touched.add(session)

    def add(self, done: Stored) -> None:
        """Assess a session; none of an earlier date may be stored from here on."""
        self.touch(done.session)
        if done.session != NO_SESSION:
            self._now.append(self._pool.submit(self._assess, done.session, done.frames))

    def wait(self) -> None:
        """Wait for what was added before the last call, so that at most two batches are held. Raises its errors."""
        for future in self._before:
            future.result()
        self._before, self._now = self._now, []

    def _assess(self, session: date, frames: dict[str, pl.DataFrame] | None = None) -> None:
        findings = self._assessor.assess(session, held=frames)
        if not (self._lake.has("data_quality", session) and self._lake.read("data_quality", session).equals(findings)):
            self._lake.write("data_quality", session, findings)
        self._assessed.add(session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self.wait()
            self.wait()
        after = (self._assessor.after(session) for session in self._touched)
        for session in sorted((self._touched | {day for day in after if day is not None}) - self._assessed):
            self._assess(session)


def assess(lake: Lake, calendar: SessionHours, sessions: Iterable[date]) -> None:
    """The table data_quality of these sessions and of those after them, whose findings follow from them; written only
    where it changes."""
    with Findings(lake, calendar) as findings:
        for session in sessions:
            findings.touch(session)
