"""Windows for sequence models against plain slicing of a list of rows, on a week with a halt and a late close."""

import tracemalloc
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import isfinite, nan
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from odin_core.features.windows import NotInWindows, SequenceWindows, UnfitWindows, Windows
from odin_core.market.calendar import OutsideCalendar, SessionCalendar, session_calendar
from odin_core.market.history import NaiveMoment
from odin_core.market.profile import load_profile

NSE: SessionCalendar = session_calendar(load_profile("nse"))
HALTED = date(2021, 2, 24)  # no trade from 10:08 to 15:45, open until 17:00
DAYS = NSE.sessions(date(2021, 2, 22), date(2021, 3, 1))
FEATURES = ["momentum", "is_first_hour", "spread"]
SCHEMA = {
    "symbol": pl.String,
    "known_at": pl.Datetime("us", "UTC"),
    "momentum": pl.Float32,
    "is_first_hour": pl.Boolean,
    "spread": pl.Float64,
}
NUMBERS = st.sampled_from([0.25, -1.5, 3.0, 7.0, 1e-3, None, nan, float("inf")])


def bar_ends(interval: str) -> list[tuple[date, datetime]]:
    """Session and end of every bar that the market has in DAYS, one after the other."""
    ends = []
    for day in DAYS:
        opens, closes = NSE.hours(day)
        width = closes - opens if interval == "day" else timedelta(minutes=int(interval[:-1]))
        start = opens
        while start < closes:
            end = min(start + width, closes)
            if not any(halt.open <= start and end <= halt.close for halt in NSE.halts(day)):
                ends.append((day, end))
            start += width
    return ends


BARS = {interval: bar_ends(interval) for interval in ("15m", "60m", "day")}


@st.composite
def markets(draw: st.DrawFn) -> tuple[str, list[dict[str, Any]]]:
    """An interval, and rows of some of its bars for up to three symbols; some values unknown."""
    interval = draw(st.sampled_from(sorted(BARS)))
    rows = []
    for symbol in draw(st.lists(st.sampled_from("CAB"), max_size=3, unique=True)):
        chosen = draw(st.sets(st.integers(0, len(BARS[interval]) - 1), max_size=30))
        if draw(st.booleans()):
            chosen |= set(range(max(chosen, default=0), len(BARS[interval])))
        for bar in sorted(chosen):
            day, end = BARS[interval][bar]
            values = draw(NUMBERS), draw(st.sampled_from([True, True, True, False, None])), draw(NUMBERS)
            rows.append(dict(zip(SCHEMA, (symbol, end, *values), strict=True)) | {"session": day, "bar": bar})
    return interval, rows


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{name: row[name] for name in SCHEMA} for row in rows], schema=SCHEMA)


def windows_of(rows: list[dict[str, Any]], interval: str, **options: Any) -> SequenceWindows:
    return SequenceWindows.of(frame_of(rows), FEATURES, NSE, interval, **options)


def by_hand(
    rows: list[dict[str, Any]], *, length: int, step: int, minimum: int, tolerance: int
) -> list[tuple[tuple[str, datetime, date], list[tuple[list[float], bool, bool, bool]]]]:
    """Each window's key and its rows: values, valid, session_start, after_gap."""
    padding = ([0.0] * len(FEATURES), False, False, False)
    out = []
    for symbol in dict.fromkeys(row["symbol"] for row in rows):
        seen = []
        mine = [row for row in rows if row["symbol"] == symbol]
        for before, row in pairwise([None, *mine]):
            assert row is not None
            values = [nan if row[name] is None else float(row[name]) for name in FEATURES]
            valid = all(isfinite(value) for value in values)
            starts = before is None or before["session"] != row["session"]
            gap = before is not None and row["bar"] - before["bar"] - 1 > tolerance
            seen.append((values if valid else padding[0], valid, starts, gap))
            window = [padding] * (length - len(seen)) + seen[-length:]
            if valid and sum(row[1] for row in window) >= minimum and (len(seen) - length) % step == 0:
                out.append(((symbol, row["known_at"], row["session"]), window))
    return out


