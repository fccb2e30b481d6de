"""The fill engine: each rule as a sentence with numbers worked by hand. Properties: test_fill_properties."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from odin_core.execution.fills import simulate, slippage_rate
from odin_core.execution.orders import (
    NEVER,
    Bars,
    ExecutionRuleInvalid,
    ExecutionRules,
    ExitReason,
    Fills,
    OrderKind,
    Orders,
    VolumeKind,
)

FREE = ExecutionRules(half_spread_bps=0, slippage_volatility=0, impact=0, noise=0, max_participation=1, lot=0)
COSTLY = ExecutionRules(half_spread_bps=5, slippage_volatility=0.1, impact=1, noise=0, max_participation=1, lot=0)


def market(*rows: tuple[float, float, float, float, float]) -> Bars:
    """Bars from (open, high, low, close, volume)."""
    return Bars(*np.array(rows, dtype=np.float64).T)


def quiet(price: float = 100.0, volume: float = 1000.0) -> tuple[float, float, float, float, float]:
    return price, price + 0.5, price - 0.5, price, volume


def orders(bars: Bars, **fields: Any) -> Orders:
    return Orders.of(
        **({"side": 1, "quantity": 10.0, "first": 0, "last": bars.open.size - 1, "volatility": 0.0} | fields)
    )


def run(bars: Bars, rules: ExecutionRules = FREE, state: Fills | None = None, **fields: Any) -> dict[str, Any]:
    """The one order's outcome as plain values, reason as text."""
    fills = simulate(bars, orders(bars, **fields), rules, state)
    row = fills.frame().row(0, named=True)
    return row | {"reason": ExitReason(row["reason"]).name, "fills": fills}


# --- price of a fill --------------------------------------------------------------------------------------------------


def test_half_spread_and_slippage_come_on_top_of_the_open_and_are_recorded_apart():
    # 5 bp of 100 = 0.05; 25 of 100 shares: √0.25 = 0.5, so 100 · 0.001 · (0.1 + 1 · 0.5) = 0.06
    out = run(market((100, 100.01, 99.99, 100, 100)), COSTLY, quantity=25.0, volatility=0.001)
    assert out["entry_reference"] == 100
    assert out["entry_half_spread"] == pytest.approx(0.05)
    assert out["entry_slippage"] == pytest.approx(0.06)
    assert out["entry_price"] == pytest.approx(100.11)  # above the bar's high of 100.01: never clipped into it


def test_a_short_sells_below_the_reference_and_buys_back_above_it():
    bars = market(quiet(), quiet())
    out = run(bars, COSTLY, side=-1, quantity=40.0, volatility=0.001, due=1)
    # √(40 / 1000) = 0.2: slippage 100 · 0.001 · 0.3 = 0.03
    assert (out["entry_price"], out["exit_price"]) == pytest.approx((99.92, 100.08))
    assert (out["entry_reference"], out["exit_reference"], out["reason"]) == (100, 100, "TIME")


def test_noise_moves_the_market_reference_and_scales_slippage():
    rules = ExecutionRules(half_spread_bps=5, slippage_volatility=0.1, impact=1, noise=0.5, max_participation=1)
    out = run(market(quiet(volume=100)), rules, quantity=25.0, volatility=0.001, noise_entry=1.0)
    # open · (1 + 0.5 · 0.001 · 1) = 100.05; slippage 100.05 · 0.001 · 0.6 · 1.5 = 0.090045
    assert out["entry_reference"] == pytest.approx(100.05)
    assert out["entry_half_spread"] == pytest.approx(0.050025)
    assert out["entry_slippage"] == pytest.approx(0.090045)


def test_noise_never_takes_the_reference_out_of_the_bar_nor_pays_for_trading():
    rules = ExecutionRules(half_spread_bps=5, noise=0.5)
    out = run(market(quiet()), rules, volatility=0.01, noise_entry=-9.0)
    assert out["entry_reference"] == 99.5  # the low; 100 · (1 - 0.045) = 95.5 lies below it
    assert out["entry_slippage"] == 0  # max(0, 1 - 4.5)


def test_slippage_grows_with_the_square_root_of_participation():
    rules = ExecutionRules(slippage_volatility=0, impact=1, noise=0).compiled
    assert slippage_rate(0.02, 0.09, 0.0, rules) == pytest.approx(3 * slippage_rate(0.02, 0.01, 0.0, rules))
    assert slippage_rate(0.02, 0.01, 0.0, rules) == pytest.approx(0.002)


