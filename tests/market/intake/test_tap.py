"""The tap: whatever is offered is on disk, counted as dropped, or still queued; compacting gives the minutes of it."""

import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.home import open_home
from odin_core.lake import Lake, PartitionUnreadable
from odin_core.market.bars import BARS
from odin_core.market.calendar import NotASession, session_calendar
from odin_core.market.intake.importing import Page, store_page
from odin_core.market.intake.tap import BadExchange, Tap, TapBusy, TapFailed, compact
from odin_core.market.profile import load_profile
from odin_core.market.sources.source import SOURCE_BARS, TICKS

NSE = session_calendar(load_profile("nse"))
FUTURES = session_calendar(load_profile("futures"))
SESSION = date(2024, 12, 2)
NOW = datetime(2024, 12, 2, 4, tzinfo=UTC)
NEVER = 3600.0  # seconds between two batches: only what `close` writes
SECOND = timedelta(seconds=1)


def ticks(rows: list[tuple[str, datetime | None, float | None, float | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, TICKS, orient="row")


def walk(count: int, first: datetime, every: timedelta, symbol: str = "AAA", seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    prices = 100 + np.round(rng.normal(0, 0.1, count).cumsum(), 2)
    return ticks([(symbol, first + every * i, float(p), float(rng.integers(0, 9))) for i, p in enumerate(prices)])


def opened(folder: Path, market: str = "nse", exchange: str = "NSE", **options: float) -> Tap:
    return Tap(folder, market, exchange, now=lambda: NOW, **{"seconds": NEVER, **options})  # type: ignore[arg-type]


def batches(folder: Path, pattern: str = "*/date=*/exchange=*/*.parquet") -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda file: int(file.stem))


def tapped(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in batches(folder)])


def minutes_by_hand(rows: pl.DataFrame) -> pl.DataFrame:
    """The slow twin: minute bars of ticks, one tick at a time."""
    found: dict[tuple[str, datetime], list[float]] = {}
    for symbol, ts, price, volume in sorted(rows.rows(), key=lambda row: row[1]):
        minute = (symbol, ts.replace(second=0, microsecond=0))
        bar = found.setdefault(minute, [price, price, price, price, 0.0])
        bar[1:] = [max(bar[1], price), min(bar[2], price), price, bar[4] + volume]
    made = [(s, at, at + timedelta(minutes=1), *found[s, at], None) for s, at in sorted(found)]
    return pl.DataFrame(made, BARS, orient="row")


def wait_for(holds: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_the_home_says_where_taps_lie(tmp_path: Path) -> None:
    assert open_home(tmp_path / "home").tap == tmp_path / "home" / "tap"


def test_ticks_become_batches_every_few_seconds_and_minutes_at_the_close(tmp_path: Path, lake: Lake) -> None:
    offered = walk(5000, NSE.hours(SESSION).open, SECOND)
    with opened(tmp_path, seconds=0.02) as tap:
        for start in range(0, 5000, 500):
            tap.offer(offered[start : start + 500])
            wait_for(lambda rows=start + 500: tap.counts().written == rows)
    files = batches(tmp_path)
    assert len(files) == 10
    assert files[0] == tmp_path / "nse" / f"date={SESSION}" / "exchange=NSE" / "000001.parquet"
    assert_frame_equal(tapped(tmp_path), offered)
    report = compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)
    stored = lake.read("price_history", SESSION)
    assert_frame_equal(stored, minutes_by_hand(offered), check_exact=True)
    assert (report.ticks, report.bars, report.unusable, report.notes) == (5000, 0, 0, ())
    assert [(page.origin, page.kept, page.quarantined) for page in report.pages] == [
        (f"tap nse NSE {SESSION} ticks", stored.height, {})
    ]
    assert lake.has("data_quality", SESSION)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 400), max_size=6),
    restarts=st.sets(st.integers(0, 6), max_size=3),
    seed=st.integers(0, 100),
)
def test_however_ticks_are_cut_into_offers_and_taps_the_minutes_are_the_same(
    cuts: list[int], restarts: set[int], seed: int
) -> None:
    offered = pl.concat([walk(200, NSE.hours(SESSION).open, 3 * SECOND, symbol, seed) for symbol in ("AAA", "BBB")])
    edges = sorted({0, 400, *cuts})
    with TemporaryDirectory() as name:
        folder, lake = Path(name) / "tap", Lake(Path(name) / "lake")
        tap = opened(folder)
        for i, (start, end) in enumerate(pairwise(edges)):
            tap.offer(offered[start:end])
            if i in restarts:
                tap.close()
                tap = opened(folder)
        tap.close()
        compact(folder, "nse", lake=lake, calendar=NSE, session=SESSION)
        assert_frame_equal(lake.read("price_history", SESSION), minutes_by_hand(offered), check_exact=True)