def assert_same(left: Windows, right: Windows) -> None:
    for name, a, b in zip(Windows._fields, left, right, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name, strict=True)


OPTIONS = st.fixed_dictionaries(
    {
        "length": st.integers(1, 12),
        "step": st.integers(1, 4),
        "minimum": st.integers(1, 12),
        "tolerance": st.sampled_from([0, 0, 1, 9]),
    }
).map(lambda drawn: drawn | {"minimum": min(drawn["minimum"], drawn["length"])})


@given(market=markets(), options=OPTIONS)
def test_windows_are_what_slicing_a_list_of_rows_gives(market, options):
    interval, rows = market
    windows = windows_of(rows, interval, **options)
    expected = by_hand(rows, **options)
    assert windows.keys.rows() == [key for key, _ in expected]
    assert len(windows) == len(expected)
    batch = windows.batch(range(len(windows)))
    shape = (len(expected), options["length"])
    for place, (array, dtype) in enumerate(zip(batch, ("f4", "?", "?", "?"), strict=True)):
        cells = [[row[place] for row in window] for _, window in expected]
        plain = np.array(cells, dtype).reshape(*shape, *([len(FEATURES)] if place == 0 else []))
        np.testing.assert_array_equal(array, plain, err_msg=Windows._fields[place], strict=True)


@given(market=markets(), options=OPTIONS, cut=st.floats(0, 1))
def test_what_is_known_later_changes_no_window(market, options, cut):
    interval, rows = market
    as_of = BARS[interval][round(cut * (len(BARS[interval]) - 1))][1]
    whole = windows_of(rows, interval, **options)
    known = np.flatnonzero((whole.keys["known_at"] <= as_of).to_numpy())
    cut_off = windows_of([row for row in rows if row["known_at"] <= as_of], interval, **options)
    changed = [
        row if row["known_at"] <= as_of else row | {"momentum": 99.0, "is_first_hour": False, "spread": 99.0}
        for row in rows
    ]
    for windows in (cut_off, *(windows_of(r, interval, **options, as_of=as_of) for r in (rows, changed))):
        assert_frame_equal(windows.keys, whole.keys[known])
        assert_same(windows.batch(range(len(windows))), whole.batch(known))
        assert list(windows.symbols) == list(dict.fromkeys(r["symbol"] for r in rows if r["known_at"] <= as_of))


@given(market=markets(), length=st.integers(1, 12), step=st.integers(1, 4))
def test_views_are_all_full_windows_and_share_the_memory_of_the_rows(market, length, step):
    interval, rows = market
    windows = windows_of(rows, interval, length=length, step=step)
    for symbol in windows.symbols:
        count = sum(row["symbol"] == symbol for row in rows)
        view = windows.view(symbol)
        assert view.values.shape == (max(count - length + 1, 0), length, len(FEATURES))
        if len(view.values):
            assert all(np.shares_memory(seen, whole) for seen, whole in zip(view, windows.rows, strict=True))
        ends = [row["known_at"] for row in rows if row["symbol"] == symbol][length - 1 :]
        mine = windows.keys.with_row_index("window").filter(pl.col("symbol") == symbol)
        full = [(w, ends.index(at)) for w, at in mine.select("window", "known_at").iter_rows() if at in ends]
        assert_same(windows.batch([w for w, _ in full]), Windows(*(array[[at for _, at in full]] for array in view)))
        assert all(at % step == 0 for _, at in full)


@given(market=markets(), company=markets())
def test_a_symbol_has_the_same_windows_in_whatever_company(market, company):
    interval, rows = market
    other = [row | {"symbol": f"{row['symbol']}2"} for row in company[1]] if company[0] == interval else []
    alone, together = (windows_of(r, interval, length=5) for r in (rows, [*other, *rows]))
    mine = np.flatnonzero(together.keys["symbol"].is_in(alone.symbols).to_numpy())
    assert_frame_equal(together.keys[mine], alone.keys)
    assert_same(together.batch(mine), alone.batch(range(len(alone))))


