"""Writing what pages brought: a session's bars merged with those that the lake holds, its quarantine, arrivals and
instruments, and the findings that follow.

Each session of a table is written whole or not at all, and nothing is written that is there already. Findings of a
session follow from it and from earlier ones, so they are made in ascending order, from the frames that were just
written, while the next sessions are being stored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date
from types import TracebackType
from typing import NamedTuple, Self

import polars as pl

from odin_core.lake import Lake
from odin_core.market.bars import KEY, table_of
from odin_core.market.intake.pages import NO_SESSION, Batch, Page
from odin_core.market.quality.assessing import Assessor, SessionHours, blocking
from odin_core.market.sources.source import INSTRUMENTS

WRITERS = 2  # sessions that are written at the same time


class Stored(NamedTuple):
    """One session of a batch after it was written. `changed`: how many stored bars got other values; None where no bar
    changed. `removed`: how many stored bars went because the page lacks them. `frames`: by table, what the lake holds
    of the session now."""

    session: date
    rows: int
    changed: int | None
    removed: int
    frames: dict[str, pl.DataFrame]

    def without_frames(self) -> Self:
        """For a report, which must not hold a file's rows."""
        return self._replace(frames={})


def stored(lake: Lake, page: Page, batch: Batch, *, replaces: bool = False) -> Iterator[Stored]:
    """Write the batch's sessions, some at a time and told in order. `replaces`: of a symbol that a session has bars of
    in the batch, no other bars of that session stay."""
    kept, bad, arrivals = (_by_session(frame) for frame in (batch.kept, batch.bad, batch.arrivals))
    no_bars, none_bad = batch.kept.clear(), batch.bad.clear()

    def store(session: date) -> Stored:
        bars = kept.get(session, no_bars).drop("session", "late")
        held = bad.get(session, none_bad).drop("session")
        came = arrivals[session].drop("session")
        gone = bars["symbol"].unique().to_list() if replaces else []
        frames = {
            "quarantine": _replace_of_page(lake, "quarantine", session, page, batch.interval, held),
            "arrivals": _replace_of_page(lake, "arrivals", session, page, batch.interval, came, gone),
        }
        if page.instruments is not None and bars.height:
            there = page.instruments.filter(pl.col("symbol").is_in(bars["symbol"].unique().implode()))
            terms = there.select(*INSTRUMENTS)
            frames["instruments"] = _merge(lake, "instruments", session, terms, ["symbol"]).frame
        table = table_of(batch.interval)
        merged = _merge(lake, table, session, bars, KEY, gone)
        frames[table] = merged.frame
        return Stored(session, len(bars) + len(held), merged.changed, merged.removed, frames)

    with ThreadPoolExecutor(WRITERS) as pool:
        yield from pool.map(store, sorted(kept.keys() | bad.keys()))


def _by_session(ordered: pl.DataFrame) -> dict[date, pl.DataFrame]:
    """Slices of a frame that is sorted by session; no copies."""
    runs = ordered["session"].rle().struct.unnest().with_columns(start=pl.col("len").cum_sum() - pl.col("len"))
    return {session: ordered.slice(start, length) for length, session, start in runs.iter_rows()}


def without_bars(arrivals: pl.DataFrame, interval: str, symbols: Sequence[str]) -> pl.DataFrame:
    """Arrivals (ARRIVALS) once the bars of these symbols are gone: what was kept of them is so no more, and rows that
    say nothing then are left out."""
    is_gone = pl.col("symbol").is_in(symbols) & (pl.col("interval") == interval)
    counts = [pl.when(is_gone).then(0).otherwise(name).cast(pl.Int64).alias(name) for name in ("kept", "out_of_order")]
    return arrivals.with_columns(counts).filter((pl.col("kept") > 0) | (pl.col("quarantined") > 0))