def test_a_full_queue_drops_the_newest_counts_them_and_says_so(tmp_path: Path, lake: Lake) -> None:
    first = NSE.hours(SESSION).open
    offered = walk(250, first, SECOND)
    with opened(tmp_path, limit=120) as tap:
        for start in range(0, 250, 50):
            tap.offer(offered[start : start + 50])
        assert tap.counts() == (250, 0, 130, 0)
    assert tap.counts() == (250, 120, 130, 1)
    assert_frame_equal(tapped(tmp_path), offered[:120])
    notes = compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION).notes
    assert [note.partition(" of ")[0] for note in notes] == ["NSE: 30 rows", "NSE: 50 rows", "NSE: 50 rows"]
    assert f"{first + 120 * SECOND} to {first + 149 * SECOND} were dropped, because the queue had no room" in notes[0]
    other = compact(tmp_path, "nse", lake=lake, calendar=NSE, session=date(2024, 12, 3))
    assert (other.pages, other.notes, other.to_text()) == ((), (), "2024-12-03: nothing was tapped")


def test_offers_from_many_threads_are_all_there_or_counted(tmp_path: Path) -> None:
    frames = {name: walk(400, NSE.hours(SESSION).open, SECOND, name) for name in "ABCDEF"}
    with opened(tmp_path, seconds=0.005, limit=500) as tap:

        def offer(frame: pl.DataFrame) -> None:
            for start in range(0, 400, 20):
                tap.offer(frame[start : start + 20])

        threads = [threading.Thread(target=offer, args=(frame,)) for frame in frames.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    counts = tap.counts()
    assert counts.offered == 2400 == counts.written + counts.dropped
    there = tapped(tmp_path)
    assert there.height == counts.written
    for name, frame in frames.items():  # each symbol's own order, and nothing twice
        mine = there.filter(symbol=name)
        assert mine["ts"].is_sorted()
        assert mine.join(frame, on=list(TICKS), how="semi").height == mine.height == mine["ts"].n_unique()


def test_a_disk_that_fails_for_a_while_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    offered = walk(300, NSE.hours(SESSION).open, SECOND)
    in_the_way = tmp_path / "nse" / f"date={SESSION}"
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file where the folder should be")
    with opened(tmp_path, seconds=0.01, limit=250) as tap:
        for start in range(0, 300, 100):
            tap.offer(offered[start : start + 100])
            wait_for(lambda: "cannot write, and tries again" in caplog.text)
        assert tap.counts() == (300, 0, 50, 0)
        in_the_way.unlink()
        wait_for(lambda: tap.counts().written == 250)
        tap.offer(offered[250:])  # there is room again
    assert_frame_equal(tapped(tmp_path), offered)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_of_a_batch_that_fails_half_way_only_the_rest_is_written_again(tmp_path: Path) -> None:
    midnight = datetime(2024, 12, 3, tzinfo=UTC)
    offered = walk(200, midnight - 100 * SECOND, SECOND)
    in_the_way = tmp_path / "crypto" / "date=2024-12-03"
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file where the folder should be")
    with opened(tmp_path, "crypto", seconds=0.01) as tap:
        tap.offer(offered)
        wait_for(lambda: tap.counts().written == 100)
        in_the_way.unlink()
        wait_for(lambda: tap.counts().written == 200)
    assert_frame_equal(tapped(tmp_path), offered)
    assert [file.parts[-3] for file in batches(tmp_path)] == ["date=2024-12-02", "date=2024-12-03"]


def test_what_cannot_be_written_at_the_end_is_an_error_and_in_the_journal(tmp_path: Path, lake: Lake) -> None:
    in_the_way = tmp_path / "nse" / f"date={SESSION}"
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file where the folder should be")
    tap = opened(tmp_path)
    tap.offer(walk(7, NSE.hours(SESSION).open, SECOND))
    with pytest.raises(TapFailed, match=r"7 tapped rows could not be written below .*nse and are lost"):
        tap.close()
    in_the_way.unlink()
    opened(tmp_path).close()  # the lock is free, and nobody speaks of a kill
    report = compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)
    assert report.pages == ()
    assert len(report.notes) == 1
    assert report.notes[0].startswith(f"NSE: 7 rows of {NSE.hours(SESSION).open} to ")
    assert "because they could not be written: " in report.notes[0]