def full(symbols: str = "A", interval: str = "15m") -> list[dict[str, Any]]:
    """Every bar of DAYS, the values counting up."""
    return [
        {"symbol": symbol, "session": day, "known_at": end, "momentum": float(bar), "is_first_hour": False,
         "spread": 1.0, "bar": bar} for symbol in symbols for bar, (day, end) in enumerate(BARS[interval])
    ]  # fmt: skip


@pytest.mark.parametrize("interval", sorted(BARS))
def test_neither_a_night_nor_a_weekend_nor_a_halt_of_the_market_is_a_gap(interval):
    windows = windows_of(full(interval=interval), interval, length=4)
    assert not windows.rows.after_gap.any()
    assert windows.rows.session_start.sum() == len(DAYS)


@pytest.mark.parametrize(
    ("missing", "marked"),
    [
        pytest.param(range(3, 5), 5, id="inside a session"),
        pytest.param(range(25, 26), 26, id="at the open, after the night"),
        pytest.param(range(24, 25), 25, id="at the close, before the night"),
        pytest.param(range(25, 50), 50, id="a whole session"),
    ],
)
def test_a_gap_is_marked_on_the_row_after_it_and_windows_go_on_across(missing, marked):
    rows = [row for row in full() if row["bar"] not in missing]
    windows = windows_of(rows, "15m", length=4)
    gaps = np.flatnonzero(windows.rows.after_gap)
    assert windows.rows.values[gaps, 0].tolist() == [marked]
    after = windows[int(gaps[0])]
    assert after.after_gap.tolist() == [False, False, False, True]
    assert after.values[-2:, 0].tolist() == [missing[0] - 1, marked]
    assert not windows_of(rows, "15m", tolerance=len(missing)).rows.after_gap.any()
    assert windows_of(rows, "15m", tolerance=len(missing) - 1).rows.after_gap.sum() == 1


def test_a_symbol_that_comes_later_than_the_one_before_it_starts_without_a_gap():
    rows = [row for row in full("AB") if (row["bar"] < 30 if row["symbol"] == "A" else row["bar"] >= 40)]
    windows = windows_of(rows, "15m", length=4)
    assert not windows.rows.after_gap.any()
    assert windows.keys.row(30) == ("B", rows[30]["known_at"], rows[30]["session"])
    assert windows[30].session_start.tolist() == [False, False, False, True]


@pytest.mark.parametrize("market", ["crypto", "futures", "nse", "us"])
@pytest.mark.parametrize("edge", ["first", "last"])
def test_a_bar_alone_finds_its_session_whichever_utc_date_it_ends_on(market, edge):
    calendar = session_calendar(load_profile(market))
    session = calendar.sessions(date(2024, 6, 4), date(2024, 6, 6))[1]
    opens, closes = calendar.hours(session)
    row = full()[0] | {"known_at": opens + timedelta(minutes=1) if edge == "first" else closes}
    assert SequenceWindows.of(frame_of([row]), FEATURES, calendar, "1m").keys["session"].to_list() == [session]


def test_a_short_history_is_padded_on_the_left():
    window = windows_of(full()[:3], "15m", length=5)[2]
    assert window.values[:, 0].tolist() == [0, 0, 0, 1, 2]
    assert window.valid.tolist() == [False, False, True, True, True]
    assert window.session_start.tolist() == [False, False, True, False, False]
    assert len(windows_of(full()[:3], "15m", length=5, minimum=4)) == 0


def test_without_rows_there_are_no_windows():
    windows = windows_of([], "15m", length=7)
    assert len(windows) == 0
    assert windows.keys.schema == {"symbol": pl.String, "known_at": SCHEMA["known_at"], "session": pl.Date}
    assert windows.batch([]).values.shape == (0, 7, len(FEATURES))
    assert len(windows_of(full(), "15m", as_of=datetime(2021, 1, 1, tzinfo=UTC))) == 0


