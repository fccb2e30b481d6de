"""The backtester: equity at each close worked by hand; episodes of the environment in tests/rl agree with it."""

import numpy as np
import pytest

from odin_core.execution.backtest import Backtest, backtest
from odin_core.execution.costs import ChargeRates, CostSchedule
from odin_core.execution.orders import Bars, ExecutionRules, Orders

FREE = CostSchedule(intraday=ChargeRates(), delivery=ChargeRates())
TAXED = CostSchedule(intraday=ChargeRates(sell_tax_rate=0.01), delivery=ChargeRates(buy_tax_rate=0.02))
RULES = ExecutionRules(half_spread_bps=0, slippage_volatility=0, impact=0, noise=0, max_participation=1, lot=0)


def market(closes: list[float], volume: list[float] | None = None) -> Bars:
    """Each bar opens at the close before it, the first at 100."""
    close = np.array(closes)
    open_ = np.r_[100.0, close[:-1]]
    traded = np.full(close.size, 1000.0) if volume is None else np.array(volume)
    return Bars(open_, np.maximum(open_, close), np.minimum(open_, close), close, traded)


def orders(**fields: object) -> Orders:
    return Orders.of(**({"side": 1, "quantity": 10.0, "volatility": 0.0} | fields))  # type: ignore[arg-type]


def run(bars: Bars, placed: Orders, sessions: list[int], costs: CostSchedule = FREE, **rest: float) -> Backtest:
    ends = np.array(sessions)
    return backtest(
        bars,
        placed,
        session_end=ends,
        start=0,
        end=bars.open.size - 1,
        rules=RULES,
        costs=costs,
        capital=5000.0,
        **rest,
    )


def test_equity_follows_the_closes_from_the_entry_to_the_exit_and_stays_then():
    bars = market([100, 101, 103, 102, 90])
    told = run(bars, orders(first=1, last=4, due=3), [4] * 5)
    assert told.equity.tolist() == [5000, 5010, 5030, 5020, 5020]
    assert told.held.tolist() == [0, 10, 10, 0, 0]
    short = run(bars, orders(side=-1, first=1, last=4, leave=3), [4] * 5)  # out at the open of row 3, which is 103
    assert short.equity.tolist() == [5000, 4990, 4970, 4970, 4970]
    assert short.held.tolist() == [0, -10, -10, 0, 0]


def test_charges_come_when_a_side_is_executed_and_count_as_cost():
    told = run(market([100, 101, 103, 102]), orders(first=1, last=3, due=2), [3] * 4, TAXED)
    assert told.equity.tolist() == pytest.approx([5000, 5010, 5030 - 10.3, 5030 - 10.3])
    assert told.cost.tolist() == pytest.approx([0, 0, 10.3, 10.3])
    doubled = run(market([100, 101, 103, 102]), orders(first=1, last=3, due=2), [3] * 4, TAXED, cost_factor=2.0)
    assert doubled.cost[-1] == pytest.approx(20.6)


def test_what_cannot_be_sold_by_the_close_is_carried_and_charged_as_delivery_from_there_on():
    bars = market([100, 101, 103, 102, 104], [1000, 1000, 4, 6, 1000])
    told = run(bars, orders(first=1, last=2, due=2), [2, 2, 2, 4, 4], TAXED)
    assert told.held.tolist() == [0, 10, 6, 0, 0]
    # bought at 100 for 1,000: 2 % = 20 from the close of row 2 on; 4 sold at 103 there, 6 at 103 at the next open
    assert told.equity.tolist() == pytest.approx([5000, 5010, 5010, 5010, 5010])
    assert told.cost.tolist() == pytest.approx([0, 0, 20, 20, 20])


def test_orders_follow_each_other_and_add_up():
    bars = market([100, 101, 103, 102, 105])
    placed = orders(first=[1, 3], last=4, due=[1, 3], side=[1, -1])
    assert run(bars, placed, [4] * 5).equity.tolist() == [5000, 5010, 5010, 5020, 5020]
    assert (
        run(bars, orders(first=[], last=[], side=[], quantity=[], volatility=[]), [4] * 5).equity.tolist() == [5000] * 5
    )


def test_orders_that_overlap_or_begin_too_early_are_refused():
    bars = market([100, 101, 103, 102, 105])
    with pytest.raises(ValueError, match="order 1 begins at row 3, before order 0 is over"):
        run(bars, orders(first=[1, 3], last=4, due=4), [4] * 5)
    with pytest.raises(ValueError, match="order 1: first=1; it must lie after the first row of order 0"):
        run(bars, orders(first=[1, 1], last=4, due=4), [4] * 5)
    with pytest.raises(ValueError, match="order 0: first=0; it must lie after the backtest's start, 0"):
        run(bars, orders(first=0, last=4, due=4), [4] * 5)


def test_inputs_are_left_alone():
    bars, placed = market([100, 101, 103, 102]), orders(first=1, last=3, due=2)
    before = [column.copy() for column in (*bars, *placed)]
    run(bars, placed, [3] * 4)
    for a, b in zip(before, (*bars, *placed), strict=True):
        np.testing.assert_array_equal(a, b)