def test_bars_are_taken_as_well_and_the_last_word_on_a_minute_counts(tmp_path: Path, lake: Lake) -> None:
    at = NSE.hours(SESSION).open
    rows = [("AAA", at, 1.0, 3.0, 1.0, close, volume, 10.0) for close, volume in ((2.0, 5.0), (3.0, 8.0), (2.5, 9.0))]
    with opened(tmp_path) as tap:
        for row in rows:
            tap.offer(pl.DataFrame([row], SOURCE_BARS, orient="row"))
        tap.offer(ticks([("BBB", at + SECOND, 7.0, 2.0)]))
    report = compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)
    assert (report.ticks, report.bars) == (1, 1)
    assert lake.read("price_history", SESSION).select("symbol", "close", "volume", "oi").rows() == [
        ("AAA", 2.5, 9.0, 10.0),
        ("BBB", 7.0, 2.0, None),
    ]
    assert not lake.has("quarantine", SESSION)


@pytest.mark.parametrize(
    ("file", "market", "session"),
    [
        ("nse_equity_1m_2021.parquet", "nse", date(2021, 4, 5)),
        ("crypto_1m.parquet", "crypto", date(2024, 2, 14)),
        ("metals_fx_1m.parquet", "metals", date(2026, 4, 14)),
    ],
)
def test_recorded_bars_that_are_offered_minute_by_minute_end_in_the_lake(
    tmp_path: Path, market_file: Callable[[str], Path], file: str, market: str, session: date
) -> None:
    calendar = session_calendar(load_profile(market))
    open_at, close_at = calendar.hours(session)
    around = pl.col("ts").is_between(open_at - timedelta(hours=1), close_at, closed="left")
    recorded = pl.scan_parquet(market_file(file)).filter(around).collect()
    if market == "metals":
        recorded = recorded.filter(symbol="XAUUSD")
    oi = pl.lit(None, pl.Float64).alias("oi")
    bars = recorded.with_columns(oi).select(pl.col(name).cast(dtype) for name, dtype in SOURCE_BARS.items())
    assert bars.height > 1000
    with opened(tmp_path, market, "live", seconds=0.05) as tap:
        for _, minute in bars.sort("ts", "symbol").group_by("ts", maintain_order=True):
            tap.offer(minute)
    lake = Lake(tmp_path / "lake")
    compact(tmp_path, market, lake=lake, calendar=calendar, session=session)
    inside = bars.filter(pl.col("ts") >= open_at).sort("symbol", "ts")
    assert_frame_equal(lake.read("price_history", session).drop("known_at"), inside, check_exact=True)


