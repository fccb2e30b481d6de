"""The table of labels in a lake: read or computed, the same rows, in the session of their end, joined to bars."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from odin_core.labels import grids, labels_at, labels_of, labels_table, labels_version
from odin_core.labels.grids import HISTORY, KEY
from odin_core.lake import Lake, PartitionUnreadable
from odin_core.market.bars import BARS, MINUTE, MINUTE_TABLE, resample_sessions
from odin_core.market.calendar import SessionCalendar, session_calendar
from odin_core.market.data import MarketData
from odin_core.market.profile import load_profile
from odin_core.market.reference.actions import ACTIONS, TABLE

NSE = load_profile("nse")
CALENDAR: SessionCalendar = session_calendar(NSE)
FIRST = date(2021, 10, 4)
SESSIONS = CALENDAR.sessions(FIRST, date(2021, 11, 16))  # an evening of an hour, the Muhurat session, among them
SYMBOLS = ("INFY", "ITC")
SUSPENDED = SESSIONS[12:19]  # of ITC


@pytest.fixture(scope="module")
def minutes() -> dict[date, pl.DataFrame]:
    made, price = {}, {symbol: 1000.0 for symbol in SYMBOLS}
    for session in SESSIONS:
        hours = CALENDAR.hours(session)
        rng = np.random.default_rng(session.toordinal())
        parts = []
        for symbol in SYMBOLS:
            ts = pl.datetime_range(*hours, "1m", closed="left", time_unit="us", time_zone="UTC", eager=True)
            ts = ts.filter(pl.Series(rng.random(len(ts)) > 0.02))
            close = price[symbol] * np.exp(np.cumsum(rng.normal(0, 1e-3, len(ts))))
            price[symbol] = float(close[-1])
            if symbol == "ITC" and session in SUSPENDED:
                continue
            parts.append(
                pl.DataFrame({"symbol": symbol, "ts": ts, "close": close}).with_columns(
                    known_at=pl.col("ts") + MINUTE, open=pl.col("close"), high=pl.col("close") * 1.0003,
                    low=pl.col("close") * 0.9997, volume=pl.lit(1.0), oi=pl.lit(None, pl.Float64),
                ).select(BARS.names())
            )  # fmt: skip
        made[session] = pl.concat(parts)
    return made


@pytest.fixture
def data(tmp_path: Path, minutes: dict[date, pl.DataFrame]) -> MarketData:
    lake = Lake(tmp_path)
    for session, bars in minutes.items():
        lake.write(MINUTE_TABLE, session, bars)
    return MarketData(lake, NSE)


def again(data: MarketData) -> MarketData:
    """As another process sees it."""
    return MarketData(data.lake, data.profile)


def all_of(data: MarketData, sessions: Sequence[date] = SESSIONS) -> pl.DataFrame:
    return pl.concat([labels_at(data, session) for session in sessions]).sort(KEY)


def ex_split(session: date, symbol: str) -> pl.DataFrame:
    """A split of ratio 2, known the day before."""
    open_at = CALENDAR.hours(session).open
    row = dict.fromkeys(ACTIONS.names()) | {"symbol": symbol, "ex_date": session, "kind": "split", "ratio": 2.0}
    return pl.DataFrame([row | {"known_at": open_at - timedelta(hours=12), "origin": "by hand"}], schema=ACTIONS)


def test_the_sessions_together_are_what_one_pass_over_all_bars_gives(
    data: MarketData, minutes: dict[date, pl.DataFrame]
):
    bars = pl.concat(list(minutes.values()))
    hours = [CALENDAR.hours(session) for session in SESSIONS]
    days = resample_sessions(bars, "day", hours).select(BARS.names())
    at_once = labels_of(bars, days, hours, since=hours[0].open, as_of=hours[-1].close)
    assert len(SESSIONS) > HISTORY
    assert_frame_equal(all_of(data), at_once, check_exact=True)
    assert_frame_equal(all_of(again(data), SESSIONS[::-1]), at_once, check_exact=True)
    for session in SESSIONS:
        hour = CALENDAR.hours(session)
        ends = data.lake.read(labels_table(), session)["label_end"]
        assert ends.is_between(hour.open, hour.close, closed="right").all()
        assert len(ends) > 0


def test_what_a_suspended_symbol_would_have_done_is_no_bars_at_the_fifth_close_at_the_latest(data: MarketData):
    last = SUSPENDED[0]
    decided = (pl.col("symbol") == "ITC") & (pl.col("decided_at") <= CALENDAR.hours(last).open)
    rows = pl.concat([labels_at(data, session) for session in SUSPENDED]).filter(decided)
    assert set(rows["reason"]) == {"no_bars"}
    fifth = rows.filter(pl.col("label").is_in(["return_12_bars", "return_60_bars", "triple_barrier_5_sessions"]))
    ends = dict(fifth.group_by("label").agg(pl.col("label_end").max()).iter_rows())
    assert set(ends.values()) == {CALENDAR.hours(SUSPENDED[4]).close}


def test_a_stored_session_is_read_and_not_computed(data: MarketData, monkeypatch: pytest.MonkeyPatch):
    session = SESSIONS[-1]
    first = labels_at(data, session)
    monkeypatch.setattr("odin_core.labels.table.labels_of", None)
    assert_frame_equal(labels_at(again(data), session), first, check_exact=True)
    with pytest.raises(TypeError):
        labels_at(again(data), SESSIONS[-2])


def test_later_sessions_do_not_matter_and_lost_partitions_come_back_the_same(data: MarketData):
    session = SESSIONS[20]
    first = labels_at(data, session)
    for later in SESSIONS[21:]:
        data.lake.remove(MINUTE_TABLE, later)
    data.lake.remove(labels_table(), session)
    assert_frame_equal(labels_at(again(data), session), first, check_exact=True)


@pytest.mark.parametrize("back", [0, 5, 25])
def test_other_bars_in_the_history_are_seen(data: MarketData, minutes: dict[date, pl.DataFrame], back: int):
    session = SESSIONS[-1]
    changed = SESSIONS[-1 - back]
    first = labels_at(data, session)
    moved = minutes[changed].with_columns(pl.col("close") * (1 + 0.2 * (pl.int_range(pl.len()) > 300)))
    data.lake.write(MINUTE_TABLE, changed, moved)
    second = labels_at(again(data), session)
    assert not second.equals(first)
    fresh = again(data)
    fresh.lake.remove(labels_table(), session)
    assert_frame_equal(labels_at(fresh, session), second, check_exact=True)


def test_bars_before_the_history_do_not_matter(data: MarketData, minutes: dict[date, pl.DataFrame]):
    session = SESSIONS[-1]
    before = SESSIONS[-1 - HISTORY]
    first, path = labels_at(data, session), data.lake.path(labels_table(), session)
    written = path.stat().st_mtime_ns
    data.lake.write(MINUTE_TABLE, before, minutes[before].with_columns(pl.col("close") * 2))
    assert_frame_equal(labels_at(again(data), session), first, check_exact=True)
    assert path.stat().st_mtime_ns == written


def test_a_split_that_is_told_makes_the_labels_of_unsplit_prices(
    data: MarketData, minutes: dict[date, pl.DataFrame], tmp_path: Path
):
    ex = SESSIONS[-3]
    expected = all_of(data, SESSIONS[-3:])
    prices = ("open", "high", "low", "close")
    for session in SESSIONS[-3:]:
        halved = [pl.when(pl.col("symbol") == "ITC").then(pl.col(p) / 2).otherwise(p).alias(p) for p in prices]
        data.lake.write(MINUTE_TABLE, session, minutes[session].with_columns(halved))
    raw = all_of(again(data), SESSIONS[-3:])
    assert not raw.equals(expected)
    data.lake.write(TABLE, CALENDAR.previous(ex), ex_split(ex, "ITC"))
    assert_frame_equal(all_of(again(data), SESSIONS[-3:]), expected, check_exact=True)


def test_labels_join_bars_and_features_by_symbol_and_when_the_bar_was_known(data: MarketData):
    rows = all_of(data, SESSIONS[-2:])
    assert rows.height > 0
    for interval in ("5m", "day"):
        bars = data.read(None, SESSIONS[0], SESSIONS[-1], interval)
        mine = rows.filter(pl.col("interval") == interval)
        joined = mine.join(bars, left_on=["symbol", "decided_at"], right_on=["symbol", "known_at"], how="inner")
        assert joined.height == mine.height


def test_a_session_without_bars_and_the_first_one_of_all_have_their_labels_too(data: MarketData):
    nothing = CALENDAR.next(SESSIONS[-1])
    rows = labels_at(data, nothing)
    assert set(rows["reason"]) == {"no_bars"}
    assert set(rows.filter(pl.col("label") == "return_1_session")["symbol"]) == set(SYMBOLS)
    first = labels_at(data, SESSIONS[0])
    assert set(first["interval"]) == {"5m"}
    assert labels_at(data, CALENDAR.previous(SESSIONS[0])).is_empty()


def test_a_damaged_partition_is_named(data: MarketData):
    session = SESSIONS[-1]
    labels_at(data, session)
    path = data.lake.path(labels_table(), session)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(PartitionUnreadable, match=f"session={session}"):
        labels_at(again(data), session)


def test_the_version_changes_with_the_definitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    version = labels_version()
    assert labels_table() == f"labels_{version}"
    edited = tmp_path / "grids.py"
    edited.write_text(Path(grids.__file__).read_text().replace("BARRIERS: Final = (1.0, 1.0)", "BARRIERS = (2.0, 1.0)"))
    monkeypatch.setattr(grids, "__file__", str(edited))
    labels_version.cache_clear()
    other = labels_version()
    labels_version.cache_clear()
    assert len(other) == len(version) == 12
    assert other != version
