"""The tap: live ticks or minute bars onto disk as they come, and into the lake once their session is over.

`Tap` is fed by a stream (`sources.source.Streams`) and never makes it wait: rows go into a bounded queue, and every few
seconds a thread writes them as `<folder>/<market>/date=YYYY-MM-DD/exchange=…/NNNNNN.parquet`, by the UTC date of the
row. A batch is there whole or not at all; a kill loses what was still queued, the rows since the batch before.
`compact` turns a session's batches into minute bars by the same way as a file's. It reads the batches and leaves them,
so it may be killed and run again; they are the raw record, for people to delete. What was dropped or lost is written to
`<folder>/<market>/exchange=….jsonl` and told by `compact`."""

import fcntl
import hashlib
import json
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import polars as pl

from odin_core.errors import OdinError
from odin_core.lake import Lake, PartitionUnreadable, read_parquet, write_parquet
from odin_core.market.bars import KEY
from odin_core.market.calendar import SessionCalendar
from odin_core.market.intake.importing import Page, PageReport, store_page
from odin_core.market.intake.judging import NEAR, hours_near, placed
from odin_core.market.intake.ticks import minute_bars
from odin_core.market.sources.source import SOURCE_BARS, TICKS

log = logging.getLogger(__name__)
KINDS = {"ticks": TICKS, "bars": SOURCE_BARS}
DAY = timedelta(days=1)


class TapBusy(OdinError):
    def __init__(self, path: Path) -> None:
        super().__init__(
            f"another process is tapping into {path.with_suffix('')}, and two would count everything twice; stop it "
            f"first, or give this one another exchange"
        )


class BadExchange(OdinError):
    def __init__(self, exchange: str) -> None:
        super().__init__(f"{exchange!r} cannot name the folder of an exchange; use letters, digits, '.', '_' and '-'")


class TapFailed(OdinError):
    def __init__(self, folder: Path, rows: int, why: str) -> None:
        super().__init__(f"{rows:,} tapped rows could not be written below {folder} and are lost: {why}")


class TapCounts(NamedTuple):
    """Rows since the tap was opened. `offered` = `written` + `dropped` + those still queued."""

    offered: int
    written: int
    dropped: int
    batches: int  # files


