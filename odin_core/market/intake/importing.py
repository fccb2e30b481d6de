"""The one way of bars into the lake: pages of rows, by session; what is sound to the bars, what is not to `quarantine`.

`intake.barfiles` makes pages of files, `intake.fetching` of a source's replies, `intake.pages` sorts their rows out,
`intake.storing` merges sessions with what the lake holds. Nothing is dropped. What the lake holds afterwards depends on
the pages and their order, not on how often or how far an import ran: the same command again heals a killed one and
otherwise writes nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from odin_core.lake import Lake
from odin_core.market.intake.barfiles import BarFile, Said, open_file
from odin_core.market.intake.pages import Batch, Page, sorted_out
from odin_core.market.intake.spilling import spill_folder, windows
from odin_core.market.intake.storing import Findings, Stored, stored
from odin_core.market.quality.assessing import RULES, SessionHours

STRANGE_DAYS, STRANGE_SHARE = 10, 0.01  # days that are no sessions, from which a daily file looks foreign
TOLD = 5  # blocked sessions that are told one by one


@dataclass(frozen=True, kw_only=True)
class PageReport:
    """What became of a page. Rows are the page's, `corrected` counts stored bars that got other values."""

    origin: str
    interval: str
    rows: int
    kept: int
    bars: int  # as many as rows were kept, or made of the ticks that were
    quarantined: dict[str, int]  # rule -> rows, the most frequent first
    out_of_order: int
    corrected: int
    symbols: tuple[str, ...]
    written: tuple[date, ...]  # sessions whose bars changed, those with corrections included
    unchanged: tuple[date, ...]
    layout: str | None = None  # of a file
    left_out: int = 0  # rows of symbols that were not asked for
    removed: int = 0  # stored bars that went because the page replaces its symbols' sessions and lacks them

    @property
    def sessions(self) -> list[date]:
        """Sessions that the page has sound bars for, ascending."""
        return sorted(self.written + self.unchanged)

    def plus(self, other: "PageReport") -> "PageReport":
        """The report of two pages of one origin that share no session."""
        counts = {rule: self.quarantined.get(rule, 0) + n for rule, n in other.quarantined.items()}
        return replace(
            self,
            rows=self.rows + other.rows,
            kept=self.kept + other.kept,
            bars=self.bars + other.bars,
            quarantined=_most_frequent_first(self.quarantined | counts),
            out_of_order=self.out_of_order + other.out_of_order,
            corrected=self.corrected + other.corrected,
            removed=self.removed + other.removed,
            symbols=tuple(sorted({*self.symbols, *other.symbols})),
            written=tuple(sorted(self.written + other.written)),
            unchanged=tuple(sorted(self.unchanged + other.unchanged)),
        )

    def to_dict(self) -> dict[str, Any]:
        sessions = self.sessions
        return {
            "origin": self.origin,
            "interval": self.interval,
            "layout": self.layout,
            "rows": self.rows,
            "kept": self.kept,
            "bars": self.bars,
            "left_out": self.left_out,
            "quarantined": self.quarantined,
            "out_of_order": self.out_of_order,
            "corrected": self.corrected,
            "removed": self.removed,
            "symbols": len(self.symbols),
            "sessions": {"written": len(self.written), "unchanged": len(self.unchanged)},
            "first": str(sessions[0]) if sessions else None,
            "last": str(sessions[-1]) if sessions else None,
        }

    def to_text(self) -> str:
        sessions = self.sessions
        span = f"{len(sessions)} sessions {sessions[0]} to {sessions[-1]}" if sessions else "no session"
        made = f" as {self.bars:,} bars" if self.bars != self.kept else ""
        how = f"interval {self.interval}" + (f", layout {self.layout}" if self.layout else "")
        lines = [
            f"{self.origin}: {self.rows:,} rows, {self.kept:,} kept{made}, "
            f"{sum(self.quarantined.values()):,} quarantined ({how})",
            f"  {len(self.symbols)} symbols, {span}: {len(self.written)} written, {len(self.unchanged)} unchanged",
        ]
        lines += [f"  {n:,} rows {rule}: {RULES[rule]}" for rule, n in self.quarantined.items()]
        strangers = self.quarantined.get("not_a_session", 0)
        if self.interval == "day" and strangers >= max(STRANGE_DAYS, STRANGE_SHARE * self.rows):
            lines.append(f"  {strangers:,} of its days are no sessions of this market: is it a file of another one?")
        if self.out_of_order:
            lines.append(f"  {self.out_of_order:,} rows came after a later one of their symbol and were sorted in")
        if self.left_out:
            lines.append(f"  {self.left_out:,} rows of symbols that were not asked for were left out")
        if self.corrected:
            lines.append(f"  {self.corrected:,} bars replaced stored ones with other values")
        if self.removed:
            lines.append(f"  {self.removed:,} stored bars that the file lacks were removed")
        return "\n".join(lines)


