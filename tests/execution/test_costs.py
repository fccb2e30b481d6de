"""Charges of an executed order: worked by hand for NSE equity, laws, and what a profile may get wrong."""

import doctest
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from odin_core.execution import costs
from odin_core.execution.costs import ChargeRates, CostSchedule, CostScheduleInvalid, charges

NSE = CostSchedule.from_mapping(
    yaml.safe_load(
        """
        intraday:
          brokerage_rate: 0.0003
          brokerage_cap: 20
          buy_tax_rate: 0.00003
          sell_tax_rate: 0.00025
          exchange_rate: 0.0000297
          regulator_rate: 0.000001
          gst_rate: 0.18
        delivery:
          brokerage_cap: null
          buy_tax_rate: 0.00115
          sell_tax_rate: 0.001
          exchange_rate: 0.0000297
          regulator_rate: 0.000001
          gst_rate: 0.18
          fixed_per_sell: 15.34
        """
    )
)


def test_an_intraday_buy_below_the_cap_pays_rate_exchange_regulator_gst_and_stamp():
    # 50,000: brokerage 15, exchange 1.485, SEBI 0.05, GST 18 % of 16.535 = 2.9763, stamp 1.5
    assert charges(NSE.intraday, True, 50_000.0) == pytest.approx(15 + 1.485 + 0.05 + 2.9763 + 1.5)


def test_an_intraday_sell_above_the_cap_pays_twenty_and_transaction_tax():
    # 200,000: brokerage min(60, 20), exchange 5.94, SEBI 0.2, GST 18 % of 26.14 = 4.7052, STT 50
    assert charges(NSE.intraday, False, 200_000.0) == pytest.approx(20 + 5.94 + 0.2 + 4.7052 + 50)


def test_delivery_pays_transaction_tax_on_both_sides_and_the_depository_on_sells():
    # 100,000: exchange 2.97, SEBI 0.1, GST 18 % of 3.07 = 0.5526; buy STT 100 + stamp 15; sell STT 100 + 15.34
    buy, sell = charges(NSE.delivery, [True, False], 100_000.0)
    assert buy == pytest.approx(3.6226 + 115)
    assert sell == pytest.approx(3.6226 + 100 + 15.34)


def test_the_example_of_the_docstring_runs():
    outcome = doctest.testmod(costs)
    assert outcome.attempted >= 2
    assert outcome.failed == 0


def test_nothing_executed_costs_nothing_and_an_unknown_notional_costs_an_unknown_amount():
    np.testing.assert_array_equal(charges(NSE.delivery, [True, False, False], [0.0, 0.0, np.nan]), [0, 0, np.nan])


def test_a_negative_notional_is_refused():
    with pytest.raises(ValueError, match=r"notional=-5\.0"):
        charges(NSE.intraday, False, [1.0, -5.0])


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.booleans())
def test_two_orders_never_cost_less_than_one_of_both(a: float, b: float, buy: bool):
    apart, together = charges(NSE.intraday, buy, [a, b]).sum(), charges(NSE.intraday, buy, a + b)
    assert apart >= together * (1 - 1e-12)


def test_inputs_are_left_alone():
    sides, notional = np.array([True, False]), np.array([10.0, 20.0])
    charges(NSE.intraday, sides, notional)
    assert (sides.tolist(), notional.tolist()) == ([True, False], [10.0, 20.0])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"intraday": {}}, "delivery=None .* must both be mappings"),
        ({"intraday": {}, "delivery": 0.1}, "delivery=0.1 .* must both be mappings"),
        ({"intraday": {}, "delivery": {}, "futures": {}}, "futures={} .* no such entry; known: delivery, intraday"),
        ({"intraday": {"brokerage": 1}, "delivery": {}}, "brokerage=1 .* did you mean brokerage_cap, brokerage_rate"),
        ({"intraday": {"gst_rate": 18}, "delivery": {}}, "gst_rate=18 .* fraction below 1"),
        ({"intraday": {"gst_rate": "18 %"}, "delivery": {}}, "gst_rate='18 %' .* finite number"),
        ({"intraday": {"brokerage_cap": -1}, "delivery": {}}, "brokerage_cap=-1 .* 0 or more"),
        ({"intraday": {"exchange_rate": None}, "delivery": {}}, "exchange_rate=None .* finite number"),
    ],
)
def test_a_schedule_that_cannot_be_used_names_entry_value_and_rule(mapping: dict[str, Any], message: str):
    with pytest.raises(CostScheduleInvalid, match=message):
        CostSchedule.from_mapping(mapping)


def test_a_schedule_of_nothing_is_free():
    free = CostSchedule(intraday=ChargeRates(), delivery=ChargeRates())
    assert charges(free.intraday, False, 1e6) == 0