def test_a_session_that_begins_the_day_before_is_put_together_from_two_dates(tmp_path: Path) -> None:
    monday, tuesday = (FUTURES.hours(day) for day in (SESSION, date(2024, 12, 3)))
    offered = walk(4000, monday.open - timedelta(minutes=30), timedelta(seconds=43), "ESZ4")  # to beyond Tuesday's open
    assert offered["ts"].max() > tuesday.open + timedelta(minutes=30)
    with opened(tmp_path, "futures", "CME") as tap:
        tap.offer(offered)
    assert len(batches(tmp_path)) == 3
    lake = Lake(tmp_path / "lake")
    reports = [
        compact(tmp_path, "futures", lake=lake, calendar=FUTURES, session=day) for day in (SESSION, date(2024, 12, 3))
    ]
    for day, hours in ((SESSION, monday), (date(2024, 12, 3), tuesday)):
        inside = offered.filter(pl.col("ts").is_between(hours.open, hours.close, closed="left"))
        assert_frame_equal(lake.read("price_history", day), minutes_by_hand(inside), check_exact=True)
    assert sum(report.ticks for report in reports) == offered.height
    held_back = pl.concat([lake.read("quarantine", day) for day in lake.sessions("quarantine")])
    assert set(held_back["rule"]) == {"outside_hours"}  # before the open of Sunday, and in the hour's break


def test_rows_hours_before_the_open_are_held_back_with_their_session(tmp_path: Path, lake: Lake) -> None:
    open_at = NSE.hours(SESSION).open  # 03:45 UTC
    with opened(tmp_path) as tap:
        tap.offer(ticks([("AAA", open_at - timedelta(hours=4), 1.0, 1.0), ("AAA", open_at, 2.0, 1.0)]))
    assert compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION).ticks == 2
    assert lake.read("quarantine", SESSION).select("rule", "ts").rows() == [
        ("outside_hours", open_at - timedelta(hours=4))
    ]
    assert lake.read("price_history", SESSION).height == 1


def test_compacting_again_writes_nothing_and_with_more_ticks_it_completes(tmp_path: Path, lake: Lake) -> None:
    hours = NSE.hours(SESSION)
    offered = walk(100, hours.close - timedelta(seconds=95), SECOND)  # the last five after the close
    compacted = lambda: compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)  # noqa: E731
    with opened(tmp_path) as tap:
        tap.offer(offered[:50])
    assert compacted().pages[0].written == (SESSION,)
    written = {path: path.stat().st_mtime_ns for path in lake.root.rglob("*.parquet")}
    assert compacted().pages[0].unchanged == (SESSION,)
    assert {path: path.stat().st_mtime_ns for path in lake.root.rglob("*.parquet")} == written
    with opened(tmp_path) as tap:
        tap.offer(offered[50:])
    again = [compacted().pages[0] for _ in range(2)]
    assert [page.corrected for page in again] == [1, 0]  # the minute that the first compacting saw a part of
    inside = offered.filter(pl.col("ts") < hours.close)
    assert_frame_equal(lake.read("price_history", SESSION), minutes_by_hand(inside), check_exact=True)
    assert lake.read("quarantine", SESSION).height == 1
    assert lake.read("arrivals", SESSION).height == 1  # the page replaced itself


@pytest.mark.parametrize("tap_first", [True, False])
def test_the_vendors_own_bars_win_whichever_comes_first_and_however_often(
    tmp_path: Path, lake: Lake, tap_first: bool
) -> None:
    at, minute = NSE.hours(SESSION).open, timedelta(minutes=1)
    with opened(tmp_path) as tap:
        tap.offer(walk(180, at, SECOND))  # three minutes of AAA, of which the vendor lacks the third
        tap.offer(ticks([("BBB", at, 7.0, 2.0)]))  # and the vendor has no BBB
    rows = [("AAA", at + i * minute, 50.0, 60.0, 40.0, 55.0, 1000.0, None) for i in range(2)]
    vendors = pl.DataFrame(rows, SOURCE_BARS, orient="row")
    page = Page("kite 1m 2024-12-02", "0123456789abcdef", vendors, vendors)
    compacted = lambda: compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)  # noqa: E731
    if tap_first:
        compacted()
    store_page(page, lake=lake, calendar=NSE)
    assert compacted().given_way == 2
    written = {path: path.stat().st_mtime_ns for path in lake.root.rglob("*.parquet")}
    assert "2 minutes were there already, fetched or imported" in compacted().to_text()
    assert {path: path.stat().st_mtime_ns for path in lake.root.rglob("*.parquet")} == written
    assert lake.read("price_history", SESSION).select("symbol", "ts", "close").rows() == [
        ("AAA", at, 55.0),
        ("AAA", at + minute, 55.0),
        ("AAA", at + 2 * minute, walk(180, at, SECOND)["price"][-1]),
        ("BBB", at, 7.0),
    ]


