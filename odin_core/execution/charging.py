"""The one formula of charges, compiled: `costs.charges` runs it over arrays, the environment in its step.

Apart from `execution.costs`, so that reading a profile does not load the compiler. Compiled code is cached and numba
watches this file only; another module's kernel that calls `charge` has to watch it too."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from odin_core.execution.costs import ChargeRates


class Rates(NamedTuple):
    """`ChargeRates` in the form that compiled code takes; no cap is infinite."""

    brokerage_rate: float
    brokerage_cap: float
    buy_tax_rate: float
    sell_tax_rate: float
    exchange_rate: float
    regulator_rate: float
    gst_rate: float
    fixed_per_sell: float


def compiled_rates(rates: ChargeRates) -> Rates:
    """The same rates as floats."""
    values = {name: getattr(rates, name) for name in Rates._fields}
    cap = np.inf if rates.brokerage_cap is None else rates.brokerage_cap
    return Rates(**{name: float(value) for name, value in (values | {"brokerage_cap": cap}).items()})


@njit(cache=True, nogil=True)
def charge(rates: Rates, is_buy: bool, notional: float) -> float:
    """Charges of one executed order, currency: 0 for a notional of 0, NaN for NaN."""
    if np.isnan(notional):
        return np.nan
    brokerage = min(rates.brokerage_rate * notional, rates.brokerage_cap)
    venue = (rates.exchange_rate + rates.regulator_rate) * notional
    taxes = (rates.buy_tax_rate if is_buy else rates.sell_tax_rate) * notional
    fixed = 0.0 if is_buy or notional == 0.0 else rates.fixed_per_sell
    return (brokerage + venue) * (1.0 + rates.gst_rate) + taxes + fixed


@njit(cache=True, nogil=True)
def charge_each(rates: Rates, is_buy: NDArray[np.bool_], notional: NDArray[np.float64]) -> NDArray[np.float64]:
    """`charge` of each element, (n,)."""
    out = np.empty(notional.size)
    for i in range(notional.size):
        out[i] = charge(rates, is_buy[i], notional[i])
    return out