# --- entries ----------------------------------------------------------------------------------------------------------


def test_latency_lets_bars_pass_before_the_entry_works():
    bars = market(quiet(100), quiet(101), quiet(102), quiet(103))
    rules = ExecutionRules(half_spread_bps=0, slippage_volatility=0, impact=0, noise=0, latency_bars=2)
    assert run(bars, rules)["entry_reference"] == 102
    assert run(bars, rules, first=1)["entry_row"] == 3
    assert run(bars, rules, first=2)["reason"] == "UNFILLED"


def test_a_limit_waits_for_its_price_and_pays_nothing_on_top_of_it():
    bars = market(quiet(100), (100, 100.5, 98.9, 99.5, 1000))
    out = run(bars, COSTLY, kind=OrderKind.LIMIT, price=99.0, entry_bars=2, volatility=0.001)
    assert (out["entry_row"], out["entry_reference"], out["entry_price"]) == (1, 99, 99)
    assert (out["entry_half_spread"], out["entry_slippage"]) == (0, 0)


def test_a_limit_beyond_the_open_fills_at_the_open_and_pays_costs_up_to_its_price():
    bars = market(quiet(100))
    wide = run(bars, COSTLY, kind=OrderKind.LIMIT, price=101.0, quantity=40.0, volatility=0.001)
    assert (wide["entry_reference"], wide["entry_price"]) == pytest.approx((100, 100.08))
    narrow = run(bars, COSTLY, kind=OrderKind.LIMIT, price=100.06, quantity=40.0, volatility=0.001)
    assert narrow["entry_price"] == 100.06
    assert (narrow["entry_half_spread"], narrow["entry_slippage"]) == pytest.approx((0.05, 0.01))


def test_a_sell_limit_waits_above_the_market():
    bars = market(quiet(100), (100, 102, 99.5, 101, 1000))
    out = run(bars, COSTLY, side=-1, kind=OrderKind.LIMIT, price=101.5, entry_bars=2)
    assert (out["entry_row"], out["entry_price"]) == (1, 101.5)


def test_a_stop_entry_triggers_at_its_price_and_pays_costs_beyond_it():
    bars = market(quiet(100), (100, 102, 99.5, 101, 1000))
    out = run(bars, COSTLY, kind=OrderKind.STOP, price=101.5, entry_bars=2)
    assert (out["entry_row"], out["entry_reference"]) == (1, 101.5)
    assert out["entry_price"] == pytest.approx(101.5 + 0.05075)


def test_a_stop_entry_jumped_by_a_gap_fills_at_the_open():
    out = run(market(quiet(100), quiet(105)), kind=OrderKind.STOP, price=101.5, entry_bars=2)
    assert (out["entry_row"], out["entry_reference"]) == (1, 105)


def test_an_entry_takes_its_share_of_each_bar_and_what_is_left_is_cancelled_after_entry_bars():
    rules = ExecutionRules(half_spread_bps=0, slippage_volatility=0, impact=0, noise=0, max_participation=0.1)
    bars = market(quiet(100, 100), quiet(102, 57), quiet(110, 10_000))
    out = run(bars, rules, quantity=40.0, entry_bars=2)
    assert out["entry_quantity"] == 15  # 10 % of 100, and 5 whole lots of 5.7
    assert out["entry_reference"] == pytest.approx((10 * 100 + 5 * 102) / 15)
    assert (out["entry_row"], out["open"]) == (0, True)
    assert run(bars, rules, quantity=40.0, entry_bars=3)["entry_quantity"] == 40


def test_an_instrument_s_own_lot_counts_instead_of_the_market_s():
    rules = ExecutionRules(half_spread_bps=0, slippage_volatility=0, impact=0, noise=0, max_participation=0.1)
    bars = market(quiet(100, 57))
    assert run(bars, rules, quantity=40.0)["entry_quantity"] == 5
    assert run(bars, rules, quantity=40.0, lot=2.0)["entry_quantity"] == 4
    assert run(bars, rules, quantity=40.0, lot=0.25)["entry_quantity"] == 5.5
    with pytest.raises(ValueError, match="lot=-1"):
        run(bars, rules, quantity=40.0, lot=-1.0)


def test_a_triggered_stop_entry_goes_on_at_market():
    bars = market((100, 102, 100, 101, 4), quiet(99, 100))
    out = run(bars, kind=OrderKind.STOP, price=101.0, entry_bars=2)
    assert out["entry_quantity"] == 10
    assert out["entry_reference"] == pytest.approx((4 * 101 + 6 * 99) / 10)