def test_ticks_without_a_price_or_a_time_are_counted(tmp_path: Path, lake: Lake) -> None:
    at = NSE.hours(SESSION).open
    with opened(tmp_path) as tap:
        tap.offer(ticks([("AAA", at, None, 1.0), ("AAA", at, float("nan"), 1.0), ("AAA", at, 5.0, None)]))
        tap.offer(ticks([("AAA", None, 1.0, 1.0)]))
        assert tap.counts() == (4, 0, 1, 0)
    report = compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)
    assert (report.ticks, report.unusable) == (1, 2)
    assert "2 ticks have no price" in report.to_text()
    assert [note for note in report.notes if "because they have no time" in note]
    assert lake.read("price_history", SESSION)["volume"].to_list() == [None]
    assert json.loads(json.dumps(report.to_dict()))["unusable"] == 2


def test_two_taps_of_one_exchange_exclude_each_other_and_two_exchanges_do_not(tmp_path: Path, lake: Lake) -> None:
    at = NSE.hours(SESSION).open
    with opened(tmp_path) as nse, opened(tmp_path, exchange="BSE") as bse:
        with pytest.raises(TapBusy, match=r"another process is tapping into .*exchange=NSE"):
            opened(tmp_path)
        nse.offer(ticks([("AAA", at, 1.0, 1.0)]))
        bse.offer(ticks([("BBB", at, 2.0, 1.0)]))
    report = compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)
    assert [page.origin for page in report.pages] == [f"tap nse {e} {SESSION} ticks" for e in ("BSE", "NSE")]
    assert lake.read("price_history", SESSION)["symbol"].to_list() == ["AAA", "BBB"]


def test_a_frame_of_another_shape_and_an_exchange_that_is_no_name_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as tap, pytest.raises(ValueError, match="a tap takes frames of schema ticks or bars"):
        tap.offer(pl.DataFrame({"symbol": ["AAA"]}))
    with pytest.raises(BadExchange, match="'NSE/FO' cannot name the folder"):
        opened(tmp_path, exchange="NSE/FO")


def test_a_damaged_batch_is_named_by_compacting_and_no_hindrance_to_tapping(tmp_path: Path, lake: Lake) -> None:
    with opened(tmp_path) as tap:
        tap.offer(walk(10, NSE.hours(SESSION).open, SECOND))
    batches(tmp_path)[0].write_bytes(b"PAR1 half of a file")
    with opened(tmp_path) as tap:
        tap.offer(walk(10, NSE.hours(SESSION).open, SECOND))
    assert [file.stem for file in batches(tmp_path)] == ["000001", "000002"]
    with pytest.raises(PartitionUnreadable, match=r"000001.parquet"):
        compact(tmp_path, "nse", lake=lake, calendar=NSE, session=SESSION)


def test_a_market_that_was_never_tapped_has_nothing_to_compact(tmp_path: Path, lake: Lake) -> None:
    report = compact(tmp_path / "tap", "nse", lake=lake, calendar=NSE, session=SESSION)
    assert report.to_text() == f"{SESSION}: nothing was tapped"
    assert lake.tables() == []


def test_only_a_session_can_be_compacted(tmp_path: Path, lake: Lake) -> None:
    with pytest.raises(NotASession):
        compact(tmp_path, "nse", lake=lake, calendar=NSE, session=date(2024, 12, 1))


def test_offering_takes_no_time_to_speak_of(tmp_path: Path) -> None:
    """A hundred offers of a hundred ticks, while the writer is at work: far below the seconds that they stand for."""
    frame = walk(100, NSE.hours(SESSION).open, SECOND)
    took = []
    with opened(tmp_path, seconds=0.001) as tap:
        for _ in range(100):
            start = time.perf_counter()
            tap.offer(frame)
            took.append(time.perf_counter() - start)
    assert sorted(took)[90] < 0.02
