"""What quality counts, against the same numbers counted by hand over sets of minutes and plain loops."""

from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odin_core.market.bars import BARS, MINUTE
from odin_core.market.quality.measures import (
    Grid,
    Rows,
    coverage,
    excursions,
    lags_behind_others,
    levels,
    moves,
    rows_of,
    session_grid,
    uncovered,
)

OPEN = datetime(2021, 4, 1, 3, 45, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")


def frame(cells: dict[str, dict[int, float]], step: int = 1) -> pl.DataFrame:
    """Flat bars: symbol to minute since the open to price."""
    rows = [
        {"symbol": symbol, "ts": OPEN + MINUTE * n, "known_at": OPEN + MINUTE * (n + step), "volume": 1.0}
        | dict.fromkeys(PRICES, price)
        for symbol, bars in cells.items()
        for n, price in bars.items()
    ]
    return pl.DataFrame(rows, schema=BARS)


def measured(cells: dict[str, dict[int, float]], minutes: int, halts: list[tuple[int, int]]) -> tuple[Rows, Grid]:
    spans = [(OPEN + MINUTE * a, OPEN + MINUTE * b) for a, b in halts]
    grid = session_grid(OPEN, OPEN + MINUTE * minutes, 1, spans)
    return rows_of(frame(cells), grid), grid


def runs(marks: list[bool]) -> list[int]:
    return [len(list(group)) for marked, group in groupby(marks) if marked]


CELLS = st.dictionaries(
    st.sampled_from("ABC"),
    st.dictionaries(st.integers(0, 59), st.sampled_from([10.0, 10.1, 20.0, 33.0, 100.0]), min_size=1),
    min_size=1,
)
HALTS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)).map(lambda p: (p[0], p[0] + p[1])), max_size=2)


@settings(max_examples=150, deadline=None)
@given(CELLS, HALTS)
def test_coverage_is_what_sets_of_minutes_say(cells: dict[str, dict[int, float]], halts: list[tuple[int, int]]):
    rows, grid = measured(cells, 60, halts)
    halted = {n for a, b in halts for n in range(a, b) if n < 60}
    trading = [n for n in range(60) if n not in halted]
    assert grid.total == len(trading)
    found = coverage(rows, grid)
    for at, symbol in enumerate(sorted(cells)):
        have = set(cells[symbol])
        absent = [n not in have for n in trading]
        assert found.missing[at] == sum(absent)
        assert found.halted[at] == len(have & halted)
        before, after = ([n for n in trading if n < min(have)], [n for n in trading if n > max(have)])
        assert (found.at_start[at], found.at_end[at]) == (len(before), len(after))
        inner = [
            sum(a < n < b for n in trading) for a, b in pairwise(sorted(have))
        ]  # a bar in a halt parts a gap in two
        assert found.longest_between[at] == max(inner, default=0)
        assert found.longest[at] == max([*inner, len(before), len(after)])
        steps = np.diff(sorted(have))
        assert found.closest[at] == (steps.min() if len(steps) else 0)
    everyone = set().union(*cells.values())
    holes = [n not in everyone and n in trading for n in range(60)]
    count, longest, first = uncovered(rows, grid)
    assert (count, longest) == (sum(holes), max(runs(holes), default=0))
    assert not count or all(holes[first : first + longest])


@settings(max_examples=100, deadline=None)
@given(CELLS)
def test_ranges_excursions_and_levels_are_what_a_loop_over_bars_says(cells: dict[str, dict[int, float]]):
    rows, _ = measured(cells, 60, [])
    found, beyond, split = moves(rows), excursions(rows), levels(rows, 1.8)
    for at, symbol in enumerate(sorted(cells)):
        bars = sorted(cells[symbol].items())
        prices = [price for _, price in bars]
        ratios = [1.0, *(max(a / b, b / a) for a, b in pairwise(prices))]
        span = slice(rows.first[at], rows.first[at] + rows.count[at])
        np.testing.assert_allclose(found.ratio[span], ratios)
        assert found.median[at] == pytest.approx(np.median(ratios))
        assert found.ratio[found.largest[at]] == pytest.approx(max(ratios))
        alone = [1.0] * len(bars)
        for n in range(1, len(bars) - 1):
            around = prices[n - 1], prices[n + 1]
            if max(bars[n][0] - bars[n - 1][0], bars[n + 1][0] - bars[n][0]) <= 5:
                alone[n] = max(1.0, prices[n] / max(around), min(around) / prices[n])
        np.testing.assert_allclose(beyond[span], alone)
        starts = [0, *(n for n in range(1, len(bars)) if ratios[n] > 1.8)]
        assert (split.first[split.symbol == at] - rows.first[at]).tolist() == starts
        assert split.length[split.symbol == at].sum() == len(bars)