def test_a_stop_entry_touched_in_a_bar_too_thin_for_a_lot_is_triggered_all_the_same():
    rules = ExecutionRules(half_spread_bps=0, noise=0, slippage_volatility=0, impact=0, max_participation=0.1)
    bars = market((100, 102, 100, 101, 4), quiet(99, 100))
    out = run(bars, rules, kind=OrderKind.STOP, price=101.0, entry_bars=2)
    assert (out["entry_row"], out["entry_reference"]) == (1, 99)


def test_no_entry_begins_after_the_time_exit_is_due():
    bars = market(quiet(100, 0), quiet(100, 0), quiet())
    assert run(bars, entry_bars=3, due=1)["reason"] == "UNFILLED"


# --- volume -----------------------------------------------------------------------------------------------------------


def test_a_bar_without_traded_volume_fills_and_triggers_nothing():
    bars = market(quiet(100, 0), quiet(101), (101, 101, 50, 60, 0), (101, 101, 50, 60, math.nan), quiet(101))
    out = run(bars, entry_bars=5, stop_distance=5.0, due=3)
    assert (out["entry_row"], out["exit_row"], out["reason"]) == (1, 4, "TIME")


@pytest.mark.parametrize(("kind", "volume"), [(VolumeKind.TICKS, 0.0), (VolumeKind.NONE, math.nan)])
def test_where_volume_is_not_traded_it_limits_nothing_and_adds_no_impact(kind: VolumeKind, volume: float):
    rules = ExecutionRules(half_spread_bps=0, slippage_volatility=0.5, impact=9, noise=0, volume=kind)
    out = run(market(quiet(100, volume), quiet(100, volume)), rules, quantity=1e6, volatility=0.01, due=1)
    assert (out["entry_quantity"], out["exit_quantity"]) == (1e6, 1e6)
    assert out["entry_slippage"] == pytest.approx(0.5)  # 100 · 0.01 · 0.5


# --- exits ------------------------------------------------------------------------------------------------------------


def test_a_stop_inside_the_bar_fills_at_its_level_and_costs_come_below_it():
    bars = market(quiet(), (100, 100.5, 97.5, 99, 1000))
    out = run(bars, COSTLY, stop_distance=2.0)
    assert (out["exit_reference"], out["reason"]) == (98, "STOP")
    assert out["exit_price"] == pytest.approx(98 - 98 * 0.0005)


def test_a_stop_jumped_by_a_gap_fills_at_the_first_open():
    out = run(market(quiet(), (95, 99, 94, 98, 1000)), stop_distance=2.0)
    assert (out["exit_reference"], out["reason"]) == (95, "STOP")
    short = run(market(quiet(), (105, 106, 99, 100, 1000)), side=-1, stop_distance=2.0)
    assert (short["exit_reference"], short["reason"]) == (105, "STOP")


def test_a_target_never_sells_below_its_level():
    out = run(market(quiet(), (100, 102.5, 99.5, 101, 1000)), COSTLY, target_distance=2.0, volatility=0.01)
    assert (out["exit_reference"], out["exit_price"], out["reason"]) == (102, 102, "TARGET")


def test_a_target_jumped_by_a_gap_gets_the_better_open():
    out = run(market(quiet(), quiet(104)), COSTLY, target_distance=2.0)
    assert (out["exit_reference"], out["reason"]) == (104, "TARGET")
    assert out["exit_price"] == pytest.approx(104 - 0.052)


@pytest.mark.parametrize("open_", [100.0, 104.0])
def test_the_stop_comes_first_when_one_bar_holds_both(open_: float):
    out = run(market(quiet(), (open_, 105, 95, 100, 1000)), stop_distance=2.0, target_distance=2.0)
    assert (out["exit_reference"], out["reason"]) == (98, "STOP")


def test_an_entry_at_the_open_may_reach_its_target_in_the_same_bar():
    out = run(market((100, 103, 99, 100, 1000)), target_distance=2.0)
    assert (out["exit_row"], out["exit_reference"], out["reason"]) == (0, 102, "TARGET")


