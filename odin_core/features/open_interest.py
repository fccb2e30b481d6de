"""The open-interest set: how many contracts are held, on which side of the price, and what options say of the future.

A symbol's own open interest comes with its bars (futures, options); the rest are series of its option chains
(`market.options.series`), as they were known. A continuous future's open interest jumps where the contract rolls."""

from typing import Final

import numpy as np

from odin_core.features.catalogue import feature, known
from odin_core.features.facts import Facts
from odin_core.features.rolling import lag, ratio, relative
from odin_core.features.series import Bars, FloatArray, Runs

INTERVALS: Final = ("5m", "60m", "day")
PER_CENT: Final = 100.0


@feature(
    intervals=INTERVALS, variants=((1,), (12,)), warm_up=lambda count: count, unit="fraction", bounds=(-1.0, np.inf),
    needs={"oi"}, source="Bessembinder & Seguin 1993",
)  # fmt: skip
def oi_change(bars: Bars, runs: Runs, count: int = 1) -> FloatArray:
    """Open interest over that of `count` bars before, − 1. NaN where either is unknown or the earlier is zero."""
    return relative(bars.oi, lag(bars.oi, runs, count))


@feature(
    intervals=INTERVALS, variants=((1,), (12,)), warm_up=lambda count: count, unit="−1, −½, 0, ½ or 1",
    bounds=(-1.0, 1.0), mirror=0.0, needs={"oi"}, source="Murphy 1999, chapter 7",
)  # fmt: skip
def oi_buildup(bars: Bars, runs: Runs, count: int = 1) -> FloatArray:
    """Price and open interest over `count` bars: 1 long build-up (both rose), ½ short covering (price rose, interest
    fell), −½ long unwinding (both fell), −1 short build-up (price fell, interest rose), 0 where either did not change.
    NaN where either open interest is unknown."""
    price = np.sign(bars.close - lag(bars.close, runs, count))
    held = np.sign(bars.oi - lag(bars.oi, runs, count))
    return price * np.where(held < 0.0, 0.5, held)


@known(needs={"put_call_oi"}, unit="ratio", bounds=(0.0, np.inf), source="Pan & Poteshman 2006, of positions")
def put_call_oi(facts: Facts) -> FloatArray:
    """Open interest of puts over that of calls, all expiries. NaN where unknown or no call is held."""
    return facts.first("put_call_oi")


@known(needs={"put_call_volume"}, unit="ratio", bounds=(0.0, np.inf), source="Pan & Poteshman 2006")
def put_call_volume(facts: Facts) -> FloatArray:
    """Volume of puts over that of calls in the session so far, all expiries. NaN where unknown or no call traded."""
    return facts.first("put_call_volume")


@known(
    needs={"put_oi", "call_oi", "put_oi_change", "call_oi_change"}, unit="share of what is held",
    source="Fodor, Krieger & Doran 2011, puts less calls",
)  # fmt: skip
def put_call_oi_change(facts: Facts) -> FloatArray:
    """(Change of puts − change of calls) / (puts + calls), in open interest since the close before. NaN where one is
    unknown or nothing is held."""
    change = facts.first("put_oi_change") - facts.first("call_oi_change")
    return ratio(change, facts.first("put_oi") + facts.first("call_oi"))


@known(needs={"max_pain_distance"}, unit="fraction", source="Ni, Pearson & Poteshman 2005, on pinning")
def max_pain_distance(facts: Facts) -> FloatArray:
    """The strike at which the next expiry's options pay least, over the forward, − 1. NaN where unknown."""
    return facts.first("max_pain_distance")


@known(needs={"volatility_30d"}, unit="per √year", bounds=(0.0, np.inf), source="Black 1976, inverted")
def implied_volatility(facts: Facts) -> FloatArray:
    """Volatility implied at the money for 30 days, 0.2 is 20 %. NaN where unknown."""
    return facts.first("volatility_30d")


@known(needs={"volatility", "volatility_30d"}, unit="ratio − 1", source="term structure, Mixon 2007, as a ratio")
def implied_slope(facts: Facts) -> FloatArray:
    """Volatility of the next expiry over that for 30 days, − 1: positive where the near future is the more feared.
    NaN where either is unknown."""
    return ratio(facts.first("volatility"), facts.first("volatility_30d")) - 1.0


@known(needs={"skew"}, unit="per √year", source="Xing, Zhang & Zhao 2010, by delta")
def implied_skew(facts: Facts) -> FloatArray:
    """Volatility of the put less that of the call of delta ¼, next expiry. NaN where unknown."""
    return facts.first("skew")


@known(needs={"variance_index"}, unit="per √year", bounds=(0.0, np.inf), source="Cboe VIX White Paper 2019")
def variance_index(facts: Facts) -> FloatArray:
    """Volatility for 30 days out of the whole strip of options in VIX's manner, as a fraction. NaN where unknown."""
    return facts.first("variance_index") / PER_CENT


@known(needs={"india_vix"}, unit="per √year", bounds=(0.0, np.inf), source="NSE India VIX White Paper 2008")
def india_vix(facts: Facts) -> FloatArray:
    """The exchange's India VIX, last value of the session, as a fraction. NaN where unknown."""
    return facts.first("india_vix") / PER_CENT