def store_page(page: Page, *, lake: Lake, calendar: SessionHours, interval: str = "1m") -> PageReport:
    """Bring a page into a market's lake: the interval's bars (BARS), quarantine, arrivals, instruments, data_quality.

    Of two rows with one symbol and time the first of a page wins; a later page replaces what an earlier one brought.
    Rows that belong to no session lie in the partition NO_SESSION. Each session of a table is written whole or not at
    all, and the same page again writes nothing. Raises NotAnInterval, and PartitionUnreadable where the lake is
    damaged."""
    batch = sorted_out(page, calendar, interval)
    done: list[Stored] = []
    with Findings(lake, calendar) as findings:
        for session in stored(lake, page, batch):
            done.append(session.without_frames())
            findings.add(session)
    return reported(page, batch, done)


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    files: tuple[PageReport, ...]
    blocked: dict[date, list[str]] = field(default_factory=dict)  # sessions with errors, these or older ones, as text

    @property
    def sessions(self) -> list[date]:
        """Sessions that the files have bars for, ascending."""
        return sorted({session for file in self.files for session in file.sessions})

    @property
    def kept(self) -> int:
        return sum(file.kept for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        blocked = {str(session): errors for session, errors in sorted(self.blocked.items())}
        return {"files": [file.to_dict() for file in self.files], "blocked": blocked}

    def to_text(self) -> str:
        return "\n".join([*(file.to_text() for file in self.files), *blocked_text(self.blocked)])


def blocked_text(blocked: Mapping[date, Sequence[str]]) -> list[str]:
    """What to say of sessions that may not be used: how many, and what is wrong with the first of them."""
    if not blocked:
        return []
    count = f"{len(blocked):,} session{'s' if len(blocked) > 1 else ''}"
    told = [f"  {session} {errors[0]}" for session, errors in sorted(blocked.items())[:TOLD]]
    return [f"{count} blocked by errors in the data, see `odin data quality`:", *told]


def import_files(
    paths: Sequence[Path],
    *,
    lake: Lake,
    calendar: SessionHours,
    said: Said | None = None,
    replaces: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Bring files of bars, ticks or trades into a market's lake, each as a page, see `store_page`.

    `said`: what the user says of the files, over what their layouts say. `replaces`: of the symbols and sessions that a
    file has sound bars for, the lake keeps nothing but these. `progress` gets rows done and rows in all. All files are
    looked at before anything is written. Memory: some 400,000 rows at a time, however long a file is, and all of its
    rows that belong to no session. Raises the errors of `intake.barfiles` and `intake.filechecks`, and
    PartitionUnreadable."""
    said = said or Said()
    files = [open_file(Path(path), said) for path in paths]
    total, handled = sum(file.rows for file in files), 0
    reports: list[PageReport] = []

    def tell(rows: int) -> None:
        if progress is not None and rows:
            progress(handled, total)

    # the files before a refused one are imported, and their findings too
    with Findings(lake, calendar) as findings, spill_folder(lake.root) as folder:
        for file in files:
            before, report = handled, _empty_report(file)
            for page, batch in _ahead(_pages(file, said, calendar, _below(folder, file))):
                done: list[Stored] = []
                for session in stored(lake, page, batch, replaces=replaces):
                    done.append(session.without_frames())
                    if file is files[-1]:
                        findings.add(session)
                    else:  # a later file may change it, or a session before it
                        findings.touch(session.session)
                    handled += session.rows
                    tell(session.rows)
                findings.wait()
                report = report.plus(reported(page, batch, done))
            reports.append(replace(report, left_out=file.rows - report.rows))
            left, handled = before + file.rows - handled, before + file.rows
            tell(left)
    return ImportReport(files=tuple(reports), blocked=findings.errors)


def _pages(file: BarFile, said: Said, calendar: SessionHours, folder: Path) -> Iterator[tuple[Page, Batch]]:
    for rows in windows(file, said, calendar, folder):
        page = Page(
            origin=file.path.name,
            origin_id=file.file_id,
            raw=rows.raw,
            bars=rows.bars,
            rows=rows.rows,
            instruments=rows.instruments,
            kind=file.layout.rows,
        )
        yield page, sorted_out(page, calendar, file.layout.interval)


def _ahead(items: Iterator[tuple[Page, Batch]]) -> Iterator[tuple[Page, Batch]]:
    """The same items, each made in a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _below(folder: Path, file: BarFile) -> Path:
    own = folder / file.file_id
    own.mkdir(exist_ok=True)
    return own


def _empty_report(file: BarFile) -> PageReport:
    return PageReport(
        origin=file.path.name, interval=file.layout.interval, layout=file.layout.name, rows=0, kept=0, bars=0,
        quarantined={}, out_of_order=0, corrected=0, symbols=(), written=(), unchanged=(),
    )  # fmt: skip


def reported(page: Page, batch: Batch, done: Sequence[Stored]) -> PageReport:
    with_bars = set(batch.kept["session"].unique())
    outcomes = {session.session: session.changed for session in done}
    return PageReport(
        origin=page.origin,
        interval=batch.interval,
        rows=page.bars.height,
        kept=batch.used,
        bars=batch.kept.height,
        quarantined=_most_frequent_first(dict(batch.bad.group_by("rule").len().iter_rows())),
        out_of_order=int(batch.kept["late"].sum()),
        corrected=sum(n or 0 for n in outcomes.values()),
        removed=sum(session.removed for session in done),
        symbols=tuple(batch.kept["symbol"].unique().sort()),
        written=tuple(sorted(s for s in with_bars if outcomes[s] is not None)),
        unchanged=tuple(sorted(s for s in with_bars if outcomes[s] is None)),
    )


def _most_frequent_first(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