class Tap:
    """Open it with `with`; `offer` from one thread or several. Raises TapBusy where the exchange is tapped already,
    and BadExchange.

    `now`: aware, UTC, for the journal. `seconds`: between two batches. `limit`: rows that may wait, those being written
    included; 200,000 ticks are about 10 MB. Where the disk fails, rows wait for the next batch."""

    def __init__(
        self,
        folder: Path,
        market: str,
        exchange: str,
        *,
        now: Callable[[], datetime],
        seconds: float = 5.0,
        limit: int = 200_000,
    ) -> None:
        if not re.fullmatch(r"[\w.-]+", exchange):
            raise BadExchange(exchange)
        self._folder = folder / market
        self._exchange = exchange
        self._now = now
        self._seconds = seconds
        self._limit = limit
        self._guard = threading.Lock()  # of the queue and the counts; never held while writing
        self._frames: deque[pl.DataFrame] = deque()
        self._held = self._offered = self._written = self._dropped = self._batches = 0
        self._untold: list[dict[str, Any]] = []  # drops that the journal does not hold yet
        self._fault = ""
        self._journal = _Journal(self._folder, exchange)
        self._number = _last_number(self._folder, exchange)
        self._tell_how_the_last_one_ended()
        self._closing = threading.Event()
        self._writer = threading.Thread(target=self._write_on, name=f"tap {market} {exchange}", daemon=True)
        self._writer.start()

    def offer(self, rows: pl.DataFrame) -> None:
        """Take rows (TICKS, or minute bars as SOURCE_BARS), in the order in which they came; never waits. What the
        queue has no room for is dropped, the newest first, and so are rows without a time. ValueError for another
        schema. A bar offered again replaces the one before: the vendor's running minute."""
        if rows.schema not in KINDS.values():
            raise ValueError(f"a tap takes frames of schema {' or '.join(KINDS)}, not {rows.schema}")
        timed = rows.drop_nulls("ts") if rows["ts"].null_count() else rows
        with self._guard:
            kept = timed.head(max(0, self._limit - self._held))
            self._offered += rows.height
            self._held += kept.height
            self._dropped += rows.height - kept.height
            if kept.height:
                self._frames.append(kept)
            if timed.height < rows.height:
                self._untold.append(self._drop("they have no time", rows.height - timed.height))
            if kept.height < timed.height:
                late = timed["ts"][kept.height :]
                self._untold.append(self._drop("the queue had no room", late.len(), late))

    def counts(self) -> TapCounts:
        with self._guard:
            return TapCounts(self._offered, self._written, self._dropped, self._batches)

    def close(self) -> None:
        """Write what is queued and stop. Raises TapFailed where that is not possible."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._writer.join()
        self._write()
        held, why = self._held, self._fault
        try:
            if held:
                times = pl.concat([frame["ts"] for frame in self._frames])
                self._journal.add(self._drop(f"they could not be written: {why}", held, times))
            self._journal.add({"what": "closed", "at": self._now()})
        except OSError as error:
            raise TapFailed(self._folder, held, why or str(error)) from error
        finally:
            self._journal.close()
        if held:
            raise TapFailed(self._folder, held, why)

    def __enter__(self) -> "Tap":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_on(self) -> None:
        while not self._closing.wait(self._seconds):
            self._write()

    def _write(self) -> None:
        """One batch: all that is queued. What cannot be written goes back to the head of the queue."""
        with self._guard:
            frames, untold = self._frames, self._untold
            self._frames, self._untold = deque(), []
        parts = _parts(frames)
        try:
            while untold:
                self._journal.add(untold[0])
                untold.pop(0)
            while parts:
                self._write_part(*parts[0])
                parts.pop(0)
            self._fault = ""
        except (OSError, pl.exceptions.PolarsError) as error:
            if not self._fault:
                log.error("the tap of %s cannot write, and tries again: %s", self._exchange, error)
            self._fault = str(error)
            with self._guard:
                self._untold[:0] = untold
                self._frames.extendleft(part for _, part in reversed(parts))

    def _write_part(self, day: date, part: pl.DataFrame) -> None:
        write_parquet(part, _file(self._folder, day, self._exchange, self._number + 1))
        self._number += 1
        with self._guard:
            self._held -= part.height
            self._written += part.height
            self._batches += 1

    def _drop(self, why: str, rows: int, times: pl.Series | None = None) -> dict[str, Any]:
        at = self._now()
        first, last = (at, at) if times is None else (times.min(), times.max())
        return {"what": "dropped", "at": at, "why": why, "rows": rows, "first": first, "last": last}

    def _tell_how_the_last_one_ended(self) -> None:
        """The journal of a tap that was killed does not end with `closed`: say since when rows may be missing."""
        entries, at = _entries(self._folder, self._exchange), self._now()
        if entries and entries[-1]["what"] != "closed":
            opened = next(entry for entry in reversed(entries) if entry["what"] == "opened")
            began = datetime.fromisoformat(opened["at"])
            since = max(began, _newest(self._folder, self._exchange) or began)
            killed = {"what": "killed", "at": at, "seconds": opened["seconds"], "first": since, "last": at}
            self._journal.add(killed)
            log.warning("%s: %s", self._exchange, _told(json.loads(json.dumps(killed, default=str))))
        self._journal.add({"what": "opened", "at": at, "seconds": self._seconds, "limit": self._limit})


@dataclass(frozen=True, kw_only=True)
class CompactReport:
    """What `compact` found and stored. `notes`: what the taps dropped or lost around the session, for people."""

    session: date
    pages: tuple[PageReport, ...]
    ticks: int
    bars: int  # offered as bars, each minute counted once
    unusable: int  # ticks without a finite price; they stay in the batches
    given_way: int  # minutes that another origin has other bars of
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"session": str(self.session), "pages": [page.to_dict() for page in self.pages]}

    def to_text(self) -> str:
        if not self.ticks and not self.bars:
            return "\n".join([f"{self.session}: nothing was tapped", *self.notes])
        head = f"{self.session}: {self.ticks:,} ticks and {self.bars:,} bars were tapped"
        if self.unusable:
            head += f", {self.unusable:,} ticks have no price"
        if self.given_way:
            head += f"; {self.given_way:,} minutes were there already, fetched or imported, and stay as they are"
        return "\n".join([head, *self.notes, *(page.to_text() for page in self.pages)])


def compact(folder: Path, market: str, *, lake: Lake, calendar: SessionCalendar, session: date) -> CompactReport:
    """The batches of a session, after its close, as minute bars through `store_page`; the caller holds the home's lock.

    A row belongs to the session in whose hours it lies, else to the nearest within 12 hours, where its bar ends in
    quarantine. Once more with the same batches writes nothing; with more of them it completes the bars. Where a symbol
    has bars of another origin, fetched or imported, only minutes that are missing are added, so it does not matter
    which comes first. Raises NotASession, PartitionUnreadable."""
    hours = calendar.hours(session)
    days = _days(hours.open - NEAR, hours.close + NEAR)
    pages, counts, notes = [], dict.fromkeys((*KINDS, "unusable", "given_way"), 0), []
    theirs = _of_other_origin(lake, market, session)
    for exchange in _exchanges(folder / market):
        tapped = _tapped(folder / market, exchange, days, calendar, session)
        sound = tapped["ticks"].filter(pl.col("price").is_finite().fill_null(False))
        offered = tapped["bars"].unique(["symbol", "ts"], keep="last", maintain_order=True)
        counts["ticks"] += sound.height
        counts["bars"] += offered.height
        counts["unusable"] += tapped["ticks"].height - sound.height
        for kind, bars in {"ticks": minute_bars(sound), "bars": offered}.items():
            other = theirs.join(bars, on=list(SOURCE_BARS), how="anti", nulls_equal=True)
            new = bars.join(other, on=KEY, how="anti", maintain_order="left")
            counts["given_way"] += bars.height - new.height
            if new.height:
                page = _page(market, exchange, session, kind, new)
                pages.append(store_page(page, lake=lake, calendar=calendar))
        entries = _entries(folder / market, exchange)
        notes += [f"{exchange}: {_told(entry)}" for entry in entries if _concerns(entry, hours.open, hours.close)]
    return CompactReport(session=session, pages=tuple(pages), notes=tuple(notes), **counts)


class _Journal:
    """An exchange's file of lines, one JSON object each, opened and locked by one process at a time.

    A line is one write, which a kill does not cut."""

    def __init__(self, folder: Path, exchange: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = _journal(folder, exchange)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise TapBusy(path) from None

    def add(self, entry: Mapping[str, Any]) -> None:
        os.write(self._descriptor, (json.dumps(entry, default=str) + "\n").encode())

    def close(self) -> None:
        os.close(self._descriptor)


def _journal(folder: Path, exchange: str) -> Path:
    return folder / f"exchange={exchange}.jsonl"


def _entries(folder: Path, exchange: str) -> list[dict[str, Any]]:
    path = _journal(folder, exchange)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _told(entry: Mapping[str, Any]) -> str:
    if entry["what"] == "killed":
        since = f"rows after {entry['first']} may be missing"
        return (
            f"the tap was killed and wrote every {entry['seconds']:g} s: {since}, and until {entry['last']} it was off"
        )
    return f"{entry['rows']:,} rows of {entry['first']} to {entry['last']} were dropped, because {entry['why']}"


def _concerns(entry: Mapping[str, Any], first: datetime, last: datetime) -> bool:
    """Whether rows of first..last may be missing for this."""
    if entry["what"] not in ("dropped", "killed"):
        return False
    return datetime.fromisoformat(entry["last"]) >= first and datetime.fromisoformat(entry["first"]) < last


def _parts(frames: Iterable[pl.DataFrame]) -> list[tuple[date, pl.DataFrame]]:
    """Frames of one schema each as files: by schema, then by the UTC date of the rows, which keep their order."""
    found = []
    for schema in KINDS.values():
        if same := [frame for frame in frames if frame.schema == schema]:
            rows = pl.concat(same)
            by_day = rows.with_columns(pl.col("ts").dt.date().alias("day")).partition_by(
                "day", as_dict=True, maintain_order=True, include_key=False
            )
            found += [(day, part) for (day,), part in sorted(by_day.items())]
    return found


def _tapped(
    folder: Path, exchange: str, days: Iterable[date], calendar: SessionCalendar, session: date
) -> dict[str, pl.DataFrame]:
    """Rows of a session, by kind, in the order in which they were offered."""
    files = [file for day in days for file in _file(folder, day, exchange, 0).parent.glob("[0-9]*.parquet")]
    frames = [read_parquet(file) for file in sorted(files, key=lambda file: int(file.stem))]
    found = {}
    for kind, schema in KINDS.items():
        rows = pl.concat([schema.to_frame(), *(frame for frame in frames if frame.schema == schema)])
        hours = hours_near(rows["ts"], calendar)
        names = pl.Series([*hours.sessions, None], dtype=pl.Date)
        found[kind] = rows.filter(names.gather(placed(rows["ts"], hours).at) == session)
    return found


def _of_other_origin(lake: Lake, market: str, session: date) -> pl.DataFrame:
    """The session's stored bars (SOURCE_BARS) of the symbols that have bars which no tap brought."""
    if not (lake.has("arrivals", session) and lake.has("price_history", session)):
        return SOURCE_BARS.to_frame()
    is_ours = pl.col("origin").str.starts_with(_origin(market))
    others = lake.read("arrivals", session).filter(pl.col("interval") == "1m", pl.col("kept") > 0, ~is_ours)
    stored = lake.read("price_history", session).select(*SOURCE_BARS)
    return stored.filter(pl.col("symbol").is_in(others["symbol"].unique().implode()))