def _replace_of_page(
    lake: Lake, table: str, session: date, page: Page, interval: str, rows: pl.DataFrame, gone: Sequence[str] = ()
) -> pl.DataFrame:
    """Rows of one page in a table, in place of what an earlier import of the same content wrote there. `gone`: symbols
    whose bars of other pages are no more. Gives what the table holds now."""
    if not lake.has(table, session):
        if rows.height:
            lake.write(table, session, rows)
        return rows
    stored = lake.read(table, session)
    others = stored.filter((pl.col("origin_id") != page.origin_id) | (pl.col("interval") != interval))
    if gone:
        others = without_bars(others, interval, gone)
    merged = pl.concat([others, rows]).sort("origin", "origin_id", "interval", maintain_order=True)
    if not merged.equals(stored):
        lake.write(table, session, merged)
    return merged


class _Merged(NamedTuple):
    """What a table holds of a session now, how many stored rows got other values (None: nothing changed), and how many
    went."""

    frame: pl.DataFrame
    changed: int | None
    removed: int


def _merge(
    lake: Lake, table: str, session: date, rows: pl.DataFrame, key: Iterable[str], gone: Sequence[str] = ()
) -> _Merged:
    """Add rows to a session, those of a stored key in its place, and all of the symbols in `gone`."""
    if not lake.has(table, session):
        if rows.height:
            lake.write(table, session, rows)
        return _Merged(rows, 0 if rows.height else None, 0)
    stored, columns = lake.read(table, session), list(key)
    if stored.equals(rows):
        return _Merged(stored, None, 0)
    others = stored.join(rows, on=columns, how="anti")
    met = stored.height - others.height
    kept = others.filter(~pl.col("symbol").is_in(gone)) if gone else others
    merged = pl.concat([kept, rows]).sort(columns)
    if merged.equals(stored):
        return _Merged(stored, None, 0)
    lake.write(table, session, merged)
    same = stored.join(rows, on=rows.columns, how="semi", nulls_equal=True).height
    return _Merged(merged, met - same, others.height - kept.height)


class Findings:
    """Keeps the table data_quality up with sessions that are stored; a context, at whose end it is complete.

    `add` may follow the storing of sessions in ascending order: they are assessed in a thread meanwhile. `touch` names
    sessions in any order; they, and the session after each of them, are assessed at the end. That end comes after an
    error too, so the findings of what was stored are there. `errors`: those of each assessed session that has any, as
    text."""

    def __init__(self, lake: Lake, calendar: SessionHours) -> None:
        self.errors: dict[date, list[str]] = {}
        self._lake, self._assessor = lake, Assessor(lake, calendar)
        self._touched: dict[date, Mapping[str, pl.DataFrame] | None] = {}
        self._assessed = set[date]()
        self._pool = ThreadPoolExecutor(1)
        self._before: list[Future[None]] = []
        self._now: list[Future[None]] = []

    def touch(self, session: date, held: Mapping[str, pl.DataFrame] | None = None) -> None:
        """`held`: by table, what the session is to be assessed with in place of what the lake holds of it."""
        if session != NO_SESSION:
            self._touched[session] = held

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

    def _assess(self, session: date, frames: Mapping[str, pl.DataFrame] | None = None) -> None:
        findings = self._assessor.assess(session, held=frames)
        self._lake.write_changed("data_quality", session, findings)
        self._assessed.add(session)
        errors = blocking(findings).sort("symbol", "rule").select("symbol", "rule", "detail")
        if errors.height:
            self.errors[session] = [f"{symbol} {rule}: {detail}" for symbol, rule, detail in errors.iter_rows()]

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
        asked = {*self._touched, *(day for day in after if day is not None)}
        for session in sorted(asked - self._assessed):
            self._assess(session, self._touched.get(session))


def assess(lake: Lake, calendar: SessionHours, sessions: Iterable[date]) -> None:
    """The table data_quality of these sessions and of those after them, whose findings follow from them; written only
    where it changes."""
    with Findings(lake, calendar) as findings:
        for session in sessions:
            findings.touch(session)
