"""Costs: what broker, exchange and state charge for one executed order, from a market profile's mapping `costs:`.

Half-spread and slippage are part of a fill's price (`execution.fills`), not of its charges. A position that is opened
and closed within one session is intraday on both sides; one that was carried overnight is delivery on both sides."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from odin_core.errors import OdinError, nearest


class CostScheduleInvalid(OdinError):
    def __init__(self, name: str, value: object, rule: str) -> None:
        super().__init__(f"costs: {name}={value!r} cannot be used: {rule}; change it in the market's profile")


@dataclass(frozen=True, kw_only=True)
class ChargeRates:
    """Charges of one executed order. Rates are fractions of its notional (0.001 is 0.1 %), amounts are currency."""

    brokerage_rate: float = 0.0
    brokerage_cap: float | None = None  # at most this much brokerage per executed order; None = no cap
    buy_tax_rate: float = 0.0  # taxes and stamp duty, buy side only
    sell_tax_rate: float = 0.0  # taxes, sell side only
    exchange_rate: float = 0.0
    regulator_rate: float = 0.0
    gst_rate: float = 0.0  # fraction of brokerage + exchange + regulator charges
    fixed_per_sell: float = 0.0  # per executed sell order, its own taxes included

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name == "brokerage_cap":
                continue
            number = value if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
            if not 0 <= number < float("inf"):
                raise CostScheduleInvalid(field.name, value, "it must be a finite number, 0 or more")
            if field.name.endswith("_rate") and number >= 1:
                raise CostScheduleInvalid(field.name, value, "a rate is a fraction below 1 (0.1 % is 0.001)")


@dataclass(frozen=True, kw_only=True)
class CostSchedule:
    """A market's charges, intraday and delivery apart.

    NSE equity at Zerodha (source: zerodha.com/charges; a delivery buy pays 0.1 % STT and 0.015 % stamp duty):

    >>> nse = CostSchedule.from_mapping({
    ...     "intraday": {"brokerage_rate": 0.0003, "brokerage_cap": 20, "buy_tax_rate": 0.00003,
    ...                  "sell_tax_rate": 0.00025, "exchange_rate": 0.0000297, "regulator_rate": 0.000001,
    ...                  "gst_rate": 0.18},
    ...     "delivery": {"buy_tax_rate": 0.00115, "sell_tax_rate": 0.001, "exchange_rate": 0.0000297,
    ...                  "regulator_rate": 0.000001, "gst_rate": 0.18, "fixed_per_sell": 15.34}})
    >>> charges(nse.intraday, side_is_buy=[True, False], notional=100_000.0).round(4).tolist()
    [30.2226, 52.2226]
    """

    intraday: ChargeRates
    delivery: ChargeRates

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """From a profile's `costs:`, both sections required; what is left out is 0. Raises CostScheduleInvalid."""
        _require_names(mapping, [field.name for field in fields(cls)], "costs")
        sections = {field.name: _section(mapping, field.name) for field in fields(cls)}
        return cls(**sections)


def _section(mapping: Mapping[str, Any], name: str) -> ChargeRates:
    section = mapping.get(name)
    if not isinstance(section, Mapping):
        raise CostScheduleInvalid(name, section, "the sections intraday and delivery must both be mappings of rates")
    _require_names(section, [field.name for field in fields(ChargeRates)], name)
    return ChargeRates(**section)


def _require_names(mapping: Mapping[str, Any], known: list[str], where: str) -> None:
    for name in mapping:
        if name not in known:
            raise CostScheduleInvalid(name, mapping[name], f"{where} has no such entry; {nearest(str(name), known)}")


def charges(rates: ChargeRates, side_is_buy: npt.ArrayLike, notional: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Total charges of each executed order, currency, 0 or more; both arguments broadcast, the result has their shape.

    `notional` is quantity · price of the whole order, 0 or more; 0 costs nothing, NaN gives NaN. Not rounded (brokers
    round taxes to the rupee). Raises ValueError for a negative notional."""
    is_buy, value = np.broadcast_arrays(np.asarray(side_is_buy, np.bool_), np.asarray(notional, np.float64))
    if (value < 0).any():
        raise ValueError(f"notional={value.min()}; it must be 0 or more, the side is told by side_is_buy")
    from odin_core.execution.charging import charge_each, compiled_rates  # loads the compiler

    each = charge_each(compiled_rates(rates), is_buy.ravel(), value.ravel())
    return each.reshape(value.shape)