def test_neither_the_frame_nor_the_rows_change_whatever_is_done_to_a_batch():
    rows = full("AB")
    rows[7]["momentum"] = nan
    frame = frame_of(rows)
    windows = SequenceWindows.of(frame, FEATURES, NSE, "15m", length=4)
    assert_frame_equal(frame, frame_of(rows))
    before = windows.rows.values.copy()
    windows.batch([3, 4]).values[:] = 5.0
    windows[3].values[:] = 5.0
    np.testing.assert_array_equal(windows.rows.values, before)
    for array in (windows.rows.values, windows.view("A").values, windows.view("A").valid):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_windows_are_asked_for_as_of_a_list():
    windows = windows_of(full(), "15m", length=4)
    assert_same(windows[-1], windows[len(windows) - 1])
    assert_same(windows[[5, 5, -1]], windows.batch(np.array([5, 5, len(windows) - 1])))
    assert sum(1 for _ in windows) == len(windows)
    for beyond in (len(windows), -len(windows) - 1):
        with pytest.raises(IndexError):
            windows[beyond]
        with pytest.raises(IndexError):
            windows.batch([0, beyond])
    with pytest.raises(TypeError, match="whole numbers"):
        windows.batch([True, False])


def test_torch_loads_single_windows_and_whole_batches():
    data = pytest.importorskip("torch.utils.data")
    windows = windows_of(full("AB"), "15m", length=4)
    order = list(range(len(windows)))[::-1]
    whole_batches = data.BatchSampler(order, batch_size=16, drop_last=False)
    for loader in (
        data.DataLoader(windows, batch_size=16, sampler=order, num_workers=0),
        data.DataLoader(windows, batch_size=None, sampler=whole_batches, num_workers=0),
    ):
        loaded = list(loader)
        assert [len(batch.valid) for batch in loaded] == [16] * (len(order) // 16) + [len(order) % 16]
        joined = Windows(*(np.concatenate([part.numpy() for part in parts]) for parts in zip(*loaded, strict=True)))
        assert_same(joined, windows.batch(order))


def test_a_batch_needs_its_own_memory_and_the_rows_are_copied_once():
    length, names = 64, [f"feature_{i}" for i in range(40)]
    rows = pl.DataFrame(full("ABCDEFGH"), schema_overrides=SCHEMA).select("symbol", "known_at")
    rng = np.random.default_rng(1)
    frame = rows.with_columns(pl.Series(name, rng.normal(size=rows.height).astype(np.float32)) for name in names)
    SequenceWindows.of(frame, names, NSE, "15m", length=length).batch([0])  # compiled
    tracemalloc.start()
    try:
        windows = SequenceWindows.of(frame, names, NSE, "15m", length=length)
        assert tracemalloc.get_traced_memory()[1] < 2 * windows.rows.values.nbytes
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        batch = windows.batch(rng.integers(0, len(windows), 200))
        size = sum(array.nbytes for array in batch)
        assert size > 3 * windows.rows.values.nbytes
        assert tracemalloc.get_traced_memory()[1] - held < 1.1 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length=0: length must be 1 or more"),
        ({"step": 0}, "step=0"),
        ({"minimum": 0}, "minimum=0"),
        ({"length": 8, "minimum": 9}, "minimum=9: minimum must be 1 or more and at most the length, 8"),
        ({"tolerance": -1}, "tolerance=-1: tolerance must be 0 or more"),
    ],
)
def test_a_setting_without_windows_is_refused_with_its_rule(options, message):
    with pytest.raises(UnfitWindows, match=message):
        windows_of(full(), "15m", **options)


def test_a_name_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(NotInWindows, match=r"'momentun' .* did you mean momentum\?"):
        SequenceWindows.of(frame_of(full()), ["momentun"], NSE, "15m")
    with pytest.raises(NotInWindows, match="numeric feature 'symbol'"):
        SequenceWindows.of(frame_of(full()), ["symbol"], NSE, "15m")
    with pytest.raises(NotInWindows, match=r"symbol 'Z' .* known: A, B"):
        windows_of(full("AB"), "15m").view("Z")