def _origin(market: str) -> str:
    return f"tap {market} "


def _page(market: str, exchange: str, session: date, kind: str, bars: pl.DataFrame) -> Page:
    """Its id is of what it is and not of its rows: compacted again with more ticks, it replaces itself."""
    name = f"{_origin(market)}{exchange} {session} {kind}"
    return Page(name, hashlib.sha256(name.encode()).hexdigest()[:16], bars, bars)


def _file(folder: Path, day: date, exchange: str, number: int) -> Path:
    return folder / f"date={day}" / f"exchange={exchange}" / f"{number:06d}.parquet"


def _files(folder: Path, exchange: str) -> list[Path]:
    return sorted(folder.glob(f"date=*/exchange={exchange}/[0-9]*.parquet"), key=lambda file: int(file.stem))


def _last_number(folder: Path, exchange: str) -> int:
    """Numbers go on over dates and restarts, so they tell the order in which rows came."""
    files = _files(folder, exchange)
    return int(files[-1].stem) if files else 0


def _newest(folder: Path, exchange: str) -> datetime | None:
    files = _files(folder, exchange)
    try:
        newest = read_parquet(files[-1])["ts"].max() if files else None
    except PartitionUnreadable as damaged:  # a power cut; `compact` will name it again
        log.error("%s", damaged)
        return None
    return newest if isinstance(newest, datetime) else None


def _exchanges(folder: Path) -> list[str]:
    return sorted(path.stem.removeprefix("exchange=") for path in folder.glob("exchange=*.jsonl"))


def _days(first: datetime, last: datetime) -> list[date]:
    return [first.date() + DAY * i for i in range((last.date() - first.date()).days + 1)]
