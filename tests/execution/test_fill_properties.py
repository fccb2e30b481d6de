"""The fill engine's properties over generated bars and orders: batch, step and the twin by hand agree."""

import math

import fills_by_hand as twin
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odin_core.execution.fills import end_session, simulate, step
from odin_core.execution.orders import (
    NEVER,
    NEW,
    Bars,
    ExecutionRules,
    ExitReason,
    Fill,
    Fills,
    Order,
    OrderKind,
    Orders,
    State,
    VolumeKind,
)

TICK = 0.125


@st.composite
def sessions(draw: st.DrawFn, least: int = 1) -> Bars:
    """A few bars on a grid of ticks, with gaps, and with volumes that are often 0, thin or unknown."""
    steps = st.integers(-6, 6)
    rows, price = [], 800
    for _ in range(draw(st.integers(least, 10))):
        open_ = price + draw(st.sampled_from((0, 0, 0, -12, -3, 5, 14)))
        close = open_ + draw(steps)
        high, low = max(open_, close) + draw(st.integers(0, 5)), min(open_, close) - draw(st.integers(0, 5))
        volume = draw(st.sampled_from((0.0, math.nan, 3.0, 40.0, 64.0, 100.0, 1000.0)))
        rows.append((*(p * TICK for p in (open_, high, low, close)), volume))
        price = close
    return Bars(*np.array(rows, dtype=np.float64).T)


@st.composite
def one_order(draw: st.DrawFn, rows: int) -> Orders:
    first = draw(st.integers(0, rows - 1))
    last = draw(st.integers(first, rows - 1))
    distance = st.one_of(st.just(math.inf), st.integers(1, 16).map(lambda n: n * TICK))
    noise = st.sampled_from((0.0, 0.7, -1.3, 4.0))
    return Orders.of(
        side=draw(st.sampled_from((1, -1))),
        kind=draw(st.sampled_from(list(OrderKind))),
        quantity=draw(st.sampled_from((0.0, 1.0, 7.0, 16.0, 50.5))),
        price=draw(st.integers(790, 810)) * TICK,
        stop_distance=draw(distance),
        target_distance=draw(distance),
        first=first,
        last=last,
        entry_bars=draw(st.sampled_from((0, 1, 2, 5, NEVER))),
        due=draw(st.one_of(st.integers(first - 1, last + 2), st.just(NEVER))),
        volatility=draw(st.sampled_from((0.0, 0.001, 0.02))),
        noise_entry=draw(noise),
        noise_exit=draw(noise),
        lot=draw(st.sampled_from((float("nan"), float("nan"), 0.0, 0.125, 2.0))),
        leave=draw(st.one_of(st.just(NEVER), st.just(NEVER), st.integers(first, last + 2))),
    )


RULES = st.builds(
    ExecutionRules,
    half_spread_bps=st.sampled_from((0.0, 3.0)),
    impact=st.sampled_from((0.0, 1.0)),
    noise=st.sampled_from((0.0, 0.5)),
    max_participation=st.sampled_from((0.1, 0.25, 1.0)),
    lot=st.sampled_from((0.0, 1.0, 5.0)),
    latency_bars=st.sampled_from((0, 0, 1, 2)),
    volume=st.sampled_from((VolumeKind.TRADED, VolumeKind.TRADED, VolumeKind.TICKS, VolumeKind.NONE)),
)