@pytest.mark.parametrize("delay", [-90, -3, 4, 30])
def test_a_delay_is_found_as_by_trying_each_of_them(delay: int):
    rng = np.random.default_rng(3)
    market = rng.normal(0, 1e-3, 600)
    cells = {}
    for symbol, shift in (("A", delay), ("B", 0), ("C", 0)):
        returns = np.roll(market, shift)[150:450] + rng.normal(0, 3e-4, 300)
        cells[symbol] = dict(enumerate(100 * np.exp(np.cumsum(returns))))
    rows, grid = measured(cells, 300, [])
    lag = next(lag for lag in lags_behind_others(rows, grid, 0.5, 100) if lag.symbol == 0)
    closes = np.array([[cells[s][n] for n in range(300)] for s in "ABC"])
    changes = np.diff(closes, axis=1, prepend=closes[:, :1]) / np.append(closes[:, :1], closes[:, :-1], axis=1)
    limit = 3 * np.abs(changes).mean(axis=1, keepdims=True)
    cut = np.clip(changes, -limit, limit) / limit
    others = cut[1] + cut[2]
    by_hand = np.correlate(np.pad(cut[0], 299), others, mode="valid")[:599]  # delays -299 to 299
    assert lag.slots == delay == int(by_hand.argmax()) - 299
    assert lag.correlation == pytest.approx(by_hand.max() / np.sqrt((cut[0] ** 2).sum() * (others**2).sum()))


@pytest.mark.parametrize(("minutes", "slots"), [(1, 375), (5, 75), (15, 25), (60, 7), (None, 1)])
def test_a_grid_has_a_slot_for_each_bar_and_the_last_may_be_short(minutes: int | None, slots: int):
    grid = session_grid(OPEN, OPEN + MINUTE * 375, minutes)
    assert (grid.total, len(grid.begins)) == (slots, slots)
    last = np.array([round((OPEN + MINUTE * 375 - timedelta(microseconds=1)).timestamp() * 1e6)])
    assert grid.slot(last)[0] == slots - 1
    assert grid.slot(grid.begins).tolist() == list(range(slots))
    assert grid.slot(grid.begins[1:] - 1).tolist() == list(range(slots - 1))


def test_a_slot_is_left_out_only_where_a_halt_covers_all_of_it():
    halt = (OPEN + MINUTE * 8, OPEN + MINUTE * 20)
    assert np.flatnonzero(~session_grid(OPEN, OPEN + MINUTE * 375, 5, [halt]).trades).tolist() == [2, 3]
    end = (OPEN + MINUTE * 360, OPEN + MINUTE * 375)
    assert np.flatnonzero(~session_grid(OPEN, OPEN + MINUTE * 375, 60, [end]).trades).tolist() == [6]


def test_rows_come_out_the_same_whatever_order_they_came_in_and_stay_untouched():
    cells = {"B": {3: 1.0, 1: 2.0}, "A": {5: 4.0, 2: 3.0}}
    bars = frame(cells)
    before = bars.clone()
    rows, _ = measured(cells, 60, [])
    assert rows.symbols == ["A", "B"]
    assert rows.close.tolist() == [3.0, 4.0, 2.0, 1.0]
    assert (rows.first.tolist(), rows.count.tolist()) == ([0, 2], [2, 2])
    assert bars.equals(before)