def test_an_entry_away_from_the_open_cannot_reach_its_target_in_the_same_bar_but_its_stop():
    bars = market((100, 103, 98.5, 100, 1000), quiet(100))
    limit = {"kind": OrderKind.LIMIT, "price": 99.0, "target_distance": 2.0}
    assert run(bars, **limit)["reason"] == "OPEN"
    stopped = run(bars, **limit, stop_distance=0.5)
    assert (stopped["exit_row"], stopped["exit_reference"], stopped["reason"]) == (0, 98.5, "STOP")


def test_an_open_before_a_stop_entry_does_not_jump_its_protective_stop():
    out = run(market((100, 102, 99.5, 101, 1000)), kind=OrderKind.STOP, price=101.0, stop_distance=0.5)
    assert (out["exit_reference"], out["reason"]) == (100.5, "STOP")


def test_the_time_exit_leaves_at_the_close_of_the_due_bar_after_stop_and_target():
    bars = market(quiet(), (100, 101, 99, 100.75, 1000))
    assert run(bars, due=1)["exit_reference"] == 100.75
    assert run(bars, due=1, stop_distance=1.0)["exit_reference"] == 99
    assert run(bars, due=1, target_distance=1.0)["exit_reference"] == 101


def test_a_due_bar_that_does_not_fill_sends_the_exit_to_the_open_of_the_next_that_does():
    out = run(market(quiet(), quiet(101, 0), quiet(102)), due=1)
    assert (out["exit_row"], out["exit_reference"], out["reason"]) == (2, 102, "TIME")


def test_a_partial_exit_goes_on_at_market_in_the_next_bars_and_keeps_its_reason():
    bars = market(quiet(100), (100, 103, 100, 103, 6), quiet(99, 3), quiet(98, 100))
    out = run(bars, COSTLY, target_distance=2.0)
    assert (out["exit_quantity"], out["exit_row"], out["reason"]) == (10, 3, "TARGET")
    assert out["exit_reference"] == pytest.approx((6 * 102 + 3 * 99 + 1 * 98) / 10)


def test_a_stop_cancels_what_is_left_of_the_entry():
    bars = market(quiet(100, 4), (97, 98, 96, 97, 100), quiet(97))
    out = run(bars, entry_bars=3, stop_distance=2.0)
    assert (out["entry_quantity"], out["exit_quantity"], out["exit_reference"]) == (4, 4, 97)


def test_entry_and_exit_share_the_bar():
    bars = market((100, 101, 97, 99, 12), quiet(96, 100))
    out = run(bars, stop_distance=2.0)
    assert (out["exit_quantity"], out["exit_row"]) == (10, 1)  # 2 of the 12 were left for the stop, 8 follow at 96
    assert out["exit_reference"] == pytest.approx((2 * 98 + 8 * 96) / 10)


def test_a_target_that_finds_no_volume_left_waits_and_a_stop_does_not():
    bars = market((100, 103, 97, 99, 10), quiet(99))
    assert run(bars, target_distance=2.0)["reason"] == "OPEN"
    out = run(bars, stop_distance=2.0)
    assert (out["exit_row"], out["exit_reference"], out["reason"]) == (1, 99, "STOP")


def test_a_decision_to_leave_goes_out_at_the_open_of_that_row_before_stop_and_target():
    bars = market(quiet(100), quiet(101), (103, 110, 90, 104, 1000), quiet(104))
    out = run(bars, leave=2, stop_distance=5.0, target_distance=5.0, due=3)
    assert (out["exit_row"], out["exit_reference"], out["reason"]) == (2, 103, "TIME")


def test_a_decision_to_leave_cancels_what_is_left_of_the_entry_and_goes_on_until_all_is_out():
    bars = market(quiet(100, 4), quiet(101, 3), quiet(102, 5))
    out = run(bars, quantity=10.0, entry_bars=3, leave=1)
    assert (out["entry_quantity"], out["exit_quantity"], out["exit_row"]) == (4, 4, 2)
    assert out["exit_reference"] == pytest.approx((3 * 101 + 1 * 102) / 4)
    assert run(market(quiet(100, 0), quiet()), entry_bars=2, leave=1)["reason"] == "UNFILLED"


# --- overnight --------------------------------------------------------------------------------------------------------


def test_what_is_held_at_the_last_bar_stays_open_and_a_stop_jumped_overnight_fills_at_the_first_open():
    first = run(market(quiet(), quiet()), stop_distance=2.0, due=NEVER)
    assert (first["open"], first["reason"], first["exit_quantity"]) == (True, "OPEN", 0)
    assert math.isnan(first["exit_price"])
    second = run(market(quiet(95), quiet(95)), state=first["fills"], stop_distance=2.0, due=1)
    assert (second["exit_row"], second["exit_reference"], second["reason"]) == (0, 95, "STOP")
    assert (second["entry_reference"], second["open"]) == (100, False)