def step_by_step(bars: Bars, order: Order, rules: ExecutionRules) -> tuple[State, list[Fill]]:
    state, fills = NEW, []
    for row in range(order.first, order.last + 1):
        state, fill = step(state, order, bars.bar(row), rules.compiled)
        fills.append(fill)
    return end_session(state, order), fills


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_the_batch_gives_the_same_bits_as_stepping_every_bar_and_both_agree_with_the_twin(data: st.DataObject):
    bars = data.draw(sessions())
    placed, rules = data.draw(one_order(bars.open.size)), data.draw(RULES)
    out = simulate(bars, placed, rules).frame().row(0, named=True)
    state, _ = step_by_step(bars, placed.order(0), rules)
    for name, leg in (("entry", state.entry), ("exit", state.exit)):
        np.testing.assert_array_equal([out[f"{name}_{field}"] for field in leg._fields], leg)
    assert out["leaving"] == state.leaving

    by_hand = twin.run_session([bars.bar(row) for row in range(bars.open.size)], placed.order(0), rules)
    assert (out["entry_quantity"], out["exit_quantity"]) == (by_hand.bought, by_hand.sold)
    assert ExitReason(out["reason"]).name == by_hand.reason
    assert out["entry_row"] == (by_hand.entries[0].row if by_hand.entries else -1)
    assert out["exit_row"] == (by_hand.exits[-1].row if by_hand.exits else -1)
    for name, executions in (("entry", by_hand.entries), ("exit", by_hand.exits)):
        for field in ("reference", "half_spread", "slippage", "price"):
            expected = twin.mean(executions, field)
            assert out[f"{name}_{field}"] == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_each_execution_keeps_the_promises_of_the_engine(data: st.DataObject):
    bars = data.draw(sessions())
    placed, rules = data.draw(one_order(bars.open.size)), data.draw(RULES)
    order = placed.order(0)
    state, fills = step_by_step(bars, order, rules)
    traded = rules.volume is VolumeKind.TRADED
    for fill in fills:
        for direction, leg in ((order.side, fill.entry), (-order.side, fill.exit)):
            if leg.quantity == 0:
                continue
            bar = bars.bar(leg.row)
            assert bar.low <= leg.reference <= bar.high
            assert leg.half_spread >= 0
            assert leg.slippage >= 0
            assert leg.price == pytest.approx(leg.reference + direction * (leg.half_spread + leg.slippage), rel=1e-12)
            assert not traded or bar.volume > 0
        if order.kind == OrderKind.LIMIT and fill.entry.quantity > 0:
            assert order.side * (order.price - fill.entry.price) >= 0
        if traded and fill.entry.quantity + fill.exit.quantity > 0:
            room = rules.max_participation * bars.volume[max(fill.entry.row, fill.exit.row)]
            assert fill.entry.quantity + fill.exit.quantity <= room
    assert 0 <= state.exit.quantity <= state.entry.quantity <= order.quantity


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_many_orders_are_each_run_as_if_alone_repeatably_and_leave_their_inputs_alone(data: st.DataObject):
    bars = data.draw(sessions())
    alone = data.draw(st.lists(one_order(bars.open.size), min_size=1, max_size=5))
    rules = data.draw(RULES)
    together = Orders._make(np.concatenate(columns) for columns in zip(*alone, strict=True))
    before = [column.copy() for column in (*bars, *together)]
    fills, again = simulate(bars, together, rules), simulate(bars, together, rules)
    for index, order in enumerate(alone):
        single = simulate(bars, order, rules)
        for a, b, c in zip(fills, again, single, strict=True):
            np.testing.assert_array_equal(a[index], c[0])
            np.testing.assert_array_equal(a, b)
    for a, b in zip(before, (*bars, *together), strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_two_sessions_resumed_equal_one_run_over_both_where_the_entry_ends_with_the_first(data: st.DataObject):
    one, two = data.draw(sessions(least=2)), data.draw(sessions())
    cut, rules = one.open.size, data.draw(RULES)
    both = Bars._make(np.concatenate(columns) for columns in zip(one, two, strict=True))
    first = data.draw(one_order(cut))
    entry_bars = np.minimum(first.entry_bars, np.maximum(0, cut - first.first - rules.latency_bars))
    first = first._replace(last=np.array([cut - 1]), entry_bars=entry_bars)
    whole = simulate(both, first._replace(last=np.array([both.open.size - 1])), rules)
    due, leave = (np.where(row == NEVER, NEVER, row - cut) for row in (first.due, first.leave))
    second = first._replace(
        first=np.array([0]), last=np.array([two.open.size - 1]), due=due, leave=np.maximum(leave, 0)
    )
    evening = simulate(one, first, rules)
    morning = simulate(two, second, rules, evening)
    moved = morning.exit_row + np.where(morning.exit_quantity > evening.exit_quantity, cut, 0)
    for name, a, b in zip(Fills._fields, whole, morning._replace(exit_row=moved), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_leaving_ends_the_entry_sends_the_rest_out_at_market_and_changes_nothing_before(data: st.DataObject):
    bars = data.draw(sessions(least=2))
    placed, rules = data.draw(one_order(bars.open.size)), data.draw(RULES)
    never = placed._replace(leave=np.array([NEVER]))
    row = int(placed.leave[0])
    _, without = step_by_step(bars, never.order(0), rules)
    state, fills = step_by_step(bars, placed.order(0), rules)
    before = max(0, min(row - placed.first[0], len(fills)))
    np.testing.assert_array_equal(
        [f.entry + f.exit for f in fills[:before]], [f.entry + f.exit for f in without[:before]]
    )
    assert all(fill.entry.quantity == 0 for fill in fills[before:])
    held = sum(f.entry.quantity - f.exit.quantity for f in fills[:before])
    if before < len(fills) and held > 0 and state.leaving == ExitReason.TIME:
        out = next((fill.exit for fill in fills[before:] if fill.exit.quantity > 0), None)
        bar = bars.bar(out.row) if out else None
        moved = 1.0 + rules.noise * placed.volatility[0] * placed.noise_exit[0]
        assert out is None or bar is None or out.reference == min(max(bar.open * moved, bar.low), bar.high)
    assert state.exit.quantity == state.entry.quantity or row > placed.last[0] or state.leaving != ExitReason.OPEN