def test_a_feature_that_no_row_knows_is_named_where_there_is_no_window():
    windows = windows_of([row | {"spread": None} for row in full("AB")], "15m")
    assert windows.never_known == ("spread",)
    with pytest.raises(IndexError, match="window 0 of 0: no row has a value of spread"):
        windows[0]
    assert windows_of(full("AB"), "15m").never_known == ()


def test_rows_in_any_order_give_the_same_windows():
    rows = full("AB")
    expected = windows_of(rows, "15m")
    for other in (rows[::-1], rows[::2] + rows[1::2]):
        found = windows_of(other, "15m")
        assert found.keys.equals(expected.keys)
        for one, same in zip(found.batch(range(len(found))), expected.batch(range(len(expected))), strict=True):
            np.testing.assert_array_equal(one, same)


def test_rows_that_cannot_be_windows_are_refused():
    rows = full("AB")
    for wrong in ([*rows, rows[0]], [rows[0], *rows]):
        with pytest.raises(ValueError, match="several rows with the same known_at"):
            windows_of(wrong, "15m")
    opens, closes = NSE.hours(DAYS[0])
    for beyond in (opens, closes + timedelta(minutes=1), datetime(2023, 4, 8, 12, tzinfo=UTC)):
        with pytest.raises(ValueError, match="in no session of 'nse'"):
            windows_of([rows[0] | {"known_at": beyond}], "15m")
    with pytest.raises(ValueError, match="a row's known_at is null"):
        windows_of([rows[0] | {"known_at": None}], "15m")
    with pytest.raises(OutsideCalendar):
        windows_of([rows[0] | {"known_at": datetime(1970, 1, 1, tzinfo=UTC)}], "15m")
    with pytest.raises(NaiveMoment):
        windows_of(rows, "15m", as_of=datetime(2021, 2, 23))


def test_recorded_minutes_with_outages_agree_with_slicing_the_recording(market_file):
    """48 sessions whose recorder failed at times; the file's page says that 16 % of symbol-days are complete."""
    bars = pl.read_parquet(market_file("nse_equity_1m_2021.parquet")).filter(pl.col("symbol") <= "HDFC")
    local = pl.col("ts").dt.convert_time_zone("Asia/Kolkata").dt
    day, minute = local.date(), local.hour().cast(pl.Int32) * 60 + local.minute() - 555
    rows = (
        bars.with_columns(session=day, minute=minute, known_at=pl.col("ts") + timedelta(minutes=1))
        .filter(pl.col("minute").is_between(0, 374), pl.col("session").is_in(NSE.sessions()))
        .with_columns(change=pl.col("close").log().diff().over("symbol"), reach=pl.col("high") / pl.col("low") - 1)
    )
    names = ["change", "reach"]
    windows = SequenceWindows.of(rows, names, NSE, "1m")
    before = pl.col("minute").shift().over("symbol", "session")
    missing = rows.select(inside=(pl.col("minute") - before > 1).fill_null(False), first=before.is_null())
    inside = ~missing["first"].to_numpy()
    np.testing.assert_array_equal(windows.rows.session_start, ~inside)
    np.testing.assert_array_equal(windows.rows.after_gap[inside], missing["inside"].to_numpy()[inside])
    assert missing["inside"].sum() > 100
    chosen = np.random.default_rng(2).integers(0, len(windows), 50)
    batch = windows.batch(chosen)
    for at, (symbol, known_at, _) in enumerate(windows.keys[chosen].iter_rows()):
        mine = rows.filter(pl.col("symbol") == symbol, pl.col("known_at") <= known_at).tail(512)
        plain = mine.select(pl.col(names).cast(pl.Float32)).to_numpy()
        usable = np.isfinite(plain).all(axis=1)
        np.testing.assert_array_equal(batch.valid[at, -len(plain) :], usable)
        np.testing.assert_array_equal(batch.values[at, -len(plain) :], np.where(usable[:, None], plain, 0))
        assert not batch.valid[at, : -len(plain)].any()