def test_an_overdue_position_is_forced_out_at_the_next_open():
    first = run(market(quiet(), quiet(100, 0)), due=1)
    assert (first["open"], ExitReason(first["leaving"])) == (True, ExitReason.TIME)
    second = run(market(quiet(103, 0), quiet(104)), state=first["fills"], due=NEVER)
    assert (second["exit_row"], second["exit_reference"], second["reason"]) == (1, 104, "TIME")


def test_a_resumed_order_enters_no_more():
    first = run(market(quiet(100, 4)), entry_bars=NEVER)
    second = run(market(quiet(100)), state=first["fills"], entry_bars=NEVER, due=0)
    assert (second["entry_quantity"], second["exit_quantity"]) == (4, 4)
    nothing = run(market(quiet(100, 0)))
    assert run(market(quiet(100)), state=nothing["fills"])["reason"] == "UNFILLED"


def test_fills_travel_through_a_frame_and_can_be_picked():
    fills = run(market(quiet(), quiet()), quantity=[1.0, 2.0, 0.0])["fills"]
    back = Fills.from_frame(fills.frame())
    for a, b in zip(fills, back, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert fills.take(fills.open).entry_quantity.tolist() == [1.0, 2.0]


# --- what comes in ----------------------------------------------------------------------------------------------------


def test_orders_and_bars_come_from_frames_with_null_volume_as_nan():
    frame = pl.DataFrame(
        {"open": [1.0], "high": [1.0], "low": [1.0], "close": [1.0], "volume": [None]},
        schema_overrides={"volume": pl.Float64},
    )
    assert math.isnan(Bars.from_frame(frame).volume[0])
    columns = pl.DataFrame({"side": [1], "quantity": [2.0], "first": [0], "last": [0], "volatility": [0.1]})
    made = Orders.from_frame(columns)
    assert (made.due[0], made.stop_distance[0], made.kind[0]) == (NEVER, math.inf, OrderKind.MARKET)
    with pytest.raises(ValueError, match="last must hold integers"):
        Orders.from_frame(columns.with_columns(last=pl.lit(None, pl.Int64)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("side", 0),
        ("kind", 3),
        ("quantity", -1.0),
        ("price", math.nan),
        ("stop_distance", 0.0),
        ("target_distance", math.nan),
        ("first", 2),
        ("last", 2),
        ("entry_bars", -1),
        ("volatility", math.nan),
        ("noise_entry", math.inf),
        ("leave", -1),
    ],
)
def test_an_order_that_cannot_run_is_named_with_field_index_and_value(field: str, value: float):
    fields: dict[str, Any] = {"kind": OrderKind.LIMIT, "price": 100.0}
    bars = market(quiet(), quiet())
    with pytest.raises(ValueError, match=f"order 1: {field}={value}"):
        simulate(bars, orders(bars, **(fields | {field: [fields.get(field, _valid(field)), value]})), FREE)


def _valid(field: str) -> float:
    return {"side": 1, "first": 0, "last": 1, "entry_bars": 1}.get(field, 1.0)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"max_participation": 1.5}, r"max_participation=1.5 .* at most 1; change it in the market's profile"),
        ({"impact": math.nan}, "impact=nan .* finite"),
        ({"noise": "much"}, "noise='much' .* number"),
        ({"latency_bars": 0.5}, "latency_bars=0.5 .* whole"),
        ({"volume": "shares"}, "volume='shares' .* traded, ticks, none"),
        ({"half_spread": 1}, "half_spread=1 .* did you mean half_spread_bps"),
    ],
)
def test_a_rule_that_cannot_be_used_names_value_range_and_way_out(mapping: dict[str, Any], message: str):
    with pytest.raises(ExecutionRuleInvalid, match=message):
        ExecutionRules.from_mapping(mapping)


def test_rules_come_from_a_profile_with_defaults_for_what_it_leaves_out():
    assert ExecutionRules.from_mapping({"volume": "ticks"}) == ExecutionRules(volume=VolumeKind.TICKS)


def test_no_orders_give_no_fills():
    empty = Orders.of(side=[], quantity=[], first=[], last=[], volatility=[])
    assert simulate(market(quiet()), empty, FREE).reason.size == 0
