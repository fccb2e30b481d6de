"""Findings of a session: each defect planted alone is found alone, and the counts agree with a loop over rows."""

import itertools
import math
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
from odin_core.market.quality import (
    ARRIVALS,
    FEW_BARS,
    FINDINGS,
    OUTLIER_FLOOR,
    OUTLIER_MULTIPLE,
    QUARANTINE,
    QUIET,
    STALE_MINUTES,
    assess_session,
    find_defects,
)

CALENDAR = Weekdays()


def bars(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame([r | {"known_at": r["ts"] + MINUTE, "oi": None} for r in rows], schema=BARS)


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
def test_missing_minutes_are_counted_and_weighed(missing: int, severity: str):
    rows = [r for r in full() if not at(100) <= r["ts"] < at(100 + missing)]
    assert findings(rows) == [("A", "missing_minutes", severity, missing)]
    detail = find_defects(bars(rows), CALENDAR, THURSDAY)["detail"].item()
    assert detail == f"of 375 minutes; longest gap {missing}, from 05:25 UTC"


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
    found = findings(frozen(100, STALE_MINUTES - 1, volume=volume))
    assert ("A", "stale", "warning", STALE_MINUTES) in found
    assert [f for f in findings(frozen(100, STALE_MINUTES - 2, volume=volume)) if f[1] == "stale"] == []


def test_equal_prices_with_new_volume_are_not_stale():
    rows = [r | {"open": 100.0, "high": 100.0, "low": 100.0, "close": 100.0} for r in full()]
    assert findings(rows) == []


def test_a_stale_run_does_not_reach_into_the_next_symbol():
    flat = {"open": 1.0, "high": 1.0, "low": 1.0, "close": 1.0, "volume": 5.0}
    rows = [r | flat for r in full("A")[-10:]] + [r | flat for r in full("B")[:10]]
    assert [f for f in findings(rows) if f[1] == "stale"] == []


def test_a_bad_tick_is_an_outlier_and_an_ordinary_range_is_not():
    tick = [r | {"high": 200.0} if n == 200 else r for n, r in enumerate(full())]
    assert findings(tick) == [("A", "outlier_move", "warning", 1)]
    detail = find_defects(bars(tick), CALENDAR, THURSDAY)["detail"].item()
    assert detail.startswith("largest range 102.02 % of price, at 07:05 UTC")


def test_the_first_bar_is_not_compared_with_another_symbols_last():
    cheap = [r | {"open": 1.0, "high": 1.01, "low": 0.99, "close": 1.0} for r in full("B")]
    assert findings(full("A") + cheap) == []


def test_breaches_of_the_tables_contract_are_errors():
    rows = full()
    assert findings([*rows, rows[7]]) == [("A", "duplicate", "error", 1)]
    assert ("A", "bad_price", "error", 1) in findings([rows[0] | {"low": -1.0}, *rows[1:]])
    assert ("A", "bad_price", "error", 1) in findings([rows[0] | {"close": None}, *rows[1:]])
    assert ("A", "bad_price", "error", 1) in findings([rows[0] | {"volume": -1.0}, *rows[1:]])
    assert ("A", "outside_hours", "error", 1) in findings([*rows, row("A", 375)])


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
    assert found["rule"].to_list() == ["few_bars", "missing_minutes", "no_bars"]


CELL = st.tuples(
    st.sampled_from([100.0, 100.0, 100.0, 101.0, 107.0, 250.0]), st.sampled_from([0.0, 0.0, 5.0, 6.0, None])
)
SYMBOL = st.dictionaries(st.integers(0, 374), CELL, min_size=1, max_size=60)


def flat(symbol: str, minute: int, price: float, volume: float | None) -> dict[str, Any]:
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    return {"symbol": symbol, "ts": at(minute), **prices, "volume": volume}


def by_hand(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Counts of one symbol's flat bars by rule, row by row."""
    counts = {"missing_minutes": 375 - len(rows), "no_volume": sum(r["volume"] is None for r in rows)}
    counts["few_bars"] = len(rows) if len(rows) < FEW_BARS * 375 else 0
    zero = sum(r["volume"] == 0 for r in rows)
    counts["zero_volume"] = zero if zero > QUIET * len(rows) else 0
    moves, runs = [0.0], [1]
    for before, now in itertools.pairwise(rows):
        moves.append(abs(math.log(now["close"] / before["close"])))
        still = now["close"] == before["close"] and now["volume"] in (None, 0.0, before["volume"])
        runs = [*runs[:-1], runs[-1] + 1] if still else [*runs, 1]
    counts["stale"] = sum(n for n in runs if n >= STALE_MINUTES)
    limit = max(OUTLIER_FLOOR, OUTLIER_MULTIPLE * statistics.median(moves))
    counts["outlier_move"] = sum(m > limit for m in moves)
    return {rule: n for rule, n in counts.items() if n}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("ABC"), SYMBOL, min_size=1), st.randoms(use_true_random=False))
def test_the_counts_agree_with_their_loop_twin_in_any_row_order(cells: dict[str, Any], random: Any):
    by_symbol = {s: [flat(s, m, *cells[s][m]) for m in sorted(cells[s])] for s in cells}
    rows = [r for symbol in by_symbol.values() for r in symbol]
    random.shuffle(rows)
    found: dict[str, dict[str, int]] = {}
    for symbol, rule, _, count in findings(rows):
        found.setdefault(symbol, {})[rule] = count
    assert found == {symbol: by_hand(symbol_rows) for symbol, symbol_rows in by_symbol.items()}


def test_a_short_session_is_measured_by_its_own_hours():
    class Evening(Weekdays):
        def hours(self, session: date) -> tuple[datetime, datetime]:
            start = datetime.combine(session, super().hours(session)[0].timetz()) + timedelta(hours=9)
            return start, start + 60 * MINUTE

    rows = [row("A", 540 + minute) for minute in range(60)]
    assert find_defects(bars(rows), Evening(), THURSDAY).is_empty()
