"""Findings of a session: each defect planted alone is found alone, and the counts agree with a loop over rows."""

import itertools
import statistics
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from weekdaybars import FRIDAY, MINUTE, THURSDAY, Weekdays, at, row

from odin_core.lake import Lake
from odin_core.market.bars import BARS
from odin_core.market.quality.assessing import ARRIVALS, FINDINGS, QUARANTINE, assess_session, find_defects
from odin_core.market.quality.defects import (
    COARSE_BARS,
    EDGE,
    FEW_BARS,
    MOVE_FLOOR,
    MOVE_MULTIPLE,
    QUIET,
    STALE,
    TICK_FLOOR,
    TICK_LIES,
    TICK_MULTIPLE,
)
from odin_core.market.quality.measures import NEIGHBOURS

CALENDAR = Weekdays()


def bars(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([{"known_at": r["ts"] + MINUTE, "oi": None} | r for r in rows], schema=BARS)


def full(symbol: str = "A", **changes: Any) -> list[dict[str, Any]]:
    return [row(symbol, minute, **changes) for minute in range(375)]


def findings(rows: list[dict[str, Any]], **options: Any) -> list[tuple[Any, ...]]:
    found = find_defects(bars(rows), CALENDAR, THURSDAY, **options)
    assert found.schema == FINDINGS
    return found.select("symbol", "rule", "severity", "count").rows()


def test_a_complete_session_has_no_findings():
    assert findings(full("A") + full("B")) == []


def test_a_session_without_bars_is_one_finding():
    assert findings([]) == [("*", "no_bars", "warning", 1)]


def test_a_symbol_of_the_universe_without_bars_is_a_finding():
    assert findings(full("A"), universe=["A", "C", "B"]) == [
        ("B", "no_bars", "warning", 1),
        ("C", "no_bars", "warning", 1),
    ]


@pytest.mark.parametrize(("missing", "severity"), [(1, "info"), (18, "info"), (19, "warning"), (150, "warning")])
def test_missing_bars_are_counted_and_weighed(missing: int, severity: str):
    rows = [r for r in full() if not at(100) <= r["ts"] < at(100 + missing)]
    assert findings(rows) == [("A", "missing_bars", severity, missing)]
    detail = find_defects(bars(rows), CALENDAR, THURSDAY)["detail"].item()
    assert detail == f"of 375 bars; longest gap {missing}, from 05:25 UTC"


@pytest.mark.parametrize(
    ("first", "last", "gap", "start"), [(7, 375, 7, "03:45"), (0, 370, 5, "09:55"), (3, 371, 4, "09:56")]
)
def test_the_longest_gap_may_lie_at_either_end(first: int, last: int, gap: int, start: str):
    detail = find_defects(bars(full()[first:last]), CALENDAR, THURSDAY)["detail"].item()
    assert detail.endswith(f"longest gap {gap}, from {start} UTC")


def test_fewer_than_six_tenths_of_the_minutes_are_few_bars():
    assert ("A", "few_bars", "warning", 224) in findings(full()[:224])
    assert [f for f in findings(full()[:225]) if f[1] == "few_bars"] == []


def test_missing_and_zero_volume_are_noted():
    rows = full("A", volume=None) + full("B", volume=0.0)
    assert findings(rows) == [("A", "no_volume", "info", 375), ("B", "zero_volume", "info", 375)]


def test_a_few_minutes_without_volume_are_nothing_to_note():
    assert findings([r | {"volume": 0.0} if n < 37 else r for n, r in enumerate(full())]) == []


def frozen(start: int, length: int, **changes: Any) -> list[dict[str, Any]]:
    """A session in which the bar at `start` is repeated `length` times."""
    model = full()[start] | changes
    return [model | {"ts": r["ts"]} if start < n <= start + length else r for n, r in enumerate(full())]


@pytest.mark.parametrize("volume", [0.0, None, 110.0], ids=["zero", "null", "the same"])
def test_a_bar_that_is_repeated_without_new_volume_is_stale(volume: float | None):
    found = findings(frozen(100, STALE - 1, volume=volume))
    assert ("A", "stale", "warning", STALE) in found
    assert [f for f in findings(frozen(100, STALE - 2, volume=volume)) if f[1] == "stale"] == []


def test_equal_prices_with_new_volume_are_not_stale():
    rows = [r | {"open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0} for r in full()]
    assert findings(rows) == []


def test_a_stale_run_does_not_reach_into_the_next_symbol():
    flat = {"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 5.0}
    rows = [r | flat for r in full("A")[-10:]] + [r | flat for r in full("B")[:10]]
    assert [f for f in findings(rows) if f[1] == "stale"] == []


def by_rule(rows: list[dict[str, Any]], **options: Any) -> dict[str, tuple[str, int]]:
    return {rule: (severity, count) for _, rule, severity, count in findings(rows, **options)}


def test_a_wick_that_both_neighbours_lack_is_a_bad_tick_and_a_move_that_holds_is_only_told():
    tick = [r | {"high": 200.0} if n == 200 else r for n, r in enumerate(full())]
    assert by_rule(tick) == {"bad_tick": ("warning", 1), "large_move": ("info", 1)}
    detail = find_defects(bars(tick), CALENDAR, THURSDAY).filter(rule="bad_tick")["detail"].item()
    assert detail == "bars leave both neighbours' range and return; by 81.8 % at 07:05 UTC"  # 200 over 110
    step = [scaled(r, 1.5) if n >= 200 else r for n, r in enumerate(full())]
    assert by_rule(step) == {"large_move": ("info", 1)}


def scaled(bar: dict[str, Any], ratio: float) -> dict[str, Any]:
    return bar | {name: bar[name] * ratio for name in ("open", "high", "low", "close")}


@pytest.mark.parametrize(("ratio", "severity"), [(TICK_LIES * 1.01, "error"), (TICK_LIES * 0.99, "warning")])
@pytest.mark.parametrize("up", [True, False])
def test_a_tick_that_no_crash_explains_blocks(ratio: float, severity: str, up: bool):
    """Neighbours of minute 205: highs 105 and 107, lows 103 and 105."""
    wrong = {"high": 107.0 * ratio} if up else {"low": 103.0 / ratio}
    tick = [r | wrong if n == 205 else r for n, r in enumerate(full())]
    assert by_rule(tick)["bad_tick"] == (severity, 1)


def test_a_bar_is_not_judged_by_neighbours_that_are_far_away_or_missing():
    tick = [r | {"high": 200.0} if n == 200 else r for n, r in enumerate(full())]
    far = [r for n, r in enumerate(tick) if n <= 200 - NEIGHBOURS - 1 or n >= 200]
    near = [r for n, r in enumerate(tick) if n <= 200 - NEIGHBOURS or n >= 200]
    assert "bad_tick" not in by_rule(far)
    assert "bad_tick" in by_rule(near)
    for edge in (0, 374):
        assert "bad_tick" not in by_rule([r | {"high": 200.0} if n == edge else r for n, r in enumerate(full())])


@pytest.mark.parametrize("name", ["NIFTY25JAN2421150CE", "BANKNIFTY24JAN46000PE"])
def test_an_option_may_move_by_any_ratio(name: str):
    rows = [r | {"symbol": name} for r in full()]
    wild = [scaled(r, 20.0) if n == 200 or n > 300 else r for n, r in enumerate(rows)]
    assert set(by_rule(wild)) == {"large_move"}
    assert set(by_rule([r | {"symbol": "FUT"} for r in wild], options=["FUT"])) == {"large_move"}
    assert by_rule([r | {"symbol": "A"} for r in wild])["wrong_magnitude"] == ("error", 75)


def test_the_first_bar_is_not_compared_with_another_symbols_last():
    cheap = [r | {"open": 1.0, "high": 1.01, "low": 0.99, "close": 1.0} for r in full("B")]
    assert findings(full("A") + cheap) == []


def test_breaches_of_the_tables_contract_are_errors():
    rows = full()
    assert findings([*rows, rows[7]]) == [("A", "duplicate", "error", 1)]
    assert ("A", "bad_price", "error", 1) in findings([rows[0] | {"low": -1.0}, *rows[1:]])
    assert ("A", "bad_price", "error", 1) in findings([rows[0] | {"close": None}, *rows[1:]])
    assert ("A", "bad_price", "error", 1) in findings([rows[0] | {"volume": -1.0}, *rows[1:]])
    assert ("A", "bad_price", "error", 1) in findings([rows[0] | {"oi": -1.0}, *rows[1:]])
    assert ("A", "outside_hours", "error", 1) in findings([*rows, row("A", 375)])


def test_a_bar_that_may_be_used_before_its_end_blocks():
    early = [
        r | {"known_at": r["ts"] + MINUTE - timedelta(microseconds=1)} if n == 3 else r for n, r in enumerate(full())
    ]
    assert findings(early) == [("A", "known_too_early", "error", 1)]
    late = [r | {"known_at": r["ts"] + 2 * MINUTE} for r in full()]
    assert findings(late) == []


@pytest.mark.parametrize(("first", "last", "rule"), [(EDGE, 375, "late_start"), (0, 375 - EDGE, "early_stop")])
def test_bars_that_begin_late_or_stop_early_are_said_apart_from_other_gaps(first: int, last: int, rule: str):
    rows = full()[first:last]
    assert by_rule(rows) == {"missing_bars": ("warning", EDGE), rule: ("warning", EDGE)}
    closer = full()[max(first - 1, 0) : last if last == 375 else last + 1]
    assert set(by_rule(closer)) == {"missing_bars"}


def test_an_illiquid_symbol_does_not_stop_early_because_its_last_trade_was_early():
    rows = [r for n, r in enumerate(full()) if n % 12 == 0 and n < 350]
    assert not {"early_stop", "late_start"} & set(by_rule(rows))


def test_minutes_that_no_symbol_has_are_a_finding_of_the_session():
    rows = [r for s in "AB" for n, r in enumerate(full(s)) if not 100 <= n < 103 and n != (50 if s == "A" else 60)]
    assert ("*", "feed_hole", "warning", 3) in findings(rows)
    detail = find_defects(bars(rows), CALENDAR, THURSDAY).filter(rule="feed_hole")["detail"].item()
    assert detail == "of 375 bars no symbol has any; longest hole 3, from 05:25 UTC"
    short = [r for s in "AB" for n, r in enumerate(full(s)) if not 100 <= n < 102]
    assert ("*", "feed_hole", "info", 2) in findings(short)
    assert "feed_hole" not in by_rule([r for r in rows if r["symbol"] == "A"])


def test_a_halt_that_the_calendar_knows_is_no_gap():
    class Halted(Weekdays):
        def halts(self, session: date) -> Any:
            return ((at(60), at(120)),)

    rows = [r for s in "AB" for n, r in enumerate(full(s)) if not 60 <= n < 120]
    assert find_defects(bars(rows), Halted(), THURSDAY).is_empty()
    found = find_defects(bars([*rows, row("A", 70)]), Halted(), THURSDAY)
    assert found.select("symbol", "rule", "severity", "count").rows() == [("A", "bars_in_halt", "info", 1)]
    without = [r for r in rows if r["ts"] != at(59)]
    assert find_defects(bars(without), Halted(), THURSDAY).filter(rule="missing_bars")["count"].to_list() == [1, 1]


def test_pages_between_holes_are_known_by_their_length():
    pages = [*range(20, 120), *range(160, 260), *range(300, 375)]
    assert by_rule([row("A", n) for n in pages])["paging_holes"] == ("warning", 1)  # the first hole is too short
    pages = [*range(40, 140), *range(180, 280), *range(320, 375)]
    assert by_rule([row("A", n) for n in pages])["paging_holes"] == ("warning", 2)
    chance = [*range(40, 141), *range(180, 280 - 1), *range(320, 375)]
    assert "paging_holes" not in by_rule([row("A", n) for n in chance])


def test_larger_bars_among_minute_bars_are_seen():
    five = [row("A", n) for n in range(0, 375, 5)]
    assert by_rule(five)["coarse_bars"] == ("warning", 75)
    assert (
        "they are no 1m bars"
        in find_defects(bars(five), CALENDAR, THURSDAY).filter(rule="coarse_bars")["detail"].item()
    )
    assert "coarse_bars" not in by_rule([*five, row("A", 7)])
    assert "coarse_bars" not in by_rule(five[: COARSE_BARS - 1])


@pytest.mark.parametrize(("interval", "minutes"), [("5m", 5), ("60m", 60)])
def test_larger_bars_are_measured_by_their_own_interval(interval: str, minutes: int):
    def bar(n: int) -> dict[str, Any]:
        return row("A", n) | {"known_at": min(at(n + minutes), at(375))}

    whole = [bar(n) for n in range(0, 375, minutes)]
    assert findings(whole, interval=interval) == []
    found = find_defects(bars(whole[1:]), CALENDAR, THURSDAY, interval=interval)
    expected = -(-375 // minutes)
    detail = f"of {expected} bars; longest gap 1, from 03:45 UTC"
    assert found.filter(rule="missing_bars").select("interval", "count", "detail").row(0) == (interval, 1, detail)


def test_a_bar_of_the_whole_session_is_complete():
    day = row("A", 0) | {"known_at": at(375)}
    assert findings([day], interval="day") == []
    assert findings([day | {"known_at": at(374)}], interval="day") == [("A", "known_too_early", "error", 1)]


def test_quarantined_and_late_rows_are_findings_of_their_session():
    held = {"origin": "f", "origin_id": "0", "interval": "1m", "row": 1, "content": "{}"}
    quarantine = pl.DataFrame(
        [held | {"symbol": s, "rule": r} for s, r in [("A", "outside_hours")] * 2 + [(None, "symbol_missing")]],
        schema=QUARANTINE,
    )
    arrived = {"origin": "f", "origin_id": "0", "interval": "1m", "kept": 375, "quarantined": 0}
    arrivals = pl.DataFrame(
        [arrived | {"symbol": s, "out_of_order": n} for s, n in [("A", 0), ("B", 3), ("B", 4)]], schema=ARRIVALS
    )
    assert findings(full("A") + full("B"), quarantine=quarantine, arrivals=arrivals) == [
        ("*", "quarantined_symbol_missing", "info", 1),
        ("A", "quarantined_outside_hours", "info", 2),
        ("B", "out_of_order", "info", 7),
    ]


def test_what_the_lake_holds_is_assessed_as_the_frames_would_be(tmp_path: Any):
    lake = Lake(tmp_path)
    assert_frame_equal(
        assess_session(lake, CALENDAR, THURSDAY), find_defects(BARS.to_frame(), CALENDAR, THURSDAY), check_exact=True
    )
    lake.write("price_history", FRIDAY, bars([row("A", 5, day=FRIDAY)]))
    found = assess_session(lake, CALENDAR, FRIDAY, universe=["A", "B"])
    assert found["rule"].to_list() == ["early_stop", "few_bars", "missing_bars", "no_bars"]


CELL = st.tuples(
    st.sampled_from([100.0, 100.0, 100.0, 101.0, 107.0, 150.0]), st.sampled_from([0.0, 0.0, 5.0, 6.0, None])
)
SYMBOL = st.dictionaries(st.integers(0, 374), CELL, min_size=1, max_size=60)


def flat(symbol: str, minute: int, price: float, volume: float | None) -> dict[str, Any]:
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    return {"symbol": symbol, "ts": at(minute), **prices, "volume": volume}


def by_hand(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Counts of one symbol's flat bars by rule, row by row; edges, pages and levels are left out."""
    counts = {"missing_bars": 375 - len(rows), "no_volume": sum(r["volume"] is None for r in rows)}
    counts["few_bars"] = len(rows) if len(rows) < FEW_BARS * 375 else 0
    zero = sum(r["volume"] == 0 for r in rows)
    counts["zero_volume"] = zero if zero > QUIET * len(rows) else 0
    moves, runs = [1.0], [1]
    for before, now in itertools.pairwise(rows):
        moves.append(max(now["close"] / before["close"], before["close"] / now["close"]))
        still = now["close"] == before["close"] and now["volume"] in (None, 0.0, before["volume"])
        runs = [*runs[:-1], runs[-1] + 1] if still else [*runs, 1]
    counts["stale"] = sum(n for n in runs if n >= STALE)
    median = statistics.median(moves)
    counts["large_move"] = sum(m > max(MOVE_FLOOR, median**MOVE_MULTIPLE) for m in moves)
    for before, now, after in zip(rows, rows[1:], rows[2:], strict=False):
        near = max(now["ts"] - before["ts"], after["ts"] - now["ts"]) <= NEIGHBOURS * MINUTE
        prices = before["close"], after["close"]
        beyond = max(now["close"] / max(prices), min(prices) / now["close"])
        if near and beyond > max(TICK_FLOOR, median**TICK_MULTIPLE):
            counts["bad_tick"] = counts.get("bad_tick", 0) + 1
    return {rule: n for rule, n in counts.items() if n}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("ABC"), SYMBOL, min_size=1), st.randoms(use_true_random=False))
def test_the_counts_agree_with_their_loop_twin_in_any_row_order(cells: dict[str, Any], random: Any):
    by_symbol = {s: [flat(s, m, *cells[s][m]) for m in sorted(cells[s])] for s in cells}
    rows = [r for symbol in by_symbol.values() for r in symbol]
    random.shuffle(rows)
    found: dict[str, dict[str, int]] = {}
    elsewhere = {"*", "late_start", "early_stop", "coarse_bars", "paging_holes"}
    for symbol, rule, _, count in findings(rows):
        if not {symbol, rule} & elsewhere:
            found.setdefault(symbol, {})[rule] = count
    assert found == {symbol: by_hand(symbol_rows) for symbol, symbol_rows in by_symbol.items()}


def test_a_short_session_is_measured_by_its_own_hours():
    class Evening(Weekdays):
        def hours(self, session: date) -> tuple[datetime, datetime]:
            start = datetime.combine(session, super().hours(session)[0].timetz()) + timedelta(hours=9)
            return start, start + 60 * MINUTE

    rows = [row("A", 540 + minute) for minute in range(60)]
    assert find_defects(bars(rows), Evening(), THURSDAY).is_empty()
